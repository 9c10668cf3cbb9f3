"""A review under load: 50 simulated reviewers on 100,000 items, the server in a process of its own.

Goals: p95 of "next" and of "vote" at most 50 ms on 2 cores; no item leased twice or judged beyond its quota; the same
with `kill -9` of the server five times, after which every acknowledged vote is there once.

A reviewer here looks at an item for a second on average (people need two), so that 50 of them say 50 verdicts a second;
then the same without any pause tells the most that the server can do. RORem's load was 3 a second.
REVIEW_SECONDS (120), REVIEW_ITEMS, REVIEW_DATABASE (a PostgreSQL URL) and LABEL_STUDIO (the path of a
`label-studio` command, installed in an environment of its own) change what is measured; with LABEL_STUDIO its server
does next-task and annotate on the same machine in the same run.
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
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import ROOT, say, scratch

REVIEWERS = 50
ITEMS = int(os.environ.get("REVIEW_ITEMS", "100000"))
SECONDS = float(os.environ.get("REVIEW_SECONDS", "120"))
PAUSE_S = 1.0
KILLS = 5
POLICY = ("votes=2", "near_votes=2", "most_votes=2", "honeypots=0.05", "lease_minutes=5")


def make_candidates(folder: Path, count: int) -> None:
    """A run with many candidates whose pictures are small and the same: the queue does not look at them."""
    import pyarrow as pa
    from support.annotator_runs import CANDIDATES, CAPTURED, Run, row

    from rasura.manifests.schemas import encode_records
    from rasura.manifests.shards import StageCount, commit, write_manifest

    run = Run(folder)
    run.flow("captured", [row(n, "captured", 16) for n in range(60)], CAPTURED)
    run.flow("candidates", [row(0, "edited", 16)], CANDIDATES)
    table, lines, step = run.store.sub("tables/candidates"), [], 5000
    one = encode_records([row(0, "edited", 16)], CANDIDATES)
    for start in range(0, count, step):
        size = min(step, count - start)
        part = one.take([0] * size)
        numbers = range(start, start + size)
        columns = {
            "id": [f"e{n:07d}" for n in numbers],
            "score": [(n * 7919 % 10007) / 10007 for n in numbers],
            "label": [("car", "chair", "dog")[n % 3] for n in numbers],
        }
        for name, values in columns.items():
            at = part.schema.get_field_index(name)
            part = part.set_column(at, part.schema.field(at), pa.array(values))
        counts = [StageCount(stage, size, size, size) for stage in ("made", "write")]
        lines.append(commit(table, f"many{start}", "p", size, part, (), counts))
    write_manifest(table, lines, CANDIDATES)


class Server:
    """`rasura review` in a process of its own, which can be killed and started again at the same port."""

    def __init__(self, run: Path, database: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        code = "from rasura.pipeline.cli.review import review; review()"
        sets = [word for value in POLICY for word in ("--set", value)]
        self.command = [sys.executable, "-c", code, str(run), "--port", str(self.port), "--database", database, *sets]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it listens."""
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdout=quiet, stderr=quiet, cwd=ROOT,
                                        env={**os.environ, "PYTHONPATH": path})  # fmt: skip
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server did not come up")

    def cpu_seconds(self) -> float:
        """Processor time that the server has used."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()


class Connection:
    """Keep-alive HTTP by hand: the simulated reviewers must not take the cores that they measure."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.port, self.headers = port, headers
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        """One request; raises OSError or EOFError where the server is gone."""
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
        """Closes it."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Seen:
    """What the reviewers saw together."""

    next_s: list[float] = field(default_factory=list)
    vote_s: list[float] = field(default_factory=list)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # item, nonce
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0


async def reviewer(port: int, token: str, until: float, pause: float, seen: Seen, chance: random.Random) -> None:
    """One who takes items and judges them, sending again what was not answered."""
    line = Connection(port)

    async def send(path: str, body: Any, times: list[float] | None) -> tuple[int, Any]:
        while True:
            start = time.perf_counter()
            try:
                status, headers, told = await line.call("POST", path, body)
            except (OSError, EOFError):
                seen.broken += 1
                await asyncio.sleep(0.25)
                continue
            if times is not None:
                times.append(time.perf_counter() - start)
            if cookie := headers.get("set-cookie"):
                line.headers = f"Cookie: {cookie.split(';')[0]}\r\n"
            if status >= 500:
                seen.broken += 1
                await asyncio.sleep(0.25)
                continue
            return status, told

    await send("/api/login", {"token": token}, None)
    await asyncio.sleep(chance.random() * pause)
    while time.monotonic() < until:
        _, told = await send("/api/next", {"want": 6}, seen.next_s)
        for item in told["items"][:3]:
            if pause:
                await asyncio.sleep(pause * (0.5 + chance.random()))
            nonce = f"{chance.getrandbits(96):024x}"
            verdict = chance.choice(["yes", "yes", "no", "unsure"])
            status, _ = await send("/api/votes", {"item": item["id"], "nonce": nonce, "verdict": verdict}, seen.vote_s)
            if status == 200:
                seen.acknowledged.append((item["id"], nonce))
            else:
                seen.refused[status] += 1
            if time.monotonic() >= until:
                break
    line.close()


async def session(server: Server, tokens: Sequence[str], seconds: float, pause: float, kills: int) -> Seen:
    """All reviewers at once; meanwhile the server is killed and started again so many times."""
    seen, until = Seen(), time.monotonic() + seconds
    work = [
        asyncio.create_task(
            reviewer(server.port, token, until, pause, seen, random.Random(f"{number} {seconds} {pause} {kills}"))
        )
        for number, token in enumerate(tokens)
    ]
    for _ in range(kills):
        await asyncio.sleep(seconds / (kills + 1))
        await asyncio.to_thread(server.end, signal.SIGKILL)
        await asyncio.to_thread(server.start)
    await asyncio.gather(*work)
    return seen


def quantile(values: Sequence[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def examine(database: str, every: Sequence[tuple[str, str]]) -> dict[str, int]:
    """What the database holds, against what was acknowledged; and whether anything does not add up."""
    from sqlalchemy import func, select

    from rasura.annotator.stats.accounting import account, faults
    from rasura.annotator.store.database import Database, items, log, standing

    opened = Database(database)
    with opened.read() as connection:
        noted = Counter((row.item, row.nonce) for row in connection.execute(select(log.c.item, log.c.nonce)))
        count = func.count()
        over = (
            select(standing.c.item)
            .join(items, items.c.id == standing.c.item)
            .where(items.c.kind == "candidate", standing.c.verdict.is_not(None))
            .group_by(standing.c.item)
            .having(count > 2)
        )
        told = {
            "acknowledged": len(every),
            "lost": sum(noted[one] == 0 for one in every),
            "twice": len(every) - len(set(every)) + sum(value > 1 for value in noted.values()),
            "over_quota": len(connection.execute(over).all()),
            "over_leased": connection.execute(
                select(count).where(items.c.kind == "candidate", items.c.votes + items.c.leases > items.c.needed)
            ).scalar_one(),
            "faults": len(faults(connection)),
            "votes": account(connection).votes,
        }
    opened.close()
    return told


def main() -> None:
    from rasura.annotator.store.database import Database
    from rasura.annotator.store.reviewers import add_reviewer

    with scratch() as folder:
        make_candidates(folder / "run", ITEMS)
        database = os.environ.get("REVIEW_DATABASE", str(folder / "review.sqlite"))
        opened = Database(database)
        tokens = [opened.write(lambda connection, n=n: add_reviewer(connection, f"r{n}")) for n in range(REVIEWERS)]
        opened.close()
        server, every = Server(folder / "run", database), []
        start = time.perf_counter()
        server.start()
        say("review_load start", items=ITEMS, seconds=round(time.perf_counter() - start, 1))
        for name, seconds, pause, kills in (
            ("paced", SECONDS, PAUSE_S, 0), ("killed", SECONDS, PAUSE_S, KILLS), ("saturated", SECONDS / 4, 0.0, 0)
        ):  # fmt: skip
            before = server.cpu_seconds()
            seen = asyncio.run(session(server, tokens, seconds, pause, kills))
            cores = None if kills else round((server.cpu_seconds() - before) / seconds, 2)
            every += seen.acknowledged
            say(
                f"review_load {name}", reviewers=REVIEWERS, seconds=seconds, kills=kills,
                votes_per_s=round(len(seen.acknowledged) / seconds, 1),
                next_ms={share: quantile(seen.next_s, share) for share in (0.5, 0.95, 0.99)},
                vote_ms={share: quantile(seen.vote_s, share) for share in (0.5, 0.95, 0.99)},
                refused=dict(seen.refused), broken=seen.broken, server_cores=cores,
            )  # fmt: skip
        server.end()
        say("review_load account", **examine(database, every))
        if command := os.environ.get("LABEL_STUDIO"):
            asyncio.run(label_studio(command, folder, min(SECONDS, 60.0)))


async def label_studio(command: str, folder: Path, seconds: float) -> None:
    """Label Studio's own server with one user and nobody else: the time of its next-task and of its annotate."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = f"{random.getrandbits(160):040x}"
    env = {**os.environ, "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false", "SENTRY_DSN": ""}
    start = [command, "start", "--no-browser", "--port", str(port), "--data-dir", str(folder / "label-studio"),
             "--username", "a@example.com", "--password", "a long password", "--user-token", token]  # fmt: skip
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(start, stdout=quiet, stderr=quiet, env=env, start_new_session=True)
    line = Connection(port, f"Authorization: Token {token}\r\n")

    async def call(method: str, path: str, body: Any = None) -> tuple[float, Any]:
        for _ in range(3):
            began = time.perf_counter()
            try:
                status, _, told = await line.call(method, path, body)
            except EOFError:  # it closes connections between requests
                continue
            if status >= 400:
                raise SystemExit(f"label studio: {method} {path} answered {status}: {told}")
            return time.perf_counter() - began, told
        raise SystemExit("label studio hangs up")

    try:
        for _ in range(240):
            try:
                await line.call("GET", "/health")
                break
            except (OSError, EOFError, ValueError):
                await asyncio.sleep(0.5)
        choices = '<Choices name="verdict" toName="t"><Choice value="yes"/><Choice value="no"/></Choices>'
        config = f'<View><Text name="t" value="$id"/>{choices}</View>'
        _, project = await call("POST", "/api/projects", {"title": "load", "label_config": config})
        where, tasks = f"/api/projects/{project['id']}", [{"data": {"id": f"e{n}"}} for n in range(10_000)]
        for first in range(0, len(tasks), 1000):
            await call("POST", f"{where}/import", tasks[first : first + 1000])
        next_s, vote_s, until = [], [], time.monotonic() + seconds
        chosen = [{"from_name": "verdict", "to_name": "t", "type": "choices", "value": {"choices": ["yes"]}}]
        while time.monotonic() < until:
            took, task = await call("GET", f"{where}/next")
            next_s.append(took)
            took, _ = await call("POST", f"/api/tasks/{task['id']}/annotations", {"result": chosen})
            vote_s.append(took)
        say(
            "label_studio one user, no pause", tasks=len(tasks), votes_per_s=round(len(vote_s) / seconds, 1),
            next_ms={share: quantile(next_s, share) for share in (0.5, 0.95)},
            vote_ms={share: quantile(vote_s, share) for share in (0.5, 0.95)},
        )  # fmt: skip
    finally:
        line.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
