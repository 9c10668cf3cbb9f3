"""Files of a run that are flipped or cut by `chaos`: the disk gave back something else than was written."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.engine.chaos_job import PHOTOS, SHARD_ROWS, count_commits
from benchmarks.engine.chaos_kinds import CannotInject, Case, Kind

SORTS: Mapping[str, tuple[str, ...]] = {
    "shard": ("tables/made/shards/*.parquet",),
    "commit record": ("tables/made/lines/*.json",),
    "manifest": ("tables/made/manifest.parquet", "tables/chosen/manifest.parquet"),
    "listing": ("listings/**/made*", "listings/**/*"),
    "export part": ("dataset/data/*.parquet",),
    "export.json": ("export.json",),
    "log": ("log/*.jsonl", "log/*"),
}
"""Sorts of files, with the patterns of their places in a run."""
SHARDS = PHOTOS // SHARD_ROWS


def undo_work(run: Path, moment: str) -> None:
    """Take from a finished run what a run that was killed before a moment would not have."""
    if moment in ("middle", "between"):
        for path in sorted((run / "tables/made/lines").glob("*.json"))[: SHARDS // 2]:
            path.unlink()
        (run / "tables/made/manifest.parquet").unlink()
    if moment == "export":
        shutil.rmtree(run / "dataset")
        (run / "export.json").unlink()


def has_come_again(run: Path, moment: str) -> bool:
    """Return whether a moment of a run that continues has come."""
    if moment == "middle":
        return count_commits(run, "made") >= SHARDS // 2 + 2
    if moment == "between":
        return count_commits(run, "made") >= SHARDS
    return (run / "dataset/data").exists() and any((run / "dataset/data").iterdir())


def find_victim(run: Path, sort: str) -> Path:
    """Find a file of a sort: the last in the order of names, which was there before this command.

    Raises:
        CannotInject: there is none at the moment.
    """
    for pattern in SORTS[sort]:
        if paths := sorted(path for path in run.glob(pattern) if path.is_file() and not path.name.startswith(".")):
            return paths[-1]
    raise CannotInject(f"there is no {sort} at this moment")


def damage(sort: str, cut: bool) -> Callable[[Case], None]:
    """Return the injection that flips a bit in the middle of a file, or cuts off its second half."""

    def inject(case: Case) -> None:
        path = find_victim(case.job.run, sort)
        case.tools["victim path"] = path
        size = path.stat().st_size
        if cut:
            os.truncate(path, size // 2)
            return
        data = bytearray(path.read_bytes())
        data[size // 2] ^= 1
        with path.open("r+b") as out:  # in place: a flipped bit is no new file
            out.write(data)

    return inject


DAMAGE: Mapping[str, Kind] = {
    f"{'cut' if cut else 'flip'} {sort}": Kind(damage(sort, cut)) for sort in SORTS for cut in (False, True)
}
