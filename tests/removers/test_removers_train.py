"""Training of removers: it learns, goes on exactly where it was, and what it writes is a remover that runs."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support import tiny_models
from support.training_triplets import list_items, make_triplet

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file

from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pca_codec import Pca
from rasura.networks.pretrained import MissingWeights, open_diffusers
from rasura.removers import tiny
from rasura.removers.base import Remover, remove
from rasura.removers.diffusion import rorem
from rasura.removers.diffusion.remover import Files
from rasura.removers.training import attention_loss, energy_loss, train
from rasura.removers.training import sdxl as train_sdxl
from rasura.removers.training.train import Item, Settings, Triplet

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


@pytest.fixture(scope="module")
def codec():
    return Pca.fit([make_triplet(seed).target for seed in range(40)])


QUICK = replace(tiny.TINY, steps=6, batch=4, warm_up=2, checkpoint_every=2, log_every=2)


def hole_error(remover, seeds):
    """Mean squared error in the hole over triplets."""
    ones = [make_triplet(seed) for seed in seeds]
    results = remove(remover, [one.source for one in ones], [one.mask for one in ones], list(seeds), dilation=2)
    return np.mean([((a.astype(float) - b.target)[b.mask] ** 2).mean() for a, b in zip(results, ones, strict=True)])


def test_the_tiny_remover_learns_and_runs_behind_the_protocol(codec, tmp_path):
    """Sixty one-step x0 updates halve the error in the hole of scenes never seen; the folder it writes is a remover
    whose fills are the same alone and in company, and that leaves every other pixel alone."""
    for name, steps in (("little", 4), ("more", 60)):
        settings = replace(QUICK, steps=steps, batch=8, rate=3e-3, checkpoint_every=100)
        train.train(tiny.create_learner(codec, seed=1), list_items(60), settings, tmp_path / name)
    errors = {}
    for name in ("little", "more"):
        remover = tiny.TinyRemover("tiny", tmp_path / name)
        assert isinstance(remover, Remover)
        assert set(remover.weights()) >= {"codec.safetensors", "remover.json"}
        remover.setup()
        errors[name] = hole_error(remover, range(500, 516))
    assert errors["more"] < 0.5 * errors["little"]
    one, other = make_triplet(900), make_triplet(901)
    alone = remove(remover, [one.source], [one.mask], [5], dilation=2)[0]
    both = remove(remover, [other.source, one.source], [other.mask, one.mask], [1, 5], dilation=2)
    assert np.array_equal(alone, both[1])
    far = cv2.dilate(one.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    assert np.array_equal(alone[far], one.source[far])


@pytest.mark.parametrize("learn", ["all", "lora"])
def test_a_training_that_was_killed_goes_on_exactly(codec, tmp_path, monkeypatch, learn):
    """Killed after its fourth step and started again it ends in the same weights to the bit, with each log line once;
    other settings or other triplets do not go on with it."""
    settings = replace(QUICK, learn=learn, rank=2)
    kept = {}

    def learner():
        tiny_learner = tiny.create_learner(codec, seed=1)
        tiny_learner.save = lambda _, out, tensors, about: kept.update(
            {out.name: {k: v.clone() for k, v in tensors.items()}}
        )
        return tiny_learner

    train.train(learner(), list_items(10), settings, tmp_path / "whole")
    real = train.draw_batch

    def dies(*given):
        if given[2] == 5:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train, "draw_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        train.train(learner(), list_items(10), settings, tmp_path / "killed")
    monkeypatch.setattr(train, "draw_batch", real)
    train.train(learner(), list_items(10), settings, tmp_path / "killed")
    assert kept["whole"].keys() == kept["killed"].keys()
    assert all(torch.equal(value, kept["killed"][name]) for name, value in kept["whole"].items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]
    if learn == "lora":
        assert all(".lora_" in name for name in kept["whole"])
    with pytest.raises(TrainingFailed, match="other settings"):
        train.train(learner(), list_items(10), replace(settings, rate=1e-5), tmp_path / "killed")
    with pytest.raises(TrainingFailed, match="other triplets"):
        train.train(learner(), list_items(11), settings, tmp_path / "killed")


def test_tensorboard_shows_the_loss(codec, tmp_path):
    """With that tracker, the events of a training hold its loss and its rate at each logged step, as its log does; a
    tracker changes nothing of what is learned: the training may go on with another."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = replace(QUICK, tracker="tensorboard")
    train.train(tiny.create_learner(codec, seed=1), list_items(4), settings, tmp_path)
    train.train(tiny.create_learner(codec, seed=1), list_items(4), QUICK, tmp_path)
    assert "tracker" not in json.loads((tmp_path / "checkpoint.json").read_text())["made_with"]["settings"]
    events = EventAccumulator(str(tmp_path / "remover")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for key in ("loss", "rate"):
        logged = [(one.step, one.value) for one in events.Scalars(key)]
        assert logged == [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines]
    assert [line["step"] for line in lines] == [2, 4, 6]


def test_a_trained_remover_is_trained_further(codec, tmp_path):
    """A folder opens again as what is trained, starts from its weights, and another start is another training."""
    train.train(tiny.create_learner(codec, seed=1), list_items(10), QUICK, tmp_path / "one")
    again = tiny.load_learner(tmp_path / "one")
    before = {name: value.clone() for name, value in again.unet.state_dict().items()}
    stored = load_file(tmp_path / "one" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in before.items())
    train.train(again, list_items(12), QUICK, tmp_path / "two")
    assert any(not torch.equal(value, before[name]) for name, value in again.unet.state_dict().items())
    with pytest.raises(TrainingFailed, match="other start"):
        train.train(tiny.create_learner(codec, seed=1), list_items(12), QUICK, tmp_path / "two")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


@pytest.mark.parametrize(("source", "learn"), [("masked", "all"), ("whole", "all"), ("masked", "lora")])
def test_sdxl_inpainting_is_trained_as_rorem_does(base, tmp_path, source, learn):
    """Noise prediction on the nine-channel UNet, whole or as a LoRA: weights move, and what is written runs as a
    remover of the family: the UNet in the base's place, or the LoRA's file folded in."""
    settings = Settings(
        steps=3, batch=2, rate=1e-3, warm_up=1, size=64, source=source, learn=learn, rank=4, checkpoint_every=3
    )
    learner = train_sdxl.open_learner(Files(base), device="cpu")
    before = {name: value.clone() for name, value in learner.unet.state_dict().items()}
    train.train(learner, list_items(6), settings, tmp_path / "out")
    options = replace(rorem.SDXL_OPTIONS, size=64, steps=2, device="cpu", source=source)
    if learn == "all":
        files = Files(base, unet=tmp_path / "out" / "unet")
        stored = open_diffusers("UNet2DConditionModel", tmp_path / "out" / "unet", torch.float32).state_dict()
        assert any(not torch.equal(value, before[name]) for name, value in stored.items())
    else:
        files = Files(base, lora=tmp_path / "out" / "lora.safetensors")
    remover = rorem.sdxl_inpaint("mine", files, options)
    remover.weights()
    remover.setup()
    plain = rorem.sdxl_inpaint("plain", Files(base), options)
    plain.setup()
    one = make_triplet(3)
    mine, theirs = (remove(x, [one.source], [one.mask], [1], dilation=2)[0] for x in (remover, plain))
    assert not np.array_equal(mine, theirs)


def test_what_the_network_sees_is_rorems(base):
    """Grey hole in the masked source, whole source otherwise; the target noised by the base's own schedule; the noise
    is what is predicted; the x0 objective starts from pure noise."""
    learner = train_sdxl.open_learner(Files(base), device="cpu")
    one = make_triplet(1)
    settings = Settings(size=64, crop="whole", flip=False)
    views = [train.crop_triplet(one, settings, np.random.default_rng(0))]
    noisy, given, times, noise, weight = train.prepare_inputs(learner, settings, views, [7])
    clean = learner.codec.encode(torch.from_numpy(one.target.transpose(2, 0, 1))[None].float() / 127.5 - 1)
    signal = learner.alphas[times]
    assert torch.allclose(noisy, signal.sqrt() * clean + (1 - signal).sqrt() * noise, atol=1e-4)
    grey = torch.from_numpy(np.where(one.mask[..., None], 127.5, one.source).transpose(2, 0, 1))[None].float()
    assert torch.allclose(given[:, 1:], learner.codec.encode(grey / 127.5 - 1), atol=1e-4)
    assert set(given[:, 0].unique().tolist()) == {0, 1}
    assert torch.equal(weight, torch.ones_like(weight))
    _, whole, *_ = train.prepare_inputs(learner, replace(settings, source="whole"), views, [7])
    encoded = learner.codec.encode(torch.from_numpy(one.source.transpose(2, 0, 1))[None].float() / 127.5 - 1)
    assert torch.allclose(whole[:, 1:], encoded, atol=1e-4)
    learner.alphas = tiny.compute_zero_snr_alphas()
    noisy, _, times, wanted, _ = train.prepare_inputs(learner, replace(settings, objective="x0"), views, [7])
    assert times.tolist() == [999]
    assert torch.equal(noisy, noise)
    assert torch.allclose(wanted, clean, atol=1e-4)


def test_the_energy_score_is_least_where_the_answers_are_distributed_as_the_truth():
    """By hand: two equal answers are as far off as they are, two that lie around the truth less by half their distance.
    Over normal truths, answers drawn likewise score .564 and the mean alone .798, so blurring does not pay; answers of
    half or twice the spread score worse than the right one too."""
    ones = torch.ones(1, 1, 2, 2)
    alike = energy_loss.compute_energy_score(3 * ones, 3 * ones, ones, ones)
    assert alike.item() == pytest.approx(2, rel=1e-3)
    around = energy_loss.compute_energy_score(0 * ones, 2 * ones, ones, ones)
    assert around.item() == pytest.approx(1 - 2 / 2 + 0, abs=1e-3)
    assert energy_loss.compute_energy_score(3 * ones, 3 * ones, ones, 0 * ones).item() == 0
    drawn = torch.Generator().manual_seed(0)
    # one number a square of 2 x 2, so that both scales see the same distances
    first, second, truth = torch.randn(3, 20000, 1, 1, 1, generator=drawn).expand(-1, -1, -1, 2, 2).unbind()
    weight = torch.ones_like(truth)
    scores = {
        spread: energy_loss.compute_energy_score(spread * first, spread * second, truth, weight).item()
        for spread in (0.0, 0.5, 1.0, 2.0)
    }
    assert scores[1.0] == pytest.approx(0.564, abs=0.01)
    assert scores[0.0] == pytest.approx(0.798, abs=0.01)
    assert min(scores, key=scores.__getitem__) == 1.0


def test_the_energy_score_teaches_a_spread_that_the_mean_square_takes_away(codec, tmp_path):
    """Holes whose truth is now dark, now bright, at random: tuned by the mean square the remover's answers to one
    picture are all alike; tuned by the energy score, from the same start, they differ by the noise they began with."""

    def unsure(seed):
        source, target, mask = make_triplet(seed)[:3]
        shade = np.uint8(40 if seed % 2 else 220)
        return Triplet(source, np.where(mask[..., None], shade, target).astype(np.uint8), mask)

    items = [Item(f"u{seed:03d}", lambda seed=seed: unsure(seed)) for seed in range(40)]
    spread = {}
    for objective in ("x0", "energy"):
        settings = replace(QUICK, steps=45, batch=4, rate=3e-3, decay=True, objective=objective, checkpoint_every=100)
        train.train(tiny.create_learner(codec, seed=1), items, settings, tmp_path / objective)
        remover = tiny.TinyRemover("tiny", tmp_path / objective)
        remover.setup()
        one = unsure(901)
        answers = remove(remover, [one.source] * 12, [one.mask] * 12, list(range(12)), dilation=2)
        spread[objective] = np.std([answer[one.mask].mean() for answer in answers])
    assert spread["energy"] > 2 * spread["x0"], spread


def test_the_mask_loss_is_objectclears_and_draws_the_attention_onto_the_object(base, tmp_path):
    """On arrays: attention that is even gives 1, attention on the object alone gives 1 - its mean there; every
    cross-attention is recorded, with gradients; trained with a heavy weight the loss falls."""
    learner = train_sdxl.open_learner(Files(base), device="cpu")
    settings = Settings(size=64, crop="whole", flip=False)
    views = [train.crop_triplet(make_triplet(seed), settings, np.random.default_rng(0)) for seed in (1, 2)]
    noisy, given, times, *_ = train.prepare_inputs(learner, settings, views, [7, 8])
    region = train.stack_foregrounds(views, "cpu", 2)

    def measured():
        with attention_loss.record_attention(learner.unet, 5, True) as recorders:
            train.predict(learner.unet, learner, 64, noisy, given, times)
            return attention_loss.compute_mask_loss(recorders, region), len(recorders)

    learner.unet.requires_grad_(True)
    before, count = measured()
    assert count == sum(name.endswith(".attn2") for name, _ in learner.unet.named_modules()) > 0
    before.backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in learner.unet.parameters())
    assert not any(module._forward_hooks for module in learner.unet.modules())

    class Even:
        outputs = {"to_q": torch.zeros(2, 64, 4)}

        def __init__(self, looked):
            self.looked = looked

        def compute_maps(self, shape, count):
            return self.looked.reshape(count, *shape)

    assert attention_loss.compute_mask_loss([Even(torch.full((2, 8, 8), 0.3))], region).item() == pytest.approx(
        1, abs=1e-6
    )
    small = torch.nn.functional.interpolate(region, (8, 8), mode="bilinear", antialias=True)[:, 0] > 0.1
    assert attention_loss.compute_mask_loss([Even(0.4 * small.float())], region).item() == pytest.approx(0.6, abs=1e-6)
    items_ = [Item(f"t{seed}", lambda seed=seed: make_triplet(seed)) for seed in (1, 2)]
    heavy = replace(settings, steps=30, batch=2, rate=3e-3, warm_up=1, mask_loss=100.0, checkpoint_every=100)
    train.train(learner, items_, heavy, tmp_path / "out")
    assert measured()[0] < before - 0.01


