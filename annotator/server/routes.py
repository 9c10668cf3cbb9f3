"""The calls of the page: sign in, the next items, votes, what was said, pictures."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from sqlalchemy import select

from rasura.annotator.server import schemas as api
from rasura.annotator.server.images import Role, Size, etag_of
from rasura.annotator.server.middleware import Limit
from rasura.annotator.server.review import Recent, Review, program_version, signed_in
from rasura.annotator.stats import statistics
from rasura.annotator.stats.accounting import ReviewAccount, account
from rasura.annotator.store import leases as deal
from rasura.annotator.store import reviewers as people
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.database import items
from rasura.annotator.store.enums import MISTAKES, REASON_TEXT, ItemKind, Variant, Verdict
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.vote_log import Entry

PROGRESS_S = 2.0  # how old the round's numbers may be
PICTURE_S = 30 * 24 * 3600

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": api.Problem} for status in (400, 401, 403, 404, 409, 410, 413, 421, 422, 429, 503)
}


def routes(review: Review) -> APIRouter:
    """The calls of reviewers."""
    router, database, policy = APIRouter(prefix="/api", responses=PROBLEMS), review.database, review.policy
    limit, current = Limit(), signed_in(review)
    Who = Annotated[Reviewer, Depends(current)]

    def round_account() -> ReviewAccount:
        with database.read() as connection:
            return account(connection)

    progress = Recent(round_account, PROGRESS_S)

    @router.post("/login")
    def login(body: api.Login, request: Request, response: Response) -> api.Ok:
        """Begins a session with a reviewer's token."""
        address = request.client.host if request.client else ""
        if wait := limit.wait(address):
            raise HTTPException(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(wait) + 1)})
        signed = database.write(lambda connection: people.sign_in(connection, body.token, time.time()))
        if signed is None:
            limit.fault(address)
            raise HTTPException(401, "this token is nobody's")
        response.set_cookie(review.cookie, signed[1], max_age=int(people.SESSION_S), path="/", httponly=True,
                            samesite="strict", secure=review.secure)  # fmt: skip
        return api.Ok()

    @router.post("/logout")
    def logout(who: Who, request: Request, response: Response) -> api.Ok:
        """Ends the session and gives back what is open."""
        cookie = request.cookies[review.cookie]

        def job(connection: Any) -> None:
            people.sign_out(connection, cookie)
            deal.release(connection, policy, who.id)

        database.write(job)
        response.delete_cookie(review.cookie, path="/", httponly=True, samesite="strict", secure=review.secure)
        return api.Ok()

    @router.get("/me")
    def me(who: Who) -> api.Me:
        """Who is signed in, and to what."""
        return api.Me(
            name=who.name, admin=who.admin, run=review.name, feedback=policy.feedback,
            lease_minutes=policy.lease_minutes, guidelines=review.guidelines,
            reasons={str(reason): text for reason, text in REASON_TEXT.items()},
        )  # fmt: skip

    @router.post("/next")
    def next_items(body: api.Next, who: Who) -> api.Items:
        """The items that are open for this reviewer, in order; new ones up to the number wanted."""
        rows = database.write(lambda connection: deal.next_items(connection, policy, who, body.want, time.time()))
        return api.Items(items=[api.Item(**deal.public(row)) for row in rows])

    @router.post("/votes")
    def vote(body: api.Vote, who: Who) -> api.Voted:
        """Notes a verdict or a skip; on an item that was judged before, an edit. Tells what was hidden until now."""
        skip = body.verdict == "skip"
        entry = Entry(
            body.item, body.nonce, None if skip else str(body.verdict),
            str(body.reason) if body.reason and body.verdict == Verdict.NO else None, None, body.seconds,
            body.guidelines, program_version(),
        )  # fmt: skip

        def job(connection: Any) -> api.Voted:
            item = votes.cast(connection, policy, who, entry, time.time())
            if skip:
                return api.Voted()
            known = None
            if policy.feedback and item.kind == ItemKind.HONEYPOT:
                known = api.Known(expected=item.expected, right=item.expected == entry.verdict)
            return api.Voted(score=item.score, others=votes.others(connection, item.id, who), known=known)

        return database.write(job)

    @router.post("/undo")
    def undo(body: api.Undo, who: Who) -> api.Item:
        """Takes back the last verdict, or that on an item, and opens the item again."""
        row = database.write(lambda connection: votes.undo(connection, policy, who, body.nonce, time.time(), body.item))
        return api.Item(**deal.public(row))

    @router.post("/flag")
    def flag(body: api.Flag, who: Who) -> api.Ok:
        """Notes a remark for the admin; an empty one takes it back."""
        entry = Entry(body.item, body.nonce, remark=body.remark.strip() or None, version=program_version())
        database.write(lambda connection: votes.flag(connection, who, entry, time.time()))
        return api.Ok()

    @router.get("/history")
    def history(who: Who) -> api.History:
        """The last twenty verdicts, newest first."""
        with database.read() as connection:
            rows = votes.history(connection, who)
        return api.History(items=[api.Past(**{**row, "dilation": row["dilation"] or 0}) for row in rows])

    @router.get("/progress")
    def get_progress(who: Who) -> api.Progress:
        """How far the reviewer and the round are."""
        with database.read() as connection:
            own = statistics.mine(connection, who)
        whole = progress.get()
        told = {name: getattr(whole, name) for name in ("candidates", "voted", "leased", "waiting")}
        return api.Progress(mine=api.Mine(**own), round=api.Round(**told))

    @router.get("/examples")
    def examples(who: Who) -> api.Examples:
        """Items of the guidelines: a right result and one of each mistake."""
        with database.read() as connection:
            of = (items.c.kind == ItemKind.EXAMPLE, ~items.c.withdrawn)
            rows = connection.execute(select(items).where(*of).order_by(items.c.row_id, items.c.id)).all()
        first = [row for row in rows if row.row_id == rows[0].row_id]
        told = []
        for row in first:
            reason = MISTAKES.get(Variant(row.variant))
            told.append(
                api.Example(**deal.public(row), variant=row.variant, verdict=row.expected,
                            reason=str(reason) if reason else None)
            )  # fmt: skip
        return api.Examples(items=told)

    @router.get("/pictures/{item}/{role}", response_class=Response)
    def picture(
        item: Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")],
        role: Role,
        who: Who,
        request: Request,
        size: Annotated[Size, Query()] = "view",
    ) -> Response:
        """A picture of an item that is open for the reviewer or was judged by them."""
        with database.read() as connection:
            if not votes.may_see(connection, who, item):
                raise HTTPException(404, "no such item is yours")
            row = connection.execute(select(items).where(items.c.id == item)).one()
        etag = f'"{etag_of(row, role, size)}"'
        headers = {"etag": etag, "cache-control": f"private, max-age={PICTURE_S}, immutable"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        data, kind = review.pictures.get(row, role, size)
        return Response(data, media_type=kind, headers=headers)

    return router
