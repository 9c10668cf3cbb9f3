"""`rasura discriminator …`: trains, calibrates and evaluates on a run's votes by scene; what is wrong with votes or
weights is one line, and nothing is half written."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.annotator_runs import CANDIDATES, CAPTURED, Run, row
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from rasura.discriminator import model as judges
from rasura.discriminator import train as training
from rasura.discriminator.calibration import FILE, NotCalibrated, read_rule
from rasura.discriminator.evaluation import OneClass
from rasura.discriminator.model import WrongJudge
from rasura.manifests.storage import Store
from rasura.pipeline.cli import discriminator as judge_cli
from rasura.pipeline.training import discriminator as loop_judge
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as loop_votes

torch.set_num_threads(1)

SCENES = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Captured rows; of each the truth with some noise, and the source as it was, by two removers."""
    made = Run(tmp_path_factory.mktemp("run"))
    captured = [row(n, "captured") for n in range(SCENES)]
    candidates = []
    for number, one in enumerate(captured):
        rng = np.random.default_rng(number)
        noisy = np.clip(one["target"] + rng.integers(-4, 5, one["target"].shape), 0, 255).astype(np.uint8)
        good = np.where(one["foreground_mask"][..., None], noisy, one["target"])
        for remover, target in (("good", good), ("bad", one["source"])):
            more = {name: one[name] for name in ("source", "mask", "scene_id")}
            more |= {"id": f"{one['id']}.{remover}", "remover": remover, "target": target, "parents": [one["id"]]}
            candidates.append({**row(0, "edited"), **more})
    made.flow("captured", captured, CAPTURED)
    made.flow("candidates", candidates, CANDIDATES)
    return made.store


