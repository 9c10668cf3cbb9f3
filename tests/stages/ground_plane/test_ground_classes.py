"""Classes that something can stand on: the table of names, and Mask2Former."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from rasura.networks.pretrained import quiet
from rasura.networks.weights import BadWeights
from rasura.stages.ground import Ground, GroundParams
from rasura.stages.ground_plane.classes import (
    NO_CLASS,
    STANDABLE,
    Mask2Former,
    find_commonest_class,
    find_standable_ids,
    mask_standable,
    split_label,
)
from rasura.stages.stage import Kept, Rejected

pytestmark = pytest.mark.torch

LABELS = {0: "person", 1: "floor-wood", 2: "sea", 3: "grass-merged", 4: "wall, x"}
SIZES = [(48, 64), (48, 64), (65, 33), (1, 1), (3, 200), (200, 3)]

# every label of COCO panoptic and of ADE20k that stands for a surface, as the published checkpoints spell them
COCO_YES = (
    "dining table, floor-wood, gravel, platform, playingfield, road, sand, snow, counter, table-merged, "
    "floor-other-merged, pavement-merged, grass-merged, dirt-merged, rug-merged"
)
COCO_NO = (
    "person, car, bench, bed, couch, banner, blanket, bridge, cardboard, curtain, door-stuff, flower, fruit, house, "
    "light, mirror-stuff, net, pillow, railroad, river, roof, sea, shelf, stairs, tent, towel, wall-brick, wall-wood, "
    "water-other, window-blind, window-other, tree-merged, fence-merged, ceiling-merged, sky-other-merged, "
    "cabinet-merged, mountain-merged, paper-merged, food-other-merged, building-other-merged, rock-merged, "
    "wall-other-merged"
)
ADE_YES = (
    "floor; road; grass; sidewalk; earth; table; rug; field; sand; path; runway; coffee table; countertop; dirt track; "
    "land; stage; desk; counter; pier; floor, flooring; road, route; sidewalk, pavement; earth, ground; "
    "rug, carpet, carpeting; kitchen island; pool table"
)
ADE_NO = (
    "wall; building; sky; tree; ceiling; bed ; windowpane; cabinet; person; door; mountain; plant; water; sea; lake; "
    "river; swimming pool; waterfall; grandstand; stairs; stairway; bridge; step; hill; rock; screen door; tank; "
    "conveyer belt; escalator; mirror; bathtub; base; shelf"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Mask2Former on a Swin of one block a stage, with the published ones' processor at 64 px."""
    where = tmp_path_factory.mktemp("mask2former")
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=8,
        id2label=LABELS,
        label2id={name: number for number, name in LABELS.items()},
    )
    model = Mask2FormerForUniversalSegmentation(config)
    for name, value in model.named_parameters():  # as made all queries agree, which would prove nothing
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=3.0 if "class_predictor" in name else 0.3)
    torch.nn.init.normal_(model.class_predictor.bias, std=3.0)
    model.class_predictor.bias.data[-1] = -20  # never "no object"
    with quiet():
        model.save_pretrained(where)
        Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(where)
    return where


