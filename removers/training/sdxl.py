"""SDXL-inpainting as a network to be trained: opened from its folder, written as a UNet's folder or a LoRA's file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasura.networks import lora
from rasura.networks.pca_codec import Vae, open_vae
from rasura.networks.pretrained import MissingWeights, open_diffusers, read_config
from rasura.networks.weights import pick_device_and_dtype
from rasura.removers.diffusion import conditioning
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.diffusion.loop import HOLE_AND_SOURCE
from rasura.removers.diffusion.remover import Files
from rasura.removers.training.train import Learner, write_unet

LORA_FILE, RECORD = "lora.safetensors", "training.json"


def open_learner(files: Files, device: str = "auto", dtype: str = "auto", prompt: str = "") -> Learner:
    """Open an SDXL-inpainting model, ready to be trained. Its text encoders are used once and released.

    Raises:
        MissingWeights: a file is missing, the UNet takes other than 9 channels, or it does not predict noise.
        WrongLora: `files.lora` cannot be read.
    """
    torch_device, torch_dtype = pick_device_and_dtype(device, dtype)
    start = lora.read(files.lora) if files.lora else None
    unet_folder, vae_folder = files.unet or files.base / "unet", files.vae or files.base / "vae"
    if (channels := read_config(unet_folder).get("in_channels")) != HOLE_AND_SOURCE:
        raise MissingWeights(f"the UNet in {unet_folder} takes {channels} channels, not {HOLE_AND_SOURCE}")
    embeddings = (
        conditioning.load(files.prompts)
        if files.prompts
        else conditioning.encode(files.base, prompt, None, torch_device, torch_dtype)
    )
    unet = open_diffusers("UNet2DConditionModel", unet_folder, torch_dtype).to(torch_device)
    vae = Vae(open_vae(vae_folder, torch_dtype).to(torch_device))
    embeddings = embeddings.to(torch_device, torch_dtype)
    about = {"base": str(files.base), "unet": str(unet_folder)} | ({"lora": str(files.lora)} if files.lora else {})
    alphas = open_scheduler(files.base).alphas_cumprod
    return Learner(
        unet, vae, alphas, embeddings.tokens, embeddings.get_pooled()[0], torch_device, torch_dtype, save, about, start
    )


def open_scheduler(base: Path) -> Any:
    """Open the noise schedule under an SDXL folder.

    Raises:
        MissingWeights: no scheduler, or one of a model that does not predict noise.
    """
    import diffusers

    folder = base / "scheduler"
    if not (folder / "scheduler_config.json").is_file():
        raise MissingWeights(f"no scheduler in {base}: it has no scheduler/scheduler_config.json")
    cls: Any = diffusers.DDPMScheduler
    config = cls.load_config(folder, local_files_only=True)
    if (prediction := config.get("prediction_type", "epsilon")) != "epsilon":
        raise MissingWeights(
            f"the model in {base} predicts '{prediction}'; only models that predict noise ('epsilon') can be trained"
        )
    return cls.from_config(config)


def encode_guidance(files: Files, prompt: str, negative: str, prompts: Path | None, learner: Learner) -> Conditioning:
    """Return the embeddings towards and away from which a distillation's teacher is guided.

    Args:
        prompts: a file of `conditioning.save` that takes the place of the text encoders.

    Raises:
        MissingWeights: no encoders, or a file without a negative prompt.
    """
    if prompts is None:
        embeddings = conditioning.encode(files.base, prompt, negative, learner.device, learner.dtype)
    elif not prompts.is_file():
        raise MissingWeights(f"no file of prompt embeddings at {prompts}")
    else:
        embeddings = conditioning.load(prompts)
        if not embeddings.negative_tokens.any():
            raise MissingWeights(
                f"{prompts} holds one prompt; a teacher is guided from a negative one to a positive one"
            )
    return embeddings.to(learner.device, learner.dtype)


def fuse_lora(files: Files, folder: Path) -> Files:
    """Fuse the LoRA into a UNet of its own, which is written to `folder` as a whole or not at all.

    Returns:
        The files with that UNet and without a LoRA; unchanged where they had none.

    Raises:
        MissingWeights, WrongLora
    """
    import torch

    if files.lora is None:
        return files
    if not folder.is_dir():
        unet = open_diffusers("UNet2DConditionModel", files.unet or files.base / "unet", torch.float32)
        lora.fuse_file(unet, files.lora)
        part = folder.with_name(f"{folder.name}.part")
        write_unet(unet, part)
        part.replace(folder)
    return replace(files, unet=folder, lora=None)


def save(learner: Learner, out: Path, tensors: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write `lora.safetensors`, or a `unet` folder in diffusers' layout; `training.json` last."""
    from safetensors.torch import save_file

    if any(".lora_" in name for name in tensors):
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, out / LORA_FILE)
    else:
        for value in learner.unet.parameters():  # not `to`: diffusers warns of float32 layers, which SDXL has not
            value.data = value.data.to(learner.dtype)
        write_unet(learner.unet, out / "unet")
    (out / RECORD).write_text(json.dumps({**about, **learner.about}, indent=2, sort_keys=True) + "\n")
