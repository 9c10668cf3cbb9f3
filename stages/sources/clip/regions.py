"""Pairs from a clip that is never empty: an object in one region, paired with that region empty.

A busy street is never empty, but each of its places is now and then. `gt` is the frame itself, with one region taken
from frames in which nothing differs from the plate there; whoever stands elsewhere is in both pictures.
"""

from typing import NamedTuple

import cv2
import numpy as np

from rasura.stages.sources.clip.plate import Array, compute_edges, find_changes

PAD = 0.2  # of an object's longer side, around its outline: its faint shadow belongs to the region
MIN_PAD = 3.0  # px of the small picture
RING = 0.6  # of the pad: the border in which gt goes over into input
SAME_PLACE = 0.5  # overlap (IoU) from which two regions are one place


class Region(NamedTuple):
    """A region in which something stands.

    Attributes:
        mask: (h, w) bool, in the small picture: the outline of what differs, widened by `pad`.
        area: share of the picture that changed in it.
        pad: px of the small picture.
    """

    mask: Array
    area: float
    pad: float

    def scale_mask(self, shape: tuple[int, ...]) -> Array:
        """Return the mask in a picture of this shape: (h, w) bool."""
        height, width = shape[:2]
        return cv2.resize(self.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5

    def find_box(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return x, y, width and height of the box around the mask in a picture of this shape."""
        x, y, width, height = cv2.boundingRect(self.scale_mask(shape).astype(np.uint8))
        return int(x), int(y), int(width), int(height)


def compute_iou(a: Region, b: Region) -> float:
    """Compute the intersection over union of two regions."""
    return float((a.mask & b.mask).sum() / (a.mask | b.mask).sum())


def find_occupied_regions(differing: Array, least: float) -> list[Region]:
    """Find the regions in which something stands, from a (h, w) mask of the difference from the plate.

    Each blob's outline is widened, and those that touch become one, since none of them could be taken out alone. The
    regions are not boxes: people who walk beside each other are two regions as long as their outlines are apart.
    """
    closed = cv2.morphologyEx(differing.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    regions: list[Region] = []
    for index, (_, _, wide, high, area) in enumerate(stats[1:count].tolist(), 1):
        if area < 4:
            continue
        pad = max(MIN_PAD, PAD * max(wide, high))
        size = 2 * round(pad) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        region = Region(cv2.dilate((labels == index).astype(np.uint8), kernel) > 0, area / differing.size, pad)
        for other in [other for other in regions if (other.mask & region.mask).any()]:
            regions.remove(other)
            region = Region(region.mask | other.mask, region.area + other.area, min(region.pad, other.pad))
        regions.append(region)
    regions = [region for region in regions if region.area >= least]
    return sorted(regions, key=lambda region: region.find_box(differing.shape))


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
            again = [
                j
                for j, other, _ in chosen
                if compute_iou(region, other) > SAME_PLACE and numbers[k] - numbers[j] < 4 * min_gap
            ]
            if again or region.area > most:
                continue
            empty = [j for j, mask in masks.items() if mask[region.mask].mean() <= quiet]
            if empty:
                chosen.append((k, region, empty))
    if len(chosen) > max_pairs:
        chosen = [chosen[k] for k in sorted({round(q) for q in np.linspace(0, len(chosen) - 1, max_pairs)})]
    return chosen


def blend_region(picture: Array, empty: Array, region: Region) -> tuple[Array, float]:
    """Blend `region` of `empty` into `picture`, (h, w, 3) uint8, and measure their difference in the ring between.

    Inside the region's border, in a ring of `RING` of its pad, one goes over into the other; an edge of the picture
    itself is no border. The second value is the share of the ring that differs by more than 20 levels: something is
    cut through there.
    """
    mask = region.scale_mask(picture.shape)
    width = max(2, round(RING * region.pad * max(picture.shape[:2]) / max(region.mask.shape)))
    inside = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
    weight = np.minimum(mask, depth / width).astype(np.float32)
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
