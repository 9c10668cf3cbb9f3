"""The server of a review: one process, one page, a handful of calls."""

import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from rasura.annotator.server import admin
from rasura.annotator.server import routes as calls
from rasura.annotator.server.images import NoPicture
from rasura.annotator.server.middleware import Guard
from rasura.annotator.server.review import Review, program_version
from rasura.annotator.store import vote_log as votes
from rasura.annotator.store.items import refresh

log = logging.getLogger("rasura.review")


def watch(review: Review, ended: threading.Event) -> None:
    """Loads new rows whenever the run's tables have changed."""
    while True:
        try:
            loaded = refresh(review.run, review.database, review.policy, review.flows, rest=1.0)
            if loaded and (loaded.added or loaded.withdrawn):
                log.info("%d items added, %d withdrawn", loaded.added, loaded.withdrawn)
        except Exception as error:  # a run that is being written, a database that is away: look again
            log.warning("the run could not be looked at: %s", error)
        if ended.wait(review.watch_s):
            return


def create_app(review: Review) -> FastAPI:
    """The server of a review."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(review, ended), name="rasura-watch", daemon=True)
        watcher.start()
        yield
        ended.set()
        watcher.join()

    app = FastAPI(title="Rasura review", version=program_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.include_router(calls.routes(review))
    app.include_router(admin.routes(review))
    app.include_router(admin.page())
    app.add_exception_handler(votes.Refused, _refused)
    app.add_exception_handler(NoPicture, _no_picture)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(SQLAlchemyError, _no_database)
    app.add_middleware(Guard, hosts=tuple(review.hosts))
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, votes.UnknownItem) else 410 if isinstance(error, votes.Withdrawn) else 409
    return JSONResponse({"detail": str(error)}, status)


async def _not_understood(_: Request, error: Exception) -> Response:
    """What was wrong with a request, without what was sent, in letters that can always be written."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    words = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
    return Response(json.dumps({"detail": words[:1000]}), 422, media_type="application/json")


async def _no_picture(_: Request, error: Exception) -> JSONResponse:
    log.warning("%s", error)
    return JSONResponse({"detail": "this picture cannot be read"}, 404)


async def _no_database(_: Request, error: Exception) -> JSONResponse:
    log.error("the database: %s", getattr(error, "orig", error))
    return JSONResponse({"detail": "the database does not answer; nothing was noted"}, 503, {"retry-after": "2"})
