"""Insertion and Syn4Removal as runs: what is in their tables, who sees it, and what a dataset takes of it."""

import json

import numpy as np
import pytest
from conftest import rasura, write_recipe
from PIL import Image
from support.pair_scenes import make_floor

from rasura.annotator.store.rows import list_rows
from rasura.manifests.errors import RecipeError
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.load import parse
from rasura.pipeline.recipe.plan import plan

INSERT = {"insert": {"inserters": ["support.inserters:DrawnInserter"], "min_height": 0.3, "room": 0.8}}
CHAIN = [INSERT, "effects", {"segment": {"backend": "grabcut"}}, "confirm"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs of floors; half of them have a block on it, with its mask."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "masks").mkdir()
    for number in range(6):
        picture = np.rint(make_floor(200, 280, 60 + number)).astype(np.uint8)
        mask = np.zeros((200, 280), bool)
        mask[60:150, 30 + 8 * number : 110 + 8 * number] = True
        picture[mask] = (40 + 30 * number, 60, 200)
        Image.fromarray(picture).save(folder / f"{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    return folder


def make_flows(photos):
    source = {"photos": {"path": str(photos), "pattern": "*.png", "masks": str(photos / "masks"), "licence": "CC0"}}
    return {
        "photos": {"source": source},
        "inserted": {"source": {"flow": {"of": "photos"}}, "stages": CHAIN},
        "accepted": {
            "source": {"flow": {"of": "inserted"}},
            "stages": [{"select": {"keep": {"kind": {"none_of": ["edited"]}}}}],
        },
        "objects": {"source": {"flow": {"of": "photos"}}, "stages": ["instance"]},
        "simulated": {
            "source": {
                "draws": {
                    "foregrounds": "objects",
                    "backgrounds": "photos",
                    "count": 6,
                    "objects": [1, 1],
                    "ground": False,
                    "instances": {"min_count": 1},
                }
            },
            "stages": [{"composite": {"placement": "gaussian", "rotation": 45, "blend": "trimap"}}],
        },
    }


def choose_dataset(photos, flows=None, named=None):
    dataset = {} if named is None else {"flows": named}
    text = json.dumps({"name": "x", "flows": flows or make_flows(photos), "dataset": dataset})
    return plan(*parse(text, "r.yaml"))


def test_a_dataset_takes_no_inserted_row_that_nobody_has_accepted(photos):
    """Like edited rows: neither by default nor by name, nor behind a rule that leaves out edited rows alone; a rule on
    both kinds, or a score, is an acceptance."""
    resolved = choose_dataset(photos)
    assert resolved.dataset == ["simulated"]
    assert resolved.flows["inserted"].candidate_kinds == {"inserted"}
    assert resolved.flows["accepted"].has_candidates
    with pytest.raises(RecipeError, match="somebody has accepted"):
        choose_dataset(photos, named=["inserted"])
    flows = make_flows(photos)
    flows["accepted"]["stages"][0]["select"]["keep"] = {"kind": {"none_of": ["edited", "inserted"]}}
    assert "accepted" in choose_dataset(photos, flows).dataset


@pytest.mark.ray
@pytest.mark.slow
def test_inserted_rows_are_candidates_of_a_run_and_simulated_ones_are_its_dataset(tmp_path, photos):
    """All inputs are accounted for and verified to the last bit; the review has the inserted rows, the dataset has not;
    the same recipe on one worker gives the same bytes."""
    tables = []
    for name, workers in (("a", 2), ("b", 1)):
        path = write_recipe(
            tmp_path, flows=make_flows(photos), dataset={}, engine={"workers": workers, "shard_rows": 2}
        )
        rasura("run", path, "--into", tmp_path / name)
        rasura("verify", tmp_path / name)
        tables.append(Tables(Store(tmp_path / name)))
    rows = [list(entry.table("inserted").iterate_records()) for entry in tables]
    assert len(rows[0]) > 2
    for first, second in zip(*rows, strict=True):
        for key, value in first.items():
            assert np.array_equal(value, second[key]), key
    photographs = {row["id"]: row["source"] for row in tables[0].table("photos").iterate_records()}
    for row in rows[0]:
        assert (row["kind"], row["remover"]) == ("inserted", "drawn")
        (parent,) = row["parents"]
        assert np.array_equal(row["target"], photographs[parent])
        assert (row["source"] != row["target"]).any()
    run = Store(tmp_path / "a")
    waiting = [row for row in list_rows(run) if row.kind == "inserted" and not row.judged]
    assert {row.id for row in waiting} >= {row["id"] for row in rows[0]}
    simulated = list(tables[0].table("simulated").iterate_records())
    assert len(simulated) == 6
    assert all(json.loads(row["placement"])["objects"][0]["rotated"] for row in simulated)
    card = run.read("dataset/README.md").decode()
    assert "| simulated | 6 |" in card
    assert "| inserted |" not in card
