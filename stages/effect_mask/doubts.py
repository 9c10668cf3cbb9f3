"""Measurements that a pair's difference is no single removed object: a shadow alone, moving things, outside shadows.

All compare what a shadow, a reflection and an object can do to a picture with what happened. `audit` stores them.
"""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.object_core import find_object_core, find_unshadowlike
from rasura.stages.effect_mask.object_likelihood import estimate_object_likelihood
from rasura.stages.effect_mask.texture import find_hidden_texture, find_visible_texture
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.components import label_components, select_components
from rasura.stages.imaging.filters import Floats, blur, channel_mean, estimate_gradient
from rasura.stages.imaging.morphology import compute_distance_to, dilate, erode, morph

DETAIL_SIDE = 15  # px of the median that details are compared with: what is narrower than half of it is a detail
MIN_DETAIL = 0.5  # of the log brightness, all channels together: a detail of clean that everybody sees
MAX_REMAINDER = 0.4  # of a detail's contrast: with less of it in source, the detail is not there
MIN_DETAIL_CHANGE, MIN_DETAIL_AREA = 20.0, 8  # grey levels of a 3 × 3 mean; px
THIN_PART = 7  # px across
MIN_MISSED, LIKELY = 0.05, 0.5  # areas of M_o; likelihood of object
APART, OPENING = 6, 5  # px from M_o; px across
SMALLEST_SIDE = 300  # px of the longer side, down to which pictures are halved in the search for larger details
LOG_RANGE = (2.0, 5.6)  # of the log brightness that the median covers, with 8 grey levels added
MIN_GHOST_AREA = 40  # px
MIN_RIM_ENERGY, CLEAN_ONLY_RIM = 0.15, 0.6  # squared Sobel slopes a px; times the energy in clean
DARKER = -0.12  # log ratio of brightness below which a person sees shadow


def measure_object_evidence(source: RGB, clean: RGB, objects: Mask, noise: float) -> float:
    """Measure which share of M_o no shadow explains: its hue, a rise of brightness, or texture that it hides.

    Pixels where the ground's own texture is visible are shadow, and so are those that only became darker. The rim (3
    px) does not count, as a shadow's rim has texture and a camera's edges have hue.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        objects: (h, w) bool, M_o, not empty.
        noise: `pair_noise`.
    """
    inner = erode(objects, 3)
    inner = inner if inner.sum() >= 30 else objects
    tinted, _ = find_unshadowlike(source, clean, noise)
    hidden = find_hidden_texture(source, clean, noise)
    return float(((tinted | hidden) & ~find_visible_texture(source, clean, noise))[inner].mean())


def measure_parts_beside(source: RGB, clean: RGB, foreground: Mask, objects: Mask, noise: float) -> tuple[float, float]:
    """Measure what of the object core is outside of M_o and hides the ground's texture.

    What M_o misses: in dark shadows, and where a codec smeared it, texture is hidden, too, so that more than
    `MIN_MISSED` counts only where all that is measured there speaks for an object. And the largest thing apart from
    M_o that is likely an object: it went, too, and no mask says so.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground, objects: (h, w) bool, M_fg and M_o, which is not empty.
        noise: `pair_noise`.

    Returns:
        What is missed, and the largest thing apart, in areas of M_o.
    """
    hidden = find_object_core(source, clean, foreground, noise).hidden
    missed, apart = hidden & ~dilate(objects, 2), hidden & (compute_distance_to(objects) > APART)
    is_doubtful = missed.sum() > MIN_MISSED * objects.sum()
    if is_doubtful or apart.any():
        likely = estimate_object_likelihood(source, clean, foreground, noise) > LIKELY
        apart &= likely
        missed = missed & likely if is_doubtful else missed
    _, _, areas = label_components(morph(apart, cv2.MORPH_OPEN, OPENING))
    return float(missed.sum() / objects.sum()), float(areas.max(initial=0) / objects.sum())


