"""The tables of a run as its page shows them: rows of each flow, its rejected inputs, and which of them have pictures.

Memory does not grow with rows: of a long table, every n-th row is in the page, and those nearest to a limit.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rasura.manifests.fingerprints import find_near_duplicates
from rasura.manifests.schemas import PICTURES, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import RUN_REFERENCE, find_pictures
from rasura.pipeline.report import thumbnails
from rasura.pipeline.report.flows import ReportFlow, iterate_light, iterate_rejections
from rasura.pipeline.report.galleries import Gallery, convert_values
from rasura.pipeline.report.measures import (
    Measure,
    find_nearest,
    find_rows,
    list_numbers,
    parse_detail,
    sample_measures,
)
from rasura.pipeline.report.pictures import PictureFiles, describe_example
from rasura.pipeline.report.survey import choose_places
from rasura.pipeline.report.thumbnails import Place

if TYPE_CHECKING:
    from rasura.annotator.exchange.verdicts import RowVerdict

MOST_ROWS = 50_000
"""Rows of a table that are in a page, at most."""
MOST_VALUES, MOST_TABLE_VALUES = 6_000_000, 2_000_000
"""Values that are in a page, and of one table, at most: a table of many columns has fewer rows in it."""
CHUNK_ROWS = 32
"""Rows whose pictures are read and made at a time."""
FULL_SIDE = 8192
"""Long side of a picture at full size, px; larger ones are scaled down to it."""
LEAK = "in two splits"
NEAR_DUPLICATE_OF = re.compile(r"of (\S+) \(")
"""How a stage that rejects near-duplicates names the row that stays."""
MOST_PAIRS = 40
"""Pairs of near-duplicates that are shown."""
MOST_COMPARED = 5_000
"""Pictures of a table that are compared with each other, at most: some seconds. Stored fingerprints all are."""
FINGERPRINTS = ("fingerprint", "inspect_fingerprint")
"""Columns with fingerprints that stages have stored, in hex digits; the first that is there is compared."""
STORED = re.compile("[0-9a-f]{144}")
"""A fingerprint in hex digits; a text of another kind, in a column of that name, is not compared."""
MOST_OF_SCENE = 20
"""Rows of one scene and split that are compared with others, at most: its pictures are alike."""
REJECTION = ("outcome", "stage", "reason", "detail", "origin")
ROW_OF = "row of"
"""Column of rejected inputs: the flow that has each as a row, and its pictures."""
DESCRIBED = ("label", "kind", "remover", "split")
"""Texts of a rejected input that it has where it is a row of another flow."""


@dataclass
class PageTable:
    """A table of the page, and where the pictures of its rows are.

    Attributes:
        gallery: what the page shows.
        places: row of the gallery -> place of the row that has its pictures.
        first: rows of the gallery that get pictures, the most important first.
        fingerprints: of those that have pictures, by row.
        stored: fingerprints that a stage has stored, by row.
        near: near pairs among the stored ones; None where they were not compared.
    """

    gallery: Gallery
    places: dict[int, Place] = field(default_factory=dict)
    first: Sequence[int] = ()
    fingerprints: dict[int, bytes] = field(default_factory=dict)
    stored: dict[int, bytes] = field(default_factory=dict)
    near: list[tuple[int, int]] | None = None


def build_tables(
    run: Store,
    flows: Sequence[ReportFlow],
    order: Sequence[ReportFlow],
    rows: int,
    verdicts: "Mapping[Place, RowVerdict]",
) -> list[PageTable]:
    """Build the tables of a run: each flow's rows, and after all of them the rejected inputs of each.

    Args:
        flows: of the run. order: the same in the order of the page.
        rows: of each table that get pictures.
        verdicts: of people, by the place of the pictures that they judged.
    """
    by_name = {flow.name: flow for flow in flows}
    most_values = min(MOST_TABLE_VALUES, MOST_VALUES // max(1, len(order)))
    kept, rejected = [], []
    for flow in order:
        upstream = [by_name[name] for name in flow.upstream if name in by_name]
        measures = sample_measures(run, flow, upstream, list(flow.limits)) if flow.limits else {}
        kept.append(_build_kept(run, flow, measures, rows, most_values, verdicts))
        if (table := _build_rejected(run, flow, upstream, rows, most_values)) is not None:
            rejected.append(table)
    return kept + rejected


def _choose_step(total: int, columns: int, most_values: int) -> int:
    """Choose every which row of a table is in the page."""
    most = max(1, min(MOST_ROWS, most_values // max(1, columns)))
    return max(1, -(-total // most))


def _build_kept(
    run: Store,
    flow: ReportFlow,
    measures: Mapping[str, Measure],
    rows: int,
    most_values: int,
    verdicts: "Mapping[Place, RowVerdict]",
) -> PageTable:
    nearest = find_nearest(run, flow, flow.limits, measures, -(-rows // 2)) if flow.limits and rows else []
    pictured = list(dict.fromkeys([*nearest, *choose_places(flow.name, flow.survey, rows)]))[:rows]
    pictured = pictured if flow.roles.panels else []
    kinds = {name: kind for name, kind in flow.columns.items() if kind not in PICTURES and name not in RUN_REFERENCE}
    step = _choose_step(flow.survey.rows, len(kinds), most_values)
    always: dict[str, set[int]] = defaultdict(set)
    for _, shard, row in pictured:
        always[shard].add(row)
    places: list[Place] = []
    judged: list[RowVerdict | None] = []
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    stored = next((name for name in FINGERPRINTS if kinds.get(name) is Kind.STRING), "")
    start = 0
    for shard, table in iterate_light(run, flow.name, flow.commits, [*kinds, *RUN_REFERENCE]):
        chosen = sorted({*range(-start % step, table.num_rows, step), *always[shard]})
        start += table.num_rows
        part = table.take(chosen)
        here: list[Place] = [(flow.name, shard, row) for row in chosen]
        places += here
        if verdicts:
            judged += [verdicts.get(place) for place in _find_pictures(part, here)]
        for name, kind in kinds.items():
            present = name in part.column_names
            columns[name] += convert_values(kind, part[name].to_pylist()) if present else [None] * len(chosen)
    _add_verdicts(columns, judged)
    limits = {name: (limit, measures[name].typical) for name, limit in flow.limits.items() if name in measures}
    note = f"Of this long table, one row in {step} is in the page." if step > 1 else ""
    if not flow.accounting.complete:
        note = f"{note} The flow is still in progress.".strip()
    has_pictures = bool(flow.roles.panels)
    gallery = Gallery(flow.anchor, flow.name, flow.survey.rows, columns, limits, bare=not has_pictures, note=note)
    by_place = {place: row for row, place in enumerate(places)}
    return PageTable(
        gallery,
        dict(enumerate(places)) if has_pictures else {},
        [by_place[place] for place in pictured if place in by_place],
        stored={
            row: bytes.fromhex(text)
            for row, text in enumerate(columns.get(stored, ()))
            if text and STORED.fullmatch(text)
        },
    )


def _find_pictures(part: pa.Table, places: Sequence[Place]) -> list[Place]:
    """Find where the pictures of rows are, which may refer to those of another flow of the run."""
    if "ref_shard" not in part.column_names:
        return list(places)
    references = part.select([name for name in RUN_REFERENCE if name in part.column_names]).to_pylist()
    return [find_pictures(row, place) for row, place in zip(references, places, strict=True)]


def _add_verdicts(columns: dict[str, list[Any]], judged: "Sequence[RowVerdict | None]") -> None:
    """Add people's verdicts on the rows, in place of those that the rows came with."""
    if not any(judged):
        return
    former = columns.get("verdict", [None] * len(judged))
    pairs = zip(judged, former, strict=True)
    columns["verdict"] = [before if row is None else row.verdict or "tie" for row, before in pairs]
    columns["verdict_reason"] = convert_values(Kind.STRING, [row and row.reason for row in judged])
    columns["verdict_votes"] = [row and row.votes for row in judged]


