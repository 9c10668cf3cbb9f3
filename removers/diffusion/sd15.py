"""Stable Diffusion 1.5 inpainting: what PowerPaint is fine-tuned from, and a poor remover by itself.

Source: `stable-diffusion-v1-5/stable-diffusion-inpainting` (before: `runwayml/stable-diffusion-inpainting`). One text
encoder, of which the last hidden state is used; nothing pooled, no sizes; latents scaled by 0.18215.
"""

from rasura.removers.base import Capability
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import DiffusionRemover, Files

LICENCE = "CreativeML Open RAIL-M"
VAE_PARAMETERS = 83_653_863
UNET_PARAMETERS = 859_535_364

CAPABILITY = Capability(
    "inserter",
    None,
    False,
    LICENCE,
    name="Stable Diffusion 1.5 inpainting",
    needs_weights=True,
    parameters=UNET_PARAMETERS + VAE_PARAMETERS,
)
OPTIONS = Options(size=512, steps=50, guidance=7.5, start="noise")


class Sd15(DiffusionRemover):
    """A remover on Stable Diffusion 1.5's inpainting network."""

    family = "Stable Diffusion 1.5"


def sd15(name: str, files: Files, options: Options = OPTIONS) -> Sd15:
    """Create Stable Diffusion 1.5 inpainting."""
    return Sd15(name, CAPABILITY, files, options)
