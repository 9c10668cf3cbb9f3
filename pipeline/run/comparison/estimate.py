"""What a dataset of some size would take: a recipe is run on a sample, and the shares and seconds are scaled.

A flow is scaled by what the sample of its inputs became; the flows that a draw chooses from stay as they are, since a
foreground is drawn many times. What is given is work, in hours of one worker; workers divide it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rasura.discriminator.binomial import compute_interval
from rasura.manifests.compacted.listing import read_listing_index
from rasura.manifests.compacted.manifest import read_manifest
from rasura.manifests.errors import RunError
from rasura.manifests.run_layout import PLAN, FolderInUse, read_plan, table_path
from rasura.manifests.spelling import format_bytes, format_count, format_seconds
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.plan import Plan, load_plan
from rasura.pipeline.run.accounting import FlowAccounting, compute_accounting
from rasura.pipeline.run.events import read_events
from rasura.pipeline.run.run import run
from rasura.stages.sources.listing import describe_counts

HOUR_S = 3600.0


class NothingToScale(RunError):
    """A sample of which nothing became a row of the dataset."""


class FlowSample(NamedTuple):
    """What a sample of a flow's inputs became.

    Attributes:
        accounting: of its stages.
        listed: the number of all its inputs.
        upstream: the flows that it reads.
        takes_all: its inputs are the rows of one flow, all of them.
        bytes: of its table's files.
        row_bytes: of its rows' pictures, wherever they are stored.
        workers: of each stage, their number and the GPUs of each.
    """

    accounting: FlowAccounting
    listed: int
    upstream: Sequence[str]
    takes_all: bool
    bytes: int
    row_bytes: int
    workers: Mapping[str, tuple[int, float]]

    @property
    def inputs(self) -> int:
        """Inputs in the sample."""
        return self.accounting.stages[0].inputs if self.accounting.stages else 0


@dataclass(frozen=True)
class StageEstimate:
    """A stage of the whole work.

    Attributes:
        flow, stage: their names.
        sample: its inputs in the sample.
        survival: share of them that it kept, with the 95 % interval.
        seconds: of an input, on one worker; None where it was not measured.
        inputs: of the whole work.
        hours: of one worker; None where no time was measured.
        gpus: that a worker holds, as in the sample.
    """

    flow: str
    stage: str
    sample: int
    survival: float
    interval: tuple[float, float]
    seconds: float | None
    inputs: float
    hours: float
    gpus: float


@dataclass(frozen=True)
class Estimate:
    """The whole work for a dataset.

    Attributes:
        count: rows of the dataset.
        factor: of all inputs that are there, which the work takes; above 1 there are not enough.
        inputs: of each flow that is no other's rows: how many are needed, and how many there are.
        drawn: of these, the flows whose source draws as many as its `count` says.
        stages: of all flows.
        elapsed: hours with the workers of the sample's machine.
        dataset_bytes, run_bytes: of the dataset, and of the run with it.
        interval: of the dataset's share of the flows' inputs, over the share: the 95 % interval of all figures; up
            to infinity where the sample is too small to bound them from above.
    """

    count: int
    factor: float
    inputs: Mapping[str, tuple[float, int]]
    drawn: Sequence[str]
    stages: Sequence[StageEstimate]
    elapsed: float
    dataset_bytes: float
    run_bytes: float
    interval: tuple[float, float]

    @property
    def hours(self) -> float:
        """Hours of one worker."""
        return sum(stage.hours for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU."""
        return sum(stage.hours * stage.gpus for stage in self.stages)

    def describe(self) -> list[str]:
        """Return its lines."""
        width = max(len(f"{stage.flow} {stage.stage}") for stage in self.stages) + 2
        lines = [f"{'':<{width}}{'sample':>8}{'kept':>8}{'95 %':>16}{'s an input':>12}{'inputs':>12}{'worker':>13}"]
        for stage in self.stages:
            seconds = "-" if stage.seconds is None else f"{stage.seconds:.3g}"
            bounds = " to ".join(f"{bound:.0%}" for bound in stage.interval)
            lines.append(
                f"{f'{stage.flow} {stage.stage}':<{width}}{stage.sample:>8}{stage.survival:>8.0%}{bounds:>16}"
                f"{seconds:>12}{stage.inputs:>12,.0f}{format_seconds(3600 * stage.hours):>13}"
            )
        for flow, (needed, present) in self.inputs.items():
            rest = f"there are {present:,}" if needed <= present else f"there are only {present:,}"
            if flow in self.drawn:
                rest = f"its source draws {present:,}, which `count` changes"
            lines.append(f"{flow}: needs {format_count(math.ceil(needed), 'input')}; {rest}")
        low, high = self.interval
        hours = (self.hours, self.hours * low, self.gpu_hours, self.elapsed)
        worker, least, gpu, here = (format_seconds(3600 * value) for value in hours)
        bounds = f"{least} to {format_seconds(3600 * self.hours * high)}" if high < math.inf else f"at least {least}"
        lines += [
            f"{self.count:,} rows: {worker} of a worker ({bounds}), {gpu} of a GPU; {here} here",
            f"{format_bytes(self.dataset_bytes)} of dataset, {format_bytes(self.run_bytes)} with the run's own tables",
        ]
        return lines

    def to_json_values(self) -> dict[str, Any]:
        """Return its values as JSON has them."""
        sums = {"hours": self.hours, "gpu_hours": self.gpu_hours}
        interval = [bound if bound < math.inf else None for bound in self.interval]
        return {**vars(self), "stages": [vars(stage) for stage in self.stages], "interval": interval, **sums}


