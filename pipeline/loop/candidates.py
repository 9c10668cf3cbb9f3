"""The candidates of a round: which scenes are drawn, and what each remover makes of them.

A round is a run of its own, with the drawn scenes and their candidates as tables, so that people review it, the oracle
votes on it, and the discriminator reads it like any other run.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.ids import compute_seed, compute_shard_id, make_child_id
from rasura.manifests.run_layout import FlowDescription, RunPlan, commit_path, table_path, write_plan
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, Schema, encode_records
from rasura.manifests.shards import CommitRecord, RejectedRow, StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.networks.trainer import OnProgress
from rasura.pipeline.loop.results import InpaintResult
from rasura.pipeline.training.rows import RowReader, RowRef
from rasura.removers.base import NoContext, NothingToFill, Remover, make_hole, remove

SCENES: Schema = {**PROVENANCE, **TRIPLET}
CANDIDATES: Schema = {**PROVENANCE, **TRIPLET, "hole_dilation": Kind.INT}
INHERITED = ("scene_id", "split", "origin", "label", "licence", "stages", "weights")
"""Columns that a candidate has from its scene's row."""


@dataclass(frozen=True)
class CandidateSettings:
    """How the candidates of a round are made.

    number: of the round. dilation: px by which masks grow before they are filled. context: of the picture that a
    remover sees around the hole, in hole sizes. batch: scenes whose candidates are committed together.
    """

    number: int
    seed: int
    dilation: int
    context: float
    batch: int

    @property
    def key(self) -> str:
        """The part of a shard's id that says how its rows were made."""
        return f"round {self.number} {self.seed} {self.dilation} {self.context}"


def draw_rows(
    pool: Sequence[RowRef], used_scenes: set[str], count: int, cap: int, exclude: Sequence[str]
) -> list[RowRef]:
    """Draw the next scenes of a pool, in its order.

    Args:
        used_scenes: scenes that are not drawn again.
        count: scenes that are drawn, or as many as there are.
        cap: scenes of one label at most.
        exclude: labels that are not drawn.

    Examples:
        >>> pool = [RowRef("run", "flow", "shard", n, str(n), scene, "dog") for n, scene in enumerate("aabcd")]
        >>> [ref.scene for ref in draw_rows(pool, {"b"}, 5, 2, [])]
        ['a', 'c']
    """
    drawn: list[RowRef] = []
    labels: Counter[str | None] = Counter()
    scenes = set(used_scenes)
    for ref in pool:
        if len(drawn) == count:
            break
        if ref.scene in scenes or ref.label in exclude or labels[ref.label] >= cap:
            continue
        drawn.append(ref)
        scenes.add(ref.scene)
        labels[ref.label] += 1
    return drawn


def make_candidates(
    run: Store,
    reader: RowReader,
    refs: Sequence[RowRef],
    open_removers: Callable[[], Sequence[Remover]],
    settings: CandidateSettings,
    on_progress: OnProgress | None = None,
) -> InpaintResult:
    """Write a round's run: the drawn scenes, and what each remover makes of them. Committed shards are not made again.

    Args:
        open_removers: called once, when the first shard is to be made.
        on_progress: receives the number of scenes that are done, and of all.
    """
    scenes, candidates = run.sub(table_path("drawn")), run.sub(table_path("candidates"))
    committed = {name.removesuffix(".json") for name in set(candidates.files("lines")) & set(scenes.files("lines"))}
    commits: dict[str, list[CommitRecord]] = {"drawn": [], "candidates": []}
    removers: Sequence[Remover] | None = None
    for start in range(0, len(refs), settings.batch):
        batch = refs[start : start + settings.batch]
        shard = compute_shard_id(settings.key, [ref.id for ref in batch])
        if shard not in committed:
            removers = open_removers() if removers is None else removers
            rows = [reader.read_row(ref) for ref in batch]
            _commit_scenes(scenes, shard, rows)
            _commit_candidates(candidates, shard, rows, removers, settings)
        for name, store in (("drawn", scenes), ("candidates", candidates)):
            commits[name].append(CommitRecord.from_json(store.read(commit_path(shard))))
        if on_progress:
            on_progress(start + len(batch), len(refs), "scenes")
    write_manifest(scenes, commits["drawn"], SCENES)
    write_manifest(candidates, commits["candidates"], CANDIDATES)
    flows = {"drawn": FlowDescription(), "candidates": FlowDescription(upstream=["drawn"])}
    write_plan(run, RunPlan(f"round-{settings.number}", "", flows))
    return InpaintResult(
        scenes=len(refs),
        candidates=sum(record.data.rows if record.data else 0 for record in commits["candidates"]),
        unfillable=sum(record.rejected.rows if record.rejected else 0 for record in commits["candidates"]),
    )


def _commit_scenes(store: Store, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
    records = [{name: row[name] for name in SCENES if name in row} for row in rows]
    counts = [StageCount("drawn", len(rows), len(rows), len(rows))]
    commit(store, shard, "", len(rows), encode_records(records, SCENES), (), counts)


def _commit_candidates(
    store: Store,
    shard: str,
    rows: Sequence[Mapping[str, Any]],
    removers: Sequence[Remover],
    settings: CandidateSettings,
) -> None:
    fillable, rejected = _split_fillable(rows, settings.dilation)
    candidates = []
    for remover in removers if fillable else []:
        label = f"{settings.number}.{remover.name}"
        seeds = [compute_seed(settings.seed, f"{settings.number} {remover.name}", row["id"]) for row in fillable]
        sources, masks = [row["source"] for row in fillable], [row["mask"] for row in fillable]
        targets = remove(remover, sources, masks, seeds, settings.dilation, settings.context)
        for row, target, seed in zip(fillable, targets, seeds, strict=True):
            candidates.append(
                build_candidate(row, label, target, seed, remover.name, settings.number, settings.dilation)
            )
    reasons = Counter(row.reason for row in rejected)
    counts = [StageCount("inpaint", len(rows), len(fillable), len(candidates), dict(reasons))]
    commit(store, shard, "", len(rows), encode_records(candidates, CANDIDATES), rejected, counts)


def _split_fillable(
    rows: Sequence[Mapping[str, Any]], dilation: int
) -> tuple[list[Mapping[str, Any]], list[RejectedRow]]:
    """Return the rows whose mask can be filled, and the others as rejected rows."""
    fillable, rejected = [], []
    for row in rows:
        try:
            make_hole(row["mask"], dilation)
            fillable.append(row)
        except (NothingToFill, NoContext) as error:
            reason = "empty mask" if isinstance(error, NothingToFill) else "mask covers the picture"
            rejected.append(
                RejectedRow(row["id"], row.get("origin"), "inpaint", "rejected", reason, str(error), row["id"])
            )
    return fillable, rejected


def build_candidate(
    row: Mapping[str, Any], label: str, target: Any, seed: int, remover: str, number: int, dilation: int
) -> dict[str, Any]:
    """Build the row of a candidate.

    Args:
        row: the scene that it was made of.
        label: tells it from other candidates of that row.
        target: (h, w, 3) uint8, the filled picture.
        number: of the round.
    """
    return {column: row.get(column) for column in INHERITED} | {
        "id": make_child_id(row["id"], label),
        "kind": "edited",
        "parents": [row["id"]],
        "source": row["source"],
        "target": target,
        "mask": row["mask"],
        "seed": seed,
        "remover": remover,
        "round": number,
        "hole_dilation": dilation,
    }
