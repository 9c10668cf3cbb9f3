"""Corrected masks: every version is kept, each with its entry of the log, and the newest counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, and_, func, insert, select

from rasura.annotator.store.database import items, log
from rasura.annotator.store.enums import Action, ItemKind
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import corrections, has_team_tables
from rasura.annotator.store.vote_log import (
    Submission,
    UnknownItem,
    WithdrawnItem,
    append_entry,
    find_earlier_entry,
    may_view,
)

Part = Literal["mask", "foreground_mask"]
"""The mask of the object, and that of the object with its effects."""
PARTS: tuple[str, ...] = get_args(Part)


@dataclass(frozen=True)
class CorrectedMask:
    """A mask as a reviewer corrected it.

    Attributes:
        part: a word of `Part`.
        width, height: px.
        png: 1-bit; None withdraws what was corrected before.
        steps: strokes and clicks that it took.
    """

    part: str
    width: int
    height: int
    png: bytes | None
    steps: int


def add_correction(
    connection: Connection, reviewer: Reviewer, submission: Submission, mask: CorrectedMask, now: float
) -> int:
    """Log a corrected mask as the next version, and return its number; the same nonce twice is one version.

    Raises:
        UnknownItem: the item was not leased to the reviewer.
        WithdrawnItem: the run no longer has it.
        ReusedNonce: the nonce is that of a different entry.
    """
    if earlier := find_earlier_entry(
        connection, reviewer.id, submission.nonce, (Action.CORRECT,), item=submission.item
    ):
        return int(
            connection.execute(select(corrections.c.version).where(corrections.c.seq == earlier.seq)).scalar_one()
        )
    if not may_view(connection, reviewer, submission.item):
        raise UnknownItem("this item was not given to you")
    if connection.execute(select(items.c.withdrawn).where(items.c.id == submission.item)).scalar():
        raise WithdrawnItem("the run no longer has this item")
    conditions = (corrections.c.item == submission.item, corrections.c.part == mask.part)
    version = (connection.execute(select(func.max(corrections.c.version)).where(*conditions)).scalar() or 0) + 1
    seq = append_entry(connection, reviewer.id, submission, Action.CORRECT, now)
    values = {"part": mask.part, "width": mask.width, "height": mask.height, "png": mask.png, "steps": mask.steps}
    connection.execute(insert(corrections).values(seq=seq, item=submission.item, version=version, **values))
    return version


def find_correction(connection: Connection, item: str, part: str) -> Any | None:
    """Find the newest version of an item's mask; None where it was never corrected."""
    conditions = (corrections.c.item == item, corrections.c.part == part)
    return connection.execute(
        select(corrections).where(*conditions).order_by(corrections.c.version.desc()).limit(1)
    ).first()


def list_versions(connection: Connection, item: str) -> list[Any]:
    """List the versions of an item's masks with reviewer and time, each mask's newest first."""
    columns = [column for column in corrections.c if column.name != "png"]
    statement = (
        select(*columns, log.c.reviewer, log.c.time)
        .join(log, log.c.seq == corrections.c.seq)
        .where(corrections.c.item == item)
        .order_by(corrections.c.part, corrections.c.version.desc())
    )
    return list(connection.execute(statement))


def list_corrections(connection: Connection) -> Sequence[Any]:
    """List the newest version of each mask that was corrected, with its item's row, reviewer and time.

    A mask that was put back has none. Items that the run has lost are left out: their pictures were made again.
    """
    if not has_team_tables(connection):
        return []
    keys = (corrections.c.item, corrections.c.part)
    newest = select(*keys, func.max(corrections.c.version).label("version")).group_by(*keys).subquery()
    columns = [items.c[name] for name in ("row_id", "flow", "place_table", "place_shard", "place_row")]
    statement = (
        select(corrections, *columns, log.c.reviewer, log.c.time)
        .join(items, items.c.id == corrections.c.item)
        .join(log, log.c.seq == corrections.c.seq)
        .join(newest, and_(*(newest.c[name] == corrections.c[name] for name in ("item", "part", "version"))))
        .where(corrections.c.png.is_not(None), ~items.c.withdrawn)
        .where(items.c.kind == ItemKind.CANDIDATE)
        .order_by(items.c.row_id, corrections.c.part)
    )
    return connection.execute(statement).all()
