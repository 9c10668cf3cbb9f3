"""A strip of small pictures of a pair, for a page on which people look at many: source, target, what changed."""

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask

GAP = 4  # px between the pictures
FULL_LEVEL = 48.0  # grey levels of difference that are drawn at full strength
OBJECT, FOREGROUND = (255, 64, 64), (64, 200, 255)  # colours of the outlines of M_o and M_fg


def shrink(picture: np.ndarray, side: int, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """Return a picture of at most `side` px, never enlarged."""
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    return np.asarray(
        cv2.resize(picture, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=interpolation)
    )


def draw_outline(picture: RGB, mask: Mask | None, colour: tuple[int, int, int]) -> RGB:
    """Return the picture with a mask's outline, one px wide."""
    if mask is None or not mask.any():
        return picture
    small = cv2.resize(mask.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture.copy(), outlines, -1, colour, 1, cv2.LINE_AA), np.uint8)


def draw_difference(source: RGB, target: RGB) -> RGB:
    """Return what differs as light on dark, with the source's outlines faintly below it, so that places can be told."""
    level = np.abs(source.astype(np.float32) - target).max(axis=2)
    heat = cv2.applyColorMap(np.clip(level / FULL_LEVEL * 255, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY)[..., None] // 6
    return np.maximum(np.asarray(heat[..., ::-1], np.uint8), grey)


def draw_strip(source: RGB, target: RGB, mask: Mask | None, foreground: Mask | None, side: int) -> RGB:
    """Draw source with outlines, target, and their difference beside each other.

    Args:
        source, target: (h, w, 3) uint8, of one size or of two.
        mask, foreground: (h, w) bool of the source, M_o and M_fg; None where there are none.
        side: px of the longer side of each.
    """
    first, second = shrink(source, side), shrink(target, side)
    marked = draw_outline(draw_outline(first, foreground, FOREGROUND), mask, OBJECT)
    panels = [marked, second]
    if source.shape == target.shape:
        panels.append(draw_difference(first, second))
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + GAP * (len(panels) - 1)
    strip = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for panel in panels:
        strip[: panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP
    return strip
