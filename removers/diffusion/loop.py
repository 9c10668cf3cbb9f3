"""The denoising loop of the latent inpainting networks: SDXL, Stable Diffusion 1.5, and what is built on them.

Each step's input is [noisy latents (4), hole (1), latents of the source (4)]; a network that wants another order or
polarity converts it at its own boundary. Three things keep the object from shining through: the hole of the source is
grey, black or filled from its rim (a network that needs the object, ObjectClear, sees the whole); all requested steps
are run from the first timestep (a `strength` below 1, the usual default, skips one and starts from the object's own
latents); and noise is added at the start to a picture whose hole was filled from its rim, or to nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from rasura.networks.finite import to_uint8
from rasura.networks.pca_codec import decode_latents, encode_pixels
from rasura.removers.diffusion.conditioning import Conditioning

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

HOLE_AND_SOURCE = 9
"""Channels of an input of the loop: noisy latents, hole, and latents of the source."""

HoleColour = Literal["masked", "black", "filled", "whole"]
Task = Literal["object-removal", "image-outpainting", "shape-guided", "text-guided"]
"""Tasks of PowerPaint."""


@dataclass(frozen=True)
class Options:
    """Options of running a model.

    guidance: classifier-free guidance; 1 is none, and then the negative prompt does nothing.
    start: `prefill` adds the first step's noise to the picture with its hole filled from the rim; `noise` is pure.
    source: picture in the last four channels; its hole is grey (`masked`), `black`, `filled` from its rim, or not
        hidden at all (`whole`).
    scheduler: name of a scheduler of diffusers in place of the base's.
    batch: pictures in one run of the network. A short batch is filled up, so that a result does not depend on the
        number of pictures beside it.
    dtype: float32, bfloat16 or float16. compile: let torch compile the UNet (minutes at first, then faster).
    task, fitting: of PowerPaint. brushnet_scale: factor of what a BrushNet adds.
    """

    size: int = 512
    steps: int = 50
    guidance: float = 1.0
    prompt: str = ""
    negative: str | None = None
    start: Literal["noise", "prefill"] = "prefill"
    source: HoleColour = "masked"
    scheduler: str | None = None
    batch: int = 1
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    task: Task = "object-removal"
    fitting: float = 1.0
    brushnet_scale: float = 1.0


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
    """Return uint8 pictures of (n, 3, h, w) in [-1, 1].

    Raises:
        NotFinite: a value is not finite.
    """
    return [to_uint8(values) for values in (pixels.float() / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()]


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


def hide_hole(pixels: "torch.Tensor", mask: "torch.Tensor", filled: "torch.Tensor", colour: HoleColour) -> Any:
    """Return pictures (n, 3, h, w) in [-1, 1] as the network sees them.

    Args:
        pixels: (n, 3, h, w) in [-1, 1]. mask: (n, 1, h, w), 1 = hole.
        filled: (n, 3, h, w), the same pictures with their holes filled from the rim.
        colour: see `Options.source`.
    """
    if colour == "whole":
        return pixels
    if colour == "filled":
        return filled
    return pixels * (1 - mask) - mask if colour == "black" else pixels * (1 - mask)


def condition_unet(parts: Parts, text: "torch.Tensor", is_guided: bool, shape: Sequence[int]) -> dict[str, Any]:
    """Return the UNet's arguments beside its input and the time: the text, and SDXL's pooled text and sizes.

    Args:
        text: (n, 77, d), the prompt's tokens; with the negative prompt's before them where `is_guided`.
        shape: height and width of the latents.
    """
    import torch

    conditioning = parts.conditioning
    count = len(text)
    if is_guided:
        text = torch.cat([conditioning.negative_tokens.expand(count, -1, -1), text])
    if conditioning.pooled is None or conditioning.negative_pooled is None:  # Stable Diffusion 1.5 has neither
        return {"encoder_hidden_states": text}
    pooled = conditioning.pooled.expand(count, -1)
    if is_guided:
        pooled = torch.cat([conditioning.negative_pooled.expand(count, -1), pooled])
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    size = (shape[0] * factor, shape[1] * factor)
    ids = torch.tensor([[*size, 0, 0, *size]], device=text.device, dtype=text.dtype).expand(len(text), -1)
    return {"encoder_hidden_states": text, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}


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
    reference: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Return the latents after all the scheduler's steps; the UNet is run once for each of its timesteps.

    Args:
        latents: (n, 4, h, w), already at the first timestep's noise.
        hole: (n, 1, h, w), 1 = hole.
        source: (n, 4, h, w).
        tokens: (n, 77, d) in place of the prompt's own.
        before, after: called around each step with its number; `after` returns the latents to go on with.
        reference: (n, r, w), tokens for a UNet with a reference adapter; guidance leads away from zeros.
    """
    import inspect

    import torch

    text = parts.conditioning.tokens.expand(len(latents), -1, -1) if tokens is None else tokens
    is_guided = options.guidance > 1
    arguments = condition_unet(parts, text, is_guided, latents.shape[2:])
    if reference is not None:
        both = torch.cat([torch.zeros_like(reference), reference]) if is_guided else reference
        arguments["cross_attention_kwargs"] = {"reference": both}
    condition = torch.cat([hole, source], dim=1)
    condition = torch.cat([condition, condition]) if is_guided else condition
    extra = {"generator": list(generators)} if "generator" in inspect.signature(parts.scheduler.step).parameters else {}
    for step, time in enumerate(parts.scheduler.timesteps):
        if before:
            before(step)
        noisy = parts.scheduler.scale_model_input(torch.cat([latents, latents]) if is_guided else latents, time)
        inputs = torch.cat([noisy.to(parts.dtype), condition], dim=1)
        predicted = parts.unet(inputs, time, **arguments, return_dict=False)[0]
        if is_guided:
            without, towards = predicted.chunk(2)
            predicted = without + options.guidance * (towards - without)
        latents = parts.scheduler.step(predicted, time, latents, **extra, return_dict=False)[0].to(parts.dtype)
        if after:
            latents = after(step, latents)
    return latents


def fill(
    parts: Parts,
    options: Options,
    pictures: Sequence[Array],
    holes: Sequence[Array],
    seeds: Sequence[int],
    shrink: "Callable[[torch.Tensor, Sequence[int]], torch.Tensor]" = resize_hole,
    reference: "torch.Tensor | None" = None,
) -> list[Array]:
    """Fill pictures of one size, (h, w, 3) uint8 each; sides are multiples of 8.

    Args:
        shrink: makes the hole of the latents, see `resize_hole`.
        reference: see `denoise`.
    """
    import torch

    with torch.inference_mode():
        pixels = to_tensor(pictures, parts.device, parts.dtype)
        mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
        filled = pixels
        if options.start == "prefill" or options.source == "filled":
            filled = to_tensor(prefill(pictures, holes), parts.device, parts.dtype)
        source = encode_pixels(parts.vae, hide_hole(pixels, mask, filled, options.source)).to(parts.dtype)
        noise, generators = draw_noise(seeds, source.shape[1:])
        noise = noise.to(parts.device, parts.dtype)
        parts.scheduler.set_timesteps(options.steps, device=parts.device)
        if options.start == "noise":
            latents = noise * parts.scheduler.init_noise_sigma
        else:
            first = parts.scheduler.timesteps[:1].expand(len(noise))
            latents = parts.scheduler.add_noise(encode_pixels(parts.vae, filled).to(parts.dtype), noise, first)
        hole = shrink(mask, source.shape[2:])
        latents = denoise(parts, options, latents, hole, source, generators, reference=reference)
        return to_pictures(decode_latents(parts.vae, latents))
