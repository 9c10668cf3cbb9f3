"""Label Studio's server beside the review's: next task and annotate, one user."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import print_result
from benchmarks.review_load import Connection, compute_quantile_ms

USER, PASSWORD = "a@example.com", "a long password"


@contextmanager
def serve_label_studio(command: str, folder: Path) -> Iterator[tuple[int, str]]:
    """Start Label Studio's own server with one user, and yield its port and the user's token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = f"{random.getrandbits(160):040x}"
    options = {
        "--port": str(port),
        "--data-dir": str(folder / "label-studio"),
        "--username": USER,
        "--password": PASSWORD,
        "--user-token": token,
    }
    process = subprocess.Popen(
        [command, "start", "--no-browser", *(word for option in options.items() for word in option)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ
        | {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false", "SENTRY_DSN": ""},
        start_new_session=True,
    )
    try:
        yield port, token
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def connect(port: int, token: str) -> Connection:
    """Return a connection to Label Studio's server as its user."""
    return Connection(port, f"Authorization: Token {token}\r\n")


async def call_label_studio(connection: Connection, method: str, path: str, body: Any = None) -> tuple[float, Any]:
    """Send a request; return the seconds that it took and the answer.

    Raises:
        SystemExit: it failed.
    """
    for _ in range(3):
        start = time.perf_counter()
        try:
            status, _, answer = await connection.call(method, path, body)
        except EOFError:  # Label Studio closes connections between requests
            continue
        if status >= 400:
            raise SystemExit(f"Label Studio: {method} {path} answered {status}: {answer}")
        return time.perf_counter() - start, answer
    raise SystemExit(f"Label Studio: {method} {path} closed the connection three times")


async def wait_for_server(connection: Connection) -> None:
    """Wait until the server answers, five minutes at most."""
    for _ in range(600):
        try:
            await connection.call("GET", "/health")
            break
        except (OSError, EOFError, ValueError):
            await asyncio.sleep(0.5)


async def create_project(connection: Connection, config: str, tasks: Sequence[Mapping[str, Any]]) -> int:
    """Wait for the server, create a project with tasks, and return its number."""
    await wait_for_server(connection)
    settings = {"title": "benchmark", "label_config": config}
    _, project = await call_label_studio(connection, "POST", "/api/projects", settings)
    for first in range(0, len(tasks), 1000):
        part = tasks[first : first + 1000]
        await call_label_studio(connection, "POST", f"/api/projects/{project['id']}/import", part)
    return int(project["id"])


async def measure_label_studio(command: str, folder: Path, seconds: float) -> None:
    """Measure next-task and annotate of Label Studio's server with one user and no other load."""
    choices = '<Choices name="verdict" toName="t"><Choice value="yes"/><Choice value="no"/></Choices>'
    tasks = [{"data": {"id": f"e{n}"}} for n in range(10_000)]
    verdict = [{"from_name": "verdict", "to_name": "t", "type": "choices", "value": {"choices": ["yes"]}}]
    with serve_label_studio(command, folder) as (port, token), closing(connect(port, token)) as connection:
        project = await create_project(connection, f'<View><Text name="t" value="$id"/>{choices}</View>', tasks)
        next_s, vote_s, until = [], [], time.monotonic() + seconds
        while time.monotonic() < until:
            took, task = await call_label_studio(connection, "GET", f"/api/projects/{project}/next")
            next_s.append(took)
            annotations = f"/api/tasks/{task['id']}/annotations"
            took, _ = await call_label_studio(connection, "POST", annotations, {"result": verdict})
            vote_s.append(took)
    print_result(
        "label_studio one user, no pause",
        tasks=len(tasks),
        votes_per_s=round(len(vote_s) / seconds, 1),
        next_ms={share: compute_quantile_ms(next_s, share) for share in (0.5, 0.95)},
        vote_ms={share: compute_quantile_ms(vote_s, share) for share in (0.5, 0.95)},
    )
