"""The actor: one process that runs groups of stages on shards and commits them."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from rasura.manifests.run_layout import table_path
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.engine.crash_marks import MarkFile
from rasura.pipeline.engine.execute import PartialShard, Quarantine, encode_shard, run_group
from rasura.pipeline.recipe.specs import Group
from rasura.stages.stage import Record, Source, Stage


class SetupFailed(RuntimeError):
    """A stage could not be set up: not a record's fault, so the run stops."""


class CommitFailed(RuntimeError):
    """A shard could not be written: not a record's fault, so the run stops."""


class Worker:
    """One process of a pool; made into a Ray actor by the engine. Its stages are set up when first asked for."""

    def __init__(self, run_uri: str) -> None:
        self.run = Store(run_uri)
        self.marks = MarkFile()
        self.tables = Tables(self.run)
        self._groups: dict[str, list[Stage]] = {}
        with contextlib.suppress(ImportError):
            import cv2

            cv2.setNumThreads(1)

    def locate(self) -> tuple[str, str]:
        """Return the id of the worker's node and the path of its mark there."""
        import ray

        return ray.get_runtime_context().get_node_id(), self.marks.path

    def prepare(self, flow: str, groups: Sequence[Group]) -> None:
        """Set up the stages of a flow's groups before the first shard comes."""
        for group in groups:
            self._stages(flow, group)

    def _stages(self, flow: str, group: Group) -> list[Stage]:
        key = f"{flow}/{group.key}"
        if key not in self._groups:
            # a worker serves one flow after another: the stages of an earlier flow are released
            self._groups = {other: stages for other, stages in self._groups.items() if other.startswith(f"{flow}/")}
            stages = []
            for spec in group.stages:
                self.marks.start_setup(spec.name)
                try:
                    stage = spec.make()
                    if isinstance(stage, Source):
                        stage.tables = self.tables
                    stage.on_progress = self.marks.report
                    stage.setup()
                except Exception as error:
                    raise SetupFailed(
                        f"stage '{spec.name}' cannot be set up: {type(error).__name__}: {error}"
                    ) from error
                self.marks.stop()
                stages.append(stage)
            self._groups[key] = stages
        return self._groups[key]

    def run_group(
        self,
        flow: str,
        group: Group,
        work: PartialShard | Sequence[Record],
        quarantine: Quarantine,
        splits: Mapping[str, float],
    ) -> tuple[dict[str, Any], PartialShard]:
        """Run a shard through one group.

        Returns:
            A small report for the driver, and the shard so far, which stays in shared memory.
        """
        stages = self._stages(flow, group)
        shard = work if isinstance(work, PartialShard) else PartialShard(list(work), len(work))
        result = run_group(group, stages, shard, quarantine, self.marks, splits)
        return {"seconds": result.seconds, "rows": len(result.records)}, result

    def run_last(
        self,
        flow: str,
        group: Group,
        work: PartialShard | Sequence[Record],
        quarantine: Quarantine,
        splits: Mapping[str, float],
        shard_id: str,
        part: str,
    ) -> tuple[dict[str, Any], None]:
        """Run a shard through the last group and commit it."""
        report, shard = self.run_group(flow, group, work, quarantine, splits)
        table, failed, count = encode_shard(shard, group.stages[-1].columns, quarantine, self.marks)
        try:
            line = commit(
                self.run.sub(table_path(flow)),
                shard_id,
                part,
                shard.inputs,
                table,
                [*shard.dropped, *failed],
                [*shard.stages, count],
            )
        except OSError as error:
            raise CommitFailed(str(error)) from error
        return {**report, "line": line}, None
