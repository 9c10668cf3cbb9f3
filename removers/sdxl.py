"""The SDXL-inpainting family: one denoising loop over a 9-channel UNet, whatever weights and scheduler stand in it.

Each step's input is [noisy latents (4), hole (1), latents of the source (4)]; the source's hole is grey unless the
model wants to see the object (ObjectClear). Three things keep the object from shining through: the hole of the
conditioning is grey, all the steps that were asked for are run from the first timestep (a `strength` below 1, the
usual default, drops one and starts from the object's own latents), and what the noise is added to at the start is a
picture whose hole was filled from its rim, or nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks import lora
from rasura.networks.diffusers_files import MissingWeights, config_of, model_files, open_model
from rasura.networks.weights import device_and_type
from rasura.removers import conditioning
from rasura.removers.base import Capability, Filled
from rasura.removers.conditioning import Conditioning

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

HOLE_AND_SOURCE = 9
AT_ONCE = 4
"""Pictures that the VAE takes at once: its memory grows faster than the UNet's."""


@dataclass(frozen=True)
class Files:
    """Where a model of the family lies.

    base: folder in diffusers' layout (unet, vae, scheduler, text_encoder, text_encoder_2, tokenizer, tokenizer_2).
    unet, vae: folders that take the place of the base's. lora: file folded into the UNet.
    prompts: file of embeddings (`conditioning.save`) that takes the place of the text encoders.
    """

    base: Path
    unet: Path | None = None
    vae: Path | None = None
    lora: Path | None = None
    prompts: Path | None = None


@dataclass(frozen=True)
class Options:
    """How it is run.

    guidance: classifier-free guidance; 1 is none, and then the negative prompt does nothing.
    start: `prefill` adds the first step's noise to the picture with its hole filled from the rim; `noise` is pure.
    source: what the last four channels show; `masked` has a grey hole.
    batch: pictures in one run of the network. A short batch is filled up, so that what a picture gives does not
        depend on how many came with it.
    dtype: float32, bfloat16 or float16. compile: let torch compile the UNet (minutes at first, then faster).
    """

    size: int = 512
    steps: int = 50
    guidance: float = 1.0
    prompt: str = ""
    negative: str | None = None
    start: Literal["noise", "prefill"] = "prefill"
    source: Literal["masked", "whole"] = "masked"
    scheduler: str | None = None
    batch: int = 1
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False


@dataclass
class Parts:
    """What is in memory while it runs: no text encoder."""

    unet: Any
    vae: Any
    scheduler: Any
    conditioning: Conditioning
    device: Any
    dtype: Any


def to_tensor(pictures: Sequence[Array], device: Any, dtype: Any) -> "torch.Tensor":
    """(n, 3, h, w) in [-1, 1] from uint8 pictures of one size."""
    import torch

    stacked = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    return (torch.from_numpy(stacked).to(device).float() / 255 * 2 - 1).to(dtype)


def to_pictures(pixels: "torch.Tensor") -> list[Array]:
    """uint8 pictures from (n, 3, h, w) in [-1, 1]."""
    scaled = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8))


def encode(vae: Any, pixels: "torch.Tensor") -> "torch.Tensor":
    """Scaled latents, the distribution's mode: a sample would add noise that no one asked for."""
    import torch

    parts = [vae.encode(pixels[k : k + AT_ONCE].to(vae.dtype)) for k in range(0, len(pixels), AT_ONCE)]
    latents: torch.Tensor = torch.cat([part.latent_dist.mode() for part in parts]) * vae.config.scaling_factor
    return latents


