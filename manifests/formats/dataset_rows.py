"""The rows of a dataset: in which tables of a run they are, and what is in them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from rasura.manifests.errors import InputError
from rasura.manifests.formats.target import CORRECTED
from rasura.manifests.ids import find_equal_splits, is_split_name
from rasura.manifests.schemas import CANDIDATE_KINDS
from rasura.manifests.tables import RUN_REFERENCE, Table, Tables

KINDS: Mapping[str | None, str] = {
    "captured": "a pair of photographs of a fixed camera: inside `foreground_mask` the target is the second one",
    "simulated": "cut-outs with their effects, composited onto a photograph, which is the target",
    "inserted": "an object that a model has drawn into a photograph, which is the target; it counts as a triplet where "
    "somebody, or a score, accepted it",
    "edited": "what a remover made of the source; it counts as a triplet where somebody, or a score, accepted it, and "
    "shadows or reflections may be left in it",
}
"""Meanings of the kinds of rows, for cards."""


def parse_kind(name: str | None) -> str | None:
    """Return the kind of row that a text names, in any letters' case; None for another text.

    Examples:
        >>> parse_kind("Edited "), parse_kind("real")
        ('edited', None)
    """
    kind = (name or "").strip().casefold()
    return kind if kind in KINDS else None


LEAST_SCORE = 0.5
"""A candidate without a verdict counts as accepted from this score on: people would rather say yes than no."""
JUDGEMENT = ("kind", "verdict", "score")
"""Columns that `explain_unfit` reads."""


CORRECTED_ROW, CORRECTED_LABEL = "corrected_row", "corrected"
"""Column with the id of the row that somebody corrected, and what the id of the row in its place ends with."""


class NotTriplets(InputError):
    """A flow's rows are no triplets, or two flows have rows of one id."""


class NothingToExport(InputError):
    """A run has no dataset, no row in it, or none that the layout can take."""


def explain_nothing(layout: str, left_out: Mapping[str, int]) -> NothingToExport:
    """Return the error where every row is left out, with the reasons and their rows."""
    reasons = "; ".join(f"{rows}: {reason}" for reason, rows in sorted(left_out.items()))
    return NothingToExport(f"layout '{layout}' can take none of {sum(left_out.values())} rows ({reasons})")


def explain_unfit(row: Mapping[str, Any], picture: Literal["source", "target"]) -> str | None:
    """Explain why a picture of a row is no answer for a model to learn from.

    Photographs and composites of photographs are. What a model painted (an inserted source, an edited target) is one
    where somebody said yes, or nobody said anything and the score is at least `LEAST_SCORE`.

    Args:
        row: with the columns of `JUDGEMENT`, as far as it has them.
        picture: the one that a trainer takes as the answer.

    Returns:
        The reason, or None where it is an answer.

    Examples:
        >>> explain_unfit({"kind": "edited", "verdict": "no"}, "target")
        'a model painted its target, and the verdict is no'
        >>> explain_unfit({"kind": "edited", "verdict": "no"}, "source") is None
        True
    """
    if row.get("kind") != {"source": "inserted", "target": "edited"}[picture]:
        return None
    verdict, score = row.get("verdict"), row.get("score")
    if verdict == "yes" or (verdict is None and score is not None and score >= LEAST_SCORE):
        return None
    judged = f"the verdict is {verdict}" if verdict else "nobody accepted it"
    if verdict is None and score is not None:
        judged = f"its score is below {LEAST_SCORE}"
    return f"a model painted its {picture}, and {judged}"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A row of a dataset, and its place in the run.

    Attributes:
        id: of the row.
        split: that it is in.
        bytes: size of its encoded pictures.
        kind: captured, simulated, inserted or edited.
        licence: of the pictures that it was made from.
        table: the flow that has it.
        shard: of that flow's table.
        row: its index in the shard.
        scene: id of its scene.
    """

    id: str
    split: str
    bytes: int
    kind: str
    licence: str | None
    table: str
    shard: str
    row: int
    scene: str = ""

    @property
    def place(self) -> tuple[str, str, int]:
        """Table, shard and index."""
        return self.table, self.shard, self.row


@dataclass(frozen=True)
class DatasetSummary:
    """The figures of a dataset that its card shows.

    Attributes:
        name: of the recipe.
        recipe_hash: its hash.
        splits: split -> (rows, bytes).
        kinds: kind -> rows.
        licences: of its pictures, sorted.
    """

    name: str
    recipe_hash: str
    splits: Mapping[str, tuple[int, int]]
    kinds: Mapping[str, int]
    licences: Sequence[str]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(rows for rows, _ in self.splits.values())

    @property
    def noun(self) -> str:
        """Noun for all rows: candidates are no triplets, or not before they are accepted."""
        return "rows" if CANDIDATE_KINDS & self.kinds.keys() else "removal triplets"

    def format(self, card: str, **values: str) -> str:
        """Fill in the text of a card: its figures and `values`."""
        return card.format(
            name=self.name,
            recipe=self.recipe_hash,
            rows=self.rows,
            noun=self.noun,
            splits="\n".join(f"| {split} | {rows} | {size} |" for split, (rows, size) in self.splits.items()),
            kinds=render_kinds(self.kinds),
            licences=", ".join(self.licences) or "none given",
            **values,
        )


def render_kinds(kinds: Mapping[str, int]) -> str:
    """Render the rows of a card's table of kinds: each with its number and meaning.

    Examples:
        >>> render_kinds({"simulated": 3})
        '| simulated | 3 | cut-outs with their effects, composited onto a photograph, which is the target |'
    """
    return "\n".join(f"| {kind} | {rows} | {KINDS.get(kind, '')} |" for kind, rows in sorted(kinds.items()))


REQUIRED = ("id", "source", "target", "mask", "kind", "scene_id", "split")
"""Columns of a flow of triplets."""


def check_triplets(table: Table) -> None:
    """Check that the rows of a flow are triplets.

    Raises:
        NotTriplets: it lacks a column of `REQUIRED`.
    """
    if missing := [name for name in REQUIRED if name not in table.full_schema]:
        raise NotTriplets(f"rows of flow '{table.name}' are no triplets: they have no {', '.join(missing)}")


def list_rows(tables: Sequence[Table]) -> list[DatasetRow]:
    """List the rows of some tables, sorted by id.

    Raises:
        NotTriplets: a flow has no triplets, an id is in two flows, or a split's name is no word: it becomes a part of
            file names.
    """
    rows: list[DatasetRow] = []
    for table in tables:
        check_triplets(table)
        light = table.read_light(["split", "bytes", "kind", "licence", "scene_id"])
        for raw in light.to_pylist():
            scene = raw["scene_id"] or raw["id"]
            if raw["split"] is not None and not is_split_name(raw["split"]):
                raise NotTriplets(f"row {raw['id']} of flow '{table.name}': split {raw['split']!r} is no word")
            place = (table.name, raw["shard"], raw["row"])
            rows.append(
                DatasetRow(raw["id"], raw["split"], raw["bytes"] or 0, raw["kind"], raw["licence"], *place, scene)
            )
    if equal := find_equal_splits(row.split for row in rows):
        raise NotTriplets(
            f"splits '{equal[0]}' and '{equal[1]}' differ in their letters' case only; rename one of them"
        )
    rows.sort(key=lambda row: (row.id, row.table))
    for before, after in pairwise(rows):
        if before.id == after.id:
            raise NotTriplets(
                f"id {after.id} is in flow '{before.table}' and in flow '{after.table}'; name one of them"
            )
    return rows


def read_raw_row(tables: Tables, row: DatasetRow, columns: Sequence[str]) -> dict[str, Any]:
    """Read a row as it is encoded on disk, references followed; columns it lacks are None."""
    needed = (*dict.fromkeys(("id", *columns, *RUN_REFERENCE)),)

    def read(tables: Tables, table: str, shard: str, index: int) -> dict[str, Any]:
        raw: dict[str, Any] = tables.read_raw(table, shard, index, needed).to_pylist()[0]
        if raw.get("ref_shard") is not None:
            place = raw["ref_table"], raw["ref_shard"], raw["ref_row"]
            raw = read(tables.open_run(raw.get("ref_run")), *place) | raw
        return raw

    raw = read(tables, *row.place)
    return {name: raw.get(name) for name in columns}


def read_raw_rows(tables: Tables, rows: Sequence[DatasetRow], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read rows as `read_raw_row` does, in their order, shard by shard so that each row group is read once."""
    order = {row.id: index for index, row in enumerate(rows)}
    raws: list[dict[str, Any]] = [{}] * len(rows)
    for row in sorted(rows, key=lambda row: row.place):
        raws[order[row.id]] = read_raw_row(tables, row, columns)
    return raws


