"""CATDiffusion at tiny size: networks whose weights are a formula of their names, and pictures for them."""

import json
import shutil
from pathlib import Path

import numpy as np
from support import tiny_diffusion as tiny

UNET = {**tiny.SD15_UNET, "block_out_channels": (32, 32, 64, 64), "norm_num_groups": 32}
"""The authors' classes have 32 groups in every normalisation."""
FULL_UNET = {
    **tiny.SD15_UNET,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "norm_num_groups": 32,
}
WIDTH, SIDE = 32, 512
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
}
SMALL_VISION = {**VISION, "image_size": 28, "patch_size": 7}
"""Of 16 patches, for pictures of 64 px."""
INPAINTER = {
    "width": WIDTH,
    "layers": 3,
    "heads": 2,
    "hidden": 48,
    "places": 256,
    "label": tiny.WIDTH,
    "label_hidden": 24,
}


def fill_vision(config=VISION):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return tiny.fill(CLIPVisionModel(CLIPVisionConfig(**config)), "vision")


def fill_inpainter(**sizes):
    from rasura.networks.inpainting.catdiffusion import SemanticInpainter

    return tiny.fill(SemanticInpainter(**{**INPAINTER, **sizes}), "semantic-inpainter")


def fill_unet():
    from diffusers import UNet2DConditionModel

    from rasura.networks.inpainting.catdiffusion import add_adapters

    return tiny.fill(add_adapters(UNet2DConditionModel(**UNET), WIDTH), "adapted-unet")


def write_base(folder: Path, vision=VISION) -> Path:
    """Write Stable Diffusion 1.5 inpainting with the tiny UNet, and CLIP's vision model in `image_encoder`."""

    from diffusers import UNet2DConditionModel

    tiny.write_base(folder, "sd15", 9)
    shutil.rmtree(folder / "unet")
    tiny.fill(UNet2DConditionModel(**UNET), "adapted-unet").save_pretrained(folder / "unet")
    fill_vision(vision).save_pretrained(folder / "image_encoder")
    return folder


def write_trained(folder: Path, **sizes) -> Path:
    """Write what a training leaves: `unet` with its adapter, and `semantic_inpainter`."""
    from safetensors.torch import save_file

    inpainter = fill_inpainter(**sizes)
    fill_unet().save_pretrained(folder / "unet")
    (folder / "semantic_inpainter").mkdir()
    save_file(inpainter.state_dict(), folder / "semantic_inpainter" / "model.safetensors")
    (folder / "semantic_inpainter" / "config.json").write_text(json.dumps({"heads": inpainter.heads}))
    return folder


def make_picture(number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with structure, 512 px, and a round hole in it that is grey already."""
    picture, _ = tiny.make_scene(SIDE, SIDE)
    picture = np.roll(picture, 37 * number, axis=1)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    hole = ((rows - 250) / 131) ** 2 + ((columns - 301 + 70 * number) / 77) ** 2 < 1
    picture[hole] = 127
    return picture, hole
