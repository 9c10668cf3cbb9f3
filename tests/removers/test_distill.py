"""Distillation into four steps: its arithmetic is that of the schedulers which run the result, a killed one goes on
exactly, and what it writes is a LoRA that `rorem-lcm` runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import tiny_models
from support.training_triplets import list_items, make_triplet

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from diffusers import DDIMScheduler, LCMScheduler
from safetensors.torch import load_file, save_file

from rasura.networks import lora
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pretrained import MissingWeights
from rasura.removers.base import remove
from rasura.removers.diffusion import conditioning, rorem
from rasura.removers.diffusion.remover import Files
from rasura.removers.training import distill, train
from rasura.removers.training import sdxl as train_sdxl
from rasura.removers.training.distill import Distillation

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

QUICK = Distillation(
    steps=6, batch=2, rate=1e-3, warm_up=1, size=64, rank=4, log_every=1, checkpoint_every=2, crop="whole", seed=9
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


@pytest.fixture(scope="module")
def said(base, tmp_path_factory):
    """The embeddings of all prompts, from the encoders, as files that take their place."""
    folder = tmp_path_factory.mktemp("prompts")
    learner = train_sdxl.open_learner(Files(base), device="cpu")
    guides = train_sdxl.encode_guidance(Files(base), "a b c", "x y z", None, learner)
    conditioning.save(guides, folder / "teacher.safetensors")
    empty = conditioning.encode(base, "", None, "cpu", torch.float32)
    conditioning.save(empty, folder / "empty.safetensors")
    return folder


@pytest.fixture
def teacher(base, said):
    """A fresh teacher, and what guides it."""
    files = Files(base, prompts=said / "empty.safetensors")
    learner = train_sdxl.open_learner(files, device="cpu")
    return learner, train_sdxl.encode_guidance(files, "", "", said / "teacher.safetensors", learner)


def test_the_boundary_is_the_picture_itself_and_lcms_elsewhere():
    """At timestep 0 the consistency function returns what it was given, to the bit, whatever the network says; at every
    timestep of the solver its two factors are those by which diffusers' LCMScheduler runs the student."""
    noisy, eps = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    zero, signal = torch.zeros(3, dtype=torch.long), torch.full((3,), 0.99915)
    assert [float(one[0]) for one in distill.compute_boundary(zero, 10.0)] == [1, 0]
    assert torch.equal(distill.apply_consistency(noisy, 1e6 * eps, zero, signal, 10.0), noisy)
    scheduler = LCMScheduler(**BETAS)
    times = distill.list_solver_times(1000, 50)
    for time in times:
        skip, out = distill.compute_boundary(time[None], QUICK.scaling)
        theirs = scheduler.get_scalings_for_boundary_condition_discrete(time)
        assert torch.allclose(torch.stack([skip[0, 0, 0, 0], out[0, 0, 0, 0]]), torch.stack(theirs), atol=1e-7)
    scheduler.set_timesteps(4)
    assert set(scheduler.timesteps.tolist()) <= set(times.tolist())


def test_a_step_of_the_solver_is_diffusers_ddim():
    """From each of the fifty timesteps to the one before, the last of them to the first signal share: equal to
    diffusers' DDIMScheduler without noise, on the same latents and prediction, to 1e-5."""
    theirs = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing")
    theirs.set_timesteps(50)
    times = distill.list_solver_times(1000, 50)
    assert theirs.timesteps.tolist() == times.tolist()[::-1]
    alphas, makes = theirs.alphas_cumprod, torch.Generator().manual_seed(1)
    for time in times:
        noisy, eps = torch.randn(2, 2, 4, 8, 8, generator=makes).unbind()
        early = (time - 20).clamp(min=0)
        ours = distill.take_ddim_step(noisy, eps, alphas[time].expand(2), alphas[early].expand(2))
        assert torch.allclose(ours, theirs.step(eps, time, noisy).prev_sample, atol=1e-5, rtol=1e-5)


