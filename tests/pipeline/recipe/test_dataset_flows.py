"""Candidates are no triplets: which flows go into a dataset."""

import json
from pathlib import Path

import pytest

from rasura.manifests.errors import RecipeError
from rasura.pipeline.recipe.describe import describe_plan
from rasura.pipeline.recipe.load import load, parse
from rasura.pipeline.recipe.plan import plan

FLOWS = {
    "scenes": {"source": {"studio": {"count": 2}}},
    "pairs": {
        "source": {"flow": {"of": "scenes"}},
        "stages": ["pair", "effects", {"segment": {"backend": "grabcut"}}, "capture"],
    },
    "captured": {"source": {"flow": {"of": "pairs"}}, "stages": [{"select": {"keep": {"pair_motion": {"max": 1}}}}]},
    "candidates": {"source": {"flow": {"of": "captured"}}, "stages": [{"inpaint": {"removers": ["telea"]}}]},
    "chosen": {
        "source": {"flow": {"of": "candidates"}},
        "stages": [{"select": {"keep": {"hole_dilation": {"max": 9}}}}],
    },
}


def make_plan(**dataset):
    return plan(*parse(json.dumps({"name": "x", "flows": FLOWS, "dataset": dataset}), "r.yaml"))


def test_candidates_are_left_out_and_named():
    """Also those that only another measurement has selected."""
    resolved = make_plan(flows=["captured", "chosen"])
    assert resolved.dataset == ["captured"]
    text = describe_plan(resolved)
    assert "dataset: triplets of captured\n" in text
    assert "warning: the dataset is without flow chosen: these rows are candidates" in text
    assert resolved.hash == make_plan(flows=["captured"]).hash


def test_candidates_are_taken_in_where_the_recipe_says_so():
    resolved = make_plan(flows=["captured", "chosen"], candidates=True)
    assert resolved.dataset == ["captured", "chosen"]
    assert "warning" not in describe_plan(resolved)
    assert resolved.to_recipe()["dataset"]["candidates"] is True


@pytest.mark.parametrize(
    ("rules", "accepts"),
    [
        ({"score": {"min": 0.9}}, True),
        ({"score": {"min": 0.9, "missing": True}}, False),
        ({"score": {"max": 0.9}}, False),
        ({"verdict": {"any_of": ["yes"]}}, True),
        ({"verdict": {"any_of": ["yes", "unsure"]}}, False),
        ({"verdict": {"none_of": ["no"]}}, False),
    ],
)
def test_a_score_or_a_verdict_accepts(tmp_path: Path, rules, accepts):
    """RORem's files have both columns; what a remover makes of their rows has to be accepted again."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.json").write_text("[]")
    flows = {
        "old": {"source": {"rorem": {"path": str(tmp_path / "data")}}, "stages": [{"select": {"keep": rules}}]},
        "made": {"source": {"flow": {"of": "old"}}, "stages": [{"inpaint": {"removers": ["ns"]}}]},
        "kept": {"source": {"flow": {"of": "made"}}, "stages": [{"select": {"keep": rules}}]},
    }
    recipe = {"name": "x", "flows": flows, "dataset": {"flows": ["old", "kept"]}}
    resolved = plan(*parse(json.dumps(recipe), "r.yaml"))
    assert resolved.flows["made"].has_candidates
    assert resolved.dataset == (["old", "kept"] if accepts else ["old"])


def test_the_default_is_all_flows_that_end_in_triplets():
    """Not those of which another one is a selection, and no candidates."""
    assert make_plan().dataset == ["captured"]
    assert make_plan(candidates=True).dataset == ["captured", "chosen"]
    demo = plan(*load(Path(__file__).parents[3] / "recipes" / "demo.yaml", ()))
    assert demo.dataset == ["captured", "simulated"]
    assert demo.left_out == []


def test_a_dataset_of_candidates_alone_is_refused():
    with pytest.raises(RecipeError, match=r"r\.yaml:1:\d+: dataset: no flow has triplets that somebody has accepted"):
        make_plan(flows=["candidates"])
