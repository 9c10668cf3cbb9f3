"""A store writes complete files or none, the first writer wins, and errors are clear, on a disk and on S3."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import digest, environment, rasura, write_recipe
from support.engine_recipes import build_recipe_keys
from support.s3_server import serve_bucket

from rasura.manifests.storage import RunLocked, Store, StoreError
from rasura.manifests.tables import Tables


def _create(arguments: tuple[str, int]) -> bool:
    uri, writer = arguments
    return Store(uri).create("line.json", str(writer).encode() * 1000)


def test_the_first_writer_wins_and_nobody_sees_half_a_file(tmp_path: Path) -> None:
    """Of many processes that create one name, one succeeds, and the file is wholly its own."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        won = pool.map(_create, [(str(tmp_path), n) for n in range(8)])
    assert sum(won) == 1
    assert (tmp_path / "line.json").read_bytes() == str(won.index(True)).encode() * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["line.json"]


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A second owner is refused; when the first is killed, the run is free at once."""
    code = f"""
import time
from rasura.manifests.storage import Store
with Store({str(tmp_path)!r}).lock():
    print("mine", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment(), text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(RunLocked, match=f"pid {process.pid}"), Store(tmp_path).lock():
        pass
    process.kill()
    process.communicate()
    with Store(tmp_path).lock():
        pass


@pytest.mark.ray
def test_a_full_disk_fails_loudly_and_leaves_what_was_committed(tmp_path: Path) -> None:
    """When the disk is full in the middle of a run, the run ends with one clear error and exit code 1; what was
    committed verifies line by line, and with room again the same command ends as an undisturbed run."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        recipe = write_recipe(tmp_path, **build_recipe_keys())
        done = rasura("run", recipe, "--into", mount / "run", check=False)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        lines = list((mount / "run" / "tables" / "made" / "lines").glob("*.json"))
        assert lines
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        rasura("run", recipe, "--into", mount / "run")
        rasura("run", recipe, "--into", tmp_path / "reference")
        assert digest(mount / "run") == digest(tmp_path / "reference")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.ray
def test_a_read_only_target_fails_loudly(tmp_path: Path) -> None:
    """A target that cannot be written is told before anything is computed."""
    mount = tmp_path / "frozen"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("no right to mount a read-only file system")
    try:
        done = rasura("run", write_recipe(tmp_path, **build_recipe_keys()), "--into", mount / "run", check=False)
        assert done.returncode == 1
        assert f"cannot write {mount}/run: Read-only file system" in done.stderr
        with pytest.raises(StoreError):
            Store(mount / "run").write("a", b"b")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A bucket of a local S3 server."""
    with serve_bucket() as keys:
        yield keys


@pytest.mark.ray
def test_a_bucket_is_as_good_as_a_folder(s3: dict[str, str], tmp_path: Path) -> None:
    """The same recipe into s3:// gives the same bytes as into a folder; a rerun makes nothing again; create-if-absent
    holds; `verify` and `show` work on it."""
    store = Store("s3://rasura-test/first")
    assert store.create("line.json", b"one")
    assert not store.create("line.json", b"two")
    assert store.read("line.json") == b"one"
    recipe = write_recipe(tmp_path, **build_recipe_keys())
    rasura("run", recipe, "--into", "s3://rasura-test/run")
    rasura("run", recipe, "--into", tmp_path / "run")
    remote = Store("s3://rasura-test/run")
    for name in digest(tmp_path / "run"):
        assert remote.read(name) == (tmp_path / "run" / name).read_bytes(), name
    again = rasura("run", recipe, "--into", "s3://rasura-test/run")
    assert "all 48 inputs are done" in again.stderr
    assert rasura("verify", "s3://rasura-test/run").returncode == 0
    id = Tables(remote).table("made").read_light(["id"])["id"][0].as_py()
    assert id in rasura("show", id, "--run", "s3://rasura-test/run").stdout


class _BrokenBucket:
    """A file system whose requests all fail as botocore's do without credentials."""

    def __getattr__(self, name: str) -> Any:
        def fail(*arguments: object, **options: object) -> Any:
            raise pytest.importorskip("botocore.exceptions").NoCredentialsError

        return fail


def test_an_object_stores_errors_name_the_file(tmp_path: Path) -> None:
    """An error of an object store's client is a `StoreError` that says what was to be done with which file."""
    store = Store("s3://bucket/run")
    store._fs = _BrokenBucket()
    calls: dict[str, Callable[[], object]] = {
        "write": lambda: store.write("a.json", b""),
        "read": lambda: store.read("a.json"),
        "list": lambda: store.files("tables"),
        "delete": lambda: store.delete("a.json"),
    }
    for action, call in calls.items():
        with pytest.raises(StoreError, match=f"^cannot {action} s3://bucket/run/.*: Unable to locate credentials"):
            call()
    with pytest.raises(StoreError, match=r"cannot write s3://bucket/run/a\.json"):
        store.create("a.json", b"")
    with pytest.raises(StoreError, match=r"cannot read s3://bucket/run/a\.json"):
        store.open("a.json")
