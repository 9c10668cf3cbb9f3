"""Stage `masks`: variants of a triplet's object mask, as columns beside it.

Users of a remover paint roughly, or take a network's mask: a model that was trained on exact masks only leaves ghosts.
Five families, each as its authors train with it: `shape` (Syn4Removal's six modes), `coarse` (ObjectClear),
`dilated` (PowerPaint's shape task), `box` and `brush`. Pixel constants were published for pictures whose shorter
side is 512 and scale with it. How tightly a variant fits is measured and stored, for a trainer to condition on.
"""

from collections.abc import Callable, Mapping
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.images import Mask
from rasura.manifests.schemas import Kind, Schema
from rasura.removers.training.augment import REFERENCE_SIDE, vary_mask
from rasura.stages import stage
from rasura.stages.split import label_objects
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

Rng = np.random.Generator
Family = Literal["shape", "coarse", "dilated", "box", "brush"]
FAMILIES: tuple[Family, ...] = ("shape", "coarse", "dilated", "box", "brush")  # their order decides the random numbers

GAP, SMALLEST = 8, 0.08  # px at the reference side, share of area: which pieces are one object, as in stage `split`
LARGEST = 0.7  # share of the picture above which Syn4Removal keeps the mask as it is


def select_shallowest(depth: npt.NDArray[np.int64], count: int) -> Mask:
    """Select the `count` pixels of least depth, and all that are as deep as the last of them."""
    count = min(max(count, 1), depth.size)
    return np.asarray(depth <= np.partition(depth.ravel(), count - 1)[count - 1], bool)


def compute_squared_distance(mask: Mask) -> npt.NDArray[np.int64]:
    """Compute the squared distance of each True pixel of (h, w) to the nearest False one, (h, w) int64, px².

    Squares are whole numbers, so that pixels equally far away are equal. The last bit of OpenCV's distance depends on
    where in memory its result begins.

    Examples:
        >>> compute_squared_distance(np.array([[True, True, False]])).tolist()
        [[4, 1, 0]]
    """
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(np.square(distance.astype(np.float64))).astype(np.int64)


def grow_to_area(mask: Mask, factor: float) -> Mask:
    """Grow a mask (h, w) evenly, in Euclidean distance, until its area is `factor` ≥ 1 times as large.

    Examples:
        >>> mask = np.zeros((21, 21), bool)
        >>> mask[10, 10] = True
        >>> int(grow_to_area(mask, 9).sum())
        9
    """
    return mask | select_shallowest(compute_squared_distance(~mask), round(factor * int(mask.sum())))


def shrink_to_area(mask: Mask, factor: float) -> Mask:
    """Shrink a mask (h, w) evenly until its area is `factor` in (0, 1] times as large. The frame is no rim."""
    return mask & select_shallowest(-compute_squared_distance(mask), round(factor * int(mask.sum())))


def compute_hull(mask: Mask) -> Mask:
    """Compute the convex hull of all True pixels of (h, w), as a mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)]).astype(np.int32)
    canvas = np.zeros(mask.shape, np.uint8)
    return np.asarray(cv2.fillConvexPoly(canvas, cv2.convexHull(ends), 1), np.uint8) > 0


def compute_ellipse(mask: Mask) -> Mask:
    """Compute the ellipse with the mean and the second moments of a mask's pixels, clipped: (h, w) bool."""
    ys, xs = np.nonzero(mask)
    # integers: a pixel exactly on the rim must not depend on the order in which a library sums
    count, sum_x, sum_y = len(xs), int(xs.sum()), int(ys.sum())
    across, down, both = (int((first * second).sum()) for first, second in ((xs, xs), (ys, ys), (xs, ys)))
    wide = (count * across - sum_x * sum_x) / count**2 + 1 / 12  # a pixel is no point
    high = (count * down - sum_y * sum_y) / count**2 + 1 / 12
    slant = (count * both - sum_x * sum_y) / count**2
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    y, x = rows - sum_y / count, columns - sum_x / count
    reach = high * x * x + wide * y * y - 2 * slant * x * y
    return np.asarray(reach <= 4 * (wide * high - slant * slant), bool)