def pictures(sizes=SIZES):
    """Random pictures with some structure, read-only as the engine hands them over."""
    rng = np.random.default_rng(0)
    arrays = [np.kron(rng.integers(0, 256, (-(-h // 8), -(-w // 8), 3)), np.ones((8, 8, 1)))[:h, :w] for h, w in sizes]
    arrays = [one.astype(np.uint8) for one in arrays]
    for one in arrays:
        one.flags.writeable = False
    return arrays


def test_the_default_table_covers_both_label_sets():
    """Every surface of COCO panoptic and ADE20k that something can stand on is in it, and no other class."""
    for yes, no, sign in ((COCO_YES, COCO_NO, ", "), (ADE_YES, ADE_NO, "; ")):
        labels = dict(enumerate([*yes.split(sign), *no.split(sign)]))
        assert find_standable_ids(labels, STANDABLE) == frozenset(range(len(yes.split(sign))))


def test_names_of_labels():
    """A label goes by its synonyms and by what stands before the hyphen; a table without a hit is a fault."""
    assert split_label("floor, flooring") == {"floor", "flooring"}
    assert {"crosswalk", "crosswalk - plain"} <= split_label("Crosswalk - Plain")
    assert "wall" in split_label("wall-wood")
    assert "wood" not in split_label("wall-wood")
    assert find_standable_ids({0: "Sea", 7: "SAND"}, ["sea"]) == {0}
    with pytest.raises(ValueError, match="none of the classes"):
        find_standable_ids({0: "LABEL_0"}, STANDABLE)


def test_class_maps_become_masks_and_names():
    """The mask holds the table's classes alone; the commonest named class of an area is told."""
    classes = np.array([[1, 1, 3], [NO_CLASS, 2, 0]], np.int32)
    assert mask_standable(classes, frozenset({1, 3})).tolist() == [[True, True, True], [False, False, False]]
    assert find_commonest_class(classes, np.ones((2, 3), bool), LABELS) == "floor-wood"
    assert find_commonest_class(classes, classes == NO_CLASS, LABELS) is None


@pytest.mark.parametrize("mode", ["semantic", "panoptic"])
def test_classes_are_what_the_library_gives(folder, mode):
    """Same pixels in, same class of every pixel out as calling transformers by hand with its own processor."""
    model = Mask2Former(folder, mode, 0.3)
    with quiet():
        by_hand = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
        processor = AutoImageProcessor.from_pretrained(folder)
    numbers = set()
    for picture in pictures([(48, 64), (65, 33), (90, 71), (64, 64)]):
        inputs = processor(images=[picture.copy()], return_tensors="pt", input_data_format="channels_last")
        with torch.no_grad():
            out = by_hand(**inputs)
        if mode == "semantic":
            wanted = processor.post_process_semantic_segmentation(out, target_sizes=[picture.shape[:2]])[0].numpy()
        else:
            segmentation = processor.post_process_panoptic_segmentation(
                out, threshold=0.3, label_ids_to_fuse=set(), target_sizes=[picture.shape[:2]]
            )[0]
            number = {segment["id"]: segment["label_id"] for segment in segmentation["segments_info"]}
            wanted = np.vectorize(lambda k, number=number: number.get(k, NO_CLASS))(
                segmentation["segmentation"].numpy()
            )
        (classes,) = model.segment([picture])
        assert classes.shape == picture.shape[:2]
        assert np.array_equal(classes, wanted)
        numbers |= set(np.unique(classes).tolist())
    assert len(numbers - {NO_CLASS}) >= 2
    assert model.labels == LABELS


@pytest.mark.parametrize("mode", ["semantic", "panoptic"])
def test_a_batch_gives_what_each_picture_gives_alone(folder, mode):
    """Pictures of any size and in any order: the library's post-processing knows no padding."""
    model = Mask2Former(folder, mode, 0.3)
    for picture, classes in zip(pictures(), model.segment(pictures()), strict=True):
        assert classes.shape == picture.shape[:2]
        assert np.array_equal(model.segment([picture])[0], classes)


def test_checkpoints_of_older_versions_open(folder, tmp_path):
    """They hold index tables that the network now computes itself; other leftovers, and a pickle, are refused."""
    for file in folder.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    with pytest.raises(BadWeights):
        Mask2Former(tmp_path)
    table = next(
        name for name in tensors if name.endswith("layers.0.blocks.0.attention.self.relative_position_bias_table")
    )
    old = table.replace("relative_position_bias_table", "relative_position_index")
    save_file({**tensors, old: torch.zeros(16, 16)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert Mask2Former(tmp_path).labels == LABELS
    save_file({**tensors, "model.extra": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadWeights, match="extra"):
        Mask2Former(tmp_path)


def test_the_stage_keeps_to_the_allowed_classes(folder):
    """With classes the area is the plane's part of them, its name and rule are told; with none of them: rejected.

    The depth is a column: a floor below a horizon. The files of the network are listed for their hashes.
    """
    picture = pictures([(96, 128)])[0]
    below = np.mgrid[0:96, 0:128][0] + 20.0
    record = {"id": "a", "source": picture, "true_depth": (4e5 / below).astype(np.uint16)}
    kept = rejected = 0
    for label in LABELS.values():
        params = GroundParams(
            backend="depth-column",
            classes="mask2former",
            class_weights=str(folder),
            class_mode="semantic",
            standable=(label.split(",")[0],),
        )
        stage = Ground(params)
        assert sorted(stage.weights()) == [
            "classes/config.json",
            "classes/model.safetensors",
            "classes/preprocessor_config.json",
        ]
        stage.setup()
        classes = stage.classifier.segment([picture])[0]
        allowed = mask_standable(classes, stage.ids)
        outcome = stage.process_one(record)
        if isinstance(outcome, Kept):
            (out,) = outcome.records
            kept += 1
            assert not (out["ground_mask"] & ~allowed).any()
            assert out["ground_mask"].sum() > 0.7 * allowed.sum()
            assert out["ground_class"] == label
            assert out["ground_rule"] == "classes, depth-plane"
        else:
            rejected += 1
            assert isinstance(outcome, Rejected)
            assert allowed.sum() < 0.01 * allowed.size
    assert kept
    assert rejected
