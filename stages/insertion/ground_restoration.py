"""Restoration of the ground around a painted object.

A network that inpaints never saw what its hole hides: it draws the ground in all of the hole anew, with details that
are not the photograph's. A remover that learned from that would learn to change the ground. Where the painting shows
ground, the photograph's details come back, with the light of the painting on them: photo + the low frequencies of
painting − photo. What is no ground stays as it was painted.
"""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.texture import compare_texture
from rasura.stages.imaging.components import label_components, select_components
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_max, channel_mean
from rasura.stages.imaging.morphology import dilate, erode, morph

LIGHT_SIGMA = 4.0  # px: what is slower than this is light, what is faster are details
MEAN_SIGMA = 3.0  # px, over which colours are compared
DETAIL_WINDOW = 13  # px, over which the strength of details is compared
LOG_OFFSET = 8.0  # grey levels, added before logarithms: in the dark, ratios are noise
MAX_TINT, MAX_SHADOW_TINT = 0.06, 0.2  # by which a channel's log ratio may differ from their mean, + a share of that
MAX_BRIGHTER, MAX_DARKER = 0.1, 1.6  # of the log ratio: light that an object mirrors, and its darkest shadow
MAX_DETAIL = 1.0  # log2 of the ratio of the strengths of details
DETAIL_FLOOR = 2.0  # grey levels, added to both strengths
ALIKE = 0.4  # correlation of details below which they are others
MIN_CONTRAST = 1.5  # grey levels of details, below which nothing can be said
MIN_LIGHT, LIGHT_SIGMAS = 2.5, 3.0  # grey levels, and multiples of what other details leave: less is no light
TOUCHING = 6  # px from what is no ground, within which its light begins
MIN_OBJECT = 0.1  # of the largest part that is no ground: smaller ones are ground whose details lie elsewhere, unless
COLOURED = 0.5  # of their pixels have another hue
RIM = 2  # px around what is no ground that stay as they were painted


def find_painted_ground(painted: RGB, photo: RGB, region: Mask) -> Mask:
    """Find where a painting shows ground, lit or shaded, whatever its details are.

    The mean colours have the ratio of a shadow (all channels nearly alike, hardly brighter), and the details are as
    strong as the photograph's, in that light. Ground reaches the end of the region; what is enclosed by something else
    is a part of that.

    Args:
        painted, photo: (h, w, 3) uint8. region: (h, w) bool, where could be painted.

    Returns:
        (h, w) bool, inside the region.
    """
    ratio = np.log((blur(painted, MEAN_SIGMA) + LOG_OFFSET) / (blur(photo, MEAN_SIGMA) + LOG_OFFSET))
    mean = channel_mean(ratio)
    tint = channel_max(np.abs(ratio - mean[..., None]))
    tinted = tint > MAX_TINT + MAX_SHADOW_TINT * np.abs(np.minimum(mean, 0))
    alike = ~tinted & (mean < MAX_BRIGHTER) & (mean > -MAX_DARKER)
    strengths = [_measure_details(picture) for picture in (painted, photo)]
    shaded = strengths[1] * np.exp(np.minimum(mean, 0))
    alike &= np.abs(np.log2((strengths[0] + DETAIL_FLOOR) / (shaded + DETAIL_FLOOR))) < MAX_DETAIL
    other = morph(region & ~alike, cv2.MORPH_OPEN, 5)
    _, labels, areas = label_components(other)
    coloured = np.bincount(labels[tinted], minlength=len(areas) + 1)[1:] > COLOURED * areas
    alike = region & ~select_components(labels, coloured | (areas >= MIN_OBJECT * areas.max(initial=0)))
    _, labels, areas = label_components(alike)
    border = region & ~erode(region, 3)
    reaches = np.bincount(labels[border], minlength=len(areas) + 1)[1:] > 0
    return select_components(labels, reaches)


def _measure_details(picture: RGB) -> Floats:
    """Measure the root mean square of a picture's details, (h, w) grey levels."""
    grey = channel_mean(picture)
    details = grey - blur(grey, LIGHT_SIGMA)
    return np.asarray(np.sqrt(np.maximum(box_mean(details * details, DETAIL_WINDOW), 0)), np.float32)


def measure_redrawn(painted: RGB, photo: RGB, ground: Mask) -> float:
    """Measure the share of the ground whose details are not the photograph's, 0 where it has none.

    Args:
        painted, photo: (h, w, 3) uint8. ground: (h, w) bool.
    """
    correlation, contrast = compare_texture(painted, photo)
    visible = ground & (contrast > MIN_CONTRAST)
    if not visible.any():
        return 0.0
    return float((correlation[visible] < ALIKE).mean())


def restore_ground(painted: RGB, photo: RGB, ground: Mask, region: Mask) -> RGB:
    """Restore the photograph's details on the ground of a painting, in the painting's light.

    Args:
        painted, photo: (h, w, 3) uint8. ground, region: (h, w) bool.

    Returns:
        (h, w, 3) uint8; on ground that no light or shadow of the object reaches, the photograph to the last bit.
    """
    sure = ground & ~dilate(region & ~ground, RIM)
    known = sure.astype(np.float32)
    change = painted.astype(np.float32) - photo
    total = np.maximum(blur(known, LIGHT_SIGMA), 1e-3)
    light = blur(change * known[..., None], LIGHT_SIGMA) / total[..., None]
    strength = channel_max(np.abs(light))
    limit = max(MIN_LIGHT, LIGHT_SIGMAS * 1.4826 * float(np.median(strength[sure]))) if sure.any() else MIN_LIGHT
    _, labels, areas = label_components(strength > limit)
    near = dilate(region & ~ground, TOUCHING)
    touching = np.bincount(labels[near], minlength=len(areas) + 1)[1:] > 0
    share = blur(dilate(select_components(labels, touching), 2).astype(np.float32), 1.5)
    lit = np.clip(photo + light * share[..., None], 0, 255)
    weight = np.minimum(known, np.clip(blur(known, 1.0) * 2 - 1, 0, 1))[..., None]
    return np.asarray(np.rint(painted * (1 - weight) + lit * weight), np.uint8)
