"""Fine detail of a clean picture: what was spoiled is told, what a camera does is not."""

import cv2
import numpy as np
import pytest

from rasura.stages.imaging.detail import measure_fill, measure_pair_detail
from rasura.stages.registration.resampling import translate


def make_pair(seed):
    """Return input, gt, object mask and M_fg of a textured place with a camera's noise."""
    rng = np.random.default_rng(seed)
    base = np.full((240, 320, 3), (150.0, 140.0, 120.0))
    for side, strength in ((15, 12), (60, 8), (120, 6)):
        grain = rng.normal(0, strength, (side, side * 4 // 3, 3)).astype(np.float32)
        base += cv2.resize(grain, (320, 240), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((240, 320), bool)
    mask[90:150, 120:200] = True
    clean, source = (base + rng.normal(0, 1.5, base.shape) for _ in range(2))
    source[mask] = 40 + rng.normal(0, 20, (int(mask.sum()), 3))
    foreground = cv2.dilate(mask.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
    return to_bytes(source), to_bytes(clean), mask, foreground


def to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def compress(picture, quality):
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def pixelate(picture, side):
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // side, height // side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


WHOLE = {
    "blurred": lambda clean: cv2.GaussianBlur(clean, (0, 0), 1.2),
    "half the size": lambda clean: cv2.resize(cv2.resize(clean, (160, 120), interpolation=cv2.INTER_AREA), (320, 240)),
    "sharpened": lambda clean: to_bytes(clean * 1.8 - 0.8 * cv2.GaussianBlur(clean, (0, 0), 1.5)),
}
FILLS = {
    "black": lambda source, clean: clean * 0,
    "one colour": lambda source, clean: np.full_like(clean, 131),
    "pixels of 16": lambda source, clean: pixelate(source, 16),
    "pixels of 8": lambda source, clean: pixelate(source, 8),
    "blurred": lambda source, clean: cv2.GaussianBlur(source, (0, 0), 9),
    "noise": lambda source, clean: np.random.default_rng(0).integers(0, 255, clean.shape, dtype=np.uint8),
}


def passes_pair(detail):
    """Apply the limits of the shipped recipes."""
    return -0.22 <= detail.sharpness <= 0.3 and detail.grain >= -0.35 and detail.blocks <= 0.12


def passes_fill(fill):
    return -0.25 <= fill.detail <= 1 and fill.flat <= 0.2


@pytest.mark.parametrize("seed", [811, 812, 813])
def test_an_honest_pair_passes_also_when_it_is_moved_by_half_a_pixel(seed):
    source, clean, mask, foreground = make_pair(seed)
    assert passes_pair(measure_pair_detail(source, clean, 0, 0))
    assert passes_pair(measure_pair_detail(source, np.roll(clean, (2, -3), (0, 1)), 3.2, -1.9))
    moved = to_bytes(translate(clean.astype(np.float32), 0.5, 0.5))
    assert passes_pair(measure_pair_detail(source, moved, -0.5, -0.5))
    assert passes_fill(measure_fill(clean, foreground, mask))
    assert passes_fill(measure_fill(moved, foreground, mask))
    both = measure_pair_detail(compress(source, 60), compress(clean, 60), 0, 0)
    assert abs(both.blocks) <= 0.12, "both were compressed alike"


@pytest.mark.parametrize("change", WHOLE)
def test_a_clean_picture_of_another_sharpness_is_told(change):
    source, clean, _, _ = make_pair(814)
    assert not passes_pair(measure_pair_detail(source, WHOLE[change](clean), 0, 0))


@pytest.mark.parametrize("quality", [20, 40, 60])
def test_a_clean_picture_that_was_compressed_more_is_told(quality):
    source, clean, _, _ = make_pair(815)
    assert measure_pair_detail(source, compress(clean, quality), 0, 0).blocks > 0.12
    assert measure_pair_detail(compress(source, quality), clean, 0, 0).blocks < -0.12, "the other way round"


@pytest.mark.parametrize("fill", FILLS)
def test_a_clean_picture_in_which_the_object_was_painted_over_is_told(fill):
    source, clean, mask, foreground = make_pair(816)
    painted = np.where(foreground[..., None], FILLS[fill](source, clean), clean).astype(np.uint8)
    assert not passes_fill(measure_fill(painted, foreground, mask))


def test_a_flat_place_among_flat_surroundings_is_no_paint():
    """A white sky, or a drawn picture, has no detail anywhere."""
    flat = np.full((100, 100, 3), 255, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[40:60, 40:60] = True
    assert passes_fill(measure_fill(flat, mask, mask))


def test_nothing_is_told_where_nothing_is_unchanged_and_nothing_surrounds():
    source, clean, _, _ = make_pair(817)
    assert measure_pair_detail(source, clean * 0, 0, 0) == (None, None, None)
    everything = np.ones((240, 320), bool)
    assert measure_fill(clean, everything, everything).detail == 0
