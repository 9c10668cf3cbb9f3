"""Latency and accounting of a review under load: 50 simulated reviewers, 100,000 items, the server in its own process.

Goals: p95 of "next" and of "vote" at most 20 ms on 2 quiet cores; no item leased or voted on beyond its quota; the same
with `kill -9` of the server five times, after which every vote that was given is in the database exactly once. Ten of
the reviewers have two tabs open.

    python -m benchmarks review_load

A simulated reviewer takes a second for an item on average (people need two), so that 50 of them send 50 votes per
second; without any pause they then measure the server's limit. RORem's load was 3 votes per second. Environment
variables change the measurement: REVIEW_SECONDS (120), REVIEW_ITEMS (100000), REVIEW_DATABASE (a PostgreSQL URL) and
LABEL_STUDIO (the path of a `label-studio` command, installed in an environment of its own), which measures next-task
and annotate of Label Studio's server on the same machine.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import ROOT, make_scratch_folder, print_result

REVIEWERS = 50
ITEMS = int(os.environ.get("REVIEW_ITEMS", "100000"))
SECONDS = float(os.environ.get("REVIEW_SECONDS", "120"))
PAUSE_S = 1.0
KILLS = 5
TWO_TABS = 10  # reviewers with two tabs
POLICY = ("votes=2", "near_votes=2", "most_votes=2", "honeypots=0.05", "lease_minutes=5")


def make_candidates(folder: Path, count: int) -> None:
    """Make a run with many candidates; their pictures are small and equal, since the queue does not read them."""
    import pyarrow as pa
    from support.annotator.runs import CANDIDATES, CAPTURED, Run, row

    from rasura.manifests.compacted.manifest import write_manifest
    from rasura.manifests.run_layout import table_path
    from rasura.manifests.schemas import encode_records
    from rasura.manifests.shards import StageCount, commit

    run = Run(folder)
    run.flow("captured", [row(n, "captured", 16) for n in range(60)], CAPTURED)
    run.flow("candidates", [row(0, "edited", 16)], CANDIDATES)
    table, commits, step = run.store.sub(table_path("candidates")), [], 5000
    template = encode_records([row(0, "edited", 16)], CANDIDATES)
    for start in range(0, count, step):
        size = min(step, count - start)
        part = template.take([0] * size)
        numbers = range(start, start + size)
        columns = {
            "id": [f"e{n:07d}" for n in numbers],
            "score": [(n * 7919 % 10007) / 10007 for n in numbers],
            "label": [("car", "chair", "dog")[n % 3] for n in numbers],
        }
        for name, values in columns.items():
            index = part.schema.get_field_index(name)
            part = part.set_column(index, part.schema.field(index), pa.array(values))
        counts = [StageCount(stage, size, size, size) for stage in ("made", "write")]
        commits.append(commit(table, f"many{start}", "p", size, part, (), counts))
    write_manifest(table, commits, CANDIDATES)


class Server:
    """`rasura review` in a process of its own, which can be killed and restarted at the same port."""

    def __init__(self, run: Path, database: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        code = "from rasura.pipeline.cli.review import review; review()"
        sets = [word for value in POLICY for word in ("--set", value)]
        self.command = [sys.executable, "-c", code, str(run), "--port", str(self.port), "--database", database, *sets]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it listens.

        Raises:
            SystemExit: it did not listen within five minutes.
        """
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            self.command, stdout=quiet, stderr=quiet, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"`rasura review` did not listen on port {self.port} within 300 s")

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def end(self, signal_number: signal.Signals = signal.SIGTERM) -> None:
        """End the server."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        self.process.wait()


class Connection:
    """A minimal HTTP client with keep-alive, so that the simulated reviewers take little processor time."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.port, self.headers = port, headers
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        """Send a request; return status, headers and the decoded JSON of the answer.

        Raises:
            OSError, EOFError: the server closed the connection.
        """
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nOrigin: http://127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n{self.headers}\r\n"
        )
        try:
            self.writer.write(head.encode() + data)
            raw = await self.reader.readuntil(b"\r\n\r\n")
            lines = raw.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:]) if k}
            answer = await self.reader.readexactly(int(headers.get("content-length", "0")))
        except (OSError, EOFError):
            self.close()
            raise
        return int(lines[0].split(" ")[1]), headers, json.loads(answer) if answer else None

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Tally:
    """Latencies and answers of all reviewers."""

    next_s: list[float] = field(default_factory=list)
    vote_s: list[float] = field(default_factory=list)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # item, nonce
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0


async def sign_in(port: int, token: str) -> str:
    """Use a link up, and return the header with the session's cookie."""
    connection = Connection(port)
    _, headers, _ = await connection.call("POST", "/api/login", {"token": token})
    connection.close()
    return f"Cookie: {headers['set-cookie'].split(';')[0]}\r\n"


