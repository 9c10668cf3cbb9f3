"""A few of the faults that `python -m benchmarks chaos` injects: nothing false is called done, and nothing is lost."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine.chaos import carry_out
from benchmarks.engine.chaos_job import Reference, make_reference

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def job() -> Iterator[tuple[Path, Reference, Path]]:
    """The folder of the cases, the undisturbed run and its inputs; the path is short, since sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp") as folder:
        yield Path(folder), *make_reference(Path(folder))


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("input EIO", "start"),
        ("cut shard", "between"),
        ("target replaced", "between"),
        ("target full", "export"),
        ("SIGHUP", "middle"),
    ],
)
def test_a_fault_of_the_surroundings_is_told_and_the_same_command_finishes(
    job: tuple[Path, Reference, Path], kind: str, moment: str
) -> None:
    """No exit status 0 with anything missing, no stack, no process left; then the bytes of the undisturbed run."""
    folder, reference, photos = job
    result = carry_out(folder, kind, moment, reference, photos)
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert result["faults"] == [], result
