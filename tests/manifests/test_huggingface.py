"""The dataset as those who train on it see it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import rasura, write_recipe
from support.engine_recipes import build_recipe_keys

from rasura.manifests.formats.dataset_rows import DatasetRow
from rasura.manifests.formats.tables.table_export import pack_rows
from rasura.manifests.ids import assign_split
from rasura.manifests.schemas import TRIPLET, Kind, build_arrow_schema, describe_features, encode_records
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import compute_accounting

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = build_recipe_keys(splits={"test": 0.25, "train": 0.75})
    rasura("run", write_recipe(folder, **recipe), "--into", folder / "run")
    return folder / "run"


def test_load_dataset_opens_it_with_pictures_decoded(finished: Path, tmp_path: Path) -> None:
    """`datasets.load_dataset(folder)` gives every split with PIL pictures, equal to the run's own arrays, and the
    triplet's columns by their names."""
    import datasets

    loaded: Any = datasets.load_dataset(str(finished / "dataset"), cache_dir=str(tmp_path))
    assert set(loaded) == {"train", "test"}
    assert list(TRIPLET) == loaded["train"].column_names[: len(TRIPLET)]
    table = Tables(Store(finished)).table("made")
    truth = {record["id"]: record for record in table.iterate_records()}
    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == compute_accounting(Store(finished)).dataset_rows
    assert rows
    for row in rows:
        assert (np.asarray(row["source"]) == truth[row["id"]]["source"]).all()
        assert (np.asarray(row["mask"]) == truth[row["id"]]["mask"]).all()
        assert row["mask"].mode == "1"
        assert row["stages"][0].keys() == {"name", "value"}


def test_no_scene_is_in_two_splits(finished: Path) -> None:
    """A row's split is the hash of its scene: adding data moves nothing, and a scene's rows stay together."""
    by_scene: dict[str, set[str]] = {}
    for path in (finished / "dataset" / "data").glob("*.parquet"):
        for row in pq.read_table(path, columns=["scene_id", "split"]).to_pylist():
            assert path.name.startswith(row["split"])
            by_scene.setdefault(row["scene_id"], set()).add(row["split"])
            assert row["split"] == assign_split(row["scene_id"], {"test": 0.25, "train": 0.75})
    assert all(len(splits) == 1 for splits in by_scene.values())


def test_files_are_written_as_training_wants_them(finished: Path) -> None:
    """Pictures uncompressed and PLAIN, page index, `huggingface` key, names that say which of how many."""
    for path in (finished / "dataset" / "data").glob("*.parquet"):
        assert path.name.endswith("-00000-of-00001.parquet")
        meta = pq.read_metadata(path)
        columns = [meta.row_group(0).column(i) for i in range(meta.num_columns)]
        pictures = [column for column in columns if column.path_in_schema.endswith(".bytes")]
        assert len(pictures) == 4
        for column in pictures:
            assert column.compression == "UNCOMPRESSED"
            assert "PLAIN" in column.encodings
            assert not any("DICTIONARY" in encoding for encoding in column.encodings)
            assert column.has_offset_index
        assert b"huggingface" in pq.read_schema(path).metadata


def test_features_are_those_of_the_datasets_library() -> None:
    """Our description of the columns is the one that `datasets` itself would read from the Arrow schema."""
    import datasets

    schema = {kind.value: kind for kind in Kind if kind is not Kind.RECORDS}
    ours = datasets.Features.from_dict(describe_features(schema))
    assert ours.arrow_schema.types == build_arrow_schema(schema).types
    assert datasets.Features.from_arrow_schema(build_arrow_schema(schema)) == ours


def test_export_to_another_place_is_a_dataset_of_its_own(finished: Path, tmp_path: Path) -> None:
    """`export` writes the same files elsewhere, with metadata beside them; `verify` takes the folder for itself."""
    rasura("export", finished, "--format", "huggingface", "--out", tmp_path / "copy")
    ours, theirs = finished / "dataset", tmp_path / "copy"
    names = sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file())
    written = {str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file()}
    assert written == {*names, "croissant.json"}
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)
    assert rasura("verify", theirs).returncode == 0
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "only-copy.csv").write_text("x")
    foreign = rasura("export", finished, "--out", tmp_path / "mine", check=False)
    assert foreign.returncode == 1
    assert "holds files of something else (data/only-copy.csv)" in foreign.stderr
    assert (tmp_path / "mine" / "data" / "only-copy.csv").exists()
    wrong = rasura("export", finished, "--format", "tar", "--out", tmp_path / "x", check=False)
    assert wrong.returncode == 2
    printed = " ".join(wrong.stderr.split())
    assert "unknown format 'tar'; available: " in printed
    assert "webdataset" in printed


def test_verify_sees_a_pixel_that_leaks_out_of_the_mask(finished: Path, tmp_path: Path) -> None:
    """A triplet whose target differs from its source outside the foreground mask is named, even by one level in one
    pixel, and even when all hashes agree."""
    import hashlib
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished / "dataset", copy)
    path = next((copy / "data").glob("train-*.parquet"))
    record = Tables(Store(finished)).table("made").row(*_first_train(finished))
    spoilt = record["target"].copy()
    y, x = np.argwhere(~record["foreground_mask"])[0]
    spoilt[y, x, 1] ^= 1
    columns = {**TRIPLET, "number": Kind.INT, "bytes": Kind.INT}
    row = {name: record.get(name) for name in columns} | {"target": spoilt}
    pq.write_table(encode_records([row], columns), path)
    manifest = json.loads((copy / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["name"].endswith(path.name):
            manifest["rows"] += 1 - file["rows"]
            file |= {"rows": 1, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = rasura("verify", copy, check=False)
    assert done.returncode == 1
    assert "1 pixels differ outside the foreground mask" in done.stdout
    assert "1 fault in" in done.stdout


def _first_train(run: Path) -> tuple[str, int]:
    light: pa.Table = Tables(Store(run)).table("made").read_light(["split"])
    row = next(row for row in light.to_pylist() if row["split"] == "train")
    return row["shard"], row["row"]


def test_files_are_packed_by_size_alone() -> None:
    """Rows keep their order, no file is over the limit, a row larger than the limit is alone, none is lost."""
    sizes = [3, 4, 5, 20, 1, 1, 1, 9, 2]
    rows = [DatasetRow(f"{i:02d}", "train", size, "captured", None, "t", "s", i) for i, size in enumerate(sizes)]
    files = pack_rows(rows, 10)
    assert [row for file in files for row in file] == rows
    assert all(sum(row.bytes for row in file) <= 10 or len(file) == 1 for file in files)
    assert len(files) == 6


def test_show_tells_where_a_row_came_from(finished: Path) -> None:
    """`show` goes from a row of the dataset back to its source, and tells where a dropped input ended."""
    tables = Tables(Store(finished))
    id = tables.table("chosen").read_light(["id"])["id"].to_pylist()[0]
    text = rasura("show", id, "--run", finished).stdout
    assert "flow chosen" in text
    assert "flow made" in text
    assert "from number" in text
    lost = tables.table("made").read_rejections().to_pylist()[0]
    text = rasura("show", lost["id"], "--run", finished).stdout
    assert lost["reason"] in text
    unknown = rasura("show", "zzz", "--run", finished, check=False)
    assert unknown.returncode == 1
    assert "no row and no rejected input has an id like 'zzz'" in unknown.stderr
