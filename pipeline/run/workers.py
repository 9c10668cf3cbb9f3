"""Work on the workers of a Ray that is initialised, in parts: called from one of its tasks."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

TRIES = 3


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


def map_on_workers(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """Call a function with the arguments of each job, on as many workers as the cluster has cores.

    Workers hold no cores: those of flows have nothing to do meanwhile.

    Args:
        function: can be pickled, as can its arguments and what it returns.
        jobs: the arguments; few are in work at a time.

    Yields:
        What it returned, in the order of the jobs.

    Raises:
        Exception: what the function raises.
    """
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(_call).options(num_cpus=0, max_retries=TRIES, scheduling_strategy="SPREAD")
    most = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[Any] = deque()
    remaining = iter(jobs)
    while True:
        for job in itertools.islice(remaining, most - len(waiting)):
            waiting.append(task.remote(function, job))
        if not waiting:
            return
        try:
            yield ray.get(waiting.popleft())
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
