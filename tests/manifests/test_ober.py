"""OBER's Parquet layout: what is written is what ObjectClear's loader expects, and what is read is what was written."""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import rasura, write_recipe
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.dataset_runs import WIDE, make_finished_run, make_row

from rasura.manifests.formats.ober import COLUMNS, OberReader, list_rows, make_picture_name, parse_scene
from rasura.manifests.formats.registry import TABLE_LAYOUTS
from rasura.manifests.formats.tables.ober_export import OberLayout
from rasura.manifests.images import MAX_PIXELS, decode_image, encode_image
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.export import export_run
from rasura.stages.sources.files import ChangedInput, RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.sources.ober import Ober
from rasura.stages.stage import Kept, Rejected

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def imported(path: str | Path, folder: Path, **params: Any) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """All records that the source gives, in the order in which the engine asks for them, and what it rejects."""
    source = Ober(Ober.Params(path=str(path), **params))
    source.setup()
    items = source.items(RunContext(Store(folder), "ober"))
    outcomes = [source.process([{**item, "content": item["id"]}])[0] for item in items]
    records = [dict(record) for outcome in outcomes if isinstance(outcome, Kept) for record in outcome.records]
    return records, [outcome for outcome in outcomes if isinstance(outcome, Rejected)]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(0, 10**6))
def test_a_name_gives_its_scene_back(scene: str, crop: int) -> None:
    """Any scene id goes into a file name and comes back from it; the name has no folder, and its format's suffix."""
    name = make_picture_name(scene, crop, b"\x89PNG\r\n")
    assert parse_scene(name) == scene
    assert "/" not in name
    assert name.endswith(f"_{crop}.png")


def test_published_names_are_read() -> None:
    """`<orig_id>_<crop>.<ext>`; a name without a crop is a scene of its own."""
    assert [
        parse_scene(name) for name in ("000123_4.jpg", "a_b_12.png", "alone.jpg", "IMG_x.jpg", "f/000123_4.jpg")
    ] == [
        "000123",
        "a_b",
        "alone",
        "IMG_x",
        "000123",
    ]


def test_load_dataset_opens_the_export(tmp_path: Path) -> None:
    """`datasets.load_dataset` gives OBER's columns in both splits with pictures decoded, equal to the run's; crops of
    a scene have its name and are numbered; files are named as the published ones."""
    import datasets

    rows = [make_row(n, side=200) for n in range(14)]
    out = tmp_path / "ober"
    make_finished_run(tmp_path / "run", rows)
    assert rasura("export", tmp_path / "run", "--format", "ober", "--out", out).stdout.startswith(f"{out}: 14 rows in")
    names = sorted(path.name for path in (out / "data").iterdir())
    assert len(names) > 3
    counts = {split: sum(name.startswith(split) for name in names) for split in ("train", "test")}
    assert names == sorted(f"{s}-{n:05d}-of-{c:05d}.parquet" for s, c in counts.items() for n in range(c))
    loaded: Any = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == {"train": 11, "test": 3}
    assert loaded["train"].column_names == list(COLUMNS)
    truth = {(r["scene_id"], r["source"].tobytes()): r for r in rows}
    crops = defaultdict(set)
    for split in loaded:
        raw = loaded[split].cast_column("input", datasets.Image(decode=False))
        for encoded, one in zip(raw, loaded[split], strict=True):
            path = encoded["input"]["path"]
            whole = truth[parse_scene(path), np.asarray(one["input"]).tobytes()]
            crops[parse_scene(path)].add(int(path.rpartition(".")[0].rpartition("_")[2]))
            assert (np.asarray(one["gt"]) == whole["target"]).all()
            assert (np.asarray(one["object_mask"]) == whole["mask"]).all()
            assert (np.asarray(one["object_effect_mask"]) == whole["foreground_mask"]).all()
            assert (one["subset"], one["split"]) == ("captured", whole["split"])
    assert all(numbers == set(range(len(numbers))) for numbers in crops.values())
    assert {len(numbers) for numbers in crops.values()} == {2, 3}
    about = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {line["id"] for line in about} == {r["id"] for r in rows}
    assert all(
        line["licence"] == "CC BY 4.0" and parse_scene(line["name"] + ".png") == line["scene_id"] for line in about
    )


