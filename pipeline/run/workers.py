"""Work on the workers of a Ray that is initialised, in parts: called from one of its tasks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rasura.manifests.errors import RunError
from rasura.manifests.safety.text import make_text

TRIES = 3
MANY_ITEMS = 20_000
"""Inputs of a flow from which on a worker lists it and compacts its commit records: the driver's memory stays as it
is."""
MANY_ROWS = 4_000
"""Rows from which on workers write a dataset: about 4 GB, which take one process longer than Ray takes to start."""


class WorkersLost(RunError):
    """Part of some work has ended every worker that tried it."""


def count_workers(resources: Mapping[str, float], memory: float = 0) -> int:
    """Return how many workers may work at once: one a core, and no more than the memory holds.

    Args:
        resources: of the cluster, or of a node, by Ray's names.
        memory: bytes that each needs.

    Examples:
        >>> count_workers({"CPU": 16.0, "memory": 20e9}), count_workers({"CPU": 16.0, "memory": 20e9}, 3e9)
        (16, 6)
        >>> count_workers({"memory": 1e9}, 3e9)
        1
    """
    cores = max(1, int(resources.get("CPU", 1)))
    return cores if not memory else max(1, min(cores, int(resources.get("memory", cores * memory) // memory)))


_function: dict[bytes, Callable[..., Any]] = {}
"""The function that this worker called last, with what it has kept of what it read."""


def _call(reference: list[Any], arguments: tuple[Any, ...]) -> Any:
    """Call a function that is in Ray's shared memory. In a list, its reference comes as it is."""
    import ray

    key = reference[0].binary()
    if key not in _function:
        _function.clear()
        _function[key] = ray.get(reference[0])
    return _function[key](*arguments)


def map_on_workers(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], memory: float = 0, is_here: bool = False
) -> Iterator[Any]:
    """Call a function with the arguments of each job, on as many workers as the cluster has cores.

    Workers hold no cores: those of flows have nothing to do meanwhile.

    Args:
        function: can be pickled, as can its arguments and what it returns. It is sent once to each worker.
        jobs: the arguments; a worker has one job at a time.
        memory: bytes that a worker needs: no more work at once than there is memory for.
        is_here: the workers are on this node, as the files are.

    Yields:
        What it returned, in the order of the jobs.

    Raises:
        WorkersLost: a job has ended every worker that tried it.
        Exception: what the function raises.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    nodes = [node["Resources"] for node in ray.nodes() if node["NodeID"] == here]
    most = count_workers(nodes[0] if is_here and nodes else ray.cluster_resources(), memory)
    strategy = NodeAffinitySchedulingStrategy(node_id=here, soft=False) if is_here else "SPREAD"
    task = ray.remote(_call).options(num_cpus=0, max_retries=TRIES - 1, scheduling_strategy=strategy)
    reference = [ray.put(function)]
    waiting: deque[Any] = deque()
    running: list[Any] = []
    for job in jobs:
        if len(running) == most:
            _, running = ray.wait(running, num_returns=1)
            while waiting and waiting[0] not in running:
                yield _get_result(waiting.popleft())
        waiting.append(task.remote(reference, job))
        running.append(waiting[-1])
    while waiting:
        yield _get_result(waiting.popleft())


def _get_result(task: Any) -> Any:
    """Return what a task returned, or raise what it raised.

    Raises:
        WorkersLost: it has ended every worker that tried it.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(task)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except RayError as error:
        reason = make_text(error)[:200]
        raise WorkersLost(
            f"a part of the work has ended {TRIES} workers, one after the other (short of memory?): {reason}. What was "
            "written is whole; the same command goes on from there"
        ) from None
