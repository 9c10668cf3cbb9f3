"""A tiny network of every kind of remover, as an entry of a recipe's `models`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import single_files, tiny_models, tiny_pipelines
from support import tiny_catdiffusion as cat
from support import tiny_diffusion as tiny
from support.remover_server import WORKFLOW

DATA = Path(__file__).parents[1] / "data"
SIZE = 64
MOEBIUS = {
    "sample_size": SIZE // 8,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "encoder_hid_dim": 24,
    "block_out_channels": [8, 16, 16],
    "norm_num_groups": 4,
}
PIXELHACKER = {
    "sample_size": 8,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "encoder_hid_dim": 24,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4,
}


def write_embedded(folder: Path, build: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Path:
    """Write PixelHacker or Moebius as published: a pickle of tensors, here with a configuration since it is tiny."""
    import torch

    shapes = {f"diff_model.{name}": tuple(value.shape) for name, value in build(config).state_dict().items()}
    shapes["embedding_layer.weight"] = (20, 24)
    weights = {name: torch.from_numpy(value) for name, value in tiny.make_weights(shapes, "moebius").items()}
    (folder / "pretrained").mkdir(parents=True)
    torch.save(weights, folder / "pretrained" / "diffusion_pytorch_model.bin")
    (folder / "pretrained" / "config.json").write_text(json.dumps(config))
    tiny_models.vae().save_pretrained(folder / "vae")
    return folder


def write_moebius(folder: Path) -> Path:
    """Write a tiny Moebius."""
    from rasura.removers.diffusion import moebius

    return write_embedded(folder, lambda config: moebius.build_unet({**moebius.UNET, **config}), MOEBIUS)


def write_pixelhacker(folder: Path) -> Path:
    """Write a tiny PixelHacker."""
    from rasura.removers.diffusion import pixelhacker

    return write_embedded(folder, lambda config: pixelhacker.build_unet({**pixelhacker.UNET, **config}), PIXELHACKER)


def write_tensors(path: Path, network: Any) -> Path:
    """Write a network with weights by formula."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tiny.fill(network, path.stem).state_dict(), path)
    return path


def write_lora(path: Path, unet: Path) -> Path:
    """Write a LoRA of rank 2 for the UNet of a folder, in peft's names."""
    from safetensors.torch import load_file, save_file

    shapes = {}
    for name, value in load_file(unet / "diffusion_pytorch_model.safetensors").items():
        if ".attn1.to_q.weight" in name:
            layer = f"unet.{name.removesuffix('.weight')}"
            shapes[f"{layer}.lora_A.weight"], shapes[f"{layer}.lora_B.weight"] = (
                (2, value.shape[1]),
                (value.shape[0], 2),
            )
    save_file(tiny_models.lora_tensors(shapes), path)
    return path


def write_text_encoder(path: Path) -> Path:
    """Write PowerPaint's text encoder, with its learned words."""
    import torch
    from safetensors.torch import save_file

    weights = tiny.make_weights(tiny.task_encoder_shapes(), "powerpaint-text")
    save_file({name: torch.from_numpy(value) for name, value in weights.items()}, path)
    return path


def write_models(folder: Path, url: str) -> dict[str, dict[str, Any]]:
    """Write a tiny network of each kind, and return the entries of `models` by the kind's name.

    Args:
        url: of a server of both interfaces of removers behind HTTP.
    """
    from rasura.networks.inpainting.brushnet import BrushNet
    from rasura.networks.inpainting.lama import LamaGenerator
    from rasura.networks.inpainting.migan import MiganGenerator

    inpainting, plain = (tiny.write_base(folder / f"sd15-{channels}", "sd15", channels) for channels in (9, 4))
    large = tiny_models.sdxl_folder(folder / "sdxl")
    text = write_text_encoder(folder / "text.safetensors")
    trained = cat.write_trained(folder / "trained", places=16)
    (folder / "workflow.json").write_text(json.dumps(WORKFLOW))
    pipeline = "StableDiffusion3InpaintPipeline"
    files: dict[str, dict[str, Any]] = {
        "sdxl-inpaint": {"base": large},
        "rorem": {
            "base": single_files.write_both(folder / "whole", "sdxl", 9)[1],
            "unet": folder / "whole/folder/unet",
        },
        "rorem-lcm": {
            "base": large,
            "unet": large / "unet",
            "lora": write_lora(folder / "lora.safetensors", large / "unet"),
        },
        "objectclear": {"base": tiny_models.objectclear_folder(folder / "objectclear")},
        "sd15": {"base": inpainting},
        "powerpaint": {"base": inpainting, "text_encoder": text},
        "powerpaint-v2": {
            "base": plain,
            "text_encoder": text,
            "brushnet": write_tensors(folder / "powerpaint-v2.safetensors", BrushNet(tiny.SD15_UNET, True)),
        },
        "brushnet": {
            "base": plain,
            "brushnet": write_tensors(folder / "brushnet.safetensors", BrushNet(tiny.SD15_UNET)),
        },
        "brushnet-xl": {
            "base": tiny.write_base(folder / "sdxl-4", "sdxl", 4),
            "brushnet": write_tensors(folder / "brushnet-xl.safetensors", BrushNet(tiny.SDXL_UNET)),
        },
        "catdiffusion": {
            "base": cat.write_base(folder / "catdiffusion", cat.SMALL_VISION),
            "unet": trained / "unet",
            "semantic_inpainter": trained / "semantic_inpainter",
            "image_encoder": folder / "catdiffusion" / "image_encoder",
        },
        "pixelhacker": {"base": write_pixelhacker(folder / "pixelhacker")},
        "moebius": {"base": write_moebius(folder / "moebius")},
        "diffusers": {"base": tiny_pipelines.write_pipeline(folder / "pipeline", pipeline), "pipeline": pipeline},
    }
    entries = {kind: {"steps": 2, "size": SIZE, "device": "cpu", **entry} for kind, entry in files.items()}
    generators = {"lama": LamaGenerator(4, 1), "migan": MiganGenerator(SIZE, most=8)}
    for kind, network in generators.items():
        entries[kind] = {"base": write_tensors(folder / f"{kind}.safetensors", network), "size": SIZE, "device": "cpu"}
    entries["tiny"] = {"base": DATA / "written_by_0_1_0" / "remover_tiny"}
    entries["image-edits"] = {"url": url, "size": SIZE}
    entries["comfyui"] = {"url": url, "size": SIZE, "workflow": folder / "workflow.json"}
    return {
        kind: {key: str(value) if isinstance(value, Path) else value for key, value in entry.items()}
        for kind, entry in entries.items()
    }
