"""Training of ObjectClear: its loss is the released one, its attention goes to object and effects, its folder runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny_models
from support.training_triplets import list_shadow_items, make_shadow_triplet

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

import torch.nn.functional as F
from safetensors.torch import load_file

from rasura.manifests.errors import RecipeError
from rasura.networks.pretrained import MissingWeights
from rasura.networks.weights import BadWeights
from rasura.pipeline.training import remover as trainings
from rasura.pipeline.training.settings import RemoverSettings, build_training_settings
from rasura.removers.base import Filled, remove
from rasura.removers.diffusion import objectclear
from rasura.removers.diffusion.remover import Files
from rasura.removers.registry import ModelParams, open_remover
from rasura.removers.training import attention_loss, train
from rasura.removers.training import objectclear as training

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SMALL = replace(
    training.PUBLISHED, steps=2, batch=2, rate=1e-3, warm_up=1, size=64, log_every=1, checkpoint_every=2, seed=11
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """SDXL-inpainting at tiny size: no fusion module, no image encoder."""
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A whole CLIP at tiny size."""
    return tiny_models.clip_folder(tmp_path_factory.mktemp("clip") / "clip")


def open_learner(base, clip, seed=1):
    return training.open_learner(Files(base), clip, seed, device="cpu")


def run(folder, **changes):
    """A trained folder as a remover of a recipe, set up."""
    model = ModelParams(base=str(folder), size=64, steps=4, device="cpu", **changes)
    remover = open_remover("objectclear", {"objectclear": model})
    remover.weights()
    remover.setup()
    return remover


class ReleasedNetwork:
    """What the release's training script computes, written a second time with diffusers' own parts."""

    def __init__(self, base: Path, clip: Path, learner: train.Learner) -> None:
        from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLInpaintPipeline
        from transformers import CLIPModel

        self.learner, self.unet = learner, learner.unet
        self.vae = AutoencoderKL.from_pretrained(base / "vae")
        self.scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
        self.clip = CLIPModel.from_pretrained(clip)
        pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(base, unet=None, vae=None, add_watermarker=False)
        with torch.no_grad():
            prompt = pipeline.encode_prompt("remove the instance of object", do_classifier_free_guidance=False)
        self.tokens, self.pooled = prompt[0], prompt[2]
        self.scores: dict[str, torch.Tensor] = {}

    def encode(self, pictures):
        pixels = torch.stack([torch.from_numpy(one).permute(2, 0, 1) for one in pictures]).float() / 127.5 - 1
        return self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor

    def fuse(self, crops):
        """The prompt with the object's token at position 5: black around the object, in [0, 1]."""
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (objectclear.CLIP_MEAN, objectclear.CLIP_STD))
        objects = np.stack([np.where(crop.mask[..., None], crop.source, 0) for crop in crops])
        pixels = torch.from_numpy(objects).permute(0, 3, 1, 2).float() / 255
        pixels = F.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
        hidden = self.clip.vision_model((pixels - mean) / std).pooler_output
        embedding = self.clip.visual_projection(hidden)
        module = self.learner.network.fusion
        for mlp in (module.mlp1, module.mlp2):
            residual = embedding
            inner = F.layer_norm(embedding, embedding.shape[-1:], mlp.layernorm.weight, mlp.layernorm.bias)
            inner = F.gelu(inner @ mlp.fc1.weight.T + mlp.fc1.bias)
            embedding = inner @ mlp.fc2.weight.T + mlp.fc2.bias
            embedding = embedding + residual if mlp is module.mlp2 else embedding
        norm = module.layer_norm
        token = F.layer_norm(embedding, embedding.shape[-1:], norm.weight, norm.bias)
        return torch.cat([self.tokens[:, :5].expand(len(token), -1, -1), token[:, None],
                          self.tokens[:, 6:].expand(len(token), -1, -1)], 1)  # fmt: skip

    def store_attention(self):
        """Plain attention in every cross-attention, whose probabilities are stored."""
        from diffusers.models.attention_processor import AttnProcessor

        for name, module in self.unet.named_modules():
            if name.endswith(".attn2"):
                module.set_processor(AttnProcessor())
                score = module.get_attention_scores
                module.get_attention_scores = lambda *values, name=name, score=score: self.scores.setdefault(
                    name, score(*values)
                )

    def compute_losses(self, crops, noise, times):
        """Mean squared error of the noise, and the balanced loss per head and layer with the release's epsilons."""
        hole = torch.from_numpy(np.stack([crop.mask for crop in crops])[:, None]).float()
        clean, source = self.encode([crop.target for crop in crops]), self.encode([crop.source for crop in crops])
        noisy = self.scheduler.add_noise(clean, noise, times)
        inputs = torch.cat([noisy, F.interpolate(hole, clean.shape[2:]), source], 1)
        ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(crops), -1)
        extra = {"text_embeds": self.pooled.expand(len(crops), -1), "time_ids": ids}
        self.store_attention()
        predicted = self.unet(inputs, times, self.fuse(crops), added_cond_kwargs=extra).sample
        layers = []
        for probabilities in self.scores.values():
            heads, cells = len(probabilities) // len(crops), probabilities.shape[1]
            side = round(cells**0.5)
            attention = probabilities.view(len(crops), heads, cells, -1)[..., 5]
            effects = torch.from_numpy(np.stack([crop.foreground for crop in crops])[:, None]).float()
            effects = F.interpolate(effects, (side, side), mode="bilinear", antialias=True)
            inside = (effects.view(len(crops), 1, cells) > 0.1).float()
            mean_outside = (attention * (1 - inside)).sum(2) / ((1 - inside).sum(2) + 1e-5)
            mean_inside = (attention * inside).sum(2) / (inside.sum(2) + 1e-5)
            layers.append((mean_outside - mean_inside + 1).mean())
        return F.mse_loss(predicted, noise), sum(layers) / len(layers)


