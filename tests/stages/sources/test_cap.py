"""A cap on the rows of one value: RORem's at most 500 a class."""

from pathlib import Path

import pytest
from conftest import rasura, write_recipe
from hypothesis import given
from hypothesis import strategies as st

from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import compute_accounting
from rasura.stages.sources.flow import Flow, FlowParams, find_rows_over_cap
from rasura.stages.stage import MissingColumns

ROWS = st.dictionaries(st.text(max_size=6), st.sampled_from(["cat", "dog", None, 3]), max_size=40)


def make_rows(labels):
    return [{"id": id, "label": label} for id, label in labels.items()]


@given(ROWS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_at_most_the_cap_of_each_value_stays_in_any_order(labels, most, random):
    """Of every value min(count, most) rows stay; the same ones in any order; rows without a value count as one."""
    rows = make_rows(labels)
    rejected_ids = find_rows_over_cap(rows, "label", most, 0)
    for label in set(labels.values()):
        ids = {id for id, other in labels.items() if other == label}
        assert len(ids - rejected_ids) == min(len(ids), most)
    random.shuffle(rows)
    assert find_rows_over_cap(rows, "label", most, 0) == rejected_ids


@given(ROWS, st.integers(1, 9), st.sampled_from(["cat", "dog"]))
def test_a_row_that_is_added_replaces_one_other_at_most(labels, most, label):
    """More data does not shuffle the choice: what stays is what stayed, but for one row of the same value."""
    before = {id for id in labels if id not in find_rows_over_cap(make_rows(labels), "label", most, 0)}
    more = {**labels, "a new row": label}
    after = {id for id in more if id not in find_rows_over_cap(make_rows(more), "label", most, 0)}
    assert len(before - after) <= 1
    assert all(labels[id] == label for id in before - after)


def test_the_choice_depends_on_the_recipes_seed():
    """Another seed draws other rows, as many."""
    rows = [{"id": str(k), "label": "cat"} for k in range(100)]
    first, second = find_rows_over_cap(rows, "label", 20, 0), find_rows_over_cap(rows, "label", 20, 1)
    assert len(first) == len(second) == 80
    assert first != second


def test_the_column_must_exist_and_hold_single_values():
    """A column that the flow has not, pictures and lists are refused before the run."""
    given_columns = {"id": Kind.STRING, "label": Kind.STRING, "box": Kind.FLOATS, "source": Kind.RGB}
    for column in ("lable", "box", "source"):
        flow = Flow(FlowParams.model_validate({"of": "x", "cap": {"column": column, "most": 5}}))
        with pytest.raises(MissingColumns, match=f"a column of single values '{column}' to cap"):
            flow.schema(given_columns)
    Flow(FlowParams.model_validate({"of": "x", "cap": {"column": "label", "most": 5}})).schema(given_columns)


@pytest.mark.ray
def test_a_capped_flow_keeps_the_same_rows_in_any_shards_and_counts_the_others(tmp_path: Path) -> None:
    """Shards of 3 and of 50 rows give the same ten; the rest are rejected with the reason, none is lost."""
    triplets = {"source": {"synthetic:Numbers": {"count": 30}}, "stages": ["synthetic:Triplet"], "shard_rows": 4}
    source = {"flow": {"of": "made", "cap": {"column": "label", "most": 10}}}
    rule = {"select": {"keep": {"number": {"max": 1000}}}}
    flows = {
        "made": triplets,
        "small": {"source": source, "shard_rows": 3},
        "large": {"source": source, "shard_rows": 50},
    }
    flows["light"] = {"source": source, "stages": [rule], "shard_rows": 7}  # reads no pictures
    rasura("run", write_recipe(tmp_path, flows=flows, engine={"workers": 2}), "--into", tmp_path / "run")
    run = Store(tmp_path / "run")
    ids = {name: Tables(run).table(name).read_light(["id"])["id"].to_pylist() for name in flows}
    assert ids["small"] == ids["large"] == ids["light"]
    assert len(ids["small"]) == 10
    entries = {flow.flow: flow.stages[0] for flow in compute_accounting(run).flows}
    for name in ("small", "large", "light"):
        assert entries[name].inputs == len(ids["made"])
        assert entries[name].rejected == {"label over its cap": len(ids["made"]) - 10}
        assert entries[name].balances
