"""Work that is divided into jobs, which others may do: threads, or the workers of a cluster."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MapJobs = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]
"""Calls a function with the arguments of each job, and returns what it returned in their order, as `starmap` does."""


def cut_into_parts(items: Sequence[T], size: int) -> Iterator[tuple[Sequence[T]]]:
    """Cut a sequence into parts of a size, each as the arguments of a job.

    Examples:
        >>> list(cut_into_parts("abcde", 2))
        [('ab',), ('cd',), ('e',)]
    """
    for start in range(0, len(items), size):
        yield (items[start : start + size],)
