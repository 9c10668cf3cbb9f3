"""The actor: one process that runs groups of stages on shards and commits them.

Before records enter a stage it writes a mark (stage and record ids) into a small file on its own node. A page-cache
write survives a segfault and SIGKILL, so the driver can lay a death to the records that were running. The time limit
is kept by a thread of C that needs no interpreter: a record that hangs in native code ends its process too.
"""

import contextlib
import faulthandler
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.engine.execute import Blame, Shipment, Watch, encode, run_group
from rasura.pipeline.recipe.plan import Group
from rasura.stages.stage import Record, Source, Stage

OLD_MARK_S = 3600.0


class SetupFailed(RuntimeError):
    """A stage could not be set up: not a record's fault, so the run stops."""


class CommitFailed(RuntimeError):
    """A shard could not be written: not a record's fault, so the run stops."""


@dataclass(frozen=True)
class Mark:
    """What a worker was doing when it was last heard of."""

    stage: str
    ids: tuple[str, ...]
    timed_out: bool = False
    setting_up: bool = False


class MarkFile(Watch):
    """The worker's mark, and beside it what `faulthandler` has to say of its end."""

    def __init__(self) -> None:
        _clear_old_marks()
        handle, name = tempfile.mkstemp(prefix=f"rasura-{os.getpid()}-", suffix=".mark")
        self.path, self._handle = name, handle
        self._trace = Path(f"{name}.trace").open("w+b")  # noqa: SIM115 - open as long as the process
        faulthandler.enable(self._trace)

    def _write(self, value: object) -> None:
        data = json.dumps(value).encode()
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, data, 0)

    def start(self, stage: str, ids: Sequence[str], limit_s: float) -> None:
        self._write({"stage": stage, "ids": list(ids)})
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._trace)

    def setting_up(self, stage: str) -> None:
        """Before a stage is set up: a death then is no record's fault."""
        self._write({"stage": stage, "ids": [], "setting_up": True})

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.ftruncate(self._handle, 0)


def _clear_old_marks() -> None:
    """Deletes what workers left whose driver was killed, so that nobody read and deleted it."""
    for path in Path(tempfile.gettempdir()).glob("rasura-*.mark*"):
        with contextlib.suppress(OSError):
            if (
                time.time() - path.stat().st_mtime > OLD_MARK_S
                and not Path(f"/proc/{path.name.split('-')[1]}").exists()
            ):
                path.unlink()


def read_mark(path: str) -> tuple[Mark | None, str]:
    """What a dead worker's mark says, and its last traceback. Deletes both files."""
    mark, trace = None, ""
    with contextlib.suppress(OSError, ValueError):
        data = Path(path).read_bytes()
        trace = Path(f"{path}.trace").read_text(errors="replace")
        if data:
            raw = json.loads(data)
            mark = Mark(raw["stage"], tuple(raw["ids"]), "Timeout (" in trace, raw.get("setting_up", False))
    for name in (path, f"{path}.trace"):
        with contextlib.suppress(OSError):
            Path(name).unlink()
    return mark, trace


class Worker:
    """One process of a pool; made into a Ray actor by the engine. Its stages are set up when first asked for."""

    def __init__(self, run_uri: str) -> None:
        self.run = Store(run_uri)
        self.watch = MarkFile()
        self.tables = Tables(self.run)
        self._groups: dict[str, list[Stage]] = {}
        with contextlib.suppress(ImportError):
            import cv2

            cv2.setNumThreads(1)

    def where(self) -> tuple[str, str]:
        """Node id and path of the mark."""
        import ray

        return ray.get_runtime_context().get_node_id(), self.watch.path

    def prepare(self, flow: str, groups: Sequence[Group]) -> None:
        """Sets up the stages of a flow's groups before the first shard comes."""
        for group in groups:
            self._stages(flow, group)

    def _stages(self, flow: str, group: Group) -> list[Stage]:
        key = f"{flow}/{group.key}"
        if key not in self._groups:
            # a worker serves one flow after another: what an earlier one loaded is let go
            self._groups = {other: made for other, made in self._groups.items() if other.startswith(f"{flow}/")}
            stages = []
            for spec in group.stages:
                self.watch.setting_up(spec.name)
                try:
                    stage = spec.make()
                    if isinstance(stage, Source):
                        stage.tables = self.tables
                    stage.setup()
                except Exception as error:
                    raise SetupFailed(
                        f"stage '{spec.name}' cannot be set up: {type(error).__name__}: {error}"
                    ) from error
                self.watch.stop()
                stages.append(stage)
            self._groups[key] = stages
        return self._groups[key]

    def run_group(
        self, flow: str, group: Group, given: Shipment | Sequence[Record], blame: Blame, splits: Mapping[str, float]
    ) -> tuple[dict[str, Any], Shipment]:
        """A shard through one group: a small report for the driver, and the shipment, which stays in shared memory."""
        stages = self._stages(flow, group)
        shipment = given if isinstance(given, Shipment) else Shipment(list(given), len(given))
        result = run_group(group, stages, shipment, blame, self.watch, splits)
        return {"seconds": result.seconds, "rows": len(result.records)}, result

    def run_last(
        self,
        flow: str,
        group: Group,
        given: Shipment | Sequence[Record],
        blame: Blame,
        splits: Mapping[str, float],
        shard: str,
        part: str,
    ) -> tuple[dict[str, Any], None]:
        """A shard through the last group, and its commit."""
        report, shipment = self.run_group(flow, group, given, blame, splits)
        table, failed, count = encode(shipment, group.stages[-1].columns, blame, self.watch)
        try:
            line = commit(
                self.run.sub(f"tables/{flow}"),
                shard,
                part,
                shipment.inputs,
                table,
                [*shipment.dropped, *failed],
                [*shipment.stages, count],
            )
        except OSError as error:
            raise CommitFailed(str(error)) from error
        return {**report, "line": line}, None