def decode(vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
    """Pixels (n, 3, h, w) of scaled latents."""
    import torch

    codes = (latents / vae.config.scaling_factor).to(vae.dtype)
    parts = [vae.decode(codes[k : k + AT_ONCE], return_dict=False)[0] for k in range(0, len(codes), AT_ONCE)]
    return torch.cat(parts)


def latent_hole(holes: "torch.Tensor", shape: Sequence[int]) -> "torch.Tensor":
    """(n, 1, h/8, w/8) of (n, 1, h, w): the nearest pixel, as these networks were trained."""
    import torch.nn.functional as F

    return F.interpolate(holes, size=tuple(shape))


def prefilled(pictures: Sequence[Array], holes: Sequence[Array]) -> list[Array]:
    """Pictures with the hole continued from its rim: nothing of what stood in it is left."""
    return [
        np.asarray(cv2.inpaint(np.ascontiguousarray(picture), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))
        for picture, hole in zip(pictures, holes, strict=True)
    ]


def noise_for(seeds: Sequence[int], shape: Sequence[int]) -> tuple["torch.Tensor", list["torch.Generator"]]:
    """Noise (n, *shape) float32, each picture's from its own generator, which goes on to serve the scheduler.

    On the CPU, so that it is the same on every device.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(tuple(shape), generator=one) for one in generators]), generators


def denoise(
    parts: Parts,
    options: Options,
    latents: "torch.Tensor",
    hole: "torch.Tensor",
    source: "torch.Tensor",
    generators: Sequence["torch.Generator"],
    tokens: "torch.Tensor | None" = None,
    after: "Callable[[int, torch.Tensor], torch.Tensor] | None" = None,
    before: Callable[[int], None] | None = None,
) -> "torch.Tensor":
    """Latents after all the scheduler's steps; it runs the UNet exactly `options.steps` times.

    Args:
        latents: (n, 4, h, w), already at the first timestep's noise. hole: (n, 1, h, w). source: (n, 4, h, w).
        tokens: (n, 77, d) in place of the prompt's own. before, after: called around each step.
    """
    import inspect

    import torch

    count = len(latents)
    text = parts.conditioning.tokens.expand(count, -1, -1) if tokens is None else tokens
    pooled = parts.conditioning.pooled.expand(count, -1)
    guided = options.guidance > 1
    if guided:
        text = torch.cat([parts.conditioning.negative_tokens.expand(count, -1, -1), text])
        pooled = torch.cat([parts.conditioning.negative_pooled.expand(count, -1), pooled])
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
    ids = torch.tensor([[*size, 0, 0, *size]], device=latents.device, dtype=text.dtype).expand(len(text), -1)
    given = torch.cat([hole, source], dim=1)
    given = torch.cat([given, given]) if guided else given
    extra = {"generator": list(generators)} if "generator" in inspect.signature(parts.scheduler.step).parameters else {}
    for step, time in enumerate(parts.scheduler.timesteps):
        if before:
            before(step)
        noisy = parts.scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, time)
        predicted = parts.unet(
            torch.cat([noisy.to(parts.dtype), given], dim=1),
            time,
            encoder_hidden_states=text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
            return_dict=False,
        )[0]
        if guided:
            without, towards = predicted.chunk(2)
            predicted = without + options.guidance * (towards - without)
        latents = parts.scheduler.step(predicted, time, latents, **extra, return_dict=False)[0].to(parts.dtype)
        if after:
            latents = after(step, latents)
    return latents


def fill(
    parts: Parts, options: Options, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
) -> list[Array]:
    """Filled pictures of one size, (h, w, 3) uint8 each; sides are multiples of 8."""
    import torch

    with torch.inference_mode():
        pixels = to_tensor(pictures, parts.device, parts.dtype)
        mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
        source = encode(parts.vae, pixels * (1 - mask) if options.source == "masked" else pixels).to(parts.dtype)
        noise, generators = noise_for(seeds, source.shape[1:])
        noise = noise.to(parts.device, parts.dtype)
        parts.scheduler.set_timesteps(options.steps, device=parts.device)
        if options.start == "noise":
            latents = noise * parts.scheduler.init_noise_sigma
        else:
            known = encode(parts.vae, to_tensor(prefilled(pictures, holes), parts.device, parts.dtype))
            first = parts.scheduler.timesteps[:1].expand(len(noise))
            latents = parts.scheduler.add_noise(known.to(parts.dtype), noise, first)
        latents = denoise(parts, options, latents, latent_hole(mask, source.shape[2:]), source, generators)
        return to_pictures(decode(parts.vae, latents))


class Sdxl:
    """A remover of this family. Loaded in `setup`, run in batches of equal size."""

    def __init__(self, name: str, capability: Capability, files: Files, options: Options) -> None:
        self.name = name
        self.capability = replace(capability, native_size=options.size)
        self.files = files
        self.options = options
        self.parts: Parts | None = None

    def folder(self, part: str) -> Path:
        """Where a part of it lies."""
        return {"unet": self.files.unet, "vae": self.files.vae}.get(part) or self.files.base / part

    def weights(self) -> Mapping[str, Path]:
        """Raises MissingWeights where a file is not there."""
        found = {
            f"{part}/{name}": path for part in ("unet", "vae") for name, path in model_files(self.folder(part)).items()
        }
        found["scheduler"] = self.files.base / "scheduler" / "scheduler_config.json"
        if self.files.prompts:
            found["prompts"] = self.files.prompts
        else:
            found |= conditioning.encoder_files(self.files.base)
        if self.files.lora:
            found["lora"] = self.files.lora
        for name, path in found.items():
            if not path.is_file():
                raise MissingWeights(f"{self.name}: no {name} at {path}")
        channels = config_of(self.folder("unet")).get("in_channels")
        if channels != HOLE_AND_SOURCE:
            raise MissingWeights(f"{self.name}: the UNet in {self.folder('unet')} takes {channels} channels, not 9")
        return found

    def setup(self) -> None:
        import torch

        device, dtype = device_and_type(self.options.device, self.options.dtype)
        if self.files.prompts:
            said = conditioning.load(self.files.prompts)
        else:
            said = conditioning.encode(self.files.base, self.options.prompt, self.options.negative, device, dtype)
        unet = open_model("UNet2DConditionModel", self.folder("unet"), dtype)
        if self.files.lora:
            lora.fuse(unet, lora.read(self.files.lora))
        vae_folder = self.folder("vae")
        # SDXL's own VAE overflows in float16 and says so in its config; the repaired one does not
        overflows = dtype == torch.float16 and config_of(vae_folder).get("force_upcast", True)
        vae = open_model("AutoencoderKL", vae_folder, torch.float32 if overflows else dtype)
        if device.type == "cuda":  # convolutions in tensor cores want the channels last; on a CPU it only costs
            unet, vae = unet.to(memory_format=torch.channels_last), vae.to(memory_format=torch.channels_last)
        unet = unet.to(device)
        if self.options.compile:
            unet.compile()
        self.parts = Parts(unet, vae.to(device), self.scheduler(), said.to(device, dtype), device, dtype)

    def scheduler(self) -> Any:
        """The base's scheduler, or the one that the options name with the base's settings."""
        import diffusers

        home = self.files.base / "scheduler"
        config = diffusers.EulerDiscreteScheduler.load_config(home, local_files_only=True)
        kind = self.options.scheduler or config["_class_name"]
        return getattr(diffusers, kind).from_config(config)

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """One full batch."""
        return fill(parts, self.options, pictures, holes, seeds)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """As `Remover.fill`. A short batch repeats its last picture: rounding depends on a batch's size."""
        if self.parts is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        done: dict[int, Array | Filled] = {}
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(index)
        for indices in by_size.values():
            for start in range(0, len(indices), self.options.batch):
                here = indices[start : start + self.options.batch]
                full = here + here[-1:] * (self.options.batch - len(here))
                made = self.run(
                    self.parts, [pictures[k] for k in full], [holes[k] for k in full], [seeds[k] for k in full]
                )
                done |= dict(zip(here, made, strict=False))
        return [done[index] for index in range(len(pictures))]
