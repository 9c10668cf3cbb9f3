"""The verdicts of people on the rows of a run, for whatever reads the rows: the dataset, its report, an export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasura.annotator.exchange.vote_rows import VERDICTS, BadVotes
from rasura.annotator.exchange.votes_file import compute_verdicts
from rasura.annotator.store.database import Database, read_file
from rasura.annotator.store.enums import Variant
from rasura.annotator.store.items import compute_item_id
from rasura.annotator.store.rows import list_rows
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import PUBLISHED_VERDICTS, REVIEW_DATABASE
from rasura.manifests.storage import Store


@dataclass(frozen=True)
class RowVerdict:
    """People's verdict on a row.

    Attributes:
        verdict: yes, no or unsure; None for a tie.
        reason: of a no, the most frequent one; None where none was given.
        share: of the votes that the leading verdict has.
        votes: their number.
        by_expert: an expert overruled the votes.
        flow: from which the row was reviewed.
        place: of the pictures that were judged: table, shard and row.
    """

    verdict: str | None
    reason: str | None
    share: float
    votes: int
    by_expert: bool = False
    flow: str = ""
    place: tuple[str, str, int] | None = None


def read_verdicts(
    run: Store, database: str | None = None, weighted: bool = False, flows: Sequence[str] = ()
) -> dict[str, RowVerdict]:
    """Read people's verdicts on the rows of a run, by row id.

    Only verdicts on the pictures that the run has now count: a row that was made again since is one that nobody has
    seen. Nothing is written, also where the review is being served meanwhile.

    Args:
        run: to read.
        database: URL or file of the review; None: the one in the run, or else what a server published into it.
        weighted: True to weight the votes by each reviewer's answers on known items (not of a published review).
        flows: of the rows; all where none is named.

    Raises:
        NoDatabase: the database that was named is not there or cannot be read.
        BadVotes: what a server has published cannot be read.
        NothingToReview: the run has no such flow.
    """
    rows = {compute_item_id(row.place, Variant.TARGET): row for row in list_rows(run, flows)}
    verdicts = {}
    for value in _read_rows(run, database, weighted):
        if (row := rows.get(value["item"])) is not None:
            figures = (value["verdict"], value["reason"], value["share"], value["votes"])
            verdicts[row.id] = RowVerdict(*figures, bool(value.get("by_expert")), value["flow"], row.place)
    return verdicts


def _read_rows(run: Store, database: str | None, weighted: bool) -> Sequence[Mapping[str, Any]]:
    place = run.find(REVIEW_DATABASE) if database is None else None
    if place is not None and place.is_file():
        with read_file(place) as connection:
            return compute_verdicts(connection, weighted)
    if database is not None:
        if "://" not in database:
            with read_file(Path(database)) as connection:
                return compute_verdicts(connection, weighted)
        opened = Database(database, create=False)
        try:
            with opened.read() as connection:
                return compute_verdicts(connection, weighted)
        finally:
            opened.close()
    if run.exists(PUBLISHED_VERDICTS):
        try:
            with run.open(PUBLISHED_VERDICTS) as source:
                table = read_parquet(source)
        except (pa.ArrowException, OSError) as error:
            raise BadVotes(f"'{run.uri}/{PUBLISHED_VERDICTS}' cannot be read: {error}") from None
        if missing := set(VERDICTS.names) - set(table.column_names):
            raise BadVotes(f"'{run.uri}/{PUBLISHED_VERDICTS}' has no column {', '.join(sorted(missing))}")
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    return ()
