"""Finding objects with YOLOX."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.detect import COCO, Detect, Detection, DetectParams, decode, detections, fit_to_mask, iou, letterbox
from stages.stage import Kept, MissingColumns

ASSETS = Path(os.environ.get("RASURA_ASSETS", Path(__file__).parents[1].parent / "shared" / "assets"))
WEIGHTS = ASSETS / "weights" / "yolox_nano_416.onnx"
PHOTOS = ASSETS / "photos" / "coco"
needs_assets = pytest.mark.skipif(not WEIGHTS.exists(), reason="no assets")


def rows(*objects, size=64):
    """Raw network output for an input of size x size; objects are (cell row, class, objectness, log size)."""
    count = sum((size // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((count, 85), np.float32)
    for row, label, score, log_size in objects:
        output[row, :2] = 0.5
        output[row, 2:4] = log_size
        output[row, 4] = score
        output[row, 5 + label] = 1.0
    return output


def stage(**params):
    made = Detect(DetectParams(weights=WEIGHTS, **params))
    made.setup()
    return made


def test_a_picture_stands_in_the_upper_left_corner_in_bgr():
    """The letterbox keeps the aspect, pads with 114, swaps to BGR and does not scale the levels."""
    picture = np.zeros((50, 100, 3), np.uint8)
    picture[..., 0] = 200
    values, scale = letterbox(picture, 64, 64)
    assert scale == 0.64
    assert values.shape == (1, 3, 64, 64)
    assert (values[0, 2, :32] == 200).all()
    assert (values[0, 0, :32] == 0).all()
    assert (values[0, :, 32:] == 114).all()


def test_rows_are_decoded_with_their_cell_and_stride():
    """Row 9 of a 64 px input is cell (1, 1) of stride 8; row 64 is cell (0, 0) of stride 16."""
    boxes, scores = decode(rows((9, 2, 0.5, 0.0), (64, 0, 0.9, np.log(2.0))), 64, 64)
    assert np.allclose(boxes[9], [8, 8, 16, 16])
    assert np.allclose(boxes[64], [-8, -8, 24, 24])
    assert scores[9, 2] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the network gave"):
        decode(np.zeros((10, 85)), 64, 64)


def test_one_box_stays_of_two_of_one_class_and_both_of_two_classes():
    """Suppression works class by class, keeps the stronger box, cuts boxes to the picture and sorts by score."""
    output = rows((9, 2, 0.5, 1.0), (10, 2, 0.9, 1.0), (17, 2, 0.05, 1.0), (18, 7, 0.6, 1.0))
    output[9, 0] = 1.4  # almost on the next cell's centre
    found = detections(output, (64, 64), 0.5, (128, 128), 0.1, 0.45)
    assert [(d.label, round(d.score, 2)) for d in found] == [("car", 0.9), ("truck", 0.6)]
    assert all(0 <= v <= 128 for d in found for v in d.box)
    assert detections(rows(), (64, 64), 1.0, (64, 64), 0.1, 0.45) == []


def test_iou_of_equal_apart_and_half():
    """Intersection over union is 1, 0 and 1/3 for equal, apart and half-shifted boxes."""
    box = np.array([0, 0, 2, 2], float)
    assert iou(box, np.array([[0, 0, 2, 2], [5, 5, 6, 6], [1, 0, 3, 2]], float)) == pytest.approx([1, 0, 1 / 3])


def test_a_mask_takes_the_name_of_the_box_around_it():
    """The detection that overlaps the largest part of the mask names it; nothing near, no name."""
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    mask[90:95, 90:95] = True
    found = [Detection("dog", 0.9, (88, 88, 97, 97)), Detection("cat", 0.4, (18, 18, 62, 62))]
    best = fit_to_mask(found, mask)
    assert best is not None
    assert best.label == "cat"
    assert fit_to_mask(found[:1], mask) is None
    assert fit_to_mask(found, np.zeros((100, 100), bool)) is None
    assert fit_to_mask([], mask) is None


def test_wrong_class_names_and_missing_pictures_are_told_before_the_run():
    """A misspelt class is an error that lists the right names; a flow without pictures is a wrong flow."""
    with pytest.raises(ValueError, match="no COCO classes: kar"):
        Detect(DetectParams(weights=WEIGHTS, include=("kar",)))
    with pytest.raises(MissingColumns, match="needs source"):
        Detect(DetectParams(weights=WEIGHTS)).schema({"id": "string"})


@needs_assets
def test_photos_become_one_record_an_object():
    """Every child keeps the photo's columns, has an id of its own, and a box inside the picture; noise has none."""
    picture = cv2.imread(str(next(iter(sorted(PHOTOS.glob("*.jpg"))))))[..., ::-1]
    picture.flags.writeable = False
    outcome = stage(max_per_photo=3).process_one({"id": "p", "source": picture, "licence": "x"})
    assert isinstance(outcome, Kept)
    assert 1 <= len(outcome.records) <= 3
    for k, record in enumerate(outcome.records):
        assert record["id"] == f"p.{k:02d}"
        assert record["licence"] == "x"
        assert record["label"] in COCO
        x0, y0, x1, y1 = record["box"]
        assert 0 <= x0 < x1 <= picture.shape[1]
        assert 0 <= y0 < y1 <= picture.shape[0]
    scores = [r["detect_score"] for r in outcome.records]
    assert scores == sorted(scores, reverse=True)
    blank = stage().process_one({"id": "q", "source": np.zeros((3, 900, 3), np.uint8)})
    assert isinstance(blank, Kept)
    assert blank.records == []


@needs_assets
def test_a_pair_stays_one_record_and_gets_its_label():
    """On a pair the person's mask gets the person's name; `include` hides it, and the label is null."""
    folder = ASSETS / "pairs" / "person"
    picture = cv2.imread(str(folder / "onebyone_0188_input.png"))[..., ::-1]
    mask = cv2.imread(str(folder / "onebyone_0188_mask.png"), 0) > 127
    record = {"id": "p", "input": picture, "object_mask": mask}
    outcome = stage().process_one(record)
    assert isinstance(outcome, Kept)
    (out,) = outcome.records
    assert out["id"] == "p"
    assert out["label"] == "person"
    none = stage(include=("zebra",)).process_one(record)
    assert isinstance(none, Kept)
    assert none.records[0]["label"] is None


@needs_assets
def test_recall_and_precision_on_photographs():
    """At confidence .3 and IoU .5 on 33 COCO photographs: recall of objects over 64² px and precision near .6/.65."""
    truth = json.loads((PHOTOS / "instances_cc.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    detector = stage(min_score=0.3)
    hits, large, found_total, right = 0, 0, 0, 0
    for image in truth["images"]:
        picture = np.ascontiguousarray(cv2.imread(str(PHOTOS / image["file_name"]))[..., ::-1])
        wanted = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        used = set()
        for one in detector.find(picture):
            found_total += 1
            best, best_iou = None, 0.5
            for a in wanted:
                x, y, w, h = a["bbox"]
                overlap = float(iou(np.array(one.box), np.array([[x, y, x + w, y + h]]))[0])
                if names[a["category_id"]] == one.label and a["id"] not in used and overlap >= best_iou:
                    best, best_iou = a["id"], overlap
            if best is not None:
                used.add(best)
                right += 1
        big = {a["id"] for a in wanted if a["area"] >= 64 * 64}
        large += len(big)
        hits += len(big & used)
    assert hits / large > 0.55
    assert right / found_total > 0.60
