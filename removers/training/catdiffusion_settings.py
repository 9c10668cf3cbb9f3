"""Settings of CATDiffusion's four trainings, and what each of them needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from rasura.networks.memory import count_parameters
from rasura.networks.pretrained import list_diffusers_files
from rasura.networks.setting_types import Batch, Number, PositiveNumber, Share, WholeNumber
from rasura.removers.training.train import Settings

Stage = Literal["1-inpainter", "1-adapter", "2-inpainter", "2-all"]
UNET, INPAINTER = "unet", "semantic_inpainter"
"""Folders of the two networks in the folder of a training."""
PARTS: Mapping[Stage, tuple[str, ...]] = {
    "1-inpainter": (INPAINTER,),
    "1-adapter": (UNET,),
    "2-inpainter": (UNET, INPAINTER),
    "2-all": (UNET, INPAINTER),
}
"""Networks that each training runs."""


@dataclass(frozen=True)
class CatSettings(Settings):
    """Settings of one of the four trainings. Defaults are the release's: 8 processes of 16 make its batch.

    stage: `1-inpainter` learns CLIP's features of the whole picture; `1-adapter` the UNet, which is shown these
        features; `2-inpainter` and `2-all` the noise, with the UNet fixed and with everything learning.
    rate: of the semantic inpainter and of the adapter. unet_rate: of the UNet's other parameters.
    drop: share of the pictures whose text and reference are left out, so that guidance has something to lead away from.
    box: share of the masks that are their box; the others are dilated by up to `dilate` px.
    """

    batch: Batch = 128
    rate: PositiveNumber = 1e-4
    warm_up: WholeNumber = 0
    weight_decay: Number = 1e-2
    flip: bool = False
    dilate: WholeNumber = 2
    save_memory: bool = True
    stage: Stage = "1-inpainter"
    unet_rate: PositiveNumber = 1e-5
    drop: Share = 0.1
    box: Share = 0.5


OWN = ("objective", "learn", "source", "large", "inside", "outside", "mask_loss", "vary_colours")
"""Settings of other trainings, which have to stay at their defaults."""


def find_misfits(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings that CATDiffusion cannot be trained with: their names, and why."""
    defaults = {entry.name: entry.default for entry in fields(settings)}
    for name in OWN:
        if (value := getattr(settings, name)) != defaults[name]:
            yield name, f"the preset catdiffusion has no such setting: leave it at {defaults[name]!r} (it is {value!r})"


def measure_training(base: Path, image_encoder: Path | None, stage: Stage, pixels: int) -> tuple[int, int, int]:
    """Return the parameters that a training loads and learns, and the pixels whose activations it keeps.

    The semantic inpainter is a little larger than CLIP's vision model, the adapter a share of the UNet; the former has
    a sixth of the UNet's activations.

    Raises:
        MissingWeights: a network is missing.
    """
    folders = [base / UNET, base / "vae", base / "text_encoder", *filter(None, [image_encoder])]
    unet, vae, text, *encoder = (count_parameters(list_diffusers_files(folder).values()) for folder in folders)
    unet, vision = int(unet * 1.06), sum(encoder)
    inpainter = int(vision * 1.08)
    if stage == "1-inpainter":
        return vision + text + inpainter, inpainter, pixels // 6
    loaded = vision + text + vae + unet
    if stage == "1-adapter":
        return loaded, unet, pixels
    return loaded + inpainter, inpainter + (unet if stage == "2-all" else 0), pixels
