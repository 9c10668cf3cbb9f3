"""Files of a run that are not what was committed: they are found, and dropped, so that the run makes them again."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rasura.manifests.checks.committed_files import is_intact
from rasura.manifests.compacted.manifest import read_manifest, read_names
from rasura.manifests.run_layout import COMMITS, COMPACTED, DATASET, MANIFEST, TABLES, commit_path, table_path
from rasura.manifests.shards import CommitRecord, DamagedFile, find_record_fault, read_commit
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.pipeline.engine.faults import DamagedTables
from rasura.pipeline.run.dataset import drop_export, is_export_intact
from rasura.pipeline.run.progress import Progress

T = TypeVar("T")
MOST_REPEATS = 3
"""Number of times that a run mends its tables before it gives up: the disk goes on damaging what it holds."""


def repeat_after_mending(run: Store, progress: Progress, work: Callable[[], T]) -> T:
    """Do some work on a run; where it finds damaged files, drop their shards and do it again.

    Args:
        run: the run, which this process owns.
        progress: on which it is said.
        work: makes tables, and reads them.

    Raises:
        DamagedFile, DamagedTables: the files are not this run's, or nothing in its tables is found to be damaged.
    """
    for _ in range(MOST_REPEATS):
        try:
            return work()
        except (DamagedFile, DamagedTables) as error:
            places = [error.place] if isinstance(error, DamagedFile) else error.places
            if not (dropped := drop_damaged_tables(run, places)):
                raise
            for flow, count in dropped.items():
                what = f"{format_count(count, 'shard')} that a disk has damaged" if count else f"a damaged {MANIFEST}"
                progress.print(f"warning: {flow}: {what}, made again")
    return work()


def drop_damaged_tables(run: Store, places: Iterable[str]) -> dict[str, int]:
    """Drop the damaged shards of those tables that have one of some files.

    Args:
        run: the run.
        places: paths or URIs of files.

    Returns:
        The number of shards that were dropped, by their flows. A flow with a damaged manifest alone has 0.
    """
    prefix = f"{run.location}/{TABLES}/"
    flows = {place.removeprefix(prefix).partition("/")[0] for place in places if place.startswith(prefix)}
    dropped = {}
    for flow in sorted(flows):
        shards = drop_damaged_shards(run.sub(table_path(flow)))
        if shards is not None:
            dropped[flow] = shards
    return dropped


def mend(run: Store) -> Iterator[str]:
    """Own a run, and drop all that is damaged in it: see `drop_damage`."""
    with run.lock():
        yield from drop_damage(run)


def drop_damage(run: Store) -> Iterator[str]:
    """Drop all that is damaged in a run: shards of its tables, manifests, and its dataset.

    Args:
        run: the run, which this process owns. Every committed byte is read.

    Yields:
        What was dropped.
    """
    is_changed = False
    for flow in run.folders(TABLES):
        shards = drop_damaged_shards(run.sub(table_path(flow)))
        if shards is not None:
            is_changed = True
            yield f"{flow}: {format_count(shards, 'shard')} dropped" if shards else f"{flow}: its {MANIFEST} dropped"
    if (is_changed or not is_export_intact(run)) and drop_export(run):
        yield f"{DATASET}: dropped"


def drop_damaged_shards(table: Store) -> int | None:
    """Delete the commit records of a table's damaged shards, and the manifest that has them.

    Returns:
        The number of shards; 0 where the manifest alone is damaged, None where nothing is.
    """
    records, is_readable = _read_compacted(table)
    names = {name.removesuffix(".json") for name in table.files(COMMITS)}
    damaged = set()
    for shard in names:
        try:
            record = read_commit(table, shard)
        except DamagedFile:
            damaged.add(shard)
            continue
        if records.get(shard, record) != record or not is_whole(table, record):
            damaged.add(shard)
    if not damaged and is_readable and set(records) <= names:
        return None
    for shard in damaged:
        table.delete(commit_path(shard))
    # the parts of a table that is being made have records, too, which must not come back
    for name in [MANIFEST, *(f"{COMPACTED}/{part}" for part in table.files(COMPACTED))]:
        table.delete(name)
    return len(damaged)


def _read_compacted(table: Store) -> tuple[dict[str, CommitRecord], bool]:
    """Read the commit records of a manifest by their shards, and whether it can be read."""
    try:
        records, *_ = read_manifest(table)
        if table.exists(MANIFEST):
            read_names(table)
        return {record.shard: record for record in records}, True
    except DamagedFile:
        return {}, False


def is_whole(table: Store, record: CommitRecord) -> bool:
    """Return whether the counts of a shard add up, and all of its files have the bytes that were committed."""
    files = (record.data, record.rejected)
    return find_record_fault(record) is None and all(is_intact(table, file) for file in files if file)
