"""Small things in M_fg that moved by themselves between the shots: leaves, tape in the wind. They belong in no triplet.

A shadow or a reflection shows nothing new, and an object shows nothing that has gone. So a thing that only `clean`
shows has moved away, and one of its colour and size that only `source` shows nearby is where it moved to.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.comparison import compute_range_distance
from rasura.stages.imaging.components import label_components, select_components
from rasura.stages.imaging.filters import Floats

MAX_THING_SHARE = 0.01  # of the picture: a larger part is no leaf
REACH = 4  # px around a pixel within which the other picture may show the same
NOVEL, FAMILIAR = 14.0, 7.0  # grey levels outside the other picture's range: of something new, of the scene itself
MIN_SHOWN_SHARE = 0.2  # of a thing's area, of which one of the pictures has to show something new
MAX_COLOUR_DISTANCE = 45.0  # grey levels, largest channel, between two views of one thing
MAX_SIZE_RATIO = 4.0  # of the areas of two views of one thing
MAX_MOVE_SHARE = 0.3  # of the diagonal, how far a thing moves


class View(NamedTuple):
    """A part of the change in which one picture shows something that the other has nowhere near.

    Attributes:
        label: of the component.
        area: px in which it is shown.
        colour: (3,) mean there, grey levels.
        centre: (2,) row and column.
    """

    label: int
    area: int
    colour: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]


def _describe_view(label: int, blob: npt.NDArray[np.int64], picture: RGB, novelty: Floats) -> View | None:
    """Describe what a picture alone shows in a blob, (n, 2) rows and columns; None where that is next to nothing."""
    rows, columns = blob[novelty[blob[:, 0], blob[:, 1]] > NOVEL].T
    if len(rows) < max(3, MIN_SHOWN_SHARE * len(blob)):
        return None
    return View(label, len(rows), picture[rows, columns].mean(0), np.array([rows.mean(), columns.mean()]))


def _is_one_thing(first: View, second: View, diagonal: float) -> bool:
    """Return whether two views may be of one thing, by colour, size and place."""
    return bool(
        np.abs(first.colour - second.colour).max() <= MAX_COLOUR_DISTANCE
        and max(first.area, second.area) <= MAX_SIZE_RATIO * min(first.area, second.area)
        and np.hypot(*(first.centre - second.centre)) <= MAX_MOVE_SHARE * diagonal
    )


def find_moved_things(source: RGB, clean: RGB, changed: Mask, foreground: Mask) -> Mask:
    """Find the parts of M_fg that are small things which moved by themselves.

    A component is one where only `clean` shows something; where only `source` does, and `clean` shows something of the
    same colour and size near it that `source` has not; and where both show the same thing, a little apart. The largest
    component is none.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        changed, foreground: (h, w) bool, all that changed, and M_fg.

    Returns:
        (h, w) bool.
    """
    _, labels, areas = label_components(foreground)
    flags = np.zeros(len(areas), bool)
    if len(areas) < 2:
        return np.zeros_like(foreground)
    diagonal = float(np.hypot(*foreground.shape))
    novelty = [compute_range_distance(source, clean, REACH), compute_range_distance(clean, source, REACH)]
    # Where both are new, something covers the scene, a reflection in water; a thing that moved is apart from its place.
    novelty[1] = np.where(novelty[0] > NOVEL, np.float32(0), novelty[1])
    small = areas <= MAX_THING_SHARE * foreground.size
    small[areas.argmax()] = False
    _, elsewhere, other_areas = label_components((changed & ~foreground) | select_components(labels, small))
    vanished = []
    for number in np.flatnonzero(other_areas <= MAX_THING_SHARE * foreground.size) + 1:
        view = _describe_view(int(number), np.argwhere(elsewhere == number), clean, novelty[1])
        if view is not None:
            vanished.append(view)
    for number in np.flatnonzero(small) + 1:
        blob = np.argwhere(labels == number)
        new, gone = (
            _describe_view(int(number), blob, picture, values)
            for picture, values in zip((source, clean), novelty, strict=True)
        )
        if new is None:
            flags[number - 1] = gone is not None
        else:
            flags[number - 1] = any(
                _is_one_thing(new, view, diagonal) for view in [*vanished, *([gone] if gone else [])]
            )
    return select_components(labels, flags)
