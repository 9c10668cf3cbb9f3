"""M_o of a pair, from what differs: promptable SAM or GrabCut, started from the object core.

A raw box around everything that differs is a bad prompt: it holds the shadow, and SAM takes it along. So the prompts
come from the object core (`effects.object_core`), and what SAM answers is scored against core and shadow.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.effects import (
    components,
    difference,
    fill_holes,
    fill_small,
    floor_shows,
    keep_components,
    morph,
    near,
    object_core,
)
from rasura.stages.pair import dilate, disc
from rasura.stages.segmenters.grabcut import cut_seeded
from rasura.stages.segmenters.sam import Floats, Promptable, points_prompt

Box = tuple[int, int, int, int]

MOST_BLOBS = 6
GOOD_ENOUGH = 2.1  # of 2.3: no further prompt is tried
MOST_BARE = 0.35  # share of an answer in which the floor may show
SMALL_PART = 0.02  # of the largest part: smaller ones are dropped


def bounding_box(mask: Mask, pad: float = 0.0) -> Box:
    """[x0, y0, x1, y1) around a mask that is not empty, grown by `pad` of its sides and clipped to the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    wide, high = round(pad * (x1 - x0)), round(pad * (y1 - y0))
    return max(0, x0 - wide), max(0, y0 - high), min(mask.shape[1], x1 + wide), min(mask.shape[0], y1 + high)


