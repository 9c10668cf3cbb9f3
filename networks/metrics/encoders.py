"""Image encoders in ONNX form as functions from a picture to a grid of features: SAM's, DINOv2's, or another."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.metrics.remove_score import Features
from rasura.networks.onnx import open_session
from rasura.networks.weights import BadWeights

SIDE = 448
"""Side of the input, px, where the file leaves it open; a multiple of DINOv2's 14."""
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
LEAST_CHANNELS = 32
"""Fewest channels of features: a network with fewer predicts masks or depths."""


def load_encoder(path: Path) -> Features:
    """Load an encoder as a function from a picture (h, w, 3) uint8 to features (c, gh, gw).

    Its input is (1, 3, side, side), normalized as for ImageNet: the picture's longer side fills it, and zeros are right
    and below. Its first output is a map (1, c, g, g), or tokens (1, n, c) of which the last g · g are the grid's. Cells
    of the padding are cut off.

    Raises:
        BadWeights: it is not there, or is no such encoder.
    """
    if not path.is_file():
        raise BadWeights(f"there is no file '{path}': name an image encoder as ONNX")
    session = open_session(path)
    first = session.get_inputs()[0]
    shape = list(first.shape)
    if len(shape) != 4 or shape[1] == 1 or (shape[2] != shape[3] and isinstance(shape[2], int)):
        raise BadWeights(f"'{path}': input {shape} is not (n, 3, side, side): no image encoder")
    output = list(session.get_outputs()[0].shape)
    channels = output[1] if len(output) == 4 else output[-1]
    if len(output) not in (3, 4) or (isinstance(channels, int) and channels < LEAST_CHANNELS):
        raise BadWeights(f"'{path}': its first output {output} has no {LEAST_CHANNELS} channels: no image encoder")
    side = shape[2] if isinstance(shape[2], int) else SIDE

    def compute_features(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scale = side / max(picture.shape[:2])
        height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method)
        padded = np.zeros((1, 3, side, side), np.float32)
        padded[0, :, :height, :width] = ((resized - MEAN) / STD).transpose(2, 0, 1)
        grid = _shape_grid(np.asarray(session.run(None, {first.name: padded})[0][0], np.float32), path)
        rows, columns = (max(1, round(grid.shape[1] * length / max(picture.shape[:2]))) for length in picture.shape[:2])
        return grid[:, :rows, :columns]

    return compute_features


def _shape_grid(output: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float32]:
    """Return the features (c, g, g) of an output (c, g, g) or of tokens (n, c).

    Raises:
        BadWeights: it is neither.
    """
    if output.ndim == 3 and output.shape[1] == output.shape[2]:
        return output
    if output.ndim == 2:
        side = int(np.sqrt(output.shape[0]))
        return np.ascontiguousarray(output[output.shape[0] - side * side :].T.reshape(-1, side, side))
    raise BadWeights(f"'{path}': its first output is {output.shape}, neither a square map of features nor tokens")
