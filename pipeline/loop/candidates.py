"""A loop's rows: which ones there are, which are drawn, and the candidates that are made of them.

A round is a run of its own, with the drawn scenes and their candidates as tables, so that people review it, the oracle
votes on it, and the judge reads it as any other run.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.ids import child_id, seed_for, shard_id
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, Schema, encode_records
from rasura.manifests.shards import Dropped, Line, StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.loop.recipe import Rows
from rasura.removers.base import NoContext, NothingToFill, Remover, hole_of, remove

DRAWN: Schema = {**PROVENANCE, **TRIPLET}
CANDIDATES: Schema = {**PROVENANCE, **TRIPLET, "hole_dilation": Kind.INT}
TRUTH = "truth.json"
"""In a round: the oracle's verdicts on its candidates, by item, for the account alone."""
CARRIED = ("scene_id", "split", "origin", "label", "licence", "stages", "weights")


@dataclass(frozen=True)
class Ref:
    """Where a row is."""

    run: str
    table: str
    shard: str
    row: int
    id: str
    scene: str
    label: str | None = None


class Reader:
    """Rows by where they are, in as many runs as there are; a loop's own rounds are named from its folder (`./`)."""

    def __init__(self, home: Store) -> None:
        self.home = home
        self._tables: dict[str, Tables] = {}

    def tables(self, run: str) -> Tables:
        if run not in self._tables:
            own = run.startswith("./")
            self._tables[run] = Tables(self.home.sub(run.removeprefix("./")) if own else Store(run))
        return self._tables[run]

    def row(self, ref: Ref) -> dict[str, Any]:
        """A row with its pictures; its mask is M_o, whatever it is called there."""
        found = self.tables(ref.run).row(ref.table, ref.shard, ref.row)
        if found.get("mask") is None:
            found["mask"] = found.get("object_mask")
        return found

    def refs(self, wanted: Sequence[Rows], seed: int) -> list[Ref]:
        """The rows of some flows, each flow's in the order of a draw.

        Raises:
            NoTable
        """
        found = []
        for rows in wanted:
            light = self.tables(rows.run).table(rows.flow).light(("id", "scene_id", "label", "split")).to_pylist()
            here = [
                Ref(rows.run, rows.flow, one["shard"], one["row"], one["id"], one.get("scene_id") or one["id"],
                    one.get("label"))
                for one in light
                if rows.split in (None, one.get("split"))
            ]  # fmt: skip
            here.sort(key=lambda ref: (seed_for(seed, "loop", ref.id), ref.id))
            found += here[: rows.limit]
        return found


def draw(pool: Sequence[Ref], seen: set[str], count: int, cap: int, exclude: Sequence[str]) -> list[Ref]:
    """The next scenes of a pool in its order, none of a scene that was seen, at most `cap` of one label."""
    found: list[Ref] = []
    labels: Counter[str | None] = Counter()
    scenes = set(seen)
    for ref in pool:
        if len(found) == count:
            break
        if ref.scene in scenes or ref.label in exclude or labels[ref.label] >= cap:
            continue
        found.append(ref)
        scenes.add(ref.scene)
        labels[ref.label] += 1
    return found