async def review_items(port: int, cookie: str, until: float, pause: float, tally: Tally, rng: random.Random) -> None:
    """Take items and vote on them until a time, repeating requests that were not answered."""
    connection = Connection(port, cookie)

    async def send(path: str, body: Any, times: list[float] | None) -> tuple[int, Any]:
        while True:
            start = time.perf_counter()
            try:
                status, _, answer = await connection.call("POST", path, body)
            except (OSError, EOFError):
                tally.broken += 1
                await asyncio.sleep(0.25)
                continue
            if times is not None:
                times.append(time.perf_counter() - start)
            if status >= 500:
                tally.broken += 1
                await asyncio.sleep(0.25)
                continue
            return status, answer

    await asyncio.sleep(rng.random() * pause)
    while time.monotonic() < until:
        _, answer = await send("/api/next", {"want": 6}, tally.next_s)
        for item in answer["items"][:3]:
            if pause:
                await asyncio.sleep(pause * (0.5 + rng.random()))
            nonce = f"{rng.getrandbits(96):024x}"
            verdict = rng.choice(["yes", "yes", "no", "unsure"])
            status, _ = await send("/api/votes", {"item": item["id"], "nonce": nonce, "verdict": verdict}, tally.vote_s)
            if status == 200:
                tally.acknowledged.append((item["id"], nonce))
            else:
                tally.refused[status] += 1
            if time.monotonic() >= until:
                break
    connection.close()


async def run_session(server: Server, cookies: Sequence[str], seconds: float, pause: float, kills: int) -> Tally:
    """Run all reviewers at once; meanwhile kill and restart the server `kills` times."""
    tally, until = Tally(), time.monotonic() + seconds
    tabs = [(number, tab) for number in range(len(cookies)) for tab in range(1 + (number < TWO_TABS))]
    tasks = [
        asyncio.create_task(
            review_items(
                server.port,
                cookies[number],
                until,
                pause * (1 + (number < TWO_TABS)),
                tally,
                random.Random(f"{number} {tab} {seconds} {pause} {kills}"),
            )
        )
        for number, tab in tabs
    ]
    for _ in range(kills):
        await asyncio.sleep(seconds / (kills + 1))
        await asyncio.to_thread(server.end, signal.SIGKILL)
        await asyncio.to_thread(server.start)
    await asyncio.gather(*tasks)
    return tally


def compute_quantile_ms(values: Sequence[float], share: float) -> float:
    """Compute a quantile of seconds, in milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def check_database(database: str, acknowledged: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Compare the votes in the database with the acknowledged ones, and count faults of the accounting."""
    from sqlalchemy import func, select

    from rasura.annotator.stats.accounting import find_faults, read_accounting
    from rasura.annotator.store.database import Database, items, log, standing

    store = Database(database)
    with store.read() as connection:
        logged = Counter((row.item, row.nonce) for row in connection.execute(select(log.c.item, log.c.nonce)))
        count = func.count()
        over = (
            select(standing.c.item)
            .join(items, items.c.id == standing.c.item)
            .where(items.c.kind == "candidate", standing.c.verdict.is_not(None))
            .group_by(standing.c.item)
            .having(count > 2)
        )
        figures = {
            "acknowledged": len(acknowledged),
            "lost": sum(logged[vote] == 0 for vote in acknowledged),
            "twice": len(acknowledged) - len(set(acknowledged)) + sum(value > 1 for value in logged.values()),
            "over_quota": len(connection.execute(over).all()),
            "over_leased": connection.execute(
                select(count).where(items.c.kind == "candidate", items.c.votes + items.c.leases > items.c.needed)
            ).scalar_one(),
            "faults": len(find_faults(connection)),
            "votes": read_accounting(connection).votes,
        }
    store.close()
    return figures


def main() -> None:
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.reviewers import add_reviewer

    with make_scratch_folder() as folder:
        make_candidates(folder / "run", ITEMS)
        database = os.environ.get("REVIEW_DATABASE", str(folder / "review.sqlite"))
        store = Database(database)
        tokens = [store.write(partial(add_reviewer, name=f"r{number}")) for number in range(REVIEWERS)]
        store.close()
        server, acknowledged = Server(folder / "run", database), []
        start = time.perf_counter()
        server.start()
        print_result("review_load start", items=ITEMS, seconds=round(time.perf_counter() - start, 1))
        cookies = [asyncio.run(sign_in(server.port, token)) for token in tokens]
        for name, seconds, pause, kills in (
            ("paced", SECONDS, PAUSE_S, 0),
            ("killed", SECONDS, PAUSE_S, KILLS),
            ("saturated", SECONDS / 4, 0.0, 0),
        ):
            before = server.cpu_seconds()
            tally = asyncio.run(run_session(server, cookies, seconds, pause, kills))
            cores = None if kills else round((server.cpu_seconds() - before) / seconds, 2)
            acknowledged += tally.acknowledged
            print_result(
                f"review_load {name}",
                reviewers=REVIEWERS,
                seconds=seconds,
                kills=kills,
                votes_per_s=round(len(tally.acknowledged) / seconds, 1),
                next_ms={share: compute_quantile_ms(tally.next_s, share) for share in (0.5, 0.95, 0.99)},
                vote_ms={share: compute_quantile_ms(tally.vote_s, share) for share in (0.5, 0.95, 0.99)},
                refused=dict(tally.refused),
                broken=tally.broken,
                server_cores=cores,
            )
        server.end()
        print_result("review_load accounting", **check_database(database, acknowledged))
        if command := os.environ.get("LABEL_STUDIO"):
            from benchmarks.review.label_studio_peer import measure_label_studio

            asyncio.run(measure_label_studio(command, folder, min(SECONDS, 60.0)))


if __name__ == "__main__":
    main()
