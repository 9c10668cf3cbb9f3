"""The calls of the admin page, and the files of both pages."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from rasura.annotator.server.review import PAGE, Review, signed_in
from rasura.annotator.server.routes import PROBLEMS
from rasura.annotator.stats import statistics
from rasura.annotator.store.reviewers import Reviewer

TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip


def routes(review: Review) -> APIRouter:
    """The calls of admins."""
    router, database, current = APIRouter(prefix="/api/admin", responses=PROBLEMS), review.database, signed_in(review)

    def admin(who: Annotated[Reviewer, Depends(current)]) -> Reviewer:
        if not who.admin:
            raise HTTPException(403, "this is the admin's")
        return who

    Admin = Annotated[Reviewer, Depends(admin)]
    Start = Annotated[int, Query(ge=0, le=10_000_000)]
    Count = Annotated[int, Query(ge=1, le=100)]

    @router.get("/overview")
    def overview(who: Admin) -> dict[str, Any]:
        """Reviewers, agreement, consensus, progress."""
        with database.read() as connection:
            return statistics.overview(connection, review.policy.model_dump())

    @router.get("/disputed")
    def disputed(who: Admin, start: Start = 0, count: Count = 12) -> dict[str, Any]:
        """Items on which votes differ, and who said what."""
        with database.read() as connection:
            return statistics.disputed(connection, start, count)

    @router.get("/flagged")
    def flagged(who: Admin, start: Start = 0, count: Count = 12) -> dict[str, Any]:
        """Items with a remark."""
        with database.read() as connection:
            return statistics.flagged(connection, start, count)

    return router


def page() -> APIRouter:
    """The page's own files, read once; a name that is not among them is not found, whatever it spells."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in sorted(PAGE.iterdir())
             if path.suffix in TYPES}  # fmt: skip
    names = {"/": "index.html", "/admin": "admin.html", "/favicon.ico": "icon.svg"}

    def answer(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such page")
        data, kind = files[name]
        headers = {"etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    def named(name: str) -> Callable[[Request], Response]:
        def named_page(request: Request) -> Response:
            return answer(request, name)

        return named_page

    for path, name in names.items():
        router.add_api_route(path, named(name), methods=["GET"])
    router.add_api_route("/page/{name}", answer, methods=["GET"])
    return router
