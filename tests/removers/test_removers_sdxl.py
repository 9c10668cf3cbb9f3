"""The SDXL family of removers: the same arithmetic as diffusers' own pipeline, no leak, no lost step."""

import json

import numpy as np
import pytest
from support import tiny_models, unet_shapes
from support.tiny_diffusion import make_grainy_scene

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file

from rasura.networks import lora, pca_codec, pretrained
from rasura.networks.pca_codec import encode_pixels
from rasura.networks.pretrained import MissingWeights
from rasura.removers.base import Remover, remove
from rasura.removers.diffusion import conditioning, loop, rorem
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import Files
from rasura.stages.inpaint import Inpaint, InpaintParams

torch.set_num_threads(1)
# diffusers' own Euler scheduler against numpy 2
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "pytorch_lora_weights.safetensors"
    shapes = lora.list_shapes(tiny_models.unet(), lora.RECIPE_TARGETS, 4)
    save_file(tiny_models.lora_tensors(shapes), path)
    return path


def counted(network):
    """How often a network is called."""
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_it_is_what_diffusers_own_pipeline_computes(folder, guidance):
    """For the same starting latents the last latents are those of `StableDiffusionXLInpaintPipeline` to 1e-5 of the
    largest, with and without guidance: the same prompt embeddings, feed, time ids, steps and scheduler."""
    from diffusers import StableDiffusionXLInpaintPipeline
    from PIL import Image

    pipe = StableDiffusionXLInpaintPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pictures, holes = zip(*(make_grainy_scene(k) for k in range(2)), strict=True)
    noise, generators = loop.draw_noise([3, 4], (4, SIZE // 8, SIZE // 8))
    theirs = pipe(
        prompt=["abc"] * 2,
        negative_prompt=["x"] * 2,
        image=[Image.fromarray(one) for one in pictures],
        mask_image=[Image.fromarray(one) for one in holes],
        latents=noise.clone(),
        strength=1.0,
        num_inference_steps=5,
        guidance_scale=guidance,
        height=SIZE,
        width=SIZE,
        output_type="latent",
    ).images
    options = Options(size=SIZE, steps=5, guidance=guidance, prompt="abc", negative="x", start="noise", device="cpu")
    mine = rorem.sdxl_inpaint("sdxl-inpaint", Files(folder), options)
    mine.setup()
    parts = mine.parts
    with torch.inference_mode():
        pixels = loop.to_tensor(pictures, parts.device, parts.dtype)
        mask = torch.from_numpy(np.stack(holes)[:, None]).float()
        source = encode_pixels(parts.vae, pixels * (1 - mask))
        parts.scheduler.set_timesteps(5)
        hole = loop.resize_hole(mask, source.shape[2:])
        ours = loop.denoise(parts, options, noise * parts.scheduler.init_noise_sigma, hole, source, generators)
    assert theirs.abs().max() > 0.5
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_four_steps_are_four(folder, lora_file):
    """RORem's fast form calls its network exactly four times, at the scheduler's own first timestep; the usual
    default strength of .9999 would have run three."""
    four = rorem.rorem_lcm(
        "rorem-lcm", Files(folder, unet=folder / "unet", lora=lora_file), Options(size=SIZE, steps=4)
    )
    four.setup()
    assert type(four.parts.scheduler).__name__ == "LCMScheduler"
    calls = counted(four.parts.unet)
    picture, hole = make_grainy_scene()
    (out,) = four.fill([picture], [hole], [1])
    assert len(calls) == 4
    assert four.parts.scheduler.timesteps.tolist() == [999, 759, 499, 259]
    assert out.shape == picture.shape


@pytest.mark.parametrize("start", ["noise", "prefill"])
def test_the_object_does_not_leak(folder, lora_file, start):
    """Whatever stands in the hole, the fill is the same to the bit, from noise and from a pre-filled picture, in many
    steps and in four."""
    picture, hole = make_grainy_scene()
    other = picture.copy()
    other[hole] = np.random.default_rng(9).integers(0, 256, (int(hole.sum()), 3))
    makers = (
        rorem.rorem("rorem", Files(folder, unet=folder / "unet"), Options(size=SIZE, steps=3, start=start)),
        rorem.rorem_lcm(
            "lcm", Files(folder, folder / "unet", lora=lora_file), Options(size=SIZE, steps=4, start=start)
        ),
    )
    for one in makers:
        one.setup()
        assert np.array_equal(one.fill([picture], [hole], [1])[0], one.fill([other], [hole], [1])[0])


def test_a_fill_depends_on_its_own_seed_alone(folder):
    """The same seed gives the same picture whatever else is in the batch and wherever it stands in it; another seed
    gives another picture."""
    one = rorem.rorem("rorem", Files(folder, unet=folder / "unet"), Options(size=SIZE, steps=2, batch=3))
    one.setup()
    scenes = [make_grainy_scene(k) for k in range(4)]
    pictures, holes = [s[0] for s in scenes], [s[1] for s in scenes]
    together = one.fill(pictures, holes, [10, 11, 12, 13])
    for k in range(4):
        assert np.array_equal(one.fill([pictures[k]], [holes[k]], [10 + k])[0], together[k])
    assert not np.array_equal(one.fill([pictures[0]], [holes[0]], [99])[0], together[0])


def test_in_the_wrapper_outside_is_exact_and_the_native_size_is_kept(folder):
    """Through the shared wrapper a picture of any size works, and no pixel outside the grown mask changes."""
    one = rorem.rorem("rorem", Files(folder, unet=folder / "unet"), Options(size=SIZE, steps=2))
    one.setup()
    assert isinstance(one, Remover)
    assert one.capability.native_size == SIZE
    picture, mask = make_grainy_scene(size=160)
    (out,) = remove(one, [picture], [mask], [0], dilation=4)
    grown = np.zeros_like(mask)
    grown[36:84, 36:124] = True
    assert np.array_equal(out[~grown], picture[~grown])
    assert not np.array_equal(out[mask], picture[mask])


def test_the_text_encoders_are_gone_and_can_be_left_at_home(folder, tmp_path):
    """After setup no text encoder is in memory; saved embeddings give the same fills without any being on disk."""
    options = Options(size=SIZE, steps=2, prompt="abc")
    usual = rorem.rorem("rorem", Files(folder, unet=folder / "unet"), options)
    usual.setup()
    assert set(vars(usual.parts)) == {"unet", "vae", "scheduler", "conditioning", "device", "dtype"}
    conditioning.save(usual.parts.conditioning, tmp_path / "abc.safetensors")
    lean = rorem.rorem("rorem", Files(folder, folder / "unet", prompts=tmp_path / "abc.safetensors"), options)
    assert not any("text_encoder" in name for name in lean.weights())
    lean.setup()
    picture, hole = make_grainy_scene()
    assert np.array_equal(lean.fill([picture], [hole], [1])[0], usual.fill([picture], [hole], [1])[0])


def test_published_empty_prompt_files_are_read(tmp_path):
    """RORem's mirror ships the empty prompt's embeddings: tokens (1, 77, 2048) and pooled (1, 1280) are found in it by
    their shapes; another file is refused."""
    path = tmp_path / "empty_prompt_embeds.safetensors"
    save_file({"prompt_embeds": torch.ones(1, 77, 2048), "pooled": torch.ones(1, 1280)}, path)
    assert path.stat().st_size // 1000 in (635, 636)  # the published file has 636,080 bytes
    embeddings = conditioning.load(path)
    assert embeddings.tokens.shape == (1, 77, 2048)
    assert embeddings.pooled.shape == (1, 1280)
    assert not embeddings.negative_tokens.any()
    save_file({"other": torch.ones(3)}, path)
    with pytest.raises(MissingWeights, match="not the embeddings"):
        conditioning.load(path)


def test_half_precision_keeps_the_vae_safe(folder, monkeypatch):
    """In float16 a VAE that says it overflows runs in float32, a repaired one in float16; the UNet is float16."""
    dtypes = {}
    real = pretrained.open_diffusers

    def record(kind, folder, dtype):
        dtypes[kind] = dtype
        return real(kind, folder, dtype)

    monkeypatch.setattr(pretrained, "open_diffusers", record)
    monkeypatch.setattr(pca_codec, "open_diffusers", record)
    one = rorem.sdxl_inpaint("sdxl", Files(folder), Options(size=SIZE, device="cpu", dtype="float16"))
    one.setup()
    assert dtypes == {"UNet2DConditionModel": torch.float16, "AutoencoderKL": torch.float32}


def test_the_stage_runs_networks_on_batches_under_names_of_ones_own(folder):
    """A recipe names weights and options under `models`; a network may stand there twice under two names; batches and
    single records give the same candidates; the row's weights are the files that were read."""
    scenes = [make_grainy_scene(k, 96) for k in range(3)]
    rows = [
        {"id": f"p{k}", "source": picture, "object_mask": hole, "licence": "CC0"}
        for k, (picture, hole) in enumerate(scenes)
    ]
    common = {"kind": "rorem", "base": str(folder), "unet": str(folder / "unet"), "size": SIZE, "steps": 1}
    params = {"removers": ["telea", "old", "new"], "dilation": 2}
    models = {"old": common, "new": common | {"start": "noise", "batch": 2}}
    stage = Inpaint(InpaintParams(**params, models=models), seed=3)
    stage.setup()
    weights = stage.weights()
    assert weights["old.unet/diffusion_pytorch_model.safetensors"].is_file()
    together = stage.process(rows)
    for row, outcome in zip(rows, together, strict=True):
        (alone,) = stage.process([row])
        assert [child["remover"] for child in outcome.records] == ["telea", "old", "new"]
        for one, other in zip(alone.records, outcome.records, strict=True):
            assert one["id"] == other["id"]
            assert one["licence"] == "CC0"
            assert np.array_equal(one["target"], other["target"])
    old, new = (child["target"] for child in together[0].records[1:])
    assert not np.array_equal(old, new)


def test_a_missing_file_is_told_when_the_recipe_is_read(folder, tmp_path):
    """The stage is not made at all where a network's folder lacks something."""
    params = InpaintParams(removers=["rorem"], models={"rorem": {"base": str(folder), "unet": str(tmp_path)}})
    with pytest.raises(MissingWeights, match="no model in"):
        Inpaint(params)


def test_wrong_weights_are_one_clear_error(folder, tmp_path):
    """A missing folder, a pickle, a UNet of four channels, a LoRA for another base, a LoRA that is none: each is told
    with the path and what is wrong, before anything was changed."""
    import shutil

    with pytest.raises(MissingWeights, match=r"no model in .*nowhere"):
        rorem.sdxl_inpaint("sdxl", Files(tmp_path / "nowhere")).weights()
    copied = shutil.copytree(folder, tmp_path / "copied")
    tiny_models.rewrite(copied / "unet" / "config.json", in_channels=4)
    with pytest.raises(MissingWeights, match="takes 4 channels, not 9"):
        rorem.sdxl_inpaint("sdxl", Files(copied)).weights()
    tiny_models.rewrite(copied / "unet" / "config.json", in_channels=9)
    weights = next((copied / "vae").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingWeights, match="pickles"):
        rorem.sdxl_inpaint("sdxl", Files(copied)).weights()
    network = tiny_models.unet()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    good = tiny_models.lora_tensors(lora.list_shapes(network, lora.RECIPE_TARGETS, 4))
    wrong = dict(good)
    key = next(key for key in wrong if key.endswith("lora_A.weight"))
    wrong[key] = torch.ones(4, 7)
    with pytest.raises(lora.WrongLora, match="another base"):
        lora.fuse(network, wrong)
    with pytest.raises(lora.WrongLora, match="does not have"):
        lora.fuse(network, good | {"unet.down_blocks.9.attn.to_q.lora_A.weight": torch.ones(4, 4)})
    with pytest.raises(lora.WrongLora, match="no key of a LoRA"):
        lora.fuse(network, good | {"conv_in.weight": torch.ones(4)})
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(lora.WrongLora, match="cannot be read"):
        lora.read(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="name its UNet"):
        rorem.rorem("rorem", Files(folder))
    with pytest.raises(ValueError, match="burns"):
        rorem.rorem_lcm("x", Files(folder, folder, lora=folder), Options(guidance=7))


def test_a_folded_lora_is_the_lora(lora_file):
    """Folded into the weights it gives what peft gives beside them, in diffusers' and in kohya's layout alike."""
    from peft import LoraConfig
    from peft.utils import set_peft_model_state_dict

    tensors = lora.read(lora_file)
    beside, folded, kohya = tiny_models.unet(), tiny_models.unet(), tiny_models.unet()
    beside.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(lora.RECIPE_TARGETS)))
    report = set_peft_model_state_dict(beside, {key.removeprefix("unet."): value for key, value in tensors.items()})
    assert not report.unexpected_keys
    assert lora.fuse(folded, tensors) == len(tensors) // 2
    other = {}
    for key, value in tensors.items():
        name, part = key.removeprefix("unet.").rsplit(".lora_", 1)
        end = "down" if part.startswith("A") else "up"
        other[f"lora_unet_{name.replace('.', '_')}.lora_{end}.weight"] = value
        other[f"lora_unet_{name.replace('.', '_')}.alpha"] = torch.tensor(4.0)
    lora.fuse(kohya, other)
    noisy = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    text = {"text_embeds": torch.ones(1, 32), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        outs = [
            net(noisy, 500, torch.ones(1, 77, 64), added_cond_kwargs=text).sample for net in (beside, folded, kohya)
        ]
        plain = tiny_models.unet()(noisy, 500, torch.ones(1, 77, 64), added_cond_kwargs=text).sample
    assert (outs[0] - plain).abs().max() > 1e-3
    assert (outs[0] - outs[1]).abs().max() < 1e-5
    assert torch.equal(outs[1], outs[2])


def test_published_files_fit_at_full_size():
    """At SDXL's size, without memory: the UNet's tensors are the 1,680 of the published one by name and shape, written
    down here from its structure; RORem's four-step LoRA has a pair for each of LCM-LoRA's 788 layers; and RORem's
    settings are its release's."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(**tiny_models.SDXL_UNET)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes == unet_shapes.UnetShapes(*unet_shapes.SDXL).unet(9, middle=10, pooled=2816)
    assert len(shapes) == 1680
    assert sum(value.numel() for value in network.parameters()) == 2_567_463_684 + 5 * 9 * 320
    pairs = lora.list_shapes(network, lora.RECIPE_TARGETS, lora.RANK)
    assert len(pairs) == 2 * 788
    assert pairs["unet.down_blocks.1.downsamplers.0.conv.lora_A.weight"] == (64, 640, 3, 3)
    assert pairs["unet.mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj.lora_B.weight"] == (10240, 64)
    assert 196e6 < sum(int(np.prod(shape)) for shape in pairs.values()) < 198e6
    assert (rorem.LCM_OPTIONS.steps, rorem.ROREM_OPTIONS.steps, rorem.ROREM_OPTIONS.guidance) == (4, 50, 1.0)
    json.dumps(sorted(pairs))
