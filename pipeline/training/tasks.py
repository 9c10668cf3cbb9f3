"""A function on a worker of the cluster, with the resources that it declares; its progress comes back while it runs."""

import contextlib
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

from rasura.manifests.safety.text import describe_error, make_text
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.trainer import OnProgress
from rasura.pipeline.engine.tasks import TaskPlacement
from rasura.pipeline.engine.worker import keep_to_given_cards

T = TypeVar("T")

TRIES = 3
"""Workers that a task may lose before it fails. A training goes on from its last checkpoint."""
NOWHERE = TaskPlacement(gpus=0, cpus=0, memory=0, node=None, line="")
"""The placement of a task that is short, or that only waits for others."""


def run_task(
    work: Callable[..., T],
    placement: TaskPlacement = NOWHERE,
    on_progress: OnProgress | None = None,
    make_room: Callable[[], object] | None = None,
    threads: int = 1,
) -> T:
    """Run a function on a worker of the Ray that is initialised, and return what it returns.

    Args:
        work: can be pickled, as can what it returns and raises.
        placement: what the worker holds meanwhile, and where.
        on_progress: `work` is called with an argument of this name, from which it comes here.
        make_room: called where the resources are not free at the moment.
        threads: of libraries in the worker, so that results do not depend on the machine's number of cores.

    Raises:
        TrainingFailed: the worker died again and again.
        Exception: what the function itself raises.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    demand = {"CPU": placement.cpus, "GPU": placement.gpus, "memory": placement.memory}
    available = ray.available_resources()
    if make_room and any(available.get(name, 0) < amount for name, amount in demand.items() if amount):
        make_room()
    # torch keeps a card's memory while its process lives, and that process waits for its next task
    function = ray.remote(max_calls=1)(_carry_out) if placement.gpus else ray.remote(_carry_out)
    task = function.options(**placement.make_options(), max_retries=0, num_returns="streaming")
    for attempt in range(TRIES):
        try:
            for reference in task.remote(work, threads, on_progress is not None):
                kind, value = ray.get(reference)
                if kind == "progress" and on_progress:
                    on_progress(*value)
                elif kind == "error":
                    raise value
                elif kind == "result":
                    return cast(T, value)
        except RayTaskError as error:
            raise RuntimeError(str(error)) from error
        except RayError as error:
            if attempt + 1 == TRIES:
                raise TrainingFailed(
                    f"the worker of a task died {TRIES} times ({make_text(error)[:200]}); the same command goes on "
                    "from what it has written"
                ) from None
    raise AssertionError("a task ends with a result or an error")


def _carry_out(work: Callable[..., Any], threads: int, reports: bool) -> Iterator[tuple[str, Any]]:
    """Yield the progress of a function, and in the end its result or error; this runs on the worker."""
    keep_to_given_cards()
    _limit_threads(threads)
    messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def report(done: int, total: int, note: str) -> None:
        messages.put(("progress", (done, total, note)))

    def call() -> None:
        try:
            messages.put(("result", (partial(work, on_progress=report) if reports else work)()))
        except BaseException as error:
            messages.put(("error", _make_picklable(error)))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while True:
        kind, value = messages.get()
        yield kind, value
        if kind != "progress":
            return


def _limit_threads(count: int) -> None:
    import cv2

    cv2.setNumThreads(count)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(count)


def _make_picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(describe_error(error))
