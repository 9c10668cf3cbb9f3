"""The actor: one process that runs groups of stages on shards and commits them."""

import contextlib
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rasura.manifests.run_layout import RunPlace, check_place, table_path
from rasura.manifests.safety.text import describe_error
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.networks.cards import hide_cards
from rasura.pipeline.engine.crash_marks import MarkFile
from rasura.pipeline.engine.execute import PartialShard, Quarantine, encode_shard, run_group
from rasura.pipeline.engine.faults import SurroundingsFault
from rasura.pipeline.recipe.specs import FlowPlan, Group
from rasura.stages.stage import Record, Source, Stage

COMMIT = "commit"
"""What a worker does with a shard after its last stage, in texts and marks."""
COMMIT_LIMIT_S = 1800.0


class SetupFailed(RuntimeError):
    """A stage could not be set up: not a record's fault, so the run stops."""


def list_gpu_ids() -> list[str]:
    """List the ids of the GPUs that Ray gave to this worker."""
    import ray

    return [str(id) for id in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def keep_to_given_cards() -> None:
    """Hide all GPUs from a worker that Ray gave none: without this it would see all of the machine's."""
    if not list_gpu_ids():
        hide_cards()


def measure_card() -> dict[str, Any]:
    """Measure the most that this process's tensors took on its card, bytes; empty where it has none, or no torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {"card_bytes": torch.cuda.max_memory_allocated(), "card": torch.cuda.get_device_name()}


class Worker:
    """One process of a pool; made into a Ray actor by the engine. Its stages are set up when first asked for."""

    def __init__(self, place: RunPlace) -> None:
        keep_to_given_cards()
        self.place, self.run = place, Store(place.uri)
        self.marks = MarkFile()
        self.tables = Tables(self.run)
        self._groups: dict[str, list[Stage]] = {}
        # who stops a run stops its driver, which ends its workers: a KeyboardInterrupt here is a stage's own
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(ImportError):
            import cv2

            cv2.setNumThreads(1)

    def locate(self) -> tuple[str, str]:
        """Return the id of the worker's node and the path of its mark there."""
        import ray

        return ray.get_runtime_context().get_node_id(), self.marks.path

    def _open_run(self, place: RunPlace) -> None:
        """Work for a run from now on. Each call names it: a worker that starts late has been told of an earlier one."""
        if place != self.place:
            self.place, self.run, self._groups = place, Store(place.uri), {}
            self.tables = Tables(self.run)

    def prepare(self, place: RunPlace, flow: str, groups: Sequence[Group]) -> None:
        """Set up the stages of a flow's groups before the first shard comes; the flow may be of another run.

        Raises:
            SetupFailed: a stage cannot be set up, or the run's folder is not what the driver sees.
        """
        self._open_run(place)
        try:
            check_place(self.run, place)
        except OSError as error:
            raise SetupFailed(f"a worker on {socket.gethostname()} cannot write: {error}") from error
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
                        stage.tables, stage.columns = self.tables, tuple(spec.columns)
                    stage.on_progress = self.marks.report
                    stage.setup()
                except BaseException as error:  # also a library that calls sys.exit()
                    raise SetupFailed(f"stage '{spec.name}' cannot be set up: {describe_error(error)}") from error
                self.marks.stop()
                stages.append(stage)
            self._groups[key] = stages
        return self._groups[key]

    def run_group(
        self,
        place: RunPlace,
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
        self._open_run(place)
        stages = self._stages(flow, group)
        shard = work if isinstance(work, PartialShard) else PartialShard(list(work), len(work))
        try:
            result = run_group(group, stages, shard, quarantine, self.marks, splits)
        finally:
            self.marks.rest()
        measured = measure_card() if group.demand.memory and "onnx" not in group.demand.memory.libraries else {}
        return {"seconds": result.seconds, "rows": len(result.records), **measured}, result

    def run_last(
        self,
        place: RunPlace,
        flow: FlowPlan,
        group: Group,
        work: PartialShard | Sequence[Record],
        quarantine: Quarantine,
        shard_id: str,
    ) -> tuple[dict[str, Any], None]:
        """Run a shard through the last group and commit it.

        Raises:
            SurroundingsFault: a stage cannot go on, or the shard cannot be written, through no fault of its rows.
        """
        report, shard = self.run_group(place, flow.name, group, work, quarantine, flow.splits)
        try:
            table, failed, count = encode_shard(shard, flow.columns, quarantine, self.marks)
            self.marks.lingers = False
            self.marks.start(COMMIT, (), COMMIT_LIMIT_S)
            check_place(self.run, place)
            line = commit(
                self.run.sub(table_path(flow.name)),
                shard_id,
                flow.part,
                shard.inputs,
                table,
                [*shard.dropped, *failed],
                [*shard.stages, count],
            )
        except OSError as error:
            raise SurroundingsFault(COMMIT, (), describe_error(error)) from error
        finally:
            self.marks.stop()
            self.marks.rest()
        return {**report, "line": line}, None
