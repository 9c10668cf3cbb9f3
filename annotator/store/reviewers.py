"""Who reviews: tokens to sign in with, and sessions. Of both only hashes are kept."""

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from rasura.annotator.store.database import leases as lease_table
from rasura.annotator.store.database import reviewers, sessions

SESSION_S = 30 * 24 * 3600.0
NAME_LENGTH = 64
_WHOSE = (
    select(reviewers.c.id, reviewers.c.name, reviewers.c.admin)
    .join(sessions, sessions.c.reviewer == reviewers.c.id)
    .where(sessions.c.id == bindparam("session"), sessions.c.expires > bindparam("now"), reviewers.c.token.is_not(None))
)


class BadName(ValueError):
    """A reviewer's name that cannot be, or is taken, or that nobody has."""


@dataclass(frozen=True)
class Reviewer:
    """One who is signed in."""

    id: int
    name: str
    admin: bool


def secret_hash(secret: str) -> str:
    """What is kept of a token or cookie. They hold 256 random bits, so that a plain hash cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadName(f"reviewer '{name}': give 1 to {NAME_LENGTH} printable characters")
    return name


def add_reviewer(connection: Connection, name: str, admin: bool = False) -> str:
    """Adds a reviewer, or one who is known from imported votes, and returns the token: it is not kept, only its hash.

    Raises:
        BadName
    """
    name = _checked(name)
    known = connection.execute(select(reviewers.c.token).where(reviewers.c.name == name)).first()
    if known and known.token:
        raise BadName(f"there is a reviewer '{name}' already; `rasura review new-token` makes another token")
    if not known:
        connection.execute(insert(reviewers).values(name=name, admin=admin, created=time.time()))
    return new_token(connection, name, admin)


def new_token(connection: Connection, name: str, admin: bool | None = None) -> str:
    """Gives a reviewer a new token; the old one and all sessions end.

    Raises:
        BadName
    """
    token = secrets.token_urlsafe(32)
    _set_token(connection, name, token, admin)
    return token


def remove_reviewer(connection: Connection, name: str) -> None:
    """Signs a reviewer out for good. The votes stay.

    Raises:
        BadName
    """
    _set_token(connection, name, None, False)


def _set_token(connection: Connection, name: str, token: str | None, admin: bool | None) -> None:
    values = {"token": secret_hash(token) if token else None} | ({} if admin is None else {"admin": admin})
    statement = update(reviewers).where(reviewers.c.name == name).values(**values).returning(reviewers.c.id)
    row = connection.execute(statement).first()
    if row is None:
        raise BadName(f"there is no reviewer '{name}'; `rasura review add-reviewer` adds one")
    connection.execute(delete(sessions).where(sessions.c.reviewer == row.id))
    if token is None:  # what is held goes back at the next look
        held = lease_table.c.reviewer == row.id
        connection.execute(update(lease_table).where(held, lease_table.c.live).values(expires=0.0))


def id_of(connection: Connection, name: str) -> int:
    """A reviewer's id; one who is not known yet, from imported votes, is added without a token."""
    found = connection.execute(select(reviewers.c.id).where(reviewers.c.name == name)).scalar()
    if found is None:
        added = insert(reviewers).values(name=_checked(name), created=time.time()).returning(reviewers.c.id)
        found = connection.execute(added).scalar_one()
    return int(found)


def names(connection: Connection) -> dict[int, str]:
    """All reviewers."""
    return {row.id: row.name for row in connection.execute(select(reviewers.c.id, reviewers.c.name))}


def sign_in(connection: Connection, token: str, now: float) -> tuple[Reviewer, str] | None:
    """Begins a session; returns the reviewer and the cookie's value, or None where the token is nobody's."""
    found = connection.execute(select(reviewers).where(reviewers.c.token == secret_hash(token))).first()
    if found is None:
        return None
    cookie = secrets.token_urlsafe(32)
    connection.execute(delete(sessions).where(sessions.c.expires < now))
    connection.execute(insert(sessions).values(id=secret_hash(cookie), reviewer=found.id, expires=now + SESSION_S))
    return Reviewer(found.id, found.name, found.admin), cookie


def sign_out(connection: Connection, cookie: str) -> None:
    """Ends a session."""
    connection.execute(delete(sessions).where(sessions.c.id == secret_hash(cookie)))


def whose(connection: Connection, cookie: str, now: float) -> Reviewer | None:
    """The reviewer whose session this is."""
    found = connection.execute(_WHOSE, {"session": secret_hash(cookie), "now": now}).first()
    return Reviewer(found.id, found.name, found.admin) if found else None


def count(connection: Connection) -> int:
    """Reviewers who can sign in."""
    return connection.execute(select(func.count()).where(reviewers.c.token.is_not(None))).scalar_one()
