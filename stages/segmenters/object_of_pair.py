"""The object mask M_o of a pair, from its differences: promptable SAM or GrabCut, started from the object core.

A box around everything that differs is a bad prompt: it contains the shadow, and SAM includes it. So the prompts come
from the object core (see `effects`), and SAM's masks are scored against core and shadow. Where the result does not fit
the core well, every pixel is weighed (`object_likelihood`), as for grey objects on white and mirror images.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.object_core import find_object_core, measure_log_ratio
from rasura.stages.effect_mask.object_likelihood import estimate_object_likelihood
from rasura.stages.effect_mask.texture import find_visible_texture
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.components import (
    fill_holes,
    fill_small_holes,
    flag_near_components,
    label_components,
    select_components,
)
from rasura.stages.imaging.morphology import dilate, disc, erode, morph
from rasura.stages.segmenters.grabcut import cut_from_seeds
from rasura.stages.segmenters.sam import Embedding, Floats, Promptable, build_prompt

Box = tuple[int, int, int, int]

MAX_BLOBS = 6
GOOD_ENOUGH = 2.1  # of 2.3: no further prompt is tried
MAX_BARE = 0.35  # share of a mask in which the ground may be visible
DOUBTFUL = 0.7  # score below which M_o is cut by the likelihood of each pixel instead
DOUBTFUL_LIKELIHOOD = 0.82  # mean in M_o, below which it holds a shadow or a mirror image, whatever its score
LIKELY, SURE, POSSIBLE = 0.5, 0.9, 0.02
"""Likelihoods from which GrabCut begins with a pixel as object, may not take it away, and may add it."""
UNLIKELY = 0.3  # likelihood below which pixels of M_o may be none
MISSED, FOREIGN = 0.85, 0.1
"""Mean likelihoods from which a part beside M_o is object, and up to which a part of M_o is none."""
OTHER_HUE = 0.5  # hue change that light on the ground, a shadow or a mirror image hardly reaches
SMEAR = 0.015  # of the diagonal: so far from an object its codec may have smeared the ground
SMALL_PART = 0.02  # of the largest part: smaller ones are removed


def compute_bounding_box(mask: Mask, pad: float = 0.0) -> Box:
    """Return [x0, y0, x1, y1) around a mask that is not empty, grown by `pad` of its sides and clipped."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
    wide, high = round(pad * (x1 - x0)), round(pad * (y1 - y0))
    return max(0, x0 - wide), max(0, y0 - high), min(mask.shape[1], x1 + wide), min(mask.shape[0], y1 + high)


