"""A human round asks the candidates of a scene best first until a yes; the page asks for what the loop waits for."""

import json
import shutil
from collections import defaultdict

import pytest
from support.annotator.queue import lease, vote
from support.annotator.runs import people
from support.loops import DISCRIMINATOR, build_recipe, run_silently, share_ray, write_scenes

from rasura.annotator.store import vote_log
from rasura.annotator.store.best_first import is_complete_scene
from rasura.annotator.store.database import Database
from rasura.annotator.store.items import refresh_queue
from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.manifests.storage import Store
from rasura.pipeline.cli.review import read_policy
from rasura.pipeline.loop.results import AddResult, DiscriminatorResult, VotesResult
from rasura.pipeline.loop.state import Loop, Waiting, list_steps, round_path
from rasura.pipeline.loop.voting.human import list_votes_to_learn_from
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.votes import load_examples

pytestmark = [pytest.mark.ray, pytest.mark.torch]

SHARE = 0.3
BEST_FIRST = {"kind": "human", "count": 7, "ask": "best_first", "floor": 0.0, "complete_scenes": SHARE}
ROUNDS = [{"kind": "human", "count": 6}, BEST_FIRST]


@pytest.fixture(scope="module", autouse=True)
def ray():
    with share_ray():
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "run").store.uri


@pytest.fixture(scope="module")
def by_oracle(scenes, tmp_path_factory):
    """A loop that is finished, of which the ground-truth reviewer was asked."""
    return run_silently(build_recipe(scenes, rounds=ROUNDS), tmp_path_factory.mktemp("oracle") / "loop")


def read_scenes(loop: Loop) -> dict[str, list[tuple[str, float, bool]]]:
    """Item, score and true verdict of the candidates of each scene of the second round, by falling score."""
    run = loop.open_round(2)
    scores, truth = json.loads(run.read("scores.json")), {row["item"]: row["verdict"] for row in oracle.review_run(run)}
    scenes = defaultdict(list)
    for item, row in vote_logs.index_candidates(run).items():
        scenes[row.scene].append((item, scores[item], truth[item] == "yes"))
    return {scene: sorted(rows, key=lambda row: -row[1]) for scene, rows in scenes.items()}


def list_expected(loop: Loop) -> set[str]:
    """The items of the second round that are to be asked."""
    expected = set()
    for scene, rows in read_scenes(loop).items():
        for item, _, yes in rows:
            expected.add(item)
            if yes and not is_complete_scene(scene, SHARE, loop.recipe.seed):
                break
    return expected


def test_each_scene_is_asked_in_the_order_of_its_scores_until_a_yes(by_oracle):
    """Scores come before votes; as many scenes join as if all had been asked; every candidate has a decision."""
    names = [step.name for step in list_steps(by_oracle.recipe) if step.round == 2]
    assert names == ["draw", "inpaint", "score", "votes", "judge", "add", "tune", "test"]
    expected, scenes = list_expected(by_oracle), read_scenes(by_oracle)
    assert set(vote_logs.tally_votes(by_oracle.read_votes(2))) == expected
    result = by_oracle.read_result(VotesResult, 2)
    assert (result.voted, result.candidates) == (len(expected), 21)
    assert result.voted < result.candidates
    assert by_oracle.read_result(AddResult, 2).kept == sum(any(row[2] for row in rows) for rows in scenes.values()) > 0
    decisions = by_oracle.read_json(f"{round_path(2)}/decisions.json", {})
    assert len(decisions) == 21
    assert all(decision["kept"] or decision["reason"] for decision in decisions.values())


def test_every_vote_has_the_probability_of_its_inclusion(by_oracle):
    """One before and at the first yes, the share of complete scenes after it; the discriminator learns with the inverse
    as weight, and the stored rate is what these votes estimate."""
    weights, total = {}, 0.0
    for scene, rows in read_scenes(by_oracle).items():
        complete, needed = is_complete_scene(scene, SHARE, by_oracle.recipe.seed), True
        for item, _, yes in rows:
            if needed or complete:
                weights[item] = (1.0 if needed else SHARE, complete)
                total += yes / weights[item][0]
            needed = needed and not yes
    rows = by_oracle.read_votes(2)
    assert {row["item"]: (row["inclusion"], row["complete"]) for row in rows} == weights
    assert {probability for probability, _ in weights.values()} == {1.0, SHARE}
    assert by_oracle.read_result(VotesResult, 2).rate == pytest.approx(total / 21)
    examples = load_examples(by_oracle.open_round(2), rows, ["candidates"])
    assert sorted(example.weight for example in examples) == pytest.approx(sorted(1 / p for p, _ in weights.values()))
    assert all("inclusion" not in row for row in by_oracle.read_votes(1))


def answer_review(loop: Loop) -> None:
    """Answer all that the page of the second round asks for, as `rasura review` serves it, with the true verdicts."""
    run = loop.open_round(2)
    verdicts = {row["item"]: row["verdict"] for row in oracle.review_run(run)}
    policy = read_policy(run.uri, ["honeypots=0"])
    database = Database(str(run.local / REVIEW_DATABASE))
    try:
        refresh_queue(run, database, policy)
        who = people(database, ["Ann"])[0]
        while items := lease(database, policy, who, 4):
            for item in items:
                vote(database, policy, who, item, verdicts[item])
        with database.read() as connection:
            assert len(vote_log.read_entries(connection)) > 0
    finally:
        database.close()


