"""Where a review is served, by which process, and what is said before it was opened."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import rasura
from support.annotator.runs import Run, make_run, row

from rasura.annotator.server.address import BadAddress, bind_socket, parse_public_url
from rasura.annotator.store.database import Database
from rasura.annotator.store.server_lock import AlreadyServed, lock_server
from rasura.manifests.schemas import PROVENANCE, Kind


@contextmanager
def serve(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `rasura review serve`, and wait for the address that it prints."""
    command = [sys.executable, "-m", "rasura", "review", "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        address = next(line.split()[1] for line in process.stdout if line.startswith("review: "))
        try:
            yield process, address
        finally:
            process.kill()


@pytest.mark.parametrize("url", ["foo", "review.example", "ftp://a", "http://", "http://a/review", "http://a:x", "//a"])
def test_the_address_that_reviewers_type_is_checked(url: str) -> None:
    """An address that is no http(s)://host is refused, and nothing is added to the review."""
    with pytest.raises(BadAddress, match=rf"--public-url {url}: .*http\(s\)://HOST"):
        parse_public_url(url)


@pytest.mark.parametrize(
    ("host", "message"),
    [("203.0.113.7", "--host 203.0.113.7: not an address of this machine"), ("no.host.invalid", "no such host")],
)
def test_a_host_of_others_is_named(host: str, message: str) -> None:
    """A host that is not this machine is a mistake of --host, not of --port."""
    with pytest.raises(BadAddress, match=re.escape(message)):
        bind_socket(host, 0)


def test_small_answers_are_sent_at_once() -> None:
    """The server's connections do not wait for more to send (Nagle), which delays each small answer by 40 ms."""

    async def connect() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with closing(bind_socket("127.0.0.1", 0)) as bound:
            server = await asyncio.start_server(answer, sock=bound)
            _, writer = await asyncio.open_connection(*bound.getsockname())
            is_at_once = await accepted
            writer.close()
            server.close()
        return is_at_once

    with ThreadPoolExecutor(1) as pool:  # a browser's loop may run in this thread
        assert pool.submit(lambda: asyncio.run(connect())).result() != 0


def test_a_taken_port_ends_with_one_sentence(tmp_path: Path) -> None:
    """Exit status 1 and one line, without the server's log."""
    run = make_run(tmp_path / "run", 2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = rasura("review", run.store.uri, "--port", port, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: --port {port}: Address already in use at 127.0.0.1; choose another port, or 0 for a free one"
    ]


def test_one_server_serves_an_sqlite_file(tmp_path: Path) -> None:
    """With --port 0 the real address is printed. A second server is refused while the first lives, even on another
    port, and told where that one is; a killed server leaves no lock."""
    run = make_run(tmp_path / "run", 2).store.uri
    with serve(run, "--port", "0") as (process, address):
        assert httpx.get(address).status_code == 200
        done = rasura("review", "serve", run, "--port", "0", check=False)
        assert done.returncode == 1
        assert f"is served already (at {address.rstrip('/')}, process {process.pid})" in done.stderr
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    database = Database(tmp_path / "run" / "review" / "review.sqlite")
    with lock_server(database), pytest.raises(AlreadyServed), lock_server(database):
        pass
    database.close()


def test_a_review_that_was_never_opened_has_no_figures(tmp_path: Path) -> None:
    """Reviewers may be added first; until the queue is there, there is nothing to count or to export."""
    run = make_run(tmp_path / "run", 3).store.uri
    assert "/#token=" in rasura("review", "add-reviewer", run, "Ann").stdout
    for command in (("review", "check", run), ("votes", "export", run, "--out", str(tmp_path / "votes"))):
        done = rasura(*command, check=False)
        assert done.returncode == 1
        assert f"the review of {run} was never opened" in done.stderr
    assert json.loads(rasura("status", run, "--json").stdout)["review"] is None
    assert not (tmp_path / "votes").exists()


def test_nobody_reviews_a_run_without_triplets(tmp_path: Path) -> None:
    """No reviewer is added to a run that has nothing to judge, and none is served."""
    run, columns = Run(tmp_path / "run"), {**PROVENANCE, "source": Kind.RGB}
    run.flow("photos", [{name: value for name, value in row(1, "captured").items() if name in columns}], columns)
    for command in (("add-reviewer", run.store.uri, "Ann"), ("serve", run.store.uri, "--port", "0")):
        done = rasura("review", *command, check=False)
        assert done.returncode == 1
        assert "has nothing to review: no complete table with the columns" in done.stderr