def estimate(
    recipe: Any, count: int, sample: int, folder: str, overrides: Overrides = (), quiet: bool = False
) -> Estimate:
    """Run a recipe on a sample, and scale what it took to a dataset of some size.

    Args:
        recipe: the YAML file.
        count: rows of the dataset.
        sample: inputs of each flow.
        folder: for the sample's run.
        overrides: values that replace those of the recipe.
        quiet: show no progress.

    Raises:
        RecipeError: something in the recipe is wrong; nothing was started.
        FolderInUse: there is a run in the folder.
        NothingToScale: nothing of the sample became a row.
    """
    plan = load_plan(recipe, overrides)
    if Store(folder).exists(PLAN):
        raise FolderInUse(f"'{folder}' has a run, which a sample would replace; name another folder with --into")
    run(recipe, folder, overrides, quiet=quiet, sample=sample)
    return scale(read_samples(Store(folder), plan), _list_goals(plan, Store(folder)), count)


def _list_goals(plan: Plan, store: Store) -> Sequence[str]:
    """List the flows whose rows are counted: those of the dataset, or those that no other reads."""
    return list(plan.dataset) if plan.dataset else read_plan(store).main_flows


def read_samples(store: Store, plan: Plan) -> dict[str, FlowSample]:
    """Read what the sample of each flow became, from its run."""
    workers: dict[str, Mapping[str, tuple[int, float]]] = {}
    for event in read_events(store):
        if event["event"] == "flow" and isinstance(event.get("workers"), dict):
            workers[str(event["flow"])] = event["workers"]
    samples = {}
    for accounting in compute_accounting(store).flows:
        name = accounting.flow
        source, index = plan.sources[name], read_listing_index(store, name)
        commits, *_ = read_manifest(store.sub(table_path(name)))
        table = Tables(store).table(name)
        sizes = table.read_light(["bytes"]) if "bytes" in table.schema else None
        samples[name] = FlowSample(
            accounting,
            index.inputs if index else 0,
            source.upstream(),
            source.name == "flow",
            sum(file.bytes for record in commits for file in (record.data, record.rejected) if file),
            sum(value or 0 for value in sizes["bytes"].to_pylist()) if sizes is not None else 0,
            workers.get(name, {}),
        )
    return samples


