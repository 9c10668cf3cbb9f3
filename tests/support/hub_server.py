"""A server that answers as the Hugging Face Hub does: repositories of datasets, listings, files, commits."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stubstubstubstubstubstubstubstubst"


@dataclass
class Hub:
    """The contents of the server.

    Attributes:
        repos: name -> path -> contents.
        commits: the operations of each commit.
        requests: method and path with query of each request, in order.
        private: names of repositories that were created as private ones.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[list[tuple[str, str]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    url: str = ""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve until the context ends."""
    hub = Hub()

    class Handler(_Handler):
        contents = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    contents: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""

    def _answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), "X-Repo-Commit": "0" * 40, **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, message: str, code: str = "") -> None:
        self._answer({"error": message}, status, {"X-Error-Message": message, "X-Error-Code": code})

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.contents.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.contents.repos.get(match[1], {}).get(match[2])
            if data is None:
                self._refuse(404, "Entry not found", "EntryNotFound")
                return
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            part = data[int(span[1]) : int(span[2]) + 1] if span else data
            self._answer(part, 206 if span else 200, {"ETag": '"1"'})
            return
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+(?:/(.*))?", path):
            self._list(match[1], match[2] or "")
            return
        if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            if match[1] not in self.contents.repos:
                self._refuse(404, "Repository not found", "RepoNotFound")
                return
            self._answer({"id": match[1], "sha": "0" * 40, "private": True, "siblings": [], "tags": []})
            return
        self._refuse(404, f"no such address: {path}")

    def _list(self, repo: str, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        entries: dict[str, Any] = {}
        for path, data in self.contents.repos.get(repo, {}).items():
            if path.startswith(prefix):
                name, _, rest = path.removeprefix(prefix).partition("/")
                kind = {"type": "directory", "oid": "1"} if rest else {"type": "file", "oid": "1", "size": len(data)}
                entries[name] = {"path": prefix + name, **kind}
        if folder and not entries:
            self._refuse(404, "Entry not found", "EntryNotFound")
            return
        self._answer(list(entries.values()))

    def do_POST(self) -> None:
        body = self._read_body()
        self.contents.requests.append(f"POST {self.path}")
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            is_new = name not in self.contents.repos
            self.contents.repos.setdefault(name, {".gitattributes": b"*.parquet filter=lfs\n"})
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.contents.private.add(name)
            self._answer({"url": f"{self.contents.url}/datasets/{name}"}, 200 if is_new else 409)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/preupload/[^/]+", path):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._answer({"files": files})
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/[^/]+", path):
            self._answer([])
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/commit/[^/]+", path):
            self._commit(match[1], body)
        else:
            self._refuse(404, f"no such address: {path}")

    def _commit(self, repo: str, body: bytes) -> None:
        done = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                self.contents.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.contents.repos[repo][value["path"]]
            if "path" in value:
                done.append((line["key"], value["path"]))
        self.contents.commits.append(done)
        commit = {"commitOid": "1" * 40, "commitUrl": f"{self.contents.url}/datasets/{repo}/commit/1"}
        self._answer({"success": True, **commit})