def compute_detail(picture: RGB, side: int = DETAIL_SIDE) -> Floats:
    """Return (h, w, 3) float32: the log of a picture less its median over side × side px, in 256 steps."""
    low, high = LOG_RANGE
    logs = np.log(blur(picture, 1.0) + 8)
    steps = np.clip((logs - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    smooth = np.stack([cv2.medianBlur(np.ascontiguousarray(steps[..., k]), side) for k in range(3)], axis=-1)
    return np.asarray(logs - (smooth.astype(np.float32) * ((high - low) / 255) + low), np.float32)


def find_vanished_details(source: RGB, clean: RGB) -> Mask:
    """Return (h, w) bool: small things that `clean` shows clearly, and `source` does not.

    A shadow takes nothing from a detail's contrast in logarithms, and a reflection leaves more than half of it. So
    where no object is before it, such a thing moved: a leaf, a tape in the wind.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
    """
    first, second = compute_detail(source), compute_detail(clean)
    power, common = (second * second).sum(-1), (first * second).sum(-1)
    vanished = (power > MIN_DETAIL**2) & (common < MAX_REMAINDER * power)
    vanished &= compute_difference(source, clean, 3) > MIN_DETAIL_CHANGE
    _, labels, areas = label_components(vanished)
    return select_components(labels, areas >= MIN_DETAIL_AREA)


def measure_moving_details(source: RGB, clean: RGB, foreground: Mask, objects: Mask) -> float:
    """Measure which share of the picture is, in M_fg and beside M_o, small things that only `clean` shows there.

    Details of each size are looked for in the picture and its halves; the largest share counts. Parts of M_o thinner
    than `THIN_PART` hide no such thing whole: where they seem to, they are the moving thing itself, a tape that hung
    elsewhere.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground, objects: (h, w) bool, M_fg and M_o.
    """
    share = 0.0
    while min(foreground.shape) > 2 * DETAIL_SIDE:
        area = dilate(foreground, 3) & ~dilate(morph(objects, cv2.MORPH_OPEN, THIN_PART), 3)
        share = max(share, float((find_vanished_details(source, clean) & area).mean()))
        if max(foreground.shape) <= 2 * SMALLEST_SIDE:
            break
        size = foreground.shape[1] // 2, foreground.shape[0] // 2
        source, clean = (
            np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in (source, clean)
        )
        foreground, objects = (
            cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (foreground, objects)
        )
    return share


def measure_clean_only_parts(source: RGB, clean: RGB, foreground: Mask, objects: Mask) -> float:
    """Measure what is in M_fg beside M_o and has its outline in `clean` alone: a ghost that the target would get.

    A shadow, a reflection and an object have their outlines in `source`. The squared gradient of the channels' logs
    (blurred by 1.5 px) is summed up within 3 px of a part's rim, as in `find_clean_only_blobs`; rims that are faint in
    `clean`, too, do not count.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground, objects: (h, w) bool, M_fg and M_o.

    Returns:
        Share of the picture of the largest such part.
    """
    slopes = (estimate_gradient(np.log(blur(picture, 1.5) + 4)) for picture in (source, clean))
    energy = [(across * across + down * down).sum(axis=-1) for across, down in slopes]
    _, labels, areas = label_components(foreground & ~dilate(objects, 4))
    near, largest = dilate(objects, 6), 0
    for number in np.flatnonzero(areas >= MIN_GHOST_AREA) + 1:
        part = labels == number
        rim = dilate(part, 3) & ~erode(part, 3) & ~near
        first, second = (float(values[rim].sum(dtype=np.float64)) for values in energy)
        if second > MIN_RIM_ENERGY * max(20, int(rim.sum())) and first < CLEAN_ONLY_RIM * second:
            largest = max(largest, int(areas[number - 1]))
    return largest / foreground.size


def measure_outside_shadow(source: RGB, clean: RGB, foreground: Mask, objects: Mask) -> float:
    """Measure the shadow that comes in over the picture's border towards the objects, against their own shadow.

    One light throws all shadows to one side. Where shadow comes in from one side of M_o and lies on the opposite one,
    too, what casts the former is outside of the picture. The smaller of the two counts, on the worst of four sides.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        foreground, objects: (h, w) bool, M_fg and M_o.

    Returns:
        Area in areas of M_o; 0 where there is no such shadow.
    """
    logs = [np.log(blur(channel_mean(picture), 1.5) + 4) for picture in (source, clean)]
    shadow = morph(foreground & (logs[0] - logs[1] < DARKER) & ~dilate(objects, 3), cv2.MORPH_OPEN, 3)
    worst = 0
    for turn in range(4):
        view, columns = np.rot90(shadow, turn), np.flatnonzero(np.rot90(objects, turn).any(0))
        first, last = int(columns[0]), int(columns[-1])
        if first < 4:
            continue
        _, labels, areas = label_components(np.ascontiguousarray(view[:, :first]))
        entering = np.zeros(len(areas) + 1, bool)
        entering[np.unique(labels[:, :2])] = True
        worst = max(worst, min(int(areas[entering[1:]].sum()), int(view[:, last:].sum())))
    return worst / int(objects.sum())
