"""Triplets for the training of removers."""

import cv2
import numpy as np

from rasura.removers.training.train import Item, Triplet


def make_triplet(seed, side=64):
    """A smooth picture, with and without a square on it."""
    rng = np.random.default_rng(seed)
    target = cv2.resize(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((side, side), bool)
    top, left = rng.integers(side // 8, side // 2, 2)
    mask[top : top + side // 4, left : left + side // 3] = True
    return Triplet(np.where(mask[..., None], np.uint8([200, 30, 40]), target), target, mask)


def list_items(count, first=0):
    return [Item(f"t{seed:03d}", lambda seed=seed: make_triplet(seed)) for seed in range(first, first + count)]


def make_shadow_triplet(seed, side=64):
    """The same with a shadow of the square's size below it; `foreground` is both."""
    triplet = make_triplet(seed, side)
    shadow = np.roll(triplet.mask, (side // 4, side // 12), (0, 1)) & ~triplet.mask
    source = triplet.source.copy()
    source[shadow] = (source[shadow] * 0.6).astype(np.uint8)
    return Triplet(source, triplet.target, triplet.mask, triplet.mask | shadow)


def list_shadow_items(count, first=0):
    return [Item(f"s{seed:03d}", lambda seed=seed: make_shadow_triplet(seed)) for seed in range(first, first + count)]
