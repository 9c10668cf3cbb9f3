"""Sources: hostile input costs one row and gives its reason; equal content is one row; nothing vanishes."""

import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import rasura, write_recipe
from PIL import Image
from support.broken_pictures import make_bomb

from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.images import decode_image
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.sources.files import ChangedInput, RunContext
from rasura.stages.sources.listing import MissingInput, SourceFile, find_files
from rasura.stages.sources.pairs import Pairs
from rasura.stages.sources.photos import Photos
from rasura.stages.stage import Kept, Rejected

STRANGE = 'it\'s "one" <b>Bild 画像 é.png'


def _png(seed: int, width: int = 48, height: int = 32, marked: bool = False) -> bytes:
    """A scene of its own for each seed; marked, with an object in it."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(90, 130, (height, width, 3), dtype=np.uint8)
    if marked:
        pixels[4:9, 4:9] = (240, 30, 20)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.mark.ray
def test_hostile_photos_cost_one_row_each(tmp_path: Path) -> None:
    """A folder of everything that can be wrong with a file: each bad one is one row with its reason, each good one is
    kept whatever its name, and a second copy of some content is a duplicate that says of what."""
    photos = tmp_path / "photos"
    photos.mkdir()
    good = _png(1)
    files = {
        "a good.png": good,
        STRANGE: _png(2),
        "copy.png": good,
        "truncated.png": _png(3)[:400],
        "empty.jpg": b"",
        "notes.txt": b"these are notes",
        "bomb.png": make_bomb(15368, 15368),
    }
    for name, data in files.items():
        (photos / name).write_bytes(data)
    flows = {"photos": {"source": {"photos": {"path": str(photos), "licence": "CC0"}}}}
    rasura("run", write_recipe(tmp_path, flows=flows), "--into", tmp_path / "run")
    table = Tables(Store(tmp_path / "run")).table("photos")
    origins = {Path(row["origin"]).name for row in table.read_light(["origin", "licence"]).to_pylist()}
    assert origins == {"a good.png", STRANGE}
    dropped = {Path(row["origin"]).name: (row["outcome"], row["reason"]) for row in table.read_rejections().to_pylist()}
    assert dropped == {
        "copy.png": ("rejected", "duplicate"),
        "truncated.png": ("failed", "TruncatedImage"),
        "empty.jpg": ("failed", "EmptyFile"),
        "notes.txt": ("failed", "NotAnImage"),
        "bomb.png": ("failed", "TooManyPixels"),
    }
    duplicate = next(row for row in table.read_rejections().to_pylist() if row["reason"] == "duplicate")
    assert duplicate["detail"].endswith("a good.png")
    status = rasura("status", tmp_path / "run").stdout
    assert "1 duplicate" in status
    assert "1 TruncatedImage" in status


def test_pairs_match_by_name_and_lone_ones_are_told(tmp_path: Path) -> None:
    """`input/`, `gt/`, `mask/` are matched by name without suffix; a lone input or gt, and a mask of another size,
    are rejected with the reason; a mask is read as object where it is above 127."""
    for folder in ("input", "gt", "mask"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / "input" / f"{name}.png").write_bytes(_png(5, marked=name == "one"))
    Image.open(io.BytesIO(_png(5))).save(tmp_path / "gt" / "one.jpg", quality=95, subsampling=0)
    (tmp_path / "gt" / "two.png").write_bytes(_png(6))
    (tmp_path / "gt" / "four.png").write_bytes(_png(7))
    mask = np.zeros((32, 48), np.uint8)
    mask[4:9, 4:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask" / "one.png")
    Image.fromarray(mask[:16]).save(tmp_path / "mask" / "two.png")
    source = Pairs(Pairs.Params(path=str(tmp_path)))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "pairs"))
    outcomes = {Path(item["origin"]).stem: source.process([{**item, "content": item["id"]}])[0] for item in items}
    one = outcomes["one"]
    assert isinstance(one, Kept)
    assert (one.records[0]["given_mask"] == (mask > 0)).all()
    reasons = {name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, Rejected)}
    assert reasons == {"two": "mask of another size", "three": "no partner", "four": "no partner"}


def test_photos_and_pairs_in_parquet(tmp_path: Path) -> None:
    """Parquet files of pictures, as bytes or as the hub's struct, are read row by row; an empty cell is one bad row."""
    cells = [{"bytes": _png(n), "path": None} for n in range(3)] + [None]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, struct)}), tmp_path / "photos.parquet", row_group_size=2)
    source = Photos(Photos.Params(path=str(tmp_path / "photos.parquet")))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "photos"))
    assert len(items) == 4
    good = [source.process([{**item, "content": item["id"]}])[0] for item in items[:3]]
    assert all(isinstance(outcome, Kept) for outcome in good)
    pairs = pa.table({"input": [_png(1), _png(2)], "gt": [_png(3), _png(4)]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    both = Pairs(Pairs.Params(path=str(tmp_path / "pairs.parquet")))
    both.setup()
    items = both.items(RunContext(Store(tmp_path / "run"), "pairs"))
    assert len(items) == 2
    outcomes = [both.process([{**item, "content": item["id"]}])[0] for item in items]
    assert all(isinstance(outcome, Kept) for outcome in outcomes)


def test_files_are_read_once_while_they_stay(tmp_path: Path) -> None:
    """Listing again reads no file whose size and times have stayed, also where an earlier version remembered fewer of
    them, and notices one that was written anew with the size and the mtime that it had."""
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.png").write_bytes(_png(n))
    run = Store(tmp_path / "run")
    source = Photos(Photos.Params(path=str(tmp_path / "in")))
    first = source.items(RunContext(run, "photos"))

    def read_nothing(function: Any, files: Sequence[SourceFile]) -> Iterator[tuple[str | None, ...]]:
        assert not files
        return iter(())

    assert source.items(RunContext(run, "photos", map_files=read_nothing)) == first
    for name in ("photos.json", "photos.fingerprints.json"):
        entries = parse_sealed(run.read(f"listings/{name}"))
        earlier = {path: [size, stamp.split()[0], text] for path, (size, stamp, text) in entries.items()}
        run.write(f"listings/{name}", json.dumps(seal(earlier)).encode())
    assert source.items(RunContext(run, "photos", map_files=read_nothing)) == first
    stat = (tmp_path / "in" / "1.png").stat()
    (tmp_path / "in" / "1.png").write_bytes(bytes(stat.st_size))
    os.utime(tmp_path / "in" / "1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = source.items(RunContext(run, "photos"))
    assert [a["id"] == b["id"] for a, b in zip(first, changed, strict=True)] == [True, False, True]


def test_a_file_that_changes_under_the_run_fails_its_row(tmp_path: Path) -> None:
    """A row is made of what was listed or not at all: a file rewritten between listing and loading raises."""
    (tmp_path / "a.png").write_bytes(_png(1))
    source = Photos(Photos.Params(path=str(tmp_path / "a.png")))
    source.setup()
    (item,) = source.items(RunContext(Store(tmp_path / "run"), "photos"))
    (tmp_path / "a.png").write_bytes(_png(2))
    with pytest.raises(ChangedInput, match="was listed with content"):
        source.process([{**item, "content": item["id"]}])


def test_a_source_that_is_not_there_ends_the_run_with_its_path(tmp_path: Path) -> None:
    """An empty or missing folder is told by its path."""
    flows = {"photos": {"source": {"photos": {"path": str(tmp_path / "nowhere")}}}}
    done = rasura("run", write_recipe(tmp_path, flows=flows), "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert f"there is no file or folder '{tmp_path / 'nowhere'}'" in done.stderr
    assert find_files(str(tmp_path / "recipe.yaml"))


def test_pairs_in_folders_keep_apart(tmp_path: Path) -> None:
    """Equal names in different folders are different pairs, a lone one of them is told, none vanishes; two files that
    differ in their suffix only cannot be told apart: their pair is rejected with both names, and costs no other."""
    for part, rolls in (("input", "abc"), ("gt", "ab")):
        for number, roll in enumerate(rolls):
            (tmp_path / part / roll).mkdir(parents=True)
            (tmp_path / part / roll / "001.png").write_bytes(_png(number + 10 * len(part)))
    source = Pairs(Pairs.Params(path=str(tmp_path)))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "pairs"))
    outcomes = {item["origin"][-9]: source.process([{**item, "content": item["id"]}])[0] for item in items}
    assert {roll: type(outcome) for roll, outcome in outcomes.items()} == {"a": Kept, "b": Kept, "c": Rejected}
    (tmp_path / "gt" / "a" / "001.jpg").write_bytes(_png(5))
    run = RunContext(Store(tmp_path / "run"), "pairs")
    items = source.items(run)
    outcomes = {item["origin"][-9]: source.process([{**item, "content": item["id"]}])[0] for item in items}
    assert outcomes["a"] == Rejected("ambiguous partners", outcomes["a"].detail)
    assert "001.jpg" in outcomes["a"].detail
    assert "001.png" in outcomes["a"].detail
    assert type(outcomes["b"]) is Kept
    assert run.passed_over["second file of one name"] == 1


def test_what_could_not_be_read_once_is_tried_again(tmp_path: Path) -> None:
    """A broken Parquet file is one failed row, not the end of the run, and is not remembered as broken; a wrong column
    is told with those that there are; a name that is no UTF-8 is a row like any other."""
    (tmp_path / "in").mkdir()
    broken = tmp_path / "in" / "rows.parquet"
    broken.write_bytes(b"PAR1 but nothing more")
    strange = bytes(tmp_path / "in") + b"/caf\xe9.png"
    with open(strange, "wb") as out:  # noqa: PTH123 - pathlib would want it decoded
        out.write(_png(1))
    run = Store(tmp_path / "run")
    source = Photos(Photos.Params(path=str(tmp_path / "in")))
    source.setup()
    items = source.items(RunContext(run, "photos"))
    origins = [item["origin"] for item in items]
    assert origins[0].endswith("caf\\xe9.png")
    assert isinstance(source.process([{**items[0], "content": items[0]["id"]}])[0], Kept)
    with pytest.raises(pa.ArrowInvalid):
        source.process([{**items[1], "content": items[1]["id"]}])
    pq.write_table(pa.table({"image": [_png(2)]}), broken)
    again = source.items(RunContext(run, "photos"))
    assert isinstance(source.process([{**again[1], "content": again[1]["id"]}])[0], Kept)
    wrong = Photos(Photos.Params(path=str(broken), column="picture"))
    with pytest.raises(MissingInput, match="has no column picture; it has image"):
        wrong.items(RunContext(run, "other"))


def test_pairs_of_one_folder_are_told_by_their_endings(tmp_path: Path) -> None:
    """`001_input.png` and `001_clean.png` are a pair, files with other endings are left out, a lone one is told; a
    folder without such names is an error that says what was looked for."""
    for name, seed in (("1_input", 1), ("1_clean", 2), ("1_mask", 3), ("1_effect", 4), ("2_input", 5)):
        (tmp_path / f"{name}.png").write_bytes(_png(seed))
    mask = np.zeros((32, 48), np.uint8)
    mask[4:9, 4:9] = 1
    Image.fromarray(mask).save(tmp_path / "1_mask.png")
    (tmp_path / "1_input.png").write_bytes(_png(2, marked=True))
    endings = {"input": "_input", "gt": "_clean", "mask": "_mask"}
    source = Pairs(Pairs.Params.model_validate({"path": str(tmp_path), "endings": endings}))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "pairs"))
    for item in items:
        item["content"] = item["id"]
    kept, rejected = sorted((source.process_one(item) for item in items), key=lambda one: isinstance(one, Rejected))
    assert isinstance(kept, Kept)
    assert isinstance(rejected, Rejected)
    assert np.array_equal(kept.records[0]["gt"], decode_image(_png(2)))
    assert np.array_equal(kept.records[0]["given_mask"], mask > 0)
    wrong = Pairs(Pairs.Params.model_validate({"path": str(tmp_path), "endings": {"input": "_with", "gt": "_without"}}))
    with pytest.raises(MissingInput, match="_with or _without"):
        wrong.items(RunContext(Store(tmp_path / "run"), "pairs"))
