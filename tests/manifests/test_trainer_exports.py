"""Exports for trainers: each is read back by the rules of the trainer's own loader."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from conftest import rasura
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from support.dataset_runs import WIDE, make_finished_run, make_row

from rasura.manifests.formats.brushdata import decode_runs, encode_runs
from rasura.manifests.formats.folder_export import name_row
from rasura.manifests.formats.lcg import BACKGROUND, FOREGROUND, classify_label
from rasura.manifests.formats.powerpaint import clean_caption
from rasura.manifests.formats.trainers.tars import read_tar
from rasura.manifests.images import encode_image
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.pipeline.export import NothingToExport, export_run
from rasura.pipeline.run.verify import verify

COLUMNS = {**WIDE, "caption": Kind.STRING, "ground_mask": Kind.MASK, "mask_dilated": Kind.MASK}
NEW = ("brushdata", "lcg", "powerpaint", "smarteraser")
AWKWARD = ("../../out", "7fa4.mask_1", ".hidden", "a,b c%d", "日本/x", "con:*?")


def make_large_row(number: int, **fields: Any) -> dict[str, Any]:
    """A triplet of 512 px: PowerPaint's loaders skip smaller pictures."""
    target = np.full((512, 520, 3), 60 + number, np.uint8)
    target[:40] = (number * 37 % 256, 90, 200)
    mask = np.zeros((512, 520), bool)
    mask[150:270, 100 + number : 180 + number] = True
    foreground = mask.copy()
    foreground[270:300, 100:200] = True
    source = target.copy()
    source[foreground] = 30
    source[mask] = (220, 40, number)
    pictures = {"source": source, "target": target, "mask": mask, "foreground_mask": foreground, "mask_box": None}
    base = make_row(number) | pictures | {"parents": [], "verdict": None, "score": None}
    return base | dict.fromkeys(COLUMNS.keys() - base.keys()) | fields


def export(
    folder: Path, rows: Sequence[Mapping[str, Any]], layout: str, **settings: Any
) -> tuple[Path, dict[str, Any]]:
    run = make_finished_run(folder / "run", rows, columns=COLUMNS, **settings)
    return folder / "out", export_run(run, Store(folder / "out"), layout)


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """A mask as the loaders open it."""
    return np.asarray(Image.open(path).convert("L"))


def list_contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# --- brushdata


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_runs_are_decoded_as_brushnet_does(mask: npt.NDArray[np.bool_]) -> None:
    """Pairs of a start, counted from 1 down the columns, and a length, give every mask back."""
    runs = encode_runs(mask)
    flat = np.zeros(mask.size, np.uint8)
    for low, length in zip(runs[0::2], runs[1::2], strict=True):
        assert length > 0
        flat[low - 1 : low - 1 + length] = 1
    assert (flat.reshape(mask.shape, order="F") == mask).all()
    assert (decode_runs(runs, *mask.shape) == mask).all()


@pytest.mark.torch
def test_brushnets_loader_reads_the_tars(tmp_path: Path) -> None:
    """`load_dataset("webdataset")`, as the trainer calls it, gives every sample with its five members; the picture, the
    masks, the size and the caption are the row's, whatever its id is."""
    import datasets

    captions = ["a red block,\nat dusk", None, "日本", None, "", "x" * 400]
    rows = [make_large_row(n, id=id, caption=captions[n], split="train") for n, id in enumerate(AWKWARD)]
    rows[3] |= {"foreground_mask": None, "label": None}
    out, manifest = export(tmp_path, rows, "brushdata", shard_bytes=10_000)
    tars = sorted((out / "train").iterdir())
    assert len(tars) > 1
    assert {path.suffix for path in tars} == {".tar"}  # the trainer counts the files of the folder
    loaded = datasets.load_dataset(
        "webdataset",
        data_files={"train": str(out / "train" / "*.tar")},
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    by_name = {name_row(row["id"]): row for row in rows}
    samples = list(loaded)
    assert sorted(sample["__key__"] for sample in samples) == sorted(by_name)
    for sample in samples:
        row = by_name[sample["__key__"]]
        height, width = int(sample["height"].decode("utf-8")), int(sample["width"].decode("utf-8"))
        image = cv2.imdecode(np.asarray(bytearray(sample["image"]), dtype="uint8"), cv2.IMREAD_COLOR)
        assert (image[..., ::-1] == row["source"]).all()
        assert sample["caption"].decode("utf-8") == (row["caption"] or row["label"] or "")
        masks = [decode_runs(runs, height, width) for runs in json.loads(sample["segmentation"])["mask"]]
        wanted = [row["mask"]] + ([row["foreground_mask"]] if row["foreground_mask"] is not None else [])
        assert np.array_equal(masks, wanted)
    assert (manifest["rows"], manifest["left_out"]) == (6, {})
    assert {line["id"] for line in read_lines(out / "rows.jsonl")} == set(AWKWARD)


# --- lcg


def read_lcg(folder: Path, split: str) -> list[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.uint8], str]]:
    """Read the lines as Moebius' RemovalDataset does, started beside the split's folder: prompt, picture, mask, id."""
    samples = []
    for item in read_lines(folder / split / "train_data.jsonl"):
        assert item["prompt"] in ("background", "foreground")
        image = np.asarray(Image.open(folder / item["image"]).convert("RGB"))
        mask = read_grey(folder / item["mask"])
        assert mask.shape == image.shape[:2]
        assert set(np.unique(mask)) <= {0, 255}
        samples.append((item["prompt"], image, mask, Path(item["image"]).stem))
    return samples


