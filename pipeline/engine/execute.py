"""What a worker does with a shard, without Ray: runs a group's stages on its records and keeps the account.

One bad row costs one row: an exception fails the record it belongs to; a batch that raises is run one by one; one
that runs out of GPU memory is halved.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from rasura.manifests.ids import split_of
from rasura.manifests.schemas import Kind, encode_records
from rasura.manifests.shards import Dropped, StageCount
from rasura.pipeline.recipe.plan import Group, StageSpec
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

DETAIL_LENGTH = 500
WRITE_LIMIT_S = 120.0  # to encode one record's pictures
INPUT = "_input"  # the flow's input that a record descends from; the engine's own, never on disk


@dataclass
class Shipment:
    """A shard on its way from group to group."""

    records: list[Record]
    inputs: int
    dropped: list[Dropped] = field(default_factory=list)
    stages: list[StageCount] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # for the log only


@dataclass(frozen=True)
class Blame:
    """What the driver knows about records that ended their workers."""

    dead: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (stage, record id) -> error class
    suspects: frozenset[str] = frozenset()  # record ids that are to run alone


class Watch:
    """Says what is running, so that a death can be laid to it. This one says nothing; the actor's own writes it."""

    def start(self, stage: str, ids: Sequence[str], limit_s: float) -> None:
        """Before records enter a stage."""

    def stop(self) -> None:
        """After they have left it."""


NOBODY, SILENT = Blame(), Watch()


def is_out_of_memory(error: BaseException) -> bool:
    """True for a GPU's out-of-memory error of torch or ONNX Runtime."""
    name, text = type(error).__name__, str(error)
    return (
        name == "OutOfMemoryError"
        or "CUDA out of memory" in text
        or "CUDA error: out of memory" in text
        or ("onnxruntime" in type(error).__module__ and "Failed to allocate memory" in text)
    )


def _free_gpu_memory() -> None:
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _attempt(name: str, stage: Stage, batch: Sequence[Record], limit_s: float, watch: Watch) -> list[Outcome]:
    watch.start(name, [record["id"] for record in batch], limit_s * len(batch))
    try:
        outcomes = list(stage.process(batch))
    finally:
        watch.stop()
    if len(outcomes) != len(batch):
        raise RuntimeError(f"stage '{name}' returned {len(outcomes)} outcomes for {len(batch)} records")
    return outcomes


