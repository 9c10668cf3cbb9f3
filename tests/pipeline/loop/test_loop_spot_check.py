"""The spot check of an automatic round asks for its votes, waits for them, and keeps what they certify."""

import json
import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest
from support.loops import build_recipe, run_silently, share_ray, write_scenes
from support.report_pages import Page

from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run
from rasura.pipeline.loop import table
from rasura.pipeline.loop.measure import summarize_test
from rasura.pipeline.loop.results import AddResult, VotesResult
from rasura.pipeline.loop.state import Loop, Waiting, round_path
from rasura.pipeline.report import loop_page
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


@pytest.fixture(scope="module")
def loop(scenes, tmp_path_factory):
    return run_silently(build_recipe(scenes, rounds=ROUNDS), tmp_path_factory.mktemp("checked") / "loop")


def test_the_ground_truth_reviewer_votes_on_what_is_asked_and_no_more(loop):
    """At most ten votes on the scenes' best; each yes of them is kept, no rejection is, all others have a reason."""
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


def test_its_votes_are_data(loop, tmp_path):
    """A spot check's verdicts are in the decisions, in the exported triplets, and in the exported votes, with those of
    human rounds."""
    decisions = loop.read_json(f"{round_path(2)}/decisions.json", {})
    places = {item: row.id for item, row in vote_logs.index_candidates(loop.open_round(2)).items()}
    tallies = vote_logs.tally_votes(loop.read_votes(2))
    verdicts = {places[item]: "yes" if tally["yes"] else "no" for item, tally in tallies.items()}
    assert verdicts
    assert {id: decision["verdict"] for id, decision in decisions.items() if decision["verdict"]} == verdicts
    store = Store(loop.store.local)
    exported = {"triplets": {}, "votes": {}}
    for flow, rows in exported.items():
        manifest = export_run(store, Store(tmp_path / flow), flows=[flow])
        for file in manifest["files"]:
            for row in pq.read_table(tmp_path / flow / file["name"]).to_pylist():
                rows[row["id"]] = row["verdict"]
    assert {id: exported["votes"].get(id) for id in verdicts} == verdicts
    assert len(exported["votes"]) == len(verdicts) + loop.read_result(VotesResult, 1).voted
    kept = [ref.id for ref in loop.read_rows(f"{round_path(2)}/kept")]
    assert {id: exported["triplets"][id] for id in kept} == {id: verdicts.get(id) for id in kept}


def test_its_outcome_is_on_the_page(loop, tmp_path):
    """The report has the votes of the check, what they certified and what they dropped; where the recipe lets a
    discriminator decide that has failed its check, it says so and does not advise to."""
    folder = shutil.copytree(loop.store.local, tmp_path / "loop")
    result = loop.read_json(f"{round_path(2)}/spot_check.json", {})
    reasons = Counter(row["reason"] for row in loop.read_json(f"{round_path(2)}/decisions.json", {}).values())
    dropped = reasons["voted no"]
    step = json.loads((folder / "steps/01-judge.json").read_text())
    refusal = "it fails: use another, or allow it with `discriminator: {unchecked: true}`"
    (folder / "steps/01-judge.json").write_text(json.dumps(step | {"refusal": refusal}))
    words = Page(loop_page.render(Store(folder), 2)).words
    assert "may keep nothing by itself: it fails: use another, or allow it with" in words
    recipe = json.loads((folder / "loop.json").read_text())
    recipe["recipe"]["judge"]["unchecked"] = True
    (folder / "loop.json").write_text(json.dumps(recipe))
    words = Page(loop_page.render(Store(folder), 2)).words
    assert "decides all the same, as the recipe has `unchecked: true`: it fails." in words
    assert "allow it with" not in words
    certified = f"best {result['certified']}" if result["certified"] else "none"
    row = ["round 2", result["votes"], result["votes"] - dropped, certified, dropped, result["kept"]]
    assert "".join(map(str, [*row, reasons["not certified"]])) in words


def test_a_round_without_discriminator_says_why(loop, tmp_path):
    """Where an automatic round kept nothing, status, page and the reasons of missing measures have the cause."""
    folder = shutil.copytree(loop.store.local, tmp_path / "loop")
    none = {"judge": None, "why": "votes to calibrate on: all 9 votes are no"}
    (folder / "steps/01-judge.json").write_text(json.dumps(none))
    added = json.loads((folder / "steps/02-add.json").read_text())
    (folder / "steps/02-add.json").write_text(json.dumps(added | {"kept": 0, "truth_known": 0, "truly_yes": 0}))
    decisions = {
        id: {**row, "kept": False, "reason": "no discriminator", "detail": "", "verdict": None}
        for id, row in loop.read_json(f"{round_path(2)}/decisions.json", {}).items()
    }
    (folder / round_path(2) / "decisions.json").write_text(json.dumps(decisions))
    changed = Loop.open(str(folder))
    line = "Round 2 kept none of its 18 candidates: 18 × no discriminator (votes to calibrate on: all 9 votes are no)."
    assert line in table.format_text(changed)
    words = Page(loop_page.render(Store(folder), 2)).words
    assert line in words
    assert "no truth available" not in words
    missing = summarize_test(changed, 2, changed.read_rows("test"), None).reasons
    assert missing["judged"] == missing["judged_kept"] == "votes to calibrate on: all 9 votes are no"


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
