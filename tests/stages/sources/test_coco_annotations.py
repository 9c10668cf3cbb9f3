"""COCO's annotations reach the photograph that they name, and no other; each of the rest is counted or rejected."""

import json
from collections import Counter

import numpy as np
import pytest

from rasura.manifests.formats.coco import NotCoco, parse_coco
from rasura.manifests.images import encode_image
from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.foreign.coco import Coco, read_contents
from rasura.stages.sources.listing import MissingInput
from rasura.stages.sources.photos import Photos
from rasura.stages.stage import Kept, Rejected

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def read(folder, names, images, annotations):
    """Read photographs below `folder` with these entries; return outcomes by name, and what was passed over."""
    for number, name in enumerate(names):
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((20, 30, 3), 10 * number, np.uint8)
        (folder / "photos" / name).write_bytes(encode_image(picture))
    contents = {
        "images": [{"id": number, "file_name": name, "width": 30, "height": 20} for number, name in enumerate(images)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 1, "segmentation": segmentation}
            for number, (image, segmentation) in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (folder / "coco.json").write_text(json.dumps(contents))
    source = Photos(Photos.Params(path=str(folder / "photos"), masks=str(folder / "coco.json")))
    run = RunContext(Store(folder / "run"), "photos")
    source.setup()
    outcomes = {}
    for item in source.items(run):
        name = item["origin"].partition("/photos/")[2]
        outcomes.setdefault(name, []).append(source.process_one({**item, "content": item["id"]}))
    return outcomes, run.passed_over


def test_a_name_that_fits_two_photographs_is_given_to_neither(tmp_path):
    outcomes, passed_over = read(
        tmp_path, ["a/x.png", "b/x.png", "y.png"], ["x.png", "y.png"], [(0, SQUARE), (1, SQUARE)]
    )
    for name in ("a/x.png", "b/x.png"):
        (outcome,) = outcomes[name]
        assert isinstance(outcome, Rejected)
        assert outcome.reason == "annotations ambiguous"
        assert "a/x.png" in outcome.detail
        assert "b/x.png" in outcome.detail
    assert isinstance(outcomes["y.png"][0], Kept)
    assert passed_over == {"annotation whose photo is ambiguous": 1}


def test_a_full_path_beats_a_bare_name(tmp_path):
    images = ["a/x.png", "b/x.png", "val/z.png", "train/z.png"]
    annotations = [(0, SQUARE), (1, SQUARE), (1, [[1, 1, 9, 1, 9, 9]]), (2, SQUARE), (3, SQUARE)]
    outcomes, _ = read(tmp_path, ["a/x.png", "b/x.png", "z.png"], images, annotations)
    assert [len(outcomes[name]) for name in ("a/x.png", "b/x.png")] == [1, 2]
    assert all(isinstance(outcome, Kept) for name in ("a/x.png", "b/x.png") for outcome in outcomes[name])
    assert outcomes["z.png"][0].reason == "annotations ambiguous", "z.png of val or of train"


def test_two_entries_of_one_photograph_are_joined(tmp_path):
    outcomes, passed_over = read(
        tmp_path, ["x.png"], ["x.png", "photos/x.png"], [(0, SQUARE), (1, [[1, 1, 9, 1, 9, 9]])]
    )
    assert [type(outcome) for outcome in outcomes["x.png"]] == [Kept, Kept]
    assert not passed_over


def test_annotations_without_a_photograph_are_counted(tmp_path):
    images = ["x.png", "missing.png", "../../etc/x.png"]
    outcomes, passed_over = read(tmp_path, ["x.png"], images, [(0, SQUARE), (1, SQUARE), (2, SQUARE), (99, SQUARE)])
    assert len(outcomes["x.png"]) == 1
    assert passed_over == {"annotation of a photo that is not there": 2, "annotation of no photo in `images`": 1}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_not_finite_costs_its_own_annotation_only(tmp_path, number):
    read(tmp_path, ["x.png"], ["x.png"], [(0, SQUARE), (0, [[1, 1, 9, 1, 9, 7.25]])])
    path = tmp_path / "coco.json"
    path.write_text(path.read_text().replace("7.25", number))
    source = Photos(Photos.Params(path=str(tmp_path / "photos"), masks=str(path)))
    source.setup()
    items = source.items(RunContext(Store(tmp_path / "run"), "photos"))
    outcomes = Counter(type(source.process_one({**item, "content": item["id"]})) for item in items)
    assert outcomes == {Kept: 1, Rejected: 1}


def test_what_marks_no_object_of_its_own_is_rejected(tmp_path):
    """The complete picture, a speck, the same annotation again, and what is no polygon, each in plain words."""
    whole = {"size": [20, 30], "counts": [0, 600]}
    segmentations = [SQUARE, SQUARE, whole, [[2, 2, 3, 2, 3, 3, 2, 3]], SQUARE[0], [[1, 1, 9, 1, 9, 9, 4]]]
    outcomes, _ = read(tmp_path, ["x.png"], ["x.png"], [(0, segmentation) for segmentation in segmentations])
    kept, *rejected = outcomes["x.png"]
    assert isinstance(kept, Kept)
    assert {(outcome.reason, outcome.detail.partition(": ")[2]) for outcome in rejected} == {
        ("duplicate", ""),
        ("empty mask", "it marks everything at 30 x 20 px"),
        ("empty mask", "it marks 1 px of 30 x 20 px"),
        ("no mask in its file", "one flat list of numbers; polygons are lists in a list: [[x0, y0, x1, y1, …], …]"),
        ("no mask in its file", "a polygon of 7 numbers, which are no pairs of x and y"),
    }


@pytest.mark.parametrize(("flag", "is_crowd"), [("0", False), (0, False), (None, False), ("1", True), (1, True)])
def test_a_crowd_is_what_says_so_as_number_or_text(flag, is_crowd):
    annotation = {"id": 1, "image_id": 1, "segmentation": SQUARE, "iscrowd": flag}
    contents = {"images": [{"id": 1, "file_name": "x.png"}], "annotations": [annotation]}
    (picture,), _ = parse_coco(json.dumps(contents).encode(), "coco.json")
    assert picture.objects[0].crowd == is_crowd


IDS_OF_FILES_PARSED_AT_ONCE = ["81e09886", "99145ad7", "673ffbde", "4f9a0812", "39da25a5", "fd83416b", "3295d445"]
"""Second parts of the ids of the objects of `make_file` in runs whose file was not read in pieces, by photograph."""


def make_file():
    """Annotations of all forms: before the images, without ids or class, run lengths, numbers of every kind."""
    annotations = [
        {"image_id": 2, "category_id": 7, "segmentation": [[2.5, 2, 12.125, 2, 12, 12.0, 2, 1e1]]},
        {"id": 31, "image_id": 1, "category_id": 7, "segmentation": SQUARE, "iscrowd": 0, "bbox": [1, 2, 3, 4]},
        {"id": "a", "image_id": 1, "category_id": 8, "segmentation": SQUARE, "iscrowd": "0"},
        {"image_id": 1, "segmentation": {"size": [20, 30], "counts": [9, 4, 587]}, "iscrowd": 1},
        {"id": 5, "image_id": 1, "category_id": 7, "segmentation": [[1, 1, 9, 1, 9, "HUGE"]]},
        {"id": 6, "image_id": 99, "category_id": 7, "segmentation": SQUARE},
        {"id": 7, "image_id": 2, "category_id": None, "segmentation": {"size": [20, 30], "counts": "13é"}},
        {"id": 8, "image_id": 2, "category_id": 8},
    ]
    images = [{"id": 1, "file_name": "x.png", "width": 30, "height": 20}, {"id": 2, "file_name": "y.png"}]
    categories = [{"id": 7, "name": "cup"}, {"id": 8, "name": "Café"}]
    contents = {"annotations": annotations, "images": images, "categories": categories}
    return json.dumps(contents, ensure_ascii=False, indent=1).replace('"HUGE"', "1e999")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ids_stay_what_they_were(tmp_path, encoding):
    """Runs that were begun before the file was read in pieces go on: whatever its encoding and its numbers are."""
    read(tmp_path, ["x.png", "y.png"], ["x.png"], [(0, SQUARE)])
    (tmp_path / "coco.json").write_bytes(make_file().encode(encoding))
    source = Photos(Photos.Params(path=str(tmp_path / "photos"), masks=str(tmp_path / "coco.json")))
    items = source.items(RunContext(Store(tmp_path / "run"), "photos"))
    assert [item["id"].partition(".")[2] for item in items] == IDS_OF_FILES_PARSED_AT_ONCE


def test_two_pictures_of_one_id_are_refused():
    images = [{"id": 1, "file_name": name} for name in ("x.png", "y.png")]
    with pytest.raises(NotCoco, match="have the id 1"):
        parse_coco(json.dumps({"images": images, "annotations": []}).encode(), "coco.json")


def break_entries(path):
    """Take from a file of annotations what one entry of each list needs."""
    contents = json.loads(path.read_text())
    del contents["annotations"][1]["image_id"]
    del contents["images"][1]["id"]
    contents["annotations"].append("no object")
    contents["categories"].append({"id": 2})
    path.write_text(json.dumps(contents))


def test_an_entry_that_is_not_in_the_form_costs_itself(tmp_path):
    """With its place, in both sources that read such a file; the rest of the set is read."""
    annotations = [(0, SQUARE), (0, SQUARE), (0, [[1, 1, 9, 1, 9, 9]]), (1, SQUARE)]
    read(tmp_path, ["x.png", "y.png"], ["x.png", "y.png"], annotations)
    path = tmp_path / "coco.json"
    break_entries(path)
    counted = {
        "entry that has no 'id' (first: images[1])": 1,
        "entry that has no 'name' (first: categories[1])": 1,
        "annotation of no photo in `images`": 1,
    }
    for source, in_counts, rejected in (
        (Photos(Photos.Params(path=str(tmp_path / "photos"), masks=str(path))), True, []),
        (
            Coco(Coco.Params(path=str(tmp_path / "photos"), annotations=str(path))),
            False,
            ["[1] has no 'image_id'", "[4]"],
        ),
    ):
        source.setup()
        run = RunContext(Store(tmp_path / "run" / source.name), "photos")
        outcomes = [source.process_one({**item, "content": item["id"]}) for item in source.items(run)]
        assert sum(isinstance(outcome, Kept) for outcome in outcomes) == 2
        details = sorted(outcome.detail for outcome in outcomes if getattr(outcome, "reason", "").startswith("annot"))
        assert len(details) == len(rejected)
        assert all(f"annotations{text}" in detail for text, detail in zip(rejected, details, strict=True))
        assert counted.items() <= run.passed_over.items()
        assert ("entry that has no 'image_id' (first: annotations[1])" in run.passed_over) == in_counts


def test_a_list_without_any_entry_in_the_form_is_refused_with_the_first():
    contents = {"images": [{"id": 1, "file_name": "x.png"}], "annotations": [{"bbox": []}, {"bbox": []}]}
    with pytest.raises(NotCoco, match=r"annotations\[0\] has no 'image_id', and no other of its `annotations`"):
        parse_coco(json.dumps(contents).encode(), "coco.json")


def test_a_file_that_is_there_is_never_called_missing(tmp_path):
    """Whatever else is wrong with it: the error says that."""
    path = tmp_path / "coco.json"
    with pytest.raises(MissingInput, match="there is no file"):
        read_contents(str(path))
    images = [{"id": 1, "file_name": name} for name in ("x.png", "y.png")]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(MissingInput, match=r"'x\.png' and 'y\.png' have the id 1"):
        read_contents(str(path))
    assert not issubclass(MissingInput, OSError), "else `except FileNotFoundError` would take it for a missing file"