def test_the_loss_is_the_released_one(base, clip, tmp_path):
    """The first step's loss in the log equals error + 0.01 x balanced loss of the release's script, computed a second
    time from the same triplets, noise and timesteps: 1e-5. The second part is not the first's rounding."""
    learner = open_learner(base, clip)
    items = train.sort_items(list_shadow_items(5))
    crops, positions = train.draw_batch(items, SMALL, 0)
    generators = train.create_generators(SMALL, positions)
    noise = train.draw_noise(generators, torch.zeros(2, 4, 8, 8))
    times = torch.stack([torch.randint(0, 1000, (), generator=generator) for generator in generators])
    with torch.no_grad():
        error, balanced = ReleasedNetwork(base, clip, open_learner(base, clip)).compute_losses(crops, noise, times)
    losses = {}
    for weight in (0.01, 1.0):
        learner = open_learner(base, clip)
        out = tmp_path / str(weight)
        train.train(learner, items, replace(SMALL, steps=1, mask_loss=weight), out)
        losses[weight] = json.loads((out / "log.jsonl").read_text().splitlines()[0])["loss"]
        assert losses[weight] == pytest.approx((error + weight * balanced).item(), abs=1e-5)
    assert losses[1.0] - losses[0.01] > 0.9


def measure_attention(learner, settings, triplets):
    """The mean attention to the object's token on M_fg, on the effects alone, and elsewhere, over layers, pictures."""
    plain = replace(settings, crop="whole", flip=False, vary_mask=False, vary_colours=False)
    crops = [train.crop_triplet(triplet, plain, np.random.default_rng(0)) for triplet in triplets]
    noisy, condition, times, *_ = train.prepare_inputs(learner, plain, crops, list(range(len(crops))))
    values = []
    with torch.no_grad(), attention_loss.record_attention(learner.unet, 5, True) as recorders:
        train.predict(learner.network, learner, 64, noisy, condition, times, learner.embed(crops))
    for recorder in recorders:
        side = round(recorder.outputs["to_q"].shape[1] ** 0.5)
        maps = recorder.compute_maps((side, side), len(crops)).numpy()
        for crop, attention in zip(crops, maps, strict=True):
            cell = 64 // side
            shares = [
                part.reshape(side, cell, side, cell).mean((1, 3)) > 0.5
                for part in (crop.foreground, crop.foreground & ~crop.mask, ~crop.foreground)
            ]
            values.append([attention[part].mean() if part.any() else np.nan for part in shares])
    return np.nanmean(values, axis=0)


