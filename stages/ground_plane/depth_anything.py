"""Depth Anything V1 and V2 in transformers' form.

Its relative checkpoints give disparity up to a factor, with the sky at 0; its metric ones (`depth_estimation_type:
metric` in their configuration) give metres.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.pretrained import open_processor, open_transformers
from rasura.stages.ground_plane.depth import clip_disparity, group_by_shape, inverse_depth

Array = npt.NDArray[Any]


def pad_picture(picture: Array, thinnest: int) -> Array:
    """Repeat the last row or column of a picture until it is no thinner than 1 : `thinnest`."""
    height, width = picture.shape[:2]
    least = -(-max(height, width) // thinnest)
    below, right = max(0, least - height), max(0, least - width)
    if not below and not right:
        return picture
    return np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE))


class DepthAnything:
    """A checkpoint from a folder that `save_pretrained` or the hub made; safetensors only."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

        self.model = open_transformers(DepthAnythingForDepthEstimation, folder, ["depth_anything"])
        self.processor = open_processor(AutoImageProcessor, folder)
        # a picture that is thinner than one patch of the network's input would be scaled to nothing
        size = self.processor.size
        self.thinnest = max(1, min(size["height"], size["width"]) // (self.processor.ensure_multiple_of or 1))
        self.metric = self.model.config.depth_estimation_type == "metric"

    def predict(self, pictures: Sequence[Array]) -> list[Array]:
        """Return the network's own maps, at its output's resolution, (h', w') float32. One batch a shape."""
        import torch

        maps: list[Array] = [np.empty((0, 0), np.float32)] * len(pictures)
        padded = [np.array(pad_picture(picture, self.thinnest)) for picture in pictures]  # torch: no read-only arrays
        for indices in group_by_shape(padded):
            inputs = self.processor(
                images=[padded[k] for k in indices], return_tensors="pt", input_data_format="channels_last"
            )
            with torch.inference_mode():
                out = self.model(pixel_values=inputs["pixel_values"].to(self.model.device)).predicted_depth
            for k, depth in zip(indices, out.float().cpu().numpy(), strict=True):
                rows, columns = padded[k].shape[:2]
                height = max(1, round(depth.shape[0] * pictures[k].shape[0] / rows))
                width = max(1, round(depth.shape[1] * pictures[k].shape[1] / columns))
                maps[k] = depth[:height, :width]
        return maps

    def predict_inverse_depth(self, pictures: Sequence[Array]) -> list[Array]:
        maps = self.predict(pictures)
        return [inverse_depth(np.maximum(depth, 0), 1.0) if self.metric else clip_disparity(depth) for depth in maps]
