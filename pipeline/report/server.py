"""The page of a run on a server of this machine: all pictures, made when they are looked at, at full size on a click.

Its security is that of the review (`annotator/server`): it listens to this machine alone unless told otherwise, refuses
hosts and origins that are not its own, and shows nothing without the token that it printed.
"""

import asyncio
import base64
import re
import secrets
import threading
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from rasura.annotator.server.middleware import FailureLimit, RequestGuard
from rasura.manifests.storage import Store
from rasura.pipeline.report import html, thumbnails
from rasura.pipeline.report.galleries import write_json
from rasura.pipeline.report.pictures import describe_example
from rasura.pipeline.report.run_page import LONGEST, read_report, render_report
from rasura.pipeline.report.run_tables import FULL_SIDE, PageTable

AT_ONCE = 2
"""Rows whose pictures are made at the same time: each may need hundreds of megabytes for a moment."""
SIDES = {"small": LONGEST, "full": FULL_SIDE}


class SignIn(BaseModel):
    """The body of a sign-in."""

    token: str = Field(max_length=200)


class ServedReport:
    """A run's page with what it needs to answer for: its tables, and who may see them.

    Attributes:
        token: in the printed link. cookie: name of the cookie of a session.
        page: HTML.
    """

    def __init__(self, run: Store) -> None:
        """Read a run.

        Raises:
            NoRun: there is no run.
        """
        self.run = run
        report = read_report(run, 0)
        self.flows = report.by_name
        self.tables: Mapping[str, PageTable] = {table.gallery.id: table for table in report.tables}
        self.page = render_report(report, write_json("pictures", {"served": True}), served=True)
        self.token, self.session = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.cookie = f"rasura_report_{secrets.token_hex(4)}"  # of another port, a browser sends the same cookies
        self.limit = FailureLimit()
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def is_signed_in(self, request: Request) -> bool:
        """Return True where a request has the cookie of a session."""
        return secrets.compare_digest(request.cookies.get(self.cookie, "").encode(), self.session.encode())

    def describe_row(self, table: str, row: int, size: str) -> dict[str, Any]:
        """Make the pictures of a row.

        Raises:
            KeyError: there is no such row, or it has no pictures.
        """
        place = self.tables[table].places[row]
        flow = self.flows[place[0]]
        with self._turns:
            (raw,) = thumbnails.read_examples(self.run, [place], flow.columns, flow.roles.columns)
            example = thumbnails.build_example(raw, flow.roles, SIDES[size])
        return describe_example(example, _encode)


def _encode(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def create_report_app(report: ServedReport, hosts: Collection[str], public_url: str | None = None) -> FastAPI:
    """Create the server of a report.

    Args:
        hosts: names by which a browser may call it.
        public_url: address that a browser takes, where that is a proxy's.
    """
    secure = public_url is not None and public_url.startswith("https://")
    app = FastAPI(title="Rasura report", docs_url=None, redoc_url=None, openapi_url=None)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report.page)
    sign_in_page = (html.PAGE / "signin.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", sign_in_page, re.DOTALL)
    assert policy is not None
    assert script is not None
    sign_in_policy = html.POLICY.format(images="", requests="'self'", scripts=html.hash_script(script[1]))

    @app.get("/")
    def get_page(request: Request) -> HTMLResponse:
        """Return the page, or the one on which a session begins."""
        if report.is_signed_in(request):
            headers = {"content-security-policy": f"{policy[1]}; frame-ancestors 'none'"}
            return HTMLResponse(report.page, headers=headers)
        headers = {"content-security-policy": f"{sign_in_policy}; frame-ancestors 'none'"}
        # it has nothing of the run; a browser logs a 401 as an error
        return HTMLResponse(sign_in_page, headers=headers)

    @app.post("/session")
    def sign_in(body: SignIn, request: Request) -> Response:
        """Begin a session with the token of the printed link."""
        address = request.client.host if request.client else ""
        if wait := report.limit.compute_wait(address):
            raise HTTPException(429, "too many wrong tokens; wait a minute", {"retry-after": str(int(wait) + 1)})
        if not secrets.compare_digest(body.token.encode(), report.token.encode()):
            report.limit.add_failure(address)
            raise HTTPException(401, "this is not the token of this server")
        response = Response(status_code=204)
        response.set_cookie(report.cookie, report.session, path="/", httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/pictures/{table}/{row}/{size}")
    async def get_pictures(table: str, row: int, size: str, request: Request) -> dict[str, Any]:
        """Return the pictures of a row, as the page reads them."""
        if not report.is_signed_in(request):
            raise HTTPException(401, "no session")
        if size not in SIDES or table not in report.tables or row not in report.tables[table].places:
            raise HTTPException(404, "there is no such row with pictures")
        return await asyncio.to_thread(report.describe_row, table, row, size)

    app.add_middleware(RequestGuard, hosts=tuple(hosts), public_origin=public_url)
    return app