def _build_rejected(
    run: Store, flow: ReportFlow, upstream: Sequence[ReportFlow], rows: int, most_values: int
) -> PageTable | None:
    """Build the table of a flow's rejected and failed inputs, with the values that they have as rows of another flow;
    None where there are none.
    """
    total = sum(stage.rejected.total() + stage.failed.total() for stage in flow.accounting.stages)
    if not total:
        return None
    numbers = list(dict.fromkeys([*flow.limits, *(name for other in upstream for name in list_numbers(other))]))
    step = _choose_step(total, len(REJECTION) + len(DESCRIBED) + len(numbers) + 2, most_values)
    sample = [row for index, row in enumerate(iterate_rejections(run, flow)) if index % step == 0]
    stored = find_rows(run, upstream, {str(row["input_id"]) for row in sample}, [*DESCRIBED, *numbers])
    columns: dict[str, list[Any]] = {name: [] for name in ("id", *REJECTION, ROW_OF, *DESCRIBED, *numbers)}
    pictured = {other.name for other in upstream if other.roles.panels}
    places: dict[int, Place] = {}
    by_reason: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(sample):
        match = stored.get(str(row["input_id"]))
        values = {**(match.values if match else {}), **parse_detail(row, flow.limits)}
        columns["id"] += convert_values(Kind.STRING, [row["id"] or row["input_id"]])
        for name in REJECTION:
            columns[name] += convert_values(Kind.STRING, [row[name]])
        columns[ROW_OF].append(match.place[0] if match else None)
        for name in DESCRIBED:
            columns[name] += convert_values(Kind.STRING, [values.get(name)])
        for name in numbers:
            value = values.get(name)
            columns[name] += convert_values(Kind.FLOAT, [value if isinstance(value, int | float) else None])
        if match and match.place[0] in pictured:
            places[index] = match.place
            by_reason[tuple(str(row[key]) for key in ("stage", "outcome", "reason"))].append(index)
    limits = {name: (limit, None) for name, limit in flow.limits.items()}
    gallery = Gallery(
        f"{flow.anchor}-rejected", f"{flow.name}, rejected", total, columns, limits, of=flow.anchor, bare=not places
    )
    if step > 1:
        gallery.note = f"Of these many inputs, one in {step} is in the page."
    return PageTable(gallery, places, _take_turns(list(by_reason.values()))[:rows])


