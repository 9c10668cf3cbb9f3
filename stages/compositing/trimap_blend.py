"""Blending of an object's rim by a trimap, as Syn4Removal does.

The object is pasted with its binary mask; the pixels of its rim are unknown, and closed-form matting of the pasted
picture says how much of each is object: alpha · object + (1 − alpha) · background.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.rendering import Layer, clip_box, crop_window
from rasura.stages.imaging.morphology import erode
from rasura.stages.matting.laplacian import solve_alpha

Array = npt.NDArray[Any]

BAND = 3  # px inside the mask's rim that are unknown: three erosions by 3 x 3
MARGIN = 4  # px around the object that the matting sees
STEPS = 60  # of conjugate gradients, at most
EPSILON = 0.05  # grey levels²: the rim's colours are exact, and little of it is regularized


def blend_by_trimap(layer: Layer, background: Array) -> Layer:
    """Return a layer whose alpha in the band inside its mask's rim is matted against a background.

    Outside of its mask the layer is clear, on the rest of the mask opaque.

    Args:
        background: (h, w, 3) uint8, the picture that it is pasted onto.

    Source: Syn4Removal (arXiv 2501.08279), by the trimap that its release makes.
    """
    box = layer.window
    window = clip_box((box[0] - MARGIN, box[1] - MARGIN, box[2] + MARGIN, box[3] + MARGIN), background.shape)
    behind = background[window[1] : window[3], window[0] : window[2]].astype(np.float32)
    inner = np.s_[box[1] - window[1] : box[3] - window[1], box[0] - window[0] : box[2] - window[0]]
    mask = np.zeros(behind.shape[:2], bool)
    mask[inner] = layer.object_mask
    opaque = layer.colour / np.maximum(layer.alpha, 0.02)[..., None]
    pasted = behind.copy()
    np.copyto(crop_window(pasted, window, box), np.clip(opaque, 0, 255), where=layer.object_mask[..., None])
    unknown = mask & ~erode(mask, BAND)
    start = mask.astype(np.float32)
    solved = solve_alpha(start, np.zeros_like(start), unknown, pasted, weight=1.0, steps=STEPS, epsilon=EPSILON)
    alpha = np.where(unknown, solved, start).astype(np.float32)[inner]
    return replace(layer, alpha=alpha, colour=np.asarray(pasted[inner] * alpha[..., None], np.float32))
