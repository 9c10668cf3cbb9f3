"""The accounting of a run, from its manifests and its log: what `rasura status` prints."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from rasura.manifests.compacted.manifest import read_manifest
from rasura.manifests.run_layout import COMMITS, MANIFEST, WORK, passed_over_path, read_plan, table_path
from rasura.manifests.safety.text import escape_controls
from rasura.manifests.shards import CommitRecord, DamagedFile, read_commit
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.pipeline.run.dataset import find_missing_file, read_export_record
from rasura.pipeline.run.events import read_events
from rasura.stages.sources.listing import describe_counts


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
    failed_outputs: Counter[str] = field(default_factory=Counter)
    """Errors of outputs of kept inputs that could not be made, such as a remover's candidate of a scene."""
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
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Files that lie where the flow's source looked and are no inputs, by the reason."""


@dataclass
class RunAccounting:
    """The whole run.

    Attributes:
        name, recipe: of the recipe, and its hash.
        flows: in the order in which they are made.
        dataset_rows: rows of the dataset; None where none was written, or one of its files is missing.
        deaths: workers that died and were replaced.
        dataset_missing: the file of the dataset that is missing or damaged, from the run.
    """

    name: str
    recipe: str
    flows: list[FlowAccounting]
    dataset_rows: int | None
    deaths: int
    dataset_missing: str | None = None


def list_commits(run: Store, flow: str, part: str) -> tuple[Sequence[CommitRecord], bool]:
    """List the commit records of a flow's table, and whether it is complete.

    Args:
        part: hash of the part of the recipe that makes the flow. While the table is being made, the records are those
            that were committed so far for the present recipe. What is damaged counts as absent: a run makes it again.
    """
    table = run.sub(table_path(flow))
    with contextlib.suppress(DamagedFile):
        compacted, *_ = read_manifest(table)
        if table.exists(MANIFEST) and compacted.are_of_part(part):
            return compacted, True
    try:
        shards = set(json.loads(table.read(WORK)))
    except (FileNotFoundError, ValueError, TypeError):
        return [], False
    records = []
    for shard in sorted({name.removesuffix(".json") for name in table.files(COMMITS)} & shards):
        with contextlib.suppress(DamagedFile):
            records.append(read_commit(table, shard))
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
            times = event.get("seconds") or {}
            seconds[f"{event.get('flow')}/{event.get('shard')}"] = times if _are_numbers(times) else {}
        elif event["event"] == "flow" and isinstance(event.get("deaths"), int):
            deaths += event["deaths"]
    flows = []
    for name, flow in plan.flows.items():
        records, complete = list_commits(run, name, flow.part)
        counts = count_flow(name, flow.stages, records, complete, seconds)
        flows.append(replace(counts, passed_over=read_passed_over(run, name)))
    record = read_export_record(run)
    if record is None:
        return RunAccounting(plan.name, plan.recipe, flows, None, deaths)
    missing = find_missing_file(run)
    rows = record.rows if missing is None else None
    return RunAccounting(plan.name, plan.recipe, flows, rows, deaths, missing)


def read_passed_over(run: Store, flow: str) -> Mapping[str, int]:
    """Read how many files a flow's source passed over, by the reason; none where that cannot be read."""
    try:
        counts = json.loads(run.read(passed_over_path(flow)))
    except (FileNotFoundError, ValueError):
        return {}
    return counts if _are_numbers(counts) else {}


def _are_numbers(values: object) -> bool:
    """Return True for names and their numbers, as they were written."""
    return isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())


