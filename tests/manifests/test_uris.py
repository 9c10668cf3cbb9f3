"""A place that is neither a folder nor a URI of a known store is refused before anything is written there."""

from pathlib import Path

import fsspec
import pytest

from rasura.manifests.errors import StorageError
from rasura.manifests.storage import Store


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "'s3://' names no bucket; expected s3://BUCKET/FOLDER"),
        ("s3:///run", "'s3:///run' names no bucket"),
        ("s3:/bucket/run", "'s3:/bucket/run' is neither a folder nor a URI; did you mean 's3://bucket/run'?"),
        ("file:/data/run", "did you mean 'file:///data/run'?"),
        ("foo://bucket/run", "'foo://bucket/run': no store is called 'foo'; available: gs, s3 (or a folder of this"),
        ("S3://bucket/run", "no store is called 'S3'; did you mean 's3'?"),
        ("", "'' names no folder"),
        ("file://", "'file://' names no folder"),
    ],
)
def test_what_is_no_place_is_refused(uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was written, and what may have been meant; no folder of such a name appears."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError) as caught:
        Store(uri)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("scheme", "module", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")])
def test_a_client_that_is_not_installed_names_its_extra(
    scheme: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is the missing module, the remedy the extra that installs it."""

    def fail(name: str) -> None:
        raise ImportError(f"Install {module}") from ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    with pytest.raises(StorageError, match=rf"'{scheme}://b/r' cannot be .*'{module}' is not installed; .*\[{extra}\]"):
        Store(f"{scheme}://b/r")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A run cannot be written into a file."""
    (tmp_path / "notes.txt").write_text("mine")
    store = Store(tmp_path / "notes.txt")
    with pytest.raises(StorageError, match=r"notes\.txt': it is a file; name a folder"), store.lock():
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
