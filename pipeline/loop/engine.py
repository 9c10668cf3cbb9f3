"""The engine of a loop: it carries out the flows of the loop's runs, and runs its trainings as tasks of the cluster."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self, TypeVar

from rasura.manifests.run_layout import LISTINGS, LOG, PLAN, TABLES, RunPlan, read_plan, write_plan
from rasura.manifests.storage import Store
from rasura.networks.memory import NetworkMemory
from rasura.networks.trainer import OnProgress
from rasura.pipeline.engine.tasks import TaskPlacement
from rasura.pipeline.loop.rounds import Flows
from rasura.pipeline.recipe.plan import Plan, plan
from rasura.pipeline.recipe.positions import Positions
from rasura.pipeline.recipe.resolve import read_flow_plans
from rasura.pipeline.recipe.schema import EngineSettings, Recipe
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.flow_tables import make_tables
from rasura.pipeline.run.mending import repeat_after_mending
from rasura.pipeline.run.outcome import FlowOutcome, check_flows
from rasura.pipeline.run.progress import Progress
from rasura.pipeline.run.run import describe_flows
from rasura.pipeline.run.starter import EngineStarter
from rasura.pipeline.training.placement import place_training
from rasura.pipeline.training.tasks import NOWHERE, run_task

T = TypeVar("T")


class LoopEngine:
    """Carries out flows and tasks on one Ray, which starts when it is first needed.

    Nothing here opens a network: the driver of a loop needs no torch.

    Args:
        say: receives the workers of flows and trainings in words, and what else a run says of its tables, each line
            once.
        retry_failed: errors whose rows are made again, as of `run`.
    """

    def __init__(
        self,
        settings: EngineSettings,
        on_progress: OnProgress | None = None,
        say: Callable[[str], None] | None = None,
        retry_failed: Collection[str] | None = None,
    ) -> None:
        self.settings, self.on_progress, self.retry_failed = settings, on_progress, retry_failed
        self._starter, self._say, self._said = EngineStarter(settings), say, set[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._starter.__exit__()

    def run_task(self, work: Callable[..., T], placement: TaskPlacement = NOWHERE, reports: bool = False) -> T:
        """Run a function on a worker of the cluster.

        A task without a GPU runs on a core that the workers of flows hold, where there are any: they have nothing to do
        meanwhile, and are there again for the next flow. For a GPU they end.

        Args:
            reports: the function takes `on_progress`.

        Raises:
            TrainingFailed: the worker died again and again.
            Exception: what the function itself raises.
        """
        self._starter.start_ray()
        on_progress, threads = self.on_progress if reports else None, max(1, int(placement.cpus))
        if self._starter.has_workers and not placement.gpus:
            placement = NOWHERE
        return run_task(work, placement, on_progress, self._starter.release, threads)

    def say_once(self, line: str) -> None:
        """Say a line that was not said before: the same pool works in every round."""
        if line and line not in self._said and self._say:
            self._say(line)
        self._said.add(line)

    def release(self) -> None:
        """End the workers of flows, so that a training on several workers has their resources."""
        self._starter.release()

    def place_training(self, memory: NetworkMemory) -> TaskPlacement:
        """Place a training of one worker.

        Raises:
            CannotPlace: the cluster has no room for it.
        """
        self._starter.start_ray()
        placement = place_training(memory, gpu_memory_gb=self.settings.gpu_memory_gb)
        self.say_once(placement.line)
        return placement

    def make_flows(self, run: Store, name: str, seed: int, flows: Flows) -> dict[str, FlowOutcome]:
        """Carry out flows of a run; others of its tables, which they may read, stay as they are.

        Args:
            name: of the run.
            seed: of everything that is random.

        Returns:
            What became of the inputs of each flow.

        Raises:
            AllInputsFailed: a flow has nothing but failed inputs.
            RunFailed, StoreError, MissingInput: it cannot go on; what was committed is whole.
        """
        run.clear_temporary([TABLES, LISTINGS, LOG])
        engine = self.settings.model_dump()
        values = {
            "name": name,
            "seed": seed,
            "flows": {key: dict(flow) for key, flow in flows.items()},
            "engine": engine,
        }
        resolved = self.run_task(_PlanFlows(values, run))
        before = read_plan(run).flows if run.exists(PLAN) else {}
        write_plan(run, RunPlan(name, "", {**before, **describe_flows(resolved)}))
        progress = _Progress(self.on_progress, self.say_once)

        def make() -> dict[str, FlowOutcome]:
            return make_tables(resolved, run, progress, self._starter, EventLog(run), self.retry_failed)

        outcomes = repeat_after_mending(run, progress, make)
        check_flows(run.uri, outcomes)
        return outcomes


class _PlanFlows:
    """The planning of flows as a task: workers have the networks' files, whose hashes it needs."""

    def __init__(self, recipe: Mapping[str, Any], run: Store) -> None:
        self.recipe, self.run = recipe, run

    def __call__(self) -> Plan:
        recipe = Recipe.model_validate(self.recipe)
        tables = read_flow_plans(self.run) if self.run.exists(PLAN) else {}
        present = {name: flow for name, flow in tables.items() if name not in recipe.flows}
        return plan(recipe, Positions(recipe.name), None, present)


class _Progress(Progress):
    """The progress of flows, passed on as a step's."""

    def __init__(self, on_progress: OnProgress | None, say: Callable[[str], None]) -> None:
        super().__init__(quiet=True)
        self.on_progress, self.say, self.done, self.total, self.flow = on_progress, say, 0, 0, ""

    def print(self, text: str) -> None:
        """Say a line."""
        self.say(text)

    def start(self, name: str, total: float, unit: str = "rows") -> None:
        """Begin a flow."""
        self.flow, self.done, self.total = name, 0, int(total)

    def advance(self, amount: float, note: str = "") -> None:
        """Report rows that are done."""
        self.done += int(amount)
        if self.on_progress:
            self.on_progress(self.done, self.total, f"{self.flow}: {note}" if note else self.flow)

    def show_activity(self, text: str) -> None:
        """Show nothing."""
