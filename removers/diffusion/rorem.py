"""SDXL-inpainting as it is, and RORem: the same network, fine-tuned on removals that people accepted.

Sources: `diffusers/stable-diffusion-xl-1.0-inpainting-0.1`; RORem (arXiv 2501.00740) and its release.
"""

from dataclasses import replace

from rasura.removers.base import Capability
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import DiffusionRemover, Files

PROMPT = "4K, high quality, masterpiece, Highly detailed, Sharp focus, Professional, photorealistic, realistic"
NEGATIVE = "low quality, worst, bad proportions, blurry, extra finger, Deformed, disfigured, unclear background"
"""The prompts of RORem's release. It runs them at guidance 1, where the negative one does nothing."""

PARAMETERS = 2_567_478_084 + 83_653_863
"""Of SDXL-inpainting's UNet and VAE."""

# It paints something new into the hole four times in five (RORem's Table 2: 15.8 % of its removals are removals).
SDXL_INPAINT = Capability(
    "inserter",
    None,
    False,
    "CreativeML Open RAIL++-M",
    name="SDXL-inpainting",
    needs_weights=True,
    parameters=PARAMETERS,
)
ROREM = Capability(
    "remover",
    None,
    False,
    "Apache-2.0 by its README; the repository has no licence file",
    name="RORem",
    needs_weights=True,
    parameters=PARAMETERS,
)

SDXL_OPTIONS = Options(size=1024, steps=50, guidance=7.5)
ROREM_OPTIONS = Options(size=512, steps=50, guidance=1.0)
LCM_OPTIONS = Options(size=512, steps=4, guidance=1.0, scheduler="LCMScheduler")


def sdxl_inpaint(name: str, files: Files, options: Options = SDXL_OPTIONS) -> DiffusionRemover:
    """Create SDXL-inpainting: the base of the family, a poor remover, and the start of RORem's training."""
    return DiffusionRemover(name, SDXL_INPAINT, files, options)


def rorem(name: str, files: Files, options: Options = ROREM_OPTIONS) -> DiffusionRemover:
    """Create RORem: `files.unet` is its UNet, everything else is the base's.

    Raises:
        ValueError: `files` names no UNet.
    """
    if files.unet is None:
        raise ValueError(f"remover '{name}' is RORem: name its UNet (`unet:`), or it is the base alone")
    return DiffusionRemover(name, ROREM, files, options)


def rorem_lcm(name: str, files: Files, options: Options = LCM_OPTIONS) -> DiffusionRemover:
    """Create RORem in four steps: its UNet with the distilled LoRA fused, and the latent consistency scheduler.

    Raises:
        ValueError: the UNet or the LoRA is missing, or guidance would be used: the LoRA has it built in.
    """
    if files.unet is None or files.lora is None:
        raise ValueError(f"remover '{name}' is RORem in four steps: name its UNet (`unet:`) and its LoRA (`lora:`)")
    if options.guidance > 2:
        raise ValueError(f"remover '{name}': guidance {options.guidance} on a distilled network burns; use 1 to 2")
    return DiffusionRemover(name, ROREM, files, replace(options, scheduler="LCMScheduler"))