def test_a_steps_loss_is_the_papers_by_hand(base, teacher, tmp_path, monkeypatch):
    """One step's loss from a LoRA that does something, made again from diffusers' schedulers and single calls: two of
    the plain network with the teacher's two prompts, put together as (1 + w) eps+ - w eps-, w between 3 and 10, one
    DDIM step, and the network with the LoRA folded in, which has the empty prompt, before and after it."""
    begun = {}

    def with_some(unet, *more):
        lora.add_lora(unet, *more)
        makes = torch.Generator().manual_seed(2)
        for name, value in unet.named_parameters():
            if ".lora_" in name:
                value.data.copy_(0.1 * torch.randn(value.shape, generator=makes))
                begun[train.get_disk_name(name)] = value.detach().clone()

    monkeypatch.setattr(distill, "add_lora", with_some)
    made, guides = teacher
    distill.distill(made, guides, list_items(3), replace(QUICK, steps=1), tmp_path / "out")
    logged = json.loads((tmp_path / "out" / "log.jsonl").read_text())["loss"]

    plain, student = (train_sdxl.open_learner(Files(base), device="cpu") for _ in range(2))
    lora.fuse(student.unet, begun)
    views, places = train.draw_batch(list_items(3), QUICK, 0)
    clean, hole, known = train.encode_batch(plain, QUICK, views)
    lcm, ddim = LCMScheduler(**BETAS), DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(50)
    losses = []
    for k, place in enumerate(places):
        draws = torch.Generator().manual_seed(QUICK.seed * 2**32 + place)
        noise = torch.randn(clean.shape[1:], generator=draws)
        late = 20 * (torch.randint(50, (), generator=draws) + 1) - 1
        strength = 3 + 7 * torch.rand((), generator=draws)
        assert 3 <= strength <= 10
        noisy = lcm.add_noise(clean[k : k + 1], noise[None], late[None])

        def says(network, latents, tokens, pooled, time, k=k):
            inputs = torch.cat([latents, hole[k : k + 1], known[k : k + 1]], dim=1)
            more = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
            with torch.no_grad():
                return network.unet(inputs, time, encoder_hidden_states=tokens, added_cond_kwargs=more).sample

        def consistent(latents, time, says=says):
            eps = says(student, latents, plain.tokens, plain.pooled, time)
            skip, out = lcm.get_scalings_for_boundary_condition_discrete(time)
            share = lcm.alphas_cumprod[time]
            return skip * latents + out * (latents - (1 - share).sqrt() * eps) / share.sqrt()

        plus = says(plain, noisy, guides.tokens, guides.pooled, late)
        minus = says(plain, noisy, guides.negative_tokens, guides.negative_pooled, late)
        eps = (1 + strength) * plus - strength * minus
        earlier = ddim.step(eps, late, noisy).prev_sample
        losses.append((consistent(noisy, late) - consistent(earlier, (late - 20).clamp(min=0))) ** 2)
    assert logged == pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)


def test_teacher_and_student_are_one_network(teacher):
    """Without its LoRA the network says what it said before there was one, to the bit; with it something else, and only
    the LoRA wants gradients; afterwards too."""
    made, _ = teacher
    views, places = train.draw_batch(list_items(3), QUICK, 0)
    noisy, given, times, *_ = train.prepare_inputs(made, QUICK, views, places)

    def says():
        with torch.no_grad():
            return train.predict(made.unet, made, 64, noisy, given, times)

    before = says()
    lora.add_lora(made.unet, 4, 0, lora.RECIPE_TARGETS)
    for name, value in made.unet.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(value, std=0.1)
    assert not torch.allclose(says(), before, atol=1e-3)
    with lora.disable_lora(made.unet):
        assert torch.equal(says(), before)
    assert not torch.allclose(says(), before, atol=1e-3)
    assert all((".lora_" in name) == value.requires_grad for name, value in made.unet.named_parameters())


