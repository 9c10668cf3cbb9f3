"""The account of a run, from its manifests and its log: what `rasura status` prints."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rasura.manifests.shards import Line, read_manifest
from rasura.manifests.storage import Store
from rasura.pipeline.run.events import events


class NoRun(FileNotFoundError):
    """A folder or prefix that holds no run."""


@dataclass
class StageAccount:
    """One stage of one flow: in = kept + rejected + failed."""

    stage: str
    inputs: int = 0
    kept: int = 0
    out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    timed_rows: int = 0

    @property
    def balanced(self) -> bool:
        """True when no input is unaccounted for."""
        return self.inputs == self.kept + self.rejected.total() + self.failed.total()

    @property
    def rate(self) -> float | None:
        """Records a second of one worker, where it was timed."""
        return self.timed_rows / self.seconds if self.seconds > 0 else None


@dataclass
class FlowAccount:
    """One flow: its stages in order, and whether its table is complete."""

    flow: str
    complete: bool
    shards: int
    rows: int
    stages: list[StageAccount]


@dataclass
class Account:
    """The whole run."""

    name: str
    recipe: str
    flows: list[FlowAccount]
    dataset_rows: int | None
    deaths: int


def about(run: Store) -> dict[str, Any]:
    """What a run says of itself: name, recipe hash, flows.

    Raises:
        NoRun
    """
    try:
        return json.loads(run.read("plan.json"))  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise NoRun(
            f"'{run.uri}' is no run: it has no plan.json; give the folder that `rasura run` wrote into"
        ) from None


def lines_of(run: Store, flow: str, part: str) -> tuple[list[Line], bool]:
    """Lines of a flow's table; while it is in the making, those committed so far for the present recipe."""
    table = run.sub(f"tables/{flow}")
    lines, *_ = read_manifest(table)
    if table.exists("manifest.parquet") and all(line.part == part for line in lines):
        return lines, True
    if not table.exists("work.json"):
        return [], False
    wanted = set(json.loads(table.read("work.json")))
    names = [name for name in table.files("lines") if name.removesuffix(".json") in wanted]
    found = [Line.from_json(table.read(f"lines/{name}")) for name in names]
    return [line for line in found if line.part == part], False


def account(run: Store) -> Account:
    """The account of a run.

    Raises:
        NoRun
    """
    plan = about(run)
    deaths = 0
    per_shard: dict[str, dict[str, float]] = {}
    for event in events(run):
        if event["event"] == "commit":
            per_shard[f"{event['flow']}/{event['shard']}"] = event["seconds"]
        elif event["event"] == "flow":
            deaths += event.get("deaths", 0)
    flows = []
    for name, flow in plan["flows"].items():
        lines, complete = lines_of(run, name, flow["part"])
        stages = [StageAccount(stage) for stage in [*flow["stages"], "write"]]
        for line in lines:
            timed = per_shard.get(f"{name}/{line.shard}", {})
            for entry, count in zip(stages, line.stages, strict=True):
                entry.inputs += count.inputs
                entry.kept += count.kept
                entry.out += count.out
                entry.rejected.update(count.rejected)
                entry.failed.update(count.failed)
                if count.stage in timed:
                    entry.seconds += timed[count.stage]
                    entry.timed_rows += count.inputs
        total = sum(line.data.rows for line in lines if line.data)
        flows.append(FlowAccount(name, complete, len(lines), total, stages))
    dataset = json.loads(run.read("export.json"))["rows"] if run.exists("export.json") else None
    return Account(plan["name"], plan["recipe"], flows, dataset, deaths)


def as_json(account: Account) -> dict[str, Any]:
    """The account as JSON values."""
    flows = []
    for flow in account.flows:
        stages = [
            {**vars(stage), "rejected": dict(stage.rejected), "failed": dict(stage.failed), "rate": stage.rate}
            for stage in flow.stages
        ]
        flows.append({**vars(flow), "stages": stages})
    return {**vars(account), "flows": flows}


def table(account: Account) -> Iterator[Any]:
    """The account as rich tables, one a flow, and a closing line."""
    from rich.table import Table

    yield f"[bold]{account.name}[/bold] (recipe {account.recipe[:12]})"
    for flow in account.flows:
        state = "complete" if flow.complete else "not complete"
        grid = Table(title=f"{flow.flow}: {flow.rows} rows in {flow.shards} shards, {state}", title_justify="left")
        for name in ("stage", "in", "kept", "rejected", "failed", "out", "seconds", "rows/s"):
            grid.add_column(name, justify="left" if name in ("stage", "rejected", "failed") else "right")
        for stage in flow.stages:
            grid.add_row(
                stage.stage if stage.balanced else f"[red]{stage.stage} (does not add up)[/red]",
                str(stage.inputs),
                str(stage.kept),
                _tally(stage.rejected),
                _tally(stage.failed),
                str(stage.out),
                f"{stage.seconds:.1f}" if stage.seconds else "",
                f"{stage.rate:.1f}" if stage.rate else "",
            )
        yield grid
    if account.dataset_rows is not None:
        yield f"dataset: {account.dataset_rows} rows"
    if account.deaths:
        yield f"workers that died and were replaced: {account.deaths}"


def _tally(counts: Counter[str]) -> str:
    return "\n".join(f"{count} {reason}" for reason, count in counts.most_common())
