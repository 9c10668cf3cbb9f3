"""Figures of a run for Prometheus, through Ray's own metrics: each node of a cluster exports them beside Ray's.

Ray puts `ray_` before the names. How busy GPUs are is one of Ray's own figures, `ray_node_gpus_utilization`.
"""

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rasura.manifests.shards import CommitRecord

ROWS = "rasura_rows"
SECONDS = "rasura_stage_seconds"
WAITING = "rasura_waiting_rows"


@lru_cache(1)
def _create_metrics() -> tuple[Any, Any, Any]:
    """Create the metrics of this process, once: a name can be registered only once."""
    from ray.util.metrics import Counter, Gauge

    rows = Counter(ROWS, "Rows by what became of them at a stage.", ("flow", "stage", "outcome"))
    seconds = Counter(SECONDS, "Seconds that workers spent in a stage.", ("flow", "stage"))
    waiting = Gauge(WAITING, "Inputs of a flow that are not committed yet.", ("flow",))
    return rows, seconds, waiting


def count_outcomes(record: CommitRecord) -> dict[tuple[str, str], int]:
    """Count a shard's rows by (stage, outcome): kept, rejected, failed; those that are 0 are left out."""
    counts: dict[tuple[str, str], int] = {}
    for stage in record.stages:
        outcomes = {
            "kept": stage.kept,
            "rejected": sum(stage.rejected.values()),
            "failed": sum(stage.failed.values()),
        }
        for outcome, count in outcomes.items():
            if count:
                counts[stage.stage, outcome] = counts.get((stage.stage, outcome), 0) + count
    return counts


def export_commit(flow: str, record: CommitRecord, seconds: Mapping[str, float], waiting: int) -> None:
    """Add a committed shard to the figures of its flow.

    Args:
        seconds: that each stage took.
        waiting: inputs of the flow that are not committed yet.
    """
    with contextlib.suppress(Exception):  # no run stops for its figures
        rows, spent, left = _create_metrics()
        for (stage, outcome), count in count_outcomes(record).items():
            rows.inc(count, {"flow": flow, "stage": stage, "outcome": outcome})
        for stage, duration in seconds.items():
            if duration > 0:
                spent.inc(duration, {"flow": flow, "stage": stage})
        left.set(waiting, {"flow": flow})
