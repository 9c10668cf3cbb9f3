"""The closing lines of a run: what each flow kept, rejected and failed, with a warning where a flow is empty."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rasura.manifests.errors import RunError
from rasura.manifests.run_layout import table_path
from rasura.manifests.shards import CommitRecord, RejectedRow, read_committed
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.pipeline.run.accounting import FlowAccounting

Outcome = Literal["failed", "rejected"]
OUTCOMES: tuple[Outcome, ...] = ("rejected", "failed")

DUPLICATE = "duplicate"
MOST_CAUSES = 5
LONGEST_DETAIL = 200


MIN_FAILED = 20
"""Failed rows of a flow up to which it goes on, however few inputs it has."""


class AllInputsFailed(RunError):
    """A flow that could work on none of its inputs: each ended with an error."""


class TooManyFailed(RunError):
    """A flow of which more rows failed than the recipe allows."""


@dataclass(frozen=True)
class FlowOutcome:
    """The outcome of one flow.

    Attributes:
        accounting: its counts.
        inputs: the number of its inputs.
        upstream: the flows that it reads.
        example: one input with the commonest error, or where none failed, with the commonest rejection.
    """

    accounting: FlowAccounting
    inputs: int
    upstream: Sequence[str] = ()
    example: RejectedRow | None = None

    @property
    def has_only_failures(self) -> bool:
        """Return True when there are inputs and each of them failed; duplicates of other inputs do not count."""
        judged = {phrase for _, phrase in count_causes(self.accounting, "rejected")} - {DUPLICATE}
        last = [stage for stage in self.accounting.stages if stage.inputs][-1:]
        return not judged and any(stage.failed and not stage.kept for stage in last)

    def describe(self) -> Iterator[str]:
        """Yield the closing lines of the flow."""
        rows, inputs = format_count(self.accounting.rows, "row"), format_count(self.inputs, "input")
        yield f"{self.accounting.flow}: {rows} from {inputs}"
        for kind in OUTCOMES:
            causes = count_causes(self.accounting, kind)
            if not causes:
                continue
            parts = [f"{count} × {phrase} ({stage})" for (stage, phrase), count in causes.most_common(MOST_CAUSES)]
            if len(causes) > MOST_CAUSES:
                parts.append(f"{len(causes) - MOST_CAUSES} other reasons")
            suffix = f"; for example {self.example.id}" if self.example and self.example.outcome == kind else ""
            yield f"  {kind} {causes.total()}: {', '.join(parts)}{suffix}"
        for stage in self.accounting.stages:
            if errors := stage.failed_outputs:
                parts = [f"{count} × {error}" for error, count in errors.most_common(MOST_CAUSES)]
                count = format_count(errors.total(), "output")
                yield f"  {count} of kept inputs failed in {stage.stage}: {', '.join(parts)}"

    def explain_emptiness(self) -> str:
        """Return the reason for which the flow has no rows, as a clause."""
        if not self.inputs:
            upstream = " and ".join(f"'{name}'" for name in self.upstream)
            return "it had no inputs" + (f" (it reads {upstream})" if upstream else "")
        if self.example is None:
            stage = [stage.stage for stage in self.accounting.stages if stage.inputs][-1]
            return f"stage '{stage}' made no rows of its inputs"
        row = self.example
        counts = next(stage for stage in self.accounting.stages if stage.stage == row.stage)
        count = (counts.failed if row.outcome == "failed" else counts.rejected)[row.reason]
        verb = "failed with" if row.outcome == "failed" else "were rejected:"
        detail = row.detail if len(row.detail) <= LONGEST_DETAIL else f"{row.detail[:LONGEST_DETAIL]}…"
        reason = f"{row.reason} ({detail})" if detail else row.reason
        return f"in stage '{row.stage}', {count} of {counts.inputs} {verb} {reason}, for example {row.id}"


def count_causes(accounting: FlowAccounting, kind: Outcome) -> Counter[tuple[str, str]]:
    """Count the rejections or the failures of a flow by stage and phrase (of a failure, the class of its error).

    Examples:
        >>> from rasura.pipeline.run.accounting import StageAccounting
        >>> stage = StageAccounting("effects", inputs=3, kept=2, rejected=Counter({"no effect": 1}))
        >>> count_causes(FlowAccounting("pairs", True, 1, 2, [stage]), "rejected")
        Counter({('effects', 'no effect'): 1})
    """
    return Counter(
        {(stage.stage, phrase): count for stage in accounting.stages for phrase, count in getattr(stage, kind).items()}
    )


def summarize_flow(
    store: Store, accounting: FlowAccounting, records: Sequence[CommitRecord], upstream: Sequence[str] = ()
) -> FlowOutcome:
    """Summarize what became of a flow's inputs; of the rejected and failed ones, at most one is read.

    Args:
        store: the run.
        accounting: the flow's counts.
        records: commit records of its shards.
        upstream: the flows that it reads.
    """
    inputs = accounting.stages[0].inputs
    for kind in reversed(OUTCOMES):
        if causes := count_causes(accounting, kind):
            example = _find_example(store, accounting.flow, records, kind, *causes.most_common(1)[0][0])
            return FlowOutcome(accounting, inputs, upstream, example)
    return FlowOutcome(accounting, inputs, upstream)


def _find_example(
    store: Store, flow: str, records: Sequence[CommitRecord], kind: Outcome, stage: str, phrase: str
) -> RejectedRow | None:
    for record in records:
        if record.rejected and any(count.stage == stage and phrase in getattr(count, kind) for count in record.stages):
            table = read_committed(store.sub(table_path(flow)), record.rejected)
            rows = [RejectedRow(**row) for row in table.to_pylist()]
            return next(row for row in rows if (row.outcome, row.stage, row.reason) == (kind, stage, phrase))
    return None


def list_warnings(run: str, flows: Mapping[str, FlowOutcome], dataset: str | None, dataset_rows: int) -> list[str]:
    """List what is to be warned of after a run: flows without rows, and an empty dataset.

    A flow that has nothing but failed inputs is an error: see `check_flows`.

    Args:
        run: its folder or URI.
        flows: outcome of each flow.
        dataset: folder or URI of the dataset; None where there is none.
        dataset_rows: its rows.
    """
    empty = {flow: outcome for flow, outcome in flows.items() if not outcome.accounting.rows}
    lines = [
        f"flow '{flow}' has no rows: {outcome.explain_emptiness()}"
        for flow, outcome in empty.items()
        if not outcome.has_only_failures
    ]
    if dataset is not None and not dataset_rows:
        lines.append(f"the dataset {dataset} is empty")
    if lines:
        lines[-1] += f"; `rasura status {run}` counts all reasons, `rasura report {run}` shows examples of each"
    return lines


def check_flows(run: str, flows: Mapping[str, FlowOutcome]) -> None:
    """Check that no flow has nothing but failed inputs.

    Raises:
        AllInputsFailed: one has; the text says how to try them again.
    """
    lines = [
        f"all inputs of flow '{flow}' failed: {outcome.explain_emptiness()}; inputs and parameters that you change are "
        "tried again by the same command, and if the cause is outside of them, by the same with --retry-failed"
        for flow, outcome in flows.items()
        if outcome.has_only_failures
    ]
    if lines:
        raise AllInputsFailed("\n".join(lines))


def check_failures(flow: str, causes: Counter[tuple[str, str]], inputs: int, limit: float) -> None:
    """Check that not too many rows of a flow have failed.

    Args:
        flow: its name.
        causes: its failed rows so far, by stage and error.
        inputs: the number of all its inputs.
        limit: share of these that may fail (`engine.max_failed`); `MIN_FAILED` always may.

    Raises:
        TooManyFailed: more have; the text has the commonest error and how to go on.

    Examples:
        >>> check_failures("photos", Counter({("photos", "BadImage"): 21}), 300, 0.1)
    """
    if causes.total() <= max(MIN_FAILED, limit * inputs):
        return
    (stage, error), count = causes.most_common(1)[0]
    raise TooManyFailed(
        f"flow '{flow}' stopped: {causes.total()} rows of {format_count(inputs, 'input')} failed, {count} of them in "
        f"stage '{stage}' with {error}. When the cause is gone, the same command with --retry-failed makes them again; "
        "to leave them out and go on, set engine.max_failed to a larger share"
    )


def count_failures(record: CommitRecord) -> Counter[tuple[str, str]]:
    """Count the failed rows of a shard by stage and error."""
    return Counter({(stage.stage, error): n for stage in record.stages for error, n in stage.failed.items()})
