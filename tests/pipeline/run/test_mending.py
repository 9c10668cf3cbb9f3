"""A disk that damages what a run has committed: the same command notices it where it reads, and makes it again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import digest, rasura, write_recipe
from support.engine_recipes import build_recipe_keys

from rasura.manifests.compacted.manifest import read_manifest, read_names
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file: in a picture, where it has some."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: a table with pictures, a selection of it, a flow that reads the pictures, and a dataset."""
    folder = tmp_path_factory.mktemp("finished")
    keys = build_recipe_keys()
    keys["flows"]["copied"] = {
        "source": {"flow": {"of": "chosen"}},
        "stages": [{"synthetic:Triplet": {}}],
    }
    recipe = write_recipe(folder, **keys)
    rasura("run", recipe, "--into", folder / "run")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def repeat(finished: Path, run: Path) -> str:
    """Run the same command again; return what it printed."""
    done = rasura("run", finished / "recipe.yaml", "--into", run)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def list_shards(run: Path, flow: str) -> list[Path]:
    return sorted((run / "tables" / flow / "shards").iterdir())


@pytest.mark.ray
def test_a_flipped_byte_is_never_exported(finished: Path, run: Path) -> None:
    """The dataset is written anew from a table with a flipped byte: the shard is made again before, and the dataset has
    the bytes of the undisturbed one."""
    bad = list_shards(run, "made")[3]
    flip(bad)
    (run / "export.json").unlink()
    printed = repeat(finished, run)
    assert "made: 1 shard that a disk has damaged, made again" in printed
    assert digest(run) == digest(finished / "run")


@pytest.mark.ray
def test_a_flow_that_reads_a_damaged_shard_has_it_made_again(finished: Path, run: Path) -> None:
    """The table that reads it is to be made again; workers meet the flipped byte. One command mends both, at once."""
    bad = list_shards(run, "made")[5]
    flip(bad)
    for name in ("lines", "shards", "dropped", "manifest.parquet"):
        path = run / "tables" / "copied" / name
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    printed = repeat(finished, run)
    assert "made: 1 shard that a disk has damaged, made again" in printed
    assert digest(run) == digest(finished / "run")


@pytest.mark.ray
def test_verify_mends_what_it_finds(finished: Path, run: Path) -> None:
    """Flipped, cut and missing files of every sort: `verify` names them, `--mend` drops them, the same command makes
    them again, and the whole has the bytes of an undisturbed run."""
    made, chosen = list_shards(run, "made"), list_shards(run, "chosen")
    flip(made[1])
    truncate(made[2])
    made[4].unlink()
    flip(next((run / "tables/made/dropped").iterdir()))
    flip(chosen[0])
    empty(next((run / "tables/chosen/lines").glob(f"{chosen[1].stem}.json")))
    flip(next((run / "dataset/data").iterdir()))
    done = rasura("verify", run, check=False)
    assert done.returncode == 1
    assert f"`rasura verify --mend {run}`" in done.stdout
    before = digest(run)
    mended = rasura("verify", "--mend", run, check=False)
    assert mended.returncode == 1
    assert "made: 4 shards dropped" in mended.stdout
    assert "the next run of the recipe makes them again" in mended.stdout
    assert not (run / "export.json").exists()
    assert set(digest(run)) < set(before)
    repeat(finished, run)
    assert digest(run) == digest(finished / "run")
    assert "all is well" in rasura("verify", "--mend", run).stdout
    assert digest(run) == digest(finished / "run")


METADATA = [
    "plan.json",
    "recipe.yaml",
    "export.json",
    "run_id",
    "listings/*/*",
    "listings/*.json",
    "passed_over/*",
    "log/*",
    "tables/made/manifest.parquet",
    "tables/chosen/manifest.parquet",
    "tables/made/work.json",
    "tables/made/lines/*",
    "dataset/manifest.json",
]


def read_contents(run: Path) -> dict[str, object]:
    """All data of a run as bytes, and its manifests as what is read: a few bytes in them say nothing."""
    contents: dict[str, object] = {
        name: sha for name, sha in digest(run).items() if not name.endswith(("/work.json", "/manifest.parquet"))
    }
    for flow in ("made", "chosen", "copied"):
        table = Store(run).sub(f"tables/{flow}")
        records, *columns = read_manifest(table)
        names = read_names(table)
        contents[flow] = list(records), columns, names and names.to_pylist()
    return contents


@pytest.mark.ray
@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_metadata_counts_as_absent(finished: Path, run: Path, damage: Damage) -> None:
    """One file of every sort is damaged: `status`, `verify` and `report` say no word of Python, and the same command
    ends as an undisturbed run."""
    for pattern in METADATA:
        files = sorted(run.glob(pattern))
        for file in files[:1]:
            damage(file)
    for command in (["status"], ["verify"], ["report"]):
        done = rasura(*command, run, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1)
    repeat(finished, run)
    if rasura("verify", "--mend", run, check=False).returncode:  # of what a finished run does not read
        repeat(finished, run)
    assert read_contents(run) == read_contents(finished / "run")
    assert json.loads((run / "export.json").read_text())["rows"] == Tables(Store(run)).table("chosen").rows
    assert "all is well" in rasura("verify", run).stdout
    rasura("status", run)
