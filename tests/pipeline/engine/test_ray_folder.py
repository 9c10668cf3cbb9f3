"""The folder of a Ray on this machine: nobody else's, and short enough for its sockets."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from rasura.manifests.errors import RunError
from rasura.pipeline.engine import cluster


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short folder, and no RASURA_RAY_TMP."""
    monkeypatch.delenv("RASURA_RAY_TMP", raising=False)
    folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))
    monkeypatch.setattr(cluster, "SHORT_FOLDERS", (str(folder),))
    return folder


def test_it_is_private_and_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short_folder: Path) -> None:
    """Below a temporary folder with a long path there is no room for sockets: the next folder is taken."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = Path(cluster.make_ray_folder())
    assert folder.parent.parent == short_folder
    assert len(os.fsencode(folder)) <= cluster.LONGEST_RAY_FOLDER
    folder.parent.chmod(0o777)
    assert cluster.make_ray_folder() == str(folder)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_what_somebody_else_has_put_there_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short_folder: Path
) -> None:
    """A link, or a file, by the folder's name leads elsewhere: it is refused with its place."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    (short_folder / f"rasura-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(RunError, match="is somebody else's"):
        cluster.make_ray_folder()


def test_a_named_folder_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RASURA_RAY_TMP", str(tmp_path / ("x" * 60)))
    with pytest.raises(RunError, match="more than 43 bytes"):
        cluster.make_ray_folder()
