"""Exports for models that edit by text: each is read back by the trainer's own class, or by its rules."""

import gc
import hashlib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from glob import escape, glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.dataset_runs import make_finished_run, make_row

from rasura.manifests.formats.dataset_rows import NotTriplets
from rasura.manifests.formats.filters.crops import Crop
from rasura.manifests.formats.registry import FORMATS, PAIR_FORMATS, PICTURE_MEMBERS
from rasura.manifests.formats.trainers.croissant import CONTEXT
from rasura.manifests.formats.trainers.instructions import (
    DIRECTIONS,
    LANGUAGES,
    locate_object,
    read_language,
    render_instruction,
)
from rasura.manifests.formats.trainers.pairs import PairSettings
from rasura.manifests.formats.trainers.tars import read_tar
from rasura.manifests.storage import Store
from rasura.pipeline.export import ExportOptions, export_run
from rasura.pipeline.run.verify import verify
from rasura.stages.sources.studio.objects import PROPS

IDS = ("../../out", "7fa4.mask_1", ".hidden", "a,b c%d", "x-masklabel", "x", "x_1", "[glob]*?", "日本/x")
LABELS = ("dog", None, "a{place}\nlabel\x00", "apple", "bus", "dog", "x" * 300, "{a_object}", "日本")
IMAGES = (".jpg", ".jpeg", ".png", ".webp")


class Pair(NamedTuple):
    """What a trainer gets of a row."""

    condition: npt.NDArray[np.uint8]
    answer: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None
    text: str