def find_superseded(tables: Sequence[Table]) -> dict[str, str]:
    """Find the rows that a row of these tables corrects: the one that somebody corrected, and what that was made from.

    Returns:
        Id of a row -> the reason to leave it out, `corrected by ID`.
    """
    superseded: dict[str, str] = {}
    for table in (table for table in tables if CORRECTED_ROW in table.schema):
        for row in table.read_light([CORRECTED_ROW]).to_pylist():
            if row[CORRECTED_ROW] is not None:
                reason = f"{CORRECTED}{row['id']}"
                superseded |= dict.fromkeys(list_corrected_ids(row["id"], row[CORRECTED_ROW]), reason)
    if not superseded:
        return {}
    ids = {id for table in tables for id in table.read_light(["id"])["id"].to_pylist()}
    return {id: reason for id, reason in superseded.items() if id in ids}


def list_corrected_ids(id: str, corrected: str) -> list[str]:
    """List the ids of the rows in whose place a row is, by its id and the id of the row that somebody corrected.

    Examples:
        >>> list_corrected_ids("7fa4.corrected", "7fa4"), list_corrected_ids("7fa4.corrected.telea", "7fa4.ns")
        (['7fa4'], ['7fa4', '7fa4.ns'])
        >>> list_corrected_ids("7fa4.corrected.corrected.telea", "7fa4.corrected.ns")
        ['7fa4', '7fa4.corrected', '7fa4.corrected.ns']
    """
    marks = re.finditer(rf"\.{CORRECTED_LABEL}(?=\.|$)", id)
    return sorted({id[: mark.start()] for mark in marks} | {corrected})


def find_repeats(tables: Sequence[Table]) -> dict[str, str]:
    """Find candidates whose source and mask are those of another row: of what they were made from, or of another
    remover's candidate for it.

    Returns:
        Id of a row -> the reason to leave it out. The first of each group, by id, is not in it.
    """
    light = [row for table in tables for row in table.read_light(["kind", "parents"]).to_pylist()]
    first = {(row["id"],): row["id"] for row in light}
    repeats = {}
    for row in sorted(light, key=lambda row: str(row["id"])):
        parents = tuple(row.get("parents") or ())
        if row.get("kind") == "edited" and parents and first.setdefault(parents, row["id"]) != row["id"]:
            repeats[row["id"]] = "another row has the same source and mask"
    return repeats
