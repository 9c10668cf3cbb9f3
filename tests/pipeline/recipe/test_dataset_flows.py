"""Candidates are no triplets: which flows go into a dataset."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasura.manifests.errors import RecipeError
from rasura.manifests.images import encode_image
from rasura.pipeline.recipe.describe import describe_plan
from rasura.pipeline.recipe.load import load, parse
from rasura.pipeline.recipe.plan import plan

KEEP = {"select": {"keep": {"mask_changed": {"min": 0.6}}}}
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


def test_flows_of_the_same_ids_are_refused_before_anything_runs():
    """Two flows that make rows anew of the same rows would give each id twice; one beside its corrections would not."""
    corrected = {
        name: {"source": {"corrections": {"of": of}}, "stages": ["correct", *rest]}
        for name, of, rest in (("two", "pairs", []), ("good", "captured", [KEEP]))
    }

    def check(*flows):
        recipe = {"name": "x", "flows": FLOWS | corrected, "dataset": {"flows": list(flows)}}
        plan(*parse(json.dumps(recipe), "r.yaml"))

    check("captured", "two")
    for flows in (("two", "good"), ("pairs", "captured")):
        with pytest.raises(RecipeError, match="keep one of the two flows"):
            check(*flows)


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


def make_entry(**values):
    return {"source": "source/1.png", "mask": "mask/1.png", "GT": "GT/1.png", **values}


@pytest.mark.parametrize(
    ("entries", "params", "accepted"),
    [
        ([make_entry()], {}, False),
        ([make_entry(score=0.97)], {}, False),
        ([make_entry(score=1), make_entry(score=0)], {"rejected": True}, False),
        ([make_entry(score=1)], {}, True),
        ([make_entry()], {"kind": "captured"}, True),
    ],
)
def test_what_a_remover_made_is_a_candidate_also_when_it_is_read_from_files(tmp_path: Path, entries, params, accepted):
    """RORem's entries are a model's unless the recipe says otherwise; only a score of 1 is somebody's yes."""
    (tmp_path / "meta.json").write_text(json.dumps(entries))
    flows = {"rows": {"source": {"rorem": {"path": str(tmp_path), **params}}}}
    text = json.dumps({"name": "x", "flows": flows, "dataset": {}})
    if accepted:
        assert plan(*parse(text, "r.yaml")).dataset == ["rows"]
    else:
        with pytest.raises(RecipeError, match="somebody has accepted"):
            plan(*parse(text, "r.yaml"))


@pytest.mark.parametrize("give", ["pairs", "triplets"])
def test_edited_rows_of_obers_layout_stay_candidates(tmp_path: Path, give):
    """Also where they are given as pairs and captured anew, and unless a rule on the kind leaves them out."""
    picture = {"bytes": encode_image(np.zeros((8, 8, 3), np.uint8)), "path": "1_0.webp"}
    row = {"input": picture, "gt": picture, "object_mask": picture, "object_effect_mask": None, "split": "train"}
    pq.write_table(
        pa.Table.from_pylist([row | {"subset": kind} for kind in ("captured", "edited")]), tmp_path / "r.parquet"
    )
    stages = ["pair", "effects", {"segment": {"backend": "grabcut"}}, "capture"] if give == "pairs" else []
    source = {"ober": {"path": str(tmp_path / "r.parquet"), "give": give}}
    flows = {
        "rows": {"source": source, "stages": stages},
        "true": {
            "source": {"flow": {"of": "rows"}},
            "stages": [{"select": {"keep": {"kind": {"none_of": ["edited"]}}}}],
        },
    }

    def choose(**dataset):
        return plan(*parse(json.dumps({"name": "x", "flows": flows, "dataset": dataset}), "r.yaml")).dataset

    assert choose() == ["true"]
    assert choose(flows=["rows"], candidates=True) == ["rows"]
    with pytest.raises(RecipeError, match="somebody has accepted"):
        choose(flows=["rows"])
    source["ober"]["subsets"] = ["captured"]
    assert choose(flows=["rows"]) == ["rows"]