def _take_turns(groups: Sequence[Sequence[int]]) -> list[int]:
    """Return the first of each group, then the second of each, and so on.

    Examples:
        >>> _take_turns([[1, 2, 3], [7], [8, 9]])
        [1, 7, 8, 2, 9, 3]
    """
    turns = [(turn, number, item) for number, group in enumerate(groups) for turn, item in enumerate(group)]
    return [item for _, _, item in sorted(turns)]


def add_pictures(
    run: Store,
    tables: Sequence[PageTable],
    flows: Mapping[str, ReportFlow],
    side: int,
    files: PictureFiles,
    full: bool = False,
    advance: Callable[[int], None] = lambda rows: None,
) -> None:
    """Make the pictures of the tables' first rows.

    Args:
        flows: by name. side: of the pictures, px.
        full: store them at full size, too.
        advance: called with the number of rows that were done.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for table in tables:
            for chunk in _iterate_chunks(table):
                flow = flows[chunk[0][1][0]]
                places = [place for _, place in chunk]
                raws = thumbnails.read_examples(run, places, flow.columns, flow.roles.columns)
                small = pool.map(partial(thumbnails.build_example, roles=flow.roles, side=side), raws)
                large = pool.map(
                    partial(thumbnails.build_example, roles=flow.roles, side=FULL_SIDE), raws if full else []
                )
                for (row, _), example in zip(chunk, small, strict=True):
                    entry = describe_example(example, files.add, next(large) if full else None)
                    table.gallery.pictures[row] = entry
                    if example.fingerprint:
                        table.fingerprints[row] = example.fingerprint
                advance(len(chunk))


def _iterate_chunks(table: PageTable) -> Iterator[list[tuple[int, Place]]]:
    """Yield rows and places, a few of one table at a time, in the order in which they are stored."""
    entries = sorted(((row, table.places[row]) for row in table.first), key=lambda entry: entry[1])
    chunk: list[tuple[int, Place]] = []
    for entry in entries:
        if chunk and (len(chunk) == CHUNK_ROWS or entry[1][0] != chunk[0][1][0]):
            yield chunk
            chunk = []
        chunk.append(entry)
    if chunk:
        yield chunk


def compare_stored_fingerprints(tables: Sequence[PageTable]) -> None:
    """Find near-duplicates among all rows whose fingerprints are stored, and let the first of them have pictures.

    Of a table without stored ones, or without pictures, the rows with pictures are compared later (`find_pairs`).
    """
    for table in tables:
        if not table.stored or table.gallery.bare:
            continue
        scenes, splits = _list_scenes(table)
        groups: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        for row in table.stored:
            groups[scenes[row] if scenes[row] is not None else row, splits[row]].append(row)
        rows = sorted(row for group in groups.values() for row in group[:: -(-len(group) // MOST_OF_SCENE)])
        table.near = _find_near(table, table.stored, rows)
        shown = sorted(table.near, key=lambda pair: splits[pair[0]] == splits[pair[1]])[:MOST_PAIRS]
        table.first = list(dict.fromkeys([*table.first, *(row for pair in shown for row in pair)]))


def find_pairs(tables: Sequence[PageTable]) -> tuple[list[dict[str, Any]], int]:
    """Find near-duplicates: those in two splits first, then those that a stage rejected as duplicates beside the rows
    that stayed.

    Returns:
        The first pairs, as the page reads them, and how many there are in all.
    """
    pairs = [pair for table in tables if not table.gallery.of for pair in _find_similar(table)]
    kept = {table.gallery.id: table for table in tables}
    pairs += [
        pair
        for table in tables
        if table.gallery.of in kept
        for pair in _find_rejected_duplicates(table, kept[table.gallery.of])
    ]
    pairs.sort(key=lambda pair: not pair["note"].startswith(LEAK))
    return pairs[:MOST_PAIRS], len(pairs)


def _find_similar(table: PageTable) -> Iterator[dict[str, Any]]:
    """Yield the pairs of a table's rows whose pictures are nearly the same."""
    near = table.near
    if near is None:
        near = _find_near(table, table.fingerprints, sorted(table.fingerprints)[:MOST_COMPARED])
    _, splits = _list_scenes(table)
    for first, second in near:
        is_leak = splits[first] != splits[second]
        note = f"{LEAK}: {splits[first]} and {splits[second]}"[:200] if is_leak else ""
        yield {"rows": [[table.gallery.id, first], [table.gallery.id, second]], "note": note}