def test_pixelhackers_lines(tmp_path: Path) -> None:
    """A row gives its source with the object's mask as foreground, and its target with a hole that has the object's
    place (or the ground) in it as background; a quarter of the holes each has neither brush nor other object, one of
    them, both; the loader that reads a foreground mask for every background line finds one."""
    ground = np.zeros((24, 32), bool)
    ground[16:] = True
    rows = [make_row(n, id=f"{n:04d}", parents=[], scene_id=f"s{n}", split="train") for n in range(160)]
    rows = [
        row | {"caption": None, "mask_dilated": None, "ground_mask": ground if n % 2 else None}
        for n, row in enumerate(rows)
    ]
    out, manifest = export(tmp_path, rows, "lcg", shard_rows=40)
    samples = read_lcg(out, "train")
    assert Counter(prompt for prompt, *_ in samples) == {"foreground": 160, "background": 160}
    truth = {name_row(row["id"]): row for row in rows}
    extra = Counter[str]()
    for prompt, image, mask, name in samples:
        row = truth[name]
        if prompt == "foreground":
            assert (image == row["source"]).all()
            assert ((mask > 127) == row["mask"]).all()
            continue
        assert (image == row["target"]).all()
        hole = mask > 127
        of_ground = row["ground_mask"] is not None and bool(hole[ground].all())
        assert hole.mean() <= 0.7
        scene = ground if of_ground else row["mask"]
        assert hole[scene].all()
        extra["ground"] += of_ground
        extra["more"] += bool(hole[~scene].any())
    assert 25 <= extra["ground"] <= 60  # of 80, with share 0.5
    assert 60 <= extra["more"] <= 140
    card = (out / "README.md").read_text()
    counts = [int(cell) for cell in card.split("| train |")[1].split("\n")[0].strip(" |").split("|")]
    assert counts[:3] == [160, 160, 160]
    assert all(55 <= count <= 105 for count in counts[4:])  # p = 0.5 of 160, four standard deviations
    assert manifest["rows"] == 160