def test_what_was_made_comes_back_bit_by_bit(tmp_path: Path) -> None:
    """Export, import, export: pictures, scenes and splits are the run's own to the last bit, as pairs and as triplets,
    and from then on the files are the same bytes."""
    rows = [make_row(n, foreground_mask=None if n == 4 else make_row(n)["foreground_mask"]) for n in range(9)]
    export_run(make_finished_run(tmp_path / "run", rows), Store(tmp_path / "one"), "ober")
    truth = {r["source"].tobytes(): r for r in rows}
    pairs, _ = imported(tmp_path / "one", tmp_path / "listing")
    assert len(pairs) == len(rows)
    for pair in pairs:
        whole = truth[pair["input"].tobytes()]
        assert (pair["gt"] == whole["target"]).all()
        assert (pair["given_mask"] == whole["mask"]).all()
        if whole["foreground_mask"] is None:
            assert pair["given_foreground_mask"] is None
        else:
            assert (pair["given_foreground_mask"] == whole["foreground_mask"]).all()
        assert (pair["scene_id"], pair["split"], pair["subset"]) == (whole["scene_id"], whole["split"], "captured")
        assert pair["origin"].startswith(str(tmp_path / "one" / "data"))

    def again(here: str, there: str) -> dict[str, bytes]:
        triplets, _ = imported(tmp_path / here, tmp_path / f"{here} listing", give="triplets")
        rows = [{name: record.get(name) for name in WIDE} for record in triplets]
        export_run(make_finished_run(tmp_path / f"{here} again", rows), Store(tmp_path / there), "ober")
        return {path.name: path.read_bytes() for path in (tmp_path / there / "data").iterdir()}

    assert again("one", "two") == again("two", "three")
    both = [imported(tmp_path / name, tmp_path / "l", give="triplets")[0] for name in ("one", "two")]
    keys = [sorted((r["id"], r["scene_id"], r["split"], r["kind"]) for r in records) for records in both]
    assert keys[0] == keys[1]


