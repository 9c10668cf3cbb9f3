"""A whole Stable Diffusion 1.5 or SDXL in one file is the model of its folder."""

import pytest
from support import single_files
from support import tiny_diffusion as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file

from rasura.manifests.errors import WeightsError
from rasura.networks import single_file
from rasura.networks.inpainting.brushnet import BrushNet
from rasura.networks.pretrained import read_config, read_unet_tensors
from rasura.networks.unet_config import SDXL_UNET
from rasura.removers.registry import ModelParams, open_remover

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SIZE = 64
MODELS = (("sd15", 9), ("sd15", 4), ("sdxl", 9), ("sdxl", 4))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folder and file of each family, with UNets of nine and four channels."""
    place = tmp_path_factory.mktemp("whole")
    return {model: single_files.write_both(place / f"{model[0]}-{model[1]}", *model) for model in MODELS}


def open_one(base, kind, **values):
    model = ModelParams(kind=kind, base=str(base), size=SIZE, steps=2, device="cpu", **values)
    remover = open_remover("mine", {"mine": model})
    assert all(path.is_file() for path in remover.weights().values())
    remover.setup()
    return remover


def run_one(*arguments, **values):
    """Return a remover's tensors and its fill."""
    picture, hole = tiny.make_grainy_scene()
    remover = open_one(*arguments, **values)
    parts = remover.parts
    state = {f"unet.{name}": value for name, value in parts.unet.state_dict().items()}
    state |= {f"vae.{name}": value for name, value in parts.vae.state_dict().items()}
    state |= parts.conditioning.list_tensors()
    return state, remover.fill([picture], [hole], [1])[0].astype(int)


def is_same(first, second):
    """Return whether two removers have the same tensors, to the bit, and fills that differ by rounding alone: where
    tensors begin in a file decides by which instructions they are multiplied."""
    assert first[0].keys() == second[0].keys()
    is_equal = all(torch.equal(value, second[0][name]) for name, value in first[0].items())
    return is_equal and abs(first[1] - second[1]).max() <= 1


def add_words(folder, path):
    """Write PowerPaint's text encoder for a base: the base's own with the three words."""
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(folder).items()}
    token = "text_model.embeddings.token_embedding"
    tensors[f"{token}.wrapped.weight"] = tensors.pop(f"{token}.weight")
    for seed, name in enumerate(("P_ctxt", "P_shape", "P_obj")):
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(10, tensors[f"{token}.wrapped.weight"].shape[1], generator=generator)
        tensors[f"{token}.trainable_embeddings.{name}"] = vectors
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("kind", ["sd15", "powerpaint", "brushnet", "sdxl-inpaint", "rorem", "brushnet-xl"])
def test_one_file_is_the_model_of_its_folder(bases, kind, tmp_path):
    family = "sd15" if kind in ("sd15", "powerpaint", "brushnet") else "sdxl"
    folder, file = bases[family, 4 if kind.startswith("brushnet") else 9]
    values = {}
    if kind.startswith("brushnet"):
        config = {**read_config(folder / "unet"), "in_channels": 9}
        save_file(tiny.fill(BrushNet(config), "b").state_dict(), tmp_path / "brushnet.safetensors")
        values["brushnet"] = str(tmp_path / "brushnet.safetensors")
    if kind == "powerpaint":
        encoder = folder / "text_encoder" / "model.safetensors"
        values |= {"text_encoder": str(add_words(encoder, tmp_path / "text.safetensors")), "task": "object-removal"}
    if kind == "rorem":  # its UNet in place of one of four channels
        file, values["unet"] = bases["sdxl", 4][1], str(folder / "unet")
    prompted = {"prompt": "abc !", "negative": "d", "guidance": 5.0, **values}
    tokenizer = {"tokenizer": str(folder / "tokenizer")}
    with_words = run_one(folder, kind, **prompted)
    assert is_same(run_one(file, kind, **prompted, **tokenizer), with_words)
    if kind == "powerpaint":
        with pytest.raises(WeightsError, match="is one file and has no tokenizer"):
            open_one(file, kind, **values)
        return
    without = run_one(folder, kind, **values)
    assert is_same(run_one(file, kind, **values), without)  # an empty prompt needs no tokenizer
    assert abs(with_words[1] - without[1]).max() > 1
    with pytest.raises(WeightsError, match="which the prompt needs: name CLIP's"):
        open_one(file, kind, **values, prompt="abc")