@pytest.mark.parametrize("loss", ["l2", "huber"])
def test_it_goes_on_exactly_leaves_the_teacher_alone_and_runs_in_four_steps(
    base, teacher, said, tmp_path, monkeypatch, loss
):
    """Killed after its fourth step and started again it ends in the same LoRA to the bit; the UNet under it is as it
    was; the file has the layers of RORem's, and `rorem-lcm` runs it in four steps to another picture than without."""
    settings = replace(QUICK, loss=loss)
    files = Files(base, prompts=said / "empty.safetensors")

    def begun():
        learner = train_sdxl.open_learner(files, device="cpu")
        return learner, train_sdxl.encode_guidance(files, "", "", said / "teacher.safetensors", learner)

    made, guides = teacher
    before = {name: value.clone() for name, value in made.unet.state_dict().items()}
    distill.distill(made, guides, list_items(5), settings, tmp_path / "whole")
    after = {name.replace(".base_layer.", "."): value for name, value in made.unet.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())

    real = distill.draw_batch

    def dies(*given):
        if given[2] == 5:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(distill, "draw_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        distill.distill(*begun(), list_items(5), settings, tmp_path / "killed")
    assert not (tmp_path / "killed" / "lora.safetensors").exists()
    monkeypatch.setattr(distill, "draw_batch", real)
    distill.distill(*begun(), list_items(5), settings, tmp_path / "killed")
    ours, theirs = (load_file(tmp_path / name / "lora.safetensors") for name in ("whole", "killed"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    losses = [[(json.loads(line)["step"], json.loads(line)["loss"]) for line in lines] for lines in logs]
    assert losses[0] == losses[1]
    assert {name: tuple(value.shape) for name, value in ours.items()} == lora.list_shapes(
        tiny_models.unet(), lora.RECIPE_TARGETS, 4
    )
    with pytest.raises(TrainingFailed, match="other settings"):
        distill.distill(*begun(), list_items(5), replace(settings, weakest=2.0), tmp_path / "killed")

    options = replace(rorem.LCM_OPTIONS, size=64, device="cpu")
    run = rorem.rorem_lcm(
        "lcm", replace(files, unet=base / "unet", lora=tmp_path / "whole" / "lora.safetensors"), options
    )
    run.weights()
    run.setup()
    plain = rorem.rorem("plain", replace(files, unet=base / "unet"), replace(options, scheduler="LCMScheduler"))
    plain.setup()
    one = make_triplet(3)
    mine, theirs = (remove(x, [one.source], [one.mask], [1], dilation=2)[0] for x in (run, plain))
    assert not np.array_equal(mine, theirs)
    assert np.array_equal(mine[~one.mask][:50], one.source[~one.mask][:50])


def test_on_one_batch_the_loss_falls(teacher, tmp_path, monkeypatch):
    """Given the same triplets with the same noise, timesteps and guidance again and again, the loss stays a number and
    ends below half of where it began."""
    real, makers = distill.draw_batch, distill.create_generators
    monkeypatch.setattr(distill, "draw_batch", lambda given, settings, step, *more: real(given, settings, 0, *more))
    monkeypatch.setattr(distill, "create_generators", lambda settings, places: makers(settings, [0, 3]))
    made, guides = teacher
    distill.distill(made, guides, list_items(2), replace(QUICK, steps=40, rate=2e-3), tmp_path / "out")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


def test_a_teacher_with_a_lora_is_folded_first(base, teacher, tmp_path):
    """A remover that was trained as a LoRA is distilled as base and LoRA in one UNet, written once and whole; unfolded
    it is refused; a LoRA of another base is refused and leaves nothing."""
    first = train_sdxl.open_learner(Files(base), device="cpu")
    settings = train.Settings(steps=2, batch=2, rate=1e-2, warm_up=1, size=64, learn="lora", rank=4, crop="whole")
    train.train(first, list_items(4), settings, tmp_path / "first")
    files = Files(base, lora=tmp_path / "first" / "lora.safetensors")
    whole = train_sdxl.fuse_lora(files, tmp_path / "out" / "unet")
    assert whole == Files(base, unet=tmp_path / "out" / "unet")
    assert train_sdxl.fuse_lora(files, tmp_path / "out" / "unet") == whole
    learner = train_sdxl.open_learner(whole, device="cpu")
    views, places = train.draw_batch(list_items(4), QUICK, 0)
    noisy, given, times, *_ = train.prepare_inputs(first, settings, views, places)
    with torch.no_grad():
        mine, theirs = (train.predict(one.unet, one, 64, noisy, given, times) for one in (first, learner))
    assert torch.allclose(mine, theirs, atol=1e-4)
    assert not torch.allclose(train.predict(teacher[0].unet, first, 64, noisy, given, times), theirs, atol=1e-3)
    with pytest.raises(TrainingFailed, match="fold it in first"):
        distill.distill(train_sdxl.open_learner(files, device="cpu"), teacher[1], list_items(4), QUICK, tmp_path / "no")
    tensors = load_file(tmp_path / "first" / "lora.safetensors")
    other = {name.replace("down_blocks", "sideways"): value for name, value in tensors.items()}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(lora.WrongLora, match="for another base"):
        train_sdxl.fuse_lora(Files(base, lora=tmp_path / "other.safetensors"), tmp_path / "bad" / "unet")
    assert not (tmp_path / "bad").exists()


def test_a_lora_is_trained_further_as_that_lora(base, tmp_path):
    """A second training with `learn: lora` begins where the first one's LoRA ended: with a rate of nothing its file has
    the same tensors; another rank or another base's file is refused before anything is written."""
    settings = train.Settings(
        steps=2, batch=2, rate=1e-2, warm_up=1, size=64, learn="lora", rank=4, crop="whole", weight_decay=0.0
    )
    train.train(train_sdxl.open_learner(Files(base), device="cpu"), list_items(4), settings, tmp_path / "one")
    files = Files(base, lora=tmp_path / "one" / "lora.safetensors")
    train.train(
        train_sdxl.open_learner(files, device="cpu"), list_items(4), replace(settings, rate=1e-12), tmp_path / "two"
    )
    first, second = (load_file(tmp_path / name / "lora.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert all(torch.allclose(value, second[name], atol=1e-7) for name, value in first.items())
    with pytest.raises(lora.WrongLora, match="same `rank`"):
        train.train(
            train_sdxl.open_learner(files, device="cpu"), list_items(4), replace(settings, rank=2), tmp_path / "three"
        )
    learner = train_sdxl.open_learner(files, device="cpu")
    learner.lora = {name.replace("down_blocks", "sideways"): value for name, value in first.items()}
    with pytest.raises(lora.WrongLora, match="another base"):
        train.train(learner, list_items(4), settings, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_what_is_wrong_is_said(base, teacher, said, tmp_path):
    """No triplets, a setting that a distillation has not, one prompt for two, a base without a scheduler or with
    another prediction, a loss that is no number: one clear error each, and no LoRA."""
    made, guides = teacher
    with pytest.raises(TrainingFailed, match="no triplets"):
        distill.distill(made, guides, [], QUICK, tmp_path / "none")
    for wrong in ({"objective": "x0"}, {"learn": "all"}, {"mask_loss": 0.01}, {"inside": 2.0}):
        with pytest.raises(TrainingFailed, match=next(iter(wrong))):
            distill.distill(made, guides, list_items(2), replace(QUICK, **wrong), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(MissingWeights, match="holds one prompt"):
        train_sdxl.encode_guidance(Files(base), "", "", said / "empty.safetensors", made)
    with pytest.raises(MissingWeights, match="no file of prompt embeddings"):
        train_sdxl.encode_guidance(Files(base), "", "", said / "gone.safetensors", made)
    with pytest.raises(MissingWeights, match="no model in"):
        train_sdxl.open_learner(Files(tmp_path / "gone"), device="cpu")
    bare = tmp_path / "bare"
    bare.mkdir()
    for part in ("unet", "vae"):
        (bare / part).symlink_to(base / part)
    files = Files(bare, prompts=said / "empty.safetensors")
    with pytest.raises(MissingWeights, match="no scheduler in"):
        train_sdxl.open_learner(files, device="cpu")
    (bare / "scheduler").mkdir()
    config = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    (bare / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"prediction_type": "v_prediction"}))
    with pytest.raises(MissingWeights, match="predicts 'v_prediction'"):
        train_sdxl.open_learner(files, device="cpu")
    with torch.no_grad():
        made.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="loss is nan at step 0"):
        distill.distill(made, guides, list_items(2), QUICK, tmp_path / "nan")
    assert not (tmp_path / "nan" / "lora.safetensors").exists()
    assert not (tmp_path / "nan" / "training.json").exists()