@pytest.fixture(scope="module")
def votes(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("votes")
    oracle.write(list(oracle.votes_on(run)), Store(out))
    return out / "votes.jsonl"


def call(*arguments):
    """Runs a command; what it printed. Its errors come through as they are."""
    done = CliRunner().invoke(judge_cli.discriminator, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def judge(run, votes, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge") / "judge"
    quick = ("steps=60", "batch=8", "rate=0.003", "evaluate_every=30", "held=0.3", "negatives=0", "warm_up=5")
    settings = [part for one in quick for part in ("--set", one)]
    text = call("train", run.uri, "--votes", votes, "--out", out, "--preset", "tiny", *settings)
    assert "(oracle)" in text
    return out


def test_it_trains_calibrates_and_evaluates_on_scenes_of_their_own(run, votes, judge):
    """The three commands leave a judge, its thresholds, its figures and a chart; no scene is used for two of them; the
    judge ranks the held-out candidates."""
    text = call("calibrate", judge, run.uri, "--votes", votes, "--promise", "0.7", "--each")
    assert "promise 0.70" in text
    assert set(read_rule(judge).removers) == {"bad", "good"}
    text = call("evaluate", judge, run.uri, "--votes", votes)
    found = json.loads((judge / "evaluation.json").read_text())
    assert found["auc"] > 0.9
    assert found["promise"]["promise"] == 0.7
    assert set(found["removers"]) == {"bad", "good"}
    root = ET.fromstring((judge / "evaluation.svg").read_text())
    assert root.tag.endswith("svg")
    assert "Reliability" in (judge / "evaluation.svg").read_text()
    rows, whose = loop_votes.read([votes])
    assert whose == "oracle"
    sides = loop_votes.sides(loop_votes.examples_of(run, rows), loop_votes.SIDES, 0)
    scenes = [{one.scene for one in side} for side in sides.values()]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == SCENES
    assert sum(map(len, sides.values())) == 2 * SCENES
    assert found["count"] == len(sides["evaluate"])


def test_many_at_a_time_score_as_one_at_a_time(run, votes, judge):
    """The loop lets a tiny judge take many candidates at a time: the same logits as alone but for rounding, and the
    same to the last bit when it is asked again, the last batch's fillers left out."""
    given = loop_votes.examples_of(run, list(oracle.votes_on(run)))
    opened = loop_judge.opened(judge, None)
    assert len(given) > opened.batch > 1
    together = loop_judge.logits(opened, given)
    alone = loop_judge.logits(judges.load(judge), given)
    assert together.shape == (len(given),)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together.std() > 0.1
    assert (loop_judge.logits(loop_judge.opened(judge, None), given) == together).all()


def test_votes_that_cannot_be_used_are_said_and_leave_nothing(run, votes, judge, tmp_path):
    """Votes of another run, votes of one class, of people and oracle together: one line each, no folder made, the
    calibration as it was."""
    rows = [json.loads(line) for line in votes.read_text().splitlines()]

    def written(name, changed):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in changed))
        return tmp_path / name

    out = tmp_path / "judge"
    unknown = written("unknown.jsonl", [*rows, {**rows[0], "item": "f" * 32, "nonce": "n"}])
    with pytest.raises(loop_votes.UnknownVotes, match="1 of 121 items with votes are not in"):
        call("train", run.uri, "--votes", unknown, "--out", out, "--preset", "tiny")
    same = written("same.jsonl", [{**one, "verdict": "no"} for one in rows])
    with pytest.raises(OneClass, match="are no"):
        call("train", run.uri, "--votes", same, "--out", out, "--preset", "tiny")
    before = (judge / FILE).read_bytes() if (judge / FILE).exists() else None
    with pytest.raises(OneClass, match="are no"):
        call("calibrate", judge, run.uri, "--votes", same)
    assert ((judge / FILE).read_bytes() if (judge / FILE).exists() else None) == before
    ann = written("ann.jsonl", [{**one, "reviewer": "Ann", "nonce": f"a{k}"} for k, one in enumerate(rows)])
    with pytest.raises(loop_votes.MixedVotes, match="120 of oracle and 120 of people"):
        call("train", run.uri, "--votes", votes, "--votes", ann, "--out", out, "--preset", "tiny")
    assert not out.exists()
    assert loop_votes.read([votes, ann], "people")[1] == "people"


def test_missing_weights_and_a_missing_calibration_are_said(run, votes, judge, tmp_path):
    """The SDXL preset without its base, a base that is not there, a folder that is no judge, a judge that was not
    calibrated."""
    out = tmp_path / "judge"
    with pytest.raises(WrongJudge, match="--base"):
        call("train", run.uri, "--votes", votes, "--out", out)
    with pytest.raises(ValueError, match="nowhere"):
        call("train", run.uri, "--votes", votes, "--out", out, "--base", tmp_path / "nowhere")
    with pytest.raises(WrongJudge, match=r"no judge\.json"):
        call("calibrate", tmp_path, run.uri, "--votes", votes)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("judge.json", "weights.safetensors", "prompt.safetensors", "codec.safetensors"):
        (bare / name).write_bytes((judge / name).read_bytes())
    with pytest.raises(NotCalibrated):
        call("evaluate", bare, run.uri, "--votes", votes)
    assert not out.exists()


def test_a_loss_that_is_no_number_leaves_no_folder(run, votes, tmp_path, monkeypatch):
    """Training that ends in NaN before a checkpoint says so and leaves nothing."""
    real = training.loss_of
    monkeypatch.setattr(training, "loss_of", lambda *given: real(*given) * float("nan"))
    with pytest.raises(training.TrainingFailed, match="loss is nan at step 0"):
        call("train", run.uri, "--votes", votes, "--out", tmp_path / "judge", "--preset", "tiny")
    assert not (tmp_path / "judge").exists()


def test_a_misspelt_setting_names_those_there_are(run, votes, tmp_path):
    arguments = ["train", run.uri, "--votes", str(votes), "--out", str(tmp_path / "j"), "--preset", "tiny"]
    for wrong, said in (("stepz=3", "there is no 'stepz'"), ("steps=many", "steps is 'many'")):
        done = CliRunner().invoke(judge_cli.discriminator, [*arguments, "--set", wrong], env={"COLUMNS": "300"})
        assert done.exit_code == 2
        assert said in done.output


def test_edits_undone_votes_and_several_reviewers_become_one_share():
    """The last entry of each reviewer counts; undone, skipped and flagged ones do not; honeypots are no votes."""

    def entry(item, who, action, verdict=None, kind="candidate"):
        return {"item": item, "reviewer": who, "action": action, "verdict": verdict, "kind": kind}

    rows = [
        entry("a", "Ann", "vote", "yes"), entry("a", "Bo", "vote", "no"), entry("a", "Ann", "flag"),
        entry("b", "Ann", "vote", "yes"), entry("b", "Ann", "edit", "no"), entry("c", "Ann", "vote", "yes"),
        entry("c", "Ann", "undo"), entry("d", "Ann", "skip"), entry("e", "Ann", "vote", "yes", "honeypot"),
    ]  # fmt: skip
    assert loop_votes.standing(rows) == {"a": {"yes": 1, "no": 1}, "b": {"no": 1}}
