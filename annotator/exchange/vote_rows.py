"""Rows of votes files: the columns, their types, and the check of rows from outside."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

import pyarrow as pa

from rasura.annotator.store.enums import Action, Verdict
from rasura.annotator.store.reviewers import BadName, check_name
from rasura.manifests.errors import ReviewError

ENTRY_COLUMNS = (
    *("seq", "time", "action", "verdict", "reason", "remark", "seconds", "replaces"),
    *("guidelines", "version", "nonce"),
)
"""Columns of the log, without item and reviewer."""
INCLUSION_COLUMNS = ("inclusion", "complete")
"""Columns of a review that asks a scene's candidates until a yes (`annotator.store.best_first`), and of no other."""
ITEM_COLUMNS = ("row_id", "flow", "place_table", "place_shard", "place_row", "variant", "kind", "expected")
"""Columns of the item, so that a vote can be read without the database."""
_TYPES = {
    **dict.fromkeys(("seq", "replaces", "place_row"), pa.int64()),
    **dict.fromkeys(("time", "seconds", "inclusion"), pa.float64()),
    "complete": pa.bool_(),
}
VOTES = pa.schema(
    [(name, _TYPES.get(name, pa.string())) for name in ("item", "reviewer", *ENTRY_COLUMNS, *ITEM_COLUMNS)]
)
_BEST_FIRST_VOTES = pa.schema([*VOTES, *((name, _TYPES[name]) for name in INCLUSION_COLUMNS)])
VERDICTS = pa.schema(
    [
        *((name, pa.string()) for name in ("item", "row_id", "flow", "verdict")),
        ("share", pa.float64()),
        *((name, pa.int64()) for name in ("votes", "yes", "no", "unsure")),
        *((name, pa.string()) for name in ("reason", "remover")),
        ("round", pa.int64()),
        ("score", pa.float64()),
    ]
)
_RULED_VERDICTS = pa.schema([*VERDICTS, ("by_expert", pa.bool_())])

_WORDS = {"action": Action, "verdict": Verdict}
_REASON = re.compile(r"[a-z][a-z0-9_]{0,15}")
"""A reason of the page, or one that an admin named."""
_WHOLE_NUMBERS = ("seq", "replaces", "place_row")
_TEXTS = (
    *("item", "reviewer", "nonce", "remark", "guidelines", "version"),
    *(name for name in ITEM_COLUMNS if name not in _WHOLE_NUMBERS),
)
_NUMBERS = ("time", "seconds")


class BadVotes(ReviewError):
    """A votes file that cannot be read. The text says where the fault is, and what it is."""


class VoteRow(TypedDict):
    """A row of a votes file: an entry of the log (`annotator.store.vote_log.LogEntry`) with its item's row.

    `reviewer` is the name, not the id. A file from elsewhere may lack the columns that are `NotRequired`.
    """

    item: str
    reviewer: str
    time: float
    action: str
    nonce: str
    seq: NotRequired[int | None]
    verdict: NotRequired[str | None]
    reason: NotRequired[str | None]
    remark: NotRequired[str | None]
    seconds: NotRequired[float | None]
    replaces: NotRequired[int | None]
    guidelines: NotRequired[str | None]
    version: NotRequired[str | None]
    row_id: NotRequired[str | None]
    flow: NotRequired[str | None]
    place_table: NotRequired[str | None]
    place_shard: NotRequired[str | None]
    place_row: NotRequired[int | None]
    variant: NotRequired[str | None]
    kind: NotRequired[str | None]
    expected: NotRequired[str | None]
    inclusion: NotRequired[float | None]
    complete: NotRequired[bool | None]


def tabulate_votes(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build the table of a votes file, with the columns of a review that asks best first where a row has them."""
    schema = _BEST_FIRST_VOTES if any(INCLUSION_COLUMNS[0] in row for row in rows) else VOTES
    return pa.Table.from_pylist(list(rows), schema)


def tabulate_verdicts(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build the table of verdicts, with `by_expert` where an expert overruled votes."""
    return pa.Table.from_pylist(list(rows), _RULED_VERDICTS if any(row["by_expert"] for row in rows) else VERDICTS)


def check_vote_row(row: Any, where: str) -> VoteRow:
    """Check that each value of a row is one that the log may have.

    Args:
        row: as it was read.
        where: file and number of the row, for the error's text.

    Raises:
        BadVotes: it is none.
    """
    if not isinstance(row, Mapping):
        raise BadVotes(f"{where}: not an entry: {row!r:.80}")
    for name in ("item", "reviewer", "time", "action", "nonce"):
        if row.get(name) is None:
            raise BadVotes(f"{where}: '{name}' is missing")
    for name, words in _WORDS.items():
        value = row.get(name)
        if value is not None and value not in tuple(words):
            raise BadVotes(f"{where}: {name} is '{value!s:.40}'; it can be {', '.join(words)}")
    reason = row.get("reason")
    if reason is not None and not (isinstance(reason, str) and _REASON.fullmatch(reason)):
        raise BadVotes(f"{where}: reason is '{reason!s:.40}'; it must be 1 to 16 small letters, digits and _")
    for name in _TEXTS:
        value = row.get(name)
        if value is not None and (not isinstance(value, str) or "\0" in value or len(value) > 2000):
            raise BadVotes(f"{where}: {name} is no text of at most 2000 letters")
    for name in _NUMBERS:
        value = row.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value < 1e11):
            raise BadVotes(f"{where}: {name} is {value!r:.40}; it must be a number from 0 to 1e11")
    for name in _WHOLE_NUMBERS:
        value = row.get(name)
        if value is not None and not (isinstance(value, int) and 0 <= value < 2**63):
            raise BadVotes(f"{where}: {name} is {value!r:.40}; it must be a whole number from 0")
    try:
        check_name(row["reviewer"])
    except BadName as error:
        raise BadVotes(f"{where}: {error}") from None
    inclusion = row.get("inclusion")
    if inclusion is not None and not (isinstance(inclusion, int | float) and 0 < inclusion <= 1):
        raise BadVotes(f"{where}: inclusion is {inclusion!r:.40}; it must be a probability above 0")
    if not isinstance(row.get("complete"), bool | None):
        raise BadVotes(f"{where}: complete is {row['complete']!r:.40}; it must be true or false")
    if len(row["item"]) > 32 or len(row["nonce"]) > 64:
        raise BadVotes(f"{where}: item or nonce is too long")
    if row["action"] in (Action.VOTE, Action.EDIT, Action.RESTORE) and row.get("verdict") is None:
        raise BadVotes(f"{where}: a {row['action']} without a verdict")
    if row["action"] in (Action.SKIP, Action.UNDO, Action.FLAG) and row.get("verdict") is not None:
        raise BadVotes(f"{where}: a {row['action']} with the verdict {row['verdict']}; it can have none")
    return cast(VoteRow, dict(row))
