"""BrushNet: any network of Stable Diffusion 1.5 or SDXL, with a branch beside it that reads the picture and its mask.

Source: arXiv 2403.06976 and its release (code Apache-2.0). The branch is `networks/inpainting/brushnet.py`. It paints
what the prompt says into the hole and is no remover; for removal its authors advise the weights that were trained on
random masks, a prompt that describes the empty scene, and the object's word as the negative prompt. The weights for
segmentation masks and for random masks have one architecture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from rasura.removers.base import Capability, Filled
from rasura.removers.diffusion import loop
from rasura.removers.diffusion.loop import Options, Parts
from rasura.removers.diffusion.remover import DiffusionRemover, Files
from rasura.removers.diffusion.sd15 import UNET_PARAMETERS, VAE_PARAMETERS

Array = npt.NDArray[Any]

CAPABILITY = Capability(
    "inserter",
    None,
    True,
    "none stated (code Apache-2.0; its base CreativeML Open RAIL-M)",
    name="BrushNet",
    needs_weights=True,
    parameters=UNET_PARAMETERS - 5 * 9 * 320 + 618_830_080 + VAE_PARAMETERS,
)
XL_CAPABILITY = replace(
    CAPABILITY,
    name="BrushNet XL",
    licence="none stated (code Apache-2.0; its base CreativeML Open RAIL++-M)",
    parameters=2_567_463_684 + 373_332_480 + VAE_PARAMETERS,
)
OPTIONS = Options(size=512, steps=50, guidance=7.5, start="noise", source="black", scheduler="UniPCMultistepScheduler")
XL_OPTIONS = replace(OPTIONS, size=1024, scheduler="DPMSolverMultistepScheduler")

BLUR = 21
"""Side of the Gaussian kernel by which BrushNet's script softens the hole, px."""


def blend(picture: Array, fill: Array, hole: Array) -> Array:
    """Return a picture with a fill in its hole and, falling off, around it: as BrushNet's script does.

    m = 1 - (1 - hole) (1 - blurred hole); fill · m + picture · (1 - m).

    Args:
        picture, fill: (h, w, 3) uint8. hole: (h, w) bool.

    Examples:
        >>> hole = np.zeros((60, 60), bool)
        >>> hole[20:40, 20:40] = True
        >>> row = blend(np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 200, np.uint8), hole)[30, :, 0]
        >>> int(row[5]), 0 < row[18] < 200, int(row[20])
        (0, np.True_, 200)
    """
    mask = hole.astype(np.float64)
    blurred = np.asarray(cv2.GaussianBlur(mask * 255, (BLUR, BLUR), 0)) / 255
    weight = (1 - (1 - mask) * (1 - blurred))[..., None]
    return np.asarray((picture * (1 - weight) + fill * weight).astype(np.uint8))


class BranchedRemover(DiffusionRemover):
    """A remover with a BrushNet beside a UNet of four channels."""

    channels = 4
    has_attention: ClassVar[bool] = False

    def __init__(self, name: str, capability: Capability, files: Files, options: Options) -> None:
        if files.brushnet is None:
            raise ValueError(f"remover '{name}' needs the folder or file of its BrushNet (`brushnet:`)")
        super().__init__(name, capability, files, options)
        self.brushnet = files.brushnet

    def weights(self) -> Mapping[str, Path]:
        from rasura.networks.inpainting.brushnet import find_file

        return {**super().weights(), "brushnet": find_file(self.brushnet)}

    def open_unet(self, dtype: Any) -> Any:
        from rasura.networks.inpainting.brushnet import BranchedUnet, open_brushnet

        unet = super().open_unet(dtype)
        brushnet = open_brushnet(self.brushnet, self.read_unet_config(), self.has_attention, dtype)
        return BranchedUnet(unet, brushnet, self.options.brushnet_scale)


class BrushNetRemover(BranchedRemover):
    """BrushNet on SDXL; its results are blended as in its script."""

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """Fill one full batch of pictures of one size, and blend the fills into them."""
        fills = loop.fill(parts, self.options, pictures, holes, seeds)
        return [blend(*values) for values in zip(pictures, fills, holes, strict=True)]


class Sd15BrushNetRemover(BrushNetRemover):
    """BrushNet on Stable Diffusion 1.5."""

    family = "Stable Diffusion 1.5"


def brushnet(name: str, files: Files, options: Options = OPTIONS) -> BrushNetRemover:
    """Create BrushNet on Stable Diffusion 1.5.

    Raises:
        ValueError: `files` names no BrushNet.
    """
    return Sd15BrushNetRemover(name, CAPABILITY, files, options)


def brushnet_xl(name: str, files: Files, options: Options = XL_OPTIONS) -> BrushNetRemover:
    """Create BrushNet on SDXL.

    Raises:
        ValueError: `files` names no BrushNet.
    """
    return BrushNetRemover(name, XL_CAPABILITY, files, options)
