"""Mask variants: what each family promises about its mask, on objects of many shapes and places."""

from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest

from rasura.manifests.images import Mask
from rasura.manifests.schemas import Kind
from rasura.stages import masks
from rasura.stages.masks import FAMILIES, Masks
from rasura.stages.stage import Kept, Rejected


def make_disc(x: int = 160, y: int = 120, radius: int = 30, shape: tuple[int, int] = (240, 320)) -> Mask:
    return np.asarray(cv2.circle(np.zeros(shape, np.uint8), (x, y), radius, 1, -1) > 0, bool)


def make_ring() -> Mask:
    return make_disc(radius=60) & ~make_disc(radius=52)


def make_masks() -> dict[str, Mask]:
    """A disc, one at the frame, one in the corner, two apart, a thin ring, a single pixel, nearly everything."""
    bar = np.zeros((240, 320), bool)
    bar[40:200, 150:156] = True
    return {
        "disc": make_disc(),
        "frame": make_disc(x=0),
        "corner": make_disc(319, 239),
        "two": make_disc(60, 60) | make_disc(260, 180),
        "ring": make_ring(),
        "bar": bar,
        "pixel": make_disc(radius=0),
        "large": make_disc(radius=130),
    }


def make_variants(mask: Mask, name: str = "r", seed: int = 0, **params: Any) -> dict[str, Any]:
    outcome = Masks(Masks.Params(**params), seed).process_one({"id": name, "mask": mask})
    assert isinstance(outcome, Kept)
    (record,) = outcome.records
    return dict(record)


@pytest.mark.parametrize("name", make_masks())
def test_every_variant_is_a_mask_of_the_same_picture_with_its_measured_fit(name: str) -> None:
    """Whatever the object and the draw: a mask of the picture's size that is not empty; fit and cover are what one
    counts; the object's own mask stays as it was."""
    mask = make_masks()[name]
    before = mask.copy()
    mask.setflags(write=False)
    for draw in range(12):
        record = make_variants(mask, f"{name} {draw}")
        for family in FAMILIES:
            variant = record[f"mask_{family}"]
            assert variant.shape == mask.shape
            assert variant.dtype == bool
            assert variant.any()
            both = (variant & mask).sum()
            assert record[f"mask_{family}_fit"] == both / variant.sum()
            assert record[f"mask_{family}_cover"] == both / mask.sum()
            if record[f"mask_{family}_mode"] not in ("eroded", "brush"):
                assert record[f"mask_{family}_cover"] == 1
        assert (record["mask"] == before).all()


def test_a_variant_depends_on_the_record_and_the_seed_alone() -> None:
    """The same id and seed give the same masks, whichever families are asked for; another id or seed gives others."""
    every = make_variants(make_disc())
    for family in FAMILIES:
        alone = make_variants(make_disc(), variants=[family])
        assert (alone[f"mask_{family}"] == every[f"mask_{family}"]).all()
        assert [key for key in alone if key.startswith("mask_")] == [
            f"mask_{family}{part}" for part in ("", "_mode", "_fit", "_cover")
        ]
    for other in (make_variants(make_disc(), "another"), make_variants(make_disc(), seed=1)):
        assert any((other[f"mask_{family}"] != every[f"mask_{family}"]).any() for family in FAMILIES)


def test_areas_are_those_of_the_paper() -> None:
    """Syn4Removal's modes: eroded to 80–90 % of the area, dilated by 25–50 %, the hull likewise, the ellipse of the
    mask dilated by 100–150 %, each to within a ring of pixels; all six come up on a compact object."""
    mask = make_disc(radius=40)
    area = mask.sum()
    rim = 2 * np.pi * 40 * 1.6 / area  # one ring of pixels, of the largest
    limits = {"eroded": (0.8, 0.9), "dilated": (1.25, 1.5), "hull": (1.25, 1.5), "ellipse": (2.0, 2.5)}
    modes: Counter[str] = Counter()
    for draw in range(80):
        variant, mode = masks.make_shape_variant(mask, [mask], np.random.default_rng(draw), 0.5)
        modes[mode] += 1
        if mode in limits:
            low, high = limits[mode]
            assert low - rim <= variant.sum() / area <= high + rim, mode
        if mode == "box":
            assert 1.1 * 0.95 <= variant.sum() / 81**2 <= 1.2 * 1.25**2
    assert set(modes) == {"exact", "eroded", "dilated", "hull", "ellipse", "box"}
    assert min(modes.values()) >= 5


def test_a_mode_that_does_not_suit_a_shape_is_not_used() -> None:
    """A ring gets no hull, ellipse or box (each would be mostly hole); what fills most of the picture stays as it is;
    a diagonal bar gets no box."""
    assert masks.count_shape_modes(make_ring()) == 3
    assert masks.count_shape_modes(make_disc(radius=130)) == 1
    assert masks.count_shape_modes(make_disc()) == 6
    bar = np.zeros((240, 320), np.uint8)
    cv2.line(bar, (60, 60), (180, 180), 1, 12)
    assert masks.count_shape_modes(bar > 0) == 5
    for draw in range(40):
        mode = masks.make_shape_variant(make_ring(), [make_ring()], np.random.default_rng(draw), 0.5)[1]
        assert mode in {"exact", "eroded", "dilated"}
        large = make_disc(radius=130)
        assert (masks.make_shape_variant(large, [large], np.random.default_rng(draw), 0.5)[0] == large).all()