def draw_curved_box(mask: Mask, rng: Rng, scale: float) -> Mask:
    """Draw a mask's box with corners moved by up to 5 px and sides bent outwards, each a quadratic Bézier curve.

    A side bulges by at most a fifth of the box and at most half of the way to the frame (Syn4Removal, mode 6).
    """
    height, width = mask.shape
    x0, y0, x1, y1 = compute_bounds(mask)
    jitter = 5 * scale
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64) + rng.uniform(-jitter, jitter, (4, 2))
    room = np.array([y0, width - x1, height - y1, x0]) / 2
    reach = np.minimum(0.2 * np.array([y1 - y0, x1 - x0, y1 - y0, x1 - x0]), room) * rng.uniform(0, 1, 4)
    outward = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    sides = []
    for side in range(4):
        start, end = corners[side], corners[(side + 1) % 4]
        along = rng.uniform(0.25, 0.75)
        # a curve bulges half as far as the distance of its control point
        control = start + along * (end - start) + 2 * reach[side] * outward[side]
        sides.append((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end)
    canvas = np.zeros(mask.shape, np.uint8)
    filled = cv2.fillPoly(canvas, [np.rint(np.concatenate(sides)).astype(np.int32)], 1)
    return np.asarray(filled, np.uint8) > 0


def draw_box(mask: Mask, growth: float = 0.0) -> Mask:
    """Draw a mask's bounding box with an area that is larger by `growth`, clipped to the frame.

    All sides move by the same number of px.

    Examples:
        >>> mask = np.zeros((30, 30), bool)
        >>> mask[10:20, 10:20] = True
        >>> int(draw_box(mask).sum()), int(draw_box(mask, 0.44).sum())
        (100, 144)
    """
    x0, y0, x1, y1 = compute_bounds(mask)
    wide, high = x1 - x0, y1 - y0
    # (w + 2p)(h + 2p) = (1 + growth) w h
    p = round((-(wide + high) + np.sqrt((wide + high) ** 2 + 4 * growth * wide * high)) / 4)
    out = np.zeros_like(mask)
    out[max(0, y0 - p) : y1 + p, max(0, x0 - p) : x1 + p] = True
    return out


def separate_objects(mask: Mask, scale: float) -> list[Mask]:
    """Separate the objects in a mask, largest first: boxes and hulls are drawn around each of them."""
    x0, y0, x1, y1 = compute_bounds(mask)
    labels = np.zeros(mask.shape, np.int32)
    labels[y0:y1, x0:x1] = label_objects(mask[y0:y1, x0:x1], max(1, round(GAP * scale)), SMALLEST)
    return [labels == number for number in range(1, int(labels.max()) + 1)]


def map_pieces(pieces: list[Mask], make: Callable[[Mask], Mask]) -> Mask:
    """Return the union of what a function makes of each piece."""
    return cast(Mask, np.logical_or.reduce([make(piece) for piece in pieces]))


def count_shape_modes(mask: Mask) -> int:
    """Count which of Syn4Removal's six modes suit a mask's shape: the first 6, 5, 3 or 1.

    No box (the 6th) where the mask fills less than half of its box, or the box more than 0.4 of the picture; no hull
    and no ellipse (4th, 5th) where it fills less than 0.6 of its hull, or the hull more than 0.5 of the picture; only
    the mask itself where it fills more than 0.5.

    Examples:
        >>> mask = np.zeros((30, 30), bool)
        >>> mask[10:20, 10:20] = True
        >>> count_shape_modes(mask), count_shape_modes(~mask)
        (6, 1)
    """
    area = float(mask.mean())
    x0, y0, x1, y1 = compute_bounds(mask)
    box, around = (x1 - x0) * (y1 - y0) / mask.size, float(compute_hull(mask).mean())
    if area > 0.5:
        return 1
    if area / around < 0.6 or around > 0.5:
        return 3
    return 5 if area / box < 0.5 or box > 0.4 else 6


def make_shape_variant(mask: Mask, pieces: list[Mask], rng: Rng, scale: float) -> tuple[Mask, str]:
    """Make one of Syn4Removal's six modes (its §3.4) among those that suit the mask; return it with the mode's name.

    exact; eroded to 80–90 % of the area; dilated by 25–50 %; hull dilated by 25–50 %; ellipse around the mask dilated
    by 100–150 %; curved box of the box enlarged by 10–20 %. All but `eroded` contain the whole mask. A variant that is
    over 0.7 of the picture is replaced by the mask itself.
    """
    mode = int(rng.integers(1, min(map(count_shape_modes, pieces)) + 1))
    if mode == 1:
        return mask, "exact"
    if mode == 2:
        return shrink_to_area(mask, 1 - rng.uniform(0.1, 0.2)), "eroded"
    if mode == 3:
        variant, name = grow_to_area(mask, 1 + rng.uniform(0.25, 0.5)), "dilated"
    elif mode == 4:
        variant, name = grow_to_area(map_pieces(pieces, compute_hull), 1 + rng.uniform(0.25, 0.5)), "hull"
    elif mode == 5:
        factor = 1 + rng.uniform(1.0, 1.5)
        variant, name = map_pieces(pieces, lambda piece: compute_ellipse(grow_to_area(piece, factor))) | mask, "ellipse"
    else:
        growth = rng.uniform(0.1, 0.2)
        variant, name = (
            map_pieces(pieces, lambda piece: draw_curved_box(draw_box(piece, growth), rng, scale)) | mask,
            "box",
        )
    return (variant, name) if variant.mean() <= LARGEST else (mask, "exact")


def make_square(side: int) -> npt.NDArray[np.uint8]:
    """Return a square structuring element, (side, side) uint8."""
    return np.ones((side, side), np.uint8)


def make_coarse_variant(mask: Mask, pieces: list[Mask], rng: Rng, scale: float) -> tuple[Mask, str]:
    """Make ObjectClear's training mask; see `vary_mask`."""
    return vary_mask(mask, rng, scale)


def make_dilated_variant(mask: Mask, pieces: list[Mask], rng: Rng, scale: float) -> tuple[Mask, str]:
    """Make PowerPaint's loose shape: dilated 3×3 twice, then 0–9 times by a square of odd side 3–23.

    Its fitting degree (area of the object / area of the mask) is what the trainer weighs `P_shape` with.
    """
    start = 2 * max(1, round(2 * scale)) + 1  # two times 3x3 is once 5x5
    side, times = 2 * int(rng.integers(1, 12)) + 1, int(rng.integers(0, 10))
    reach = 2 * max(1, round((side // 2) * scale)) + 1
    variant = cv2.dilate(mask.astype(np.uint8), make_square(start))
    if times:
        variant = cv2.dilate(variant, make_square(reach), iterations=times)
    return np.asarray(variant, np.uint8) > 0, "dilated"


def make_box_variant(mask: Mask, pieces: list[Mask], rng: Rng, scale: float) -> tuple[Mask, str]:
    """Draw each object's box; in half of the cases with moved corners and bent sides (PowerPaint's object task)."""
    if rng.uniform() < 0.5:
        return map_pieces(pieces, draw_box), "box"
    return map_pieces(pieces, lambda piece: draw_curved_box(piece, rng, scale)) | mask, "curved"


def paint(mask: Mask, rng: Rng) -> Mask:
    """Paint over an object as a person does: round strokes through what is not covered yet, until most of it is.

    A brush has one diameter, 15–45 % of the object's size (root of its box's area); a stroke has two to five points,
    each far from what was painted before; they end when a random share of 0.9 to 1 of the object is covered.
    """
    x0, y0, x1, y1 = compute_bounds(mask)
    thick = max(3, round(rng.uniform(0.15, 0.45) * float(np.sqrt((x1 - x0) * (y1 - y0)))))
    enough = rng.uniform(0.9, 1.0) * int(mask.sum())
    window = np.s_[max(0, y0 - thick) : y1 + thick, max(0, x0 - thick) : x1 + thick]  # strokes stay inside it
    mask, painted = mask[window], np.zeros(mask.shape, bool)
    canvas = np.zeros(mask.shape, np.uint8)
    rest, strokes = mask, 0
    while int(mask.sum()) - int(rest.sum()) < enough and strokes < 200:
        strokes += 1
        depth = cv2.distanceTransform(rest.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
        ys, xs = np.nonzero(depth >= rng.uniform(0.5, 0.95) * depth.max())
        picks = rng.integers(0, len(ys), int(rng.integers(2, 6)))
        points = np.stack([xs[picks], ys[picks]], axis=1) + rng.normal(0, thick / 8, (len(picks), 2))
        along = rng.normal(size=2)  # some direction, as a hand goes
        points = points[np.argsort(points[:, 0] * along[0] + points[:, 1] * along[1])]
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, 1, thickness=thick)
        for x, y in np.rint(points).astype(int).tolist():
            cv2.circle(canvas, (x, y), thick // 2, 1, -1)
        rest = mask & (canvas == 0)
    painted[window] = canvas > 0
    return painted


def make_brush_variant(mask: Mask, pieces: list[Mask], rng: Rng, scale: float) -> tuple[Mask, str]:
    """Paint over each object as a person does."""
    return map_pieces(pieces, lambda piece: paint(piece, rng)), "brush"


def measure_fit(variant: Mask, mask: Mask) -> tuple[float, float]:
    """Measure how a variant fits a mask, both (h, w): share of it that is object, share of the object that it covers.

    Examples:
        >>> measure_fit(np.array([[True, True, True, True]]), np.array([[True, True, False, False]]))
        (0.5, 1.0)
    """
    both = int((variant & mask).sum())
    return both / max(1, int(variant.sum())), both / max(1, int(mask.sum()))


MAKERS: Mapping[Family, Callable[[Mask, list[Mask], Rng, float], tuple[Mask, str]]] = {
    "shape": make_shape_variant,
    "coarse": make_coarse_variant,
    "dilated": make_dilated_variant,
    "box": make_box_variant,
    "brush": make_brush_variant,
}


def draw_variant(family: Family, mask: Mask, rng: Rng) -> Mask:
    """Draw one variant of a mask (h, w) that is not empty."""
    scale = min(mask.shape) / REFERENCE_SIDE
    return MAKERS[family](mask, separate_objects(mask, scale), rng, scale)[0]


class MasksParams(stage.Params):
    variants: list[Family] = Field(list(FAMILIES), description="Families to make: a column `mask_<family>` each.")

    @field_validator("variants")
    @classmethod
    def _check_variants(cls, value: list[Family]) -> list[Family]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"name one or more of {', '.join(FAMILIES)}, each once")
        return value


class Masks(Stage):
    """Adds variants of a triplet's mask for training: a mask, how it was made, and how it fits, for each family.

    Examples:
        - masks: {variants: [coarse, box, brush]}
    """

    name = "masks"
    needs = {"mask": Kind.MASK}
    gives = {
        f"mask_{family}{part}": kind
        for family in FAMILIES
        for part, kind in (("", Kind.MASK), ("_mode", Kind.STRING), ("_fit", Kind.FLOAT), ("_cover", Kind.FLOAT))
    }
    Params = MasksParams
    params: MasksParams

    def schema(self, columns: Schema) -> Schema:
        prefixes = tuple(f"mask_{family}" for family in self.params.variants)
        after = super().schema(columns)
        return {name: kind for name, kind in after.items() if name not in self.gives or name.startswith(prefixes)}

    def process_one(self, record: Record) -> Outcome:
        mask = cast(Mask, record["mask"])
        if mask is None or not mask.any():
            return Rejected("empty mask", "there is no object to vary")
        scale = min(mask.shape) / REFERENCE_SIDE
        pieces = separate_objects(mask, scale)
        columns: Record = {}
        for family, rng in zip(FAMILIES, self.rng(record).spawn(len(FAMILIES)), strict=True):
            if family in self.params.variants:
                variant, mode = MAKERS[family](mask, pieces, rng, scale)
                share, cover = measure_fit(variant, mask)
                name = f"mask_{family}"
                columns |= {name: variant, f"{name}_mode": mode, f"{name}_fit": share, f"{name}_cover": cover}
        return Kept([record | columns])
