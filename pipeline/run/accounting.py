"""The accounting of a run, from its manifests and its log: what `rasura status` prints."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.run_layout import COMMITS, EXPORT, MANIFEST, WORK, commit_path, read_plan, table_path
from rasura.manifests.shards import CommitRecord, read_manifest
from rasura.manifests.storage import Store
from rasura.pipeline.run.events import read_events


@dataclass
class StageAccounting:
    """One stage of one flow: in = kept + rejected + failed.

    Examples:
        >>> stage = StageAccounting("effects", inputs=3, kept=2, rejected=Counter({"no effect": 1}))
        >>> stage.balances
        True
    """

    stage: str
    inputs: int = 0
    kept: int = 0
    out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    timed_rows: int = 0

    @property
    def balances(self) -> bool:
        """Return True when every input is accounted for."""
        return self.inputs == self.kept + self.rejected.total() + self.failed.total()

    @property
    def rate(self) -> float | None:
        """Records a second of one worker; None where no time was measured."""
        return self.timed_rows / self.seconds if self.seconds > 0 else None


@dataclass
class FlowAccounting:
    """One flow: its stages in order, and whether its table is complete."""

    flow: str
    complete: bool
    shards: int
    rows: int
    stages: list[StageAccounting]


@dataclass
class RunAccounting:
    """The whole run.

    Attributes:
        name, recipe: of the recipe, and its hash.
        flows: in the order in which they are made.
        dataset_rows: rows of the dataset; None where none was written.
        deaths: workers that died and were replaced.
    """

    name: str
    recipe: str
    flows: list[FlowAccounting]
    dataset_rows: int | None
    deaths: int


def list_commits(run: Store, flow: str, part: str) -> tuple[list[CommitRecord], bool]:
    """List the commit records of a flow's table, and whether it is complete.

    Args:
        part: hash of the part of the recipe that makes the flow. While the table is being made, the records are those
            that were committed so far for the present recipe.
    """
    table = run.sub(table_path(flow))
    records, *_ = read_manifest(table)
    if table.exists(MANIFEST) and all(record.part == part for record in records):
        return records, True
    if not table.exists(WORK):
        return [], False
    shards = json.loads(table.read(WORK))
    names = {name.removesuffix(".json") for name in table.files(COMMITS)}
    records = [CommitRecord.from_json(table.read(commit_path(shard))) for shard in sorted(names & set(shards))]
    return [record for record in records if record.part == part], False


def compute_accounting(run: Store) -> RunAccounting:
    """Compute the accounting of a run.

    Raises:
        NoRun: there is no run.
    """
    plan = read_plan(run)
    deaths = 0
    seconds: dict[str, Mapping[str, float]] = {}
    for event in read_events(run):
        if event["event"] == "commit":
            seconds[f"{event['flow']}/{event['shard']}"] = event["seconds"]
        elif event["event"] == "flow":
            deaths += event.get("deaths", 0)
    flows = []
    for name, flow in plan.flows.items():
        records, complete = list_commits(run, name, flow.part)
        stages = [StageAccounting(stage) for stage in [*flow.stages, "write"]]
        for record in records:
            _add_record(stages, record, seconds.get(f"{name}/{record.shard}", {}))
        flows.append(FlowAccounting(name, complete, len(records), sum(record.rows for record in records), stages))
    dataset_rows = json.loads(run.read(EXPORT))["rows"] if run.exists(EXPORT) else None
    return RunAccounting(plan.name, plan.recipe, flows, dataset_rows, deaths)


def _add_record(stages: list[StageAccounting], record: CommitRecord, seconds: Mapping[str, float]) -> None:
    """Add the counts of a shard to those of its flow's stages."""
    for stage, count in zip(stages, record.stages, strict=True):
        stage.inputs += count.inputs
        stage.kept += count.kept
        stage.out += count.out
        stage.rejected.update(count.rejected)
        stage.failed.update(count.failed)
        if count.stage in seconds:
            stage.seconds += seconds[count.stage]
            stage.timed_rows += count.inputs


def to_json_values(accounting: RunAccounting) -> dict[str, Any]:
    """Convert the accounting to JSON values."""
    flows = []
    for flow in accounting.flows:
        stages = [
            {**vars(stage), "rejected": dict(stage.rejected), "failed": dict(stage.failed), "rate": stage.rate}
            for stage in flow.stages
        ]
        flows.append({**vars(flow), "stages": stages})
    return {**vars(accounting), "flows": flows}


def render_tables(accounting: RunAccounting) -> Iterator[Any]:
    """Yield the accounting as rich tables, one a flow, and closing lines."""
    from rich.table import Table

    yield f"[bold]{accounting.name}[/bold] (recipe {accounting.recipe[:12]})"
    for flow in accounting.flows:
        state = "complete" if flow.complete else "not complete"
        grid = Table(title=f"{flow.flow}: {flow.rows} rows in {flow.shards} shards, {state}", title_justify="left")
        for name in ("stage", "in", "kept", "rejected", "failed", "out", "seconds", "rows/s"):
            grid.add_column(name, justify="left" if name in ("stage", "rejected", "failed") else "right")
        for stage in flow.stages:
            grid.add_row(
                stage.stage if stage.balances else f"[red]{stage.stage} (does not add up)[/red]",
                str(stage.inputs),
                str(stage.kept),
                _render_counts(stage.rejected),
                _render_counts(stage.failed),
                str(stage.out),
                f"{stage.seconds:.1f}" if stage.seconds else "",
                f"{stage.rate:.1f}" if stage.rate else "",
            )
        yield grid
    if accounting.dataset_rows is not None:
        yield f"dataset: {accounting.dataset_rows} rows"
    if accounting.deaths:
        yield f"workers that died and were replaced: {accounting.deaths}"


def _render_counts(counts: Counter[str]) -> str:
    return "\n".join(f"{count} {reason}" for reason, count in counts.most_common())
