"""PixelHacker: guided by learned embeddings of "background" and "foreground" instead of text.

Xu et al., "PixelHacker: Image Inpainting with Structural and Semantic Consistency" (arXiv 2504.20438) and its release.
A UNet of Stable Diffusion 1.5's sizes with gated linear attention in place of self-attention, on SDXL's latents. The
paper's equation 3 has two gates; the released network has the one over keys, as here.

The first ten embeddings stand for background and the last ten for foreground: its training data say so. The release's
pipeline calls them the other way round and computes the same: towards the background, away from the foreground.
Exchanged, the network would paint an object.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from rasura.networks.pretrained import MissingWeights, fill_module, read_settings, refuse_others
from rasura.networks.weights import find_single, read_tensors
from rasura.removers.base import Capability
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.diffusion.loop import HOLE_AND_SOURCE, Options
from rasura.removers.diffusion.remover import DiffusionRemover, Files, list_part, make_scheduler

UNET: Mapping[str, Any] = {
    "sample_size": 64,
    "in_channels": HOLE_AND_SOURCE,
    "out_channels": 4,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "encoder_hid_dim": 3072,
}
"""Arguments of diffusers' `UNet2DConditionModel`, as released; a `config.json` beside the weights changes them."""
EMBEDDINGS = "embedding_layer.weight"
NETWORK = "diff_model."
SCHEDULER: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
}

CAPABILITY = Capability(
    "remover",
    None,
    False,
    "MIT by its page on the hub; its code is Apache-2.0",
    name="PixelHacker",
    needs_weights=True,
    parameters=862_251_708 + 83_653_863,
)
OPTIONS = Options(size=512, steps=20, guidance=4.5, start="noise")


class PixelHacker(DiffusionRemover):
    """PixelHacker from its folder: `pretrained/` (or `unet`) with one file of weights, and `vae/`."""

    family = "Stable Diffusion 1.5"
    unet: ClassVar[Mapping[str, Any]] = UNET

    def find_network(self) -> Path:
        """Return the file of the network.

        Raises:
            BadWeights: there is none, or more than one.
        """
        return find_single(self.folder("unet"))

    def folder(self, part: str) -> Path:
        """Return the folder of a part: the UNet's is `pretrained`."""
        return self.files.unet or self.files.base / "pretrained" if part == "unet" else super().folder(part)

    def weights(self) -> Mapping[str, Path]:
        """Return the files that `setup` reads.

        Raises:
            BadWeights: a file is missing.
        """
        return {"unet": self.find_network(), **list_part(self.folder("vae"), "vae")}

    def read_unet_config(self) -> dict[str, Any]:
        """Return the UNet's configuration: the released one, and what a `config.json` beside the weights says."""
        path = self.find_network().parent / "config.json"
        stored = read_settings(path) if path.is_file() else {}
        return {**self.unet, **{name: value for name, value in stored.items() if not name.startswith("_")}}

    def encode_prompts(self, device: Any, dtype: Any) -> Conditioning:
        """Return the embeddings of background, and of foreground as the negative ones.

        Raises:
            MissingWeights: the file has none.
        """
        table = read_tensors(self.find_network()).get(EMBEDDINGS)
        if table is None or table.ndim != 2 or len(table) % 2:
            raise MissingWeights(
                f"'{self.find_network()}' is no {self.capability.name}: it lacks '{EMBEDDINGS}' (20, 3072)"
            )
        background, foreground = table.to(dtype)[None].chunk(2, dim=1)
        return Conditioning(background, None, foreground, None)

    def open_unet(self, dtype: Any) -> Any:
        """Open the network, on the CPU.

        Raises:
            MissingWeights: the file does not fit.
        """
        path, config = self.find_network(), self.read_unet_config()
        with refuse_others(path, f"a {self.capability.name}"):
            unet = self.build(config)
        tensors = {
            name.removeprefix(NETWORK): tensor
            for name, tensor in read_tensors(path).items()
            if name.startswith(NETWORK)
        }
        return fill_module(unet, tensors, path, dtype)

    def build(self, config: Mapping[str, Any]) -> Any:
        """Build the UNet of a configuration, on the meta device."""
        return build_unet(config)

    def scheduler(self) -> Any:
        """Return the release's scheduler, or the one that the options name with its settings."""
        return make_scheduler(self.options.scheduler or "DDIMScheduler", SCHEDULER, self.files.base)


def build_unet(config: Mapping[str, Any]) -> Any:
    """Build the UNet of a configuration, on the meta device: it has no values yet."""
    import torch
    from diffusers import UNet2DConditionModel

    from rasura.networks.inpainting.gated_linear_attention import replace_self_attention

    cls: Any = UNet2DConditionModel
    with torch.device("meta"):
        return replace_self_attention(cls.from_config(dict(config)), heads=config["attention_head_dim"])


def pixelhacker(name: str, files: Files, options: Options = OPTIONS) -> PixelHacker:
    """Create PixelHacker.

    Raises:
        ValueError: `files` names prompts, a LoRA or another part that it does not have.
    """
    check_parts(name, CAPABILITY, files)
    return PixelHacker(name, CAPABILITY, files, options)


def check_parts(name: str, capability: Capability, files: Files) -> None:
    """Check that no part is named that a network without text does not have.

    Raises:
        ValueError
    """
    for part in ("prompts", "lora", "brushnet", "text_encoder"):
        if getattr(files, part):
            raise ValueError(f"remover '{name}' is {capability.name}, which has no {part}")
