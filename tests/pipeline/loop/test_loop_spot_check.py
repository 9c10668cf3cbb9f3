"""The spot check of an automatic round asks for its votes, waits for them, and keeps what they certify."""

import json

import pytest
from support.loops import build_recipe, run_silently, share_ray, write_scenes

from rasura.manifests.storage import Store
from rasura.pipeline.loop.results import AddResult
from rasura.pipeline.loop.state import Waiting, round_path
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs

pytestmark = [pytest.mark.ray, pytest.mark.torch]

ROUNDS = [{"kind": "human", "count": 6}, {"kind": "auto", "count": 6, "spot_check": 10}]


@pytest.fixture(scope="module", autouse=True)
def ray():
    with share_ray():
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "run").store.uri


def test_the_ground_truth_reviewer_votes_on_what_is_asked_and_no_more(scenes, tmp_path):
    """At most ten votes on the scenes' best; each yes of them is kept, no rejection is, all others have a reason."""
    loop = run_silently(build_recipe(scenes, rounds=ROUNDS), tmp_path / "loop")
    run = loop.open_round(2)
    asked, result = json.loads(run.read("asked.json")), json.loads(run.read("spot_check.json"))
    assert 0 < len(asked) <= 10
    assert result["votes"] <= len(asked)
    tallies = vote_logs.tally_votes(loop.read_votes(2))
    assert set(tallies) == set(asked)
    decisions = loop.read_json(f"{round_path(2)}/decisions.json", {})
    candidates = vote_logs.index_candidates(run)
    assert set(decisions) == {row.id for row in candidates.values()}
    for item, tally in tallies.items():
        assert decisions[candidates[item].id]["kept"] == (tally["yes"] > 0)
    kept = [decision for decision in decisions.values() if decision["kept"]]
    assert len(kept) == result["kept"] == loop.read_result(AddResult, 2).kept
    assert all(decision["reason"] for decision in decisions.values() if not decision["kept"])


def test_a_round_waits_for_the_votes_of_people(scenes, tmp_path):
    """Page by page, people are asked for the items that the check needs, and the same command goes on."""
    recipe = build_recipe(scenes, rounds=ROUNDS, reviewers="people")
    folder, waits = tmp_path / "loop", []
    while True:
        try:
            loop = run_silently(recipe, folder)
            break
        except Waiting as error:
            waits.append(str(error))
            assert len(waits) < 6
        number = 1 if len(waits) == 1 else 2
        run_folder = folder / round_path(number)
        votes = run_folder / "votes"
        votes.mkdir(exist_ok=True)
        rows = list(oracle.review_run(Store(run_folder)))
        if number == 2:
            wanted = set(json.loads((run_folder / "asked.json").read_text()))
            rows = [row for row in rows if row["item"] in wanted]
        lines = [json.dumps({**row, "reviewer": "Ann", "nonce": f"ann {row['item']}"}) + "\n" for row in rows]
        (votes / "votes.jsonl").write_text("".join(lines))
    assert len(waits) >= 2
    assert "spot check" in waits[1]
    assert (
        loop.read_result(AddResult, 2).kept
        == json.loads((folder / round_path(2) / "spot_check.json").read_text())["kept"]
    )
