"""An object store that misbehaves, for `chaos`: a proxy in front of a local S3 server, and its kinds of fault."""

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.engine.chaos_job import PHOTOS, SHARD_ROWS
from benchmarks.engine.chaos_kinds import CannotInject, Case, Kind, send

BUCKET = "rasura-chaos"
SLOW_S = 0.25
HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Proxy:
    """The proxy: it forwards what is asked of the server, or does what its fault says.

    Attributes:
        fault: name of what it does to requests; "" where it forwards them.
        puts: keys that were written.
    """

    def __init__(self, port: int) -> None:
        self.port, self.fault = port, ""
        self.puts: list[str] = []
        self.count = 0
        self.lost: set[str] = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle_request(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: connections that end are what this server is for."""

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = _read_body(request)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP_HEADERS}
        fault, self.count = self.fault, self.count + 1
        if fault in ("500", "503", "away"):
            if fault == "away":
                request.close_connection = True
                return
            _send_error(request, int(fault), {"500": "InternalError", "503": "SlowDown"}[fault])
            return
        if fault == "slow":
            time.sleep(SLOW_S)
        conditional = next((key for key in headers if key.lower() == "if-none-match"), None)
        if fault == "conditions refused" and conditional:
            _send_error(request, 501, "NotImplemented")
            return
        if fault == "conditions ignored" and conditional:
            del headers[conditional]
        is_cut = fault == "cut" and self.count % 3 == 0
        if is_cut and request.command != "GET":
            request.close_connection = True
            return
        status, answer_headers, data = self._forward(request, body, headers)
        if request.command == "PUT" and status == 200:
            self.puts.append(request.path.partition("?")[0])
        if fault == "reply lost" and request.command == "PUT" and request.path not in self.lost:
            self.lost.add(request.path)
            request.close_connection = True
            return
        request.send_response(status)
        for key, value in answer_headers:
            if key.lower() not in HOP_HEADERS:
                request.send_header(key, value)
        length = {key.lower(): value for key, value in answer_headers}.get("content-length", str(len(data)))
        request.send_header("Content-Length", length if request.command == "HEAD" else str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if is_cut else data)
        request.close_connection = request.close_connection or is_cut

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(request.command, request.path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _read_body(request: BaseHTTPRequestHandler) -> bytes:
    if "chunked" in request.headers.get("Transfer-Encoding", ""):
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


def _send_error(request: BaseHTTPRequestHandler, status: int, code: str) -> None:
    data = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/xml")
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)


def put_target_on_s3(case: Case) -> None:
    """Have the run be in a bucket of a local server, behind the proxy.

    Raises:
        CannotInject: moto is not installed.
    """
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=quiet, stderr=quiet
    )
    case.stack.callback(server.kill)
    for _ in range(600):
        if server.poll() is not None:
            raise CannotInject("the local S3 server does not start; is moto[server] installed?")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=30).close()
            break
        time.sleep(0.1)
    proxy = case.tools["proxy"] = Proxy(port)
    case.stack.callback(proxy.server.shutdown)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    case.job.env |= keys | {"AWS_ENDPOINT_URL": proxy.url}
    os.environ.update(keys)
    import s3fs

    bucket = s3fs.S3FileSystem(
        endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True, use_listings_cache=False
    )
    bucket.mkdir(BUCKET)
    case.job.target = f"s3://{BUCKET}/run"

    def fetch() -> Path:
        copy = case.job.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        for key in bucket.find(f"{BUCKET}/run", refresh=True):
            place = copy / Path(key).relative_to(f"{BUCKET}/run")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(bucket.cat_file(key))
        copy.mkdir(exist_ok=True)
        return copy

    def has_come(moment: str) -> bool:
        commits = {key for key in proxy.puts if "/tables/made/lines/" in key}
        if moment == "start":
            return True
        if moment == "export":
            return any("/dataset/data/" in key for key in proxy.puts)
        return len(commits) >= (3 if moment == "middle" else PHOTOS // SHARD_ROWS)

    case.fetch, case.has_come = fetch, has_come


def misbehave(fault: str) -> Callable[[Case], None]:
    """Return the injection that has the proxy do something to requests."""

    def inject(case: Case) -> None:
        case.tools["proxy"].fault = fault

    return inject


def _make_kind(fault: str, **more: Any) -> Kind:
    return Kind(misbehave(fault), misbehave(""), put_target_on_s3, **more)


STORE: Mapping[str, Kind] = {
    "S3 500": _make_kind("500"),
    "S3 503 for 3 s": _make_kind("503", passes_after_s=3),
    "S3 away": _make_kind("away", limit_s=900),  # the client tries each request for 10 to 50 s
    "S3 slow": _make_kind("slow", must_finish=True),
    "S3 cuts replies": _make_kind("cut"),
    "S3 loses replies": _make_kind("reply lost"),
    "S3 refuses conditional put": _make_kind("conditions refused"),
    "S3 ignores conditional put": _make_kind("conditions ignored"),
    "S3 kill driver": Kind(send("driver", 9), prepare=put_target_on_s3, statuses=(-9,), lingering_s=90),
    "S3 SIGTERM": Kind(send("driver", 15), prepare=put_target_on_s3, statuses=(143,)),
}
