"""Reviewers, the tokens that they sign in with, and their sessions. Of tokens and cookies only hashes are stored."""

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from rasura.annotator.store.database import leases as lease_table
from rasura.annotator.store.database import reviewers, sessions
from rasura.manifests.errors import ReviewError

SESSION_S = 30 * 24 * 3600.0
NAME_LENGTH = 64
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


def _check_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise BadName(f"reviewer '{name}': give 1 to {NAME_LENGTH} printable characters")
    return name


def add_reviewer(connection: Connection, name: str, admin: bool = False) -> str:
    """Add a reviewer, or let one of imported votes sign in.

    Returns:
        The token. Only its hash is stored.

    Raises:
        BadName: the name is not allowed, or taken.
    """
    name = _check_name(name)
    existing = connection.execute(select(reviewers.c.token).where(reviewers.c.name == name)).first()
    if existing and existing.token:
        raise BadName(f"there is a reviewer '{name}' already; `rasura review new-token` makes another token")
    if not existing:
        connection.execute(insert(reviewers).values(name=name, admin=admin, created=time.time()))
    return renew_token(connection, name, admin)


def renew_token(connection: Connection, name: str, admin: bool | None = None) -> str:
    """Make a new token for a reviewer; the old one and all sessions end.

    Raises:
        BadName: there is no such reviewer.
    """
    token = secrets.token_urlsafe(32)
    _set_token(connection, name, token, admin)
    return token


def remove_reviewer(connection: Connection, name: str) -> None:
    """Sign a reviewer out for good. The votes stay.

    Raises:
        BadName: there is no such reviewer.
    """
    _set_token(connection, name, None, False)


def _set_token(connection: Connection, name: str, token: str | None, admin: bool | None) -> None:
    values = {"token": hash_secret(token) if token else None} | ({} if admin is None else {"admin": admin})
    statement = update(reviewers).where(reviewers.c.name == name).values(**values).returning(reviewers.c.id)
    row = connection.execute(statement).first()
    if row is None:
        raise BadName(f"there is no reviewer '{name}'; `rasura review add-reviewer` adds one")
    connection.execute(delete(sessions).where(sessions.c.reviewer == row.id))
    if token is None:  # the next sweep gives the open items back
        of_reviewer = lease_table.c.reviewer == row.id
        connection.execute(update(lease_table).where(of_reviewer, lease_table.c.live).values(expires=0.0))


def get_or_add_id(connection: Connection, name: str) -> int:
    """Return a reviewer's id; one who is new, from imported votes, is added without a token.

    Raises:
        BadName: the name of a new reviewer is not allowed.
    """
    reviewer_id = connection.execute(select(reviewers.c.id).where(reviewers.c.name == name)).scalar()
    if reviewer_id is None:
        statement = insert(reviewers).values(name=_check_name(name), created=time.time()).returning(reviewers.c.id)
        reviewer_id = connection.execute(statement).scalar_one()
    return int(reviewer_id)


def list_names(connection: Connection) -> dict[int, str]:
    """Return the names of all reviewers by their ids."""
    return {row.id: row.name for row in connection.execute(select(reviewers.c.id, reviewers.c.name))}


def sign_in(connection: Connection, token: str, now: float) -> tuple[Reviewer, str] | None:
    """Begin a session.

    Returns:
        The reviewer and the cookie's value; None where the token is nobody's.
    """
    row = connection.execute(select(reviewers).where(reviewers.c.token == hash_secret(token))).first()
    if row is None:
        return None
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
