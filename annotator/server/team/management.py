"""The admins' API of a team: people, the wording of the review, items found and opened, statistics as files."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi import Path as PathParameter
from pydantic import Field
from sqlalchemy import Connection

from rasura.annotator.exchange.statistics_file import TABLES, encode_statistics
from rasura.annotator.server import schemas
from rasura.annotator.server.admin import Admin, Count, Start
from rasura.annotator.server.review import CurrentReview, SignedIn, get_program_version
from rasura.annotator.server.routes import PROBLEMS, check_reason
from rasura.annotator.server.team.markdown import parse_markdown
from rasura.annotator.stats.statistics import describe_items
from rasura.annotator.store import reviewers
from rasura.annotator.store.enums import REASON_TEXT, REASONS, Task, Verdict
from rasura.annotator.store.reviewers import BadName, Reviewer
from rasura.annotator.store.team import people, rulings, search, set_aside
from rasura.annotator.store.team.settings import ReviewSettings, list_versions, save_settings
from rasura.annotator.store.vote_log import Submission, may_view

router = APIRouter(prefix="/api", responses=PROBLEMS)
ReviewerId = Annotated[int, PathParameter(ge=1, le=2**31)]


class PersonRequest(schemas.RequestBody):
    name: str = Field(min_length=1, max_length=200)
    admin: bool = False
    expert: bool = False


class ChangeRequest(schemas.RequestBody):
    name: str | None = Field(None, min_length=1, max_length=200)
    expert: bool | None = None
    active: Literal[False] | None = Field(None, description="false: can no longer sign in")


class SettingsRequest(schemas.RequestBody):
    based_on: int = Field(ge=0, description="number of the version that was changed; 0 where there was none")
    value: ReviewSettings


class RulingRequest(schemas.RequestBody):
    item: schemas.ItemId
    nonce: schemas.Nonce
    verdict: Verdict | None = Field(None, description="null: the votes count again")
    reason: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]{0,15}$")
    remark: schemas.Text | None = None


def require_expert(review: CurrentReview, reviewer: SignedIn) -> Reviewer:
    """Return the expert who is signed in.

    Raises:
        HTTPException: 403, the reviewer is none.
    """
    with review.database.read() as connection:
        if not rulings.is_expert(connection, reviewer):
            raise HTTPException(403, "only experts and admins may see this")
    return reviewer


# --- people


@router.get("/admin/people")
def list_people(review: CurrentReview, admin: Admin) -> list[dict[str, Any]]:
    """Return all reviewers with what they may do and how many votes they have given."""
    with review.database.read() as connection:
        return people.list_people(connection)


@router.post("/admin/people")
def invite_person(body: PersonRequest, review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Add a reviewer, and return the part of the link that signs the reviewer in; it is shown once."""

    def invite(connection: Connection) -> str:
        token = reviewers.add_reviewer(connection, body.name, body.admin)
        person = reviewers.get_or_add_id(connection, body.name.strip())
        rulings.set_expert(connection, person, body.expert and not body.admin)
        return token

    return {"link": f"/#token={_write(review, invite)}"}