def test_another_object_is_of_the_same_split(tmp_path: Path) -> None:
    """No mask of another split, nor of the row's own scene, is in a hole: alone in its split, a row has no other."""
    rows = [make_large_row(n, id=f"{n}", scene_id=f"{n // 8}", split=("train", "test")[n // 8]) for n in range(16)]
    out, _ = export(tmp_path, rows, "lcg")
    assert "with another object |" in (out / "README.md").read_text()
    rows_of_card = [
        line for line in (out / "README.md").read_text().splitlines() if line.startswith(("| train", "| test"))
    ]
    assert [line.strip(" |").split("|")[-1].strip() for line in rows_of_card] == ["0", "0"]


def test_categories_are_pixelhackers(tmp_path: Path) -> None:
    """116 and 21 categories; an object of a background category trains the background."""
    assert (len(set(FOREGROUND)), len(set(BACKGROUND))) == (116, 21)
    assert not set(FOREGROUND) & set(BACKGROUND)
    assert {classify_label(name) for name in FOREGROUND} == {"foreground"}
    assert {classify_label(name) for name in BACKGROUND} == {"background"}
    assert classify_label("something new") == "foreground"
    out, _ = export(tmp_path, [make_large_row(0, label="snow", split="train")], "lcg")
    assert [prompt for prompt, *_ in read_lcg(out, "train")] == ["background", "background"]


# --- powerpaint


def test_powerpaints_loaders_find_what_they_ask_for(tmp_path: Path) -> None:
    """Its OpenImages loader splits 16 files at line feeds and commas: picture, mask and caption of every row come out,
    whatever is in id and caption; its LAION loader's filters let every target pass; pictures are the row's."""
    captions = ["a block,on\ngrass\r\x00", None, "日本,語", "1,2,3", "", "tab\there"]
    rows = [make_large_row(n, id=id, caption=captions[n], split="train") for n, id in enumerate(AWKWARD)]
    out, _ = export(tmp_path, rows, "powerpaint")
    root, truth = out / "train", {name_row(row["id"]): row for row in rows}
    lines: list[str] = []
    for number in range(16):
        lines += (root / "prompt" / f"prompt_anno_{number}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == len(rows)
    for line in lines:
        fields = line.split(",")
        assert len(fields) == 4
        row = truth[Path(fields[0]).stem]
        pixels = cv2.imdecode(np.frombuffer((root / fields[0]).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        assert (pixels[..., ::-1] == row["source"]).all()
        assert ((read_grey(root / fields[2]) == 255) == row["mask"]).all()
        assert fields[3] == clean_caption(row["caption"] or row["label"] or "")
    annotations = [json.loads(one) for one in (root / "context" / "context.jsonl").read_text().split("\n") if one != ""]
    assert len(annotations) == len(rows)
    for annotation in annotations:
        remark, image = annotation["remark"], annotation["img_list"][next(iter(annotation["img_list"]))]
        assert remark["aesthetic_score"] >= 5
        assert remark["similarity"] is not None
        assert min(remark["height"], remark["width"]) >= 512
        assert remark["pwatermark"] <= 0.5
        assert image["jpg_exists"]
        path = Path(f"{root}/" + image["jpg_prefix"], image["jpg_path"])
        assert (np.asarray(Image.open(path)) == truth[path.stem]["target"]).all()
    assert len(list((root / "random_mask").iterdir())) == len(rows)


def test_powerpaints_three_tasks(tmp_path: Path) -> None:
    """P_obj has boxes that contain the object, P_shape the variant that stage `masks` made where there is one, with the
    share of it that is object as α, P_ctxt the target with strokes that know nothing of the object; other rows' strokes
    differ."""
    loose = np.zeros((512, 520), bool)
    loose[100:320, 80:220] = True
    rows = [make_large_row(n, id=f"{n}", split="train", mask_dilated=loose if n == 0 else None) for n in range(4)]
    out, _ = export(tmp_path, rows, "powerpaint")
    tasks = read_lines(out / "train" / "tasks.jsonl")
    assert Counter(task["task_type"] for task in tasks) == dict.fromkeys(
        ("object_inpainting", "shape_inpainting", "inpainting"), 4
    )
    holes = {}
    for task in tasks:
        row = rows[int(Path(task["image"]).stem)]
        picture, hole = (
            np.asarray(Image.open(out / "train" / task["image"])),
            read_grey(out / "train" / task["mask"]) > 127,
        )
        kind, first, second = task["task_type"], task["promptA"], task["promptB"]
        if kind == "inpainting":
            assert (first, second, task["prompt"], task["tradeoff"]) == ("P_ctxt", "P_ctxt", "", [1.0, 0.0])
            assert (picture == row["target"]).all()
            holes[row["id"]] = hole
            continue
        assert (picture == row["source"]).all()
        assert hole[row["mask"]].all()
        assert task["prompt"] == row["label"]
        if kind == "object_inpainting":
            assert (first, second, task["tradeoff"]) == ("P_obj", "P_obj", [1.0, 0.0])
        else:
            assert (first, second) == ("P_shape", "P_ctxt")
            assert task["tradeoff"] == pytest.approx(
                [row["mask"].sum() / hole.sum(), 1 - row["mask"].sum() / hole.sum()]
            )
            assert row["id"] != "0" or (hole == loose).all()
    assert len({hole.tobytes() for hole in holes.values()}) == 4
    assert all(0.005 < hole.mean() < 0.8 for hole in holes.values())


# --- smarteraser


def test_smarterasers_loader_reads_the_folders(tmp_path: Path) -> None:
    """Every name in `gt/` is in `mask/` and `paste/`, opens there, and its mask marks something at 512 px; the list has
    class, box and size; a mask that vanishes at 512 px is left out."""
    rows = [make_large_row(n, id=id, split="train") for n, id in enumerate(AWKWARD)]
    dot = np.zeros((2048, 2048), bool)
    dot[5, 9] = True
    grey = np.zeros((2048, 2048, 3), np.uint8)
    pictures = {"source": grey, "target": grey, "mask": dot, "foreground_mask": dot}
    out, manifest = export(tmp_path, [*rows, make_large_row(9, id="dot", split="train", **pictures)], "smarteraser")
    root, truth = out / "train", {f"{name_row(row['id'])}.png": row for row in rows}
    names = [path.name for path in (root / "gt").iterdir()]
    assert sorted(names) == sorted(truth)
    result = json.loads((root / "result.json").read_text())
    for name in names:
        row = truth[name]
        assert (np.asarray(Image.open(root / "gt" / name).convert("RGB")) == row["target"]).all()
        assert (np.asarray(Image.open(root / "paste" / name).convert("RGB")) == row["source"]).all()
        mask = Image.fromarray((read_grey(root / "mask" / name) > 128).astype(np.uint8) * 255)
        assert ((np.asarray(mask) > 0) == row["mask"]).all()
        assert mask.resize((512, 512), Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 128)).getbbox()
        assert result[name] == [row["label"], list(mask.getbbox() or ()), [520, 512]]
    assert manifest["left_out"] == {"its mask vanishes at 512 px, the trainer's size": 1}
    assert read_lines(root / "left_out.jsonl")[0]["id"] == "dot"


# --- which rows


JUDGED: Sequence[tuple[str, dict[str, Any], bool, bool]] = (
    ("captured", {}, True, True),
    ("simulated", {}, True, True),
    ("inserted", {}, False, True),
    ("inserted", {"verdict": "yes"}, True, True),
    ("edited", {}, True, False),
    ("edited", {"verdict": "yes"}, True, True),
    ("edited", {"score": 0.93}, True, True),
    ("edited", {"score": 0.2}, True, False),
    ("edited", {"verdict": "no", "score": 0.93}, True, False),
    ("edited", {"verdict": "unsure"}, True, False),
)
"""Kind, judgement, whether the source and whether the target is an answer for a trainer."""


def test_which_rows_are_in_which_export(tmp_path: Path) -> None:
    """What a model painted is an answer only where it was accepted. Source as the answer: BrushNet, P_obj, P_shape,
    foreground; target as the answer: SmartEraser, P_ctxt, background. RORem and OBER have every row."""
    rows = [make_large_row(n, id=f"{n}", split="train", kind=kind, **more) for n, (kind, more, *_) in enumerate(JUDGED)]
    run = make_finished_run(tmp_path / "run", rows, columns=COLUMNS)
    for layout in (*NEW, "rorem", "ober"):
        manifest = export_run(run, Store(tmp_path / layout), layout)
        assert manifest["rows"] + sum(manifest.get("left_out", {}).values()) == len(rows)

    def list_ids(layout: str, folder: str) -> set[int]:
        return {int(path.stem) for path in (tmp_path / layout / "train" / folder).iterdir()}

    sources = {number for number, (*_, source, _) in enumerate(JUDGED) if source}
    targets = {number for number, (*_, target) in enumerate(JUDGED) if target}
    tar = (tmp_path / "brushdata" / "train" / "00000.tar").read_bytes()
    assert {int(name) for name, _ in read_tar(tar)} == sources
    for layout, folder in (("lcg", "object"), ("powerpaint", "object_mask"), ("powerpaint", "shape_mask")):
        assert list_ids(layout, folder) == sources, (layout, folder)
    for layout, folder in (("lcg", "background"), ("powerpaint", "random_mask"), ("smarteraser", "gt")):
        assert list_ids(layout, folder) == targets, (layout, folder)
    assert list_ids("rorem", "GT") == set(range(len(rows)))


def test_a_question_is_exported_once(tmp_path: Path) -> None:
    """Candidates of several removers for one triplet, beside that triplet: its source and mask are there once."""
    rows = [make_large_row(0, id="t", split="train")]
    rows += [rows[0] | {"id": f"t.{name}", "kind": "edited", "parents": ["t"], "verdict": "yes"} for name in "ab"]
    rows += [rows[0] | {"id": f"u.{name}", "kind": "edited", "parents": ["u"], "verdict": "no"} for name in "ab"]
    out, manifest = export(tmp_path, rows, "brushdata", shard_rows=1)
    assert [line["id"] for line in read_lines(out / "rows.jsonl")] == ["t", "u.a"]
    assert manifest["left_out"] == {"another row has the same source and mask": 3}
    folder, manifest = export(tmp_path / "lcg", rows, "lcg")
    prompts = Counter(prompt for prompt, *_ in read_lcg(folder, "train"))
    assert prompts == {"foreground": 2, "background": 3}
    assert (manifest["rows"], sum(manifest["left_out"].values())) == (4, 1)


# --- all of them


def test_the_closing_line_balances(tmp_path: Path) -> None:
    """kept + left out = in, with the reasons; where nothing is left, nothing is written and the status is 1."""
    rows = [make_large_row(0, id="a"), make_row(1, id="b"), make_row(2, id="c")]
    run = make_finished_run(
        tmp_path / "run", [{name: row.get(name) for name in COLUMNS} for row in rows], columns=COLUMNS
    )
    line = rasura("export", run.uri, "--format", "powerpaint", "--out", tmp_path / "out", "--quiet").stdout
    assert "1 row in " in line
    assert "(1 kept + 2 left out = 3; 2: a side is under 512 px" in line
    run = make_finished_run(tmp_path / "small", [make_row(1)])
    with pytest.raises(NothingToExport, match=r"'powerpaint' can take none of 1 rows \(1: a side is under 512 px"):
        export_run(run, Store(tmp_path / "none"), "powerpaint")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("layout", NEW)
def test_bytes_depend_on_the_rows_alone(tmp_path: Path, layout: str) -> None:
    """Shard size, order of rows and a second export into the same folder change no byte."""
    rows = [make_large_row(n, id=f"{n * 7919 % 31}", scene_id=f"{n}", split="train") for n in range(5)]
    first, _ = export(tmp_path / "one", rows, layout, shard_rows=2)
    second, _ = export(tmp_path / "two", rows[::-1], layout, shard_rows=5)
    before = list_contents(first)
    assert before == list_contents(second)
    export_run(Store(tmp_path / "two" / "run"), Store(first), layout)
    assert before == list_contents(first)
    assert verify(Store(first)).faults == []


_KILLED = """
import itertools, os, signal, sys
from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run

write, numbers = Store._write_temporary, itertools.count(1)  # several threads write

def stop(self, target, data):
    number = next(numbers)
    temporary = write(self, target, data)
    if number == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return temporary

Store._write_temporary = stop
export_run(Store(sys.argv[1]), Store(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize(
    ("layout", "writes"),
    [("lcg", 6), ("brushdata", 3), ("powerpaint", 20), ("smarteraser", 2), ("kohya", 9), ("webdataset", 3)],
)
def test_an_export_that_is_killed_starts_cleanly(tmp_path: Path, layout: str, writes: int) -> None:
    """Killed while it replaces an earlier export, it leaves no dataset; repeated, the folder is that of an export that
    was never killed, to the byte, hidden files included: SmartEraser's loader opens all that is in `gt/`."""
    rows = [make_large_row(n, id=f"{n}", split="train") for n in range(4)]
    clean, _ = export(tmp_path / "clean", rows[:3], layout, shard_bytes=3000)
    folder, _ = export(tmp_path / "killed", rows[3:], layout, shard_bytes=3000)
    arguments = [str(tmp_path / "clean" / "run"), str(folder), layout, str(writes)]
    done = subprocess.run([sys.executable, "-c", _KILLED, *arguments], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "manifest.json").exists()
    assert any(".tmp-" in name for name in list_contents(folder))
    export_run(Store(tmp_path / "clean" / "run"), Store(folder), layout)
    assert list_contents(folder) == list_contents(clean)


@pytest.mark.parametrize("layout", NEW)
def test_damage_is_named(tmp_path: Path, layout: str) -> None:
    """`verify` names a file that was changed and one that is gone."""
    out, _ = export(tmp_path, [make_large_row(n, id=f"{n}", split="train") for n in range(2)], layout, shard_bytes=1000)
    files = sorted(path for path in out.rglob("*") if path.suffix in (".tar", ".webp", ".png"))
    files[0].write_bytes(files[0].read_bytes()[:-1])
    files[1].unlink()
    faults = verify(Store(out)).faults
    assert sorted(fault.split(": ")[0] for fault in faults) == [str(path.relative_to(out)) for path in files[:2]]


@pytest.mark.parametrize("layout", ["brushdata", "smarteraser"])
def test_memory_does_not_hold_the_pictures(tmp_path: Path, layout: str) -> None:
    """What 30 rows more need is less than a fifth of their pictures: those of one row, or tar, are held at a time."""
    noise = np.random.default_rng(5).integers(0, 256, (64, 520, 3), dtype=np.uint8)
    peaks = []
    for count in (10, 40):
        rows = [make_large_row(n, id=f"{n}", split="train") for n in range(count)]
        for row in rows:
            for name in ("source", "target"):
                row[name] = row[name].copy()
                row[name][448:] = noise
        run = make_finished_run(tmp_path / f"{count}", rows, shard_bytes=400_000, columns=COLUMNS, shard_rows=10)
        tracemalloc.start()
        export_run(run, Store(tmp_path / f"out{count}"), layout)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    pictures = 30 * 2 * len(encode_image(rows[0]["source"]))
    assert pictures > 5_000_000
    assert peaks[1] - peaks[0] < pictures / 5
