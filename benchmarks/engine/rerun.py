"""Seconds to run a finished run of 1,000,000 light rows again, and to print its accounting. Goals: 15 s and 5 s.

The run is finished by hand: its listing, commit records and manifests are what the engine would write, its shards, of
which a run that is done opens none, are files of one byte. So it takes minutes and not hours to make. The rows are in
two flows, of which the second reads the first, in shards of 16 rows: 125,000 shards.

    python -m benchmarks rerun
"""

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import make_scratch_folder, print_result, run_rasura, write_recipe
from rasura.manifests.checks.committed_files import File
from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.run_layout import PLAN, RUN_ID, RunPlan, commit_path, shard_path, table_path, write_plan
from rasura.manifests.shards import CommitRecord, RowNames, StageCount
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import load_plan, plan
from rasura.pipeline.recipe.shards import StoredShards
from rasura.pipeline.recipe.specs import FlowPlan
from rasura.pipeline.run.listing import list_stored_shards, write_shards
from rasura.pipeline.run.run import describe_flows

ROWS, SHARD_ROWS = 1_000_000, 16


def write_light_recipe(folder: Path, rows: int, shard_rows: int = SHARD_ROWS) -> Path:
    """Write a recipe of rows without pictures, and of a choice of them."""
    flows = {
        "rows": {"source": {"synthetic:Light": {"count": rows}}},
        "selected": {"source": {"flow": {"of": "rows"}}, "stages": [{"select": {"keep": {"number": {"min": 0}}}}]},
    }
    return write_recipe(folder, flows=flows, engine={"shard_rows": shard_rows})


def _commit_by_hand(table: Path, flow: FlowPlan, shards: StoredShards) -> Iterator[CommitRecord]:
    """Write the commit records of shards in which every row was kept, and yield them."""
    for name in (commit_path("x"), shard_path("x")):
        (table / name).parent.mkdir(parents=True)
    stages = [*(spec.name for spec in flow.stages), "write"]
    for shard in shards:
        items = list(shard.items)
        (table / shard_path(shard.id)).write_bytes(b"x")
        counts = [StageCount(stage, len(items), len(items), len(items)) for stage in stages]
        names = RowNames([item["id"] for item in items], [item["origin"] for item in items])
        file = File(shard_path(shard.id), "0" * 64, 1, len(items), "0" * 64)
        record = CommitRecord(shard.id, flow.part, len(items), counts, file, None, names)
        (table / commit_path(shard.id)).write_bytes(record.to_json(with_names=True))
        yield record


def finish_run(recipe: Path, run: Path) -> None:
    """Write all that a finished run has but the contents of its shards."""
    resolved, store = plan(*load(recipe)), Store(run)
    run.mkdir()
    store.write(RUN_ID, b"0" * 32)
    write_plan(store, RunPlan(resolved.recipe.name, resolved.hash, describe_flows(resolved), resolved.dataset))
    for flow in resolved.flows.values():
        shards = list_stored_shards(flow, resolved.sources[flow.name], store, _list_here)
        records = _commit_by_hand(run / table_path(flow.name), flow, shards)
        write_manifest(store.sub(table_path(flow.name)), records, flow.columns, flow.full_columns)


def _list_here(function: object, flow: FlowPlan, run: Store, key: str, *_: object) -> object:
    assert function is write_shards
    return write_shards(flow, run, key, load_plan(Path(run.uri).parent / "recipe.yaml").sources[flow.name])


def main() -> None:
    with make_scratch_folder() as folder:
        recipe = write_light_recipe(folder, ROWS)
        start = time.perf_counter()
        finish_run(recipe, folder / "run")
        made = time.perf_counter() - start
        # once to write what is not measured: the recipe with its defaults
        run_rasura("run", recipe, "--into", folder / "run", "--quiet")
        again, run_mb = run_rasura("run", recipe, "--into", folder / "run", "--quiet", track_memory=True)
        status, status_mb = run_rasura("status", folder / "run", track_memory=True)
        assert Store(folder / "run").exists(PLAN)
        print_result(
            "rerun",
            rows=ROWS,
            made_seconds=round(made, 1),
            again_seconds=round(again, 2),
            status_seconds=round(status, 2),
            again_mb=round(run_mb),
            status_mb=round(status_mb),
        )


if __name__ == "__main__":
    main()
