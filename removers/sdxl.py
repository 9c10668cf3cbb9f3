"""The SDXL-inpainting family: one denoising loop over a 9-channel UNet, for all weights and schedulers.

Each step's input is [noisy latents (4), hole (1), latents of the source (4)]; the source's hole is grey unless the
model needs the object (ObjectClear). Three things keep the object from shining through: the hole of the conditioning is
grey; all requested steps are run from the first timestep (a `strength` below 1, the usual default, skips one and starts
from the object's own latents); and noise is added at the start to a picture whose hole was filled from its rim, or to
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks import lora
from rasura.networks.batches import run_in_batches
from rasura.networks.memory import DECODE_ELEMENTS, UNET_ELEMENTS, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.pca_codec import decode_latents, encode_pixels, open_vae
from rasura.networks.pretrained import MissingWeights, list_diffusers_files, open_diffusers, prefer_half, read_config
from rasura.networks.weights import pick_device_and_dtype
from rasura.removers import conditioning
from rasura.removers.base import Capability, Filled
from rasura.removers.conditioning import Conditioning

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

HOLE_AND_SOURCE = 9


@dataclass(frozen=True)
class Files:
    """The files of a model of the family.

    base: folder in diffusers' layout (unet, vae, scheduler, text_encoder, text_encoder_2, tokenizer, tokenizer_2).
    unet, vae: folders that take the place of the base's. lora: file fused into the UNet.
    prompts: file of embeddings (`conditioning.save`) that takes the place of the text encoders.
    """

    base: Path
    unet: Path | None = None
    vae: Path | None = None
    lora: Path | None = None
    prompts: Path | None = None


@dataclass(frozen=True)
class Options:
    """Options of running a model.

    guidance: classifier-free guidance; 1 is none, and then the negative prompt does nothing.
    start: `prefill` adds the first step's noise to the picture with its hole filled from the rim; `noise` is pure.
    source: picture in the last four channels; `masked` has a grey hole.
    batch: pictures in one run of the network. A short batch is filled up, so that a result does not depend on the
        number of pictures beside it.
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
    """The parts of a model in memory while it runs: no text encoder."""

    unet: Any
    vae: Any
    scheduler: Any
    conditioning: Conditioning
    device: Any
    dtype: Any


def to_tensor(pictures: Sequence[Array], device: Any, dtype: Any) -> "torch.Tensor":
    """Return (n, 3, h, w) in [-1, 1] of uint8 pictures of one size."""
    import torch

    stacked = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    return (torch.from_numpy(stacked).to(device).float() / 255 * 2 - 1).to(dtype)


def to_pictures(pixels: "torch.Tensor") -> list[Array]:
    """Return uint8 pictures of (n, 3, h, w) in [-1, 1]."""
    scaled = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round()
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8))


def resize_hole(holes: "torch.Tensor", shape: Sequence[int]) -> "torch.Tensor":
    """Return (n, 1, h/8, w/8) of (n, 1, h, w): the nearest pixel, as these networks were trained."""
    import torch.nn.functional as F

    return F.interpolate(holes, size=tuple(shape))


def prefill(pictures: Sequence[Array], holes: Sequence[Array]) -> list[Array]:
    """Return pictures with the hole continued from its rim: nothing of its content is left.

    Examples:
        >>> picture, hole = np.full((5, 5, 3), 7, np.uint8), np.zeros((5, 5), bool)
        >>> picture[2, 2], hole[2, 2] = 200, True
        >>> prefill([picture], [hole])[0][2, 2].tolist()
        [7, 7, 7]
    """
    return [
        np.asarray(cv2.inpaint(np.ascontiguousarray(picture), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))
        for picture, hole in zip(pictures, holes, strict=True)
    ]