def open_rgb(path: Path | str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def open_grey(path: Path | str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("L"))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Triplets with awkward ids and labels; in every second one the effects reach beyond the object."""
    samples = []
    for number, id in enumerate(IDS):
        row = make_row(
            number, id=id, split="train", scene_id=f"s{number}", label=LABELS[number], verdict=None, score=None
        )
        shadow = row["mask"].copy()
        shadow[12:16, 5:15] = number % 2 == 0
        target = row["target"].copy()
        target[shadow & ~row["mask"]] ^= 1
        samples.append(row | {"foreground_mask": shadow, "target": target})
    return samples


@pytest.fixture(scope="module")
def run(rows: Sequence[Mapping[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_finished_run(tmp_path_factory.mktemp("edits") / "run", rows, shard_bytes=6000)


@pytest.fixture(scope="module")
def exports(run: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts in both directions, Chinese in the second."""
    folder = tmp_path_factory.mktemp("exports")
    for layout in PAIR_FORMATS:
        for direction, language in zip(DIRECTIONS, LANGUAGES, strict=True):
            options = ExportOptions(pairs=PairSettings(direction, language))
            manifest = export_run(run, Store(folder / direction / layout), layout, options=options)
            assert (manifest["rows"], manifest.get("left_out", {})) == (len(IDS), {})
            assert verify(Store(folder / direction / layout)).faults == []
    return folder


def read_ai_toolkit(folder: Path) -> Iterator[Pair]:
    """AiToolkitDataset, CaptionMixin, ControlFileItemDTOMixin and MaskFileItemDTOMixin of ai-toolkit 0.12.26
    (toolkit/data_loader.py, toolkit/dataloader_mixins.py)."""
    paths = []
    for root, names, files in os.walk(folder / "train" / "target"):
        names[:] = [name for name in names if not name.startswith(".")]
        paths += [Path(root, file) for file in files if file.lower().endswith(IMAGES) and not file.startswith(".")]
    for path in paths:
        name = os.path.splitext(path.name)[0]  # noqa: PTH122 - as the trainer does

        def find(part: str, name: str = name) -> str:
            places = [str(folder / "train" / part / f"{name}{ending}") for ending in (".jpg", ".jpeg", ".png", ".webp")]
            return next(place for place in places if os.path.exists(place))  # noqa: PTH110

        text = Path(os.path.splitext(path)[0] + ".txt").read_text(encoding="utf-8")  # noqa: PTH122
        yield Pair(open_rgb(find("control")), open_rgb(path), open_grey(find("mask")), text)


def read_onetrainer(folder: Path) -> Iterator[Pair]:
    """CollectPaths, ModifyPath, LoadImage and LoadMultipleTexts of mgds at 3a6994a, as OneTrainer at 23df383 has them
    (modules/dataLoader/mixin/DataLoaderText2ImageMixin.py): each line of a text is one of its prompts."""
    names = sorted(str(path) for path in (folder / "train").iterdir() if path.is_file())
    names = [name for name in names if os.path.splitext(name)[1].lower() in {".bmp", *IMAGES}]  # noqa: PTH122
    stems = [os.path.splitext(name)[0] for name in names]  # noqa: PTH122
    for stem in stems:
        if stem.endswith(("-masklabel", "-condlabel")):
            continue
        texts = [line.strip() for line in Path(f"{stem}.txt").read_text(encoding="utf-8").splitlines(keepends=True)]
        texts = [text for text in texts if text]
        assert len(texts) == 1
        mask = open_grey(f"{stem}-masklabel.png")
        yield Pair(open_rgb(f"{stem}-condlabel.png"), open_rgb(f"{stem}.png"), mask, texts[0])


def read_kohya(folder: Path) -> Iterator[Pair]:
    """ImageDirectoryDatasource of musubi-tuner 0.3.4 (dataset/datasources.py): controls are those whose name begins
    with the picture's, longest names first; and ControlNetDataset of sd-scripts at 48d368f (library/train_util.py): a
    control for each picture, none more, of the same size."""

    def glob_images(part: str) -> set[str]:
        place = escape(str(folder / "train" / part))
        return {path for ending in IMAGES for path in glob(f"{place}/*{ending}")}

    controls, targets = glob_images("control"), glob_images("target")
    texts = {Path(path).stem for path in glob(f"{escape(str(folder / 'train' / 'target'))}/*.txt")}
    assert {Path(path).stem for path in targets} == texts == {Path(path).stem for path in controls}
    for target in sorted(targets, key=lambda path: len(Path(path).name), reverse=True):
        stem = Path(target).stem
        matching = [path for path in controls if Path(path).name.startswith((f"{stem}.", f"{stem}_"))]
        controls.difference_update(matching)
        assert len(matching) == 1
        condition, answer = open_rgb(matching[0]), open_rgb(target)
        assert condition.shape == answer.shape
        mask = open_grey(folder / "train" / "mask" / Path(target).name)
        yield Pair(condition, answer, mask, Path(target).with_suffix(".txt").read_text(encoding="utf-8"))
    assert not controls


def read_diffsynth(folder: Path) -> Iterator[Pair]:
    """UnifiedDataset of DiffSynth-Studio 2.1.2 (diffsynth/core/data/unified_dataset.py): a list of objects, whose paths
    begin at `--dataset_base_path`."""
    base = folder / "train"
    entries, lists = (json.loads((base / name).read_text()) for name in ("metadata.json", "metadata_lists.json"))
    for entry, other in zip(entries, lists, strict=True):
        assert (other["edit_image"], other["prompt"]) == ([entry["edit_image"]], entry["prompt"])
        assert entry["kontext_images"] == entry["edit_image"]
        mask = open_grey(base / "mask" / Path(entry["image"]).name)
        yield Pair(open_rgb(base / entry["edit_image"]), open_rgb(base / entry["image"]), mask, entry["prompt"])


def read_webdataset(folder: Path) -> Iterator[Pair]:
    """Members by their names; `test_webdatasets_own_classes` has the library's reader."""
    from io import BytesIO

    for tar in sorted((folder / "train").glob("*.tar")):
        for _, members in read_tar(tar.read_bytes()):
            about = json.loads(members["json"])
            assert about["prompt"] == members["txt"].decode()
            names = ("source", "target") if "removal" in str(folder) else ("target", "source")
            pictures = [BytesIO(members[f"{name}.png"]) for name in (*names, "foreground_mask")]
            yield Pair(open_rgb(pictures[0]), open_rgb(pictures[1]), open_grey(pictures[2]), about["prompt"])


READERS = {
    "ai-toolkit": read_ai_toolkit,
    "onetrainer": read_onetrainer,
    "kohya": read_kohya,
    "diffsynth": read_diffsynth,
    "webdataset": read_webdataset,
}


def check_pairs(pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]], direction: str, language: str) -> None:
    """Every row is there once, to the bit, with its text; the mask is white where the pictures differ, 0 and 255."""
    answers = {pair.answer.tobytes(): pair for pair in pairs}
    assert len(answers) == len(pairs) == len(rows)
    for row in rows:
        condition, answer = (row["source"], row["target"]) if direction == "removal" else (row["target"], row["source"])
        pair = answers[answer.tobytes()]
        assert np.array_equal(pair.condition, condition)
        assert pair.text == render_instruction(row, row["mask"], direction, language)
        if pair.mask is not None:
            assert np.array_equal(pair.mask, np.where(row["foreground_mask"], 255, 0))