def deepest_points(mask: Mask, count: int) -> npt.NDArray[np.float32]:
    """(n ≤ count, 2) x, y of the points farthest from the mask's rim, each well away from those before it."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1].copy()
    reach = max(1.0, float(np.sqrt(mask.sum())) / 3)
    found: list[tuple[int, int]] = []
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    while len(found) < count and depth.max() >= 1.5:
        y, x = (int(v) for v in np.unravel_index(int(depth.argmax()), depth.shape))
        found.append((x, y))
        depth[(rows - y) ** 2 + (columns - x) ** 2 < reach**2] = 0
    return np.asarray(found, np.float32).reshape(-1, 2)


def core_prompts(blob: Mask, core: Mask, foreground: Mask) -> Iterator[tuple[Floats, Floats]]:
    """Six prompts for one core blob, the most promising first: its box with and without points on it and on shadow."""
    box = bounding_box(blob)
    inner = deepest_points(blob, 2)
    shadow = deepest_points(foreground & ~dilate(core, 4), 3)
    yield points_prompt(inner, shadow, box)
    yield points_prompt(inner, (), box)
    yield points_prompt((), (), box)
    _, labels, _ = components(foreground)
    touched = np.unique(labels[blob])
    around = np.isin(labels, touched[touched > 0])
    yield points_prompt(inner, shadow, bounding_box(around if around.any() else blob))
    yield points_prompt(inner, shadow)
    yield points_prompt(inner[:1])


def answer_score(answer: Mask, blob: Mask, core: Mask, foreground: Mask, quality: float) -> tuple[float, float, float]:
    """How well a mask answers a blob: (score ≤ 2.3, share of it in M_fg, share of the blob it covers).

    Score = inside + cover − 1.2 · share on shadow + 0.3 · SAM's own guess.
    """
    area = max(1, int(answer.sum()))
    inside = float((answer & dilate(foreground, 2)).sum()) / area
    cover = float((answer & blob).sum()) / max(1, int(blob.sum()))
    shadow = float((answer & foreground & ~dilate(core, 3)).sum()) / area
    return inside + cover - 1.2 * shadow + 0.3 * quality, inside, cover


def tidy(mask: Mask, solid: Mask | None = None, smallest: float = SMALL_PART) -> Mask:
    """Small holes filled, and those that lie mostly in `solid`; parts below `smallest` of the largest dropped.

    Larger holes stay: what is seen between the legs of a table is no table.
    """
    mask = fill_small(mask)
    if solid is not None:
        _, labels, areas = components(fill_holes(mask) & ~mask)
        inside = np.bincount(labels[solid], minlength=len(areas) + 1)[1:]
        mask = mask | keep_components(labels, inside > 0.5 * areas)
    count, labels, areas = components(mask)
    return keep_components(labels, areas >= smallest * areas.max()) if count else mask


def smooth_rim(mask: Mask, side: int = 5) -> Mask:
    """A mask without steps and spikes narrower than half of `side` px, where it is large enough to have a rim."""
    if mask.sum() < 20 * side * side:
        return mask
    return np.asarray(cv2.medianBlur(mask.astype(np.uint8), side), np.uint8) > 0


def to_border(mask: Mask, foreground: Mask, px: int = 4) -> Mask:
    """A mask that ends `px` or less before the picture's border is carried on to it, where M_fg goes on.

    Networks see zeros beyond the border and like to stop short of it.
    """
    out = mask.copy()
    for turn in range(4):
        view, inside = np.rot90(out, turn), np.rot90(foreground, turn)
        if view.shape[0] > 2 * px:
            view[:px] |= view[px] & inside[:px]
    return out


def prompt_region(foreground: Mask) -> Box | None:
    """The part of a picture that SAM should look at: M_fg and as much around it; None for the whole."""
    height, width = foreground.shape
    x0, y0, x1, y1 = bounding_box(foreground, 0.35)
    side = max(x1 - x0, y1 - y0, 0.4 * max(height, width))
    if side > 0.8 * max(height, width):
        return None
    half, x, y = round(side / 2), (x0 + x1) // 2, (y0 + y1) // 2
    return max(0, x - half), max(0, y - half), min(width, x + half), min(height, y + half)


def _is_rim(blob: Mask, found: Mask, tinted: Mask, hidden: Mask, strength: Floats) -> bool:
    """Is a core blob that an answer left beside itself only a shadow's steep rim, or a smear of the codec?

    It is when it lies next to the answer and either texture alone speaks for it, or its change is faint beside the
    answer's. Blobs that stand alone, or hide the floor, are never rims.
    """
    reach = max(4, round(0.02 * float(np.hypot(*blob.shape))))
    if not (dilate(blob, reach) & found).any():
        return False
    if (hidden & blob).sum() > 0.3 * blob.sum():
        return False
    faint = float(np.median(strength[blob])) < 0.3 * float(np.median(strength[found]))
    return faint or float(tinted[blob].mean()) < 0.2


def sam_from_core(
    sam: Promptable,
    picture: RGB,
    core: Mask,
    foreground: Mask,
    tinted: Mask,
    strength: Floats,
    hidden: Mask | None = None,
    bare: Mask | None = None,
) -> tuple[Mask, float]:
    """M_o of a pair by prompts that cover the core: the largest core blob not yet explained, up to six times.

    An answer that is largely `bare` (the floor's grain is seen there) is a shadow, whose rim the blob was.

    Returns:
        (h, w) bool, and the mean score (0 to 1) of the answers, 0 where the core alone had to do.
    """
    hidden = np.zeros_like(core) if hidden is None else hidden
    region = prompt_region(foreground)
    embedding = sam.embed(picture, region)
    x0, y0, x1, y1 = region or (0, 0, picture.shape[1], picture.shape[0])
    found, solid = np.zeros_like(core), core
    scores: list[tuple[float, int]] = []
    _, labels, areas = components(core)
    smallest = max(16, 0.05 * int(areas.max()))
    for _ in range(2 * MOST_BLOBS):
        rest = core & ~dilate(found, 3)
        rest = morph(rest, cv2.MORPH_OPEN, 5) if found.any() else rest
        count, labels, areas = components(rest)
        if not count or areas.max() < smallest or len(scores) == MOST_BLOBS:
            break
        blob = labels == int(areas.argmax()) + 1
        if found.any() and _is_rim(blob, found, tinted, hidden, strength):
            core = core & ~blob
            continue
        best, best_score, shadow = blob, 0.0, False
        for points, kinds in core_prompts(blob, core, foreground):
            logits, quality = sam.prompt(embedding, points, kinds)
            answer = np.zeros_like(core)
            answer[y0:y1, x0:x1] = logits > 0
            if bare is not None and (answer & bare).sum() > MOST_BARE * answer.sum():
                shadow = True
                continue
            score, inside, cover = answer_score(answer, blob, core, foreground, quality)
            if inside > 0.75 and cover > 0.3 and score > best_score:
                best, best_score = answer & dilate(foreground, 2), score
            if best_score > GOOD_ENOUGH:
                break
        if shadow and best_score == 0:
            core = core & ~blob
            continue
        found |= best
        scores.append((best_score / 2.3, int(blob.sum())))
        # What an answer leaves of its own blob is rim; another prompt at it would only come back with the whole.
        core = core & ~(blob & dilate(found, 6))
    weight = sum(area for _, area in scores)
    return tidy(to_border(found, foreground), solid), sum(score * area for score, area in scores) / max(1, weight)


def cut_from_core(
    picture: RGB,
    core: Mask,
    foreground: Mask,
    tinted: Mask,
    strength: Floats,
    hidden: Mask | None = None,
    bare: Mask | None = None,
) -> tuple[Mask, float]:
    """M_o of a pair by GrabCut seeded with the core; the score is the IoU with the core it started from.

    Certain is what is deep in the core, not by texture alone, and not faint (unless it hides the floor): a rim that
    is wrongly certain stays. What is `bare` (the floor's grain is seen there) is no object.
    """
    hidden = np.zeros_like(core) if hidden is None else hidden
    typical = float(np.percentile(strength[core], 80))
    tinted = core & fill_small(morph(tinted, cv2.MORPH_CLOSE, 5))
    likely = tinted if tinted.sum() > 0.3 * core.sum() else core
    likely = fill_small(likely & ((strength > 0.3 * typical) | hidden))
    size = float(np.sqrt(likely.sum()))
    inner = np.asarray(cv2.erode(likely.astype(np.uint8), disc(max(2, round(0.05 * size)))), np.uint8) > 0
    inner &= (strength > 0.5 * typical) | hidden
    # A long shadow is no candidate: only what lies within a fifth of the objects' size of them.
    possible = dilate(likely, max(4, round(0.2 * size))) & dilate(foreground, 2)
    possible = possible if bare is None else possible & ~bare
    cut = morph(cut_seeded(picture, inner, likely, possible), cv2.MORPH_OPEN, 3) | inner
    cut = keep_components(components(cut)[1], near(cut, inner, 0.5)) if inner.any() else cut
    cut = smooth_rim(cut)
    return tidy(cut, likely), float((cut & core).sum() / max(1, (cut | core).sum()))


def with_parts(answer: Mask, cut: Mask, side: int = 5) -> Mask:
    """SAM's answer and what GrabCut finds beside it that is thicker than `side` px: mirrors, hair, a hand.

    SAM's own rim stays: GrabCut's is one pixel here or there and ragged where the codec is.
    """
    return np.asarray(answer | morph(cut & ~answer, cv2.MORPH_OPEN, side))


def object_of_pair(
    source: RGB, clean: RGB, foreground: Mask, noise: float, sam: Promptable | None
) -> tuple[Mask, float]:
    """M_o of a registered pair, and a score from 0 to 1; all False where nothing could be an object.

    Args:
        source, clean: (h, w, 3) uint8. foreground: (h, w) bool, M_fg. noise: `pair_noise`.
        sam: what is prompted; None: GrabCut alone.
    """
    core, tinted, hidden = object_core(source, clean, foreground, noise)
    strength = difference(source, clean)
    if not core.any():  # nothing but what a shadow could be: the strongest half of it
        core = tinted = foreground & (strength >= 0.5 * float(strength[foreground].max(initial=0)))
    if not core.any():
        return core, 0.0
    shows = floor_shows(source, clean, noise).astype(np.uint8)
    bare = np.asarray(cv2.erode(shows, disc(2), borderValue=0), np.uint8) > 0
    cut, score = cut_from_core(source, core, foreground, tinted, strength, hidden, bare)
    if sam is None:
        return cut, score
    mask, score = sam_from_core(sam, source, core, foreground, tinted, strength, hidden, bare)
    return tidy(with_parts(mask, cut) & ~bare, core), score
