"""Augmentation of triplets: RORem's wider masks, ObjectClear's masks, colours and crops."""

from dataclasses import replace

import numpy as np
import pytest
from support.training_triplets import make_shadow_triplet

from rasura.removers.training import augment, train
from rasura.removers.training.train import Settings


def make_mask(side: int = 200, width: int = 60) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[70 : 70 + width, 50 : 50 + width] = True
    return mask


def test_a_mask_is_widened_by_rorems_square() -> None:
    """Every pixel within 20 x 20 of one of the mask, and no other: written out with shifts it is the same; a disk is
    not. In a training all masks are widened so, M_fg is not."""
    mask = make_mask(width=9)
    mask[20, 150] = True
    expected = np.zeros_like(mask)
    for down in range(-9, 11):
        for right in range(-9, 11):
            expected |= np.roll(mask, (down, right), (0, 1))
    assert np.array_equal(augment.widen_mask(mask, 20), expected)
    assert expected.sum() == 28 * 28 + 20 * 20
    assert np.array_equal(augment.widen_mask(mask, 0), mask)
    triplet = make_shadow_triplet(3)
    settings = Settings(size=64, crop="whole", flip=False)
    plain = train.crop_triplet(triplet, settings, np.random.default_rng(0))
    wide = train.crop_triplet(triplet, replace(settings, widen=20), np.random.default_rng(0))
    assert np.array_equal(wide.mask, augment.widen_mask(plain.mask, 20))
    assert np.array_equal(wide.foreground, plain.foreground)
    assert np.array_equal(wide.source, plain.source)


@pytest.mark.parametrize(("width", "largest"), [(13, 5), (27, 8), (40, 12), (60, 17), (90, 23), (120, 30)])
def test_masks_vary_as_objectclears_do(width: int, largest: int) -> None:
    """Of 600 draws two thirds grow, a sixth shrinks, by a square of 1 to the largest side for the mask's share; a mask
    that would vanish stays."""
    mask = make_mask(width=width) if width < 110 else make_mask(side=210, width=width)
    rng = np.random.default_rng(width)
    varied = [augment.vary_mask(mask, rng)[0] for _ in range(600)]
    sides = [round(np.sqrt(one.sum())) - width for one in varied]  # a square grown by one of side k is k - 1 wider
    assert all(one.sum() == (width + grown) ** 2 for one, grown in zip(varied, sides, strict=True))
    assert max(sides) == largest - 1
    assert min(sides) == -2 * (largest // 2)
    grown, shrunk = np.mean(np.array(sides) > 0), np.mean(np.array(sides) < 0)
    assert grown == pytest.approx(0.67 * (largest - 1) / largest, abs=0.06)
    assert shrunk == pytest.approx(0.165 * (largest - 1) / largest, abs=0.05)
    small = np.zeros((50, 50), bool)
    small[10, 10] = True
    assert all(augment.vary_mask(small, rng)[0].any() for _ in range(100))
    large = [augment.vary_mask(mask, rng, scale=2)[0].sum() for _ in range(300)]
    assert max(large) == augment.widen_mask(mask, 2 * largest).sum()


def test_colours_vary_alike_outside_the_object() -> None:
    """Source and target still are the same where they were, both are others than before, and no two draws are alike."""
    triplet = make_shadow_triplet(5)
    rng = np.random.default_rng(1)
    for _ in range(20):
        source, target = augment.vary_colours((triplet.source, triplet.target), rng)
        assert np.array_equal(source[~triplet.foreground], target[~triplet.foreground])
        assert source.dtype == np.uint8
        assert 1 < np.abs(target.astype(int) - triplet.target).mean() < 60
        assert (source[triplet.mask] != target[triplet.mask]).any()
    drawn = {augment.vary_colours((triplet.source, triplet.target), rng)[0].tobytes() for _ in range(20)}
    assert len(drawn) == 20


@pytest.mark.parametrize("shape", [(200, 200), (150, 320), (400, 130)])
def test_a_square_has_the_masks_centre_in_it(shape: tuple[int, int]) -> None:
    """Sides from the smallest to the picture's shorter one, in landscape and portrait, all within the picture; of a
    picture that is smaller than that, the largest square."""
    mask = np.zeros(shape, bool)
    mask[shape[0] - 30 : shape[0] - 10, 5:25] = True
    rng = np.random.default_rng(0)
    sides = set()
    for _ in range(300):
        x0, y0, x1, y1 = augment.draw_square(mask, 100, rng)
        assert x1 - x0 == y1 - y0
        assert 0 <= x0 <= 14 < x1 <= shape[1]
        assert 0 <= y0 <= shape[0] - 21 < y1 <= shape[0]
        sides.add(x1 - x0)
    assert 100 <= min(sides) < 110
    assert min(shape) - 10 < max(sides) <= min(shape)
    x0, y0, x1, y1 = augment.draw_square(mask, 1000, rng)
    assert x1 - x0 == y1 - y0 == min(shape)
