"""Parts of the change that are as strong as an object and lie outside of M_fg: what reappears behind an occluder."""

import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.imaging.comparison import compute_difference, compute_range_distance
from rasura.stages.imaging.components import label_components, select_components
from rasura.stages.imaging.filters import Floats
from rasura.stages.imaging.morphology import compute_distance_to

STRONG_LEVEL = 25.0  # grey levels that the strongest tenth of a blob changes by: a person sees it in the target
MIN_NOVELTY = 3.0  # grey levels outside of clean's range nearby: an edge that the camera saw aside has none
NOVELTY_REACH = 2  # px
MIN_BLOB_AREA, MIN_BLOB_SHARE = 30, 1e-4  # px, of the picture: smaller blobs are specks
BORDER_SHARE = 0.001  # of the picture: a smaller blob at its border came in with the camera's motion
HOP = 0.03  # of the diagonal, from M_fg to the next blob
LEFT_REACH = 0.06  # of the diagonal: blobs farther from M_fg are something else


def measure_blobs(source: RGB, clean: RGB, remaining: Mask, values: Floats) -> tuple[Mask, Floats]:
    """Measure the blobs of a change that are new to the scene.

    New is a blob whose most novel fifth is `MIN_NOVELTY` outside of the range of values that `clean` has around, large
    enough, and no scrap at the picture's border.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        remaining: (h, w) bool, the change outside of M_fg.
        values: (h, w) grey levels of change.

    Returns:
        (h, w) bool, the new blobs; (h, w) float32, on each the 90th percentile of its change, 0 elsewhere.
    """
    count, labels, areas = label_components(remaining)
    levels = np.zeros(count + 1, np.float32)
    smallest = max(MIN_BLOB_AREA, MIN_BLOB_SHARE * remaining.size)
    candidates = np.flatnonzero(areas >= smallest) + 1
    if len(candidates):
        novelty = compute_range_distance(source, clean, NOVELTY_REACH)
        border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        for number in candidates:
            scrap = number in border and areas[number - 1] < BORDER_SHARE * remaining.size
            blob = labels == number
            if not scrap and float(np.percentile(novelty[blob], 80)) >= MIN_NOVELTY:
                levels[number] = np.percentile(values[blob], 90)
    return select_components(labels, levels[1:] > 0), levels[labels]


def add_strong_blobs(source: RGB, clean: RGB, changed: Mask, foreground: Mask, hop: float = HOP) -> Mask:
    """Add to M_fg the strong blobs of the change near it, and those near these, until none is left.

    A person behind a table is several blobs; those that no object core starts would stay in the target.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        changed, foreground: (h, w) bool, all that changed, and M_fg.
        hop: share of the diagonal from one blob to the next.
    """
    blobs, levels = measure_blobs(source, clean, changed & ~foreground, compute_difference(source, clean))
    _, labels, areas = label_components(blobs & (levels > STRONG_LEVEL))
    reach = max(2.0, hop * float(np.hypot(*foreground.shape)))
    flags = np.zeros(len(areas), bool)
    while not flags.all() and foreground.any():
        near = np.bincount(labels[compute_distance_to(foreground) <= reach], minlength=len(areas) + 1)[1:] > 0
        if not (near & ~flags).any():
            break
        flags |= near
        foreground = foreground | select_components(labels, flags)
    return foreground


def measure_leftovers(source: RGB, clean: RGB, changed: Mask, foreground: Mask) -> float:
    """Measure the strongest new blob that is left outside of M_fg and near it.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        changed, foreground: (h, w) bool, all that changed, and M_fg.

    Returns:
        Grey levels, 90th percentile of the blob's change; 0 where there is none.
    """
    near = compute_distance_to(foreground) <= LEFT_REACH * float(np.hypot(*foreground.shape))
    _, levels = measure_blobs(source, clean, changed & ~foreground, compute_difference(source, clean))
    return float(levels[near].max()) if foreground.any() and near.any() else 0.0