def test_coarse_masks_come_as_often_as_in_objectclear() -> None:
    """.67 dilated, half of the rest eroded; a kernel grows with the object's share of the picture and stays below the
    published side; a thin thing that erosion would take away stays."""
    mask = make_disc(radius=30, shape=(512, 512), x=256, y=256)  # .011 of the picture: at most 8 px
    modes: Counter[str] = Counter()
    for draw in range(400):
        variant, mode = masks.make_coarse_variant(mask, [mask], np.random.default_rng(draw), 1.0)
        modes[mode] += 1
        x0, _, x1, _ = masks.compute_bounds(variant)
        assert 61 - 12 <= x1 - x0 <= 61 + 7  # a square erodes a disc's poles by more than its half side
    assert 0.6 < modes["dilated"] / 400 < 0.74
    assert 0.12 < modes["eroded"] / 400 < 0.22
    thin = np.zeros((512, 512), bool)
    thin[100:400, 200] = True
    modes_of_thin = {masks.make_coarse_variant(thin, [thin], np.random.default_rng(draw), 1.0)[1] for draw in range(60)}
    assert modes_of_thin <= {"dilated", "exact", "eroded"}
    assert all(masks.make_coarse_variant(thin, [thin], np.random.default_rng(draw), 1.0)[0].any() for draw in range(60))


def test_the_fitting_degree_spans_tight_to_loose() -> None:
    """PowerPaint's dilation gives fits from nearly 1 down to loose ones, never 1 exactly, and the scale of the picture
    does not matter: the same scene at twice the size has the same fits."""
    small, large = make_disc(256, 256, 60, (512, 512)), make_disc(512, 512, 120, (1024, 1024))
    fits = []
    for draw in range(60):
        pair = [
            masks.measure_fit(masks.make_dilated_variant(mask, [mask], np.random.default_rng(draw), scale)[0], mask)[0]
            for mask, scale in ((small, 1.0), (large, 2.0))
        ]
        assert pair[0] == pytest.approx(pair[1], abs=0.06)
        fits.append(pair[0])
    assert max(fits) < 1
    assert max(fits) > 0.85
    assert min(fits) < 0.3


def test_boxes_hold_their_object_and_stay_near_it() -> None:
    """A plain box is the bounding box; a curved one holds the object and reaches no farther than a fifth of the box
    and the moved corners; two objects far apart get two boxes."""
    modes = set()
    for draw in range(30):
        mask = make_disc()
        variant, mode = masks.make_box_variant(mask, [mask], np.random.default_rng(draw), 0.5)
        modes.add(mode)
        x0, y0, x1, y1 = masks.compute_bounds(variant)
        if mode == "box":
            assert (x0, y0, x1, y1) == masks.compute_bounds(mask)
            assert variant.sum() == (x1 - x0) * (y1 - y0)
        else:
            assert not (mask & ~variant).any()
            assert x1 - x0 <= 61 * 1.4 + 6
            assert y1 - y0 <= 61 * 1.4 + 6
    assert modes == {"box", "curved"}
    two = make_disc(60, 60) | make_disc(260, 180)
    assert make_variants(two)["mask_box_fit"] > 0.5  # one box around both would be mostly background
    assert len(masks.separate_objects(two, 1.0)) == 2


def test_strokes_cover_the_object() -> None:
    """Painted by hand: at least nine tenths of the object, most of the paint on or near it, also where it is thin or at
    the frame."""
    for name, mask in make_masks().items():
        for draw in range(8):
            record = make_variants(mask, f"{name} {draw}", variants=["brush"])
            assert record["mask_brush_cover"] >= 0.9, name
            near = cv2.dilate(mask.astype(np.uint8), np.ones((161, 161), np.uint8)) > 0
            assert not (record["mask_brush"] & ~near).any()


def test_growing_and_shrinking_hit_their_area() -> None:
    """Both go evenly in every direction and end within one ring of the area asked for; the frame is no rim."""
    for name, mask in make_masks().items():
        if name == "large":
            continue
        ring_px = int((cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0).sum() - mask.sum())
        more, less = masks.grow_to_area(mask, 1.5), masks.shrink_to_area(mask, 0.7)
        assert not (mask & ~more).any()
        assert not (less & ~mask).any()
        assert 1.5 * mask.sum() - 1 <= more.sum() <= 1.5 * mask.sum() + ring_px
        assert 0.7 * mask.sum() - 1 <= less.sum()
    half = make_disc(x=0)
    smaller = masks.shrink_to_area(half, 0.8)
    assert smaller[120, 0]  # it still touches the frame


def test_columns_are_those_of_the_chosen_families() -> None:
    """The schema has a mask, its mode, fit and cover for each family named, and what was there before."""
    before = {"mask": Kind.MASK, "source": Kind.RGB}
    columns = Masks(Masks.Params(variants=["box"])).schema(before)
    assert columns == {
        **before,
        "mask_box": Kind.MASK,
        "mask_box_mode": Kind.STRING,
        "mask_box_fit": Kind.FLOAT,
        "mask_box_cover": Kind.FLOAT,
    }
    assert len(Masks(Masks.Params()).schema(before)) == 2 + 4 * len(FAMILIES)
    with pytest.raises(ValueError, match="name one or more of"):
        Masks.Params(variants=["box", "box"])


def test_an_empty_mask_is_rejected() -> None:
    """There is nothing to vary; the row is rejected with a reason."""
    outcome = Masks(Masks.Params()).process_one({"id": "r", "mask": np.zeros((10, 10), bool)})
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "empty mask"
