"""What a mask has to do with the change between two pictures: its polarity, and whether it explains anything."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.filters import Floats, blur, convert_to_grey
from rasura.stages.imaging.morphology import compute_distance_inside, compute_distance_to

Polarity = Literal["auto", "white", "black"]

SIDE = 512  # px of the longer side at which pictures are compared
LEAST_LEVEL = 8.0  # grey levels of a 3 x 3 mean below which nothing counts as change
MOST_LEVEL = 24.0  # above which everything does: a median above a quarter of that is no noise, but another picture
NOISE_FACTOR = 4.0  # of the median difference, which is noise where most of the picture has not changed
MIN_AGREEMENT = 0.08  # phi below which a mask explains nothing
MIN_INVERTED = 0.15  # phi from which the other polarity is believed although nobody has said it,
MIN_INVERTED_CHANGED = 0.5  # and share of such a mask that has to have changed


MOST_CHANGED, MIN_LIKENESS = 0.3, 0.15
"""Share of a picture from which a change is looked at outside of the mask, and the likeness that is needed there."""
RIM_BAND, RIM_WINDOW = (1.0, 4.0), 9
"""Pixels from an object's outline that are compared on both sides of it, and the side of the window of their means."""
EFFECT_MARGIN = 2  # px at `SIDE`, of the 3 x 3 mean and of pixels that are partly inside: no change outside of M_fg


class MaskChange(NamedTuple):
    """How a mask and a change overlap.

    Attributes:
        change: share of the change that is inside the mask; 0 where nothing changed.
        changed: share of the mask that changed.
        agreement: phi, the correlation of the two, -1 to 1.
    """

    change: float
    changed: float
    agreement: float


class PolarityChoice(NamedTuple):
    """A mask in the polarity that was asked for, or that the change is in.

    Attributes:
        mask: (h, w) bool, True = object.
        polarity: white or black: what the object is in the file.
        measured: of this mask; None without a change to compare with.
    """

    mask: Mask
    polarity: str
    measured: MaskChange | None


class NoExplanation(ValueError):
    """A mask that has nothing to do with what changed."""


def find_change(source: RGB, clean: RGB) -> Mask:
    """Find what changed between two pictures that are not registered yet, at `SIDE` px.

    A difference counts above the noise of the pair, after each channel was brought to one exposure. Noise, small shifts
    and compression spread over the picture; an object does not.

    Args:
        source, clean: (h, w, 3) uint8.

    Returns:
        (h', w') bool, scaled down to at most `SIDE` px.
    """
    height, width = source.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    first, second = (
        cv2.blur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), (3, 3)).astype(np.float32)
        for picture in (source, clean)
    )
    usable = (first.min(axis=2) > 8) & (first.max(axis=2) < 247) & (second.min(axis=2) > 8) & (second.max(axis=2) < 247)
    if usable.sum() >= 200:
        second = second * np.median(first[usable] / second[usable], axis=0)
    difference = np.abs(first - np.minimum(second, 255)).max(axis=2)
    noise = min(MOST_LEVEL, NOISE_FACTOR * float(np.median(difference)))
    return np.asarray(difference > max(LEAST_LEVEL, noise), bool)


