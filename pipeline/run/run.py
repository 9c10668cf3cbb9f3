"""The conductor: plans a recipe, has each flow carried to its table, and writes the dataset in the end."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rasura.manifests.formats.huggingface import export, export_key
from rasura.manifests.shards import Line, read_manifest, write_manifest
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import FlowPlan, Plan, Shard, plan, shards
from rasura.pipeline.run.events import RunLog
from rasura.pipeline.run.progress import Report
from rasura.stages.sources.files import MissingInput


@dataclass(frozen=True)
class Result:
    """What a run ended with."""

    run: str
    rows: Mapping[str, int]  # flow -> rows of its table
    dataset: str | None
    dataset_rows: int


def run(
    recipe_file: str | Path,
    into: str | None = None,
    overrides: Sequence[str] = (),
    only: str | None = None,
    quiet: bool = False,
) -> Result:
    """Runs a recipe into a folder or bucket prefix (`runs/<name>` by default), or goes on where it was left.

    Raises:
        RecipeError: something in the recipe is wrong; nothing was started.
        RunLocked: another driver owns the run.
        RunFailed, StoreError, MissingInput: the run cannot go on; what was committed is whole.
    """
    recipe, places = load(recipe_file, overrides)
    resolved = plan(recipe, places, only)
    store = Store(into or f"runs/{recipe.name}")
    with store.lock(), Report(quiet) as report:
        return _Conductor(resolved, store, report, only is not None).conduct()


class _Conductor:
    def __init__(self, resolved: Plan, store: Store, report: Report, partial: bool) -> None:
        self.plan, self.store, self.report, self.partial = resolved, store, report, partial
        self.log = RunLog(store)
        self._stack = contextlib.ExitStack()
        self._engine: Any = None

    def conduct(self) -> Result:
        self.store.clear_temporary(["tables", "dataset", "listings", "log"])
        self._describe()
        rows: dict[str, int] = {}
        try:
            with self._stack:
                for flow in self.plan.flows.values():
                    rows[flow.name] = self.flow(flow)
        finally:
            self.log.flush()
        dataset, count = self._dataset()
        self.log.event("end", dataset_rows=count)
        self.log.flush()
        return Result(self.store.uri, rows, dataset, count)

    def _describe(self) -> None:
        """Stores the resolved recipe and what it was resolved to."""
        recipe = self.plan.recipe
        flows = {
            flow.name: {
                "part": flow.part,
                "upstream": list(flow.upstream),
                "stages": [spec.name for spec in flow.stages],
                "columns": {name: str(kind) for name, kind in flow.columns.items()},
            }
            for flow in self.plan.flows.values()
        }
        dataset = list(recipe.dataset.flows) if recipe.dataset else None
        told = {"name": recipe.name, "recipe": self.plan.hash, "flows": flows, "dataset": dataset}
        if self.partial and self.store.exists("plan.json"):
            # a part of the recipe: what is known of the rest stays
            known = json.loads(self.store.read("plan.json"))
            told = {**known, "flows": {**known["flows"], **flows}}
        else:
            text = yaml.safe_dump(self.plan.resolved(), sort_keys=False, allow_unicode=True)
            self.store.write("recipe.yaml", f"# hash: {self.plan.hash}\n{text}".encode())
        self.store.write("plan.json", (json.dumps(told, indent=1) + "\n").encode())

    def engine(self) -> Any:
        """The engine; Ray is started when the first shard has to be made, and not at all when none has."""
        if self._engine is None:
            from rasura.pipeline.engine.cluster import cluster

            start = time.perf_counter()
            self._stack.enter_context(cluster(self.plan.recipe.engine))
            from rasura.pipeline.engine.scheduler import Engine

            self._engine = Engine(self.store, self.plan.recipe.engine)
            self._stack.callback(self._engine.close)
            self.log.event("start", seconds=round(time.perf_counter() - start, 3))
        return self._engine

    def flow(self, flow: FlowPlan) -> int:
        """Brings a flow's table to what its recipe and inputs say. Returns its rows."""
        work = shards(flow, self.plan.sources[flow.name], self.store)
        if not work and not flow.upstream:
            raise MissingInput(f"flow '{flow.name}': its source '{flow.stages[0].name}' holds nothing")
        table = self.store.sub(f"tables/{flow.name}")
        before, columns, whole = read_manifest(table)
        lines = {line.shard: line for line in before}
        committed = {name.removesuffix(".json") for name in table.files("lines")}
        todo = [shard for shard in work if shard.id not in committed]
        if todo:  # while the flow is in the making, this says which lines are of the present inputs
            table.write("work.json", json.dumps([shard.id for shard in work]).encode())
        self._carry(flow, work, todo, lines)
        for shard in work:
            if shard.id not in lines:
                lines[shard.id] = Line.from_json(table.read(f"lines/{shard.id}.json"))
        now = [lines[shard.id] for shard in work]
        if now != before or columns != flow.columns or whole != flow.whole:
            write_manifest(table, now, flow.columns, flow.whole)
        return sum(line.data.rows for line in now if line.data)

    def _carry(self, flow: FlowPlan, work: list[Shard], todo: list[Shard], lines: dict[str, Line]) -> None:
        inputs = sum(len(shard.items) for shard in work)
        left = sum(len(shard.items) for shard in todo)
        if not todo:
            self.report.say(f"{flow.name}: all {inputs} inputs are done")
            return
        engine = self.engine()
        self.report.begin(flow.name, left)
        start = time.perf_counter()
        kept = dropped = 0

        def on_commit(line: Line, report: Mapping[str, Any]) -> None:
            nonlocal kept, dropped
            lines[line.shard] = line
            kept += line.data.rows if line.data else 0
            dropped += line.dropped.rows if line.dropped else 0
            self.log.event("commit", flow=flow.name, shard=line.shard, rows=line.inputs, seconds=report["seconds"])
            self.report.advance(line.inputs, f"{kept} kept, {dropped} dropped")

        deaths = engine.deaths
        engine.flow(flow, todo, on_commit)
        self.log.event(
            "flow",
            flow=flow.name,
            inputs=left,
            seconds=round(time.perf_counter() - start, 3),
            working_seconds=round(engine.working_s, 3),
            deaths=engine.deaths - deaths,
        )

    def _dataset(self) -> tuple[str | None, int]:
        recipe = self.plan.recipe
        if recipe.dataset is None:
            return None, 0
        out, tables, flows = self.store.sub("dataset"), Tables(self.store), recipe.dataset.flows
        key = export_key(tables, flows, self.plan.hash, recipe.dataset.shard_bytes)
        if self.store.exists("export.json") and out.exists("manifest.json"):
            done = json.loads(self.store.read("export.json"))
            if done["key"] == key:
                self.report.say(f"dataset: all {done['rows']} rows are there")
                return out.uri, done["rows"]
        self.store.delete("export.json")
        self.report.begin("dataset", sum(tables.table(flow).rows for flow in flows))
        manifest = export(
            tables, flows, out, recipe.name, self.plan.hash, list(recipe.splits), recipe.dataset.shard_bytes,
            self.report.advance,
        )  # fmt: skip
        self.store.write("export.json", json.dumps({"key": key, "rows": manifest["rows"]}).encode())
        return out.uri, manifest["rows"]
