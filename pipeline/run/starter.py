"""The start of Ray and of the engine, when they are needed for the first time, and not at all when they are not."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any

from rasura.manifests.storage import Store
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.recipe.specs import FlowPlan
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.workers import MANY_ROWS, map_on_workers

if TYPE_CHECKING:
    from rasura.networks.trainer import OnProgress
    from rasura.pipeline.engine.scheduler import Engine


class EngineStarter:
    """Starts Ray and the engine when they are needed for the first time, and not at all when they are not.

    Several runs, one after another, may share the engine and its workers.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None

    def __enter__(self) -> "EngineStarter":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
        self._stack.close()

    def start_ray(self) -> None:
        """Start Ray, or join the cluster that there is."""
        from rasura.pipeline.engine.cluster import cluster, is_started

        if not is_started():
            self._stack.enter_context(cluster(self.settings))

    def get(self, store: Store, log: EventLog, flows: Sequence[FlowPlan] = ()) -> "Engine":
        """Return the engine, for flows of a run.

        Args:
            flows: that are still to be made; where the engine starts, it checks that all of them can be placed.

        Raises:
            CannotPlace: a stage of one asks for more than there is.
        """
        if self._engine is None:
            from rasura.pipeline.engine.cluster import check_machine, read_resources

            check_machine(flows, self.settings)
            start = time.perf_counter()
            self.start_ray()
            from rasura.pipeline.engine.scheduler import Engine

            self._engine = Engine(store, self.settings)
            for flow in flows:
                self._engine.place(flow)
            log.add("start", seconds=round(time.perf_counter() - start, 3), resources=read_resources())
        self._engine.set_run(store)
        return self._engine

    def run_task(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        on_progress: "OnProgress | None" = None,
    ) -> Any:
        """Call a function on a worker of this node, beside those of flows, and return what it returns.

        Args:
            function: with its arguments; can be pickled.
            arguments: of it.
            on_progress: the function takes an argument of this name, and what it is called with comes here.

        Raises:
            Exception: what the function raises.
        """
        from rasura.pipeline.training.tasks import NOWHERE, run_task

        self.start_ray()
        import ray

        here = replace(NOWHERE, node=ray.get_runtime_context().get_node_id())  # local files are on this node
        return run_task(partial(function, *arguments), here, on_progress)

    def run_jobs(
        self,
        function: Callable[..., Any],
        rows: int,
        on_progress: "OnProgress",
        memory: float = 0,
        is_here: bool = False,
    ) -> Any:
        """Call a function that divides its work into jobs, and return what it returns.

        Args:
            function: takes `map_jobs` (`manifests.parallel.jobs`) and `on_progress`. Where there are many rows, it is
                called on a worker, and others do its jobs; else it is called here, and Ray is not needed.
            rows: that it works on.
            on_progress: what is called with the progress.
            memory, is_here: as of `map_on_workers`.

        Raises:
            WorkersLost: a job has ended every worker that tried it.
            Exception: what the function raises.
        """
        self.release()  # the workers of flows, whose cores and memory this needs
        if rows <= MANY_ROWS:
            return function(starmap, on_progress=on_progress)
        map_jobs = partial(map_on_workers, memory=memory, is_here=is_here)
        return self.run_task(function, map_jobs, on_progress=on_progress)

    @property
    def has_workers(self) -> bool:
        """Whether the engine has workers at the moment."""
        return self._engine is not None

    def release(self) -> None:
        """End the engine's workers, so that others may use what they hold; Ray stays."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
