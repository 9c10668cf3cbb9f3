"""Datasets in other people's layouts: every row comes out as it was put in, every file is accounted for, a damaged one
costs its own row, and nothing in them is run or leaves its place."""

import copy
import csv
import json
import pickle
import tarfile
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import foreign_sets
from support.dataset_runs import make_finished_run, make_row
from support.foreign_sets import COLUMNS, SCENES, encode_png, list_members, write, write_csv, write_tar

from rasura.manifests.foreign import long_json, plain_pickles
from rasura.manifests.foreign.long_json import NotLongJson, iterate_entries
from rasura.manifests.foreign.tables import NotATable, iterate_table
from rasura.manifests.images import BadImage, encode_mask
from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run
from rasura.stages.registry import find_source
from rasura.stages.sources.files import ChangedInput, RunContext
from rasura.stages.sources.foreign import mulan
from rasura.stages.sources.foreign.coco import read_contents
from rasura.stages.sources.listing import MissingInput
from rasura.stages.stage import InvalidValues, Kept, Rejected


def load(folder: Path, name: str, params: dict[str, Any]) -> tuple[list[Any], Counter[str], list[Any]]:
    """The rows of a source, what it passed over, and the rejections and faults by origin."""
    cls = find_source(name)
    source = cls(cls.Params(**params))
    context = RunContext(Store(folder.with_name(f"{folder.name}-run")), "rows")
    source.list_inputs()
    items = json.loads(json.dumps(source.items(context)))  # as a run keeps them
    assert len({item["id"] for item in items}) == len(items)
    source.setup()
    kept, others = [], []
    for item in sorted(items, key=lambda item: item["origin"]):
        try:
            outcome = source.process_one({**item, "content": item["id"]})
        except BadImage as error:
            others.append((Path(item["origin"]).name, str(error)))
            continue
        if isinstance(outcome, Rejected):
            others.append((Path(item["origin"]).name, outcome.reason))
            continue
        assert isinstance(outcome, Kept)
        (row,) = outcome.records
        assert set(row) <= set(source.schema({})), "every column is declared"
        kept.append(row)
    return kept, context.passed_over, others


