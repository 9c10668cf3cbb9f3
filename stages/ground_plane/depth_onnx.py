"""Depth networks in ONNX form: METER, MiDaS, an exported Depth Anything. The recipe says what goes in and comes out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.onnx import network
from rasura.stages.ground_plane.depth import Output, inverse_depth, positive

Array = npt.NDArray[Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB 0-1
FREE_SIDE = 518  # px: short side where the network takes any size, rounded to PATCH
PATCH = 14


def input_size(declared: Sequence[Any], shape: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that a picture of `shape` is stretched to: as declared by the network, else near FREE_SIDE.

    Raises:
        ValueError: the declared input is not (1, 3, h, w).
    """
    if len(declared) != 4 or declared[1] not in (3, "3"):
        raise ValueError(f"a depth network takes (1, 3, height, width), this one {list(declared)}")
    scale = FREE_SIDE / min(shape)
    free = [max(PATCH, round(min(side * scale, 4 * FREE_SIDE) / PATCH) * PATCH) for side in shape]
    height, width = (fixed if isinstance(fixed, int) else own for fixed, own in zip(declared[2:], free, strict=True))
    return width, height


class DepthOnnx:
    """A network that takes one RGB picture and gives one map.

    Args:
        output: `depth`, in units of `unit` metres, or `disparity` (inverse depth up to a factor).
        pixels: what the network was trained on, `unit` for 0-1, `imagenet` for ImageNet's mean and deviation.
    """

    def __init__(self, path: Path, output: Output, unit: float, pixels: str) -> None:
        self.session = network(path)
        self.input = self.session.get_inputs()[0]
        self.output, self.unit, self.pixels = output, unit, pixels
        self.metric = output == "depth"
        input_size(self.input.shape, (64, 64))  # a wrong file is told before the first picture

    def values(self, picture: Array) -> Array:
        """The network's own map of an RGB picture, (h', w') float32."""
        size = input_size(self.input.shape, picture.shape[:2])
        shrinks = size[0] < picture.shape[1]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        given = small.astype(np.float32) / 255
        if self.pixels == "imagenet":
            given = ((given - MEAN) / STD).astype(np.float32)
        fed = np.ascontiguousarray(given.transpose(2, 0, 1)[None])
        made = np.squeeze(np.asarray(self.session.run(None, {self.input.name: fed})[0], np.float32))
        if made.ndim != 2:
            raise ValueError(f"a depth network gives one map, this one an array of shape {made.shape}")
        return made

    def inverse(self, pictures: Sequence[Array]) -> list[Array]:
        maps = [self.values(np.ascontiguousarray(picture)) for picture in pictures]
        if self.output == "disparity":
            return [positive(one) for one in maps]
        return [inverse_depth(np.maximum(one, 0), self.unit) for one in maps]
