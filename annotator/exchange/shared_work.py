"""What people did beside voting, between the databases of a run in a bucket: corrected masks, rankings, drawings.

Each database writes files of its own there, and adds what it lacks from those of the others. Of two versions of a mask
or of a drawing the later one counts; the earlier one stays in the database in which it was made.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, func, insert, select

from rasura.annotator.exchange.vote_rows import BadVotes
from rasura.annotator.exchange.votes_file import CHUNK
from rasura.annotator.store.database import Database, log
from rasura.annotator.store.enums import Action
from rasura.annotator.store.reviewers import BadName, get_or_add_id, list_names
from rasura.annotator.store.team.corrections import PARTS
from rasura.annotator.store.team.tables import corrections, drawings, rankings
from rasura.manifests.images import decode_mask
from rasura.manifests.parquet import encode_parquet, read_parquet
from rasura.manifests.storage import Store

_BY = [("reviewer", pa.string()), ("time", pa.float64())]
SCHEMAS = {
    "corrections": pa.schema(
        [("nonce", pa.string()), ("part", pa.string()), ("png", pa.binary()), ("steps", pa.int64())]
    ),
    "rankings": pa.schema(
        [("nonce", pa.string()), *_BY]
        + [(name, pa.string()) for name in ("scene", "shown", "ranking")]
        + [("seconds", pa.float64())]
    ),
    "drawings": pa.schema([("photo", pa.string()), *_BY, ("value", pa.string())]),
}
"""Columns of the files, by the folder beside the votes."""
_OPTIONAL = ("png", "seconds", "value")
CheckDrawing = Callable[[bytes], object]


def share_work(connection: Connection, out: Store, review_id: str) -> None:
    """Write a database's corrected masks, rankings and drawings beside those of others.

    Raises:
        StoreError: the target cannot be written.
    """
    names = list_names(connection)
    selections = {
        "corrections": select(corrections, log.c.nonce).join(log, log.c.seq == corrections.c.seq),
        "rankings": select(rankings),
        "drawings": select(drawings),
    }
    for name, selection in selections.items():
        rows = [dict(row._mapping) for row in connection.execute(selection.order_by(selection.selected_columns.seq))]
        if rows:
            named = [{**row, "reviewer": names.get(row.get("reviewer", 0))} for row in rows]
            out.write(f"{name}/{review_id}.parquet", encode_parquet(pa.Table.from_pylist(named, SCHEMAS[name])))


def fetch_work(folder: Store, database: Database, check_drawing: CheckDrawing | None) -> None:
    """Add what people did in other databases; each piece is added once. Their votes are to be there already.

    Args:
        folder: of the run's review.
        database: of the review.
        check_drawing: raises a ValueError for a drawing that is none; None: drawings are left out.

    Raises:
        StoreError: the run cannot be read.
        BadVotes: a file is damaged.
    """
    adders = {"corrections": _add_corrections, "rankings": _add_rankings, "drawings": _add_drawings}
    for name, add in adders.items():
        if name == "drawings" and check_drawing is None:
            continue
        for file in sorted(folder.sub(name).files()):
            if file.endswith(".parquet") and file != f"{database.review_id}.parquet":
                try:
                    rows = _read_rows(folder, f"{name}/{file}", SCHEMAS[name])
                    for row in rows:
                        _check_row(row, check_drawing)
                    for start in range(0, len(rows), CHUNK):  # votes of people wait for one chunk at most
                        database.write(partial(add, rows=rows[start : start + CHUNK]))
                except (pa.ArrowException, KeyError, ValueError, BadName) as error:
                    raise BadVotes(f"'{folder.uri}/{name}/{file}' cannot be read: {error}") from None


def _read_rows(folder: Store, file: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Read a file with the columns of a schema.

    Raises:
        ArrowException, KeyError, ValueError: it is none.
    """
    with folder.open(file) as source:
        rows: list[dict[str, Any]] = read_parquet(source).select(schema.names).cast(schema).to_pylist()
    for row in rows:
        if missing := [name for name, value in row.items() if value is None and name not in _OPTIONAL]:
            raise ValueError(f"a row has no {', '.join(missing)}")
    return rows


def _check_row(row: Mapping[str, Any], check_drawing: CheckDrawing | None) -> None:
    """Check the values that others' pages and programs will read.

    Raises:
        ValueError: one of them is wrong.
    """
    if "part" in row and row["part"] not in PARTS:
        raise ValueError(f"a mask of '{row['part']!s:.40}'")
    for name in ("shown", "ranking"):
        if name in row:
            value = json.loads(row[name])
            groups = value if name == "ranking" else [value]
            if not isinstance(groups, list) or not all(map(_is_list_of_texts, groups)):
                raise ValueError(f"a {name} that is no list of items: {row[name]:.40}")
    if row.get("value") is not None and check_drawing is not None:
        check_drawing(row["value"].encode())


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _add_corrections(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        named = (log.c.nonce == row["nonce"], log.c.action == Action.CORRECT)
        entry = connection.execute(select(log).where(*named)).first()
        same = select(corrections.c.seq).where(corrections.c.seq == (entry.seq if entry else None))
        if entry is None or connection.execute(same).first():
            continue  # of an item that this run does not have, or here already
        conditions = (corrections.c.item == entry.item, corrections.c.part == row["part"])
        newest = connection.execute(
            select(corrections.c.version, log.c.time)
            .join(log, log.c.seq == corrections.c.seq)
            .where(*conditions)
            .order_by(corrections.c.version.desc())
        ).first()
        if newest is None or newest.time < entry.time:
            values = {name: row[name] for name in ("part", "png", "steps")}
            height, width = decode_mask(row["png"]).shape if row["png"] is not None else (0, 0)
            values |= {"item": entry.item, "version": newest.version + 1 if newest else 1}
            connection.execute(insert(corrections).values(seq=entry.seq, width=width, height=height, **values))


def _add_rankings(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        if connection.execute(select(rankings.c.seq).where(rankings.c.nonce == row["nonce"])).first() is None:
            connection.execute(insert(rankings).values({**row, "reviewer": get_or_add_id(connection, row["reviewer"])}))


def _add_drawings(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        newest = connection.execute(
            select(func.max(drawings.c.version), func.max(drawings.c.time)).where(drawings.c.photo == row["photo"])
        ).one()
        if newest[0] is None or newest[1] < row["time"]:
            values = {**row, "reviewer": get_or_add_id(connection, row["reviewer"]), "version": (newest[0] or 0) + 1}
            connection.execute(insert(drawings).values(values))