def test_attention_goes_to_the_object_and_its_effects_and_the_folder_runs(base, clip, tmp_path):
    """Eighty steps of the published loss with weight 0.01, on triplets with a shadow: on scenes never seen the
    attention to the object's token is 1/77 everywhere before, and after it is on M_fg, the shadow included. The folder
    runs as the remover `objectclear` by its name: what it changes lies on M_fg. Its licence is not the published one,
    and its record is one of the files that are hashed."""
    settings = replace(SMALL, steps=80, batch=4, rate=3e-3, warm_up=20, log_every=40, checkpoint_every=80)
    held = [make_shadow_triplet(seed) for seed in range(900, 908)]
    learner = open_learner(base, clip)
    before = measure_attention(learner, settings, held)
    assert before == pytest.approx(1 / 77, abs=0.008)
    train.train(learner, list_shadow_items(40), settings, tmp_path / "out")
    inside, effects, outside = measure_attention(learner, settings, held)
    assert inside > 0.6
    assert effects > 0.6
    assert outside < inside / 2

    remover = run(tmp_path / "out")
    assert {"training.json", "postfuse_module/model.safetensors"} <= set(remover.weights())
    assert remover.record["object_background"] == "black"
    assert (remover.capability.licence, remover.capability.non_commercial) == (training.LICENCE, False)
    fills = remover.fill([one.source for one in held], [one.mask for one in held], list(range(len(held))))
    assert all(isinstance(one, Filled) for one in fills)
    on_effects = np.mean([fill.weight[one.foreground].mean() for fill, one in zip(fills, held, strict=True)])
    elsewhere = np.mean([fill.weight[~one.foreground].mean() for fill, one in zip(fills, held, strict=True)])
    assert on_effects > 0.8
    assert elsewhere < 0.8 * on_effects
    result = remove(remover, [held[0].source], [held[0].mask], [1], dilation=1)[0]
    assert (result[held[0].mask] != held[0].source[held[0].mask]).any()
    stored = load_file(tmp_path / "out" / "postfuse_module" / "model.safetensors")
    fresh = open_learner(base, clip).network.fusion.state_dict()
    assert all(not torch.equal(stored[name], value) for name, value in fresh.items())


def test_a_folder_is_trained_further_and_a_lora_of_it_runs(base, clip, tmp_path):
    """The folder is the base of its next training: UNet, fusion module, licence and image encoder are those it has. A
    LoRA is written without a UNet; it runs with the base's, and goes on from there."""
    config = RemoverSettings(preset="objectclear", base=base, image_encoder=clip)
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    train.train(open_learner(base, clip), list_shadow_items(4), SMALL, one)
    again = trainings.load_learner(config, SMALL, Path(), one)
    assert again.about["fusion"] == str(one / "postfuse_module")
    assert again.about["licence"] == training.LICENCE
    stored = load_file(one / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in again.unet.state_dict().items())
    lora = replace(SMALL, learn="lora", rank=2)
    train.train(again, list_shadow_items(4), lora, two)
    assert not (two / "unet").exists()
    tensors = load_file(two / "lora.safetensors")
    assert all(name.startswith("unet.") and ".lora_" in name for name in tensors)
    remover = run(two, unet=str(one / "unet"), lora=str(two / "lora.safetensors"))
    first = load_file(one / "postfuse_module" / "model.safetensors")
    assert any(not torch.equal(value, first[name]) for name, value in remover.fusion.state_dict().items())
    files = trainings.find_files(replace_base(config, one), two)
    assert files == Files(two, unet=one / "unet", lora=two / "lora.safetensors")
    train.train(trainings.load_learner(replace_base(config, one), lora, Path(), two), list_shadow_items(4), lora, three)
    assert (three / "lora.safetensors").is_file()


def replace_base(config, base):
    return config.model_copy(update={"base": base, "image_encoder": None})


def test_the_published_licence_is_kept(tmp_path):
    """What is trained from a folder without a record, as the published one, stays non-commercial, and so does what is
    trained from that."""
    published = tiny_models.objectclear_folder(tmp_path / "published")
    for name, start in (("one", published), ("two", tmp_path / "one")):
        train.train(open_learner(start, None), list_shadow_items(2), replace(SMALL, steps=1), tmp_path / name)
        remover = objectclear.objectclear(name, Files(tmp_path / name))
        assert remover.capability.licence == objectclear.CAPABILITY.licence
        assert remover.capability.non_commercial
    assert objectclear.read_record(published) == {}


