"""The reviewers' API: sign in, the next items, votes, history, progress, pictures."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import Connection, select

from rasura.annotator.server import schemas
from rasura.annotator.server.images import Role, Size, compute_etag
from rasura.annotator.server.review import CurrentReview, SignedIn, get_program_version
from rasura.annotator.stats import statistics
from rasura.annotator.store import leases, reviewers, vote_log
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import MISTAKES, REASON_TEXT, ItemKind, Variant, Verdict
from rasura.annotator.store.vote_log import Submission

PICTURE_S = 30 * 24 * 3600
"""Seconds for which a browser keeps a picture: its address changes when the picture does."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem} for status in (400, 401, 403, 404, 409, 410, 413, 421, 422, 429, 503)
}

router = APIRouter(prefix="/api", responses=PROBLEMS)


@router.post("/login")
def log_in(body: schemas.LoginRequest, review: CurrentReview, request: Request, response: Response) -> schemas.Done:
    """Begin a session with a reviewer's token."""
    address = request.client.host if request.client else ""
    if wait := review.login_limit.compute_wait(address):
        raise HTTPException(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(wait) + 1)})
    session = review.database.write(lambda connection: reviewers.sign_in(connection, body.token, time.time()))
    if session is None:
        review.login_limit.add_failure(address)
        raise HTTPException(401, "this token belongs to no reviewer")
    _, cookie = session
    response.set_cookie(
        review.cookie,
        cookie,
        max_age=int(reviewers.SESSION_S),
        path="/",
        httponly=True,
        samesite="strict",
        secure=review.secure,
    )
    return schemas.Done()


@router.post("/logout")
def log_out(review: CurrentReview, reviewer: SignedIn, request: Request, response: Response) -> schemas.Done:
    """End the session, and give the open items back."""
    cookie = request.cookies[review.cookie]

    def end_session(connection: Connection) -> None:
        reviewers.sign_out(connection, cookie)
        leases.release_items(connection, review.policy, reviewer.id)

    review.database.write(end_session)
    response.delete_cookie(review.cookie, path="/", httponly=True, samesite="strict", secure=review.secure)
    return schemas.Done()


@router.get("/me")
def get_session(review: CurrentReview, reviewer: SignedIn) -> schemas.SessionInfo:
    """Return the reviewer who is signed in, and the settings of the review."""
    return schemas.SessionInfo(
        name=reviewer.name,
        admin=reviewer.admin,
        run=review.name,
        feedback=review.policy.feedback,
        lease_minutes=review.policy.lease_minutes,
        guidelines=review.guidelines,
        reasons={str(reason): text for reason, text in REASON_TEXT.items()},
    )


@router.post("/next")
def open_items(body: schemas.NextRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Items:
    """Return the items that are open for the reviewer, in order, with new ones up to the number requested."""
    rows = review.database.write(
        lambda connection: leases.lease_items(connection, review.policy, reviewer, body.want, time.time())
    )
    return schemas.Items(items=[schemas.Item(**leases.describe_item(row)) for row in rows])


@router.post("/votes")
def cast_vote(body: schemas.VoteRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.VoteResult:
    """Log a verdict or a skip; on an item that was judged before, an edit. Return what was hidden before the vote."""
    skip = body.verdict == "skip"
    submission = Submission(
        item=body.item,
        nonce=body.nonce,
        verdict=None if skip else str(body.verdict),
        reason=str(body.reason) if body.reason and body.verdict == Verdict.NO else None,
        seconds=body.seconds,
        guidelines=body.guidelines,
        version=get_program_version(),
    )

    def cast(connection: Connection) -> schemas.VoteResult:
        item = vote_log.cast_vote(connection, review.policy, reviewer, submission, time.time())
        if skip:
            return schemas.VoteResult()
        feedback = None
        if review.policy.feedback and item.kind == ItemKind.HONEYPOT:
            feedback = schemas.Feedback(expected=item.expected, right=item.expected == submission.verdict)
        others = vote_log.count_other_verdicts(connection, item.id, reviewer)
        return schemas.VoteResult(score=item.score, others=others, feedback=feedback)

    return review.database.write(cast)


@router.post("/undo")
def undo_vote(body: schemas.UndoRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Item:
    """Undo the last verdict, or that on an item, and open the item again."""
    row = review.database.write(
        lambda connection: vote_log.undo_vote(connection, review.policy, reviewer, body.nonce, time.time(), body.item)
    )
    return schemas.Item(**leases.describe_item(row))


@router.post("/flag")
def flag_item(body: schemas.FlagRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Done:
    """Log a remark for the admin; an empty one withdraws it."""
    remark = body.remark.strip() or None
    submission = Submission(body.item, body.nonce, remark=remark, version=get_program_version())
    review.database.write(lambda connection: vote_log.flag_item(connection, reviewer, submission, time.time()))
    return schemas.Done()


@router.get("/history")
def get_history(review: CurrentReview, reviewer: SignedIn) -> schemas.History:
    """Return the reviewer's last twenty verdicts, newest first."""
    with review.database.read() as connection:
        rows = vote_log.read_history(connection, reviewer)
    return schemas.History(items=[schemas.HistoryItem(**{**row, "dilation": row["dilation"] or 0}) for row in rows])


@router.get("/progress")
def get_progress(review: CurrentReview, reviewer: SignedIn) -> schemas.Progress:
    """Return the progress of the reviewer and of the round."""
    with review.database.read() as connection:
        progress = statistics.read_own_progress(connection, reviewer)
    accounting = review.accounting.get()
    counts = {name: getattr(accounting, name) for name in schemas.RoundProgress.model_fields}
    return schemas.Progress(mine=schemas.ReviewerProgress(**progress), round=schemas.RoundProgress(**counts))


@router.get("/examples")
def get_examples(review: CurrentReview, reviewer: SignedIn) -> schemas.Examples:
    """Return the guidelines' examples: a right result and one of each mistake."""
    with review.database.read() as connection:
        conditions = (items.c.kind == ItemKind.EXAMPLE, ~items.c.withdrawn)
        rows = connection.execute(select(items).where(*conditions).order_by(items.c.row_id, items.c.id)).all()
    examples = []
    for row in (row for row in rows if row.row_id == rows[0].row_id):
        reason = MISTAKES.get(Variant(row.variant))
        examples.append(
            schemas.Example(
                **leases.describe_item(row),
                variant=row.variant,
                verdict=row.expected,
                reason=str(reason) if reason else None,
            )
        )
    return schemas.Examples(items=examples)


@router.get("/pictures/{item}/{role}", response_class=Response)
def get_picture(
    item: Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")],
    role: Role,
    review: CurrentReview,
    reviewer: SignedIn,
    request: Request,
    size: Annotated[Size, Query()] = "view",
) -> Response:
    """Return a picture of an item that the reviewer may view."""
    with review.database.read() as connection:
        if not vote_log.may_view(connection, reviewer, item):
            raise HTTPException(404, "you have no such item")
        row = connection.execute(select(items).where(items.c.id == item)).one()
    etag = f'"{compute_etag(row, role, size)}"'
    headers = {"etag": etag, "cache-control": f"private, max-age={PICTURE_S}, immutable"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    data, media_type = review.pictures.get(row, role, size)
    return Response(data, media_type=media_type, headers=headers)