def find_deepest_points(mask: Mask, count: int) -> npt.NDArray[np.float32]:
    """Return (n ≤ count, 2) x, y of the points farthest from the mask's rim, each well away from those before it."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1].copy()
    reach = max(1.0, float(np.sqrt(mask.sum())) / 3)
    points: list[tuple[int, int]] = []
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    while len(points) < count and depth.max() >= 1.5:
        y, x = (int(v) for v in np.unravel_index(int(depth.argmax()), depth.shape))
        points.append((x, y))
        depth[(rows - y) ** 2 + (columns - x) ** 2 < reach**2] = 0
    return np.asarray(points, np.float32).reshape(-1, 2)


def propose_prompts(blob: Mask, core: Mask, foreground: Mask) -> Iterator[tuple[Floats, Floats]]:
    """Yield six prompts for one core blob, the best first: its box with and without points on it and on shadow."""
    box = compute_bounding_box(blob)
    inner = find_deepest_points(blob, 2)
    shadow = find_deepest_points(foreground & ~dilate(core, 4), 3)
    yield build_prompt(inner, shadow, box)
    yield build_prompt(inner, (), box)
    yield build_prompt((), (), box)
    _, labels, _ = label_components(foreground)
    touched = np.unique(labels[blob])
    around = np.isin(labels, touched[touched > 0])
    yield build_prompt(inner, shadow, compute_bounding_box(around if around.any() else blob))
    yield build_prompt(inner, shadow)
    yield build_prompt(inner[:1])


def score_answer(answer: Mask, blob: Mask, core: Mask, foreground: Mask, quality: float) -> tuple[float, float, float]:
    """Score a mask for a blob: score ≤ 2.3, share of the mask in M_fg, share of the blob that it covers.

    Score = inside + cover − 1.2 · share on shadow + 0.3 · the IoU that SAM predicts.
    """
    area = max(1, int(answer.sum()))
    inside = float((answer & dilate(foreground, 2)).sum()) / area
    cover = float((answer & blob).sum()) / max(1, int(blob.sum()))
    shadow = float((answer & foreground & ~dilate(core, 3)).sum()) / area
    return inside + cover - 1.2 * shadow + 0.3 * quality, inside, cover


def tidy(mask: Mask, solid: Mask | None = None, smallest: float = SMALL_PART) -> Mask:
    """Fill small holes, and those that are mostly in `solid`; remove parts below `smallest` of the largest.

    Larger holes stay: the space between the legs of a table is no table.
    """
    mask = fill_small_holes(mask)
    if solid is not None:
        _, labels, areas = label_components(fill_holes(mask) & ~mask)
        inside = np.bincount(labels[solid], minlength=len(areas) + 1)[1:]
        mask = mask | select_components(labels, inside > 0.5 * areas)
    count, labels, areas = label_components(mask)
    return select_components(labels, areas >= smallest * areas.max()) if count else mask


def smooth_rim(mask: Mask, side: int = 5) -> Mask:
    """Remove steps and spikes narrower than half of `side` px from a mask that is large enough to have a rim."""
    if mask.sum() < 20 * side * side:
        return mask
    return np.asarray(cv2.medianBlur(mask.astype(np.uint8), side), np.uint8) > 0


def extend_to_border(mask: Mask, foreground: Mask, px: int = 4) -> Mask:
    """Extend a mask that ends `px` or less before the picture's border to it, where M_fg continues.

    Networks get zeros beyond the border, and their masks often stop short of it.
    """
    out = mask.copy()
    for turn in range(4):
        view, inside = np.rot90(out, turn), np.rot90(foreground, turn)
        if view.shape[0] > 2 * px:
            view[:px] |= view[px] & inside[:px]
    return out


def choose_region(foreground: Mask) -> Box | None:
    """Choose the part of a picture that SAM encodes: M_fg with a margin around it; None for the whole picture."""
    height, width = foreground.shape
    x0, y0, x1, y1 = compute_bounding_box(foreground, 0.35)
    side = max(x1 - x0, y1 - y0, 0.4 * max(height, width))
    if side > 0.8 * max(height, width):
        return None
    half, x, y = round(side / 2), (x0 + x1) // 2, (y0 + y1) // 2
    return max(0, x - half), max(0, y - half), min(width, x + half), min(height, y + half)


def _is_rim(blob: Mask, answer: Mask, tinted: Mask, hidden: Mask, strength: Floats) -> bool:
    """Return whether a core blob beside a mask is only a shadow's steep rim, or an artefact of compression.

    It is when it is next to the mask and either only its texture changed, or its change is faint compared to that in
    the mask. Blobs that are isolated, or hide the ground, are never rims.
    """
    reach = max(4, round(0.02 * float(np.hypot(*blob.shape))))
    if not (dilate(blob, reach) & answer).any():
        return False
    if (hidden & blob).sum() > 0.3 * blob.sum():
        return False
    faint = float(np.median(strength[blob])) < 0.3 * float(np.median(strength[answer]))
    return faint or float(tinted[blob].mean()) < 0.2


def _segment_blob(
    sam: Promptable, embedding: Embedding, blob: Mask, core: Mask, foreground: Mask, bare: Mask | None
) -> tuple[Mask, float] | None:
    """Return SAM's best mask for a core blob and its score, the blob itself and 0 where no mask fits it.

    None where the only masks are `bare`: the blob is the rim of a shadow.
    """
    window = np.s_[embedding.top : embedding.top + embedding.height, embedding.left : embedding.left + embedding.width]
    best, best_score, is_shadow = blob, 0.0, False
    for points, labels in propose_prompts(blob, core, foreground):
        logits, predicted_iou = sam.prompt(embedding, points, labels)
        mask = np.zeros_like(core)
        mask[window] = logits > 0
        if bare is not None and (mask & bare).sum() > MAX_BARE * mask.sum():
            is_shadow = True
            continue
        score, inside, cover = score_answer(mask, blob, core, foreground, predicted_iou)
        if inside > 0.75 and cover > 0.3 and score > best_score:
            best, best_score = mask & dilate(foreground, 2), score
        if best_score > GOOD_ENOUGH:
            break
    return None if is_shadow and best_score == 0 else (best, best_score)


def segment_with_sam(
    sam: Promptable,
    picture: RGB,
    core: Mask,
    foreground: Mask,
    tinted: Mask,
    strength: Floats,
    hidden: Mask | None = None,
    bare: Mask | None = None,
) -> tuple[Mask, float]:
    """Segment M_o of a pair by prompts that cover the core: the largest core blob not yet covered, up to six times.

    A mask that is largely `bare` (the ground's texture is visible there) is a shadow, whose rim the blob was.

    Args:
        sam: the segmenter.
        picture: (h, w, 3) uint8 with the object.
        core: (h, w) bool, pixels that are object for certain.
        foreground: (h, w) bool, M_fg.
        tinted: (h, w) bool, the part of the core that changed its colour.
        strength: (h, w) strength of the change.
        hidden: (h, w) bool, pixels where the ground's texture is hidden.
        bare: (h, w) bool, pixels where the ground's texture is visible.

    Returns:
        (h, w) bool, and the mean score (0 to 1) of the masks, 0 where only the core was used.
    """
    hidden = np.zeros_like(core) if hidden is None else hidden
    embedding = sam.encode(picture, choose_region(foreground))
    mask, solid = np.zeros_like(core), core
    scores: list[tuple[float, int]] = []
    _, labels, areas = label_components(core)
    smallest = max(16, 0.05 * int(areas.max()))
    for _ in range(2 * MAX_BLOBS):
        rest = core & ~dilate(mask, 3)
        rest = morph(rest, cv2.MORPH_OPEN, 5) if mask.any() else rest
        count, labels, areas = label_components(rest)
        if not count or areas.max() < smallest or len(scores) == MAX_BLOBS:
            break
        blob = labels == int(areas.argmax()) + 1
        if mask.any() and _is_rim(blob, mask, tinted, hidden, strength):
            core = core & ~blob
            continue
        segmented = _segment_blob(sam, embedding, blob, core, foreground, bare)
        if segmented is None:
            core = core & ~blob
            continue
        best, best_score = segmented
        mask |= best
        scores.append((best_score / 2.3, int(blob.sum())))
        # What a mask leaves of its own blob is rim; another prompt at it would only return the same mask.
        core = core & ~(blob & dilate(mask, 6))
    weight = sum(area for _, area in scores)
    return tidy(extend_to_border(mask, foreground), solid), sum(score * area for score, area in scores) / max(1, weight)


def segment_with_grabcut(
    picture: RGB,
    core: Mask,
    foreground: Mask,
    tinted: Mask,
    strength: Floats,
    hidden: Mask | None = None,
    bare: Mask | None = None,
) -> tuple[Mask, float]:
    """Segment M_o of a pair by GrabCut seeded with the core; the score is the IoU with the core.

    Pixels deep in the core are certain, unless only their texture changed or the change is faint (and does not hide
    the ground): a rim that is wrongly certain would stay. Pixels that are `bare` (the ground's texture is visible
    there) are no object. Arguments as in `segment_with_sam`.
    """
    hidden = np.zeros_like(core) if hidden is None else hidden
    typical = float(np.percentile(strength[core], 80))
    tinted = core & fill_small_holes(morph(tinted, cv2.MORPH_CLOSE, 5))
    likely = tinted if tinted.sum() > 0.3 * core.sum() else core
    likely = fill_small_holes(likely & ((strength > 0.3 * typical) | hidden))
    size = float(np.sqrt(likely.sum()))
    inner = np.asarray(cv2.erode(likely.astype(np.uint8), disc(max(2, round(0.05 * size)))), np.uint8) > 0
    inner &= (strength > 0.5 * typical) | hidden
    inner |= np.asarray(cv2.erode(hidden.astype(np.uint8), disc(4)), np.uint8) > 0
    # A long shadow is no candidate: only pixels within a fifth of the objects' size of them.
    possible = dilate(likely, max(4, round(0.2 * size))) & dilate(foreground, 2)
    possible = possible if bare is None else possible & ~bare
    cut = morph(cut_from_seeds(picture, inner, likely, possible), cv2.MORPH_OPEN, 3) | inner
    cut = select_components(label_components(cut)[1], flag_near_components(cut, inner, 0.5)) if inner.any() else cut
    cut = smooth_rim(cut)
    return tidy(cut, likely), float((cut & core).sum() / max(1, (cut | core).sum()))


def find_smear(core: Mask, hidden: Mask, strength: Floats) -> Mask:
    """Return (h, w) bool: hidden, but hardly changed, beside what changed much: there a codec smeared the ground.

    Args:
        core, hidden: (h, w) bool, see `ObjectCore`.
        strength: (h, w) grey levels of change.
    """
    typical = float(np.percentile(strength[core], 80))
    halo = dilate(strength > 0.5 * typical, round(SMEAR * float(np.hypot(*core.shape))))
    return np.asarray(hidden & halo & (strength <= 0.2 * typical))


def add_parts(answer: Mask, cut: Mask) -> Mask:
    """Add to SAM's mask what GrabCut finds beside it, thicker than 2 % of the shorter side: mirrors, hair, a hand.

    SAM's own rim stays: GrabCut's is a pixel off in places, and ragged where the picture was compressed.
    """
    side = max(5, round(min(answer.shape) / 48) | 1)
    return np.asarray(answer | morph(cut & ~answer, cv2.MORPH_OPEN, side))


def list_parts(mask: Mask, beside: Mask, likelihood: Floats) -> Iterator[tuple[Mask, float, float]]:
    """Yield the parts of a mask wider than 2 px, their mean likelihood, and the share of their rim in `beside`."""
    _, labels, areas = label_components(morph(mask, cv2.MORPH_OPEN, 3))
    for number in range(1, len(areas) + 1):
        part = labels == number
        rim = dilate(part, 1) & ~part
        yield part, float(likelihood[part].mean(dtype=np.float64)), float((rim & beside).sum() / max(1, rim.sum()))


def correct_parts(mask: Mask, likelihood: Floats, foreground: Mask, strength: Floats, hue_change: Floats) -> Mask:
    """Add to M_o the bites that are object almost for certain, and remove the lobes that are none.

    A bite has two fifths of its rim at the mask, at least 0.3 % of the mask's area, and changed like the mask: a codec
    smears the ground beside an object, which is as likely but hardly changed. A lobe is connected to the mask by less
    than three fifths of its rim, has at least 1.2 % of its area and changed less than it, as light on the ground did.
    One of another hue than the ground is removed only where it barely touches the mask, as a tape does: a hand stays.

    Args:
        mask: (h, w) bool, M_o.
        likelihood: (h, w) float32, 0 to 1, of object.
        foreground: (h, w) bool, M_fg.
        strength: (h, w) grey levels of change.
        hue_change: (h, w), see `measure_log_ratio`.
    """
    out, area = mask.copy(), int(mask.sum())
    if not area:
        return out
    typical = max(1.0, float(np.median(strength[mask])))
    for part, mean, share in list_parts(foreground & ~mask & (likelihood > LIKELY), mask, likelihood):
        changed = float(np.median(strength[part])) / typical
        if part.sum() >= 0.003 * area and mean >= MISSED and share >= 0.4 and changed > 0.4:
            out |= part
    for part, mean, share in list_parts(mask & (likelihood < UNLIKELY), mask, likelihood):
        changed = float(np.median(strength[part])) / typical
        is_own = share >= 0.6 or changed >= 0.7 or (share >= 0.2 and float(np.median(hue_change[part])) >= OTHER_HUE)
        if part.sum() >= 0.012 * area and mean <= FOREIGN and not is_own:
            out &= ~part
    return out


def compute_expected_iou(mask: Mask, likelihood: Floats) -> float:
    """Return the IoU that a mask is expected to have with the object, by each pixel's likelihood to be object.

    Examples:
        >>> compute_expected_iou(np.array([[True, True, False]]), np.array([[1.0, 0.5, 0.5]], np.float32))
        0.6
    """
    inside = float(likelihood[mask].sum(dtype=np.float64))
    union = float(mask.sum()) + float(likelihood[~mask].sum(dtype=np.float64))
    return inside / max(1.0, union)


def segment_by_likelihood(picture: RGB, likelihood: Floats, foreground: Mask) -> tuple[Mask, float]:
    """Segment M_o of a pair by GrabCut, which begins with the likely pixels; the score is the expected IoU.

    Args:
        picture: (h, w, 3) uint8 with the object.
        likelihood: (h, w) float32, 0 to 1, of object.
        foreground: (h, w) bool, M_fg.
    """
    likely = likelihood > LIKELY
    sure = likely & erode(likelihood > SURE, 1)
    possible = ((likelihood > POSSIBLE) | dilate(likely, 2)) & dilate(foreground, 2)
    mask = tidy(smooth_rim(cut_from_seeds(picture, sure, likely, possible), 3))
    return mask, compute_expected_iou(mask, likelihood)


def segment_pair(source: RGB, clean: RGB, foreground: Mask, noise: float, sam: Promptable | None) -> tuple[Mask, float]:
    """Segment M_o of a registered pair.

    Args:
        source: (h, w, 3) uint8 with the object.
        clean: (h, w, 3) uint8 without it.
        foreground: (h, w) bool, M_fg.
        noise: `pair_noise`.
        sam: the segmenter that is prompted; None: GrabCut alone.

    Returns:
        (h, w) bool, all False where nothing could be an object, and a score from 0 to 1: GrabCut's, or SAM's times the
        IoU of its mask with GrabCut's; the expected IoU of a mask by likelihood, where M_o is one.
    """
    core, tinted, hidden = find_object_core(source, clean, foreground, noise)
    strength = compute_difference(source, clean)
    if not core.any():  # every change could be shadow: take the strongest half
        core = tinted = foreground & (strength >= 0.5 * float(strength[foreground].max(initial=0)))
    if not core.any():
        return core, 0.0
    smeared = find_smear(core, hidden, strength)
    core, tinted, hidden = core & ~smeared, tinted & ~smeared, hidden & ~smeared
    shows = find_visible_texture(source, clean, noise).astype(np.uint8)
    bare = np.asarray(cv2.erode(shows, disc(2), borderValue=0), np.uint8) > 0
    evidence = (core, foreground, tinted, strength, hidden, bare)
    mask, score = segment_with_grabcut(source, *evidence)
    if sam is not None:
        cut = mask
        mask, score = segment_with_sam(sam, source, *evidence)
        mask = tidy(add_parts(mask, cut) & ~bare, core)
        # SAM is as sure of a shadow, a mirror image or one of three objects; GrabCut's mask is another one then.
        score *= float((mask & cut).sum() / max(1, (mask | cut).sum()))
    likelihood = estimate_object_likelihood(source, clean, foreground, noise)
    if score < DOUBTFUL or float(likelihood[mask & foreground].mean(dtype=np.float64)) < DOUBTFUL_LIKELIHOOD:
        by_likelihood, expected = segment_by_likelihood(source, likelihood, foreground)
        if expected > compute_expected_iou(mask, likelihood):
            return by_likelihood, expected
    _, hue_change = measure_log_ratio(source, clean)
    return tidy(correct_parts(mask, likelihood, foreground, strength, hue_change)), score
