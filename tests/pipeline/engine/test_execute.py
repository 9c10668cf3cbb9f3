"""What a worker does with records, without Ray."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from synthetic import SmallGpu, Triplet

from rasura.manifests.schemas import Kind
from rasura.pipeline.engine.execute import ActivityMonitor, Quarantine, run_batch, run_stage, split_batches
from rasura.pipeline.recipe.specs import StageSpec
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Resources, Stage


def record(number: int) -> Record:
    rng = np.random.default_rng(number)
    return {"id": f"{number:04d}", "number": number, "source": rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)}


def spec(**columns: Kind) -> StageSpec:
    return StageSpec("stage", {}, 0, "1", 4, 10.0, Resources(), {"id": Kind.STRING, "number": Kind.INT, **columns})


@given(st.lists(st.integers(0, 60), unique=True), st.integers(1, 9), st.sets(st.integers(0, 60)))
def test_batches_hold_every_record_once_and_suspects_alone(numbers: list[int], size: int, alone: set[int]) -> None:
    """No batch is over its size, the order stays, none is lost, and a suspect shares its batch with nobody."""
    records = [{"id": str(n)} for n in numbers]
    cut = split_batches(records, size, frozenset(map(str, alone)))
    assert [row for batch in cut for row in batch] == records
    assert all(len(batch) <= size for batch in cut)
    assert all(len(batch) == 1 for batch in cut if any(int(row["id"]) in alone for row in batch))


class Loud(ActivityMonitor):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def start(self, stage: str, ids: Any, limit_s: float) -> None:
        self.batches.append(len(ids))


def test_a_raising_row_costs_itself_only() -> None:
    """A batch in which a row raises is run again one by one; the others' outcomes are those they would have had."""
    watch = Loud()
    outcomes = run_batch("stage", Triplet(Triplet.Params()), [record(n) for n in (4, 5, 6)], 10.0, watch)
    assert [type(outcome) for outcome in outcomes] == [Kept, ValueError, Kept]
    assert watch.batches == [3, 1, 1, 1]


def test_out_of_memory_halves_until_it_fits() -> None:
    """Out of memory is no row's fault: the batch is halved, and nothing is run one by one that fits in twos."""
    watch = Loud()
    outcomes = run_batch("stage", SmallGpu(Params()), [record(n) for n in range(8)], 10.0, watch)
    assert all(isinstance(outcome, Kept) for outcome in outcomes)
    assert watch.batches == [8, 4, 2, 2, 4, 2, 2]


class Forgetful(Stage):
    """Loses a record."""

    name = "forgetful"

    def process(self, records: Any) -> list[Outcome]:
        return [Kept([record]) for record in records[1:]]


def test_a_stage_that_loses_a_record_is_found_out() -> None:
    """Outcomes that do not match the records one to one are an error of those records, not a silent loss."""
    kept, dropped, count = run_stage(
        spec(), Forgetful(Params()), [record(1), record(2)], Quarantine(), ActivityMonitor(), {}
    )
    assert not kept
    assert count.balances()
    assert count.failed == {"RuntimeError": 2}
    assert "returned 0 outcomes for 1 records" in dropped[0].detail


class Careless(Stage):
    """Does what a stage should not."""

    name = "another name than the recipe's"

    def process_one(self, record: Record) -> Outcome:
        if record["number"] == 1:
            raise SystemExit("a library gave up")
        if record["number"] == 2:
            return None  # type: ignore[return-value]
        if record["number"] == 3:
            return Kept([None])  # type: ignore[list-item]
        return Rejected("odd", 5)  # type: ignore[arg-type]


def test_a_careless_stage_costs_rows_not_the_run() -> None:
    """`sys.exit()`, None, and things that are no records fail their rows with what was wrong; and what is running is
    told by the name that the recipe gave."""
    watch = Named()
    records = [record(n) for n in (1, 2, 3, 4)]
    kept, dropped, count = run_stage(spec(), Careless(Params()), records, Quarantine(), watch, {})
    assert not kept
    assert count.balances()
    assert [row.reason for row in dropped] == ["RuntimeError", "TypeError", "InvalidValues", "odd"]
    assert dropped[0].detail == "SystemExit: a library gave up"
    assert set(watch.names) == {"stage"}


class Named(ActivityMonitor):
    """Remembers the stages it was told."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, stage: str, ids: Any, limit_s: float) -> None:
        self.names.append(stage)


class Twins(Stage):
    """Makes two of one."""

    name = "twins"

    def process_one(self, record: Record) -> Outcome:
        if record["number"] == 3:
            return Rejected("three", "is too many")
        return Kept([{**record, "id": f"{record['id']}.{k}"} for k in range(2)])


def test_children_know_their_parents_and_the_input_they_descend_from() -> None:
    """Outputs with ids of their own carry their parent's; what is dropped later still names the flow's input."""
    columns = {"parents": Kind.STRINGS, "stages": Kind.VERSIONS, "weights": Kind.VERSIONS}
    kept, _, count = run_stage(
        spec(**columns), Twins(Params()), [record(1), record(3)], Quarantine(), ActivityMonitor(), {}
    )
    assert [row["parents"] for row in kept] == [["0001"], ["0001"]]
    assert (count.inputs, count.kept, count.out, count.rejected) == (2, 1, 2, {"three": 1})
    grandchildren, _, _ = run_stage(spec(**columns), Twins(Params()), kept, Quarantine(), ActivityMonitor(), {})
    assert {row["parents"][0] for row in grandchildren} == {"0001.0", "0001.1"}
    dead = Quarantine({("stage", "0001.1"): "TimedOut"})
    kept, dropped, _ = run_stage(spec(**columns), Twins(Params()), kept, dead, ActivityMonitor(), {})
    assert (dropped[0].id, dropped[0].input_id, dropped[0].reason) == ("0001.1", "0001", "TimedOut")
    assert dropped[0].detail == "the record took longer than 10 s, at every try"


def test_the_example_in_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage and the recipe of docs/extend.md are taken from the page and run."""
    from PIL import Image

    from rasura.manifests.storage import Store
    from rasura.pipeline.engine.execute import PartialShard, run_group
    from rasura.pipeline.recipe.load import parse
    from rasura.pipeline.recipe.plan import plan
    from rasura.pipeline.recipe.shards import list_shards

    page = (ROOT / "docs" / "extend.md").read_text()
    code, recipe = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yaml"))
    assert code
    assert recipe
    (tmp_path / "sharpness.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "my-photos" / "sharp.png")
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(tmp_path / "my-photos" / "flat.png")
    resolved = plan(*parse(recipe[1], "extend.yaml"))
    flow = resolved.flows["photos"]
    stages = [stage.make() for stage in flow.stages]
    for stage in stages:
        stage.setup()
    (shard,) = list_shards(flow, resolved.sources["photos"], Store(tmp_path / "run"))
    done = run_group(
        flow.groups[0], stages, PartialShard(list(shard.items), 2), Quarantine(), ActivityMonitor(), flow.splits
    )
    values = {Path(row["origin"]).stem: row["sharpness"] for row in done.records}
    assert values["sharp"] > 100 > values["flat"] == 0