def measure_mask_change(mask: Mask, change: Mask) -> MaskChange:
    """Measure how a mask (h, w) and a change, of the same or of a smaller size, overlap.

    Examples:
        >>> change = np.array([[True, True, False, False]])
        >>> measure_mask_change(np.array([[True, False, False, False]]), change)
        MaskChange(change=0.5, changed=1.0, agreement=0.5773502691896258)
        >>> measure_mask_change(~change, change).agreement
        -1.0
    """
    weight: Floats = mask.astype(np.float32)
    if mask.shape != change.shape:
        weight = np.asarray(cv2.resize(weight, change.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    both, area = float(weight[change].sum(dtype=np.float64)), float(weight.sum(dtype=np.float64))
    total, changed = float(weight.size), float(change.sum())
    products = area * (total - area) * changed * (total - changed)
    agreement = (both * total - area * changed) / float(np.sqrt(products)) if products > 0 else 0.0
    return MaskChange(both / changed if changed else 0.0, both / area if area else 0.0, agreement)


def choose_polarity(white: Mask, black: Sequence[Mask], change: Mask, polarity: Polarity = "auto") -> PolarityChoice:
    """Choose the reading of a mask file that fits what changed.

    White is the convention: the other polarity is only believed where the change is plainly in it.

    Args:
        white: (h, w) object where the file is white.
        black: readings of it where black is the object.
        change: as `find_change` returns it.
        polarity: white or black where somebody has said it.

    Raises:
        NoExplanation: the mask has nothing to do with the change. The text has the values.

    Examples:
        >>> change = np.array([[True, False, False, False]])
        >>> choose_polarity(~change, [change], change).polarity
        'black'
    """
    measured = [("white", white, measure_mask_change(white, change))] if polarity != "black" else []
    if polarity != "white":
        measured += [("black", mask, measure_mask_change(mask, change)) for mask in black]
    best = max(measured, key=lambda entry: entry[2].agreement, default=None)
    if best is not None and best[0] == "black" and polarity == "auto":
        plain = best[2].agreement >= MIN_INVERTED and best[2].changed >= MIN_INVERTED_CHANGED
        best = best if plain else measured[0]
    if best is None or best[2].agreement < MIN_AGREEMENT:
        name, _, values = best or ("black", white, MaskChange(0, 0, 0))
        raise NoExplanation(
            f"{values.change:.0%} of the change ({change.mean():.1%} of the picture) is in the mask, "
            f"{values.changed:.0%} of the mask changed, with {name} as the object"
        )
    return PolarityChoice(best[1], best[0], best[2])


def _shrink(picture: RGB, size: Sequence[int]) -> RGB:
    return np.asarray(cv2.resize(picture, tuple(size), interpolation=cv2.INTER_AREA), np.uint8)


class RestLikeness(NamedTuple):
    """How two pictures agree outside of a mask.

    Attributes:
        change: share of the picture that changed there.
        likeness: correlation of their details of 2 to 8 px there, -1 to 1; 0 where there are none.
    """

    change: float
    likeness: float


def measure_rest(source: RGB, clean: RGB, mask: Mask, change: Mask) -> RestLikeness:
    """Measure how two pictures agree outside of a mask (h, w), widened by 12 px at `SIDE` px.

    Shadows leave the things that they fall on; of a moved picture, or another one, all details are others.

    Args:
        source, clean: (h, w, 3) uint8.
        mask: (h, w) bool.
        change: as `find_change` returns it.
    """
    size = change.shape[::-1]
    near = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    outside = np.asarray(cv2.dilate(near, np.ones((25, 25), np.uint8))) == 0
    first, second = (
        blur(grey, 2.0) - blur(grey, 8.0)
        for grey in (convert_to_grey(_shrink(picture, size)) for picture in (source, clean))
    )
    one, two = first[outside].astype(np.float64), second[outside].astype(np.float64)
    power = float(np.sqrt((one @ one) * (two @ two)))
    return RestLikeness(float((change & outside).mean()), float(one @ two) / power if power > 0 else 0.0)


def measure_change_outside(foreground: Mask, change: Mask) -> float:
    """Measure the share of a change that is outside of M_fg (h, w), widened by `EFFECT_MARGIN`; 0 without a change.

    Examples:
        >>> change = np.zeros((20, 20), bool)
        >>> change[:2] = change[10:16] = True
        >>> measure_change_outside(np.pad(np.ones((4, 20), bool), ((11, 5), (0, 0))), change)
        0.25
    """
    inside = cv2.resize(foreground.astype(np.float32), change.shape[::-1], interpolation=cv2.INTER_AREA) > 0
    side = 2 * EFFECT_MARGIN + 1
    near = np.asarray(cv2.dilate(inside.astype(np.uint8), np.ones((side, side), np.uint8))) > 0
    return float((change & ~near).sum() / max(1, int(change.sum())))


def compare_outlines(source: RGB, clean: RGB, mask: Mask) -> float:
    """Compare the steps of two pictures across the outline of an object: which of the two has the object in it.

    Args:
        source, clean: (h, w, 3) uint8.
        mask: (h, w) bool, the object.

    Returns:
        log2 of the step in `source` over that in `clean`, each plus one level. About 0 where the mask is coarse;
        negative where `clean` has the object.
    """
    depth, distance = compute_distance_inside(mask), compute_distance_to(mask)
    near, far = RIM_BAND
    bands = [(depth > near) & (depth <= far), (distance > near) & (distance <= far)]
    window = (RIM_WINDOW, RIM_WINDOW)
    weights = [np.asarray(cv2.blur(band.astype(np.float32), window), np.float32) for band in bands]
    rim = mask & (depth <= near + 0.5) & (weights[0] > 0.05) & (weights[1] > 0.05)
    if not rim.any():
        return 0.0

    def measure_step(picture: RGB) -> float:
        inside, outside = (
            np.asarray(cv2.blur(picture * band[..., None].astype(np.float32), window), np.float32)[rim]
            / weight[rim][:, None]
            for band, weight in zip(bands, weights, strict=True)
        )
        return float(np.abs(inside - outside).max(axis=1).mean(dtype=np.float64))

    return float(np.log2((measure_step(source) + 1) / (measure_step(clean) + 1)))


def check_rest(source: RGB, clean: RGB, mask: Mask, change: Mask) -> None:
    """Check that, where much of a picture changed, two pictures show the same things outside of the mask.

    Shadows leave the things that they fall on; where another picture, or a moved one, was given, the change has
    nothing to do with the mask, though all of the mask changed.

    Args:
        source, clean: (h, w, 3) uint8.
        mask: (h, w) bool.
        change: as `find_change` returns it.

    Raises:
        NoExplanation: they do not. The text has the values.
    """
    if change.mean() <= MOST_CHANGED:
        return
    likeness = measure_rest(source, clean, mask, change).likeness
    if likeness < MIN_LIKENESS:
        raise NoExplanation(
            f"{change.mean():.0%} of the picture changed, and outside of the mask the two pictures show other things "
            f"(correlation {likeness:.2f})"
        )


def score_mask(measured: MaskChange) -> float:
    """Score a provided mask by the change, 0 to 1: the F-measure with beta = 1/4.

    Nearly all of an object changes, but an object may be a small part of the change, beside its shadow: precision
    (the share of the mask that changed) counts sixteen times as much as recall.

    Examples:
        >>> score_mask(MaskChange(0.5, 1.0, 0.6)) > 0.9, score_mask(MaskChange(1.0, 0.3, 0.5)) < 0.35
        (True, True)
    """
    weight = 1 / 16
    below = weight * measured.changed + measured.change
    return (1 + weight) * measured.changed * measured.change / below if below > 0 else 0.0
