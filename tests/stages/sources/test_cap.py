"""A cap on the rows of one value: RORem's at most 500 a class."""

from pathlib import Path

import pytest
from conftest import rasura, write_recipe
from hypothesis import given
from hypothesis import strategies as st

from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import account
from rasura.stages.sources.flow import Flow, FlowParams, over
from rasura.stages.stage import MissingColumns

ROWS = st.dictionaries(st.text(max_size=6), st.sampled_from(["cat", "dog", None, 3]), max_size=40)


def listed(found):
    return [{"id": id, "label": label} for id, label in found.items()]


@given(ROWS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_of_each_value_as_many_stay_as_may_whatever_the_order(found, most, random):
    """Of every value min(count, most) rows stay; the same ones in any order; rows without a value count as one."""
    rows = listed(found)
    gone = over(rows, "label", most, 0)
    for label in set(found.values()):
        ids = {id for id, other in found.items() if other == label}
        assert len(ids - gone) == min(len(ids), most)
    random.shuffle(rows)
    assert over(rows, "label", most, 0) == gone


@given(ROWS, st.integers(1, 9), st.sampled_from(["cat", "dog"]))
def test_a_row_that_is_added_replaces_one_other_at_most(found, most, label):
    """More data does not shuffle the choice: what stays is what stayed, but for one row of the same value."""
    before = {id for id in found if id not in over(listed(found), "label", most, 0)}
    more = {**found, "a new row": label}
    after = {id for id in more if id not in over(listed(more), "label", most, 0)}
    assert len(before - after) <= 1
    assert all(found[id] == label for id in before - after)


def test_the_lot_is_the_recipes():
    """Another seed draws other rows, as many."""
    rows = [{"id": str(k), "label": "cat"} for k in range(100)]
    first, second = over(rows, "label", 20, 0), over(rows, "label", 20, 1)
    assert len(first) == len(second) == 80
    assert first != second


def test_the_column_has_to_be_there_and_single():
    """A column that the flow has not, pictures and lists are refused before the run."""
    given_columns = {"id": Kind.STRING, "label": Kind.STRING, "box": Kind.FLOATS, "source": Kind.RGB}
    for column in ("lable", "box", "source"):
        flow = Flow(FlowParams.model_validate({"of": "x", "cap": {"column": column, "most": 5}}))
        with pytest.raises(MissingColumns, match=f"a column of single values '{column}' to cap"):
            flow.schema(given_columns)
    Flow(FlowParams.model_validate({"of": "x", "cap": {"column": "label", "most": 5}})).schema(given_columns)


def test_a_capped_flow_keeps_the_same_rows_in_any_shards_and_accounts_for_the_others(tmp_path: Path) -> None:
    """Shards of 3 and of 50 rows give the same ten; the rest are rejected with the reason, none is lost."""
    made = {"source": {"synthetic:Numbers": {"count": 30}}, "stages": ["synthetic:Triplet"], "shard_rows": 4}
    source = {"flow": {"of": "made", "cap": {"column": "label", "most": 10}}}
    rule = {"select": {"keep": {"number": {"max": 1000}}}}
    flows = {"made": made, "small": {"source": source, "shard_rows": 3}, "large": {"source": source, "shard_rows": 50}}
    flows["light"] = {"source": source, "stages": [rule], "shard_rows": 7}  # reads no pictures
    rasura("run", write_recipe(tmp_path, flows=flows, engine={"workers": 2}), "--into", tmp_path / "run")
    run = Store(tmp_path / "run")
    kept = {name: Tables(run).table(name).light(["id"])["id"].to_pylist() for name in flows}
    assert kept["small"] == kept["large"] == kept["light"]
    assert len(kept["small"]) == 10
    entries = {flow.flow: flow.stages[0] for flow in account(run).flows}
    for name in ("small", "large", "light"):
        assert entries[name].inputs == len(kept["made"])
        assert entries[name].rejected == {"label over its cap": len(kept["made"]) - 10}
        assert entries[name].balanced
