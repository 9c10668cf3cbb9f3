"""The work on a shard, without Ray: a group's stages run on its records, and every input is accounted for.

One bad row costs one row: an exception fails the record it belongs to; a batch that raises is run one by one; one
that runs out of GPU memory is halved. A fault of the surroundings costs none: the shard's work stops.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from rasura.manifests.checks.rows import find_size_fault, list_sizes
from rasura.manifests.ids import assign_split, is_split_name
from rasura.manifests.safety.text import describe_error, make_text
from rasura.manifests.schemas import Kind, encode_records, list_required
from rasura.manifests.shards import RejectedRow, StageCount
from rasura.networks.batches import free_gpu_memory
from rasura.pipeline.engine.faults import (
    SurroundingsFault,
    find_damaged_place,
    is_fault_of_surroundings,
    is_short_of_memory,
)
from rasura.pipeline.engine.outputs import describe_value, find_change_fault, find_output_fault
from rasura.pipeline.recipe.specs import Group, StageSpec
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

DETAIL_LENGTH = 500
WRITE = "write"  # name of the last step in counts and marks: a shard's rows are encoded
WRITE_LIMIT_S = 120.0  # to encode one record's pictures
INPUT = "_input"  # the flow's input that a record descends from; the engine's own, never on disk
SIZED = "_sized"  # the stage that last changed the size of one of its pictures; the same
NO_OUTPUT = "no output"
"""Reason of inputs of which a stage kept no record."""


@dataclass
class PartialShard:
    """A shard on its way from group to group."""

    records: list[Record]
    inputs: int
    dropped: list[RejectedRow] = field(default_factory=list)
    stages: list[StageCount] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # for the log only


@dataclass(frozen=True)
class Quarantine:
    """Records that ended their workers.

    Args:
        failed: (stage, record id) to the error class, of records that ended a worker at every try.
        isolated: ids of records that were in a stage when it ended its worker: they run alone.
        one_by_one: all records of the shard run alone, and each keeps its mark for a moment after it: workers died over
            the shard while no stage was running.
    """

    failed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    isolated: frozenset[str] = frozenset()
    one_by_one: bool = False


class ActivityMonitor:
    """Notes what is running, so that a death can be attributed. This one notes nothing; the actor's writes a file.

    Attributes:
        lingers: what was running stays noted for a moment after it has ended.
    """

    lingers = False

    def start(self, stage: str, ids: Sequence[str], limit_s: float) -> None:
        """Note that records enter a stage, which they may hold for `limit_s` seconds."""

    def stop(self) -> None:
        """Note that they have left it."""


NO_QUARANTINE, NO_MONITOR = Quarantine(), ActivityMonitor()


def _attempt(
    name: str, stage: Stage, batch: Sequence[Record], limit_s: float, monitor: ActivityMonitor
) -> list[Outcome]:
    monitor.start(name, [record["id"] for record in batch], limit_s * len(batch))
    try:
        outcomes = list(stage.process(batch))
    finally:
        monitor.stop()
    if len(outcomes) != len(batch):
        raise RuntimeError(f"stage '{name}' returned {len(outcomes)} outcomes for {len(batch)} records")
    return outcomes


def run_batch(
    name: str,
    stage: Stage,
    batch: Sequence[Record],
    limit_s: float,
    monitor: ActivityMonitor,
    reads_inputs: bool = False,
) -> list[Outcome | Exception]:
    """Run a stage on a batch.

    Args:
        reads_inputs: the stage is a source.

    Returns:
        The outcome of each record, or the exception that it raised.

    Raises:
        SurroundingsFault: the surroundings failed, and no record.
    """
    try:
        return _check_outputs(_attempt(name, stage, batch, limit_s, monitor), reads_inputs)
    except BaseException as error:  # a library that calls sys.exit(), a panic in native code: a record's fault too
        ids = [str(record["id"]) for record in batch]
        if is_fault_of_surroundings(error, reads_inputs):
            raise SurroundingsFault(name, ids, describe_error(error), damaged=find_damaged_place(error)) from error
        if len(batch) == 1:
            if is_short_of_memory(error):
                raise SurroundingsFault(name, ids, describe_error(error), memory=True) from error
            return [error if isinstance(error, Exception) else RuntimeError(describe_error(error))]
        if is_short_of_memory(error):
            free_gpu_memory()
            half = len(batch) // 2
            parts = (batch[:half], batch[half:])
        else:
            parts = tuple(batch[i : i + 1] for i in range(len(batch)))  # type: ignore[assignment]
    return [outcome for part in parts for outcome in run_batch(name, stage, part, limit_s, monitor, reads_inputs)]


def _check_outputs(outcomes: Sequence[Outcome], reads_inputs: bool) -> list[Outcome | Exception]:
    """Return outcomes, with the error of what was kept in name alone.

    Raises:
        Exception: an output could not be made, and no record is to blame.
    """
    errors = [error for outcome in outcomes if isinstance(outcome, Kept) for error in outcome.errors]
    for error in errors:
        if is_fault_of_surroundings(error, reads_inputs) or is_short_of_memory(error):
            raise error
    return [
        outcome.errors[0] if isinstance(outcome, Kept) and outcome.errors and not outcome.records else outcome
        for outcome in outcomes
    ]


def run_batches(
    spec: StageSpec, stage: Stage, records: Sequence[Record], quarantine: Quarantine, monitor: ActivityMonitor
) -> list[Outcome | Exception]:
    """Run a stage on all records of a shard; those that run alone come last, so that others can pass before them.

    Returns:
        The outcome of each record, or the exception that it raised, in the order of the records.

    Raises:
        SurroundingsFault: the surroundings failed, and no record.
    """
    order = sorted(range(len(records)), key=lambda k: records[k]["id"] in quarantine.isolated)
    size = 1 if quarantine.one_by_one else spec.batch_size
    batches = split_batches([records[k] for k in order], size, quarantine.isolated)
    outcomes: list[Outcome | Exception] = []
    alone = [quarantine.one_by_one or batch[0]["id"] in quarantine.isolated for batch in batches]
    for batch, *neighbours in zip(batches, alone, [*alone, False][1:], strict=True):
        monitor.lingers = any(neighbours)  # a death between two records is the earlier one's
        stripped = [_strip_input(record) for record in batch]
        try:
            outcomes += run_batch(spec.name, stage, stripped, spec.time_limit_s, monitor, spec.is_source)
        except SurroundingsFault as fault:
            raise SurroundingsFault(
                fault.stage, fault.ids, fault.text, fault.memory, len(outcomes), fault.damaged
            ) from fault.__cause__
    by_place = dict(zip(order, outcomes, strict=True))
    return [by_place[k] for k in range(len(records))]


def split_batches(records: Sequence[Record], size: int, isolated: frozenset[str]) -> list[list[Record]]:
    """Cut records into batches; those whose ids are in `isolated` get a batch of their own.

    Examples:
        >>> rows = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
        >>> [len(batch) for batch in split_batches(rows, 2, frozenset())]
        [2, 1]
        >>> [len(batch) for batch in split_batches(rows, 2, frozenset("b"))]
        [1, 1, 1]
    """
    batches: list[list[Record]] = []
    for record in records:
        joins = batches and len(batches[-1]) < size and batches[-1][-1]["id"] not in isolated
        if joins and record["id"] not in isolated:
            batches[-1].append(record)
        else:
            batches.append([record])
    return batches


def complete_record(
    spec: StageSpec, record: Record, output: Record, weights: Mapping[str, str], splits: Collection[str] = ()
) -> Record:
    """Add to a stage's output the columns that every row carries, and keep only those that it may have.

    Columns that a stage does not mention are passed on from its input.

    Raises:
        ValueError: a column of the stage is not declared, is left out or has a value of another kind; a split's name
            is no word, or none of the recipe's, where a stage changed it; or the stage took away what every row has.
    """
    if fault := find_output_fault(spec.columns, record, output):
        raise ValueError(f"stage '{spec.name}': {fault}")
    row = record | output
    if row.get("split") is not None and not is_split_name(row["split"]):  # it becomes a part of file names
        raise ValueError(f"split {row['split']!r} is no word of at most 64 letters, digits and underscores")
    if row["id"] != record["id"] and row.get("parents") == record.get("parents"):
        row["parents"] = [record["id"]]
    row["stages"] = {**(row.get("stages") or {}), spec.name: spec.version}
    row["weights"] = {**(row.get("weights") or {}), **weights}
    stored = {name: row.get(name) for name in spec.columns}
    if not spec.is_source and (fault := find_change_fault(record, stored, splits, spec.params.values())):
        raise ValueError(f"stage '{spec.name}': {fault}")
    sized = record.get(SIZED) if list_sizes(row) == list_sizes(record) else spec.name
    return stored | {INPUT: record.get(INPUT, record["id"]), SIZED: sized}


def add_provenance(record: Record, seed: int, splits: Mapping[str, float]) -> Record:
    """Add the recipe's seed and the split of its scene to a record that comes from a source."""
    return record | {
        "seed": record["seed"] if record["seed"] is not None else seed,
        "split": record["split"] or assign_split(record["scene_id"] or record["id"], splits),
    }


