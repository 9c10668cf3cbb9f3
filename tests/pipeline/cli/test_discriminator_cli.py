"""`rasura discriminator …`: trains, calibrates and evaluates on a run's votes by scene; what is wrong with votes or
weights is one line, and nothing is half written."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from rasura.annotator.exchange.vote_rows import BadVotes
from rasura.discriminator import model as judges
from rasura.discriminator import train as training
from rasura.discriminator.calibration import FILE, NotCalibrated, read_rule
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.network import WrongDiscriminator
from rasura.manifests.errors import RecipeError
from rasura.manifests.storage import Store
from rasura.networks.checkpoint import TrainingFailed
from rasura.pipeline.cli import discriminator as judge_cli
from rasura.pipeline.training import discriminator as loop_judge
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as loop_votes

pytestmark = pytest.mark.torch

torch.set_num_threads(1)

SCENES = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Captured rows; of each the truth with some noise, and the source as it was, by two removers."""
    run_folder = Run(tmp_path_factory.mktemp("run"))
    captured = [row(n, "captured") for n in range(SCENES)]
    candidates = []
    for number, triplet in enumerate(captured):
        rng = np.random.default_rng(number)
        noisy = np.clip(triplet["target"] + rng.integers(-4, 5, triplet["target"].shape), 0, 255).astype(np.uint8)
        good = np.where(triplet["foreground_mask"][..., None], noisy, triplet["target"])
        for remover, target in (("good", good), ("bad", triplet["source"])):
            more = {name: triplet[name] for name in ("source", "mask", "scene_id")}
            more |= {
                "id": f"{triplet['id']}.{remover}",
                "remover": remover,
                "target": target,
                "parents": [triplet["id"]],
            }
            candidates.append({**row(0, "edited"), **more})
    run_folder.flow("captured", captured, CAPTURED)
    run_folder.flow("candidates", candidates, CANDIDATES)
    return run_folder.store


@pytest.fixture(scope="module")
def votes(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("votes")
    oracle.write_votes(list(oracle.review_run(run)), Store(out))
    return out / "votes.jsonl"


def call(*arguments):
    """Runs a command; what it printed. Its errors come through as they are."""
    result = CliRunner().invoke(
        judge_cli.discriminator, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def judge(run, votes, tmp_path_factory):
    out = tmp_path_factory.mktemp("judge") / "judge"
    quick = ("steps=60", "batch=8", "rate=0.003", "evaluate_every=30", "held=0.3", "negatives=0", "warm_up=5")
    settings = [part for setting in quick for part in ("--set", setting)]
    text = call("train", run.uri, "--votes", votes, "--out", out, "--preset", "tiny", *settings)
    assert "(the ground-truth reviewer)" in text
    return out


def test_it_trains_calibrates_and_evaluates_on_scenes_of_their_own(run, votes, judge):
    """The three commands leave a judge, its thresholds, its figures and a chart; no scene is used for two of them; the
    judge ranks the held-out candidates."""
    text = call("calibrate", judge, run.uri, "--votes", votes, "--precision-target", "0.7", "--each")
    assert "precision target 0.70" in text
    assert "calibration: " in text  # progress, on standard error
    assert set(read_rule(judge).removers) == {"bad", "good"}
    text = call("evaluate", judge, run.uri, "--votes", votes)
    report = json.loads((judge / "evaluation.json").read_text())
    assert report["auc"] > 0.9
    assert report["promise"]["promise"] == 0.7
    assert set(report["removers"]) == {"bad", "good"}
    root = ET.fromstring((judge / "evaluation.svg").read_text())
    assert root.tag.endswith("svg")
    assert "Reliability" in (judge / "evaluation.svg").read_text()
    rows, whose = loop_votes.read_votes_files([votes])
    assert whose == "oracle"
    sides = loop_votes.divide_examples(loop_votes.load_examples(run, rows), loop_votes.SHARES, 0)
    scenes = [{example.scene for example in side} for side in sides.values()]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == SCENES
    assert sum(map(len, sides.values())) == 2 * SCENES
    assert report["count"] == len(sides["evaluate"])


def test_many_at_a_time_score_as_one_at_a_time(run, votes, judge):
    """The loop lets a tiny judge take many candidates at a time: the same logits as alone but for rounding, and the
    same to the last bit when it is asked again, the last batch's fillers left out."""
    examples = loop_votes.load_examples(run, list(oracle.review_run(run)))
    discriminator = loop_judge.open_discriminator(judge, None)
    assert len(examples) > discriminator.batch > 1
    together = loop_judge.compute_logits(discriminator, examples)
    alone = loop_judge.compute_logits(judges.load(judge), examples)
    assert together.shape == (len(examples),)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together.std() > 0.1
    assert (loop_judge.compute_logits(loop_judge.open_discriminator(judge, None), examples) == together).all()


def test_votes_that_cannot_be_used_are_said_and_leave_nothing(run, votes, judge, tmp_path):
    """Votes of another run, votes of one class, of people and oracle together: one line each, no folder made, the
    calibration as it was."""
    rows = [json.loads(line) for line in votes.read_text().splitlines()]

    def written(name, changed):
        (tmp_path / name).write_text("".join(json.dumps(vote) + "\n" for vote in changed))
        return tmp_path / name

    out = tmp_path / "judge"
    unknown = written("unknown.jsonl", [*rows, {**rows[0], "item": "f" * 32, "nonce": "n"}])
    with pytest.raises(loop_votes.UnknownVotes, match="1 of 121 items with votes are not in"):
        call("train", run.uri, "--votes", unknown, "--out", out, "--preset", "tiny")
    same = written("same.jsonl", [{**vote, "verdict": "no"} for vote in rows])
    with pytest.raises(SingleClassVotes, match="are no"):
        call("train", run.uri, "--votes", same, "--out", out, "--preset", "tiny")
    before = (judge / FILE).read_bytes() if (judge / FILE).exists() else None
    with pytest.raises(SingleClassVotes, match="are no"):
        call("calibrate", judge, run.uri, "--votes", same)
    assert ((judge / FILE).read_bytes() if (judge / FILE).exists() else None) == before
    ann = written("ann.jsonl", [{**vote, "reviewer": "Ann", "nonce": f"a{k}"} for k, vote in enumerate(rows)])
    with pytest.raises(loop_votes.MixedVotes, match="120 of oracle and 120 of people"):
        call("train", run.uri, "--votes", votes, "--votes", ann, "--out", out, "--preset", "tiny")
    assert not out.exists()
    assert loop_votes.read_votes_files([votes, ann], "people")[1] == "people"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "is not there: name the votes.jsonl"),
        ("folder.jsonl", "/", "is a folder: name the votes.jsonl"),
        ("votes.yaml", "a: 1", r"votes are in \.jsonl, \.parquet"),
        ("yaml.jsonl", "a: 1", ":1: not JSON, of which `rasura votes export`"),
        ("bytes.jsonl", "\udcff", ":1: not JSON"),
        ("empty.jsonl", "", "there are no votes of people in"),
        ("empty.parquet", "", "not Parquet, as `rasura votes export`"),
    ],
)
def test_a_file_that_has_no_votes_is_reported_with_the_remedy(run, tmp_path, name, content, message):
    """A votes file that is missing, a folder, of another format, or empty: one sentence, and nothing is written."""
    file, out = tmp_path / name, tmp_path / "out"
    if content == "/":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadVotes, match=message) as caught:
        call("train", run.uri, "--votes", file, "--out", out, "--preset", "tiny")
    assert str(file) in str(caught.value)
    assert not out.exists()


