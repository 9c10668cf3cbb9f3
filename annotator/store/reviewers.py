"""Reviewers, the links that they sign in with, and their sessions. Of tokens and cookies only hashes are stored.

The token of a link begins one session and is worth nothing then: it may stay in the history of a browser or a chat.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from rasura.annotator.store.database import leases as lease_table
from rasura.annotator.store.database import reviewers, sessions
from rasura.annotator.store.team.tables import metadata
from rasura.manifests.errors import ReviewError

SESSION_S = 30 * 24 * 3600.0
LINK_S = 7 * 24 * 3600.0
"""Seconds for which a link can be used."""
NAME_LENGTH = 64

links = Table(
    "links",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 of the token
    Column("reviewer", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)
_OWNER_OF_SESSION = (
    select(reviewers.c.id, reviewers.c.name, reviewers.c.admin)
    .join(sessions, sessions.c.reviewer == reviewers.c.id)
    .where(sessions.c.id == bindparam("session"), sessions.c.expires > bindparam("now"), reviewers.c.token.is_not(None))
)


class BadName(ReviewError):
    """A reviewer's name that is not allowed, or taken, or that nobody has."""


@dataclass(frozen=True)
class Reviewer:
    """A reviewer who is signed in."""

    id: int
    name: str
    admin: bool