def scale(samples: Mapping[str, FlowSample], goals: Sequence[str], count: int) -> Estimate:
    """Scale the samples of flows to a dataset.

    Args:
        samples: by flow, those before a flow first.
        goals: the flows whose rows are the dataset.
        count: rows of it.

    Raises:
        NothingToScale: no input of the sample became a row of it.
    """
    totals: dict[str, float] = {}  # inputs of a flow, were all that is there taken
    rows: dict[str, float] = {}
    for name, sample in samples.items():
        totals[name] = rows.get(sample.upstream[0], 0.0) if sample.takes_all else float(sample.listed)
        rows[name] = totals[name] * sample.accounting.rows / sample.inputs if sample.inputs else 0.0
    if not (possible := sum(rows[name] for name in goals)):
        reasons = [
            f"{name} {stage.stage}: {describe_counts(stage.rejected + stage.failed)}"
            for name, sample in samples.items()
            for stage in sample.accounting.stages
            if stage.rejected or stage.failed
        ]
        raise NothingToScale(f"nothing of the sample became a row of the dataset ({'; '.join(reasons) or 'no inputs'})")
    factor = count / possible
    scaled = _list_scaled(samples, goals)
    stages, inputs, elapsed, run_bytes = [], {}, 0.0, 0.0
    for name, sample in samples.items():
        if not sample.inputs:
            continue
        whole = totals[name] * (factor if name in scaled else 1.0)
        flow_stages = [_estimate_stage(name, sample, index, whole) for index in range(len(sample.accounting.stages))]
        stages += flow_stages
        elapsed += _estimate_elapsed(flow_stages, sample.workers)
        run_bytes += sample.bytes * whole / sample.inputs
        if name in scaled and not sample.takes_all:
            inputs[name] = (whole, sample.listed)
    drawn = [name for name in inputs if samples[name].upstream]
    row_bytes = sum(rows[name] * _mean_bytes(samples[name]) for name in goals) * factor
    return Estimate(
        count, factor, inputs, drawn, stages, elapsed, row_bytes, run_bytes + row_bytes, _bound(samples, goals)
    )


def _estimate_elapsed(stages: Sequence[StageEstimate], workers: Mapping[str, tuple[int, float]]) -> float:
    """Return the hours of a flow with the sample's workers: pools work at the same time, the stages of one in turn."""
    pools: dict[tuple[int, float], float] = {}
    for stage in stages:
        count, gpus = workers.get(stage.stage, (1, 0.0))
        pools[count, gpus] = pools.get((count, gpus), 0.0) + stage.hours / max(1, count)
    return max(pools.values(), default=0.0)


def _mean_bytes(sample: FlowSample) -> float:
    return sample.row_bytes / sample.accounting.rows if sample.accounting.rows else 0.0


def _list_scaled(samples: Mapping[str, FlowSample], goals: Sequence[str]) -> set[str]:
    """List the flows whose inputs grow with the dataset: its own, and those of which they take all rows."""
    scaled: set[str] = set()
    waiting = list(goals)
    while waiting:
        name = waiting.pop()
        if name not in scaled:
            scaled.add(name)
            waiting += samples[name].upstream if samples[name].takes_all else ()
    return scaled


def _estimate_stage(flow: str, sample: FlowSample, index: int, whole: float) -> StageEstimate:
    """Estimate a stage of a flow of which `whole` inputs are to be made."""
    stage = sample.accounting.stages[index]
    inputs = whole * stage.inputs / sample.inputs
    seconds = None if not stage.rate else 1 / stage.rate
    survival = stage.kept / stage.inputs if stage.inputs else 0.0
    interval = compute_interval(stage.kept, stage.inputs) if stage.inputs else (0.0, 1.0)
    gpus = float(sample.workers.get(stage.stage, (1, 0.0))[1])
    hours = inputs * (seconds or 0.0) / HOUR_S
    return StageEstimate(flow, stage.stage, stage.inputs, survival, interval, seconds, inputs, hours, gpus)


def _bound(samples: Mapping[str, FlowSample], goals: Sequence[str]) -> tuple[float, float]:
    """Return by how much less and more work it may be, by the interval of the share of inputs that are kept."""
    inputs = sum(samples[name].inputs for name in goals)
    kept = 0.0
    for name in goals:
        share = 1.0
        for stage in samples[name].accounting.stages:
            share *= stage.kept / stage.inputs if stage.inputs else 0.0
        kept += share * samples[name].inputs
    low, high = compute_interval(round(kept), inputs)
    share = kept / inputs
    return share / high, share / low if low else math.inf