def draw_noise(seeds: Sequence[int], shape: Sequence[int]) -> tuple["torch.Tensor", list["torch.Generator"]]:
    """Draw noise (n, *shape) float32, each picture's from its own generator, which the scheduler uses further.

    On the CPU, so that it is the same on every device.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators]), generators


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
    """Return the latents after all the scheduler's steps; the UNet is run exactly `options.steps` times.

    Args:
        latents: (n, 4, h, w), already at the first timestep's noise.
        hole: (n, 1, h, w).
        source: (n, 4, h, w).
        tokens: (n, 77, d) in place of the prompt's own.
        before, after: called around each step with its number; `after` returns the latents to go on with.
    """
    import inspect

    import torch

    count = len(latents)
    text = parts.conditioning.tokens.expand(count, -1, -1) if tokens is None else tokens
    pooled = parts.conditioning.pooled.expand(count, -1)
    is_guided = options.guidance > 1
    if is_guided:
        text = torch.cat([parts.conditioning.negative_tokens.expand(count, -1, -1), text])
        pooled = torch.cat([parts.conditioning.negative_pooled.expand(count, -1), pooled])
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
    ids = torch.tensor([[*size, 0, 0, *size]], device=latents.device, dtype=text.dtype).expand(len(text), -1)
    condition = torch.cat([hole, source], dim=1)
    condition = torch.cat([condition, condition]) if is_guided else condition
    extra = {"generator": list(generators)} if "generator" in inspect.signature(parts.scheduler.step).parameters else {}
    for step, time in enumerate(parts.scheduler.timesteps):
        if before:
            before(step)
        noisy = parts.scheduler.scale_model_input(torch.cat([latents, latents]) if is_guided else latents, time)
        predicted = parts.unet(
            torch.cat([noisy.to(parts.dtype), condition], dim=1),
            time,
            encoder_hidden_states=text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
            return_dict=False,
        )[0]
        if is_guided:
            without, towards = predicted.chunk(2)
            predicted = without + options.guidance * (towards - without)
        latents = parts.scheduler.step(predicted, time, latents, **extra, return_dict=False)[0].to(parts.dtype)
        if after:
            latents = after(step, latents)
    return latents


def fill(
    parts: Parts, options: Options, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
) -> list[Array]:
    """Fill pictures of one size, (h, w, 3) uint8 each; sides are multiples of 8."""
    import torch

    with torch.inference_mode():
        pixels = to_tensor(pictures, parts.device, parts.dtype)
        mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
        source = encode_pixels(parts.vae, pixels * (1 - mask) if options.source == "masked" else pixels).to(parts.dtype)
        noise, generators = draw_noise(seeds, source.shape[1:])
        noise = noise.to(parts.device, parts.dtype)
        parts.scheduler.set_timesteps(options.steps, device=parts.device)
        if options.start == "noise":
            latents = noise * parts.scheduler.init_noise_sigma
        else:
            filled = encode_pixels(parts.vae, to_tensor(prefill(pictures, holes), parts.device, parts.dtype))
            first = parts.scheduler.timesteps[:1].expand(len(noise))
            latents = parts.scheduler.add_noise(filled.to(parts.dtype), noise, first)
        latents = denoise(parts, options, latents, resize_hole(mask, source.shape[2:]), source, generators)
        return to_pictures(decode_latents(parts.vae, latents))


class Sdxl:
    """A remover of this family. Loaded in `setup`, run in batches of equal size."""

    def __init__(self, name: str, capability: Capability, files: Files, options: Options) -> None:
        self.name = name
        self.files = files
        self.options = options
        self.batch = options.batch  # less where a card's memory ended
        self.capability = replace(
            capability, native_size=options.size, steps=options.steps, memory=self._estimate_memory(capability.effects)
        )
        self.parts: Parts | None = None

    def folder(self, part: str) -> Path:
        """Return the folder of a part."""
        return {"unet": self.files.unet, "vae": self.files.vae}.get(part) or self.files.base / part

    def _estimate_memory(self, effects: bool) -> NetworkMemory:
        """Estimate the memory of UNet and VAE; the text encoders are gone when the UNet is loaded."""
        options = self.options
        folders = [self.folder(part) for part in ("unet", "vae")]
        files = [path for folder in folders for path in prefer_half(sorted(folder.glob("*.safetensors")))]
        pixels = options.batch * options.size**2 * (1.5 if effects else 1)  # of effects the whole picture is worked on
        elements = int(pixels * max(DECODE_ELEMENTS, UNET_ELEMENTS * (2 if options.guidance > 1 else 1)))
        return estimate_memory(count_parameters(files), elements, options.dtype, options.device)

    def weights(self) -> Mapping[str, Path]:
        """Return the files that `setup` reads.

        Raises:
            MissingWeights: a file is missing, or the UNet takes another number of channels.
        """
        files = {
            f"{part}/{name}": path
            for part in ("unet", "vae")
            for name, path in list_diffusers_files(self.folder(part)).items()
        }
        files["scheduler"] = self.files.base / "scheduler" / "scheduler_config.json"
        if self.files.prompts:
            files["prompts"] = self.files.prompts
        else:
            files |= conditioning.encoder_files(self.files.base)
        if self.files.lora:
            files["lora"] = self.files.lora
        for name, path in files.items():
            if not path.is_file():
                raise MissingWeights(f"{self.name}: no {name} at {path}")
        channels = read_config(self.folder("unet")).get("in_channels")
        if channels != HOLE_AND_SOURCE:
            raise MissingWeights(f"{self.name}: the UNet in {self.folder('unet')} takes {channels} channels, not 9")
        return files

    def setup(self) -> None:
        import torch

        device, dtype = pick_device_and_dtype(self.options.device, self.options.dtype)
        if self.files.prompts:
            embeddings = conditioning.load(self.files.prompts)
        else:
            embeddings = conditioning.encode(self.files.base, self.options.prompt, self.options.negative, device, dtype)
        unet = open_diffusers("UNet2DConditionModel", self.folder("unet"), dtype)
        if self.files.lora:
            lora.fuse(unet, lora.read(self.files.lora))
        vae = open_vae(self.folder("vae"), dtype)
        if device.type == "cuda":  # convolutions in tensor cores are faster with channels last; on a CPU it only costs
            unet, vae = unet.to(memory_format=torch.channels_last), vae.to(memory_format=torch.channels_last)
        unet = unet.to(device)
        if self.options.compile:
            unet.compile()
        self.parts = Parts(unet, vae.to(device), self.scheduler(), embeddings.to(device, dtype), device, dtype)

    def scheduler(self) -> Any:
        """Return the base's scheduler, or the one that the options name with the base's settings."""
        import diffusers

        folder = self.files.base / "scheduler"
        config = diffusers.EulerDiscreteScheduler.load_config(folder, local_files_only=True)
        kind = self.options.scheduler or config["_class_name"]
        return getattr(diffusers, kind).from_config(config)

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """Fill one full batch of pictures of one size."""
        return fill(parts, self.options, pictures, holes, seeds)

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """Fill as `Remover.fill` does. A short batch repeats its last picture: rounding depends on a batch's size."""
        if self.parts is None:
            raise RuntimeError(f"remover '{self.name}' was not set up")
        parts, results = self.parts, dict[int, Array | Filled]()
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pictures):
            by_size.setdefault(picture.shape, []).append(index)

        def run(batch: list[int]) -> Sequence[Array | Filled]:
            return self.run(parts, [pictures[k] for k in batch], [holes[k] for k in batch], [seeds[k] for k in batch])

        for indices in by_size.values():
            fills, self.batch = run_in_batches(run, indices, self.batch)
            results |= dict(zip(indices, fills, strict=True))
        return [results[index] for index in range(len(pictures))]
