"""ReMOVE (arXiv 2409.00707): the similarity of a fill and its surroundings by SAM's image encoder.

The cosine between the mean feature inside the hole and the mean feature outside, in a square crop around the hole. It
needs no truth. It rewards all that is coherent: a smooth or an invented fill may score well, so it is used beside other
measures and never alone.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import compute_bounds, place_square

Array = npt.NDArray[np.generic]
Features = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A function from a picture (h, w, 3) uint8 to its features (c, gh, gw) on a grid that covers exactly the picture."""

MARGIN = 16
"""Px of surroundings beside the hole's square, as the authors chose."""


def compute_window(hole: npt.NDArray[np.bool_], margin: int = MARGIN) -> tuple[int, int, int, int]:
    """Return the square around a hole (h, w) bool with that margin, x0, y0, x1, y1.

    It is moved inward at the picture's edge, and cut where the picture is smaller.
    """
    x0, y0, x1, y1 = box = compute_bounds(hole)
    return place_square(box, max(x1 - x0, y1 - y0) + 2 * margin, hole.shape)


def find_inside_cells(hole: npt.NDArray[np.bool_], grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the cells of a grid (gh, gw) that are wholly in a hole (h, w); the most covered ones where none is.

    Examples:
        >>> hole = np.zeros((4, 4), bool)
        >>> hole[:2, :3] = True
        >>> find_inside_cells(hole, (2, 2)).tolist()
        [[True, False], [False, False]]
    """
    covered = cv2.resize(hole.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(covered >= min(float(covered.max()), 1 - 1e-6), np.bool_)


def compute_cosine(features: npt.NDArray[np.float32], cells: npt.NDArray[np.bool_]) -> float:
    """Return the cosine of the mean feature in some cells and the mean of the others.

    Args:
        features: (c, gh, gw).
        cells: (gh, gw) bool.

    Raises:
        ValueError: one of the two has no cell, or shapes do not fit.
    """
    if features.shape[1:] != cells.shape or not cells.any() or cells.all():
        raise ValueError(
            f"{int(cells.sum())} of {cells.size} cells {cells.shape} are hole, of features {features.shape}: "
            "ReMOVE compares the hole with its surroundings and needs both"
        )
    inside, outside = (features[:, part].mean(axis=1, dtype=np.float64) for part in (cells, ~cells))
    return float(inside @ outside / max(float(np.linalg.norm(inside) * np.linalg.norm(outside)), 1e-12))


def compute_score(picture: npt.NDArray[np.uint8], hole: npt.NDArray[np.bool_], features: Features) -> float:
    """Return ReMOVE of one picture (h, w, 3) uint8 whose hole (h, w) bool was filled, in [-1, 1].

    Raises:
        ValueError: no hole, or nothing beside it.
    """
    if not hole.any():
        raise ValueError("the hole is empty: ReMOVE has nothing to compare")
    x0, y0, x1, y1 = compute_window(hole)
    crop_features = features(np.ascontiguousarray(picture[y0:y1, x0:x1]))
    cells = find_inside_cells(hole[y0:y1, x0:x1], (crop_features.shape[1], crop_features.shape[2]))
    return compute_cosine(crop_features, cells)
