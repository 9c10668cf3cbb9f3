"""The API of programs: personal tokens with scopes, and its description for admins.

A program sends `Authorization: Bearer TOKEN`, and with a POST the server's own address as `Origin`.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi import Path as PathParameter
from pydantic import Field

from rasura.annotator.exchange import program_views
from rasura.annotator.exchange.vote_rows import BadVotes, check_vote_row
from rasura.annotator.exchange.votes_file import append_votes
from rasura.annotator.server import schemas
from rasura.annotator.server.admin import Admin
from rasura.annotator.server.review import CurrentReview
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.server.team.description import describe_api
from rasura.annotator.store.team import pushes, tokens
from rasura.annotator.store.team.tokens import Program, Scope

router = APIRouter(prefix="/api", responses=PROBLEMS)


def require_scope(scope: Scope) -> Callable[..., Program]:
    """Return a dependency that takes a program whose token has a scope."""

    def require(request: Request, review: CurrentReview) -> Program:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise HTTPException(
                401, "send 'Authorization: Bearer TOKEN'; an admin makes tokens", {"www-authenticate": "Bearer"}
            )
        address = request.client.host if request.client else ""
        with review.database.read() as connection:
            program = tokens.authenticate_program(connection, token.strip())
        if program is None:
            if wait := review.login_limit.compute_wait(address):
                raise HTTPException(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(wait) + 1)})
            review.login_limit.add_failure(address)
            raise HTTPException(401, "this token is unknown or was revoked", {"www-authenticate": "Bearer"})
        if scope not in program.scopes:
            raise HTTPException(403, f"this token has not the scope '{scope}'")
        return program

    require.scope = scope  # type: ignore[attr-defined]
    return require


Reader = Annotated[Program, Depends(require_scope(Scope.READ))]
Pusher = Annotated[Program, Depends(require_scope(Scope.PUSH))]
Voter = Annotated[Program, Depends(require_scope(Scope.VOTE))]


class TokenRequest(schemas.RequestBody):
    name: str = Field(min_length=1, max_length=tokens.NAME_LENGTH, description="what the token is for")
    scopes: set[Scope] = Field(min_length=1)


class PushRequest(schemas.RequestBody):
    rows: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=500, description="ids of rows, those that are to be judged first at the head"
    )


class VotesRequest(schemas.RequestBody):
    votes: list[dict[str, Any]] = Field(max_length=5000, description="rows of a votes file, with a nonce each")


@router.get("/admin/tokens")
def list_tokens(review: CurrentReview, admin: Admin) -> list[dict[str, Any]]:
    """Return the tokens of programs; what signs in is not among it."""
    with review.database.read() as connection:
        return [{**row._mapping, "scopes": row.scopes.split()} for row in tokens.list_tokens(connection)]


@router.post("/admin/tokens")
def create_token(body: TokenRequest, review: CurrentReview, admin: Admin) -> dict[str, str]:
    """Create a token, which is shown once."""
    name = body.name.strip()
    if not name.isprintable() or not name:
        raise HTTPException(422, "give a name of printable characters")
    token = review.database.write(lambda connection: tokens.create_token(connection, admin, name, body.scopes))
    return {"token": token}


@router.post("/admin/tokens/{id}/revoke")
def revoke_token(
    id: Annotated[int, PathParameter(ge=1, le=2**31)], review: CurrentReview, admin: Admin
) -> schemas.Done:
    """Revoke a token at once."""
    if not review.database.write(lambda connection: tokens.revoke_token(connection, id)):
        raise HTTPException(404, "there is no such token")
    return schemas.Done()


@router.get("/admin/openapi.json", include_in_schema=False)
def get_description(request: Request, review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Return the description of the API, OpenAPI 3.1."""
    return describe_api(request.app, review.cookie)


@router.get("/v1/progress")
def get_progress(review: CurrentReview, program: Reader) -> dict[str, Any]:
    """Return the numbers of items that are voted, leased, waiting and not asked, and of votes."""
    with review.database.read() as connection:
        return program_views.view_progress(connection)


@router.get("/v1/votes")
def list_votes(
    review: CurrentReview,
    program: Reader,
    after: Annotated[int, Query(ge=0, le=2**62, description="number of the last entry that is known")] = 0,
    count: Annotated[int, Query(ge=1, le=program_views.MOST_VOTES)] = program_views.MOST_VOTES,
) -> list[dict[str, Any]]:
    """Return entries of the log after one, oldest first."""
    with review.database.read() as connection:
        return program_views.view_votes(connection, after, count)


@router.get("/v1/verdicts")
def list_verdicts(review: CurrentReview, program: Reader) -> list[dict[str, Any]]:
    """Return the verdict on each item that has a vote."""
    with review.database.read() as connection:
        return program_views.view_verdicts(connection)


@router.get("/v1/ratings")
def list_ratings(review: CurrentReview, program: Reader) -> list[dict[str, Any]]:
    """Return the ratings of the removers from rankings, the best first."""
    with review.database.read() as connection:
        return program_views.view_ratings(connection)


@router.get("/v1/corrections")
def list_corrections(review: CurrentReview, program: Reader) -> list[dict[str, Any]]:
    """Return the corrected masks."""
    with review.database.read() as connection:
        return program_views.view_corrections(connection)


@router.post("/v1/items")
def push_items(body: PushRequest, review: CurrentReview, program: Pusher) -> dict[str, Any]:
    """Put rows at the head of the queue; `unknown` are those that it does not have."""
    unknown = review.database.write(lambda connection: pushes.push_rows(connection, body.rows))
    return {"pushed": len(set(body.rows)) - len(unknown), "unknown": unknown}


@router.post("/v1/votes")
def import_votes(body: VotesRequest, review: CurrentReview, program: Voter) -> dict[str, int]:
    """Import votes that were given elsewhere, all or none of them; each nonce counts once."""
    now = time.time()
    try:
        rows = [
            check_vote_row({"time": now, "action": "vote", **row}, f"vote {number}")
            for number, row in enumerate(body.votes, 1)
        ]
    except BadVotes as error:
        raise HTTPException(422, str(error)) from None
    result = append_votes(review.database, review.policy, rows)
    return {"added": result.added, "duplicates": result.duplicates, "unknown": result.unknown}
