"""The object core: the part of a pair's change that no shadow explains, hence certainly object."""

from typing import NamedTuple

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.texture import find_hidden_texture, find_visible_texture, measure_ratio_texture
from rasura.stages.imaging.comparison import compute_range_distance
from rasura.stages.imaging.components import (
    fill_small_holes,
    flag_border_components,
    label_components,
    select_components,
)
from rasura.stages.imaging.filters import Floats, blur, channel_max, channel_mean, estimate_gradient
from rasura.stages.imaging.memory import remember_last_pair
from rasura.stages.imaging.morphology import dilate, erode, morph

LOG_OFFSET = 0.01  # of white, added before the logarithm: near black, ratios are noise
MAX_SHADOW_TINT = 0.22  # by which a channel of a shadow's log ratio may differ from their mean, as a share of that mean
MIN_SHADOW_LOG_RATIO = -3.0  # log of the linear ratio below which nothing outdoors is shadow: 5 % of the light
MIN_RATIO_TEXTURE = 0.03  # of the log ratio of brightness: what a shadow on a textured ground does not reach
CLEAN_ONLY = 0.5  # times the energy of clean's edges along a blob's rim, below which source has no such edge
MIN_CORE_SHARE = 0.0008  # of the picture: smaller core blobs are removed


class ObjectCore(NamedTuple):
    """The certain part of the objects, (h, w) bool each.

    Attributes:
        mask: the core.
        tinted: the part of it with evidence other than texture (hue, brightness, hidden background): a shadow's steep
            rim has texture too.
        hidden: the part of it where the background's texture should be visible and is not.
    """

    mask: Mask
    tinted: Mask
    hidden: Mask


def linearize(picture: RGB) -> Floats:
    """Return (h, w, 3) linear light, 0 to 1, of (h, w, 3) uint8 after a blur of 1 px (gamma 2.2)."""
    return np.asarray((blur(picture, 1.0) / 255) ** 2.2, np.float32)


def compute_log_ratio(source: RGB, clean: RGB) -> Floats:
    """Compute log(source / clean) in linear light, after a blur of 1 px: (h, w, 3)."""
    first, second = linearize(source), linearize(clean)
    return np.log((first + LOG_OFFSET) / (second + LOG_OFFSET)).astype(np.float32)


@remember_last_pair
def measure_log_ratio(source: RGB, clean: RGB) -> tuple[Floats, Floats]:
    """Measure the mean of the log ratio over the channels, and its hue change.

    Returns:
        (h, w) the mean; (h, w) the hue change: the most by which a channel differs from that mean.
    """
    ratio = compute_log_ratio(source, clean)
    mean = channel_mean(ratio)
    return mean, channel_max(np.abs(ratio - mean[..., None]))


@remember_last_pair
def find_unshadowlike(source: RGB, clean: RGB, noise: float) -> tuple[Mask, Mask]:
    """Find the pixels whose log ratio r = log(source / clean), in linear light, is not that of a shadow.

    A shadow divides all channels by nearly one factor that changes slowly.

    Returns:
        (h, w) bool: r differs between channels, rises, or is darker than any shadow; (h, w) bool: r has texture.
        Each beyond what noise of `noise` grey levels would do.
    """
    mean, chroma = measure_log_ratio(source, clean)
    # The same tests on noise alone: sigma of log ratio of a pixel that was blurred by 1 px.
    level = np.maximum(channel_mean(linearize(clean)), 0.004)
    sigma = 2.2 * (noise * 1.6 / 255) / np.maximum(level ** (1 / 2.2), 0.05) * level / (level + LOG_OFFSET)
    tinted = chroma > np.maximum(0.12 + MAX_SHADOW_TINT * np.abs(np.minimum(mean, 0)), 3 * sigma)
    tinted |= mean > np.maximum(0.12, 3 * sigma)
    tinted |= mean < MIN_SHADOW_LOG_RATIO
    texture, level = measure_ratio_texture(source, clean)
    rough = texture > np.maximum(MIN_RATIO_TEXTURE, 2.5 * noise / level)
    return tinted, morph(rough, cv2.MORPH_OPEN, 7)