def test_people_are_asked_for_what_the_loop_waits_for(by_oracle, scenes, tmp_path):
    """The page needs no option: it stops where the loop goes on, with the votes that the ground-truth reviewer gave. A
    file of votes without probabilities gets them, and a vote on what was not to be asked teaches nothing."""
    recipe, folder = build_recipe(scenes, rounds=ROUNDS, reviewers="people"), tmp_path / "loop"
    with pytest.raises(Waiting, match="0 of 18 candidates"):
        run_silently(recipe, folder)
    votes = folder / round_path(1) / "votes"
    votes.mkdir()
    rows = [{**row, "reviewer": "Ann"} for row in oracle.review_run(Store(folder / round_path(1)))]
    (votes / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Waiting, match="0 of 7 scenes are done"):
        run_silently(recipe, folder)
    answer_review(Loop.open(str(folder)))
    loop = run_silently(recipe, folder)
    assert set(vote_logs.tally_votes(loop.read_votes(2))) == list_expected(loop)
    assert loop.read_result(VotesResult, 2).voted == len(list_expected(loop))
    for number, name in ((2, "inclusion"), (2, "complete")):
        same = {row["item"]: row[name] for row in by_oracle.read_votes(number)}
        assert {row["item"]: row[name] for row in loop.read_votes(number)} == same
    exported = folder / round_path(2) / "votes" / "votes.jsonl"
    bare = [{k: v for k, v in row.items() if k not in ("inclusion", "complete")} for row in loop.read_votes(2)]
    asked = {row["item"] for row in bare}
    other = next(item for item in vote_logs.index_candidates(loop.open_round(2)) if item not in asked)
    bare.append({**bare[0], "item": other, "nonce": "other", "verdict": "no"})
    exported.write_text("".join(json.dumps(row) + "\n" for row in bare))
    completed = list_votes_to_learn_from(loop, 2)
    assert {row["item"]: row["inclusion"] for row in completed} == {
        row["item"]: row["inclusion"] for row in by_oracle.read_votes(2)
    }


def test_a_discriminator_that_fails_its_battery_keeps_nothing(tmp_path):
    """It is checked on initial triplets where there are enough; the refusal has the figures, costs no votes, and the
    recipe may lift it before the round is decided."""
    rounds = [{"kind": "human", "count": 6}, {"kind": "auto", "count": 4, "spot_check": 10}]
    many = write_scenes(tmp_path / "many", count=60, initial=36).store.uri
    discriminator = DISCRIMINATOR | {"precision_target": 0.05, "confidence": 0.1}
    recipe = build_recipe(many, rounds=rounds, discriminator=discriminator)
    loop = run_silently(recipe, tmp_path / "loop")
    refusal = loop.read_result(DiscriminatorResult, 1).refusal
    assert "24 initial triplets" in refusal
    assert "%" in refusal
    assert "unchecked: true" in refusal
    decisions = loop.read_json(f"{round_path(2)}/decisions.json", {})
    assert {decision["reason"] for decision in decisions.values()} == {"the discriminator failed its check"}
    assert {decision["detail"] for decision in decisions.values()} == {refusal}
    assert not loop.open_round(2).exists("asked.json")
    assert loop.read_result(AddResult, 2).kept == 0
    for step in ("add", "tune", "test"):  # as if the round had not been decided
        (tmp_path / "loop" / "steps" / f"02-{step}.json").unlink()
    shutil.rmtree(tmp_path / "loop" / "removers" / "02")
    allowed = build_recipe(many, rounds=rounds, discriminator={**discriminator, "unchecked": True})
    assert run_silently(allowed, tmp_path / "loop").read_result(AddResult, 2).kept > 0


def test_a_round_without_an_order_is_refused(scenes):
    """Best first needs a discriminator, of an earlier round or to start from; automatic rounds ask nobody."""
    from rasura.pipeline.loop.recipe import LoopRecipe

    for rounds, message in (
        ([BEST_FIRST], "no discriminator is there yet"),
        ([{"kind": "human", "count": 2}, {**BEST_FIRST, "kind": "auto"}], "nobody is asked in an automatic round"),
    ):
        faults = dict(LoopRecipe.model_validate(build_recipe(scenes, rounds=rounds)).find_faults())
        assert message in faults["rounds", len(rounds) - 1, "ask"]


def test_a_round_without_a_calibrated_discriminator_is_asked_all_the_same(by_oracle, scenes, tmp_path):
    """People said no to everything, so that nothing could be learned, and the start has only weights: the next round
    has no order, and is asked."""
    start, folder = tmp_path / "start", tmp_path / "loop"
    shutil.copytree(by_oracle.store.local / by_oracle.find_discriminator(1), start)
    (start / "calibration.json").unlink()
    discriminator = DISCRIMINATOR | {"start": str(start)}
    recipe = build_recipe(scenes, rounds=ROUNDS, reviewers="people", discriminator=discriminator)
    for number in (1, 2):
        with pytest.raises(Waiting):
            run_silently(recipe, folder)
        run = Store(folder / round_path(number))
        rows = [{**row, "reviewer": "Ann", "verdict": "no"} for row in oracle.review_run(run)]
        (run.local / "votes").mkdir()
        (run.local / "votes" / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loop = run_silently(recipe, folder)
    assert loop.read_json(f"{round_path(2)}/scores.json", None) == {}
    assert loop.read_result(VotesResult, 2).voted == loop.read_result(VotesResult, 2).candidates == 21
    assert [loop.read_result(AddResult, number).kept for number in (1, 2)] == [0, 0]
