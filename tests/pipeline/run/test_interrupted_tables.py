"""Tables that are made in pieces, with commit records compacted on the way, are those that are made at once.

The shards are carried out in this process, without Ray, which ends after so many of them.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import digest, write_recipe

from rasura.manifests.compacted import commit_log
from rasura.manifests.run_layout import COMPACTED, table_path
from rasura.manifests.shards import commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.engine.execute import ActivityMonitor, PartialShard, Quarantine, encode_shard, run_group
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import Plan, plan
from rasura.pipeline.recipe.specs import FlowPlan, Group, Shard
from rasura.pipeline.run.events import EventLog
from rasura.pipeline.run.flow_tables import make_tables
from rasura.pipeline.run.progress import Progress
from rasura.pipeline.run.starter import EngineStarter
from rasura.stages.stage import Source, Stage

ALL = 10**9


class Killed(BaseException):
    """What no code handles."""


class ShardLoop:
    """Carries out shards one after another and commits them.

    Args:
        run: the run.
        most: shards after which it ends.
    """

    deaths = 0

    def __init__(self, run: Store, most: int) -> None:
        self.run, self.most, self.shards = run, most, list[str]()

    def get(self, *arguments: Any) -> "ShardLoop":
        return self

    def run_task(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def place(self, flow: FlowPlan) -> Any:
        return SimpleNamespace(lines=[], list_workers=dict)

    def run_flow(self, flow: FlowPlan, shards: Sequence[Shard], on_commit: Callable[..., None], *_: Any) -> float:
        groups = [(group, [self._set_up(spec.make(), spec.columns) for spec in group.stages]) for group in flow.groups]
        for shard in shards:
            if len(self.shards) == self.most:
                raise Killed
            partial = PartialShard(list(shard.items), len(shard.items))
            for group, stages in groups:
                partial = run_group(cast(Group, group), stages, partial, Quarantine(), ActivityMonitor(), flow.splits)
            table, failed, count = encode_shard(partial, flow.columns)
            store, dropped = self.run.sub(table_path(flow.name)), [*partial.dropped, *failed]
            counts = [*partial.stages, count]
            record = commit(store, shard.id, flow.part, partial.inputs, table, dropped, counts)
            self.shards.append(shard.id)
            on_commit(record, {"seconds": {}})
        return 0.0

    def _set_up(self, stage: Stage, columns: Collection[str]) -> Stage:
        if isinstance(stage, Source):
            stage.tables, stage.columns = Tables(self.run), tuple(columns)
        stage.setup()
        return stage


def make(resolved: Plan, run: Store, most: int = ALL, retry: Collection[str] | None = None) -> list[str]:
    """Make the tables, until `most` shards are made; returns these."""
    loop = ShardLoop(run, most)
    try:
        make_tables(resolved, run, Progress(quiet=True), cast(EngineStarter, loop), EventLog(run), retry)
    except Killed:
        assert len(loop.shards) == most
    return loop.shards


def resolve(folder: Path, count: int = 60) -> Plan:
    source = {"synthetic:Numbers": {"count": count, "side": 32}}
    flows = {
        "made": {"source": source, "stages": ["synthetic:Triplet"]},
        "chosen": {"source": {"flow": {"of": "made"}}, "stages": [{"select": {"keep": {"number": {"min": 5}}}}]},
    }
    return plan(*load(write_recipe(folder, flows=flows, engine={"shard_rows": 4, "max_failed": 1})))


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Hashes of the tables and listings that were made at once; parts have three records."""
    monkeypatch.setattr(commit_log, "CHUNK_RECORDS", 3)
    make(resolve(tmp_path), Store(tmp_path / "whole"))
    return digest(tmp_path / "whole", ["tables", "listings"])


def test_tables_made_in_pieces_have_the_same_bytes(tmp_path: Path, whole: dict[str, str]) -> None:
    """Each shard is made once; parts are there meanwhile, and gone in the end."""
    run, shards, parts = Store(tmp_path / "run"), list[str](), 0
    while piece := make(resolve(tmp_path), run, 4):
        shards += piece
        parts = max(parts, len(run.files(f"tables/made/{COMPACTED}")))
    assert len(shards) == len(set(shards)) == sum("/lines/" in name for name in whole)
    assert parts >= 3
    assert digest(tmp_path / "run", ["tables", "listings"]) == whole


def test_failed_rows_are_made_again_though_the_run_is_killed_meanwhile(tmp_path: Path, whole: dict[str, str]) -> None:
    run = Store(tmp_path / "whole")
    all_shards = make(resolve(tmp_path), run, retry=["ValueError"])
    assert len(all_shards) == 5
    first = make(resolve(tmp_path), run, 2, retry=["ValueError"])
    rest = make(resolve(tmp_path), run)
    assert sorted([*first, *rest]) == sorted(all_shards)
    assert digest(tmp_path / "whole", ["tables", "listings"]) == whole


@pytest.mark.parametrize("place", ["shards", "lines", "manifest.parquet"])
def test_what_is_damaged_is_made_again_and_nothing_else(tmp_path: Path, whole: dict[str, str], place: str) -> None:
    path = tmp_path / "whole" / "tables" / "made" / place
    path = sorted(path.iterdir())[2] if path.is_dir() else path
    path.write_bytes(b"x")
    made = make(resolve(tmp_path), Store(tmp_path / "whole"))
    assert made == ([] if place in ("lines", "manifest.parquet") else [path.stem])
    after = digest(tmp_path / "whole", ["tables", "listings"])
    if place == "lines":  # the manifest has the record
        after[str(path.relative_to(tmp_path / "whole"))] = whole[str(path.relative_to(tmp_path / "whole"))]
    assert after == whole


def test_more_inputs_give_the_table_of_all(tmp_path: Path, whole: dict[str, str]) -> None:
    """As if it had been made of them from the beginning; the choice of rows, which reads it, follows."""
    more = resolve(tmp_path, count=70)
    make(more, Store(tmp_path / "whole"))
    make(more, Store(tmp_path / "fresh"))
    for name in ("made", "chosen"):
        tables = [Tables(Store(tmp_path / folder)).table(name) for folder in ("whole", "fresh")]
        assert tables[0].read_light().equals(tables[1].read_light())
        assert tables[0].read_names().equals(tables[1].read_names())
        assert tables[0].commits.lines.equals(tables[1].commits.lines)