@remember_last_pair
def measure_edges(source: RGB, clean: RGB) -> tuple[Floats, Floats]:
    """Return the squared gradient of the channels' logs, blurred by 2 px, of source and of clean: (h, w) each."""
    across, down = zip(*(estimate_gradient(np.log(blur(p, 2.0) + 4)) for p in (source, clean)), strict=True)
    first, second = ((a * a + d * d).sum(axis=-1) for a, d in zip(across, down, strict=True))
    return first, second


def find_clean_only_blobs(source: RGB, clean: RGB, core: Mask) -> Mask:
    """Return (h, w) bool: the blobs of the core whose outline is in `clean` and not in `source`.

    Something that only the second shot has differs as an object does. Its edge votes: within 3 px of a blob's rim the
    squared gradient of source sums up to less than half of clean's. All channels count: a green beam before bricks that
    are as bright has edges in its hue alone.
    """
    energy = measure_edges(source, clean)
    count, labels, _ = label_components(core)
    flags = np.zeros(count, bool)
    for k in range(count):
        blob = labels == k + 1
        rim = dilate(blob, 3) & ~erode(blob, 3)
        flags[k] = float(energy[0][rim].sum()) < CLEAN_ONLY * float(energy[1][rim].sum())
    return select_components(labels, flags)


def find_object_core(source: RGB, clean: RGB, foreground: Mask, noise: float) -> ObjectCore:
    """Find the certain part of the objects: the change that no shadow explains.

    A pixel is core if its log ratio is not that of a shadow (`find_unshadowlike`), the background's texture is not
    visible, and source is unlike everything that clean shows next to it; or if the background's texture is hidden.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        foreground: (h, w) bool, where the pair differs.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    shorter = min(source.shape[:2])
    tinted, textured = find_unshadowlike(source, clean, noise)
    candidate = tinted | textured
    candidate &= ~find_visible_texture(source, clean, noise)
    candidate &= compute_range_distance(source, clean, 2 if shorter >= 128 else 1) > max(8.0, 4 * noise)
    hidden = find_hidden_texture(source, clean, noise)
    candidate = foreground & (candidate | hidden)
    large = shorter >= 300
    candidate = morph(candidate, cv2.MORPH_OPEN, 5 if large else 3)
    # Holes that show the background unchanged stay open: between the slats of a chair is background.
    closed = fill_small_holes(morph(candidate, cv2.MORPH_CLOSE, 9 if large else 5))
    candidate = closed & (foreground | candidate)
    _, labels, areas = label_components(candidate)
    coloured = np.bincount(labels[tinted], minlength=len(areas) + 1)[1:] > 0.05 * areas
    # The shadow of an object outside the picture, smeared by a codec: missing texture is its only evidence.
    inner = ~flag_border_components(labels, len(areas))
    core = select_components(labels, (areas >= max(9, MIN_CORE_SHARE * candidate.size)) & (coloured | inner))
    core &= ~find_clean_only_blobs(source, clean, core)
    return ObjectCore(core, core & (tinted | hidden), core & hidden)


def select_strong_blobs(core: Mask, values: Floats, share: float = 0.3) -> Mask:
    """Return the core blobs whose change is not faint beside the strongest: p70 > min(share · p80 of the core, 25).

    Args:
        core: (h, w) bool.
        values: (h, w) grey levels of change.
    """
    count, labels, _ = label_components(core)
    if count < 2:
        return core
    limit = min(share * float(np.percentile(values[core], 80)), 25.0)
    strong = np.array([np.percentile(values[labels == k], 70) > limit for k in range(1, count + 1)])
    return select_components(labels, strong)
