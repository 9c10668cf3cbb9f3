"""The reviewers' API: sign in, the next items, votes, history, progress, pictures."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlalchemy import Connection, select

from rasura.annotator.server import schemas
from rasura.annotator.server.images import Role, Size
from rasura.annotator.server.review import CurrentReview, Review, SignedIn, get_program_version
from rasura.annotator.server.team.markdown import parse_markdown
from rasura.annotator.server.views import hold_answer
from rasura.annotator.stats import statistics
from rasura.annotator.store import known_answers, leases, reviewers, vote_log
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import MISTAKES, ItemKind, Task, Variant, Verdict
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.rankings import check_task, may_view_scene
from rasura.annotator.store.team.rulings import is_expert
from rasura.annotator.store.team.search import read_task, read_tasks
from rasura.annotator.store.team.settings import ReviewSettings
from rasura.annotator.store.vote_log import Submission

PICTURE_S = 30 * 24 * 3600
"""Seconds for which a browser keeps a picture: its address changes when the picture does."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem} for status in (400, 401, 403, 404, 409, 410, 413, 421, 422, 429, 503)
}

router = APIRouter(prefix="/api", responses=PROBLEMS)


@router.post("/login")
def log_in(body: schemas.LoginRequest, review: CurrentReview, request: Request, response: Response) -> schemas.Done:
    """Begin a session with the token of a link, which is used up. The right one passes however many wrong ones came."""
    address = request.client.host if request.client else ""
    with review.database.read() as connection:
        is_known = reviewers.is_token(connection, body.token, time.time())
    session = None
    if is_known:
        session = review.database.write(lambda connection: reviewers.sign_in(connection, body.token, time.time()))
    if session is None:
        if wait := review.login_limit.compute_wait(address):
            raise HTTPException(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(wait) + 1)})
        review.login_limit.add_failure(address)
        raise HTTPException(401, "this token is nobody's, or was used already; ask for another link")
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
    version, settings = review.settings.get()
    with review.database.read() as connection:
        expert = is_expert(connection, reviewer)
    return schemas.SessionInfo(
        review=review.database.review_id,
        reviewer=reviewer.id,
        name=reviewer.name,
        admin=reviewer.admin,
        run=review.name,
        feedback=review.policy.feedback,
        lease_minutes=review.policy.lease_minutes,
        guidelines=review.guidelines,
        reasons=_list_reasons(settings),
        expert=expert,
        wording=schemas.Wording(
            version=version,
            tasks={
                task: schemas.TaskWording(
                    reasons=list(settings.list_reasons(task)),
                    labels=dict(settings.reasons[task]) if task in settings.reasons else None,
                )
                for task in Task
            },
            labels={str(verdict): label for verdict, label in settings.labels.items()},
            guidelines=None if settings.guidelines is None else parse_markdown(settings.guidelines),
        ),
    )


def _list_reasons(settings: ReviewSettings) -> dict[str, str]:
    """List the reasons of all tasks with their labels."""
    return {word: label for task in Task for word, label in settings.list_reasons(task).items()}


