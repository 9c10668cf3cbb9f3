"""The server of a review: one process, one page, a small API."""

import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Sequence

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from rasura.annotator.server import admin, routes
from rasura.annotator.server.connections import TimedProtocol
from rasura.annotator.server.images import NoPicture
from rasura.annotator.server.middleware import RequestGuard
from rasura.annotator.server.review import Review, get_program_version
from rasura.annotator.server.team import corrections, drawings, management, programs, ranking
from rasura.annotator.server.team.publisher import Publisher
from rasura.annotator.store.items import refresh_queue
from rasura.annotator.store.vote_log import UnknownItem, VoteError, WithdrawnItem
from rasura.manifests.safety.text import SafeFormatter

log = logging.getLogger("rasura.review")


def watch_run(review: Review, ended: threading.Event) -> None:
    """Load new rows whenever the run's tables have changed, until the server ends."""
    publisher = Publisher(review)
    while True:
        try:
            result = refresh_queue(review.run, review.database, review.policy, review.flows, rest=1.0)
            if result and (result.added or result.withdrawn):
                log.info("%d items added, %d withdrawn", result.added, result.withdrawn)
        except Exception as error:  # a run that is being written, a database that is away: try again
            log.warning("the run cannot be read: %s", error)
        publisher.publish_if_due()
        with contextlib.suppress(SQLAlchemyError):
            review.figures.get()  # so that no admin waits for the first ones
        if ended.wait(review.watch_s):
            publisher.publish()
            return


def create_app(review: Review) -> FastAPI:
    """Create the server of a review."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        watcher = threading.Thread(target=watch_run, args=(review, ended), name="rasura-watch", daemon=True)
        watcher.start()
        yield
        ended.set()
        watcher.join()
        review.views.close()

    app = FastAPI(
        title="Rasura review",
        version=get_program_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.review = review
    assert review.views  # opened once, before there are threads
    assert review.figures
    app.include_router(routes.router)
    app.include_router(admin.router)
    for router in (management.router, corrections.router, ranking.router, programs.router, drawings.router):
        app.include_router(router)
    app.include_router(admin.create_page_router())
    app.add_exception_handler(VoteError, _answer_vote_error)
    app.add_exception_handler(NoPicture, _answer_no_picture)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(SQLAlchemyError, _answer_no_database)
    app.add_middleware(
        RequestGuard,
        hosts=tuple(review.hosts),
        review_id=review.database.review_id,
        public_origin=review.public_url,
    )
    return app


def serve_app(app: FastAPI, bound: socket.socket, trusted_proxies: Sequence[str]) -> bool:
    """Serve a review at a socket until the process is stopped, and return whether it could be started.

    Args:
        app: the server.
        bound: the socket, already bound.
        trusted_proxies: addresses and networks of the proxies whose headers are believed.
    """
    shown = logging.StreamHandler()
    shown.setFormatter(SafeFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[shown])
    config = uvicorn.Config(
        app,
        access_log=False,
        server_header=False,
        log_config=None,
        http=TimedProtocol,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    return server.started


async def _answer_vote_error(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, UnknownItem) else 410 if isinstance(error, WithdrawnItem) else 409
    return JSONResponse({"detail": str(error), "code": type(error).__name__}, status)


async def _answer_invalid_request(_: Request, error: Exception) -> Response:
    """Answer with the faults of a request but not its values, in ASCII, which can always be written."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    texts = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
    return Response(json.dumps({"detail": texts[:1000]}), 422, media_type="application/json")


async def _answer_no_picture(_: Request, error: Exception) -> JSONResponse:
    log.warning("%s", error)
    return JSONResponse({"detail": "this picture cannot be read"}, 404)


async def _answer_no_database(_: Request, error: Exception) -> JSONResponse:
    log.error("the database: %s", getattr(error, "orig", error))
    return JSONResponse({"detail": "the database does not answer; nothing was stored"}, 503, {"retry-after": "2"})