@pytest.mark.parametrize(("direction", "language"), list(zip(DIRECTIONS, LANGUAGES, strict=True)))
@pytest.mark.parametrize("layout", READERS)
def test_trainers_get_every_row(
    exports: Path, rows: Sequence[Mapping[str, Any]], layout: str, direction: str, language: str
) -> None:
    """By the rules of each trainer's reader, whatever ids and labels are."""
    assert set(READERS) | {"diffusers"} == set(PAIR_FORMATS)
    check_pairs(list(READERS[layout](exports / direction / layout)), rows, direction, language)


@pytest.mark.torch
def test_diffusers_scripts_read_the_columns(exports: Path, rows: Sequence[Mapping[str, Any]], tmp_path: Path) -> None:
    """`load_dataset(folder)` as train_instruct_pix2pix.py calls it for `--dataset_name` (diffusers 0.40) has its three
    columns, no value is null, and `convert_to_np` of both pictures works."""
    import datasets

    for direction, language in zip(DIRECTIONS, LANGUAGES, strict=True):
        place = str(exports / direction / "diffusers")
        dataset = datasets.load_dataset(place, None, cache_dir=str(tmp_path / direction))["train"]
        assert {"input_image", "edit_prompt", "edited_image"} <= set(dataset.column_names)
        pairs = []
        for sample in dataset:
            assert None not in sample.values()
            for name in ("input_image", "edited_image"):
                assert np.array(sample[name].convert("RGB").resize((16, 16))).transpose(2, 0, 1).shape == (3, 16, 16)
            condition, answer = (np.asarray(sample[name]) for name in ("input_image", "edited_image"))
            mask = np.asarray(sample["change"].convert("L"))
            pairs.append(Pair(condition, answer, mask, sample["edit_prompt"]))
        check_pairs(pairs, rows, direction, language)


@pytest.mark.torch
def test_webdatasets_own_classes(exports: Path, rows: Sequence[Mapping[str, Any]], tmp_path: Path) -> None:
    """`datasets` makes the same columns of every sample, null in none; `webdataset` decodes them."""
    import datasets
    import webdataset

    tars = sorted(map(str, (exports / "removal" / "webdataset" / "train").glob("*.tar")))
    assert len(tars) > 1
    loaded = datasets.load_dataset("webdataset", data_files={"train": tars}, cache_dir=str(tmp_path))["train"]
    samples = list(loaded)
    assert all(None not in (*sample.values(), *sample["json"].values()) for sample in samples)
    assert sorted(sample["json"]["id"] for sample in samples) == sorted(IDS)
    by_id = {row["id"]: row for row in rows}
    for sample in samples:
        row = by_id[sample["json"]["id"]]
        assert np.array_equal(np.asarray(sample["source.png"]), row["source"])
        assert np.array_equal(np.asarray(sample["target.png"]), row["target"])
        assert np.array_equal(np.asarray(sample["mask.png"]) > 0, row["mask"])
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves its last file open
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
        gc.collect()
    assert len(samples) == len(rows)
    assert np.array_equal(samples[0]["source.png"], by_id[samples[0]["json"]["id"]]["source"])


