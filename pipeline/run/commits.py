"""Shards that were committed: which have failed rows that are to be made again, and whether all are still there."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rasura.manifests.compacted.commit_log import CommitLog, read_commit_log
from rasura.manifests.compacted.manifest import NO_RECORDS, CommitRecords, read_manifest, write_manifest
from rasura.manifests.schemas import Schema
from rasura.manifests.shards import CommitRecord, DamagedFile
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store, StoreError
from rasura.pipeline.run.progress import Progress


def list_failed_shards(
    progress: Progress, flow: str, records: Mapping[str, CommitRecord], errors: Collection[str]
) -> list[str]:
    """List the shards in which rows, or outputs of rows, failed with one of the errors, or any if none is named.

    It is said which there are.

    Args:
        progress: on which it is said.
        flow: name of their flow.
        records: their commit records.
        errors: class names.
    """
    wanted, failures = set(errors), Counter[str]()
    again = []
    for id, record in records.items():
        failed = sum((Counter(stage.failed) + Counter(stage.failed_outputs) for stage in record.stages), Counter[str]())
        failures.update(failed)
        if failed and (not wanted or wanted & set(failed)):
            again.append(id)
    if again:
        progress.print(f"{flow}: made again for their failed rows: {format_count(len(again), 'shard')}")
    elif failures:
        progress.print(
            f"{flow}: no row failed with {' or '.join(sorted(wanted))}; its errors are "
            f"{', '.join(f'{error} ({count})' for error, count in failures.most_common())}"
        )
    return again


def check_commits(table: Store, commits: CommitLog, ids: Sequence[str]) -> None:
    """Check that what was committed is still there, before a manifest says so.

    Args:
        table: folder of the table.
        commits: its commit records.
        ids: of its shards.

    Raises:
        StoreError: some of it is not.
    """
    if missing := len(commits.find_missing(ids)):
        raise _describe_loss(table, missing, len(ids))


def _describe_loss(table: Store, missing: int, shards: int) -> StoreError:
    return StoreError(
        f"{table.uri}: {format_count(missing, 'shard')} of {shards} that were committed "
        "are not there any more: was the folder replaced, deleted or unmounted? Bring it back, and run again"
    )


def read_table_manifest(table: Store) -> tuple[CommitRecords, Schema, Schema]:
    """Read the manifest of a table; a damaged one is as good as none, since the commit records say the same."""
    try:
        return read_manifest(table)
    except DamagedFile:
        return NO_RECORDS, {}, {}


def compact_records(table: Store, ids: Sequence[str], schema: Schema, full_schema: Schema) -> None:
    """Compact the commit records of a table as they are on disk into its manifest: those that the parts of them lack
    are read one by one.

    Args:
        table: folder of the table.
        ids: of its shards.
        schema, full_schema: of `write_manifest`.

    Raises:
        StoreError: some of them are not there.
        DoubledIds: rows of two shards have one id.
    """
    commits, _ = read_commit_log(table, ids, read_table_manifest(table)[0])
    if missing := sum(id not in commits for id in ids):
        raise _describe_loss(table, missing, len(ids))
    write_manifest(table, commits.iterate(ids), schema, full_schema)
