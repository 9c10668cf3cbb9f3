"""Candidates for tests of the discriminator."""

import cv2
import numpy as np
from support import tiny_models

from rasura.discriminator.network import Config

SMALL = Config(preset="sdxl", unet=tiny_models.UNET, size=64)
"""SDXL-inpainting's nine channels at tiny width."""


def make_picture(seed=0, height=64, width=64):
    """Smooth, with some edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def make_candidate(seed=0, height=64, width=64):
    """A source, an edited picture and the mask."""
    source, other = make_picture(seed, height, width), make_picture(seed + 100, height, width)
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 3 : width // 2] = True
    return source, np.where(mask[..., None], other, source), mask