@router.post("/admin/people/{person}/link")
def renew_link(person: ReviewerId, review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Give a reviewer a new link; the old one and all sessions end."""
    token = _write(review, lambda connection: reviewers.renew_token(connection, people.get_name(connection, person)))
    return {"link": f"/#token={token}"}


@router.post("/admin/people/{person}")
def change_person(person: ReviewerId, body: ChangeRequest, review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Rename a reviewer, make one an expert, or end that one can sign in. An admin cannot end that for the last one."""

    def change(connection: Connection) -> list[dict[str, Any]]:
        people.get_name(connection, person)
        if body.name is not None:
            people.rename_reviewer(connection, person, body.name)
        if body.expert is not None:
            rulings.set_expert(connection, person, body.expert)
        if body.active is False:
            if person == admin.id:
                raise BadName("you cannot remove yourself; another admin can")
            reviewers.remove_reviewer(connection, people.get_name(connection, person))
        return people.list_people(connection)

    return next(row for row in _write(review, change) if row["id"] == person)


@router.post("/admin/people/{person}/votes/{action}")
def move_votes(
    person: ReviewerId, action: Literal["set-aside", "restore"], review: CurrentReview, admin: Admin
) -> dict[str, int]:
    """Set all votes of a reviewer aside, so that the items are dealt again, or bring them back."""
    move = set_aside.set_votes_aside if action == "set-aside" else set_aside.restore_votes
    _write(review, lambda connection: people.get_name(connection, person))
    total = 0
    while moved := review.database.write(
        lambda connection: move(connection, review.policy, admin, person, time.time())
    ):
        total += moved
    return {"votes": total}


def _write(review: Any, job: Any) -> Any:
    try:
        return review.database.write(job)
    except BadName as error:
        raise HTTPException(422, str(error)) from None


# --- wording


@router.get("/admin/settings")
def get_settings(review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Return the versions of the wording, the newest first, and the page's own reasons."""
    with review.database.read() as connection:
        versions = list_versions(connection)
    own = {task: {reason: REASON_TEXT[reason] for reason in REASONS[task]} for task in Task}
    return {"versions": versions, "reasons": own}


@router.post("/admin/settings")
def change_settings(body: SettingsRequest, review: CurrentReview, admin: Admin) -> dict[str, int]:
    """Save the wording as the next version."""
    version = review.database.write(
        lambda connection: save_settings(connection, admin, body.value, body.based_on, time.time())
    )
    return {"version": version}


class PreviewRequest(schemas.RequestBody):
    text: str = Field(max_length=20_000)


@router.post("/admin/preview")
def preview_guidelines(body: PreviewRequest, admin: Admin) -> dict[str, Any]:
    """Return Markdown as the elements that reviewers see."""
    return {"guidelines": parse_markdown(body.text)}


# --- experts


@router.get("/expert/queue")
def get_expert_queue(review: CurrentReview, reviewer: SignedIn, start: Start = 0, count: Count = 12) -> dict[str, Any]:
    """Return the items that wait for an expert, flagged ones first, with their votes."""
    require_expert(review, reviewer)
    with review.database.read() as connection:
        queue = rulings.list_expert_queue(connection)
        part = dict(queue[start : start + count])
        items = _describe(connection, list(part))
    return {"total": len(queue), "items": [{**item, "why": part[item["id"]]} for item in items]}


@router.post("/expert/rulings")
def rule(body: RulingRequest, review: CurrentReview, reviewer: SignedIn) -> schemas.Done:
    """Give a verdict on an item in place of all votes; without one, the votes count again."""
    require_expert(review, reviewer)
    reason = body.reason if body.verdict == Verdict.NO else None
    verdict = str(body.verdict) if body.verdict else None
    submission = Submission(
        body.item, body.nonce, verdict, reason, remark=body.remark or None, version=get_program_version()
    )

    def overrule(connection: Connection) -> None:
        rulings.overrule(connection, review.policy, reviewer, submission, time.time())
        check_reason(connection, review, body.item, reason)

    review.database.write(overrule)
    return schemas.Done()


# --- items


@router.get("/admin/items")
def find_items(
    review: CurrentReview,
    admin: Admin,
    text: Annotated[str | None, Query(max_length=200)] = None,
    status: Annotated[Literal["waiting", "voted", "ruled", "corrected"] | None, Query()] = None,
    verdict: Annotated[Verdict | None, Query()] = None,
    reviewer: Annotated[int | None, Query(ge=1, le=2**31)] = None,
    task: Annotated[Task | None, Query()] = None,
    start: Start = 0,
    count: Count = 12,
) -> dict[str, Any]:
    """Find items by what they are and what was said of them."""
    wanted = search.ItemFilter(text or None, status, verdict, reviewer, task)
    with review.database.read() as connection:
        total, ids = search.find_items(connection, wanted, start, count)
        return {"total": total, "items": _describe(connection, ids)}


@router.get("/items/{item}")
def get_item(
    item: Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")], review: CurrentReview, reviewer: SignedIn
) -> dict[str, Any]:
    """Return one item with its votes, for admins and experts."""
    require_expert(review, reviewer)
    with review.database.read() as connection:
        if not may_view(connection, reviewer, item) or not (described := _describe(connection, [item])):
            raise HTTPException(404, "there is no such item")
    return described[0]


def _describe(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    ruled = rulings.read_rulings(connection, ids)
    tasks = search.read_tasks(connection, list(ids))
    return [
        {
            **item,
            "task": tasks.get(item["id"], str(Task.REMOVAL)),
            "ruling": {"verdict": ruled[item["id"]].verdict, "reason": ruled[item["id"]].reason}
            if item["id"] in ruled
            else None,
        }
        for item in describe_items(connection, ids)
    ]


# --- statistics as files


@router.get("/admin/statistics/{name}.{suffix}", response_class=Response)
def get_statistics(
    name: Literal["reviewers", "pairs", "items", "removers", "votes"],
    suffix: Literal["csv", "parquet"],
    review: CurrentReview,
    admin: Admin,
) -> Response:
    """Return a table of statistics as CSV or Parquet."""
    with review.database.read() as connection:
        data = encode_statistics(TABLES[name](connection), suffix)
    media = "text/csv; charset=utf-8" if suffix == "csv" else "application/vnd.apache.parquet"
    return Response(data, media_type=media, headers={"content-disposition": f'attachment; filename="{name}.{suffix}"'})
