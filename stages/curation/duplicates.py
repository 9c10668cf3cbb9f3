"""Near-duplicates in a table: which rows show nearly the same, and which of them stays.

Two pictures are compared by their fingerprints (`manifests.fingerprints`) or by embeddings of a network. Of pictures
that are near each other the best one stays; each of the others is near to the one that stays in its place, not only to
another one that goes.
"""

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.manifests.fingerprints import find_near_duplicates

MIN_COSINE = 0.96  # of two embeddings: see docs/curation.md
BLOCK = 1024  # rows of embeddings that are compared with all later ones at a time

IndexPair = tuple[int, int]


class SplitLeak(NamedTuple):
    """A row that goes because another split has nearly the same picture.

    Attributes:
        row: its index.
        kept: index of the row that stays.
    """

    row: int
    kept: int


def find_near_embeddings(vectors: npt.NDArray[np.float32], least: float = MIN_COSINE) -> Iterator[IndexPair]:
    """Find the pairs of embeddings whose cosine is at least `least`. Rows that are zero or not finite have none.

    Args:
        vectors: (n, d).
        least: -1 to 1.

    Yields:
        Indices i < j, in order.

    Examples:
        >>> list(find_near_embeddings(np.array([[1, 0], [0, 1], [2, 0.1]], np.float32)))
        [(0, 2)]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    units = np.where(usable, vectors / np.where(usable, lengths, 1), 0).astype(np.float32)
    for start in range(0, len(units), BLOCK):
        products = units[start : start + BLOCK] @ units[start:].T
        rows, columns = np.nonzero(products >= least)
        yield from ((start + i, start + j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if i < j)


def index_neighbours(pairs: Iterable[IndexPair]) -> Mapping[int, set[int]]:
    """Index near pairs by both of their members.

    Examples:
        >>> dict(index_neighbours([(0, 2)]))
        {0: {2}, 2: {0}}
    """
    neighbours: dict[int, set[int]] = defaultdict(set)
    for first, second in pairs:
        neighbours[first].add(second)
        neighbours[second].add(first)
    return neighbours


def choose_kept(pairs: Iterable[IndexPair], quality: Sequence[float | None], names: Sequence[str]) -> dict[int, int]:
    """Choose which of near-duplicates stay: the best first, then all that are near to none that stays.

    Args:
        pairs: indices of near-duplicates.
        quality: of each row, more is better; None is the worst.
        names: of each row: of equal quality the first by name is the best.

    Returns:
        Index of each row that goes, with that of the best kept one that it is near to.

    Examples:
        >>> choose_kept([(0, 1), (1, 2)], [0.5, 0.9, 0.1], ["a", "b", "c"])
        {0: 1, 2: 1}
    """
    neighbours = index_neighbours(pairs)
    worst = float("-inf")

    def rank(row: int) -> tuple[float, str]:
        value = quality[row]
        return (-(worst if value is None or value != value else value), names[row])

    kept: set[int] = set()
    gone: dict[int, int] = {}
    for row in sorted(neighbours, key=rank):
        if near := neighbours[row] & kept:
            gone[row] = min(near, key=rank)
        else:
            kept.add(row)
    return dict(sorted(gone.items()))


def find_split_leaks(pairs: Iterable[IndexPair], splits: Sequence[Hashable], names: Sequence[str]) -> list[SplitLeak]:
    """Find the rows that have to go, so that no picture is nearly the same in two splits.

    The smaller split, which is rather the one for tests, keeps its rows; of equal ones the first by name.

    Args:
        pairs: indices of near-duplicates.
        splits: of each row.
        names: of each row.

    Examples:
        >>> find_split_leaks([(0, 2)], ["train", "train", "test"], ["a", "b", "c"])
        [SplitLeak(row=0, kept=2)]
    """
    sizes: dict[Hashable, int] = defaultdict(int)
    for split in splits:
        sizes[split] += 1
    leaks: dict[int, int] = {}
    for first, second in pairs:
        if splits[first] == splits[second]:
            continue
        kept, row = sorted((first, second), key=lambda index: (sizes[splits[index]], str(splits[index])))
        if row not in leaks or names[kept] < names[leaks[row]]:
            leaks[row] = kept
    return [SplitLeak(row, kept) for row, kept in sorted(leaks.items())]


def find_near_fingerprints(fingerprints: Sequence[str | None]) -> list[IndexPair]:
    """Find the near pairs among fingerprints in hex digits; None is near to nothing.

    Equal ones are compared once, so that a clean picture with many triplets costs no time.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(fingerprints):
        if text:
            members[text].append(index)
    unique = sorted(members)
    pairs = [(i, j) for same in members.values() for i, j in itertools.pairwise(same)]
    pairs += [(same[0], other) for same in members.values() for other in same[2:]]
    for first, second in find_near_duplicates([bytes.fromhex(text) for text in unique]):
        pairs += [(i, j) for i in members[unique[first]] for j in members[unique[second]]]
    return sorted({(min(pair), max(pair)) for pair in pairs})