PHOTOS = {
    "coco": lambda folder: foreign_sets.write_coco(folder),
    "coco, LVIS": lambda folder: foreign_sets.write_coco(folder, "lvis"),
    "coco, panoptic": lambda folder: foreign_sets.write_coco(folder, "panoptic"),
    "openimages": lambda folder: foreign_sets.write_openimages(folder) | {"exclude": [], "boxes": None},
}
PAIRS = {
    "rord": foreign_sets.write_rord,
    "rord, clips": foreign_sets.write_rord_clips,
    "rord, jpg and M": lambda folder: foreign_sets.write_rord_clips(folder, "M"),
    "smarteraser": foreign_sets.write_smarteraser,
    "webdataset": foreign_sets.write_webdataset,
    "table": lambda folder: foreign_sets.write_table(folder),
    "table, arrow": lambda folder: foreign_sets.write_table(folder, "arrow"),
    "table, jsonl": lambda folder: foreign_sets.write_table(folder, "jsonl"),
    "table, csv": lambda folder: foreign_sets.write_table(folder, "csv"),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_come_with_the_masks_and_classes_that_they_were_given(name: str, tmp_path: Path) -> None:
    rows, _, others = load(tmp_path / "set", name.partition(",")[0], PHOTOS[name](tmp_path / "set"))
    assert not others
    assert [row["label"] for row in rows] == (["cup", "Hat", "cup"] if "coco" in name else ["Coffee cup", "Hat"] * 2)[
        :3
    ]
    for row, (source, _, mask) in zip(rows, SCENES, strict=True):
        assert (row["source"] == source).all()
        assert (row["object_mask"] == mask).all()
    assert rows[0]["licence"].startswith("http"), "a photograph keeps its own licence"
    assert len({row["scene_id"] for row in rows}) == 3


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("give", ["pairs", "triplets"])
def test_pairs_and_triplets_are_what_was_put_in(name: str, give: str, tmp_path: Path) -> None:
    """Bit for bit; a set without masks gives pairs, and says why it gives no triplets."""
    params = PAIRS[name](tmp_path / "set") | {"give": give}
    if "table" in name and give == "triplets":
        with pytest.raises(InvalidValues, match="triplets need a mask"):
            load(tmp_path / "set", "table", params)
        return
    rows, _, others = load(tmp_path / "set", name.partition(",")[0], params)
    assert not others
    source_column, target_column, mask_column = (
        ("input", "gt", "given_mask") if give == "pairs" else ("source", "target", "mask")
    )
    scenes = SCENES if name != "rord" else [SCENES[2], *SCENES[:2]]  # test/ before train/, but train/ before val/
    for row, (source, clean, mask) in zip(rows, scenes, strict=True):
        assert (row[source_column] == source).all()
        assert (row[target_column] == clean).all()
        assert row[mask_column] is None if "table" in name else (row[mask_column] == mask).all()
    if name.startswith("rord"):
        splits = ["test", "train", "train"] if name == "rord" else ["train", "train", "val"]
        assert [row["split"] for row in rows] == splits
        assert {row["scene_id"] for row in rows} == {f"I-210614_O0{number}019_W01" for number in range(3)}
    else:
        assert [row["label"] for row in rows] == list(foreign_sets.LABELS)


def test_clips_without_an_empty_frame_or_with_wrong_outlines_cost_their_rows(tmp_path: Path) -> None:
    params = foreign_sets.write_rord_clips(tmp_path / "set", "M")
    clips = [tmp_path / "set" / "train" / part / "I-210614_O00019_W01" for part in ("jpg", "M")]
    rows, passed_over, others = load(tmp_path / "set", "rord", params)
    assert (len(rows), passed_over, others) == (3, {"mask or outlines of an empty frame": 1}, [])
    still = json.loads(next(clips[1].iterdir()).read_text())
    still["Learning_Data_Info."]["Annotation"] = still["Learning_Data_Info."]["Annotation"][1:]
    contents = {
        "mask explains no change": json.dumps(still),
        "no mask in its file": '{"Learning_Data_Info.": {"Annotation": [{"segmentation": "none"}]}}',
    }
    for reason, text in contents.items():
        next(clips[1].iterdir()).write_text(text)
        rows, _, others = load(tmp_path / "set", "rord", params)
        assert (len(rows), [reason for _, reason in others]) == (2, [reason])
    (clips[0] / "I-210614_O00019_W01_G0001.png").rename(clips[0] / "I-210614_O00019_W01_F0200.png")
    write(clips[0].with_name("I-210614_O01019_W01") / "b_G0002.png", encode_png(SCENES[1][1]))
    rows, passed_over, others = load(tmp_path / "set", "rord", params)
    assert len(rows) == 2
    assert passed_over == {"another empty frame of its clip": 1, "mask or outlines of an empty frame": 1}
    assert [reason for _, reason in others] == ["no partner", "no partner"]


def test_what_a_model_made_is_a_candidate_until_the_recipe_says_it_was_accepted(tmp_path: Path) -> None:
    params = foreign_sets.write_table(tmp_path / "set")
    for accepted, verdict, kinds in ((False, None, {"edited"}), (True, "yes", set())):
        rows, _, _ = load(tmp_path / "set", "table", params | {"accepted": accepted})
        assert {(row["given_kind"], row["verdict"]) for row in rows} == {("edited", verdict)}
        source = find_source("table")
        assert source(source.Params(**params | {"accepted": accepted})).list_candidate_kinds() == kinds


def test_layers_are_composed_and_no_pickle_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target lacks one layer and nothing else: outside of it, source and target are equal."""
    monkeypatch.chdir(tmp_path)
    params = foreign_sets.write_mulan(tmp_path / "set") | {"give": "triplets"}
    rows, passed_over, others = load(tmp_path / "set", "mulan", params)
    assert others == [("000000000140.p.zl", "damaged annotation")]
    assert not passed_over
    assert not (tmp_path / "opened").exists()
    (first, second), under = rows, SCENES[0][2] & ~SCENES[1][2]
    assert (first["mask"] == under).all(), "what the layer in front hides is no part of the mask"
    assert (second["target"][~SCENES[0][2]] == SCENES[0][1][~SCENES[0][2]]).all()
    for row in rows:
        assert (row["source"] == row["target"]).all(axis=2)[~row["foreground_mask"]].all()
    assert len({row["scene_id"] for row in rows}) == 1
    (tmp_path / "set" / "000000000139-layer_1.png").unlink()
    _, _, others = load(tmp_path / "set", "mulan", params)
    assert sorted(reason for _, reason in others) == ["damaged annotation", "missing layer"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_annotations_give_the_rows_of_the_layers_that_are_made_of_them(protocol: int, tmp_path: Path) -> None:
    layers, _, _ = load(tmp_path / "layers", "mulan", foreign_sets.write_mulan(tmp_path / "layers"))
    params = foreign_sets.write_mulan_annotations(tmp_path / "set", protocol)
    rows, passed_over, others = load(tmp_path / "set", "mulan", params)
    assert not others
    assert not passed_over
    for row, layer in zip(rows, layers, strict=True):
        for column in ("input", "gt", "given_mask", "given_foreground_mask"):
            assert (row[column] == layer[column]).all(), column
        assert row["given_kind"] == "edited"


def test_a_damaged_annotation_costs_one_row_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = foreign_sets.write_mulan_annotations(tmp_path / "set")
    whole = (tmp_path / "set" / "annotations" / "000000000139.p.zl").read_bytes()
    value = pickle.loads(zlib.decompress(whole))
    small = copy.deepcopy(value)
    small["background"]["inpainted_delta"] = np.zeros((4, 4, 3), np.int16)
    contents = {
        "bomb": zlib.compress(bytes(200_000)),
        "call": zlib.compress(pickle.dumps({"background": print})),
        "cut": whole[:-200],
        "empty": b"",
        "objects": zlib.compress(pickle.dumps({"background": {"inpainted_delta": np.array([{}])}})),
        "orphan": whole,
        "small": zlib.compress(pickle.dumps(small)),
        "zz-list": zlib.compress(pickle.dumps([1, 2])),
    }
    for name, data in contents.items():
        write(tmp_path / "set" / "annotations" / f"{name}.p.zl", data)
    picture = next((tmp_path / "set" / "images").rglob("*.png")).read_bytes()
    for name in ("small", "spare", "twice", "a/twice"):
        write(tmp_path / "set" / "images" / f"{name}.png", picture)
    write(tmp_path / "set" / "annotations" / "twice.p.zl", whole)
    monkeypatch.setattr(plain_pickles.decompress, "__defaults__", (150_000,))
    rows, passed_over, others = load(tmp_path / "set", "mulan", params)
    assert len(rows) == 2
    assert passed_over == {"photograph without an annotation": 1}
    damaged = dict.fromkeys(("bomb", "call", "cut", "empty", "objects", "zz-list"), "damaged annotation")
    other = {"orphan": "no photograph", "twice": "ambiguous photograph"}
    expected = {f"{name}.p.zl": reason for name, reason in (damaged | other).items()}
    both = {f"small.p.zl#instance_{number}": "damaged annotation" for number in (1, 2)}
    assert dict(others) == expected | both, "the size of a layer is compared where its photograph is read"


def test_an_annotation_above_the_limit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_sets.write_mulan_annotations(tmp_path)
    path = tmp_path / "annotations" / "000000000139.p.zl"
    size = path.stat().st_size
    monkeypatch.setattr(mulan, "MOST_BYTES", size)
    assert mulan.count_instances(str(path)) == ("2",)
    monkeypatch.setattr(mulan, "MOST_BYTES", size - 1)
    assert mulan.count_instances(str(path)) == (f"more than {size - 1} bytes",)


def truncate(path: Path, share: float = 0.6) -> None:
    """Cut a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


DAMAGE = {
    "coco": "val2017/000000000001.jpg",
    "openimages": "masks/0000000000000001_m02dl1y_00000001.png",
    "rord": "train/gt/I-210614_O01019_W01_F0109.png",
    "smarteraser": "mask/1_0001.png",
    "table, jsonl": "edited_images/1.png",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_truncated_file_costs_its_own_row(name: str, tmp_path: Path) -> None:
    params = (PHOTOS | PAIRS)[name](tmp_path / "set")
    truncate(tmp_path / "set" / DAMAGE[name])
    rows, _, others = load(tmp_path / "set", name.partition(",")[0], params)
    assert len(rows) == 2
    assert len(others) == 1


def test_every_member_of_a_cut_off_tar_is_a_row_or_is_named(tmp_path: Path) -> None:
    """Cut anywhere, a tar gives the samples that are complete, and one row says what is lost: never silence."""
    whole = write_tar(tmp_path / "set" / "a.tar", list_members())
    data, params = whole.read_bytes(), {"path": str(tmp_path / "set"), "kind": "captured"}
    sizes = {}
    for cut in (*range(512, len(data) - 10_240, len(data) // 23), len(data) // 512 * 256):
        whole.write_bytes(data[:cut])
        rows, _, others = load(tmp_path / "set", "webdataset", params)
        assert len(others) >= 1, f"cut at {cut}"
        assert set(dict(others).values()) <= {"member cut off", "damaged tar", "no partner"}
        sizes[cut] = len(rows)
    assert sorted(sizes.values()) == [sizes[cut] for cut in sorted(sizes)]
    assert max(sizes.values()) == 2


def test_hostile_members_cost_their_rows_and_stay_where_they_are(tmp_path: Path) -> None:
    good = {f"good/{name}": data for name, data in list_members()[:4]}
    bomb = json.dumps({"label": ["a"] * 3}).encode()
    members = [
        *good.items(),
        ("../../outside.source.png", good["good/000000.source.png"]),
        ("../../outside.target.png", good["good/000000.target.png"]),
        ("/etc/passwd.source.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40),
        ("/etc/passwd.target.png", good["good/000000.target.png"]),
        ("twice.source.png", good["good/000000.source.png"]),
        ("twice.source.png", good["good/000000.target.png"]),
        ("list.source.png", good["good/000000.source.png"]),
        ("list.json", bomb),
        ("broken.json", b"{" * 100_000),
        ("readme.txt", b"hello"),
        ("\N{SNOWMAN}" * 200 + ".txt", b"hello"),
    ]
    write_tar(tmp_path / "set" / "a.tar", members)
    write(tmp_path / "set" / "b.tar", b"no tar at all" * 99)
    write(tmp_path / "set" / "c.tar.gz", b"\x1f\x8b")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    rows, passed_over, others = load(tmp_path / "set", "webdataset", {"path": str(tmp_path / "set")})
    assert len(rows) == 2
    reasons = Counter(reason.partition(":")[0] for _, reason in others)
    assert {"ambiguous members", "no text", "no JSON", "damaged tar"} <= set(reasons)
    assert len(others) == 5
    assert passed_over == {"member that is no part of a row": 2, "compressed tar": 1}
    assert sorted(path.name for path in tmp_path.rglob("*") if "set-run" not in str(path)) == before


def test_a_changed_tar_or_table_is_noticed(tmp_path: Path) -> None:
    """What was listed is what is loaded, or the row says that its file has changed."""
    others = foreign_sets.list_table_rows()[::-1]
    for name in ("webdataset", "table"):
        source = find_source(name)(find_source(name).Params(**PAIRS[name](tmp_path / name)))
        items = source.items(RunContext(Store(tmp_path / f"{name}-run"), "rows"))
        source.setup()
        if name == "table":
            pq.write_table(pa.Table.from_pylist(others), tmp_path / "table" / "train-00000-of-00001.parquet")
        else:
            write_tar(tmp_path / "webdataset" / "shard-000000.tar", list_members()[4:])
        item = next(item for item in items if item["origin"].endswith("0"))
        with pytest.raises(ChangedInput):
            source.process_one(item | {"content": item["id"]})


def test_classes_are_chosen_and_capped_whatever_the_order(tmp_path: Path) -> None:
    """Left-out objects are counted with the reason, and the cap draws the same ones again."""
    params = foreign_sets.write_openimages(tmp_path / "set")
    rows, passed_over, _ = load(tmp_path / "set", "openimages", params)
    assert [row["label"] for row in rows] == ["Coffee cup"]
    assert passed_over == {"class not chosen": 1, "group, drawing or inside": 1}, "hats are worn; the third is a group"
    params = foreign_sets.write_coco(tmp_path / "coco")
    capped = params | {"max_per_class": 1, "crowds": True, "exclude": ["hat"]}
    first, passed_over, _ = load(tmp_path / "coco", "coco", capped)
    again, _, _ = load(tmp_path / "coco", "coco", capped)
    assert [row["id"] for row in first] == [row["id"] for row in again]
    assert len(first) == 1
    assert passed_over == {"class not chosen": 1, "more than 1 of its class": 2}


def test_panoptic_stuff_and_missing_maps(tmp_path: Path) -> None:
    params = foreign_sets.write_coco(tmp_path / "set", "panoptic")
    rows, _, _ = load(tmp_path / "set", "coco", params | {"stuff": True, "classes": ["tree"]})
    assert all((row["object_mask"] == ~mask).all() for row, (_, _, mask) in zip(rows, SCENES, strict=True))
    (tmp_path / "set/annotations/panoptic_val2017/000000000001.png").unlink()
    rows, _, others = load(tmp_path / "set", "coco", params)
    assert len(rows) == 2
    assert [reason for _, reason in others] == ["no mask"]


def test_a_table_says_what_is_wrong_with_each_row(tmp_path: Path) -> None:
    """Names lead to listed files only; addresses, broken lines and missing pictures are rows with a reason."""
    good = {"original_image": "a.png", "edited_image": "b.png", "object": "cup"}
    secret = write(tmp_path / "secret.png", encode_png(SCENES[0][0]))
    for name, picture in (("a.png", SCENES[0][0]), ("b.png", SCENES[0][1]), ("unused.png", SCENES[1][0])):
        write(tmp_path / "set" / name, encode_png(picture))
    lines = [
        json.dumps(good),
        json.dumps(good | {"edited_image": "../secret.png"}),
        json.dumps(good | {"edited_image": str(secret)}),
        json.dumps(good | {"edited_image": "https://example.com/b.png"}),
        json.dumps(good | {"edited_image": 7}),
        json.dumps(good | {"object": {"a": 1}}),
        json.dumps({"original_image": "./a.png", "edited_image": None}),
        "{broken",
        "[1, 2]",
    ]
    write(tmp_path / "set" / "rows.jsonl", "\n".join(lines))
    params = {"path": str(tmp_path / "set"), "columns": COLUMNS}
    rows, passed_over, others = load(tmp_path / "set", "table", params)
    assert len(rows) == 1
    assert [reason for _, reason in others] == [
        "missing picture",
        "missing picture",
        "picture not here",
        "no picture",
        "no text",
        "no partner",
        "row cannot be read",
        "row cannot be read",
    ]
    assert passed_over == {"in no row of a table": 1}
    with pytest.raises(MissingInput, match="no column output_image; it has"):
        load(tmp_path / "set", "table", params | {"columns": {"source": "original_image", "target": "output_image"}})


def test_one_bad_cell_or_table_costs_no_other_row(tmp_path: Path) -> None:
    rows = foreign_sets.list_table_rows()
    rows[1]["edited_image"]["bytes"] = rows[1]["edited_image"]["bytes"][:50]
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "good.parquet")
    write(folder / "bad.parquet", b"PAR1 not really PAR1")
    write(folder / "worse.arrow", b"\0" * 64)
    kept, _, others = load(folder, "table", {"path": str(folder), "columns": COLUMNS})
    assert len(kept) == 2
    assert len(others) == 3


def test_masks_of_another_shape_are_rejected(tmp_path: Path) -> None:
    params = foreign_sets.write_openimages(tmp_path / "set") | {"exclude": [], "boxes": None}
    (mask,) = (tmp_path / "set" / "masks").glob("*01.png")
    mask.write_bytes(encode_mask(SCENES[0][2][:, :50]))
    write_csv(tmp_path / "set" / "train-images-boxable-with-rotation.csv", [{"ImageID": "x", "License": "y"}])
    rows, _, others = load(tmp_path / "set", "openimages", params)
    assert len(rows) == 2
    assert [reason for _, reason in others] == ["mask of another size"]
    assert {row["licence"] for row in rows} == {"unknown"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "belongs"),
        ('{"images": [], "annotations": [', "Expecting value"),
        ('{"images": []}', "has no entries in `annotations`"),
        ('{"images": [{"id": 1}], "annotations": []}', "not in COCO's form"),
        ('{"images": [7], "annotations": []}', "not in COCO's form"),
        ('{"annotations": [{"image_id": {}}], "images": []}', "not in COCO's form"),
        ('{"annotations": [{"image_id": 1, "segments_info": 3}], "images": []}', "not in COCO's form"),
    ],
)
def test_a_file_that_is_no_coco_is_refused_with_the_reason(text: str, message: str, tmp_path: Path) -> None:
    params = foreign_sets.write_coco(tmp_path / "set")
    Path(params["annotations"]).write_text(text)
    with pytest.raises(MissingInput, match=message):
        load(tmp_path / "set", "coco", params)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"segmentation": None}, "no mask in its file"),
        ({"segmentation": [[1, 2, float("nan"), 4, 5, 6]]}, "no mask in its file"),
        ({"segmentation": {"size": [64, 96], "counts": [10**30]}}, "no mask in its file"),
        ({"segmentation": {"size": [64, 96], "counts": "~~~"}}, "no mask in its file"),
        ({"category_id": [1]}, None),
        ({"category_id": 555, "area": "large", "id": None}, None),
    ],
)
def test_an_odd_annotation_costs_its_own_object(values: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    params = foreign_sets.write_coco(tmp_path / "set")
    contents = json.loads(Path(params["annotations"]).read_text())
    contents["annotations"][0].update(values)
    Path(params["annotations"]).write_text(json.dumps(contents))
    rows, _, others = load(tmp_path / "set", "coco", params)
    assert [found for _, found in others] == ([reason] if reason else [])
    assert len(rows) == (2 if reason else 3)
    assert [row["label"] for row in rows] == (["Hat", "cup"] if reason else [None, "Hat", "cup"])


def make_header(name: str, size: bytes, kind: str = "0") -> bytes:
    """The header of a tar's member, with a size of one's own."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = size, kind.encode()
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (make_header("a.source.png", b"\xff" * 12), "damaged tar"),  # a negative size
        (make_header("a.source.png", b"\x80" + b"\x0f" * 11), "member cut off"),
        (make_header("pax", b"77777777777\0", "x"), "damaged tar"),  # a header of 8 GB
        (make_header("a.source.png", b"00000000000\0", "2"), "no plain file"),  # a link
    ],
)
def test_a_hostile_header_ends_or_costs_a_row(header: bytes, reason: str, tmp_path: Path) -> None:
    good = write_tar(tmp_path / "good.tar", list_members()).read_bytes()
    write(tmp_path / "set" / "a.tar", header + good)
    rows, _, others = load(tmp_path / "set", "webdataset", {"path": str(tmp_path / "set")})
    assert [found for _, found in others] == [reason]
    assert len(rows) == (3 if reason == "no plain file" else 0)


def test_what_a_row_says_of_itself_is_checked(tmp_path: Path) -> None:
    params = foreign_sets.write_table(tmp_path / "set")
    columns = COLUMNS | {"kind": "edit_type"}
    _, _, others = load(tmp_path / "set", "table", params | {"columns": columns})
    assert [reason for _, reason in others] == ["kind unknown"] * 3
    _, _, others = load(tmp_path / "set", "table", params | {"columns": COLUMNS | {"split": "object"}})
    assert [reason for _, reason in others] == []
    with pytest.raises(MissingInput, match="no column objekt"):
        load(tmp_path / "set", "table", params | {"columns": COLUMNS | {"label": "objekt"}})


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_csv_may_be_separated_by_something_else(tmp_path: Path, delimiter: str) -> None:
    """As spreadsheets of many countries write it; columns that are missing are all named."""
    params = foreign_sets.write_table(tmp_path / "set", "csv")
    (path,) = (tmp_path / "set").rglob("*.csv")
    expected, _, _ = load(tmp_path / "set", "table", params)
    with path.open(newline="", encoding="utf-8") as source:
        rows = list(csv.reader(source))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    found, _, others = load(tmp_path / "set", "table", params)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert len(found) > 1
    assert not others
    with pytest.raises(MissingInput, match="no columns nope, none; it has"):
        load(tmp_path / "set", "table", params | {"columns": {"source": "nope", "target": "none"}})


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        ("t.tsv", "id\tcaption, long\n7\ta, b\n", [{"id": "7", "caption, long": "a, b"}]),
        ("t.csv", "id;x\r7;8\r", "is no CSV"),
        ("t.csv", "x" * 200_000 + "\n1\n", "is no CSV"),
    ],
)
def test_the_suffix_of_tabs_is_believed_and_damaged_titles_are_told(
    tmp_path: Path, name: str, text: str, outcome: Any
) -> None:
    (tmp_path / name).write_text(text, newline="")
    if isinstance(outcome, list):
        assert list(iterate_table(str(tmp_path / name))) == outcome
    else:
        with pytest.raises(NotATable, match=outcome):
            list(iterate_table(str(tmp_path / name)))


def test_smarterasers_list_in_another_form_is_counted(tmp_path: Path) -> None:
    params = foreign_sets.write_smarteraser(tmp_path / "set")
    path = tmp_path / "set" / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value[0] for name, value in values.items()}))
    rows, passed_over, _ = load(tmp_path / "set", "smarteraser", params)
    assert {row["label"] for row in rows} == {None}
    assert passed_over == {"entry of result.json in another form than [class, box, size], so no label": len(values)}


def test_smarterasers_folders_come_back(tmp_path: Path) -> None:
    """What Rasura exports in SmartEraser's layout is read again: pictures and masks bit by bit, classes, splits."""
    scenes = [dict(zip(("source", "target", "mask"), scene, strict=True)) for scene in SCENES]
    rows = [
        make_row(number, label=label) | scene | {"foreground_mask": scene["mask"], "mask_box": None}
        for number, (scene, label) in enumerate(zip(scenes, ("cup", "a/b", None), strict=True))
    ]
    export_run(make_finished_run(tmp_path / "run", rows), Store(tmp_path / "set"), "smarteraser")
    back, passed_over, others = load(tmp_path / "set", "smarteraser", {"path": str(tmp_path / "set")})
    assert not others
    truth = {row["source"].tobytes(): row for row in rows}
    for row in back:
        before = truth.pop(row["source"].tobytes())
        assert (row["target"] == before["target"]).all()
        assert (row["mask"] == before["mask"]).all()
        for name in ("label", "split", "kind", "scene_id", "licence"):
            assert row[name] == before[name]
    assert not truth
    assert set(passed_over) == {"outside paste/, gt/, mask/"}, "manifests and the like"


def test_long_annotations_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory stays a small part of what parsing the file at once would take; pieces of any size give the same."""
    polygon = [[value / 7 for value in range(400)]]
    entries = [{"id": n, "image_id": n % 9, "category_id": 1, "segmentation": polygon, "é": "ü"} for n in range(200)]
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(9)]
    text = json.dumps({"images": images, "annotations": entries}, ensure_ascii=False).encode()
    path = write(tmp_path / "long.json", text)
    monkeypatch.setattr(long_json, "PIECE_BYTES", 2**14)
    tracemalloc.start()
    contents = read_contents(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * len(text), f"{peak} bytes for a file of {len(text)}"
    assert sum(map(len, contents.objects.values())) == 200
    start, end = contents.objects[3][0].place
    assert json.loads(text[start:end]) == entries[3]


def test_pieces_of_any_size_give_the_same_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {"year": -12345, 'é\\"]': [{"a": 'ü"}'}, 12, 345.5, [], None, True], "empty": [], "info": {"x": [1]}}
    for ascii_only in (True, False):
        data = json.dumps(values, ensure_ascii=ascii_only, indent=2).encode()
        path = write(tmp_path / "a.json", data)
        for size in (1, 3, 7, 100):
            monkeypatch.setattr(long_json, "PIECE_BYTES", size)
            with path.open("rb") as source:
                found = [(entry.key, entry.value) for entry in iterate_entries(source, "a.json")]
            expected = [
                (key, value)
                for key, entry in values.items()
                for value in (entry if isinstance(entry, list) else [entry])
            ]
            assert found == expected
        for cut in range(0, len(data) - 1, 5):
            path.write_bytes(data[:cut])
            with path.open("rb") as source, pytest.raises(NotLongJson):
                list(iterate_entries(source, "a.json"))
