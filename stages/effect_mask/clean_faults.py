"""Measurements of what is wrong with `gt` itself: remains of the object, another thing in its place, a cut edge.

Outside of M_fg the pair tells what belongs to the scene. Inside, `gt` alone shows the ground, so that each measurement
compares it with something that a clean plate cannot have: the object's own texture, an outline that `input` lacks, or
colours that the rest of the picture lacks. `audit` stores them.
"""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.components import fill_holes
from rasura.stages.imaging.filters import Floats, blur, box_mean, convert_to_grey, estimate_gradient
from rasura.stages.imaging.morphology import dilate, erode, morph

Doubles = npt.NDArray[np.float64]

BLOCK, LEAST_BLOCKS = 16, 3  # px; blocks of M_o from which a spread is told
RIM = 2  # px of M_o where both pictures show the ground, through the blur
SLOPE_FLOOR = 0.08  # of the median energy of the object's slopes: no block's ground counts as flatter
CERTAINTY = 3.0  # standard errors
STEP_INSIDE, STEP_OUTSIDE = 4.0, 3.0  # px from the rim: the two points whose values are compared
RIM_SIGMA, ARC = 1.2, 13  # px of the Gaussian; px of rim over which steps are averaged
HARD_STEP = 30.0  # grey levels by which the difference ends within these px: no penumbra
CLEAN_SHARE, SOURCE_SHARE = 0.65, 0.25  # of the step: in clean at least, of its energy in source at most
LEAST_RIM = 24  # px of a part's rim, from which it counts
STRANGE_SIDE = 256  # px of the longer side at which colours and textures are compared
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly
SAMPLES, PLACES = 200, 700  # pixels of the hole, and of the rest of the picture
COPIES, LEAST_COPIES = 5, 4  # moved copies of the hole, a side of the grid; number that is needed
MAX_OVERLAP = 0.15  # of such a copy with what changed
QUARTILE = 75  # percentile of the hole's pixels that is compared