def _jpeg(number: int, size: tuple[int, int] = (40, 30), marked: bool = False) -> bytes:
    """A scene of its own for each number; marked, with an object where `_grey_mask` is."""
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(90, 120, (*size[::-1], 3), dtype=np.uint8)
    if marked:
        pixels[5:15, 6:20] = (220, 40, 30)
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def _grey_mask(size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    mask = np.zeros(size[::-1], np.uint8)
    mask[5:15, 6:20] = 254
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()


def published(folder: Path, rows: Sequence[tuple[str, str, str]], **cells: Any) -> Path:
    """A file as the authors' library writes it: JPEG pictures, grey masks, row groups of a few rows."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, (name, subset, split) in enumerate(rows):
        for column in ("input", "gt", "object_mask", "object_effect_mask"):
            data = _grey_mask() if "mask" in column else _jpeg(number, marked=column == "input")
            lacking = column == "gt" and subset == "OBER-Wild"
            columns[column].append(None if lacking else {"bytes": data, "path": name})
        columns["subset"].append(subset)
        columns["split"].append(split)
    for column, values in cells.items():
        columns[column] = values
    types = {name: pa.string() if name in ("subset", "split") else STRUCT for name in columns}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=3)
    return folder


def test_the_published_set_is_read(tmp_path: Path) -> None:
    """JPEG pictures and grey masks come as pairs with their scene and split; a row without truth is rejected, a broken
    picture is one failed row; subsets and splits can be chosen; the recipe's shares decide where the split is not
    kept."""
    rows = [
        ("000001_0.jpg", "real", "train"),
        ("000001_1.jpg", "real", "train"),
        ("000002_0.jpg", "sim", "train"),
        ("w1_0.jpg", "OBER-Wild", "test"),
        ("000003_0.jpg", "OBER-Test", "test"),
    ]
    folder = published(tmp_path / "set", rows)
    records, rejected = imported(folder, tmp_path / "run", licence="S-Lab 1.0")
    assert [(r["scene_id"], r["split"]) for r in records] == [
        ("000001", "train"),
        ("000001", "train"),
        ("000002", "train"),
        ("000003", "test"),
    ]
    assert [one.reason for one in rejected] == ["no partner"]
    assert records[0]["given_mask"].sum() == 10 * 14
    assert records[0]["input"].shape == (30, 40, 3)
    assert {record["licence"] for record in records} == {"S-Lab 1.0"}
    assert len(imported(folder, tmp_path / "run", subsets=["real"])[0]) == 2
    assert len(imported(folder, tmp_path / "run", splits=["test"])[0]) == 1
    assert imported(folder, tmp_path / "run", keep_split=False)[0][0]["split"] is None
    small = imported(folder, tmp_path / "run", max_side=20)[0][0]
    assert {picture.shape[:2] for picture in small.values() if isinstance(picture, np.ndarray)} == {(15, 20)}
    whole = imported(folder, tmp_path / "run", give="triplets")[0][0]
    assert (whole["kind"], whole["subset"], whole["source"].shape) == ("captured", "real", (30, 40, 3))


def test_a_set_in_a_bucket_is_read(tmp_path: Path) -> None:
    """A URI gives the same rows with the same ids as the folder it was copied from."""
    folder = published(tmp_path / "set", [(f"{n}_0.jpg", "real", "train") for n in range(5)])
    Store("memory://published/data").write("train-00000-of-00001.parquet", next(folder.iterdir()).read_bytes())
    here, there = (imported(path, tmp_path / "run")[0] for path in (folder, "memory://published/data"))
    assert [record["id"] for record in here] == [record["id"] for record in there]
    assert all((a["gt"] == b["gt"]).all() for a, b in zip(here, there, strict=True))
    assert there[0]["origin"].startswith("memory://")


def test_one_scene_in_two_splits_is_told(tmp_path: Path) -> None:
    """A scene's name that stands in both splits is a leak or two scenes: the run says which, and how to go on."""
    folder = published(tmp_path / "set", [("7_0.jpg", "real", "train"), ("7_0.jpg", "OBER-Test", "test")])
    with pytest.raises(MissingInput, match=r"scene '7' is in split 'train' .* set by_subset: true"):
        imported(folder, tmp_path / "run")
    records, _ = imported(folder, tmp_path / "run", by_subset=True)
    assert {r["scene_id"]: r["split"] for r in records} == {"real/7": "train", "OBER-Test/7": "test"}


def test_bad_files_cost_what_is_bad(tmp_path: Path) -> None:
    """A picture that is none fails its row alone; masks of another size are rejected; a file that is cut short is one
    failed row; a folder of other Parquet files is told by its columns; a file that changed under the run is noticed."""
    rows = [(f"{n}_0.jpg", "real", "train") for n in range(3)]
    inputs = [
        {"bytes": _jpeg(0, marked=True), "path": "0_0.jpg"},
        {"bytes": b"no picture", "path": "1_0.jpg"},
        {"bytes": _jpeg(2, (20, 30)), "path": "2_0.jpg"},
    ]
    folder = published(tmp_path / "set", rows, input=inputs)
    source = Ober(Ober.Params(path=str(folder)))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "ober"))
    assert isinstance(source.process([{**items[0], "content": items[0]["id"]}])[0], Kept)
    with pytest.raises(ValueError, match="no picture in an allowed format"):
        source.process([{**items[1], "content": items[1]["id"]}])
    odd = source.process([{**items[2], "content": items[2]["id"]}])[0]
    assert isinstance(odd, Rejected)
    assert odd.reason == "pictures of two sizes"
    assert source.params.max_pixels == MAX_PIXELS
    with pytest.raises(ChangedInput):
        source.process([{**items[0], "content": items[1]["id"]}])
    with pytest.raises(ChangedInput):
        source.process([{**items[0], "row": 99, "content": items[0]["id"]}])
    cut = folder / "train-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-50])
    (broken,) = Ober(Ober.Params(path=str(folder))).items(RunContext(Store(tmp_path / "other"), "ober"))
    source.setup()
    with pytest.raises(pa.ArrowInvalid):
        source.process([{**broken, "content": broken["id"]}])
    pq.write_table(pa.table({"image": [b"x"]}), cut)
    with pytest.raises(MissingInput, match="has no column input or object_mask; it has image"):
        Ober(Ober.Params(path=str(folder))).items(RunContext(Store(tmp_path / "third"), "ober"))