def _check_new_ids(spec: StageSpec, outputs: Sequence[Record], ids: set[str]) -> None:
    """Check that the rows which a stage made of a record have ids that no other row of the shard has, and add them.

    Raises:
        ValueError: an id is there already.
    """
    new = [output["id"] for output in outputs]
    if doubled := [id for k, id in enumerate(new) if id in ids or id in new[:k]]:
        raise ValueError(
            f"stage '{spec.name}': another row has id {doubled[0]}; derive ids from the record's "
            "(rasura.manifests.ids.make_child_id)"
        )
    ids.update(new)


def _strip_input(record: Record) -> Record:
    return {key: value for key, value in record.items() if key not in (INPUT, SIZED)}


def _describe_drop(record: Record, stage: str, outcome: str, reason: str, detail: object) -> RejectedRow:
    text = make_text(detail)[:DETAIL_LENGTH]
    input_id = str(record.get(INPUT, record["id"]))
    return RejectedRow(str(record["id"]), record.get("origin"), stage, outcome, reason, text, input_id)


def run_stage(
    spec: StageSpec,
    stage: Stage,
    records: Sequence[Record],
    quarantine: Quarantine,
    monitor: ActivityMonitor,
    splits: Mapping[str, float],
) -> tuple[list[Record], list[RejectedRow], StageCount]:
    """Run records through one stage.

    Returns:
        The records that came out, the inputs that were rejected or failed, and the counts.
    """
    count = StageCount(spec.name, inputs=len(records))
    kept: list[Record] = []
    dropped: list[RejectedRow] = []
    ids: set[str] = set()

    def drop(record: Record, outcome: str, reason: object, detail: object) -> None:
        reason, tally = make_text(reason), count.rejected if outcome == "rejected" else count.failed
        tally[reason] = tally.get(reason, 0) + 1
        dropped.append(_describe_drop(record, spec.name, outcome, reason, detail))

    alive: list[Record] = []
    for record in records:
        if reason := quarantine.failed.get((spec.name, record["id"])):
            drop(record, "failed", reason, DEATHS[reason].format(limit=spec.time_limit_s))
        elif spec.is_source and (other := record.get("duplicate_of")):
            drop(record, "rejected", "duplicate", f"same content as {other}")
        else:
            alive.append(record)
    weights = {f"{spec.name}.{name}": sha for name, sha in spec.weights.items()}
    for record, outcome in zip(alive, run_batches(spec, stage, alive, quarantine, monitor), strict=True):
        if isinstance(outcome, Kept):
            try:
                outputs = [complete_record(spec, record, dict(new), weights, splits) for new in outcome.records]
                _check_new_ids(spec, outputs, ids)
            except Exception as error:
                outcome = error
            else:
                if not outputs:
                    drop(record, "rejected", NO_OUTPUT, "the stage kept no record of it")
                    continue
                count.kept += 1
                for name in (type(error).__name__ for error in outcome.errors):
                    count.failed_outputs[name] = count.failed_outputs.get(name, 0) + 1
                kept += [add_provenance(new, spec.seed, splits) if spec.is_source else new for new in outputs]
        if isinstance(outcome, Rejected):
            drop(record, "rejected", outcome.reason, outcome.detail)
        elif isinstance(outcome, Exception):
            drop(record, "failed", type(outcome).__name__, outcome)
        elif not isinstance(outcome, Kept):
            drop(record, "failed", "TypeError", f"the stage returned {describe_value(outcome)}, no Kept or Rejected")
    count.out = len(kept)
    return kept, dropped, count


