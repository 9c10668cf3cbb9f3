"""SDXL-inpainting as what is trained: opened from its folder, and written as a UNet's folder or as a LoRA's file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks import lora
from rasura.networks.diffusers_files import MissingWeights, config_of, open_model
from rasura.networks.weights import device_and_type
from rasura.removers import conditioning
from rasura.removers.conditioning import Conditioning
from rasura.removers.sdxl import HOLE_AND_SOURCE, Files, decode, encode
from rasura.removers.training.train import Learner, write_unet

if TYPE_CHECKING:
    import torch

LORA_FILE, RECORD = "lora.safetensors", "training.json"


class Autoencoder:
    """SDXL's VAE as a codec."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.channels = int(vae.config.latent_channels)
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, pixels: "torch.Tensor") -> "torch.Tensor":
        return encode(self.vae, pixels)

    def decode(self, latents: "torch.Tensor") -> "torch.Tensor":
        return decode(self.vae, latents)


def learner(files: Files, device: str = "auto", dtype: str = "auto", prompt: str = "") -> Learner:
    """An SDXL-inpainting model, ready to be trained. Its text encoders are used once and dropped.

    Raises:
        MissingWeights: a file is not there, the UNet takes other than 9 channels, or it does not predict noise.
        WrongLora: `files.lora` cannot be read.
    """
    import diffusers
    import torch

    where, kind = device_and_type(device, dtype)
    begun = lora.read(files.lora) if files.lora else None
    home, vae_home = files.unet or files.base / "unet", files.vae or files.base / "vae"
    if (channels := config_of(home).get("in_channels")) != HOLE_AND_SOURCE:
        raise MissingWeights(f"the UNet in {home} takes {channels} channels, not {HOLE_AND_SOURCE}")
    said = (
        conditioning.load(files.prompts)
        if files.prompts
        else conditioning.encode(files.base, prompt, None, where, kind)
    )
    unet = open_model("UNet2DConditionModel", home, kind).to(where)
    overflows = kind == torch.float16 and config_of(vae_home).get("force_upcast", True)
    vae = open_model("AutoencoderKL", vae_home, torch.float32 if overflows else kind).to(where)
    scheduling = files.base / "scheduler"
    if not (scheduling / "scheduler_config.json").is_file():
        raise MissingWeights(f"no scheduler in {files.base}: it has no scheduler/scheduler_config.json")
    config = diffusers.DDPMScheduler.load_config(scheduling, local_files_only=True)
    if (predicts := config.get("prediction_type", "epsilon")) != "epsilon":
        raise MissingWeights(
            f"the model in {files.base} predicts '{predicts}'; only those that predict noise are trained"
        )
    kind_of: Any = diffusers.DDPMScheduler
    scheduler = kind_of.from_config(config)
    said = said.to(where, kind)
    about = {"base": str(files.base), "unet": str(home)} | ({"lora": str(files.lora)} if files.lora else {})
    return Learner(
        unet, Autoencoder(vae), scheduler.alphas_cumprod, said.tokens, said.pooled, where, kind, save, about, begun
    )


def guides(files: Files, prompt: str, negative: str, prompts: Path | None, at: Learner) -> Conditioning:
    """What a distillation's teacher is told, and what it is told to avoid.

    Args:
        prompts: a file of `conditioning.save` that takes the place of the text encoders.

    Raises:
        MissingWeights: no encoders; or a file that says nothing of what is to be avoided.
    """
    if prompts is None:
        said = conditioning.encode(files.base, prompt, negative, at.device, at.dtype)
    elif not prompts.is_file():
        raise MissingWeights(f"no file of prompt embeddings at {prompts}")
    else:
        said = conditioning.load(prompts)
        if not said.negative_tokens.any():
            raise MissingWeights(
                f"{prompts} holds one prompt; a teacher is guided from a negative one to a positive one"
            )
    return said.to(at.device, at.dtype)


def folded(files: Files, folder: Path) -> Files:
    """The same with its LoRA folded into a UNet of its own, written to `folder` as a whole or not at all.

    Raises:
        MissingWeights, WrongLora
    """
    import torch

    if files.lora is None:
        return files
    if not folder.is_dir():
        unet = open_model("UNet2DConditionModel", files.unet or files.base / "unet", torch.float32)
        lora.fuse(unet, lora.read(files.lora))
        part = folder.with_name(f"{folder.name}.part")
        write_unet(unet, part)
        part.replace(folder)
    return replace(files, unet=folder, lora=None)


def save(made: Learner, out: Path, tensors: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """`lora.safetensors`, or a `unet` folder in diffusers' layout; `training.json` last."""
    from safetensors.torch import save_file

    if any(".lora_" in name for name in tensors):
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, out / LORA_FILE)
    else:
        for value in made.unet.parameters():  # not `to`: diffusers warns of layers that want float32; SDXL has none
            value.data = value.data.to(made.dtype)
        write_unet(made.unet, out / "unet")
    (out / RECORD).write_text(json.dumps({**about, **made.about}, indent=2, sort_keys=True) + "\n")