def list_shapes(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


def make_full(family):
    """Make the networks at full size, without memory; and the configurations of the published folders."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vae = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": tiny.SCALING[family],
    }
    large = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    large |= {"num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768}
    giant = {"vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    giant |= {"num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}
    unet = {
        "in_channels": 9,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    }
    configs = {"unet": unet if family == "sd15" else dict(SDXL_UNET), "vae": vae, "text_encoder": large}
    if family == "sdxl":
        configs["text_encoder_2"] = giant
    with torch.device("meta"):
        networks = {
            "unet": UNet2DConditionModel(**configs["unet"]),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**large)),
        }
        if family == "sdxl":
            networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**giant))
    return networks, configs


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_published_files_fit_at_full_size(family, tmp_path):
    """At full size, without memory: the shapes tell the configuration of the published folder, and names and shapes
    become those of its networks, all of them. SDXL's file has 2,515 tensors, as published."""
    networks, configs = make_full(family)
    tensors = single_files.name_whole(networks, family, torch.cat)
    shapes = list_shapes(tensors)
    for prefix in single_files.PREFIXES[family].values():
        extra = "logit_scale" if prefix.endswith(".model.") else "text_model.embeddings.position_ids"
        tensors[f"{prefix}{extra}"] = torch.empty((1, 77) if "text_model" in extra else (), device="meta")
    published = {
        "model.diffusion_model.time_embed.2.weight": (1280, 1280),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.ff.net.0.proj.weight": (5120, 640),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
    }
    if family == "sdxl":
        assert len(tensors) == 2515
        published |= {
            "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
            "model.diffusion_model.output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
            "model.diffusion_model.output_blocks.5.2.conv.weight": (640, 640, 3, 3),
            "conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
            "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.bias": (5120,),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
        }
    else:
        published |= {
            "model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3),
            "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
            "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
            "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
            "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight": (1280, 768),
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
        }
    assert {name: shapes.get(name) for name in published} == published
    path = single_files.write_header(tmp_path / "whole.safetensors", list_shapes(tensors))
    for part, config in configs.items():
        described = single_file.describe_part(path, part)
        for key, value in config.items():
            wanted = list(value) if isinstance(value, tuple) else value
            assert described[key] == wanted, (part, key)
    scheduler = single_file.describe_part(path, "scheduler")
    assert (scheduler["beta_start"], scheduler["beta_end"], scheduler["steps_offset"]) == (0.00085, 0.012, 1)
    marked = single_files.write_header(tmp_path / "marked.safetensors", list_shapes(tensors) | {"v_pred": (0,)})
    assert scheduler["prediction_type"] == "epsilon"
    assert single_file.describe_part(marked, "scheduler")["prediction_type"] == "v_prediction"

    vae = {name: value for name, value in tensors.items() if name.startswith(single_file.VAE)}
    assert list_shapes(single_file.convert_vae(vae, configs["vae"])) == list_shapes(networks["vae"].state_dict())
    for part, prefix in single_files.PREFIXES[family].items():
        own = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        bare = {
            name.removeprefix("text_model."): shape for name, shape in list_shapes(networks[part].state_dict()).items()
        }
        assert list_shapes(single_file.convert_text_encoder(own, prefix)) == bare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rasura.networks.pretrained.read_tensors", lambda path: tensors)
        unet = read_unet_tensors(path, single_file.describe_part(path, "unet"))
    assert list_shapes(unet) == list_shapes(networks["unet"].state_dict())


def test_other_files_are_refused(bases, tmp_path):
    """A pickle (with the command that converts it), a UNet alone, SDXL's refiner, another family, Stable Diffusion 2, a
    tensor too few: each is one sentence."""

    def check(match, base, kind="sd15", **values):
        with pytest.raises(WeightsError, match=match) as caught:
            open_one(base, kind, **values)
        assert "\n" not in str(caught.value)

    tensors = load_file(bases["sd15", 9][1])
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    check(r"`rasura convert '.*model.ckpt' --out model.safetensors` makes one", tmp_path / "model.ckpt")
    check("is of SDXL, not of Stable Diffusion 1.5", bases["sdxl", 9][1])
    check("takes 4 channels, not 9", bases["sd15", 4][1])

    def write(tensors):
        save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "other.safetensors")
        return tmp_path / "other.safetensors"

    prefix = "model.diffusion_model."
    bare = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    check("no whole model in one file.*A UNet alone is named by `unet`", write(bare))
    check("lacks its vae", write({name: value for name, value in tensors.items() if "first_stage" not in name}))
    few = {name: value for name, value in tensors.items() if "mid.block_1.norm1.weight" not in name}
    check("lacks 'decoder.mid_block.resnets.0.norm1.weight' and 1 more", write(few))
    flat = {name: value[:, :, 0, 0] if "proj_in.weight" in name else value for name, value in tensors.items()}
    check("is of Stable Diffusion 2", write(flat))
    large = load_file(bases["sdxl", 9][1])
    refiner = {name: value for name, value in large.items() if "embedders.0" not in name}
    check("it is its refiner", write(refiner), "sdxl-inpaint")


def test_a_pickled_checkpoint_is_converted_first(bases, tmp_path):
    """`rasura convert` makes of a .ckpt what is read; its tensors are under `state_dict`, as the first releases'."""
    from rasura.networks.weights import convert_pickle

    folder, file = bases["sd15", 9]
    torch.save({"global_step": 1, "state_dict": load_file(file)}, tmp_path / "model.ckpt")
    assert convert_pickle(tmp_path / "model.ckpt", tmp_path / "model.safetensors") > 300
    assert is_same(run_one(tmp_path / "model.safetensors", "sd15"), run_one(folder, "sd15"))


def test_memory_counts_what_stays(bases):
    """UNet and VAE, once; the text encoders and averages in the file are not in memory while it runs."""
    folder, file = bases["sdxl", 9]
    memories = [
        open_remover("m", {"m": ModelParams(kind="sdxl-inpaint", base=str(base), size=SIZE)}).capability.memory
        for base in (folder, file)
    ]
    assert abs(memories[0].gpu_bytes - memories[1].gpu_bytes) < 5000  # the schedule's table
