"""Stable Diffusion 1.5 and SDXL in one file, in the names of the first releases, made from diffusers' networks.

The names are written down here from the structure of the first releases' code, apart from what reads them.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from support import tiny_diffusion as tiny

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_OUTER = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
SHAPES = {
    "sd15": {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8, "norm_num_groups": 32},
    "sdxl": {"block_out_channels": (64, 64, 128), "attention_head_dim": (1, 1, 2), "norm_num_groups": 32},
}
TEXT_WIDTH, SIZE_WIDTH = 64, 8
PREFIXES = {
    "sd15": {"text_encoder": "cond_stage_model.transformer."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}


def name_unet(tensors: Mapping) -> dict:
    """Name a UNet's tensors; two layers a level."""
    levels = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("down_blocks."))
    named = {}
    for name, value in tensors.items():
        part, _, suffix = name.rpartition(".")
        block, *rest = part.split(".")
        if part in UNET_OUTER:
            named[f"model.diffusion_model.{UNET_OUTER[part]}.{suffix}"] = value
            continue
        if block == "mid_block":
            kind, index, *inner = rest
            place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
        else:
            level, kind, index, *inner = rest
            number = 3 * int(level) + int(index)
            if kind == "downsamplers":
                place, inner = f"input_blocks.{3 * int(level) + 3}.0.op", []
            elif kind == "upsamplers":
                behind = 2 if any(key.startswith(f"up_blocks.{level}.attentions") for key in tensors) else 1
                place, inner = f"output_blocks.{3 * int(level) + 2}.{behind}.conv", []
            else:
                place = f"input_blocks.{1 + number}" if block == "down_blocks" else f"output_blocks.{number}"
                place += ".0" if kind == "resnets" else ".1"
        inner = [RESNET[inner[0]]] if kind == "resnets" else inner
        named[".".join(["model.diffusion_model", place, *inner, suffix])] = value
    assert len(named) == len(tensors)
    assert levels in (3, 4)
    return named


def name_vae(tensors: Mapping) -> dict:
    """Name a VAE's tensors; the attention's matrices are 1 x 1 convolutions."""
    levels = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("decoder.up_blocks."))
    named = {}
    for name, value in tensors.items():
        new = name
        if "mid_block.attentions.0." in name:
            head, _, tail = name.partition("mid_block.attentions.0.")
            part, _, suffix = tail.rpartition(".")
            new = f"{head}mid.attn_1.{VAE_ATTENTION[part]}.{suffix}"
            value = value[:, :, None, None] if suffix == "weight" and part != "group_norm" else value
        elif "mid_block.resnets." in name:
            head, _, tail = name.partition("mid_block.resnets.")
            new = f"{head}mid.block_{int(tail[0]) + 1}{tail[1:]}"
        elif "_blocks." in name:
            side, blocks, level, *rest = name.split(".")
            level = level if blocks == "down_blocks" else str(levels - 1 - int(level))
            new = ".".join([side, blocks.removesuffix("_blocks"), level, *rest]).replace("resnets", "block")
            new = new.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
        new = new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        named[f"first_stage_model.{new}"] = value
    assert len(named) == len(tensors)
    return named


def name_clip(tensors: Mapping, prefix: str, concatenate) -> dict:
    """Name a text encoder's tensors as OpenCLIP does, where the prefix is that of SDXL's second one."""
    bare = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    if not prefix.endswith(".model."):
        return {f"{prefix}text_model.{name}": value for name, value in bare.items() if name != "text_projection.weight"}
    named = {}
    for name, value in bare.items():
        if name in OPEN_CLIP_OUTER:
            named[prefix + OPEN_CLIP_OUTER[name]] = value
        elif name == "text_projection.weight":
            named[f"{prefix}text_projection"] = value.T
        elif "_proj." in name and "out_proj" not in name:
            head, _, tail = name.partition("self_attn.")
            if tail.startswith("q_proj."):
                parts = [bare[f"{head}self_attn.{part}_{tail[2:]}"] for part in "qkv"]
                layer = head.replace("encoder.layers.", "transformer.resblocks.")
                named[f"{prefix}{layer}attn.in_proj_{tail.removeprefix('q_proj.')}"] = concatenate(parts)
        else:
            new = name.replace("encoder.layers.", "transformer.resblocks.")
            for theirs, other in OPEN_CLIP.items():
                new = new.replace(f".{theirs}.", f".{other}.")
            named[prefix + new] = value
    return named


