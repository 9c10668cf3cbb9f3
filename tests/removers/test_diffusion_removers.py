"""Stable Diffusion 1.5, PowerPaint and BrushNet as removers: no leak, no wrong polarity, no foreign weights."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support import tiny_diffusion as tiny
from support import unet_shapes

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file

from rasura.manifests.errors import WeightsError
from rasura.networks.inpainting.brushnet import BrushNet
from rasura.networks.unet_config import SDXL_UNET
from rasura.removers.base import Remover
from rasura.removers.diffusion import conditioning, loop, powerpaint, sd15, task_tokens
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import Files
from rasura.removers.registry import NETWORKS, ModelParams, check_removers, open_remover

torch.set_num_threads(1)
# diffusers' own schedulers against numpy 2
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SIZE = 64
KINDS = ("sd15", "powerpaint", "powerpaint-v2", "brushnet", "brushnet-xl")
FULL_SD15 = {
    "sample_size": 64,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases, BrushNets and PowerPaint's text encoder, in the layouts of the published files."""
    place = tmp_path_factory.mktemp("diffusion")
    tiny.write_base(place / "sd15-inpainting", "sd15", 9)
    tiny.write_base(place / "sd15", "sd15", 4)
    tiny.write_base(place / "sdxl", "sdxl", 4)
    save_file(tiny.fill(BrushNet(tiny.SD15_UNET), "b").state_dict(), place / "brushnet.safetensors")
    save_file(tiny.fill(BrushNet(tiny.SDXL_UNET), "b").state_dict(), place / "brushnet-xl.safetensors")
    save_file(tiny.fill(BrushNet(tiny.SD15_UNET, True), "b").state_dict(), place / "powerpaint-v2.safetensors")
    weights = tiny.make_weights(tiny.task_encoder_shapes(), "powerpaint-text")
    save_file({name: torch.from_numpy(value) for name, value in weights.items()}, place / "text.safetensors")
    return place


def make_params(folder, kind, **values):
    """Make the entry of a kind under a recipe's `models`."""
    base = {"sd15": "sd15-inpainting", "powerpaint": "sd15-inpainting", "brushnet-xl": "sdxl"}.get(kind, "sd15")
    files = {"base": folder / base}
    if kind.startswith("powerpaint"):
        files["text_encoder"] = folder / "text.safetensors"
    if "brushnet" in NETWORKS[kind].needs:
        files["brushnet"] = folder / f"{kind}.safetensors"
    settings = {"size": SIZE, "steps": 2, "device": "cpu", **files, **values}
    return ModelParams(kind=kind, **settings)


def open_one(folder, kind, **values):
    remover = open_remover("mine", {"mine": make_params(folder, kind, **values)})
    remover.weights()
    remover.setup()
    return remover


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_sd15_is_what_diffusers_own_pipeline_computes(folder, guidance):
    """For the same starting latents the last latents are those of `StableDiffusionInpaintPipeline` to 1e-5: one text
    encoder's last state, no pooled text, no sizes, the empty prompt as the negative one, latents scaled by 0.18215."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from PIL import Image
    from transformers import CLIPTextModel, CLIPTokenizer

    base = folder / "sd15-inpainting"
    classes = (AutoencoderKL, CLIPTextModel, CLIPTokenizer, UNet2DConditionModel, DDIMScheduler)
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = [cls.from_pretrained(base / name, local_files_only=True) for cls, name in zip(classes, names, strict=True)]
    pipe = StableDiffusionInpaintPipeline(*parts, None, None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    picture, hole = tiny.make_grainy_scene()
    noise, generators = loop.draw_noise([3], (4, SIZE // 8, SIZE // 8))
    theirs = pipe(
        prompt="abc",
        image=Image.fromarray(picture),
        mask_image=Image.fromarray(hole),
        latents=noise.clone(),
        num_inference_steps=3,
        guidance_scale=guidance,
        height=SIZE,
        width=SIZE,
        output_type="latent",
    ).images
    remover = open_one(folder, "sd15", steps=3, guidance=guidance, prompt="abc")
    parts = remover.parts
    assert parts.vae.config.scaling_factor == 0.18215
    with torch.inference_mode():
        pixels, mask = loop.to_tensor([picture], "cpu", torch.float32), torch.from_numpy(hole[None, None]).float()
        source = loop.encode_pixels(parts.vae, loop.hide_hole(pixels, mask, pixels, "masked"))
        parts.scheduler.set_timesteps(3)
        small = loop.resize_hole(mask, source.shape[2:])
        ours = loop.denoise(parts, remover.options, noise, small, source, generators)
    assert theirs.abs().max() > 0.5
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("start", ["noise", "prefill"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_object_does_not_leak(folder, kind, start):
    """Whatever stands in the hole, the fill is the same to the bit, from noise and from a pre-filled picture."""
    remover = open_one(folder, kind, start=start)
    picture, hole = tiny.make_grainy_scene()
    other = picture.copy()
    other[hole] = 255 - other[hole]
    assert (other != picture)[hole].all()
    first, second = (remover.fill([one], [hole], [1])[0] for one in (picture, other))
    assert np.array_equal(first[hole], second[hole])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hole_changes_and_nothing_else(folder, kind):
    """Of a picture that is black on one side the hole is filled and every other pixel stays; the networks get the hole
    as 1 where they were trained so, and the branches what is kept as 1, with the hole's colour that is theirs."""
    remover = open_one(folder, kind)
    assert isinstance(remover, Remover)
    tiny.check_hole_alone_changes(remover)

    branch = getattr(remover.parts.unet, "brushnet", None)
    network = remover.parts.unet if branch is None else branch
    inputs = []
    network.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    scene, hole = tiny.make_grainy_scene()
    remover.fill([scene], [hole], [1])
    small = torch.from_numpy(hole[::8, ::8])
    channel = inputs[0][0, 4] if branch is None else 1 - inputs[0][0, 8]
    assert torch.equal(channel > 0.5, small)
    colour = {"masked": 0.0, "black": -1.0}[remover.options.source]
    pixels = loop.to_tensor([scene], "cpu", torch.float32)
    pixels[..., torch.from_numpy(hole)] = colour
    latents = loop.encode_pixels(remover.parts.vae, pixels)[0]
    seen = inputs[0][0, 5:9] if branch is None else inputs[0][0, 4:8]
    assert (seen - latents).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["powerpaint", "brushnet-xl"])