def test_zero_snr_schedule_is_diffusers_own():
    """The tiny remover's schedule equals diffusers' rescaled one, with nothing left at its end."""
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    ).alphas_cumprod
    ours = tiny.compute_zero_snr_alphas()
    assert ours[-1] == 0
    assert torch.allclose(ours[:-1], theirs[:-1], atol=1e-4)


def test_what_is_wrong_is_said(codec, base, tmp_path, monkeypatch):
    """No triplets, a loss that is no number, a folder that is no remover, a UNet of other channels."""
    with pytest.raises(TrainingFailed, match="no triplets"):
        train.train(tiny.create_learner(codec), [], QUICK, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(MissingWeights, match=r"no tiny remover|no model"):
        tiny.TinyRemover("tiny", tmp_path).weights()
    bad = tiny.create_learner(codec, seed=1)
    with torch.no_grad():
        bad.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="loss is nan at step 0"):
        train.train(bad, list_items(4), QUICK, tmp_path / "nan")
    assert not (tmp_path / "nan" / "remover.json").exists()
    assert not (tmp_path / "nan" / "checkpoint.json").exists()
    folder = tmp_path / "four"
    (folder / "unet").mkdir(parents=True)
    for path in (base / "unet").iterdir():
        (folder / "unet" / path.name).write_bytes(path.read_bytes())
    tiny_models.rewrite(folder / "unet" / "config.json", in_channels=4)
    with pytest.raises(MissingWeights, match="takes 4 channels"):
        train_sdxl.open_learner(Files(base, unet=folder / "unet"), device="cpu")