@router.post("/next")
def open_items(body: schemas.NextRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Items:
    """Return the items that are open for the reviewer, in order, with new ones up to the number requested."""

    def lease(connection: Connection) -> list[schemas.Item]:
        check_task(connection, review.policy, reviewer, ranks=False)
        rows = leases.lease_items(connection, review.policy, reviewer, body.want, time.time())
        return [schemas.Item(**item) for item in _describe(connection, rows, reviewer)]

    return schemas.Items(items=review.database.write(lease))


def _describe(connection: Connection, rows: Sequence[Any], reviewer: Reviewer) -> list[dict[str, Any]]:
    """Describe items as a reviewer may see them, with their tasks."""
    tasks = read_tasks(connection, [row.id for row in rows])
    described = known_answers.describe_items(connection, rows, reviewer.id)
    return [{**item, "task": Task(tasks.get(item["id"], Task.REMOVAL))} for item in described]


@router.post("/votes")
def cast_vote(body: schemas.VoteRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.VoteResult:
    """Log a verdict or a skip; on an item that was judged before, an edit. Return what was hidden before the vote."""
    skip = body.verdict == "skip"
    submission = Submission(
        item=body.item,
        nonce=body.nonce,
        verdict=None if skip else str(body.verdict),
        reason=body.reason if body.verdict == Verdict.NO else None,
        seconds=body.seconds,
        guidelines=body.guidelines,
        version=get_program_version(),
    )

    def cast(connection: Connection) -> schemas.VoteResult:
        check_task(connection, review.policy, reviewer, ranks=False)
        item = vote_log.cast_vote(connection, review.policy, reviewer, submission, time.time() - (body.age or 0.0))
        check_reason(connection, review, body.item, submission.reason)
        if skip:
            return schemas.VoteResult()
        feedback = None
        if review.policy.feedback and item.kind == ItemKind.HONEYPOT:
            feedback = schemas.Feedback(expected=item.expected, right=item.expected == submission.verdict)
        score, other = known_answers.lend_answer(connection, item, reviewer.id)
        others = vote_log.count_other_verdicts(connection, other, reviewer)
        return schemas.VoteResult(score=None if score is None else round(score, 2), others=others, feedback=feedback)

    return review.database.write(cast)


def check_reason(connection: Connection, review: Review, item: str, reason: str | None) -> None:
    """Check that an item's task has a reason.

    Raises:
        HTTPException: 422, it has not; nothing is stored.
    """
    if reason is None:
        return
    reasons = review.settings.get()[1].list_reasons(read_task(connection, item))
    if reason not in reasons:
        raise HTTPException(422, f"this item can have no reason '{reason}'; it can have {', '.join(reasons)}")


@router.post("/undo")
def undo_vote(body: schemas.UndoRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.UndoResult:
    """Undo the last verdict, or that on an item, and open the item again where it needs a vote."""

    def undo(connection: Connection) -> schemas.UndoResult:
        row, is_open = vote_log.undo_vote(connection, review.policy, reviewer, body.nonce, time.time(), body.item)
        return schemas.UndoResult(**_describe(connection, [row], reviewer)[0], open=is_open)

    return review.database.write(undo)


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
        described = _describe(connection, rows, reviewer)
    verdicts = [{name: getattr(row, name) for name in ("verdict", "reason", "time")} for row in rows]
    return schemas.History(
        items=[schemas.HistoryItem(**item, **verdict) for item, verdict in zip(described, verdicts, strict=True)]
    )


@router.get("/progress")
def get_progress(review: CurrentReview, reviewer: SignedIn) -> schemas.Progress:
    """Return the progress of the reviewer and of the team."""
    with review.database.read() as connection:
        progress = statistics.read_own_progress(connection, reviewer)
    return schemas.Progress(
        mine=schemas.ReviewerProgress(**progress), team=schemas.TeamProgress(**asdict(review.progress.get()))
    )


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
                id=row.id,
                label=row.label,
                dilation=row.dilation or 0,
                variant=row.variant,
                verdict=row.expected,
                reason=str(reason) if reason else None,
            )
        )
    return schemas.Examples(items=examples)


@router.get("/pictures/{item}/{role}", response_class=Response)
async def get_picture(
    item: Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")],
    role: Role,
    review: CurrentReview,
    reviewer: SignedIn,
    request: Request,
    size: Annotated[Size, Query()] = "view",
) -> Response:
    """Return a picture of an item that the reviewer may view."""
    start = time.monotonic()
    row = await run_in_threadpool(_find_picture, review, reviewer, item)
    etag = f'"{review.views.compute_key(row, role, size)}"'
    headers = {"etag": etag, "cache-control": f"private, max-age={PICTURE_S}, immutable"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    view = await run_in_threadpool(review.views.get, row, role, size)
    headers["x-picture-size"] = f"{view.width}x{view.height}"
    await hold_answer(start, view.seconds)
    if view.file is not None:
        return FileResponse(view.file, media_type=view.media_type, headers=headers)
    return Response(view.data, media_type=view.media_type, headers=headers)


def _find_picture(review: Review, reviewer: Reviewer, item: str) -> Any:
    """Find the row of an item whose pictures a reviewer may view.

    Raises:
        HTTPException: 404, there is none.
    """
    with review.database.read() as connection:
        is_allowed = vote_log.may_view(connection, reviewer, item) or may_view_scene(connection, reviewer, item)
        if not is_allowed and item not in review.settings.get()[1].find_examples():
            raise HTTPException(404, "you have no such item")
        return connection.execute(select(items).where(items.c.id == item)).one()
