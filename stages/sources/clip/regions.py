"""Pairs from a clip that is never empty: an object in one region, paired with that region empty.

A busy street is never empty, but each of its places is now and then. `gt` is the frame itself, with one region taken
from frames in which nothing differs from the plate there; whoever stands elsewhere is in both pictures.
"""

from typing import NamedTuple

import cv2
import numpy as np

from rasura.stages.sources.clip.plate import Array, compute_edges, find_changes

PAD = 0.35  # of an object's longer side, around it: its shadow belongs to the region
RING = 0.12  # of a region's shorter side: the border in which gt goes over into input
SAME_PLACE = 0.5  # overlap (IoU) from which two regions are one place


class Region(NamedTuple):
    """A rectangle in shares of the picture, [x0, x1) × [y0, y1), and the share of the picture that changed in it."""

    x0: float
    y0: float
    x1: float
    y1: float
    area: float

    def pixels(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return rows and columns in a picture of this shape."""
        height, width = shape[:2]
        return (
            slice(int(self.y0 * height), max(int(self.y0 * height) + 1, round(self.y1 * height))),
            slice(int(self.x0 * width), max(int(self.x0 * width) + 1, round(self.x1 * width))),
        )


def compute_iou(a: Region, b: Region) -> float:
    """Compute the intersection over union of two regions."""
    wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - shared)


def find_occupied_regions(differing: Array, least: float) -> list[Region]:
    """Find the regions in which something stands, from a (h, w) mask of the difference from the plate.

    Boxes of its blobs, padded; those that touch become one, since none of them could be taken out alone.
    """
    height, width = differing.shape
    closed = cv2.morphologyEx(differing.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(closed)
    boxes = []
    for x, y, wide, high, area in stats[1:count].tolist():
        if area >= 4:
            pad = max(2.0, PAD * max(wide, high))
            box = (max(0, x - pad), max(0, y - pad), min(width, x + wide + pad), min(height, y + high + pad))
            boxes.append([*box, float(area)])
    merged = True
    while merged:
        merged = False
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]):
                    boxes[i] = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), a[4] + b[4]]
                    boxes.remove(b)
                    merged = True
                    break
            if merged:
                break
    shares = [
        Region(x0 / width, y0 / height, x1 / width, y1 / height, a / differing.size) for x0, y0, x1, y1, a in boxes
    ]
    return sorted(region for region in shares if region.area >= least)


def choose_regions(
    masks: dict[int, Array], numbers: Array, least: float, most: float, quiet: float, min_gap: int, max_pairs: int
) -> list[tuple[int, Region, list[int]]]:
    """Choose the pairs to make, thinned evenly to `max_pairs`: (sample, region, samples in which it is empty).

    Args:
        masks: sample index to its (h, w) mask of what differs from the plate.
        numbers: frame number of every sample.
        least, most: changed share of the picture that a region may have; quiet: of the region, that counts as empty.
        min_gap: frames between two pairs; a place is taken again only after four times as many.
    """
    chosen: list[tuple[int, Region, list[int]]] = []
    for k in sorted(masks):
        if chosen and chosen[-1][0] != k and numbers[k] - numbers[chosen[-1][0]] < min_gap:
            continue
        for region in find_occupied_regions(masks[k], least):
            where = region.pixels(masks[k].shape)
            again = [
                j
                for j, other, _ in chosen
                if compute_iou(region, other) > SAME_PLACE and numbers[k] - numbers[j] < 4 * min_gap
            ]
            if again or region.area > most:
                continue
            empty = [j for j, mask in masks.items() if mask[where].mean() <= quiet]
            if empty:
                chosen.append((k, region, empty))
    if len(chosen) > max_pairs:
        chosen = [chosen[k] for k in sorted({round(q) for q in np.linspace(0, len(chosen) - 1, max_pairs)})]
    return chosen


def blend_region(picture: Array, empty: Array, region: Region) -> tuple[Array, float]:
    """Blend `region` of `empty` into `picture`, (h, w, 3) uint8, and measure their difference in the ring between.

    Inside the region's border, in a ring of `RING` of its shorter side, one goes over into the other; an edge of the
    picture itself is no border. The second value is the share of the ring that differs by more than 20 levels:
    something is cut through there.
    """
    rows, columns = region.pixels(picture.shape)
    weight = np.zeros(picture.shape[:2], np.float32)
    weight[rows, columns] = 1
    width = max(2, round(RING * min(rows.stop - rows.start, columns.stop - columns.start)))
    inside = cv2.copyMakeBorder(weight, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform((inside > 0).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    weight = np.minimum(weight, depth / width).astype(np.float32)
    mixed = picture + weight[..., None] * (empty.astype(np.float32) - picture)
    ring = (weight > 0) & (weight < 1)
    apart = np.abs(cv2.blur(picture.astype(np.float32) - empty, (5, 5))).max(axis=2) > 20
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), float(apart[ring].mean()) if ring.any() else 0.0


def contains_object(picture: Array, other: Array) -> bool:
    """Return whether the object that differs between two aligned pictures is in the first of them.

    Its outline is an edge of the picture that has it, and crosses plain scene in the other.
    """
    mask = find_changes(picture, other).astype(np.uint8)
    band = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    return bool(band.any() and compute_edges(picture)[band].mean() > compute_edges(other)[band].mean())