def test_what_nobody_accepted_is_no_pair(tmp_path: Path) -> None:
    """A picture that a model painted is neither condition nor answer, unless somebody accepted it; all is counted."""
    kinds = [("captured", None), ("edited", None), ("edited", "yes"), ("inserted", "no"), ("inserted", "yes")]
    rows = [
        make_row(number, id=str(number), split="train", kind=kind, verdict=verdict, score=None)
        for number, (kind, verdict) in enumerate(kinds)
    ]
    run = make_finished_run(tmp_path / "run", rows)
    for layout in PAIR_FORMATS:
        out = Store(tmp_path / layout)
        manifest = export_run(run, out, layout)
        assert (manifest["rows"], sum(manifest["left_out"].values())) == (3, 2)
        lists = list((tmp_path / layout).rglob("left_out.jsonl"))
        listed = [json.loads(line) for line in lists[0].read_text().splitlines()]
        assert {line["id"] for line in listed} == {"1", "3"}
        assert verify(out).faults == []
        export_run(run, out, "huggingface")  # leaves nothing of it
        assert not list((tmp_path / layout).rglob("left_out.jsonl"))


def test_instructions() -> None:
    """Every template names what and where, a row's text depends on its id, not all rows have one template, and the
    place is that of the mask."""
    for name in LANGUAGES:
        language = read_language(name)
        for direction in DIRECTIONS:
            assert len(set(language.templates[direction])) >= 5
            for template in language.templates[direction]:
                assert "{place}" in template
                assert "{object}" in template or "{a_object}" in template
            mask = np.zeros((30, 30), bool)
            mask[2:8, 22:28] = True
            texts = [render_instruction({"id": str(n), "label": "dog"}, mask, direction, name) for n in range(40)]
            assert len(set(texts)) == len(language.templates[direction])
            assert texts == [
                render_instruction({"id": str(n), "label": "dog"}, mask, direction, name) for n in range(40)
            ]
            assert all(language.places["top right"] in text and "{" not in text for text in texts)
            nameless = render_instruction({"id": "1", "label": " \n"}, mask, direction, name)
            assert language.words["object"] in nameless
    places = set()
    for y in range(3):
        for x in range(3):
            mask = np.zeros((31, 61), bool)
            mask[2 + 10 * y : 8 + 10 * y, 3 + 20 * x : 17 + 20 * x] = True
            places.add(locate_object(mask))
    assert places == set(read_language("en").places) == set(read_language("zh").places)
    for label in (*PROPS, "Traffic_light"):  # what the studio renders, and how LVIS writes names
        text = render_instruction({"id": "1", "label": label}, mask, "insertion", "zh")
        assert not re.search("[A-Za-z]", text), text
    own = render_instruction({"id": "1", "instruction": "Away with\nit"}, mask, "removal")
    assert own == "Away with it"


