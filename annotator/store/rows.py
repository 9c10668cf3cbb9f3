"""The rows of a run that can be reviewed: those that have a source, a mask and a target."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rasura.manifests.errors import ReviewError
from rasura.manifests.run_layout import read_plan
from rasura.manifests.schemas import CANDIDATE_KINDS, PICTURES
from rasura.manifests.storage import Store
from rasura.manifests.tables import Table, Tables, find_pictures

REQUIRED_PICTURES = ("source", "target", "mask")
LIGHT_COLUMNS = (
    *("scene_id", "kind", "label", "remover", "round", "score", "verdict", "hole_dilation"),
    *("ref_table", "ref_shard", "ref_row", "ref_run"),
)


class NothingToReview(ReviewError):
    """A run has no row to review."""


@dataclass(frozen=True)
class ReviewableRow:
    """A row of a run that can be reviewed.

    Attributes:
        id: of the row.
        flow: that has it.
        place: table, shard and row of its pictures.
        scene: id of its scene; the row's own id where it has none.
        kind: captured, simulated, inserted or edited.
        label: class of its object.
        remover: that made it.
        round: of the loop in which it was made.
        score: that a discriminator gave it.
        dilation: px by which the remover dilated the mask.
        judged: True where it has a verdict already.
    """

    id: str
    flow: str
    place: tuple[str, str, int]
    scene: str
    kind: str
    label: str | None = None
    remover: str | None = None
    round: int | None = None
    score: float | None = None
    dilation: int | None = None
    judged: bool = False


def _iterate_rows(table: Table) -> Iterator[ReviewableRow]:
    if "kind" not in table.schema or not set(REQUIRED_PICTURES) <= set(table.full_schema):
        return
    if not any(kind in PICTURES for kind in table.schema.values()) and "ref_shard" not in table.schema:
        return
    light = table.read_light(LIGHT_COLUMNS)
    columns = {name: light[name].to_pylist() for name in light.column_names}
    nothing = [None] * light.num_rows
    for index, id in enumerate(columns["id"]):
        value = {name: columns.get(name, nothing)[index] for name in LIGHT_COLUMNS}
        yield ReviewableRow(
            id=id,
            flow=table.name,
            place=find_pictures(value, (table.name, columns["shard"][index], columns["row"][index])),
            scene=value["scene_id"] or id,
            kind=value["kind"],
            label=value["label"],
            remover=value["remover"],
            round=value["round"],
            score=value["score"],
            dilation=None if value["hole_dilation"] is None else int(value["hole_dilation"]),
            judged=value["verdict"] is not None,
        )


def list_rows(run: Store, flows: Sequence[str] = ()) -> list[ReviewableRow]:
    """List the rows that have a source, mask and target.

    A row that is in several flows (made in one, scored or selected in another) is taken from the last of them.

    Args:
        run: to read.
        flows: only these, as far as they are complete; all where none is named.

    Raises:
        NoRun: it is no run.
        NothingToReview: it has no such flow.
    """
    tables, rows = Tables(run), dict[str, ReviewableRow]()
    complete = set(tables.names())
    plan = read_plan(run)
    names = list(plan.flows)
    if unknown := [flow for flow in flows if flow not in names]:
        raise NothingToReview(f"{run.uri} has no flow '{unknown[0]}' (it has: {', '.join(names)})")
    for flow in names:
        if flow in complete and flow in (flows or plan.main_flows):
            rows |= {row.id: row for row in _iterate_rows(tables.table(flow))}
    return list(rows.values())


def list_reviewed(run: Store, flows: Sequence[str] = ()) -> list[ReviewableRow]:
    """List the rows that people are asked about, those with a verdict among them.

    Args:
        run: to read.
        flows: all rows of these, of whatever kind; where none is named, the candidates, and where the run has none of
            them, its triplets: the rows of the flows of its dataset.

    Raises:
        NoRun: it is no run.
        NothingToReview: it has no such flow, or nothing to review.
    """
    rows = list_rows(run, flows)
    if not flows:
        rows = [row for row in rows if row.kind in CANDIDATE_KINDS] or _select_of_dataset(run, rows)
    if not rows:
        where = f"flow {' or '.join(map(repr, flows))} of {run.uri}" if flows else run.uri
        raise NothingToReview(
            f"{where} has nothing to review: no complete table with the columns {', '.join(REQUIRED_PICTURES)}"
        )
    return rows


def list_true(run: Store, reviewed: Iterable[ReviewableRow]) -> list[ReviewableRow]:
    """List the rows with a true target that nobody is asked about: those of the dataset's flows, where it has any."""
    asked = {row.place for row in reviewed}
    rows = [row for row in list_rows(run) if row.kind in ("captured", "simulated")]
    return [row for row in _select_of_dataset(run, rows) or rows if row.place not in asked]


def _select_of_dataset(run: Store, rows: Sequence[ReviewableRow]) -> list[ReviewableRow]:
    dataset = read_plan(run).dataset
    return list(rows) if dataset is None else [row for row in rows if row.flow in dataset]