DEATHS = {
    "WorkerDied": "the worker ended while this record was in the stage, at every try",
    "TimedOut": "the record took longer than {limit:g} s, at every try",
    "OutOfMemory": "there was not enough memory for this record, at every try, while others passed",
}
"""Errors of records that are tried several times, and the texts of their rows: the same at every attempt."""


def run_group(
    group: Group,
    stages: Sequence[Stage],
    shard: PartialShard,
    quarantine: Quarantine,
    monitor: ActivityMonitor,
    splits: Mapping[str, float],
    clock: Callable[[], float] = time.perf_counter,
) -> PartialShard:
    """Run a shard through all stages of a group. The one that came in is not changed."""
    result = PartialShard(shard.records, shard.inputs, [*shard.dropped], [*shard.stages], {**shard.seconds})
    for spec, stage in zip(group.stages, stages, strict=True):
        start = clock()
        result.records, dropped, count = run_stage(spec, stage, result.records, quarantine, monitor, splits)
        result.dropped += dropped
        result.stages.append(count)
        result.seconds[spec.name] = result.seconds.get(spec.name, 0.0) + clock() - start
    return result


def encode_shard(
    shard: PartialShard,
    columns: Mapping[str, Kind],
    quarantine: Quarantine = NO_QUARANTINE,
    monitor: ActivityMonitor = NO_MONITOR,
) -> tuple[pa.Table, list[RejectedRow], StageCount]:
    """Encode the records of a finished shard.

    Rows are in the order of their ids, so that neither batch nor order of arrival shows.

    Returns:
        The Arrow table, the rows that could not be encoded, and the counts of this last step.
    """
    count = StageCount(WRITE, inputs=len(shard.records))
    parts, failed = [encode_records([], columns)], []
    is_triplet = bool(list_required(columns))
    monitor.lingers = quarantine.one_by_one
    for record in sorted(shard.records, key=lambda record: str(record["id"])):
        id = str(record["id"])
        reason = quarantine.failed.get((count.stage, id), "")
        detail = DEATHS[reason].format(limit=WRITE_LIMIT_S) if reason else ""
        monitor.start(count.stage, [id], WRITE_LIMIT_S)
        try:
            if not reason:
                if is_triplet and (fault := find_size_fault(record)):
                    raise ValueError(f"stage '{record.get(SIZED)}': {fault}")
                parts.append(encode_records([_strip_input(record)], columns))
        except Exception as error:
            if is_fault_of_surroundings(error, False) or is_short_of_memory(error):
                raise SurroundingsFault(count.stage, [id], describe_error(error)) from error
            reason, detail = type(error).__name__, make_text(error)
        finally:
            monitor.stop()
        if reason:
            count.failed[reason] = count.failed.get(reason, 0) + 1
            failed.append(_describe_drop(record, count.stage, "failed", reason, detail))
    count.kept = count.out = len(parts) - 1
    return pa.concat_tables(parts).combine_chunks(), failed, count
