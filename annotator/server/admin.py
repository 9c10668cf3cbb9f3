"""The admins' API, and the files of both pages."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from rasura.annotator.server.review import PAGE, CurrentReview, SignedIn
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.stats import statistics
from rasura.annotator.store.reviewers import Reviewer

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PATHS = {
    "/": "index.html",
    "/admin": "admin.html",
    "/team": "team/team.html",
    "/rank": "rank/rank.html",
    "/favicon.ico": "icon.svg",
}
"""Addresses of page files beside `/page/<name>`."""

router = APIRouter(prefix="/api/admin", responses=PROBLEMS)


def require_admin(reviewer: SignedIn) -> Reviewer:
    """Return the admin who is signed in.

    Raises:
        HTTPException: 403, the reviewer is no admin.
    """
    if not reviewer.admin:
        raise HTTPException(403, "only admins may see this")
    return reviewer


Admin = Annotated[Reviewer, Depends(require_admin)]
Start = Annotated[int, Query(ge=0, le=10_000_000)]
Count = Annotated[int, Query(ge=1, le=100)]


@router.get("/overview")
def get_overview(review: CurrentReview, admin: Admin) -> dict[str, Any]:
    """Return reviewers, agreement, consensus and progress."""
    return review.figures.get().overview


@router.get("/disputed")
def list_disputed_items(review: CurrentReview, admin: Admin, start: Start = 0, count: Count = 12) -> dict[str, Any]:
    """Return the items on which votes differ, with the votes."""
    with review.database.read() as connection:
        return statistics.list_items(connection, review.figures.get().disputed, start, count, remarks=False)


@router.get("/flagged")
def list_flagged_items(review: CurrentReview, admin: Admin, start: Start = 0, count: Count = 12) -> dict[str, Any]:
    """Return the items with a remark."""
    with review.database.read() as connection:
        return statistics.list_items(connection, review.figures.get().flagged, start, count, remarks=True)


def create_page_router() -> APIRouter:
    """Create the routes of the pages' files, which are read once; any other name is not found, whatever it spells."""
    page_router = APIRouter(include_in_schema=False)
    paths = [path for path in sorted(PAGE.rglob("*")) if path.suffix in MEDIA_TYPES]
    files = {path.relative_to(PAGE).as_posix(): (path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in paths}

    def get_file(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such page")
        data, media_type = files[name]
        headers = {"etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    def make_endpoint(name: str) -> Callable[[Request], Response]:
        def get_page(request: Request) -> Response:
            return get_file(request, name)

        return get_page

    for path, name in PATHS.items():
        page_router.add_api_route(path, make_endpoint(name), methods=["GET"])
    page_router.add_api_route("/page/{name:path}", get_file, methods=["GET"])
    return page_router