def test_a_killed_training_goes_on_exactly_and_checkpointing_changes_nothing(base, clip, tmp_path, monkeypatch):
    """Killed in its fourth step and started again it ends in the same UNet and fusion module, to the bit; without
    checkpointed gradients it ends in the same ones but for rounding."""
    settings = replace(SMALL, steps=4, mask_loss=1.0)
    for name, changes in (("whole", {}), ("kept", {"save_memory": False})):
        train.train(open_learner(base, clip), list_shadow_items(6), replace(settings, **changes), tmp_path / name)
    draw = train.draw_batch

    def die(*arguments):
        if arguments[2] == 3:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(train, "draw_batch", die)
    with pytest.raises(KeyboardInterrupt):
        train.train(open_learner(base, clip), list_shadow_items(6), settings, tmp_path / "killed")
    monkeypatch.setattr(train, "draw_batch", draw)
    train.train(open_learner(base, clip), list_shadow_items(6), settings, tmp_path / "killed")
    for file in ("unet/diffusion_pytorch_model.safetensors", "postfuse_module/model.safetensors"):
        whole, killed, kept = (load_file(tmp_path / name / file) for name in ("whole", "killed", "kept"))
        assert all(torch.equal(value, killed[name]) for name, value in whole.items())
        assert all(torch.allclose(value, kept[name], atol=1e-5) for name, value in whole.items())


def test_a_whole_clip_gives_the_image_encoders_embeddings(clip):
    """CLIP's folder is opened as its image encoder alone; embeddings equal the whole one's."""
    from transformers import CLIPModel

    vision = objectclear.open_image_encoder(clip)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        expected = whole.visual_projection(whole.vision_model(pixels).pooler_output)
        assert torch.allclose(vision(pixels).image_embeds, expected, atol=1e-6)


def test_the_preset_is_the_released_training(base):
    """Steps, batch, rate, decay, weight decay, clip, size, weight and token are those of the release; a recipe may
    change them, but not what the remover is run with."""
    config = RemoverSettings(preset="objectclear", base=base)
    settings = build_training_settings(config, 7, tune=False)
    expected = {"steps": 100_000, "batch": 32, "rate": 1e-5, "decay": "cosine", "warm_up": 500, "weight_decay": 1e-4}
    expected |= {"clip": 1.0, "size": 512, "mask_loss": 0.01, "token": 5, "source": "whole", "objective": "epsilon"}
    assert {name: getattr(settings, name) for name in expected} == expected
    assert (settings.seed, settings.learn, settings.crop) == (7, "all", "square")
    for name, value in (("source", "masked"), ("token", 3), ("objective", "x0")):
        for part in ("settings", "tune"):
            wrong = RemoverSettings(preset="objectclear", base=base, **{part: {name: value}})
            with pytest.raises(RecipeError, match=f"{name}.*trained as it is run"):
                build_training_settings(wrong, 0, tune=part == "tune")
    with pytest.raises(ValueError, match="name its folder under `base`"):
        RemoverSettings(preset="objectclear")
    with pytest.raises(ValueError, match="the preset sdxl has none"):
        RemoverSettings(preset="sdxl", base=base, image_encoder=base)


def test_settings_that_came_later_are_not_in_the_identity_of_older_trainings(base, tmp_path):
    """At their defaults the new settings are left out, so that a training stored before they were there goes on."""
    from rasura.removers.training import sdxl

    settings = train.Settings(steps=1, batch=1, size=64, log_every=1)
    train.train(sdxl.open_learner(Files(base), device="cpu"), list_shadow_items(2), settings, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["made_with"]["settings"]
    assert stored.keys() == {
        *("steps", "batch", "rate", "warm_up", "decay", "weight_decay", "clip", "objective", "learn", "rank"),
        *("source", "size", "crop", "context", "flip", "dilate", "inside", "outside", "mask_loss", "token"),
        *("log_every", "checkpoint_every", "precision", "save_memory", "seed"),
    }


def test_wrong_parts_are_told(base, clip, tmp_path):
    """No image encoder, two of them, one of another network or without its tensors, a fusion module of other widths."""
    with pytest.raises(MissingWeights, match="name the folder of CLIP ViT-L/14"):
        open_learner(base, None)
    published = tiny_models.objectclear_folder(tmp_path / "published")
    with pytest.raises(MissingWeights, match="leave out the other image encoder"):
        open_learner(published, clip)
    with pytest.raises(BadWeights, match="CLIPVisionModelWithProjection needs a 'clip_vision_model'"):
        open_learner(base, base / "text_encoder")
    half = shutil.copytree(published / "image_prompt_encoder", tmp_path / "half")
    tiny_models.rewrite(half / "config.json", num_hidden_layers=3)
    with pytest.raises(BadWeights, match="is not a CLIPVisionModelWithProjection: it lacks"):
        open_learner(base, half)
    other = tiny_models.clip_folder(tmp_path / "other", projection=16)
    shutil.rmtree(published / "image_prompt_encoder")
    shutil.copytree(other, published / "image_prompt_encoder")
    with pytest.raises(MissingWeights, match="maps embeddings of 24 to tokens of 64; the image encoder makes 16"):
        open_learner(published, None)