def count_flow(
    flow: str,
    stages: Sequence[str],
    records: Sequence[CommitRecord],
    complete: bool = True,
    seconds: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> FlowAccounting:
    """Add up the counts of a flow's shards.

    Args:
        flow: its name.
        stages: names of its source and stages, in order.
        records: commit records of its shards.
        complete: its table is complete.
        seconds: `flow/shard` to the seconds that each stage took.
    """
    counts, rows = [StageAccounting(stage) for stage in [*stages, "write"]], 0
    for record in records:  # once: each is parsed when it is asked for
        _add_record(counts, record, seconds.get(f"{flow}/{record.shard}", {}))
        rows += record.rows
    return FlowAccounting(flow, complete, len(records), rows, counts)


def _add_record(stages: list[StageAccounting], record: CommitRecord, seconds: Mapping[str, float]) -> None:
    """Add the counts of a shard to those of its flow's stages."""
    for stage, count in zip(stages, record.stages, strict=True):
        stage.inputs += count.inputs
        stage.kept += count.kept
        stage.out += count.out
        if count.rejected:
            stage.rejected.update(count.rejected)
        if count.failed:
            stage.failed.update(count.failed)
        if count.failed_outputs:
            stage.failed_outputs.update(count.failed_outputs)
        if count.stage in seconds:
            stage.seconds += seconds[count.stage]
            stage.timed_rows += count.inputs


COUNTERS = ("rejected", "failed", "failed_outputs")
"""Counts of a stage by reason or error."""


def to_json_values(accounting: RunAccounting) -> dict[str, Any]:
    """Convert the accounting to JSON values."""
    flows = []
    for flow in accounting.flows:
        stages = [
            {**vars(stage), **{name: dict(getattr(stage, name)) for name in COUNTERS}, "rate": stage.rate}
            for stage in flow.stages
        ]
        flows.append({**vars(flow), "stages": stages})
    return {**vars(accounting), "flows": flows}


NARROW = 72
"""Width of a terminal below which a table has no frame, and its reasons are below it."""


def render_tables(accounting: RunAccounting, width: int) -> Iterator[Any]:
    """Yield the accounting as rich tables, one a flow, and closing lines.

    Args:
        accounting: of a run.
        width: of the terminal, in characters.
    """
    recipe = f" (recipe {_escape(accounting.recipe[:12])})" if accounting.recipe else ""
    yield f"[bold]{_escape(accounting.name)}[/bold]{recipe}"
    for flow in accounting.flows:
        yield from _render_narrow(flow) if width < NARROW else [_render_wide(flow)]
        if flow.passed_over:
            yield f"{_escape(flow.flow)}: files that were passed over: {_escape(describe_counts(flow.passed_over))}"
    if accounting.dataset_rows is not None:
        yield f"dataset: {format_count(accounting.dataset_rows, 'row')}"
    if accounting.dataset_missing is not None:
        place = _escape(accounting.dataset_missing)
        yield f"dataset: {place} is missing or damaged; run the recipe again, which writes the dataset anew"
    if accounting.deaths:
        yield f"workers that died and were replaced: {accounting.deaths}"


def _describe_flow(flow: FlowAccounting) -> str:
    rows, shards = format_count(flow.rows, "row"), format_count(flow.shards, "shard")
    return f"{_escape(flow.flow)}: {rows} in {shards}, {'complete' if flow.complete else 'not complete'}"


def _render_wide(flow: FlowAccounting) -> Any:
    from rich.table import Table

    grid = Table(title=_describe_flow(flow), title_justify="left")
    for name in ("stage", "in", "kept", "rejected", "failed", "out", "seconds", "rows/s"):
        is_text = name in ("stage", "rejected", "failed")
        grid.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text)
    for stage in flow.stages:
        grid.add_row(
            _escape(stage.stage) if stage.balances else f"[red]{_escape(stage.stage)} (does not add up)[/red]",
            str(stage.inputs),
            str(stage.kept),
            "\n".join(_render_counts(stage.rejected)),
            "\n".join([*_render_counts(stage.failed), *_render_counts(stage.failed_outputs, " (outputs)")]),
            str(stage.out),
            f"{stage.seconds:.1f}" if stage.seconds else "",
            f"{stage.rate:.1f}" if stage.rate else "",
        )
    return grid


def _render_narrow(flow: FlowAccounting) -> Iterator[Any]:
    """Yield a table whose figures are whole and whose names are shortened, and the reasons below it."""
    from rich.table import Table

    header = ("stage", "in", "kept", "rej.", "fail.", "out", "rows/s")
    rows = [
        (
            _escape(stage.stage),
            *map(str, (stage.inputs, stage.kept, stage.rejected.total(), stage.failed.total(), stage.out)),
            f"{stage.rate:.1f}" if stage.rate else "",
        )
        for stage in flow.stages
    ]
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(header[0], no_wrap=True, overflow="ellipsis", min_width=4)
    for index, name in enumerate(header[1:], 1):
        longest = max(len(name), *(len(row[index]) for row in rows))
        grid.add_column(name, justify="right", no_wrap=True, min_width=longest)
    for row in rows:
        grid.add_row(*row)
    yield f"[bold]{_describe_flow(flow)}[/bold]"
    yield grid
    for stage in flow.stages:
        for name in COUNTERS:
            outcome, counts = name.replace("_", " "), getattr(stage, name)
            yield from (f"  {_escape(stage.stage)}, {outcome}: {line}" for line in _render_counts(counts))
        if not stage.balances:
            yield f"[red]  {_escape(stage.stage)} does not add up[/red]"


def _render_counts(counts: Counter[str], note: str = "") -> list[str]:
    return [f"{count} {_escape(reason)}{note}" for reason, count in counts.most_common()]


def _escape(text: str) -> str:
    """Write a text from a run so that neither rich nor the terminal obeys what is in it."""
    from rich.markup import escape

    return escape(escape_controls(text))