def hash_secret(secret: str) -> str:
    """Hash a token or cookie. They have 256 random bits, so that a plain hash cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def check_name(name: str) -> str:
    """Return a reviewer's name without spaces around it.

    Raises:
        BadName: it is not allowed.
    """
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadName(f"reviewer '{name}': give 1 to {NAME_LENGTH} printable characters")
    return name


def check_distinct(connection: Connection, name: str, reviewer: int | None = None) -> None:
    """Check that no name differs from a reviewer's in letters' case only: nobody could tell the two apart.

    Args:
        connection: to the database.
        name: of a reviewer who is added, or renamed.
        reviewer: who is renamed.

    Raises:
        BadName: there is one.
    """
    for other_id, other in list_names(connection).items():
        if other_id != reviewer and other != name and other.casefold() == name.casefold():
            raise BadName(f"'{name}' differs from reviewer '{other}' in the letters' case only; choose another name")


def add_reviewer(connection: Connection, name: str, admin: bool = False) -> str:
    """Add a reviewer, or let one of imported votes sign in.

    Returns:
        The token of a link, for one sign-in within a week. Only its hash is stored.

    Raises:
        BadName: the name is not allowed, taken, or differs from another in letters' case only.
    """
    name = check_name(name)
    check_distinct(connection, name)
    existing = connection.execute(select(reviewers.c.token).where(reviewers.c.name == name)).first()
    if existing and existing.token:
        raise BadName(f"there is a reviewer '{name}' already; `rasura review new-token` makes another token")
    if not existing:
        connection.execute(insert(reviewers).values(name=name, admin=admin, created=time.time()))
    return renew_token(connection, name, admin)


def renew_token(connection: Connection, name: str, admin: bool | None = None, keep: bool = False) -> str:
    """Make the token of a new link for a reviewer.

    Args:
        connection: of the writer.
        name: of the reviewer.
        admin: True for an admin; None leaves it.
        keep: keep earlier links and all sessions, as for another device; else they end.

    Raises:
        BadName: there is no such reviewer.
    """
    now = time.time()
    reviewer_id = _allow(connection, name, True, admin, keep)
    token = secrets.token_urlsafe(32)
    connection.execute(delete(links).where(links.c.expires < now))
    connection.execute(insert(links).values(id=hash_secret(token), reviewer=reviewer_id, expires=now + LINK_S))
    return token


def remove_reviewer(connection: Connection, name: str) -> None:
    """Sign a reviewer out for good. The votes stay.

    Raises:
        BadName: there is no such reviewer.
    """
    reviewer_id = _allow(connection, name, False, False, False)
    # the next sweep gives the open items back
    of_reviewer = lease_table.c.reviewer == reviewer_id
    connection.execute(update(lease_table).where(of_reviewer, lease_table.c.live).values(expires=0.0))


def _allow(connection: Connection, name: str, is_allowed: bool, admin: bool | None, keep: bool) -> int:
    """Set whether a reviewer may sign in, end links and sessions unless they are kept, and return the id."""
    # the column says who may sign in; its value is the hash of a token that nobody knows
    values: dict[str, object] = {"token": hash_secret(secrets.token_urlsafe(32)) if is_allowed else None}
    values |= {} if admin is None else {"admin": admin}
    statement = update(reviewers).where(reviewers.c.name == name).values(**values).returning(reviewers.c.id)
    row = connection.execute(statement).first()
    if row is None:
        raise BadName(f"there is no reviewer '{name}'; `rasura review add-reviewer` adds one")
    if not keep:
        connection.execute(delete(sessions).where(sessions.c.reviewer == row.id))
        connection.execute(delete(links).where(links.c.reviewer == row.id))
    return int(row.id)


def get_or_add_id(connection: Connection, name: str) -> int:
    """Return a reviewer's id; one who is new, from imported votes, is added without a token.

    Raises:
        BadName: the name of a new reviewer is not allowed.
    """
    reviewer_id = connection.execute(select(reviewers.c.id).where(reviewers.c.name == name)).scalar()
    if reviewer_id is None:
        statement = insert(reviewers).values(name=check_name(name), created=time.time()).returning(reviewers.c.id)
        reviewer_id = connection.execute(statement).scalar_one()
    return int(reviewer_id)


def list_names(connection: Connection) -> dict[int, str]:
    """Return the names of all reviewers by their ids."""
    return {row.id: row.name for row in connection.execute(select(reviewers.c.id, reviewers.c.name))}


def is_token(connection: Connection, token: str, now: float) -> bool:
    """Return True for the token of a link that can be used."""
    return _find_owner(connection, token, now) is not None


def _find_owner(connection: Connection, token: str, now: float) -> int | None:
    """Find the reviewer of a token: of a link, or one of an older version, which was kept beside the name."""
    of_link = (links.c.id == hash_secret(token), links.c.expires > now)
    owner = connection.execute(select(links.c.reviewer).where(*of_link)).scalar()
    if owner is None:
        owner = connection.execute(select(reviewers.c.id).where(reviewers.c.token == hash_secret(token))).scalar()
    return None if owner is None else int(owner)


def sign_in(connection: Connection, token: str, now: float) -> tuple[Reviewer, str] | None:
    """Begin a session, and use the token up.

    Returns:
        The reviewer and the cookie's value; None where the token is nobody's, was used, or has expired.
    """
    owner = _find_owner(connection, token, now)
    row = connection.execute(select(reviewers).where(reviewers.c.id == owner, reviewers.c.token.is_not(None))).first()
    if row is None:
        return None
    connection.execute(delete(links).where(links.c.id == hash_secret(token)))
    if row.token == hash_secret(token):
        connection.execute(
            update(reviewers).where(reviewers.c.id == row.id).values(token=hash_secret(secrets.token_urlsafe(32)))
        )
    cookie = secrets.token_urlsafe(32)
    connection.execute(delete(sessions).where(sessions.c.expires < now))
    connection.execute(insert(sessions).values(id=hash_secret(cookie), reviewer=row.id, expires=now + SESSION_S))
    return Reviewer(row.id, row.name, row.admin), cookie


def sign_out(connection: Connection, cookie: str) -> None:
    """End a session."""
    connection.execute(delete(sessions).where(sessions.c.id == hash_secret(cookie)))


def authenticate(connection: Connection, cookie: str, now: float) -> Reviewer | None:
    """Return the reviewer of a session; None where it has ended or never was."""
    row = connection.execute(_OWNER_OF_SESSION, {"session": hash_secret(cookie), "now": now}).first()
    return Reviewer(row.id, row.name, row.admin) if row else None


def count_active(connection: Connection) -> int:
    """Count the reviewers who can sign in."""
    return connection.execute(select(func.count()).where(reviewers.c.token.is_not(None))).scalar_one()