@pytest.mark.parametrize("layout", FORMATS)
def test_croissant_describes_what_is_there(run: Store, tmp_path: Path, layout: str) -> None:
    """Every file of data is in it with its sha256 and size, each set matches files, each field is a column of them, and
    no key is unknown to the context."""
    rows = [make_row(n, side=512, id=f"{n}", split="train", verdict=None, score=None) for n in range(2)]
    run = make_finished_run(tmp_path / "run", rows)
    out = tmp_path / "out"
    manifest = export_run(run, Store(out), layout)
    metadata = json.loads((out / "croissant.json").read_text())
    assert metadata["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    objects = {entry["@id"]: entry for entry in metadata["distribution"] if entry["@type"] == "cr:FileObject"}
    assert set(objects) == {file["name"] for file in manifest["files"] if file["bytes"]}
    for entry in objects.values():
        data = (out / entry["contentUrl"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert f"{len(data)} B" == entry["contentSize"]
    sets = {entry["@id"]: entry for entry in metadata["distribution"] if entry["@type"] == "cr:FileSet"}
    assert any(list(out.glob(entry["includes"])) for entry in sets.values())
    fields = [field for record in metadata["recordSet"] for field in record["field"]]
    assert bool(fields) == (layout != "lance")  # Croissant cannot read it
    for field in fields:
        files = list(out.glob(sets[field["source"]["fileSet"]["@id"]]["includes"]))
        assert files
        if files[0].suffix == ".jsonl":
            assert field["source"]["extract"]["column"] in json.loads(files[0].read_text().splitlines()[0])
    if layout in PICTURE_MEMBERS:
        assert "tar" in sets
    keys = {key for entry in (*objects.values(), *sets.values(), *fields) for key in entry}
    schema_org = {"name", "contentUrl", "contentSize", "encodingFormat", "sha256", "description"}
    assert {key for key in keys if not key.startswith("@")} <= {*CONTEXT, *schema_org}
    if importlib.util.find_spec("mlcroissant"):
        dataset = importlib.import_module("mlcroissant").Dataset(str(out / "croissant.json"))
        assert not dataset.metadata.ctx.issues.errors
        assert not fields or len(list(dataset.records("rows"))) == manifest["rows"]


def test_what_is_lossless_comes_back_bit_by_bit(
    exports: Path, rows: Sequence[Mapping[str, Any]], tmp_path: Path
) -> None:
    """Tars and diffusers' columns, in either direction, are read by Rasura's own sources as the triplets that they were
    made of: pictures, masks, labels, scenes, splits and kinds."""
    from rasura.stages.sources.files import RunContext
    from rasura.stages.sources.foreign.table import TableRows
    from rasura.stages.sources.foreign.webdataset import WebDataset
    from rasura.stages.stage import Kept

    texts = {"label": "label", "licence": "licence", "scene": "scene_id", "split": "split", "kind": "kind"}
    masks = {"mask": "mask", "foreground_mask": "change"}
    columns = {"source": "input_image", "target": "edited_image", **masks, **texts}
    backwards = {**columns, "source": "edited_image", "target": "input_image"}
    sources = {
        "removal/webdataset": WebDataset(WebDataset.Params(path=".", give="triplets", columns=texts)),
        "insertion/webdataset": WebDataset(WebDataset.Params(path=".", give="triplets", columns=texts)),
        "removal/diffusers": TableRows(TableRows.Params(path=".", give="triplets", columns=columns)),
        "insertion/diffusers": TableRows(TableRows.Params(path=".", give="triplets", columns=backwards)),
    }
    truth = {row["source"].tobytes(): row for row in rows}
    for place, source in sources.items():
        folder = exports / place / ("train" if "webdataset" in place else "data")
        source = type(source)(source.params.model_copy(update={"path": str(folder)}))
        source.setup()
        items = source.items(RunContext(Store(tmp_path / place), "back"))
        outcomes = [source.process([{**item, "content": item["id"]}])[0] for item in items]
        assert all(isinstance(outcome, Kept) for outcome in outcomes), [o for o in outcomes if not isinstance(o, Kept)]
        back = [record for outcome in outcomes if isinstance(outcome, Kept) for record in outcome.records]
        assert len(back) == len(rows)
        for record in back:
            row = truth[record["source"].tobytes()]
            for name in ("target", "mask", "foreground_mask", "scene_id", "split", "kind", "licence"):
                assert np.array_equal(record[name], row[name]), (place, name)
            if row["label"] in ("dog", "apple", "bus", "日本"):
                assert record["label"] == row["label"]


def test_pictures_of_different_sizes_are_no_pair(tmp_path: Path) -> None:
    """They cost their row, with a reason, and nothing is cut out of the wrong place."""
    rows = [make_row(n, id=f"{n}", split="train", verdict=None) for n in range(2)]
    rows[1]["target"] = rows[1]["target"][:-3]
    run = make_finished_run(tmp_path / "run", rows)
    for layout, crop in (("kohya", None), ("webdataset", None), ("diffusers", Crop(16, 16))):
        manifest = export_run(run, Store(tmp_path / layout), layout, options=ExportOptions(crop=crop))
        assert (manifest["rows"], manifest["left_out"]) == (1, {"its pictures differ in size": 1})
    with pytest.raises(NotTriplets, match="its pictures differ in size"):
        export_run(run, Store(tmp_path / "none"), "diffusers")
