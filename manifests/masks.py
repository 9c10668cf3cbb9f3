"""Masks from elsewhere: what is marked in a file, whatever it is marked with.

A mask may be grey or a palette, hold 0 and 1 or labels, have 1 to 32 bits, be painted in colour, at half opacity or on
a transparent layer. It is read in both polarities; what the picture says decides between them where nobody has said it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura.manifests.colours.deep_pixels import read_words
from rasura.manifests.colours.srgb import ALPHA_MODES, UnclearColours, read_facts
from rasura.manifests.images import MAX_PIXELS, BadImage, Mask, UnclearImage, load_upright, open_image

Values = npt.NDArray[Any]

SMALL_RANGE = 31  # up to here whole numbers are labels, not levels of grey
MIN_LABEL_AREA = 0.002  # share of the picture that is a label and no edge
MAX_LABELS = 24  # levels of a picture of labels; a soft gradient has more
SOLID_SHARE = 0.3  # of the pixels of a value that have equal neighbours: a level, not noise along an edge
MIN_STEP = 1 / 8  # of the range by which a level of grey differs from the background
MAX_BETWEEN = 0.3  # share of pixels between the levels of a mask: a photograph has more
VOID = 255  # label of what is neither object nor background, in label maps of VOC's kind
RING_SHARE = 0.06  # of the diagonal: largest distance to its rim inside a trimap's band, which is no object of its own
BLACK, WHITE = 16, 239  # levels up to, and from, which paint is black and white


class EmptyMask(BadImage):
    """A file in which nothing is marked, or everything."""


class NotAMask(BadImage):
    """A picture of many values, in which nothing can be marked."""


class UnclearLabels(NotAMask):
    """Several labels and no 0: which of them is the background is unknown."""


class MaskReading(NamedTuple):
    """What a file marks.

    Attributes:
        white: (h, w) bool, object where the file is bright, coloured, of a label other than 0, or opaque.
        black: the same where it is dark, of label 0, or transparent; more than one reading where levels between black
            and white could belong to either side.
        values: what the file holds, for people.
    """

    white: Mask
    black: Sequence[Mask]
    values: str


class Levels(NamedTuple):
    """The values of a channel.

    Attributes:
        low, high: of the two ends.
        first: the lowest level above the low end that marks something.
        last: the highest level below the high end that marks something.
        labels: whether the values are labels, where only the lowest is background.
        between: share of pixels that are at no level.
        different: number of values.
    """

    low: float
    high: float
    first: float
    last: float
    labels: bool
    between: float
    different: int


def read_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> MaskReading:
    """Read a mask file of any encoding.

    Alpha counts where it is not uniform; of a palette, every index but 0; of numbers, what is nearer to a level than to
    the background; of colours, what differs from the background.

    Args:
        data: contents of the file.
        max_pixels: limit, in px.

    Raises:
        EmptyMask: all pixels have one value.
        NotAMask: the file is a picture of many values.
        BadImage: another of its subclasses.
    """
    image = open_image(data, max_pixels)
    try:
        facts = read_facts(image, data, is_mask=True)
    except UnclearColours as error:
        raise UnclearImage(str(error)) from None
    image = load_upright(image)
    alpha, image = _read_alpha(image)
    words = read_words(data, image, facts.orientation) if facts.bits > 8 and image.mode in ("RGB", "RGBA") else None
    if words is not None and words.shape[2] == 4 and alpha is not None:
        alpha = words[..., 3]
    if alpha is not None:
        colours = words[..., :3] >> 8 if words is not None else np.asarray(image.convert("RGB"))
        return _read_layer(alpha, colours)
    if image.mode == "P":
        return _read_palette(image)
    if words is not None:
        return _read_colours(words[..., :3])
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        values = np.asarray(image)
        if facts.inverted and values.dtype.itemsize == 2:  # white is zero
            values = 65_535 - values.astype(np.int64)
        return split_levels(values.astype(np.uint8) if image.mode == "1" else values, f"{image.mode}, grey")
    return _read_colours(np.asarray(image.convert("RGB")))


def _read_alpha(image: Image.Image) -> tuple[Values | None, Image.Image]:
    """Return alpha where it is not uniform, and the picture; without alpha where it is uniform."""
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return None, image
    if image.mode.startswith("I"):  # a level of 16 bits that is transparent
        return None, image
    full = image.convert("RGBA")
    alpha = np.asarray(full.getchannel("A"))
    if int(alpha.max()) - int(alpha.min()) > 8:
        return alpha, full
    if image.mode == "P":
        image = image.copy()
        image.info.pop("transparency", None)
        return None, image
    return None, image.convert("RGB") if image.mode != "LA" else image.getchannel("L")


def _read_layer(alpha: Values, colours: Values) -> MaskReading:
    """Read a layer with transparent parts: its paint; where that is black and white, the white of it."""
    reading = split_levels(alpha, "alpha")
    paint = colours[reading.white].astype(np.int16)
    bright, dark = (paint.min(axis=1) >= WHITE), (paint.max(axis=1) <= BLACK)
    if bright.mean() > 0.01 and dark.mean() > 0.01 and (bright | dark).mean() > 0.95:
        values = colours.max(axis=2)
        return MaskReading(
            reading.white & (values > 127),
            (reading.white & (values <= 127),),
            f"{reading.values}; black and white paint",
        )
    return reading


def _read_palette(image: Image.Image) -> MaskReading:
    indices = np.asarray(image)
    used = np.unique(indices)
    palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    text = f"palette, indices {_list_values(used)}"
    if used[-1] >= len(palette):
        return split_levels(indices, text)
    colours = palette[used].astype(int)
    if (colours.max(axis=1) == colours.min(axis=1)).all():
        return split_levels(palette[indices][..., 0], f"{text}, grey")
    plain = (colours.max(axis=1) <= BLACK) | (colours.min(axis=1) >= WHITE)
    if palette[0].max() > BLACK and np.isin(indices, used[plain & (used != 0)]).mean() > 0.05:
        return _read_colours(palette[indices])  # made from colours: index 0 is some of them
    if len(used) == 1:
        raise EmptyMask(f"empty mask: {text}")
    if len(used) > 2 and used[0] > 0:
        raise UnclearLabels(f"no mask: {text}, of which none is 0: which of them is the background is unknown")
    check_labels(indices, text)
    return MaskReading(indices != 0, (indices == 0,), text)


def _read_colours(pixels: Values) -> MaskReading:
    """Read (h, w, 3): grey, or paint of any colour on a background, which is black, white or the most frequent."""
    if (pixels == pixels[..., :1]).all():
        return split_levels(pixels[..., 0], "colours, grey")
    scale = 257 if pixels.dtype == np.uint16 and pixels.max() > 255 else 1
    levels = (pixels // scale).astype(np.int16)
    if int((levels.max(axis=2) - levels.min(axis=2)).max()) <= BLACK and scale == 1 and int(levels.max()) > BLACK:
        return split_levels(levels.max(axis=2), "colours, nearly grey")
    dark, bright = float((levels.max(axis=2) <= BLACK).mean()), float((levels.min(axis=2) >= WHITE).mean())
    if int(levels.max()) <= BLACK:
        background = np.zeros(3, np.int16)  # labels in one channel
    elif max(dark, bright) >= 0.001:
        background = np.full(3, 0 if dark >= bright else 255, np.int16)
    else:
        coarse = (levels >> 3).reshape(-1, 3).astype(np.int32)
        codes = coarse[:, 0] << 10 | coarse[:, 1] << 5 | coarse[:, 2]
        sizes = np.bincount(codes)
        areas = sizes[sizes >= MIN_LABEL_AREA * codes.size]
        if 2 < len(areas) <= MAX_LABELS and areas.sum() >= 0.98 * codes.size:
            raise UnclearLabels(
                f"no mask: {len(areas)} colours, of which none is black or white: which of them is the background is "
                "unknown"
            )
        code = int(sizes.argmax())
        background = np.array([code >> 10, code >> 5 & 31, code & 31], np.int16) * 8 + 4
    distance = np.abs(levels - background).max(axis=2)
    reading = split_levels(distance, f"colours on {tuple(background.tolist())}, difference")
    return MaskReading(reading.white, (~reading.white,), reading.values)


def split_levels(values: Values, text: str) -> MaskReading:
    """Split one channel of numbers into what is marked and what is not.

    Args:
        values: (h, w) of any kind of number.
        text: what they are, for messages.

    Raises:
        EmptyMask, NotAMask: as `read_mask`.

    Examples:
        >>> split_levels(np.array([[0, 0, 1, 2]]), "grey").white.tolist()
        [[False, False, True, True]]
        >>> split_levels(np.array([[7, 7]]), "grey")
        Traceback (most recent call last):
        rasura.manifests.masks.EmptyMask: empty mask: grey, values 7
    """
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise NotAMask(f"{text}: values that are not finite")
    levels = find_levels(values)
    text = f"{text}, values {_describe_range(values, levels)}"
    if levels.different == 1:
        raise EmptyMask(f"empty mask: {text}")
    if levels.labels and levels.low > 0 and (levels.high < WHITE or levels.last <= SMALL_RANGE):
        raise UnclearLabels(f"no mask: {text}, labels of which none is 0: which of them is the background is unknown")
    if levels.labels or levels.high == VOID:
        check_labels(values, text)
    if levels.between > MAX_BETWEEN:
        raise NotAMask(f"no mask: {text}, {levels.between:.0%} of its pixels are at none of its levels")
    white = values > (levels.low + levels.first) / 2
    mirrored = values < (levels.high + levels.last) / 2
    black = [~white] if levels.different == 2 else [~white, mirrored] if levels.labels else [mirrored, ~white]
    return MaskReading(white, [mask for mask in black if mask.any() and not mask.all()], text)


def check_labels(values: Values, text: str) -> None:
    """Check that labels (h, w) say what is object and what is not: that none of them is a void or a trimap's band.

    Args:
        values: (h, w) of any kind of number; others than labels pass.
        text: what they are, for messages.

    Raises:
        UnclearLabels: one is.

    Examples:
        >>> labels = np.pad(np.pad(np.full((9, 9), 15), 3, constant_values=255), 9)
        >>> check_labels(labels, "palette")
        Traceback (most recent call last):
        rasura.manifests.masks.UnclearLabels: no mask: palette, where 255 beside labels up to 15 is void, neither \
        object nor background: provide a mask of the object alone
    """
    numbers = np.unique(values)
    if len(numbers) < 3 or len(numbers) > MAX_LABELS:
        return
    remedy = "neither object nor background: provide a mask of the object alone"
    if numbers[-1] == VOID and 0 < numbers[-2] <= SMALL_RANGE and _has_area(values == numbers[-2]):
        raise UnclearLabels(f"no mask: {text}, where {VOID} beside labels up to {numbers[-2]:g} is void, {remedy}")
    if len(numbers) == 3 and (band := _find_band(values, numbers)) is not None:
        raise UnclearLabels(f"no mask: {text}, a trimap, whose level {band:g} surrounds the object and is {remedy}")


def _has_area(mask: Mask) -> bool:
    """Return whether a mask covers areas, and not only pixels along edges."""
    return bool(mask.any()) and bool(_find_solid(mask)[mask[1:-1, 1:-1]].mean() >= SOLID_SHARE)


def _find_band(values: Values, numbers: Values) -> float | None:
    """Find the level of a trimap's band, which is between the two others everywhere; None where there is none.

    The lowest level is the background. Labels touch it somewhere; a soft edge is narrower. A label that surrounds
    another one is an object of its own where it is wide, unless the three are black, grey and white.
    """
    low, middle, high = (values == number for number in numbers)
    grey = numbers[0] <= BLACK and numbers[2] >= WHITE and 96 <= numbers[1] <= 160
    for band, level, inner in ((middle, numbers[1], high), (high, numbers[2], middle)):
        if _touches(low, inner) or not _touches(band, inner) or not _touches(band, low):
            continue
        depth = cv2.distanceTransform(band.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        widest = np.inf if grey and level == numbers[1] else RING_SHARE * float(np.hypot(*band.shape))
        if 1 < depth.max() <= widest:
            return float(level)
    return None


def _touches(one: Mask, other: Mask) -> bool:
    """Return whether pixels of two masks are neighbours, beside or above each other."""
    return any(
        bool((first[part] & second[rest]).any())
        for first, second in ((one, other), (other, one))
        for part, rest in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))
    )


def find_levels(values: Values) -> Levels:
    """Find the levels of a channel: values of whole areas, not those along a soft edge.

    Args:
        values: (h, w), finite.
    """
    numbers, counts = np.unique(values, return_counts=True)
    low, high = float(numbers[0]), float(numbers[-1])
    whole = not np.issubdtype(values.dtype, np.floating) or bool((numbers == np.rint(numbers)).all())
    if len(numbers) <= 2:
        return Levels(low, high, high, low, False, 0.0, len(numbers))
    if whole and low >= 0 and high <= SMALL_RANGE:
        return Levels(low, high, float(numbers[1]), float(numbers[-2]), True, 0.0, len(numbers))
    solid_numbers, solid_counts = np.unique(values[1:-1, 1:-1][_find_solid(values)], return_counts=True)
    total = counts[np.searchsorted(numbers, solid_numbers)]
    is_level = solid_counts >= SOLID_SHARE * total
    levels, sizes = solid_numbers[is_level].astype(np.float64), total[is_level]
    if not len(levels):
        levels, sizes = np.array([low, high]), np.array([1, 1])
    low, high = float(levels[0]), float(levels[-1])
    if low == high:  # all solid areas are background, and what is marked is thin
        end = float(numbers[-1]) if numbers[-1] - low >= low - numbers[0] else float(numbers[0])
        low, high = min(low, end), max(low, end)
    labels = 2 < len(levels) <= MAX_LABELS and len(numbers) <= 1.5 * len(levels) + 1
    labels &= bool(sizes.sum() >= 0.98 * values.size)
    step = MIN_STEP * (high - low)
    first = _choose_level(levels, sizes, low, high, step, labels)
    last = -_choose_level(-levels[::-1], sizes[::-1], -high, -low, step, labels)
    near = 0.1 * (high - low)
    ends = [low, high, *(levels[sizes >= 0.01 * values.size].tolist() if len(levels) <= MAX_LABELS else ())]
    distance = np.min([np.abs(numbers.astype(np.float64) - end) for end in ends], axis=0)
    between = float(counts[distance > near].sum() / values.size)
    return Levels(low, high, first, last, labels, between, len(numbers))


def _choose_level(levels: Values, sizes: Values, low: float, high: float, step: float, labels: bool) -> float:
    """Choose the lowest level above the background that marks something; the high end where none is large enough."""
    above = levels > low
    marked = max(1, int(sizes[above].sum()))
    is_large = sizes >= (0.05 if labels else 0.02) * marked
    far = levels >= low + step
    candidates = levels[above & is_large & (far | labels)] if len(levels) <= MAX_LABELS else levels[:0]
    return float(candidates[0]) if len(candidates) else high


def _find_solid(values: Values) -> Mask:
    """Find the pixels inside the frame that equal all eight neighbours, (h - 2, w - 2) bool."""
    centre = values[1:-1, 1:-1]
    solid = np.ones(centre.shape, bool)
    height, width = values.shape
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                solid &= values[dy : height - 2 + dy, dx : width - 2 + dx] == centre
    return solid


def _list_values(values: Values) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:6].tolist())
    return shown + (f" … {values[-1]:g}" if len(values) > 6 else "")


def _describe_range(values: Values, levels: Levels) -> str:
    if levels.different <= 6:
        return _list_values(np.unique(values))
    return f"{float(values.min()):g}..{float(values.max()):g} ({levels.different} different)"
