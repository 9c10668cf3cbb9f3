"""Faults of the surroundings cost no row: they are waited for, or end the run, and the same command finishes it."""

import errno
import http.client
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from conftest import digest, environment, rasura, write_recipe

from rasura.manifests.images import BadImage
from rasura.manifests.safety.text import make_text
from rasura.manifests.shards import DamagedFile
from rasura.manifests.storage import Store, StoreError
from rasura.networks.web_client import ServerUnavailable
from rasura.pipeline.engine.execute import NO_MONITOR, Quarantine, run_batch
from rasura.pipeline.engine.faults import SurroundingsFault, is_fault_of_surroundings, is_short_of_memory
from rasura.pipeline.run.accounting import compute_accounting
from rasura.stages.sources.files import ChangedInput
from rasura.stages.stage import Kept, Params, Stage

COUNT = 24


def chain(outer: Exception, inner: Exception) -> Exception:
    """An error that was raised from another one."""
    outer.__cause__ = inner
    return outer


SURROUNDINGS = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EMFILE, "Too many open files"),
    ConnectionResetError("reset"),
    TimeoutError("timed out"),
    urllib.error.URLError("no route"),
    http.client.RemoteDisconnected("no answer"),
    ServerUnavailable("it is away"),
    StoreError("cannot write"),
    DamagedFile("a shard is missing"),
    ChangedInput("it was changed"),
    ModuleNotFoundError("No module named 'torch'"),
    chain(BadImage("it cannot be decoded"), OSError(errno.EIO, "Input/output error")),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ssl.SSLError(1, "record layer failure"),
    ssl.SSLCertVerificationError(1, "certificate has expired"),
    RuntimeError("can't start new thread"),
    sqlite3.OperationalError("database or disk is full"),
    RuntimeError("I/O error: No space left on device (os error 28)"),  # of a library in Rust
    ExceptionGroup("two files", [ValueError("no picture"), OSError(errno.EIO, "Input/output error")]),
    ExceptionGroup("nested", [ExceptionGroup("files", [ModuleNotFoundError("No module named 'torch'")])]),
]
ROWS = [
    ValueError("no picture"),
    BadImage("it cannot be decoded"),
    OSError("image file is truncated"),  # of a decoder: it has no number
    PermissionError(errno.EACCES, "Permission denied"),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    ZeroDivisionError("division by zero"),
    ExceptionGroup("two files", [ValueError("no picture"), PermissionError(errno.EACCES, "Permission denied")]),
    sqlite3.OperationalError("no such table: rows"),
]
LACKS_OF_MEMORY = [
    MemoryError("Unable to allocate 3.2 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to"),
    cv2.error("OpenCV(4.11.0) error: (-4:Insufficient memory) Failed to allocate 123 bytes"),
    chain(RuntimeError("the view cannot be drawn"), MemoryError()),
    ExceptionGroup("two views", [MemoryError()]),
]


def test_errors_are_told_apart() -> None:
    """What disks, networks and nodes raise is no row's fault; what decoders, stages and names raise is."""
    assert [error for error in LACKS_OF_MEMORY if not is_short_of_memory(error)] == []
    assert [error for error in (*SURROUNDINGS, *ROWS) if is_short_of_memory(error)] == []
    for reads_inputs in (True, False):
        assert [error for error in SURROUNDINGS if not is_fault_of_surroundings(error, reads_inputs)] == []
        assert [error for error in ROWS if is_fault_of_surroundings(error, reads_inputs)] == []
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/Input/output error.png")
    assert is_fault_of_surroundings(missing, reads_inputs=True)
    assert not is_fault_of_surroundings(missing, reads_inputs=False)


def test_texts_of_errors_can_always_be_written() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert not is_fault_of_surroundings(Silent(), reads_inputs=True)
    assert not is_short_of_memory(Silent())
    assert make_text(Silent()) == "<Silent without text: RuntimeError>"
    assert make_text(ValueError("a\nb \udcff")).encode() == b"a b \\udcff"


class Hungry(Stage):
    """Needs more memory for one record than there is."""

    name = "hungry"

    def process_one(self, record: Any) -> Any:
        if record["id"] == "b":
            raise MemoryError("Unable to allocate 3.2 GiB")
        return Kept([record])


def test_a_lack_of_memory_stops_the_shard_and_names_its_record() -> None:
    """It may be a neighbour's doing: the record is named, alone, and what passed beside it is counted by the caller."""
    records = [{"id": id} for id in "abc"]
    with pytest.raises(SurroundingsFault) as caught:
        run_batch("hungry", Hungry(Params()), records, 10.0, NO_MONITOR)
    assert (caught.value.ids, caught.value.memory) == (("b",), True)
    assert Quarantine().failed == {}


def recipe_keys(folder: Path, patience_s: float, **more: Any) -> dict[str, Any]:
    """A recipe whose stage raises what the test writes into its folder."""
    stages = [{"synthetic:Triplet": {"raise_every": 5}}, {"synthetic:Faulty": {"folder": str(folder), **more}}]
    flows = {"made": {"source": {"synthetic:Numbers": {"count": COUNT}}, "stages": stages}}
    return {"flows": flows, "engine": {"shard_rows": 4, "workers": 2, "patience_s": patience_s}, "dataset": {}}


