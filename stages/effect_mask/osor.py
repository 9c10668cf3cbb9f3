"""OSOR's published heat map of a pair, with its constants, for comparison."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.components import fill_holes, label_components, select_components
from rasura.stages.imaging.filters import compute_gradient_magnitude, convert_to_grey
from rasura.stages.imaging.morphology import morph


def segment_foreground_osor(source: RGB, clean: RGB) -> Mask:
    """Return (h, w) bool: OSOR's SAVP heat map H = 0.6 dL + 0.3 dab + 0.1 dTex above 0.07, cleaned up.

    Pictures are raised to 2.2 and converted to 8-bit Lab; dL is the log ratio of L, dab the distance of the colours,
    dTex the difference of Sobel magnitudes of grey; each over its 99th percentile. Areas are OSOR's for 1024 × 1024,
    scaled to the picture.

    Args:
        source, clean: (h, w, 3) uint8, registered.
    """
    labs = [
        cv2.cvtColor((255 * (p / np.float32(255)) ** 2.2).astype(np.uint8), cv2.COLOR_RGB2Lab).astype(np.float32)
        for p in (source, clean)
    ]
    lightness = [lab[..., 0] * (100 / 255) for lab in labs]
    edges = [compute_gradient_magnitude(convert_to_grey(picture)) for picture in (source, clean)]
    terms: list[npt.NDArray[Any]] = [
        np.abs(np.log(lightness[1] + 1e-3) - np.log(lightness[0] + 1e-3)),
        np.linalg.norm(labs[0][..., 1:] - labs[1][..., 1:], axis=2),
        np.abs(edges[0] - edges[1]),
    ]
    heat = np.zeros(source.shape[:2], np.float32)
    for weight, term in zip((0.6, 0.3, 0.1), terms, strict=True):
        positive = term[term > 0]
        if positive.size:
            heat += weight * np.minimum(term / float(np.percentile(positive, 99)), 1)
    scale = heat.size / 1024**2
    mask = morph(morph(heat > 0.07, cv2.MORPH_OPEN, 7), cv2.MORPH_CLOSE, 7)
    _, labels, areas = label_components(mask)
    return fill_holes(select_components(labels, areas >= 2000 * scale), max(1, int(500 * scale)))
