"""File systems without hard links, locks or sync of folders: a run keeps the same promise on them."""

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import digest, environment, rasura, write_recipe
from support.engine_recipes import build_recipe_keys

from rasura.manifests.storage import Store, StoreError
from rasura.manifests.stores import local_files

DEFECTS = '''
"""What a file system without hard links, locks and sync of folders answers; read at the start of every process."""
import errno, fcntl, os, stat

def refuse(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))
    return call

def sync(handle, fsync=os.fsync):
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")
    return fsync(handle)

os.link, fcntl.flock, os.fsync = refuse(errno.EPERM), refuse(errno.ENOLCK), sync
open(os.environ["DEFECTS_SEEN"], "a").close()
'''


def refuse(number: int) -> Callable[..., Any]:
    def call(*arguments: object, **options: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_the_first_writer_wins_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Of many that create one name, one succeeds, the file is wholly its own, and nothing else is left."""
    monkeypatch.setattr(os, "link", refuse(number))
    start = threading.Barrier(8)

    def create(writer: int) -> bool:
        start.wait()
        return Store(tmp_path).create("line.json", str(writer).encode() * 10_000)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(create, range(8)))
    assert sum(won) == 1
    assert (tmp_path / "line.json").read_bytes() == str(won.index(True)).encode() * 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["line.json"]


def test_a_claim_of_a_killed_process_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the way for some seconds and no longer, and the start of a run clears it away."""
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(local_files, "CLAIM_S", 0.2)
    claim = tmp_path / ".tmp-line.json-00000000"
    claim.touch()
    start = time.monotonic()
    assert Store(tmp_path).create("line.json", b"whole")
    assert time.monotonic() - start > 0.2
    claim.touch()
    assert not Store(tmp_path).create("line.json", b"other")
    assert Store(tmp_path).clear_temporary([]) == 1


def test_errors_that_are_no_lack_of_an_operation_stay_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or bad disk is told, and leaves no half file behind."""
    for number in (errno.ENOSPC, errno.EIO):
        for name in ("link", "fsync"):
            with monkeypatch.context() as context:
                context.setattr(os, name, refuse(number))
                with pytest.raises(StoreError, match=os.strerror(number)):
                    Store(tmp_path).create("line.json", b"whole")
    with monkeypatch.context() as context:
        context.setattr(fcntl, "flock", refuse(errno.EIO))
        with pytest.raises(StoreError, match="Input/output error"), Store(tmp_path).lock():
            pass
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []


def test_a_folder_that_cannot_be_synced_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, []

    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    store = Store(tmp_path / "run")
    store.write("tables/a", b"one")
    assert store.create("tables/b", b"two")
    assert (store.read("tables/a"), store.read("tables/b")) == (b"one", b"two")
    assert len(synced) == 2


def test_a_lock_that_is_no_file_is_named(tmp_path: Path) -> None:
    """A link is not followed."""
    store = Store(tmp_path)
    lock = tmp_path / ".lock"
    for number, make in enumerate((lambda: lock.symlink_to("/etc/passwd"), lock.mkdir, lambda: os.mkfifo(lock))):
        make()
        with pytest.raises(StoreError, match=r"\.lock is no file .*; remove it"), store.lock():
            pass
        lock.rename(tmp_path / str(number))


def test_nothing_is_made_above_a_run_that_is_gone(tmp_path: Path) -> None:
    """A store whose folder was there and is not any more writes nothing, and says so; so do those below it."""
    run = Store(tmp_path / "disk" / "run")
    run.write("plan.json", b"{}")
    table = run.sub("tables/made")
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    for store in (run, table):
        with pytest.raises(StoreError, match="not there any more: was it deleted, moved or unmounted"):
            store.write("a", b"b")
        with pytest.raises(StoreError, match="not there any more"):
            store.create("a", b"b")
    with pytest.raises(StoreError, match="not there any more"), run.lock():
        pass
    assert not (tmp_path / "disk").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "disk")
    table.write("a", b"b")


@pytest.mark.ray
def test_a_run_on_such_a_file_system_has_the_same_bytes(tmp_path: Path) -> None:
    """Links, locks and the sync of folders fail in driver and workers as they do on exFAT, NFS and CIFS."""
    (tmp_path / "defects").mkdir()
    (tmp_path / "defects" / "sitecustomize.py").write_text(DEFECTS)
    env = environment(DEFECTS_SEEN=str(tmp_path / "seen"))
    env["PYTHONPATH"] = f"{tmp_path / 'defects'}{os.pathsep}{env['PYTHONPATH']}"
    recipe = write_recipe(tmp_path, **build_recipe_keys())
    rasura("run", recipe, "--into", tmp_path / "run", env=env)
    assert (tmp_path / "seen").exists()
    rasura("run", recipe, "--into", tmp_path / "reference")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")
    assert not (tmp_path / "run" / "lock.json").exists()
    assert not list((tmp_path / "run").rglob(".tmp-*"))
