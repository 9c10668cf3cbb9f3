"""Pictures of one scene in two splits of a dataset: what is learnt in one must not be asked in the other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rasura.manifests.fingerprints import find_near_duplicates

MAX_FAULTS = 20  # that are listed; the rest is counted
REMEDY = (
    "what a model learns in one split it must not be asked in another: list these rows in flows of one run, whose near "
    "duplicates are one scene; give them one scene by the source's `scene`; or, where the splits came with the data, "
    "set `keep_split: false`"
)


class SplitPicture(NamedTuple):
    """A row's clean picture.

    Attributes:
        split: that the row is in.
        row: its id.
        fingerprint: of its `target`, by `compute_fingerprint`.
    """

    split: str
    row: str
    fingerprint: bytes


def find_leaks(pictures: Sequence[SplitPicture]) -> Iterator[str]:
    """Yield a sentence for each clean picture of a split that is also, or nearly, in another split.

    Args:
        pictures: of all rows of a dataset.
    """
    if len({picture.split for picture in pictures}) < 2:
        return
    # most rows share their clean picture with others of their scene: each is compared once a split
    unique = {(picture.split, picture.fingerprint): picture for picture in reversed(pictures)}
    compared = [unique[key] for key in sorted(unique)]
    count = 0
    for i, j in find_near_duplicates([picture.fingerprint for picture in compared]):
        first, second = compared[i], compared[j]
        if first.split == second.split:
            continue
        count += 1
        if count <= MAX_FAULTS:
            yield (
                f"row {first.row} in split '{first.split}' and row {second.row} in split '{second.split}' "
                "have nearly the same target"
            )
    if count > MAX_FAULTS:
        yield f"{count - MAX_FAULTS} more pictures are nearly the same in two splits"
    if count:
        yield REMEDY
