"""Tokens of programs: each belongs to a reviewer, has scopes, and can be revoked. Only hashes are stored."""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from rasura.annotator.store.database import reviewers
from rasura.annotator.store.reviewers import Reviewer, hash_secret
from rasura.annotator.store.team.tables import tokens

PREFIX = "rsr_"
NAME_LENGTH = 64


class Scope(StrEnum):
    """What a program may do with a token."""

    READ = "read"  # watch progress, pull votes, verdicts, corrections and ratings
    PUSH = "push"  # say which rows are to be judged, and which first
    VOTE = "vote"  # import votes


@dataclass(frozen=True)
class Program:
    """A program that has signed in with a token.

    Attributes:
        owner: the reviewer whose token it is.
        scopes: words of `Scope`.
    """

    owner: Reviewer
    scopes: frozenset[str]


def create_token(connection: Connection, owner: Reviewer, name: str, scopes: Collection[Scope]) -> str:
    """Create a token, and return it; only its hash is stored."""
    token = PREFIX + secrets.token_urlsafe(32)
    values = {"reviewer": owner.id, "name": name, "scopes": " ".join(sorted(scopes)), "created": time.time()}
    connection.execute(insert(tokens).values(hash=hash_secret(token), revoked=False, **values))
    return token


def list_tokens(connection: Connection) -> list[Any]:
    """List the tokens that are not revoked, with their owners' names."""
    statement = (
        select(tokens.c.id, tokens.c.name, tokens.c.scopes, tokens.c.created, reviewers.c.name.label("owner"))
        .join(reviewers, reviewers.c.id == tokens.c.reviewer)
        .where(~tokens.c.revoked)
        .order_by(tokens.c.id)
    )
    return list(connection.execute(statement))


def revoke_token(connection: Connection, id: int) -> bool:
    """Revoke a token, and return whether there was such a one."""
    statement = update(tokens).where(tokens.c.id == id, ~tokens.c.revoked).values(revoked=True).returning(tokens.c.id)
    return connection.execute(statement).first() is not None


def authenticate_program(connection: Connection, token: str) -> Program | None:
    """Return the program that a token belongs to; None where it is unknown, revoked, or its owner was removed."""
    statement = (
        select(reviewers.c.id, reviewers.c.name, reviewers.c.admin, tokens.c.scopes)
        .join(tokens, tokens.c.reviewer == reviewers.c.id)
        .where(tokens.c.hash == hash_secret(token), ~tokens.c.revoked, reviewers.c.token.is_not(None))
    )
    row = connection.execute(statement).first()
    return Program(Reviewer(row.id, row.name, row.admin), frozenset(row.scopes.split())) if row else None
