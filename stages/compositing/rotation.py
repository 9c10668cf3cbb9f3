"""Rotation of a cut-out in the picture's plane, as Syn4Removal does: a sticker, not an object that stands somewhere."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import (
    Cutout,
    compute_frame_weights,
    find_base_columns,
    find_contact_point,
    find_effect_pixels,
    find_mask_box,
)

Array = npt.NDArray[Any]


def rotate_cutout(cutout: Cutout, degrees: float) -> Cutout:
    """Rotate a cut-out about its middle, counter-clockwise; its crop becomes as large as it has to be.

    Its effects turn with it, so that they no longer belong to a light or a ground plane: both become unknown.

    Args:
        degrees: 0 returns the cut-out as it is.
    """
    if degrees == 0:
        return cutout
    height, width = cutout.object_mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    across, down = np.abs(matrix[0, :2]) @ (width, height), np.abs(matrix[1, :2]) @ (width, height)
    size = (int(np.ceil(across - 1e-6)) + 2, int(np.ceil(down - 1e-6)) + 2)  # a rim of clear pixels
    matrix[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)

    def rotate(values: Array) -> Array:
        floats = np.ascontiguousarray(values, np.float32)
        return np.asarray(cv2.warpAffine(floats, matrix, size, flags=cv2.INTER_LINEAR))

    weight = np.where(find_effect_pixels(cutout), compute_frame_weights(cutout), 1).astype(np.float32)
    alpha = cutout.rgba[..., 3] * weight / 255
    colour, coverage = rotate(cutout.rgba[..., :3] * alpha[..., None]), rotate(alpha)
    straight = colour / np.maximum(coverage, 1e-3)[..., None]
    rgba = np.dstack([np.where(coverage[..., None] > 1e-3, straight, 0), 255 * coverage])
    mask = rotate(cutout.object_mask) >= 0.5
    if not mask.any():  # thinner than a pixel
        return cutout
    reflection = None if cutout.reflection is None else rotate(cutout.reflection * weight[..., None])
    (left, top), base = cutout.crop_origin, find_base_columns(mask)
    return replace(
        cutout,
        rgba=np.clip(np.rint(rgba), 0, 255).astype(np.uint8),
        reflection=None if reflection is None else np.clip(np.rint(reflection), 0, 255).astype(np.uint8),
        object_mask=mask,
        crop_origin=(left + (width - size[0]) / 2, top + (height - size[1]) / 2),
        object_box=find_mask_box(mask),
        contact_point=find_contact_point(mask),
        base_columns=(int(base[0]), int(base[-1]) + 1),
        view=None,
        depression=None,
        shadow_azimuth=None,
        rotation=cutout.rotation + degrees,
    )