def make_candidates(
    run: Store,
    reader: Reader,
    refs: Sequence[Ref],
    removers: Callable[[], Sequence[Remover]],
    number: int,
    seed: int,
    dilation: int,
    context: float,
    at_once: int,
) -> dict[str, int]:
    """A round's run: the drawn rows and what each remover makes of them. What was committed is not made again.

    Returns:
        How many were drawn, made, and could not be filled.
    """
    drawn, candidates = run.sub("tables/drawn"), run.sub("tables/candidates")
    done = {name.removesuffix(".json") for name in candidates.files("lines")}
    there = {name.removesuffix(".json") for name in drawn.files("lines")}
    parts = [refs[start : start + at_once] for start in range(0, len(refs), at_once)]
    lines: dict[str, list[Line]] = {"drawn": [], "candidates": []}
    opened: Sequence[Remover] | None = None
    for part in parts:
        shard = shard_id(f"round {number} {seed} {dilation} {context}", [ref.id for ref in part])
        if shard not in there or shard not in done:
            opened = removers() if opened is None else opened
            rows = [reader.row(ref) for ref in part]
            _commit_drawn(drawn, shard, rows)
            _commit_candidates(candidates, shard, rows, opened, number, seed, dilation, context)
        for name, store in (("drawn", drawn), ("candidates", candidates)):
            lines[name].append(Line.from_json(store.read(f"lines/{shard}.json")))
    write_manifest(drawn, lines["drawn"], DRAWN)
    write_manifest(candidates, lines["candidates"], CANDIDATES)
    told = {"part": "", "upstream": [], "stages": []}
    flows = {"drawn": {**told, "columns": {}}, "candidates": {**told, "upstream": ["drawn"], "columns": {}}}
    plan = {"name": f"round-{number}", "recipe": "", "flows": flows, "dataset": None}
    run.write("plan.json", (json.dumps(plan, indent=1) + "\n").encode())
    made = sum(line.data.rows if line.data else 0 for line in lines["candidates"])
    lost = sum(line.dropped.rows if line.dropped else 0 for line in lines["candidates"])
    return {"drawn": len(refs), "candidates": made, "unfillable": lost}


def _commit_drawn(store: Store, shard: str, rows: Sequence[Mapping[str, Any]]) -> None:
    kept = [{name: row[name] for name in DRAWN if name in row} for row in rows]
    counts = [StageCount("drawn", len(rows), len(rows), len(rows))]
    commit(store, shard, "", len(rows), encode_records(kept, DRAWN), (), counts)


def _commit_candidates(
    store: Store, shard: str, rows: Sequence[Mapping[str, Any]], removers: Sequence[Remover], number: int, seed: int,
    dilation: int, context: float,
) -> None:  # fmt: skip
    going, dropped = [], []
    for row in rows:
        try:
            hole_of(row["mask"], dilation)
            going.append(row)
        except (NothingToFill, NoContext) as error:
            reason = "empty mask" if isinstance(error, NothingToFill) else "mask covers the picture"
            dropped.append(Dropped(row["id"], row.get("origin"), "inpaint", "rejected", reason, str(error), row["id"]))
    made = []
    for one in removers if going else []:
        seeds = [seed_for(seed, f"{number} {one.name}", row["id"]) for row in going]
        targets = remove(
            one, [row["source"] for row in going], [row["mask"] for row in going], seeds, dilation, context
        )
        for row, target, own in zip(going, targets, seeds, strict=True):
            made.append(candidate(row, f"{number}.{one.name}", target, own, one.name, number, dilation))
    reasons = Counter(one.reason for one in dropped)
    counts = [StageCount("inpaint", len(rows), len(going), len(made), dict(reasons))]
    commit(store, shard, "", len(rows), encode_records(made, CANDIDATES), dropped, counts)


def candidate(
    row: Mapping[str, Any], name: str, target: Any, seed: int, remover: str, number: int, dilation: int
) -> dict[str, Any]:
    """The row of what a remover made of another row in a round; `name` tells it from that row's other candidates."""
    return {carried: row.get(carried) for carried in CARRIED} | {
        "id": child_id(row["id"], name), "kind": "edited", "parents": [row["id"]], "source": row["source"],
        "target": target, "mask": row["mask"], "seed": seed, "remover": remover, "round": number,
        "hole_dilation": dilation,
    }  # fmt: skip


def records(reader: Reader, refs: Sequence[Ref], at_once: int) -> Iterator[list[dict[str, Any]]]:
    """Rows with their pictures, a few at a time."""
    for start in range(0, len(refs), at_once):
        yield [reader.row(ref) for ref in refs[start : start + at_once]]
