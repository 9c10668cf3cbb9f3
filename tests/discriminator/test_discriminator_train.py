"""Training of the discriminator: it learns, goes on exactly where it was, and says what is wrong with what it is
given."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from support import tiny_models

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file
from support.discriminator_candidates import SMALL, make_candidate, make_picture

from rasura.discriminator import augment, calibration, dataset, ladders, model, network, train
from rasura.discriminator.augment import Case
from rasura.discriminator.crops import Crop
from rasura.discriminator.dataset import Example, StoredExample
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.scaling import Scaling
from rasura.discriminator.train import Settings
from rasura.networks import lora
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pca_codec import Pca
from rasura.networks.trainer import compute_rate_factor
from rasura.stages.score import Keep, KeepParams, Score, ScoreParams
from rasura.stages.stage import Kept, Rejected

pytestmark = pytest.mark.torch

torch.set_num_threads(1)

QUICK = Settings(steps=6, batch=4, rate=1e-3, warm_up=2, learn="all", evaluate_every=2, checkpoint_every=2, held=0.3)


@pytest.fixture(scope="module")
def codec():
    return Pca.fit([make_picture(k) for k in range(12)], network.TINY.channels)


@pytest.fixture(scope="module")
def votes():
    """Good fills (the clean picture) and objects that were left, on 24 scenes."""
    examples = []
    for k in range(24):
        clean, source, mask = make_candidate(k)
        examples.append(Example(source, clean, mask, 1.0, f"s{k}", "good"))
        examples.append(Example(source, source, mask, 0.0, f"s{k}", "bad"))
    return examples


def test_it_learns_to_tell_a_fill_from_an_object_that_stayed(codec, votes, tmp_path):
    """In 60 steps at tiny size the held-out loss falls and unseen candidates are ranked right nearly always; head and
    trunk both moved; the folder is a discriminator."""
    untrained = model.create_tiny(codec, seed=1)
    settings = replace(
        QUICK, steps=60, batch=8, rate=3e-3, evaluate_every=20, checkpoint_every=60, negatives=0, ladders=0
    )
    about = train.train(untrained, votes, settings, tmp_path / "judge")
    lines = [json.loads(line) for line in (tmp_path / "judge" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert max(line["auc"] for line in lines) > 0.9
    assert about["best_step"] in {line["step"] for line in lines}
    again = model.load(tmp_path / "judge", device="cpu")
    fresh = [make_candidate(k) for k in range(50, 58)]
    good = again.compute_scores([s for _, s, _ in fresh], [c for c, _, _ in fresh], [m for _, _, m in fresh])
    bad = again.compute_scores([s for _, s, _ in fresh], [s for _, s, _ in fresh], [m for _, _, m in fresh])
    assert (good > bad).mean() >= 0.75
    assert again.about["votes"] == about["votes"]


@pytest.mark.parametrize("learn", ["all", "lora"])
def test_a_run_that_was_killed_goes_on_exactly(codec, votes, tmp_path, monkeypatch, learn):
    """Killed after its fourth step and started again, a run ends in the same weights to the bit, and its log has each
    line once, as one that was never killed."""
    settings = replace(QUICK, learn=learn)
    train.train(model.create_tiny(codec, seed=1), votes, settings, tmp_path / "whole")

    real = train.draw_batch

    def dies(*args, **more):
        if args[3] == 5:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(train, "draw_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        train.train(model.create_tiny(codec, seed=1), votes, settings, tmp_path / "killed")
    assert not (tmp_path / "killed" / "judge.json").exists()
    monkeypatch.setattr(train, "draw_batch", real)
    train.train(model.create_tiny(codec, seed=1), votes, settings, tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert set(whole) == set(killed)
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert logs[0] == logs[1]
    with pytest.raises(TrainingFailed, match="other settings"):
        train.train(model.create_tiny(codec, seed=1), votes, replace(settings, rate=1.0), tmp_path / "killed")


def test_on_the_published_base_only_lora_and_head_are_kept_and_trained_further(votes, tmp_path):
    """Trained on a base in bfloat16, the folder holds LoRA and head alone; opened to be trained further it scores as
    before, and what it learns next adds to what it had."""
    base = tiny_models.sdxl_folder(tmp_path / "sdxl")
    generator = torch.Generator().manual_seed(1)
    prompt = {"tokens": torch.randn(1, 77, 64, generator=generator), "pooled": torch.randn(1, 32, generator=generator)}
    first = model.create_on_base(SMALL, base, prompt, device="cpu", dtype="bfloat16", batch=4)
    settings = replace(QUICK, learn="lora", steps=3, held=0.0)
    train.train(first, votes, settings, tmp_path / "one")
    kept = load_file(tmp_path / "one" / "weights.safetensors")
    assert all(".lora_" in name or name.startswith(network.HEAD) for name in kept)
    plain = model.load(tmp_path / "one", base, device="cpu", dtype="float32")
    more = model.load(tmp_path / "one", base, device="cpu", dtype="float32", train=True)
    case = [[one] for one in make_candidate(3)]
    assert np.allclose(plain.compute_scores(*case), more.compute_scores(*case), atol=1e-5)
    assert sum(value.requires_grad for value in more.network.parameters()) == len(kept)


def test_the_head_alone_can_learn(codec, votes, tmp_path):
    """With `learn: head` everything else stays as it was, and the head moves."""
    judge = model.create_tiny(codec, seed=1)
    before = {name: value.clone() for name, value in judge.network.state_dict().items()}
    train.train(judge, votes, replace(QUICK, learn="head", steps=2), tmp_path / "judge")
    after = load_file(tmp_path / "judge" / "weights.safetensors")
    for name, value in before.items():
        assert torch.equal(after[name], value) != name.startswith(network.HEAD)


def test_early_stopping_keeps_the_best(codec, votes, tmp_path, monkeypatch):
    """When evaluations get worse the run ends after its patience, and the discriminator is the best one, not
    the last."""
    losses = iter([0.7, 0.5, 0.6, 0.65, 0.9, 0.9, 0.9])
    monkeypatch.setattr(train, "measure_held_out", lambda *_: {"loss": next(losses), "auc": 0.5})
    settings = replace(QUICK, steps=100, evaluate_every=1, patience=2, checkpoint_every=1)
    about = train.train(model.create_tiny(codec, seed=1), votes, settings, tmp_path / "judge")
    assert (about["best_step"], about["step"]) == (2, 4)
    best = load_file(tmp_path / "judge" / "best.safetensors")
    weights = load_file(tmp_path / "judge" / "weights.safetensors")
    assert torch.equal(best["conv_in.weight"], weights["conv_in.weight"])


def test_what_cannot_be_learned_is_one_clear_error(codec, votes, tmp_path, monkeypatch):
    """No votes, votes of one class, shares beyond 1 and a loss that is not a number end a run with one sentence; no
    discriminator is written."""
    judge = model.create_tiny(codec)
    out = tmp_path / "judge"
    with pytest.raises(SingleClassVotes, match="no votes"):
        train.train(judge, [], QUICK, out)
    with pytest.raises(SingleClassVotes, match="are yes"):
        train.train(judge, [one for one in votes if one.vote], QUICK, out)
    with pytest.raises(ValueError, match="shares of yes"):
        train.train(judge, [replace(one, vote=3.0) for one in votes], QUICK, out)
    monkeypatch.setattr(train, "compute_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TrainingFailed, match="the loss is nan at step 0"):
        train.train(judge, votes, QUICK, out)
    assert not (out / "judge.json").exists()


def test_a_step_is_its_seed_and_number(codec, votes):
    """A step's candidates are the same every time, other steps' are others, every vote comes once an epoch, and two
    processes share a step without overlap."""
    judge = model.create_tiny(codec)

    def draw(examples, step, *process):
        batch = train.draw_batch(judge, examples, QUICK, step, *process)
        return batch.crops[: len(batch.votes)]

    one, again, other = (draw(votes, step) for step in (3, 3, 4))
    assert all(np.array_equal(a.target, b.target) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a.target, b.target) for a, b in zip(one, other, strict=True))
    halves = [draw(votes, 3, rank, 2) for rank in range(2)]
    joined = [view for pair in zip(*halves, strict=True) for view in pair]
    assert all(np.array_equal(a.target, b.target) for a, b in zip(one, joined, strict=True))
    stored = [
        StoredExample(
            lambda one=one: {"source": one.source, "target": one.target, "mask": one.mask}, one.vote, one.scene
        )
        for one in votes
    ]
    read = draw(stored, 3)  # pictures that are read when they are needed
    assert all(np.array_equal(a.target, b.target) for a, b in zip(one, read, strict=True))
    settings = replace(QUICK, negatives=0.0)
    drawn = [float(vote) for step in range(12) for vote in train.draw_batch(judge, votes, settings, step).votes]
    assert sum(drawn) == 24
    assert compute_rate_factor(QUICK, 0) == 0.5
    assert compute_rate_factor(replace(QUICK, decay=True), 5) == pytest.approx(1 / 6)


def test_a_ladder_falls_step_by_step_and_differs_in_the_hole_alone(codec, votes):
    """Each accepted candidate has two blurs and another picture below it, mirrored and recoloured as it is; rejected
    ones have none; two processes make the same ladders; the loss is small where every step falls."""
    judge = model.create_tiny(codec)
    settings = replace(QUICK, batch=24, negatives=0.0, dilate=0.0, turn=True, recolour=True, ladders=1.0)
    batch = train.draw_batch(judge, votes, settings, 0)
    tops = [k for k, vote in enumerate(batch.votes) if vote > 0.5]
    assert 0 < len(tops) < 24
    assert len(batch.crops) == 24 + 3 * len(tops)
    for place, top in enumerate(tops):
        first = 24 + 3 * place
        steps = [top, first, first + 1, first + 2]
        assert batch.pairs[4 * place : 4 * place + 4] == [*itertools.pairwise(steps), (top, first + 2)]
        good, weak, strong, swapped = (batch.crops[k] for k in steps)
        outside = ~good.mask
        errors = []
        for worse in (weak, strong, swapped):
            assert np.array_equal(worse.source, good.source)
            assert np.array_equal(worse.mask, good.mask)
            assert np.array_equal(worse.target[outside], good.target[outside])
            errors.append(np.abs(worse.target[good.mask].astype(int) - good.target[good.mask]).mean())
        assert errors[0] <= errors[1]
        assert errors[2] > 10
    halves = [train.draw_batch(judge, votes, settings, 0, rank, 2) for rank in range(2)]
    lower = {crop.target.tobytes() for half in halves for crop in half.crops[12:]}
    assert lower == {crop.target.tobytes() for crop in batch.crops[24:]}
    none = train.draw_batch(judge, votes, replace(settings, ladders=0.0), 0)
    assert not none.pairs
    pairs = ladders.list_pairs([0, 1, 2])
    falling = torch.tensor([9.0, 0.0, -9.0], requires_grad=True)
    loss = ladders.compute_order_loss(falling, pairs)
    assert 0 < loss < 0.001 < np.log(2) < ladders.compute_order_loss(-falling, pairs)
    assert ladders.compute_order_loss(falling, []) == 0


def test_ladders_teach_an_order_that_votes_do_not_show(codec, votes, tmp_path):
    """Votes on intact and untouched pictures say nothing of a blur and a foreign filling; trained with ladders, the
    network orders them far better than after the same steps without."""
    settings = replace(QUICK, steps=15, batch=4, rate=3e-3, negatives=0, held=0.0, flip=False, dilate=0.0)
    losses = []
    for share in (0.0, 1.0):
        judge = model.create_tiny(codec, replace(network.TINY, size=32), seed=1)
        train.train(judge, votes[:4], replace(settings, ladders=share), tmp_path / str(share))
        judge.network.eval()
        for example in votes[:4:2]:
            worse = ladders.make_ladder(example, make_picture(7), np.random.default_rng(0))
            crops = [judge.preprocess(example.source, one, example.mask) for one in (example.target, *worse)]
            logits = torch.from_numpy(judge.compute_logits(crops))
            losses.append(float(ladders.compute_order_loss(logits, ladders.list_pairs([0, 1, 2, 3]))))
    assert max(losses[2:]) < 0.5 * min(losses[:2])


def test_candidates_are_varied_without_changing_what_is_seen():
    """Mirrored, turned and recoloured, source, edited picture and mask stay in step: what differs, where and by how
    much is the same; a setting that is off changes nothing; over many draws every turn and order of colours comes."""
    view = Crop(*make_candidate(3))
    off = replace(QUICK, flip=False, dilate=0.0)
    assert all(
        np.array_equal(a, b) for a, b in zip(dataset.vary(view, np.random.default_rng(0), off), view, strict=True)
    )
    how = replace(off, flip=True, turn=True, recolour=True)
    views = [dataset.vary(view, np.random.default_rng(k), how) for k in range(300)]
    change = np.abs(view.source.astype(int) - view.target)
    for one in views:
        away = np.abs(one.source.astype(int) - one.target)
        assert np.array_equal(np.any(away, axis=2) & ~one.mask, np.zeros_like(one.mask))
        assert sorted(away.sum((0, 1))) == sorted(change.sum((0, 1)))
        assert one.mask.sum() == view.mask.sum()
    assert len({one.mask.tobytes() for one in views}) == 8
    assert len({one.source.tobytes() for one in views}) > 80  # of 8 places, 6 orders and 2 signs


def test_opinions_and_splits():
    """Shares of yes with half for unsure; nothing said is nothing; scenes are on one side only and stay there when
    others come."""
    assert dataset.compute_opinion(3, 1) == (0.75, 4)
    assert dataset.compute_opinion(1, 0, 1) == (0.75, 2)
    assert dataset.compute_opinion(0, 0) is None
    some = [Example(*make_candidate(0), 1.0, f"s{k // 2}") for k in range(60)]
    learn, validation = dataset.split_by_scene(some, 0.3, 0)
    assert not {one.scene for one in learn} & {one.scene for one in validation}
    assert 4 <= len(validation) <= 30
    fewer = dataset.split_by_scene(some[:30], 0.3, 0)[1]
    assert {one.scene for one in fewer} == {one.scene for one in validation} & {one.scene for one in some[:30]}


@pytest.mark.parametrize("name", list(augment.FAILURES))
def test_failures_are_failures_where_they_say(name):
    """Each failure can be seen, is the same for the same seed, lies where its name says, and has a reason that a
    reviewer has."""
    clean, source, mask = make_candidate(3, 96, 120)
    effects = np.zeros_like(mask)
    effects[48:60, 40:60] = True
    source = np.where((effects & ~mask)[..., None], source // 2, source)
    case = Case(source, clean, mask, effects, make_picture(9, 80, 100))
    failure = augment.make_failure(case, name, np.random.default_rng(1))
    assert failure is not None
    assert np.array_equal(failure, augment.make_failure(case, name, np.random.default_rng(1)))
    changed = np.any(failure != clean, axis=2)
    assert changed.any()
    beyond = (effects & ~mask) if name in ("shadow left", "object left") else np.zeros_like(mask)
    if name == "outside changed":
        assert not changed[mask].any()
    else:
        assert not (changed & ~mask & ~beyond).any()
    assert augment.FAILURES[name][1] in {"object", "hallucinated", "seam", "shadow", "outside"}


def test_a_failure_that_cannot_be_seen_is_none():
    """A ghost of an object that looks like its ground, and a shadow where none is known, are not made."""
    clean, _, mask = make_candidate(3)
    same = Case(clean, clean, mask, None, make_picture(9))
    assert augment.make_failure(same, "ghost", np.random.default_rng(0)) is None
    assert "shadow left" not in augment.list_failures(same)
    assert "shadow left" not in augment.list_failures(same._replace(effects=~mask))
    one = Example(clean, clean, mask, 1.0, "s")
    results = [dataset.spoil(one, make_picture(9), np.random.default_rng(k)) for k in range(20)]
    assert {result.vote for result in results} == {0.0, 1.0}


def test_the_stages_score_and_keep(codec, votes, tmp_path):
    """Scores are calibrated probabilities, the same in any batch; an uncalibrated discriminator is refused;
    `keep` drops what is below its remover's threshold, and leaves a remover without votes to people."""
    judge = model.create_tiny(codec, seed=2)
    model.save(judge, tmp_path / "judge", lora.compute_plain_state(judge.network), {}, is_complete=True)
    with pytest.raises(calibration.NotCalibrated, match="calibrate it"):
        Score(ScoreParams(discriminator=str(tmp_path / "judge")))
    low, high = (
        calibration.Threshold(0.4, 90, 95, 0.9),
        calibration.Threshold(None, count=500, why="no threshold holds"),
    )
    rule = calibration.Rule(Scaling(2.0, 0.1), 0.9, 0.95, low, {"good": low, "bad": high})
    calibration.write_rule(rule, tmp_path / "judge")
    score = Score(ScoreParams(discriminator=str(tmp_path / "judge"), device="cpu"))
    assert "calibration.json" in score.weights()
    score.setup()
    rows = [
        {"id": str(k), "source": one.source, "target": one.target, "mask": one.mask, "remover": one.remover}
        for k, one in enumerate(votes[:5])
    ]
    scored = [outcome.records[0] for outcome in score.process(rows)]
    alone = [score.process([row])[0].records[0] for row in rows]
    assert [one["score"] for one in scored] == [one["score"] for one in alone]
    assert all(0 < one["score"] < 1 for one in scored)
    keep = Keep(KeepParams(discriminator=str(tmp_path / "judge")))
    assert isinstance(keep.process_one({"score": 0.9, "remover": "good"}), Kept)
    assert keep.process_one({"score": 0.3, "remover": "good"}).reason == "score too low"
    assert keep.process_one({"score": 0.99, "remover": "bad"}).reason == "score too low"
    left = keep.process_one({"score": 0.99, "remover": "new"})
    assert isinstance(left, Rejected)
    assert left.reason == "left to people"
