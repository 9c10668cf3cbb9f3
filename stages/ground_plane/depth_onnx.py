"""Depth networks in ONNX form: METER, MiDaS, an exported Depth Anything. The recipe describes input and output."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.onnx import open_session
from rasura.stages.ground_plane.depth import Output, clip_disparity, inverse_depth

Array = npt.NDArray[Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB 0-1
FREE_SIDE = 518  # px: short side where the network takes any size, rounded to PATCH
PATCH = 14


def compute_input_size(declared: Sequence[Any], shape: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) that a picture is stretched to: as declared by the network, else near FREE_SIDE.

    Args:
        declared: shape of the network's input; names or None stand for any size. shape: (height, width).

    Examples:
        >>> compute_input_size([1, 3, 192, 636], (370, 1220)), compute_input_size([1, 3, "h", "w"], (480, 640))
        ((636, 192), (686, 518))

    Raises:
        ValueError: the declared input is not (1, 3, h, w).
    """
    if len(declared) != 4 or declared[1] not in (3, "3"):
        raise ValueError(
            f"the input of a depth network has to be (1, 3, height, width); this one's is {list(declared)}"
        )
    scale = FREE_SIDE / min(shape)
    free = [max(PATCH, round(min(side * scale, 4 * FREE_SIDE) / PATCH) * PATCH) for side in shape]
    height, width = (side if isinstance(side, int) else near for side, near in zip(declared[2:], free, strict=True))
    return width, height


class DepthOnnx:
    """A network that takes one RGB picture and gives one map.

    Args:
        output: `depth`, in units of `unit` metres, or `disparity` (inverse depth up to a factor).
        pixels: what the network was trained on, `unit` for 0-1, `imagenet` for ImageNet's mean and deviation.
    """

    def __init__(self, path: Path, output: Output, unit: float, pixels: str) -> None:
        self.session = open_session(path)
        self.input = self.session.get_inputs()[0]
        self.output, self.unit, self.pixels = output, unit, pixels
        self.metric = output == "depth"
        compute_input_size(self.input.shape, (64, 64))  # a wrong file is reported before the first picture

    def predict(self, picture: Array) -> Array:
        """Return the network's own map of an RGB picture, (h', w') float32."""
        size = compute_input_size(self.input.shape, picture.shape[:2])
        shrinks = size[0] < picture.shape[1]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        values = small.astype(np.float32) / 255
        if self.pixels == "imagenet":
            values = ((values - MEAN) / STD).astype(np.float32)
        batch = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        depth = np.squeeze(np.asarray(self.session.run(None, {self.input.name: batch})[0], np.float32))
        if depth.ndim != 2:
            raise ValueError(f"the output of a depth network has to be one map; this one's has the shape {depth.shape}")
        return depth

    def predict_inverse_depth(self, pictures: Sequence[Array]) -> list[Array]:
        maps = [self.predict(np.ascontiguousarray(picture)) for picture in pictures]
        if self.output == "disparity":
            return [clip_disparity(disparity) for disparity in maps]
        return [inverse_depth(np.maximum(depth, 0), self.unit) for depth in maps]
