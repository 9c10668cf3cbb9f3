"""Shards that were committed: which have failed rows that are to be made again, and whether all are still there."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rasura.manifests.compacted.commit_log import CommitLog
from rasura.manifests.shards import CommitRecord
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
        raise StoreError(
            f"{table.uri}: {format_count(missing, 'shard')} of {len(ids)} that were committed "
            "are not there any more: was the folder replaced, deleted or unmounted? Bring it back, and run again"
        )
