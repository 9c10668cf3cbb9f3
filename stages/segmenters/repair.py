"""Repairs of a mask that a person asks for: a click adds or takes away what is under it; the outline snaps to edges.

Each returns a new mask and changes nothing far from what was asked for: pixels of the other side of the picture stay as
they are. With a promptable network the click is a prompt; without one GrabCut cuts the surroundings of the click, with
the present mask as what is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.morphology import compute_distance_inside
from rasura.stages.segmenters.grabcut import cut_from_seeds
from rasura.stages.segmenters.sam import Embedding, Promptable, build_prompt

SURE = 0.35
"""Share of the click's radius, around it, that is what the click says for certain."""
CONTEXT = 2.0
"""Radii around the click that the colours are learnt from."""
CLOSE_TO_RIM = 0.5
"""Share of the snapping reach within which even the inside of a mask may turn out to be background."""


def _crop(shape: tuple[int, int], x: float, y: float, reach: float) -> tuple[slice, slice]:
    height, width = shape
    return (
        slice(max(0, int(y - reach)), min(height, int(y + reach) + 1)),
        slice(max(0, int(x - reach)), min(width, int(x + reach) + 1)),
    )


def _select_component(area: Mask, x: int, y: int) -> Mask:
    """Return the connected part of an area that a pixel is in; nothing where it is not in it."""
    _, labels = cv2.connectedComponents(area.astype(np.uint8), connectivity=4)
    return np.asarray((labels == labels[y, x]) & area) if area[y, x] else np.zeros_like(area)


def apply_click(picture: RGB, mask: Mask, x: int, y: int, add: bool, radius: float) -> Mask:
    """Add what is under a click to a mask, or take it away: a region of one look around the click.

    Args:
        picture: (h, w, 3) uint8.
        mask: (h, w) bool.
        x, y: pixel of the click.
        add: whether it is object; otherwise it is background.
        radius: px from the click that the change may reach.

    Returns:
        (h, w) bool.
    """
    if bool(mask[y, x]) == add:
        return mask
    window = _crop(mask.shape, x, y, CONTEXT * radius)
    part, before = picture[window], mask[window]
    top, left = window[0].start, window[1].start
    rows, columns = np.ogrid[: before.shape[0], : before.shape[1]]
    distance = np.hypot(columns - (x - left), rows - (y - top))
    near = distance <= radius
    # in terms of what is clicked: `ours` is the class of the click, `theirs` the other one
    ours, theirs = (before, ~before) if add else (~before, before)
    clicked = (distance <= SURE * radius) & theirs
    clicked = _select_component(clicked, x - left, y - top)
    open_area = near & theirs
    cut = cut_from_seeds(part, (ours & ~near) | clicked, ours & near, open_area)
    gained = _select_component((cut & open_area) | clicked, x - left, y - top)
    gained = _fill_holes(gained)
    result = mask.copy()
    result[window] = (before | gained) if add else (before & ~gained)
    return result


def _fill_holes(area: Mask) -> Mask:
    """Fill what an area encloses."""
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(area.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled > 0


def snap_outline(picture: RGB, mask: Mask, reach: float) -> Mask:
    """Move the outline of a mask to edges of the picture that are at most `reach` px away.

    Args:
        picture: (h, w, 3) uint8.
        mask: (h, w) bool.
        reach: px.

    Returns:
        (h, w) bool; the mask itself where it is empty or everything.
    """
    if not mask.any() or mask.all():
        return mask
    rows, columns, margin = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0)), int(2 * reach) + 32
    window = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin),
    )
    part = mask[window]
    inside, outside = compute_distance_inside(part), compute_distance_inside(~part)
    sure = inside > min(reach, CLOSE_TO_RIM * float(inside.max()))
    result = mask.copy()
    result[window] = cut_from_seeds(picture[window], sure, part, (outside > 0) & (outside <= reach))
    return result


@dataclass
class MaskRepair:
    """Repairs without a network, or with one that is prompted by clicks.

    Args:
        open_segmenter: loads the network; None where there is none. It is called at the first click.
    """

    open_segmenter: Callable[[], Promptable] | None = None
    _segmenter: Promptable | None = field(default=None, init=False)
    _encoded: tuple[str, Embedding] | None = field(default=None, init=False)

    def click(self, key: str, picture: RGB, mask: Mask, x: int, y: int, add: bool, radius: float) -> Mask:
        """Apply a click; `key` names the picture, whose embedding is computed once.

        The network's answer counts within the radius: a click repairs a part and does not replace the mask.
        """
        if self.open_segmenter is None or bool(mask[y, x]) == add:
            return apply_click(picture, mask, x, y, add, radius)
        self._segmenter = self._segmenter or self.open_segmenter()
        if self._encoded is None or self._encoded[0] != key:
            self._encoded = (key, self._segmenter.encode(picture))
        return prompt_click(self._segmenter, self._encoded[1], mask, x, y, add, radius)

    def snap(self, picture: RGB, mask: Mask, reach: float) -> Mask:
        """Move the outline to edges of the picture."""
        return snap_outline(picture, mask, reach)


def prompt_click(
    segmenter: Promptable, embedding: Embedding, mask: Mask, x: int, y: int, add: bool, radius: float
) -> Mask:
    """Add or take away what a network sees under a click, within a radius of it.

    Of the masks that the click may mean the one is taken that agrees best with the present mask.
    """
    anchors = _choose_anchors(mask)
    points, labels = build_prompt([*anchors, [x, y]]) if add else build_prompt(anchors, [[x, y]])
    logits, _ = segmenter.prompt_all(embedding, points, labels)
    choices: list[Any] = [np.asarray(answer > 0) for answer in logits]
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    near = np.hypot(columns - x, rows - y) <= radius
    results = [_merge(mask, choice, near, x, y, add) for choice in choices]
    overlaps = [float((choice & mask).sum() / max(1, int((choice | mask).sum()))) for choice in choices]
    return results[int(np.argmax(overlaps))]


def _merge(mask: Mask, choice: Mask, near: Mask, x: int, y: int, add: bool) -> Mask:
    changed = _select_component(near & ((choice & ~mask) if add else (mask & ~choice)), x, y)
    return np.asarray((mask | changed) if add else (mask & ~changed))


def _choose_anchors(mask: Mask) -> list[list[int]]:
    """Choose the points that stand for the present mask in a prompt: its innermost pixel; none where it is empty."""
    depth = compute_distance_inside(mask)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return [[int(column), int(row)]] if mask.any() else []