def _list_scenes(table: PageTable) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the scene and the split of each row of a table."""
    columns, nothing = table.gallery.columns, [None] * table.gallery.count
    return columns.get("scene_id") or nothing, columns.get("split") or nothing


def _find_near(table: PageTable, fingerprints: Mapping[int, bytes], rows: Sequence[int]) -> list[tuple[int, int]]:
    """Find the pairs of rows whose fingerprints are near each other, and that are of two scenes or splits."""
    scenes, splits = _list_scenes(table)
    pairs = ((rows[i], rows[j]) for i, j in find_near_duplicates([fingerprints[row] for row in rows]))
    return [
        (first, second)
        for first, second in pairs  # candidates of one scene show the same picture
        if scenes[first] is None or scenes[first] != scenes[second] or splits[first] != splits[second]
    ]


def _find_rejected_duplicates(rejected: PageTable, kept: PageTable) -> Iterator[dict[str, Any]]:
    """Yield the inputs that a stage rejected as near-duplicates of rows, with these rows."""
    by_id = {id: row for row, id in enumerate(kept.gallery.columns.get("id", []))}
    columns = rejected.gallery.columns
    for row in rejected.gallery.pictures:
        original = NEAR_DUPLICATE_OF.match(columns["detail"][row] or "")
        stays = by_id.get(original[1]) if original else None
        if stays in kept.gallery.pictures and str(columns["reason"][row]).startswith("near-duplicate"):
            note = f"rejected by {columns['stage'][row]}: {columns['reason'][row]}"[:200]
            yield {"rows": [[kept.gallery.id, stays], [rejected.gallery.id, row]], "note": note}
