"""Removers that fail beside others: each costs its own candidates, is counted, and may be tried again."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.shards import CommitRecord, StageCount
from rasura.manifests.storage import Store
from rasura.pipeline.engine.execute import ActivityMonitor, Quarantine, run_stage
from rasura.pipeline.engine.faults import SurroundingsFault
from rasura.pipeline.recipe.specs import StageSpec
from rasura.pipeline.run.accounting import count_flow
from rasura.pipeline.run.commits import list_failed_shards
from rasura.pipeline.run.outcome import summarize_flow
from rasura.pipeline.run.progress import Progress
from rasura.stages.inpaint import Inpaint
from rasura.stages.stage import Resources

ODD, BROKEN = "support.failing_removers:Odd", "support.failing_removers:Broken"


def photo(number: int, first: int) -> dict[str, Any]:
    picture = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    picture[0, 0, 0] = first
    mask = np.zeros((24, 24), bool)
    mask[8:14, 8:14] = True
    return {"id": f"{number:04d}", "origin": None, "source": picture, "object_mask": mask}


def run(removers: list[str], records: list[dict[str, Any]], batch: int = 4) -> tuple[Any, Any, StageCount]:
    stage = Inpaint(Inpaint.Params.model_validate({"removers": removers, "dilation": 1}), 7)
    columns = stage.schema({**PROVENANCE, "source": Kind.RGB, "object_mask": Kind.MASK})
    spec = StageSpec("inpaint", {}, 7, stage.version, batch, 10.0, Resources(), columns)
    return run_stage(spec, stage, records, Quarantine(), ActivityMonitor(), {})


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=7), st.integers(1, 4), st.booleans())
def test_one_failed_fill_costs_one_candidate(firsts: list[int], batch: int, first: bool) -> None:
    """Whatever the batch and the order of removers: a scene keeps what the others made, bit for bit, with the errors of
    those that failed; it fails where none made anything."""
    records = [photo(number, value) for number, value in enumerate(firsts)]
    odd = sum(firsts)
    kept, dropped, count = run([ODD, "telea"] if first else ["telea", ODD], records, batch)
    alone = {row["id"]: row["target"] for row in run(["telea"], records, batch)[0]}
    assert count.balances()
    assert not dropped
    assert (count.kept, count.out, count.failed) == (len(records), 2 * len(records) - odd, {})
    assert count.failed_outputs == ({"ValueError": odd} if odd else {})
    for row in kept:
        if row["remover"] == "telea":
            assert np.array_equal(row["target"], alone[row["id"]])
        texts = row["failed_removers"]
        assert texts is None or texts == {"odd": "ValueError: odd picture\\x0a\\x1b[2J"}
        assert (texts is not None) == bool(firsts[int(row["id"][:4])])
    kept, dropped, count = run([ODD, BROKEN], records, batch)
    assert count.balances()
    assert (count.kept, count.failed) == (len(records) - odd, {"ValueError": odd} if odd else {})
    assert count.failed_outputs == ({"KeyError": len(records) - odd} if odd < len(records) else {})
    assert len(dropped) == odd


@pytest.mark.parametrize("remover", ["NoDisk", "Short"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_surroundings_cost_no_candidate(remover: str, count: int) -> None:
    """A disk that fails or memory that is short beside a remover that works stops the shard, which is tried again."""
    with pytest.raises(SurroundingsFault):
        run(["telea", f"support.failing_removers:{remover}"], [photo(number, 0) for number in range(count)])


def test_failed_candidates_are_told_and_made_again(tmp_path) -> None:
    """A commit record has them, and only where there are some; status and closing lines say how many there are, and
    `--retry-failed` finds their shards."""
    count = run(["telea", ODD], [photo(0, 1), photo(1, 0)])[2]
    record = CommitRecord("s", "p", 2, [count, StageCount("write", 3, 3, 3)], None, None)
    assert CommitRecord.from_json(record.to_json()) == record
    whole = CommitRecord("t", "p", 1, [StageCount("inpaint", 1, 1, 1)], None, None)
    assert b"failed_outputs" in record.to_json()
    assert b"failed_outputs" not in whole.to_json()
    accounting = count_flow("candidates", ["inpaint"], [record])
    assert accounting.stages[0].failed_outputs == Counter(ValueError=1)
    lines = list(summarize_flow(Store(tmp_path), accounting, [record]).describe())
    assert "  1 output of kept inputs failed in inpaint: 1 × ValueError" in lines
    with Progress(quiet=True) as progress:
        assert list_failed_shards(progress, "candidates", {"s": record, "t": whole}, ()) == ["s"]
        assert list_failed_shards(progress, "candidates", {"s": record}, ["KeyError"]) == []
