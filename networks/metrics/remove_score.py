"""ReMOVE (arXiv 2409.00707): does what fills a hole look, to SAM's image encoder, like what is around it?

The cosine between the mean feature inside the hole and the mean feature outside, in a square crop around the hole. It
needs no truth. It rewards whatever is coherent: a smooth or an invented fill may score well, so it stands beside other
measures and never alone.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import bounds, square_around

Array = npt.NDArray[np.generic]
Features = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""A picture (h, w, 3) uint8 to its features (c, gh, gw): the grid covers the picture and nothing else."""

MARGIN = 16
"""Px of surroundings beside the hole's square, the authors'."""


def window(hole: npt.NDArray[np.bool_], margin: int = MARGIN) -> tuple[int, int, int, int]:
    """The square around a hole (h, w) bool with that margin, x0, y0, x1, y1; moved inward, and cut where the picture is
    smaller."""
    x0, y0, x1, y1 = box = bounds(hole)
    return square_around(box, max(x1 - x0, y1 - y0) + 2 * margin, hole.shape)


def inside(hole: npt.NDArray[np.bool_], grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Cells of a grid (gh, gw) that lie wholly in a hole (h, w); the most covered one where none does."""
    covered = cv2.resize(hole.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(covered >= min(float(covered.max()), 1 - 1e-6), np.bool_)


def cosine(features: npt.NDArray[np.float32], cells: npt.NDArray[np.bool_]) -> float:
    """Cosine of the mean feature in `cells` (gh, gw) and the mean of the others, of features (c, gh, gw).

    Raises:
        ValueError: one of the two has no cell, or shapes do not fit.
    """
    if features.shape[1:] != cells.shape or not cells.any() or cells.all():
        raise ValueError(
            f"{int(cells.sum())} of {cells.size} cells {cells.shape} are hole, of features {features.shape}: "
            "ReMOVE compares the hole with its surroundings and needs both"
        )
    own, other = (features[:, part].mean(axis=1, dtype=np.float64) for part in (cells, ~cells))
    return float(own @ other / max(float(np.linalg.norm(own) * np.linalg.norm(other)), 1e-12))


def score(picture: npt.NDArray[np.uint8], hole: npt.NDArray[np.bool_], features: Features) -> float:
    """ReMOVE of one picture (h, w, 3) uint8 whose hole (h, w) bool was filled, in [-1, 1].

    Raises:
        ValueError: no hole, or nothing beside it.
    """
    if not hole.any():
        raise ValueError("the hole is empty: ReMOVE has nothing to compare")
    x0, y0, x1, y1 = window(hole)
    found = features(np.ascontiguousarray(picture[y0:y1, x0:x1]))
    return cosine(found, inside(hole[y0:y1, x0:x1], (found.shape[1], found.shape[2])))
