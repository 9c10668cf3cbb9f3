"""A lease on a store without locks: one driver at a time, none is locked out for long, and who lost it stops."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import digest, environment, rasura, write_recipe
from support.engine_recipes import build_recipe_keys
from support.s3_server import serve_bucket

from rasura.manifests.storage import RunLocked, Store
from rasura.manifests.stores import lease as leases
from rasura.manifests.stores.lease import LEASE, Lease

LONG_S = 120.0
"""A lease for tests of what does not wait for its end, however busy the machine is."""


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A bucket of a local S3 server."""
    with serve_bucket() as keys:
        yield keys


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that expires after two seconds."""
    for name, seconds in {"LEASE_S": 2.0, "RENEW_S": 0.3, "SKEW_S": 600.0, "POLL_S": 0.1, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(leases, name, seconds)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run on a file system without locks, and one in a bucket."""
    if request.param == "bucket":
        request.getfixturevalue("s3")
        return Store(f"s3://rasura-test/{tmp_path.name}")

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return Store(tmp_path / "run")


def leave_lease(store: Store, **values: object) -> None:
    body = {"owner": "gone", "host": "node3", "pid": 12, "time": time.time(), **values}
    store.write(LEASE, json.dumps(body).encode())


def test_a_second_driver_is_refused_while_the_first_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.lock():
        monkeypatch.setattr(leases, "LEASE_S", LONG_S)
        start = time.monotonic()
        with pytest.raises(RunLocked, match=f"owned by another driver \\(pid {os.getpid()} on "), store.lock():
            pass
        assert time.monotonic() - start < LONG_S / 2
        assert store.exists(LEASE)
    assert not store.exists(LEASE)
    with store.lock():
        pass


@pytest.mark.parametrize("values", [{}, {"time": 0.0}, {"owner": None}])
def test_a_lease_that_was_left_behind_is_waited_for(
    store: Store, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is sure that nobody renews it; one that is long past is taken at once."""
    leave_lease(store, **values)
    with monkeypatch.context() as patch:
        if is_past := values.get("time") == 0:
            patch.setattr(leases, "LEASE_S", LONG_S)
        start = time.monotonic()
        with store.lock():
            waited = time.monotonic() - start
            assert json.loads(store.read(LEASE))["owner"] != "gone"
        assert waited < LONG_S / 2 if is_past else waited >= 2
    store.write(LEASE, b"{cut off")
    with store.lock():
        pass


def test_a_driver_that_waits_gives_way_to_one_that_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is renewed, by a clock that goes wrong by minutes: its owner lives."""
    monkeypatch.setattr(leases, "LEASE_S", LONG_S)
    leave_lease(store, time=time.time() - 400)

    def renew() -> None:
        time.sleep(0.8)
        leave_lease(store, time=time.time() - 399)

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(RunLocked, match="pid 12 on node3"), store.lock():
        pass
    thread.join()
    assert json.loads(store.read(LEASE))["owner"] == "gone"


class LostReply(Store):
    """A store whose first answer to a creation is lost, so that its client asks again and is told: it exists."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return super().create(path, data)


def test_a_lost_reply_locks_nobody_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", LONG_S)
    lossy = LostReply(store.uri)
    start = time.monotonic()
    with Lease(lossy).hold():
        assert store.exists(LEASE)
    assert time.monotonic() - start < LONG_S / 2
    assert not store.exists(LEASE)


@pytest.mark.parametrize("fate", ["taken", "deleted"])
def test_a_driver_that_lost_its_lease_stops(store: Store, fate: str) -> None:
    """What it does is interrupted, and the lease of the other one stays."""

    def work() -> None:
        with store.lock():
            if fate == "taken":
                leave_lease(store)
            else:
                store.delete(LEASE)
            for _ in range(1000):
                time.sleep(0.02)

    with pytest.raises(RunLocked, match=r"was taken over.*what was committed is whole"):
        work()
    assert store.exists(LEASE) == (fate == "taken")


def test_one_of_several_that_wait_takes_it_over(store: Store) -> None:
    leave_lease(store)
    owned: list[str] = []

    def take(name: str) -> None:
        try:
            with Lease(store).hold():
                owned.append(name)
                time.sleep(2)
        except RunLocked:
            pass

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owned) == 1


@pytest.mark.ray
def test_sigterm_releases_the_lease_and_the_same_command_goes_on_at_once(s3: dict[str, str], tmp_path: Path) -> None:
    """Exit status 143, no process of the run is left, and the next one ends as an undisturbed run."""
    recipe = write_recipe(tmp_path, **build_recipe_keys(sleep_s=0.2))
    place, run = "s3://rasura-test/terminated", Store("s3://rasura-test/terminated")
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", place, "--quiet"]
    env = environment(TERMINATED_RUN=tmp_path.name)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not run.files("tables/made/lines"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    assert run.exists(LEASE)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=120)[0]
    assert process.returncode == 143, text
    assert text.strip() == "stopped; what was committed is whole, and the same command continues from there"
    assert not run.exists(LEASE)
    wait_for_end(f"TERMINATED_RUN={tmp_path.name}")
    assert "waiting" not in rasura("run", recipe, "--into", place).stderr
    rasura("run", recipe, "--into", tmp_path / "reference")
    for name in digest(tmp_path / "reference"):
        assert run.read(name) == (tmp_path / "reference" / name).read_bytes(), name


def wait_for_end(mark: str) -> None:
    """Wait until no process has this in its environment."""
    deadline = time.monotonic() + 90
    while remaining := list_processes(mark):
        assert time.monotonic() < deadline, remaining
        time.sleep(0.2)


def list_processes(mark: str) -> list[str]:
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                names.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            continue
    return names
