"""Moebius: PixelHacker's small successor, with the same embeddings of background and foreground in place of text.

Source: arXiv 2606.19195 and its release (Apache-2.0). A quarter of PixelHacker's parameters (`networks/inpainting/
moebius.py`), on the latents of the same VAE (SDXL's). Its position tables fix the size: 512 px as published.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rasura.networks.pretrained import MissingWeights
from rasura.removers.base import Capability
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.pixelhacker import OPTIONS as PIXELHACKER_OPTIONS
from rasura.removers.diffusion.pixelhacker import UNET as PIXELHACKER_UNET
from rasura.removers.diffusion.pixelhacker import PixelHacker, check_parts
from rasura.removers.diffusion.remover import Files

UNET: Mapping[str, Any] = {
    **PIXELHACKER_UNET,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}
"""Arguments of diffusers' `UNet2DConditionModel`, as released; a `config.json` beside the weights changes them."""
EMBEDDINGS = 10
"""Of background, and as many of foreground."""
FACTOR = 8
"""Pixels along the side of a latent."""

CAPABILITY = Capability(
    "remover",
    None,
    False,
    "Apache-2.0",
    name="Moebius",
    needs_weights=True,
    parameters=226_041_531 + 83_653_863,
)
OPTIONS = replace(PIXELHACKER_OPTIONS, guidance=2.0)


class Moebius(PixelHacker):
    """Moebius from its folder: `pretrained/` (or `unet`) with one file of weights, and PixelHacker's `vae/`."""

    unet: ClassVar[Mapping[str, Any]] = UNET

    def weights(self) -> Mapping[str, Path]:
        files = super().weights()
        if (side := FACTOR * int(self.read_unet_config()["sample_size"])) != self.options.size:
            raise MissingWeights(
                f"{self.name}: '{self.find_network()}' works at {side} px alone, not {self.options.size}"
            )
        return files

    def build(self, config: Mapping[str, Any]) -> Any:
        return build_unet(config)


def build_unet(config: Mapping[str, Any]) -> Any:
    """Build the UNet of a configuration, on the meta device: it has no values yet."""
    import torch
    from diffusers import UNet2DConditionModel

    from rasura.networks.inpainting.moebius import lighten_unet

    cls: Any = UNet2DConditionModel
    with torch.device("meta"):
        return lighten_unet(cls.from_config(dict(config)), EMBEDDINGS)


def moebius(name: str, files: Files, options: Options = OPTIONS) -> Moebius:
    """Create Moebius.

    Raises:
        ValueError: `files` names prompts, a LoRA or another part that it does not have.
    """
    check_parts(name, CAPABILITY, files)
    return Moebius(name, CAPABILITY, files, options)