def test_missing_weights_and_a_missing_calibration_are_said(run, votes, judge, tmp_path):
    """The SDXL preset without its base, a base that is not there, a folder that is no judge, a judge that was not
    calibrated."""
    out = tmp_path / "judge"
    with pytest.raises(RecipeError, match="--base"):
        call("train", run.uri, "--votes", votes, "--out", out)
    with pytest.raises(ValueError, match="nowhere"):
        call("train", run.uri, "--votes", votes, "--out", out, "--base", tmp_path / "nowhere")
    with pytest.raises(WrongDiscriminator, match=r"no judge\.json"):
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
    real = training.compute_loss
    monkeypatch.setattr(training, "compute_loss", lambda *arguments: real(*arguments) * float("nan"))
    with pytest.raises(TrainingFailed, match="loss is nan at step 0"):
        call("train", run.uri, "--votes", votes, "--out", tmp_path / "judge", "--preset", "tiny")
    assert not (tmp_path / "judge").exists()


def test_a_misspelt_setting_names_those_there_are(run, votes, tmp_path):
    arguments = ["train", run.uri, "--votes", str(votes), "--out", str(tmp_path / "j"), "--preset", "tiny"]
    for wrong, message in (("stepz=3", "there is no 'stepz'; did you mean"), ("steps=many", ".*'many'")):
        with pytest.raises(RecipeError, match=rf"^--set {wrong}: {message}"):
            call(*arguments, "--set", wrong)


def test_edits_undone_votes_and_several_reviewers_become_one_share():
    """The last entry of each reviewer counts; undone, skipped and flagged ones do not; honeypots are no votes."""

    def entry(item, who, action, verdict=None, kind="candidate"):
        return {"item": item, "reviewer": who, "action": action, "verdict": verdict, "kind": kind}

    rows = [
        entry("a", "Ann", "vote", "yes"),
        entry("a", "Bo", "vote", "no"),
        entry("a", "Ann", "flag"),
        entry("b", "Ann", "vote", "yes"),
        entry("b", "Ann", "edit", "no"),
        entry("c", "Ann", "vote", "yes"),
        entry("c", "Ann", "undo"),
        entry("d", "Ann", "skip"),
        entry("e", "Ann", "vote", "yes", "honeypot"),
    ]
    assert loop_votes.tally_votes(rows) == {"a": {"yes": 1, "no": 1}, "b": {"no": 1}}