def test_a_fill_depends_on_its_own_seed_alone(folder, kind):
    """The same seed gives the same picture whatever else is in the batch; another seed gives another picture."""
    remover = open_one(folder, kind, batch=3)
    scenes = [tiny.make_grainy_scene(k) for k in range(4)]
    pictures, holes = [scene[0] for scene in scenes], [scene[1] for scene in scenes]
    together = remover.fill(pictures, holes, [10, 11, 12, 13])
    for k in (0, 2, 3):
        assert np.array_equal(remover.fill([pictures[k]], [holes[k]], [10 + k])[0], together[k])
    assert not np.array_equal(remover.fill([pictures[0]], [holes[0]], [99])[0], together[0])


def test_the_published_layouts_of_powerpaint_are_one(folder, tmp_path):
    """The text encoder is read as released (vectors beside the vocabulary), with and without `text_model.` before the
    names, and as converted (vectors in the vocabulary, under the tokenizer's own words): the text is the same to the
    bit. A UNet's file alone, in diffusers' and in Stable Diffusion's first naming, is the UNet of a folder."""
    options = replace(powerpaint.OPTIONS, size=SIZE, task="shape-guided", fitting=0.6, prompt="a cat", device="cpu")
    released = load_file(folder / "text.safetensors")
    bare = {name.removeprefix("text_model."): value for name, value in released.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    base = shutil.copytree(folder / "sd15-inpainting", tmp_path / "converted")
    token = "text_model.embeddings.token_embedding"
    rows = [released[f"{token}.wrapped.weight"]]
    rows += [released[f"{token}.trainable_embeddings.{name}"] for name in ("P_ctxt", "P_shape", "P_obj")]
    merged = {name: value for name, value in released.items() if not name.startswith(token)}
    save_file(merged | {f"{token}.weight": torch.cat(rows)}, base / "text_encoder" / "model.safetensors")
    added = {
        f"{name}_{k}": 514 + 10 * n + k for n, name in enumerate(("P_ctxt", "P_shape", "P_obj")) for k in range(10)
    }
    (base / "tokenizer" / "added_tokens.json").write_text(json.dumps(added))
    texts = []
    for files in (
        Files(folder / "sd15-inpainting", text_encoder=folder / "text.safetensors"),
        Files(folder / "sd15-inpainting", text_encoder=tmp_path / "bare.safetensors"),
        Files(base),
    ):
        remover = powerpaint.powerpaint("powerpaint", files, options)
        assert "text_encoder/config.json" in remover.weights()
        texts.append(remover.encode_prompts("cpu", torch.float32))
    for text in texts[1:]:
        assert torch.equal(text.tokens, texts[0].tokens)
        assert torch.equal(text.negative_tokens, texts[0].negative_tokens)
    assert (texts[0].tokens - texts[0].negative_tokens).abs().max() > 0.01

    unet = load_file(folder / "sd15-inpainting" / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(unet, tmp_path / "unet.safetensors")
    files = Files(folder / "sd15-inpainting", unet=tmp_path / "unet.safetensors")
    alone, whole = sd15.sd15("a", files), sd15.sd15("b", Files(folder / "sd15-inpainting"))
    assert alone.weights()["unet"] == tmp_path / "unet.safetensors"
    states = [remover.open_unet(torch.float32).state_dict() for remover in (alone, whole)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def name_as_first_release(tensors):
    """Name a UNet's tensors as the checkpoints of Stable Diffusion's first release do."""
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    outer = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    outer |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    named = {}
    for name, value in tensors.items():
        part, _, suffix = name.rpartition(".")
        block, *rest = part.split(".")
        if block == "mid_block":
            kind, index, *inner = rest
            place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
        elif block in ("down_blocks", "up_blocks"):
            level, kind, index, *inner = rest
            number = 3 * int(level) + int(index)
            if block == "down_blocks":
                place = (
                    f"input_blocks.{3 * int(level) + 3}.0.op"
                    if kind == "downsamplers"
                    else f"input_blocks.{1 + number}"
                )
            else:
                number = 3 * int(level) + 2 if kind == "upsamplers" else number
                place = f"output_blocks.{number}"
            if kind == "upsamplers":
                place += ".1.conv" if level == "0" else ".2.conv"
            elif kind != "downsamplers":
                place += ".0" if kind == "resnets" else ".1"
            inner = inner if kind in ("resnets", "attentions") else []
        else:
            named[f"model.diffusion_model.{outer[part]}.{suffix}"] = value
            continue
        inner = [resnet[inner[0]]] if kind == "resnets" else inner
        named[".".join(["model.diffusion_model", place, *inner, suffix])] = value
    return named


def test_a_checkpoint_of_the_first_release_is_the_unet(folder, tmp_path):
    """A single file in Stable Diffusion's first naming, with its autoencoder's tensors beside, is the same UNet as the
    folder's; with a tensor too few it is refused."""
    tensors = load_file(folder / "sd15-inpainting" / "unet" / "diffusion_pytorch_model.safetensors")
    named = name_as_first_release(tensors)
    assert len(named) == len(tensors)
    file = write_tensors(
        tmp_path / "v1-5.safetensors", named | {"first_stage_model.decoder.conv_in.bias": torch.ones(3)}
    )
    unet = sd15.sd15("a", Files(folder / "sd15-inpainting", unet=file)).open_unet(torch.float32)
    state = unet.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in state.items())
    named.pop("model.diffusion_model.middle_block.0.in_layers.0.bias")
    file = write_tensors(tmp_path / "few.safetensors", named)
    with pytest.raises(WeightsError, match=r"lacks 'mid_block.resnets.0.norm1.bias'"):
        sd15.sd15("a", Files(folder / "sd15-inpainting", unet=file)).open_unet(torch.float32)


def test_a_learned_word_stands_for_its_ten_vectors(tmp_path):
    """Ids are start, text, ten vectors, text, end and padding, 77 in all; a text that would cut a word is refused, one
    that is cut after it is not; the fitting degree mixes two texts."""
    tokenizer = conditioning.open_tokenizer(tiny.write_tokenizer(tmp_path / "tokenizer"))
    first = {"P_ctxt": 514, "P_shape": 524, "P_obj": 534}
    plain = tokenizer("ab", add_special_tokens=False).input_ids
    ids = task_tokens.tokenize(tokenizer, "ab P_obj ab", first)
    assert ids == [512, *plain, *range(534, 544), *plain] + [513] * (77 - 1 - 10 - 2 * len(plain))
    assert len(task_tokens.tokenize(tokenizer, "P_ctxt " + "a" * 100, first)) == 77
    with pytest.raises(ValueError, match="76 tokens long up to its task's word, 75 are possible"):
        task_tokens.tokenize(tokenizer, "a" * 66 + " P_ctxt", first)


def test_options_that_cannot_remove_are_refused(folder):
    """A LoRA on PowerPaint, removal without guidance, a key of another kind, a BrushNet that is not named: each is told
    with its reason before anything is opened."""
    with pytest.raises(ValueError, match=r"takes no `lora`.*guidance built in.*P_obj"):
        open_one(folder, "powerpaint", lora=folder / "text.safetensors")
    with pytest.raises(ValueError, match="needs 10 or more"):
        open_one(folder, "powerpaint-v2", guidance=1.0)
    with pytest.raises(ValueError, match="sd15 has no `task`; that is a key of powerpaint, powerpaint-v2"):
        check_removers(["mine"], {"mine": ModelParams(kind="sd15", base="x", task="text-guided")})
    with pytest.raises(ValueError, match="brushnet needs `brushnet`: Folder or file of a BrushNet"):
        open_remover("mine", {"mine": ModelParams(kind="brushnet", base=str(folder / "sd15"))})
    with pytest.raises(ValueError, match="needs the text encoder of PowerPaint's BrushNet"):
        powerpaint.powerpaint_v2("mine", Files(folder / "sd15", brushnet=folder / "powerpaint-v2.safetensors"))
    assert open_remover("mine", {"mine": make_params(folder, "powerpaint")}).capability.role == "remover"
    shaped = open_remover("mine", {"mine": make_params(folder, "powerpaint", task="shape-guided", guidance=1.0)})
    assert shaped.capability.role == "inserter"


def write_tensors(path, tensors):
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def test_missing_wrong_and_foreign_weights_are_one_clear_error(folder, tmp_path):
    """Each fault is one sentence with the path: nothing there, another family, other channels, another BrushNet, a
    plain text encoder, a tensor too few, one too many, another shape, a pickle that could run code."""

    def check(kind, match, **values):
        with pytest.raises(WeightsError, match=match) as caught:
            open_one(folder, kind, **values)
        assert "\n" not in str(caught.value)

    check("sd15", "there is no file or folder", base=tmp_path / "nowhere")
    check("sd15", "takes 4 channels, not 9", base=folder / "sd15")
    check("sd15", "is of SDXL, not of Stable Diffusion 1.5", base=folder / "sdxl")
    check("brushnet", "takes 9 channels, not 4", base=folder / "sd15-inpainting")
    check("brushnet-xl", "is of Stable Diffusion 1.5, not of SDXL", base=folder / "sd15")
    check("brushnet", "not this BrushNet|is not a BrushNet", brushnet=folder / "brushnet-xl.safetensors")
    check("brushnet", "with attentions: PowerPaint's", brushnet=folder / "powerpaint-v2.safetensors")
    check("powerpaint-v2", "without attentions: BrushNet's own", brushnet=folder / "brushnet.safetensors")
    check("brushnet", "is no BrushNet", brushnet=folder / "text.safetensors")
    check("powerpaint", "without PowerPaint's task words", text_encoder=folder / "sd15" / "text_encoder")
    brush = load_file(folder / "brushnet.safetensors")
    few = {name: value for name, value in brush.items() if name != "brushnet_mid_block.bias"}
    check("brushnet", "lacks 'brushnet_mid_block.bias'", brushnet=write_tensors(tmp_path / "few.safetensors", few))
    many = brush | {"brushnet_up_blocks.15.bias": torch.ones(3)}
    check("brushnet", "unused, 'brushnet_up_blocks.15", brushnet=write_tensors(tmp_path / "many.safetensors", many))
    other = brush | {"brushnet_mid_block.bias": torch.ones(3)}
    check("brushnet", r"is \(3,\), not \(16,\)", brushnet=write_tensors(tmp_path / "other.safetensors", other))
    text = load_file(folder / "text.safetensors")
    name = "text_model.embeddings.token_embedding.trainable_embeddings.P_obj"
    short = write_tensors(tmp_path / "short.safetensors", text | {name: text[name][:9]})
    check("powerpaint", r"has no 10 vectors of P_obj, but those of shape \(9, 16\)", text_encoder=short)
    torch.save({"optimizer": print}, tmp_path / "code.bin")
    check("powerpaint", "could run code", text_encoder=tmp_path / "code.bin")
    prompts = conditioning.Conditioning(
        torch.ones(1, 77, 16), torch.ones(1, 8), torch.ones(1, 77, 16), torch.ones(1, 8)
    )
    conditioning.save(prompts, tmp_path / "sdxl-prompts.safetensors")
    check("sd15", "with a pooled one, the UNet takes 16 without", prompts=tmp_path / "sdxl-prompts.safetensors")


def test_prompts_can_take_the_place_of_the_encoders(folder, tmp_path):
    """Saved embeddings of either family give the same fill without any encoder being read."""
    for kind in ("sd15", "powerpaint-v2"):
        usual = open_one(folder, kind)
        conditioning.save(usual.parts.conditioning, tmp_path / f"{kind}.safetensors")
        lean = open_one(folder, kind, prompts=tmp_path / f"{kind}.safetensors")
        assert not any("text_encoder" in name or "tokenizer" in name for name in lean.weights())
        picture, hole = tiny.make_grainy_scene()
        assert np.array_equal(lean.fill([picture], [hole], [1])[0], usual.fill([picture], [hole], [1])[0])


def test_published_files_fit_at_full_size():
    """At full size, without memory: names, shapes and numbers of the published files are ours. The shapes are written
    down a second time from the networks' structure."""
    from diffusers import UNet2DConditionModel

    def list_shapes(network):
        return {name: tuple(value.shape) for name, value in network.state_dict().items()}

    with torch.device("meta"):
        unet = UNet2DConditionModel(**FULL_SD15)
        brushnet, second, large = BrushNet(FULL_SD15), BrushNet(FULL_SD15, True), BrushNet(SDXL_UNET)
    widths, _, text, linear = unet_shapes.SD15
    assert list_shapes(unet) == unet_shapes.UnetShapes(*unet_shapes.SD15).unet(9, middle=1)
    assert list_shapes(second) == unet_shapes.UnetShapes(*unet_shapes.SD15).brushnet(middle=1)
    plain = unet_shapes.UnetShapes(widths, (0,) * 4, text, linear)
    assert list_shapes(brushnet) == plain.brushnet(middle=0)
    assert (len(plain.down), len(plain.up)) == (12, 15)
    plain_xl = unet_shapes.UnetShapes((320, 640, 1280), (0,) * 3, 2048, True)
    assert list_shapes(large) == plain_xl.brushnet(middle=0, pooled=2816)
    assert (len(plain_xl.down), len(plain_xl.up)) == (9, 11)
    numbers = [sum(value.numel() for value in network.parameters()) for network in (unet, brushnet, second, large)]
    assert numbers == [859_535_364, 618_830_080, 886_069_440, 373_332_480]
    assert [len(network.state_dict()) for network in (unet, brushnet, second, large)] == [686, 322, 738, 252]
    # the published sizes: 2.48 GB, 3.54 GB in float32, 0.75 GB in float16
    assert [round(4 * numbers[1] / 1e9, 2), round(4 * numbers[2] / 1e9, 2), round(2 * numbers[3] / 1e9, 2)] == [
        2.48,
        3.54,
        0.75,
    ]


def test_the_published_text_encoder_fits_at_full_size(tmp_path, monkeypatch):
    """PowerPaint's text encoder, by the names of its release: 196 tensors of CLIP ViT-L/14, its vocabulary of 49,408
    words, and three of ten vectors; 492 MB in float32."""
    shapes = {f"text_model.{name}": shape for name, shape in unet_shapes.list_clip_shapes().items()}
    token = "text_model.embeddings.token_embedding"
    shapes[f"{token}.wrapped.weight"] = (49408, 768)
    shapes |= {f"{token}.trainable_embeddings.{name}": (10, 768) for name in ("P_ctxt", "P_shape", "P_obj")}
    assert round(4 * sum(int(np.prod(shape)) for shape in shapes.values()) / 1e6) == 492
    with torch.device("meta"):
        tensors = {name.removeprefix("text_model."): torch.empty(shape) for name, shape in shapes.items()}
    config = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps({**config, "num_attention_heads": 12}))
    (tmp_path / "text_encoder" / "model.safetensors").write_bytes(b"")  # listed, never read
    monkeypatch.setattr(task_tokens, "read_encoder_tensors", lambda path: tensors)
    encoder, first = task_tokens.open_task_encoder(tmp_path / "text.bin", tmp_path, None, torch.float16)
    assert first == {"P_ctxt": 49408, "P_shape": 49418, "P_obj": 49428}
    assert sum(value.numel() for value in encoder.parameters()) == 123_060_480 + 30 * 768


def test_authors_defaults(folder):
    """The defaults are those of the authors' demos and scripts, but for PowerPaint's guidance, which they advise."""
    for kind, size, steps, guidance, source in (
        ("sd15", 512, 50, 7.5, "masked"),
        ("powerpaint", 640, 45, 10.0, "masked"),
        ("powerpaint-v2", 640, 45, 10.0, "black"),
        ("brushnet", 512, 50, 7.5, "black"),
        ("brushnet-xl", 1024, 50, 7.5, "black"),
    ):
        defaults = Options(**NETWORKS[kind].defaults)
        assert (defaults.size, defaults.steps, defaults.guidance, defaults.source) == (size, steps, guidance, source)
        assert defaults.start == "noise"
        assert NETWORKS[kind].capability.parameters > 900e6