@pytest.mark.parametrize(("batch", "limit"), [(1024, 22e6), (2, 16e6)])
def test_rows_are_read_without_holding_the_file(tmp_path: Path, batch: int, limit: float) -> None:
    """A file of 60 MB is listed and read in order, and in any other order, with less in memory than two of its row
    groups of 10 MB, and with a few rows where pages are small; what is read is the same either way."""
    rng = np.random.default_rng(0)
    cells = [{"bytes": rng.bytes(250_000), "path": f"{n}_0.jpg"} for n in range(60)]
    columns: dict[str, Any] = {name: pa.array(cells, STRUCT) for name in COLUMNS if name not in ("subset", "split")}
    columns |= {name: pa.array(["train"] * 60) for name in ("subset", "split")}
    path = str(tmp_path / "large.parquet")
    pq.write_table(
        pa.table(columns), path, row_group_size=10, compression="none", use_dictionary=False, write_batch_size=batch
    )
    del columns
    before, most, pictures = pa.total_allocated_bytes(), 0, []
    for number, listed in enumerate(list_rows(path)):
        assert listed.pictures[0] == cells[number]["bytes"]
        most = max(most, pa.total_allocated_bytes() - before)
    reader = OberReader()
    for number in [*range(60), 3, 50, 49]:
        row = reader.row(path, number)
        assert row is not None
        pictures.append(row["gt"])
        most = max(most, pa.total_allocated_bytes() - before)
    assert pictures == [cells[number]["bytes"] for number in [*range(60), 3, 50, 49]]
    assert reader.row(path, 60) is None
    reader.close()
    assert most < limit, f"{most / 1e6:.0f} MB"


@pytest.mark.ray
def test_a_run_goes_from_one_set_to_the_other(tmp_path: Path) -> None:
    """As part of a recipe: rows of a set in OBER's layout become the dataset of a run, in their split, and `verify`
    finds nothing; the list of layouts is the command line's."""
    export_run(make_finished_run(tmp_path / "run", [make_row(n) for n in range(7)]), Store(tmp_path / "one"), "ober")
    assert TABLE_LAYOUTS["ober"] is OberLayout
    flows = {
        "theirs": {
            "source": {"rasura.stages.sources.ober:Ober": {"path": str(tmp_path / "one" / "data"), "give": "triplets"}},
            "stages": [{"rasura.stages.masks:Masks": {"variants": ["box"]}}],
        }
    }
    recipe = write_recipe(tmp_path, flows=flows, dataset={"flows": ["theirs"]}, engine={"workers": 1})
    rasura("run", recipe, "--into", tmp_path / "two")
    assert rasura("verify", tmp_path / "two").returncode == 0
    records = list(Tables(Store(tmp_path / "two")).table("theirs").iterate_records())
    assert {record["split"] for record in records} == {"train", "test"}
    data = (tmp_path / "two" / "dataset" / "data").glob("*.parquet")
    assert all("mask_box" in pq.read_schema(path).names for path in data)  # variants travel with the dataset


def test_verify_reads_the_layout_and_finds_what_is_wrong(tmp_path: Path) -> None:
    """`verify` knows a set in OBER's layout by its manifest: it passes whole, and fails with the row where the target
    differs outside the effect mask."""
    export_run(make_finished_run(tmp_path / "run", [make_row(n) for n in range(7)]), Store(tmp_path / "one"), "ober")
    done = rasura("verify", tmp_path / "one", check=False)
    assert done.returncode == 0, done.stdout
    path = next((tmp_path / "one" / "data").glob("train*.parquet"))
    table = pq.read_table(path)
    cells = table.to_pylist()
    cells[0]["gt"] = dict(cells[0]["gt"]) | {"bytes": encode_image(255 - decode_image(cells[0]["gt"]["bytes"]))}
    pq.write_table(pa.Table.from_pylist(cells, schema=table.schema), path)
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["name"].endswith(path.name):
            file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "one" / "manifest.json").write_text(json.dumps(manifest))
    done = rasura("verify", tmp_path / "one", check=False)
    assert done.returncode == 1
    assert "row 0" in done.stdout + done.stderr
    assert "differ outside the foreground mask" in done.stdout + done.stderr