def measure_residue(source: RGB, clean: RGB, objects: Mask) -> float:
    """Measure which share of the object is certainly left in `clean`, as in the mean of shots with and without it.

    With a share r left, ∇clean = (1 − r) ∇ground + r ∇object, and ∇source = ∇object on M_o. So the slope of ∇clean over
    ∇source is r plus a chance that has another sign in each block of the picture, since the ground knows nothing of the
    object. Blocks are weighted by the object's energy over the ground's. At the rim of M_o, where the source shows the
    ground by half, half of the ground's energy is taken off.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        objects: (h, w) bool, M_o.

    Returns:
        The weighted mean of the blocks' slopes less `CERTAINTY` standard errors; 0 where M_o is too small.
    """
    rows, columns = np.nonzero(objects)
    first, second = (
        np.concatenate(estimate_gradient(blur(picture, 1.0)), axis=-1)[rows, columns].astype(np.float64)
        for picture in (source, clean)
    )
    shared = 0.5 * ~erode(objects, RIM)[rows, columns]
    _, block = np.unique(rows // BLOCK * (objects.shape[1] + 1) + columns // BLOCK, return_inverse=True)
    common, own, ground, count = (
        np.bincount(block, weights=values)
        for values in (
            (first * second).sum(1) - shared * (second**2).sum(1),
            (first**2).sum(1),
            (second**2).sum(1),
            np.ones(len(rows)),
        )
    )
    usable = (count >= BLOCK * BLOCK // 8) & (own > 0)
    if usable.sum() < LEAST_BLOCKS:
        return 0.0
    common, own, ground, count = common[usable], own[usable], ground[usable], count[usable]
    weight = own / (ground / count + SLOPE_FLOOR * max(float(np.median((first**2).sum(1))), 1.0))
    slopes, total = common / own, weight.sum()
    mean = float((weight * slopes).sum() / total)
    return mean - CERTAINTY * float(np.sqrt((weight**2 * (slopes - mean) ** 2).sum()) / total)


def _average_arcs(values: Doubles) -> Doubles:
    """Return (n, k) values along a closed line, averaged over `ARC` of them."""
    wide = np.concatenate([values[-(ARC // 2) :], values, values[: ARC // 2]])
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), wide]), axis=0)
    return np.asarray((sums[ARC:] - sums[:-ARC]) / ARC)


def _measure_steps(pictures: list[Floats], rim: Doubles, area: Mask) -> tuple[list[Doubles], Mask]:
    """Return each picture's steps, (n, 3), across a rim, (n, 2) x and y in turn around it, and where they count."""
    height, width = area.shape
    along = np.roll(rim, -7, axis=0) - np.roll(rim, 7, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    out = np.stack([along[:, 1], -along[:, 0]], axis=1)
    probe = np.rint(rim + 3 * out).astype(np.int64)
    if area[np.clip(probe[:, 1], 0, height - 1), np.clip(probe[:, 0], 0, width - 1)].mean() > 0.5:
        out = -out
    steps = []
    for picture in pictures:
        inner, outer = (
            cv2.remap(
                picture,
                points[None, :, 0].astype(np.float32),
                points[None, :, 1].astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )[0]
            for points in (rim - STEP_INSIDE * out, rim + STEP_OUTSIDE * out)
        )
        steps.append(np.asarray(inner, np.float64) - outer)
    framed = ((rim > 2) & (rim < np.array([width - 3, height - 3]))).all(axis=1)
    return steps, np.asarray(framed, bool)


def measure_cut_rim(source: RGB, clean: RGB, changed: Mask, objects: Mask) -> float:
    """Measure how much of the change's hard rim is an edge of `clean` that `source` lacks.

    Where an object or its shadow ends, `source` has an edge and the ground goes on in `clean`. The other way round
    `clean` holds something: a part of the object that stayed (legs below a cut), a hard shadow that ends at a cut, a
    thing that moved beside the object, another one in its place.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        changed, objects: (h, w) bool, what changed in M_fg, and M_o, which is not empty.

    Returns:
        Length of such rim in square roots of M_o's area.
    """
    area = fill_holes(morph(changed, cv2.MORPH_OPEN, 3))
    outlines, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    smooth = [blur(picture, RIM_SIGMA) for picture in (source, clean)]
    length = 0
    for outline in outlines:
        if len(outline) < LEAST_RIM:
            continue
        (first, second), framed = _measure_steps(smooth, np.asarray(outline[:, 0], np.float64), area)
        change = first - second
        sums = np.stack([-(second * change).sum(1), (change**2).sum(1), (first**2).sum(1)], axis=1)
        own, total, before = _average_arcs(sums * framed[:, None]).T
        hard = framed & (total > 3 * HARD_STEP**2)
        length += int((hard & (own > CLEAN_SHARE * total) & (before < SOURCE_SHARE * total)).sum())
    return length / float(np.sqrt(objects.sum()))


def _take_spread(values: Floats, count: int) -> Floats:
    """Return at most `count` of (n, k) values, spread without a period that a pattern could share (golden ratio)."""
    if len(values) <= count:
        return values
    return values[(np.arange(count) * GOLDEN % 1 * len(values)).astype(np.int64)]


def _measure_strangeness(features: Floats, hole: Mask, rest: Mask) -> float:
    """Return the `QUARTILE` of the distances from the hole's features to the nearest ones of the rest."""
    inside, outside = _take_spread(features[hole], SAMPLES), _take_spread(features[rest], PLACES)
    nearest = np.full(len(inside), np.inf, np.float32)
    for part in np.array_split(outside, 4):
        squares = np.square(inside[:, None] - part[None]).sum(axis=2)
        nearest = np.minimum(nearest, squares.min(axis=1))
    return float(np.percentile(np.sqrt(nearest), QUARTILE))


def measure_strange_ground(clean: RGB, foreground: Mask, objects: Mask) -> float | None:
    """Measure how much stranger `clean` is in the object's place than the picture is elsewhere.

    Of each pixel there, the distance in colour (two scales, Lab) and in the strength of its texture to the nearest
    pixel outside of M_fg; their upper quartile, over the median of the same for copies of the hole that are moved
    over the rest of the picture. Another thing in the object's place has colours of its own.

    Args:
        clean: (h, w, 3) uint8, gt.
        foreground, objects: (h, w) bool, M_fg and M_o, which is not empty.

    Returns:
        Ratio, 1 where it is as strange as the rest; None where no copies fit beside M_fg.
    """
    scale = min(1.0, STRANGE_SIDE / max(objects.shape))
    size = (max(1, round(objects.shape[1] * scale)), max(1, round(objects.shape[0] * scale)))
    picture = np.asarray(cv2.resize(clean, size, interpolation=cv2.INTER_AREA), np.uint8)
    hole, changed = (
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for mask in (objects, foreground | objects)
    )
    changed = dilate(changed, 2)
    rest = ~changed
    if not hole.any() or rest.sum() < PLACES:
        return None
    lab, grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), np.float32), convert_to_grey(picture)
    texture = 4 * np.log(box_mean((grey - blur(grey, 2.0)) ** 2, 5) + 0.5)
    features = np.concatenate([blur(lab, 1.0), blur(lab, 3.0), texture[..., None]], axis=2)
    rows, columns = np.nonzero(hole)
    height, width = hole.shape
    usual = []
    for down in np.linspace(-rows.min(), height - 1 - rows.max(), COPIES).astype(np.int64):
        for right in np.linspace(-columns.min(), width - 1 - columns.max(), COPIES).astype(np.int64):
            copy = np.zeros_like(hole)
            copy[rows + down, columns + right] = True
            elsewhere = rest & ~dilate(copy, 5)
            if (copy & changed).sum() <= MAX_OVERLAP * len(rows) and elsewhere.sum() >= PLACES:
                usual.append(_measure_strangeness(features, copy & rest, elsewhere))
    if len(usual) < LEAST_COPIES:
        return None
    return _measure_strangeness(features, hole, rest) / max(float(np.median(usual)), 1.0)
