"""GrabCut (Rother et al. 2004), for segmentation without a network: seeded by a certain core, or by a box."""

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask

WORK_SIDE = 512  # longest side at which the cut is made: its cost grows faster than the picture


def _cut(picture: RGB, trimap: npt.NDArray[np.uint8], rounds: int) -> Mask:
    """Run GrabCut from a trimap of its four labels; return the trimap's object where a class is missing."""
    counts = np.isin(trimap, (cv2.GC_BGD, cv2.GC_PR_BGD)).sum(), np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).sum()
    if min(counts) >= 16:  # fewer samples than two mixtures of five need: nothing to cut
        cv2.setRNGSeed(0)  # its k-means draws from the one global generator
        bgr = np.ascontiguousarray(picture[..., ::-1])
        labels = trimap.copy()
        frame = (0, 0, labels.shape[1], labels.shape[0])  # ignored: the labels decide
        cv2.grabCut(bgr, labels, frame, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
        trimap = labels
    return np.asarray((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD))


def _find_window(mask: Mask, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def cut_from_seeds(picture: RGB, sure: Mask, likely: Mask, possible: Mask, rounds: int = 4) -> Mask:
    """Return the object's pixels of a picture, (h, w) bool.

    Args:
        picture: (h, w, 3) uint8.
        sure: object for certain.
        likely: begins as object, may be taken away.
        possible: begins as background, may be added. Everything else is background for certain.
        rounds: iterations of GrabCut.
    """
    reach = sure | likely | possible
    if not reach.any():
        return np.zeros(picture.shape[:2], bool)
    window = _find_window(reach, 24)
    trimap = np.full(picture.shape[:2], cv2.GC_BGD, np.uint8)
    trimap[possible] = cv2.GC_PR_BGD
    trimap[likely] = cv2.GC_PR_FGD
    trimap[sure] = cv2.GC_FGD
    part, seeds = picture[window], trimap[window]
    height, width = seeds.shape
    scale = min(1.0, WORK_SIDE / max(height, width))
    out = np.zeros(picture.shape[:2], bool)
    if scale == 1.0:
        out[window] = _cut(part, seeds, rounds)
        return out
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = _cut(
        np.asarray(cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(seeds, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        rounds,
    )
    large = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    out[window] = large & (seeds != cv2.GC_BGD) | (seeds == cv2.GC_FGD)
    return out


def cut_box(picture: RGB, box: tuple[int, int, int, int], rounds: int = 4) -> Mask:
    """Return the object inside a box [x0, y0, x1, y1), (h, w) bool: everything outside is background.

    The centre of the box (an ellipse of half its sides) begins as object, the rest of it as background.
    """
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    rows, columns = np.ogrid[:height, :width]
    inside = (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    across = (columns + 0.5 - (x0 + x1) / 2) / max(1, x1 - x0)
    down = (rows + 0.5 - (y0 + y1) / 2) / max(1, y1 - y0)
    centre = across**2 + down**2 < 0.35**2
    nothing = np.zeros((height, width), bool)
    return cut_from_seeds(picture, nothing, inside & centre, inside, rounds) & inside
