"""Label Studio's server beside the review's: next task and annotate, one user."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.common import print_result
from benchmarks.review_load import Connection, compute_quantile_ms


def start_label_studio(command: str, folder: Path, port: int, token: str) -> "subprocess.Popen[bytes]":
    """Start Label Studio's own server with one user."""
    options = {
        "--port": str(port),
        "--data-dir": str(folder / "label-studio"),
        "--username": "a@example.com",
        "--password": "a long password",
        "--user-token": token,
    }
    return subprocess.Popen(
        [command, "start", "--no-browser", *(word for option in options.items() for word in option)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ
        | {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false", "SENTRY_DSN": ""},
        start_new_session=True,
    )


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


async def create_project(connection: Connection, count: int) -> str:
    """Wait for the server, create a project with tasks, and return the project's path."""
    await wait_for_server(connection)
    choices = '<Choices name="verdict" toName="t"><Choice value="yes"/><Choice value="no"/></Choices>'
    settings = {"title": "load", "label_config": f'<View><Text name="t" value="$id"/>{choices}</View>'}
    _, project = await call_label_studio(connection, "POST", "/api/projects", settings)
    path = f"/api/projects/{project['id']}"
    tasks = [{"data": {"id": f"e{n}"}} for n in range(count)]
    for first in range(0, count, 1000):
        await call_label_studio(connection, "POST", f"{path}/import", tasks[first : first + 1000])
    return path


async def measure_label_studio(command: str, folder: Path, seconds: float) -> None:
    """Measure next-task and annotate of Label Studio's server with one user and no other load."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = f"{random.getrandbits(160):040x}"
    process = start_label_studio(command, folder, port, token)
    connection = Connection(port, f"Authorization: Token {token}\r\n")
    count = 10_000
    verdict = [{"from_name": "verdict", "to_name": "t", "type": "choices", "value": {"choices": ["yes"]}}]
    try:
        path = await create_project(connection, count)
        next_s, vote_s, until = [], [], time.monotonic() + seconds
        while time.monotonic() < until:
            took, task = await call_label_studio(connection, "GET", f"{path}/next")
            next_s.append(took)
            annotations = f"/api/tasks/{task['id']}/annotations"
            took, _ = await call_label_studio(connection, "POST", annotations, {"result": verdict})
            vote_s.append(took)
        print_result(
            "label_studio one user, no pause",
            tasks=count,
            votes_per_s=round(len(vote_s) / seconds, 1),
            next_ms={share: compute_quantile_ms(next_s, share) for share in (0.5, 0.95)},
            vote_ms={share: compute_quantile_ms(vote_s, share) for share in (0.5, 0.95)},
        )
    finally:
        connection.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