def run_batch(
    name: str, stage: Stage, batch: Sequence[Record], limit_s: float, watch: Watch
) -> list[Outcome | Exception]:
    """Outcomes of a batch, or the exception of each record that raised."""
    try:
        return list(_attempt(name, stage, batch, limit_s, watch))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library that calls sys.exit(), a panic in native code: a record's fault too
        if len(batch) == 1:
            return [error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")]
        if is_out_of_memory(error):
            _free_gpu_memory()
            half = len(batch) // 2
            parts = (batch[:half], batch[half:])
        else:
            parts = tuple(batch[i : i + 1] for i in range(len(batch)))  # type: ignore[assignment]
    return [outcome for part in parts for outcome in run_batch(name, stage, part, limit_s, watch)]


def batches(records: Sequence[Record], size: int, alone: frozenset[str]) -> list[list[Record]]:
    """Cuts records into batches; those in `alone` get a batch of their own."""
    cut: list[list[Record]] = []
    for record in records:
        lonely = record["id"] in alone
        if cut and not lonely and len(cut[-1]) < size and cut[-1][-1]["id"] not in alone:
            cut[-1].append(record)
        else:
            cut.append([record])
    return cut


def finish(spec: StageSpec, record: Record, made: Record, weights: Mapping[str, str]) -> Record:
    """A stage's output with what every row carries, and only the columns it may have.

    What a stage does not mention is passed on from its input.

    Raises:
        ValueError: the stage made a column that it does not declare.
    """
    if unknown := set(made) - set(spec.columns) - set(record):
        raise ValueError(f"stage '{spec.name}' made columns that it does not declare: {', '.join(sorted(unknown))}")
    whole = record | made
    if whole["id"] != record["id"] and whole.get("parents") == record.get("parents"):
        whole["parents"] = [record["id"]]
    whole["stages"] = {**(whole.get("stages") or {}), spec.name: spec.version}
    whole["weights"] = {**(whole.get("weights") or {}), **weights}
    return {name: whole.get(name) for name in spec.columns} | {INPUT: record.get(INPUT, record["id"])}


def begin(record: Record, seed: int, splits: Mapping[str, float]) -> Record:
    """What the engine adds to a record that comes from a source: the recipe's seed, and its scene's split."""
    return record | {
        "seed": record["seed"] if record["seed"] is not None else seed,
        "split": record["split"] or split_of(record["scene_id"] or record["id"], splits),
    }


def _bare(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != INPUT}


def _dropped(record: Record, stage: str, outcome: str, reason: str, detail: str) -> Dropped:
    text = " ".join(str(detail).split())[:DETAIL_LENGTH]
    input_id = str(record.get(INPUT, record["id"]))
    return Dropped(str(record["id"]), record.get("origin"), stage, outcome, reason, text, input_id)


def run_stage(
    spec: StageSpec,
    stage: Stage,
    records: Sequence[Record],
    blame: Blame,
    watch: Watch,
    splits: Mapping[str, float],
) -> tuple[list[Record], list[Dropped], StageCount]:
    """All records through one stage: what came out, what was dropped, and the account."""
    count = StageCount(spec.name, inputs=len(records))
    kept: list[Record] = []
    dropped: list[Dropped] = []

    def drop(record: Record, outcome: str, reason: str, detail: str) -> None:
        tally = count.rejected if outcome == "rejected" else count.failed
        tally[reason] = tally.get(reason, 0) + 1
        dropped.append(_dropped(record, spec.name, outcome, reason, detail))

    alive: list[Record] = []
    for record in records:
        if reason := blame.dead.get((spec.name, record["id"])):
            drop(record, "failed", reason, DEATHS[reason].format(limit=spec.time_limit_s))
        elif spec.is_source and (other := record.get("duplicate_of")):
            drop(record, "rejected", "duplicate", f"same content as {other}")
        else:
            alive.append(record)
    weights = {f"{spec.name}.{name}": sha for name, sha in spec.weights.items()}
    for batch in batches(alive, spec.batch_size, blame.suspects):
        outcomes = run_batch(spec.name, stage, [_bare(record) for record in batch], spec.time_limit_s, watch)
        for record, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Kept):
                try:
                    made = [finish(spec, record, dict(new), weights) for new in outcome.records]
                except Exception as error:
                    outcome = error
                else:
                    count.kept += 1
                    kept += [begin(new, spec.seed, splits) if spec.is_source else new for new in made]
            if isinstance(outcome, Rejected):
                drop(record, "rejected", outcome.reason, outcome.detail)
            elif isinstance(outcome, Exception):
                drop(record, "failed", type(outcome).__name__, str(outcome))
            elif not isinstance(outcome, Kept):
                drop(
                    record, "failed", "TypeError", f"the stage returned a {type(outcome).__name__}, no Kept or Rejected"
                )
    count.out = len(kept)
    return kept, dropped, count


DEATHS = {
    "WorkerDied": "the worker ended while this record was in the stage, at every try",
    "TimedOut": "the record took longer than {limit:g} s, at every try",
}
"""Errors of records that end their workers, and the texts of their rows: the same at every attempt."""


def run_group(
    group: Group,
    stages: Sequence[Stage],
    shipment: Shipment,
    blame: Blame,
    watch: Watch,
    splits: Mapping[str, float],
    clock: Callable[[], float] = time.perf_counter,
) -> Shipment:
    """A shipment through all stages of a group. The one that came in is not changed."""
    result = Shipment(shipment.records, shipment.inputs, [*shipment.dropped], [*shipment.stages], {**shipment.seconds})
    for spec, stage in zip(group.stages, stages, strict=True):
        start = clock()
        result.records, dropped, count = run_stage(spec, stage, result.records, blame, watch, splits)
        result.dropped += dropped
        result.stages.append(count)
        result.seconds[spec.name] = result.seconds.get(spec.name, 0.0) + clock() - start
    return result


def encode(
    shipment: Shipment, columns: Mapping[str, Kind], blame: Blame = NOBODY, watch: Watch = SILENT
) -> tuple[pa.Table, list[Dropped], StageCount]:
    """The Arrow table of a finished shipment, the rows that could not be encoded, and the account of this last step.

    Rows are in the order of their ids, so that neither batch nor order of arrival shows.
    """
    count = StageCount("write", inputs=len(shipment.records))
    parts, failed = [encode_records([], columns)], []
    for record in sorted(shipment.records, key=lambda record: str(record["id"])):
        id = str(record["id"])
        reason = blame.dead.get((count.stage, id), "")
        detail = DEATHS[reason].format(limit=WRITE_LIMIT_S) if reason else ""
        watch.start(count.stage, [id], WRITE_LIMIT_S)
        try:
            if not reason:
                parts.append(encode_records([_bare(record)], columns))
        except Exception as error:
            reason, detail = type(error).__name__, str(error)
        finally:
            watch.stop()
        if reason:
            count.failed[reason] = count.failed.get(reason, 0) + 1
            failed.append(_dropped(record, count.stage, "failed", reason, detail))
    count.kept = count.out = len(parts) - 1
    return pa.concat_tables(parts).combine_chunks(), failed, count