def make_networks(family: str, channels: int) -> dict:
    """Make the tiny networks of a family, at the widths that the format can tell."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    names = list(PREFIXES[family])
    config = {**(tiny.SD15_UNET if family == "sd15" else tiny.SDXL_UNET), **SHAPES[family], "in_channels": channels}
    config["cross_attention_dim"] = TEXT_WIDTH * len(names)
    if family == "sdxl":
        config["projection_class_embeddings_input_dim"] = 6 * SIZE_WIDTH + TEXT_WIDTH
    vae = {**tiny.VAE, "block_out_channels": (32, 32, 32, 32), "norm_num_groups": 32, "layers_per_block": 2}
    networks = {
        "unet": tiny.fill(UNet2DConditionModel(**config), "whole-unet"),
        "vae": tiny.fill(AutoencoderKL(**vae, scaling_factor=tiny.SCALING[family]), "whole-vae"),
    }
    for name in names:
        cls = CLIPTextModelWithProjection if name.endswith("_2") else CLIPTextModel
        text = {**tiny.make_clip_config(TEXT_WIDTH), "num_attention_heads": 1}
        if name.endswith("_2"):
            text |= {"hidden_act": "gelu", "pad_token_id": 0}
        networks[name] = tiny.fill(cls(CLIPTextConfig(**text)), f"whole-{name}")
    return networks


def name_whole(networks: Mapping, family: str, concatenate) -> dict:
    """Name the tensors of all networks of a model."""
    states = {name: dict(network.state_dict()) for name, network in networks.items()}
    named = name_unet(states["unet"]) | name_vae(states["vae"])
    for name, prefix in PREFIXES[family].items():
        named |= name_clip(states[name], prefix, concatenate)
    return named


def write_both(folder: Path, family: str, channels: int) -> tuple[Path, Path]:
    """Write a tiny model as a folder and as one file, and return the two."""
    import torch
    from safetensors.torch import save_file

    networks = make_networks(family, channels)
    for name, network in networks.items():
        network.save_pretrained(folder / "folder" / name)
        if name in PREFIXES[family]:
            tokenizer = tiny.write_tokenizer(folder / "folder" / name.replace("text_encoder", "tokenizer"))
            if name.endswith("_2"):  # SDXL's second one is filled up with "!", whose id is 0
                for file in ("tokenizer_config.json", "special_tokens_map.json"):
                    values = json.loads((tokenizer / file).read_text())
                    (tokenizer / file).write_text(json.dumps(values | {"pad_token": "!"}))
    scheduler = {"sd15": "PNDMScheduler", "sdxl": "EulerDiscreteScheduler"}[family]
    (folder / "folder" / "scheduler").mkdir()
    values = {"_class_name": scheduler, **tiny.SCHEDULER, "timestep_spacing": "leading"}  # as published
    (folder / "folder" / "scheduler" / "scheduler_config.json").write_text(json.dumps(values))
    named = name_whole(networks, family, torch.cat)
    extra = {"model_ema.decay": torch.ones(()), "alphas_cumprod": torch.ones(1000)}  # files of the time have them
    save_file({name: value.contiguous() for name, value in (named | extra).items()}, folder / "whole.safetensors")
    return folder / "folder", folder / "whole.safetensors"


def write_header(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a safetensors file of float16 tensors that has its header alone."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    return path