def start(recipe: Path, into: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(into), "--quiet"]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Wait for a condition while the process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def count_raised(folder: Path) -> int:
    return len((folder / "raised").read_text()) if (folder / "raised").exists() else 0


@pytest.mark.ray
def test_a_passing_fault_costs_nothing(tmp_path: Path) -> None:
    """A disk that is bad for a while: the shards wait, and the run ends as if nothing had been; no row is lost."""
    recipe = write_recipe(tmp_path, **recipe_keys(tmp_path, patience_s=600))
    rasura("run", recipe, "--into", tmp_path / "reference")
    (tmp_path / "fault").write_text("bad disk")
    process = start(recipe, tmp_path / "run")
    wait_until(process, lambda: count_raised(tmp_path) >= 3)
    (tmp_path / "fault").unlink()
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")


@pytest.mark.ray
@pytest.mark.parametrize("fault", ["full disk", "memory"])
def test_a_fault_that_stays_ends_the_run_and_the_same_command_finishes_it(tmp_path: Path, fault: str) -> None:
    """Shards that the fault does not touch are committed; the others are not, no row is failed, and the exit status is
    1 with the cause. When it is gone, the same command reaches the bytes of an undisturbed run."""
    recipe = write_recipe(tmp_path, **recipe_keys(tmp_path, patience_s=1, only=[7, 8, 9, 10, 11]))
    rasura("run", recipe, "--into", tmp_path / "reference")
    (tmp_path / "fault").write_text(fault)
    done = rasura("run", recipe, "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "could not be made" in done.stderr
    assert "no row was lost; when the cause is gone, the same command makes the rest" in done.stderr
    assert ("No space left on device" if fault == "full disk" else "MemoryError") in done.stderr
    assert 0 < len(list((tmp_path / "run").glob("tables/made/lines/*.json"))) < COUNT / 4
    assert not (tmp_path / "run" / "tables" / "made" / "manifest.parquet").exists()
    (tmp_path / "fault").unlink()
    rasura("run", recipe, "--into", tmp_path / "run")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")


@pytest.mark.ray
def test_a_row_that_alone_lacks_memory_costs_one_row(tmp_path: Path) -> None:
    """Where others pass beside it at every try, it is the row's own size: it fails, and the run ends well."""
    (tmp_path / "fault").write_text("memory")
    recipe = write_recipe(tmp_path, **recipe_keys(tmp_path, patience_s=60, only=[9]))
    rasura("run", recipe, "--into", tmp_path / "run")
    failed = [stage.failed for stage in compute_accounting(Store(tmp_path / "run")).flows[0].stages if stage.failed]
    assert failed == [{"OutOfMemory": 1}]


@pytest.mark.ray
def test_a_folder_that_is_replaced_under_the_run_is_noticed(tmp_path: Path) -> None:
    """The run's folder is moved away, as by an unmount: nothing is written beside it, the run ends with the reason, and
    goes on when the folder is back."""
    recipe = write_recipe(tmp_path, **recipe_keys(tmp_path, patience_s=1))
    rasura("run", recipe, "--into", tmp_path / "reference")
    (tmp_path / "fault").write_text("bad disk")  # so that nothing is committed before the folder is away
    process = start(recipe, tmp_path / "run")
    wait_until(process, lambda: count_raised(tmp_path) >= 1)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    (tmp_path / "fault").unlink()
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 1
    assert "deleted, replaced or unmounted" in text
    assert not (tmp_path / "run").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "run")
    rasura("run", recipe, "--into", tmp_path / "run")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")


@pytest.mark.ray
def test_failed_rows_are_made_again_when_asked(tmp_path: Path) -> None:
    """The same command leaves failed rows alone; with --retry-failed they are made again, by their errors or all."""
    recipe = write_recipe(tmp_path, **recipe_keys(tmp_path, patience_s=1, only=[3, 14]))
    rasura("run", recipe, "--into", tmp_path / "reference")
    (tmp_path / "fault").write_text("row")
    rasura("run", recipe, "--into", tmp_path / "run")
    failed = digest(tmp_path / "run")
    (tmp_path / "fault").unlink()
    rasura("run", recipe, "--into", tmp_path / "run")
    done = rasura("run", recipe, "--into", tmp_path / "run", "--retry-failed", "OSError")
    assert "no row failed with OSError; its errors are ValueError (" in done.stderr
    assert digest(tmp_path / "run") == failed
    rasura("run", recipe, "--into", tmp_path / "run", "--retry-failed", "ValueError")
    assert digest(tmp_path / "run") == digest(tmp_path / "reference")


@pytest.mark.ray
def test_a_run_that_loses_too_much_stops(tmp_path: Path) -> None:
    """More than `max_failed` of the inputs, and more than 20: exit status 1, the commonest error, and how to go on."""
    (tmp_path / "fault").write_text("row")
    keys = recipe_keys(tmp_path, patience_s=1)
    keys["flows"]["made"]["source"]["synthetic:Numbers"]["count"] = 80
    recipe = write_recipe(tmp_path, **keys)
    done = rasura("run", recipe, "--into", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert "rows of 80 inputs failed" in done.stderr
    assert "with ValueError" in done.stderr
    (tmp_path / "fault").unlink()
    assert rasura("run", recipe, "--into", tmp_path / "run", "--retry-failed").returncode == 0
    assert not any(stage.failed for stage in compute_accounting(Store(tmp_path / "run")).flows[0].stages)
