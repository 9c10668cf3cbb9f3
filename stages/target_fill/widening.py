"""Widening of M_fg to where the object's effects end in the noise."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.components import fill_holes, label_components, select_components
from rasura.stages.imaging.filters import box_mean, channel_max
from rasura.stages.imaging.morphology import compute_distance_to, dilate, morph

FAINT_LEVEL = 2.5  # grey levels, 1 % of white: the faintest end of a penumbra that is followed
FAINT_SIGMAS = 1.5  # the same in multiples of the noise of a 5 × 5 mean; the wider means that are tested have less
FAINT_REACH = 0.025  # of the diagonal, how far beyond M_fg a penumbra is followed
MAX_HOLE_SHARE = 0.002  # of the picture: larger holes stay open


def widen_foreground(source: RGB, clean: RGB, foreground: Mask, noise: float, reach: float = FAINT_REACH) -> Mask:
    """Widen M_fg by what continues it faintly: the rest of a penumbra, and drift of the camera that touches it.

    A target that takes `clean` inside M_fg and `source` outside has a step along its rim as high as the two differ
    there. `effects` ends M_fg at 2 % of white; here the 7 × 7 and the 15 × 15 mean both have to pass half of that, and
    what remains outside of the widened mask is too faint to see.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground: (h, w) bool, M_fg.
        noise: sigma of the 5 × 5 mean difference, grey levels.
        reach: share of the diagonal.

    Returns:
        (h, w) bool, at least `foreground`.
    """
    if not foreground.any() or foreground.all():
        return foreground.copy()
    delta = source.astype(np.float32) - clean
    low = max(FAINT_LEVEL, FAINT_SIGMAS * noise)
    faint = (channel_max(np.abs(box_mean(delta, 7))) > low) & (channel_max(np.abs(box_mean(delta, 15))) > low)
    faint = morph(faint, cv2.MORPH_OPEN, 5)
    faint &= compute_distance_to(foreground) <= reach * float(np.hypot(*foreground.shape))
    _, labels, areas = label_components(faint)
    touching = np.bincount(labels[dilate(foreground, 1)], minlength=len(areas) + 1)[1:] > 0
    wide = morph(foreground | select_components(labels, touching), cv2.MORPH_CLOSE, 9)
    return fill_holes(wide | foreground, max(16, int(MAX_HOLE_SHARE * wide.size)))
