"""A PostgreSQL server for the tests, run from Debian's binaries in a temporary folder; it is gone with the session."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import find_free_ports


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if programs:
        return programs[-1].parent
    other = shutil.which("postgres")
    return Path(other).parent if other else None


class Postgres:
    """A server of one's own that can be stopped hard and started again."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        self.as_user: list[str] = []
        if os.geteuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        (self.port,) = find_free_ports(1)
        command = [
            *self.as_user,
            str(tools / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            "rasura",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        import psycopg

        command = [
            *self.as_user,
            str(self.tools / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=self.folder)
        deadline = time.monotonic() + 300
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=30).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Stops it at once, as a crash would for those connected."""
        assert self.process is not None
        subprocess.run(
            [*self.as_user, str(self.tools / "pg_ctl"), "-D", str(self.folder / "data"), "stop", "-m", "immediate"],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )
        self.process.wait(300)

    def url(self, name: str) -> str:
        """URL of a database in it."""
        return f"postgresql://rasura@127.0.0.1:{self.port}/{name}"

    def new(self) -> str:
        """URL of a new, empty database."""
        import psycopg

        name = f"review_{secrets.token_hex(4)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; what needs it skips where there is none (tests/support/annotator/setup.sh installs it)."""
    tools = binaries()
    if tools is None:
        pytest.skip("no PostgreSQL here (tests/support/annotator/setup.sh installs it)")
    with tempfile.TemporaryDirectory(prefix="rasura-pg-") as folder:
        server = Postgres(Path(folder), tools)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a review is kept: an SQLite file, and a PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "review.sqlite")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new()
