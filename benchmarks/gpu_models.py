"""Scores and candidates per second against RORem's scripts, on the same card in the same run, with random weights.

    python -m benchmarks gpu_models

On a CUDA card the networks have SDXL's size and 512 px; otherwise they are tiny, and the figures only show that the
benchmark runs. RORem's scripts process one candidate at a time, load both text encoders and run them for each, keep the
complete UNet in memory, and use the VAE in float32, as SDXL's configuration requires. RASURA_BENCH_SECONDS (10) and
RASURA_BENCH_BATCH (32; 4 on a CPU) change the measurement. Prints one JSON line.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.common import print_result

SECONDS = float(os.environ.get("RASURA_BENCH_SECONDS", "10"))
BATCH = int(os.environ.get("RASURA_BENCH_BATCH", "0"))

# SDXL's two text encoders and its VAE, from their published configurations
ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
ENCODER_2 = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
TINY_ENCODER = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 32,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}


def fill_random(module: Any, device: Any, dtype: Any) -> Any:
    """Move a module from the meta device to a device, with small random weights."""
    import torch

    module = module.to_empty(device=device).to(dtype)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                # weights of norms are near one, otherwise the activations of deep random networks overflow
                value.normal_(1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.02)
            else:
                value.copy_(torch.arange(value.numel(), device=device).view(value.shape))
    return module.eval().requires_grad_(False)


def measure_rate(work: Callable[[], int], device: Any) -> tuple[float, float]:
    """Measure pieces per second, and the peak of allocated memory, MiB (0 on a CPU).

    Args:
        work: processes some pieces and returns their number.
        device: on which it does.
    """
    import torch

    cuda = device.type == "cuda"
    for _ in range(2):
        work()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start, pieces = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        pieces += work()
        if cuda:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return pieces / seconds, torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0


def count_flops(work: Callable[[], int]) -> float:
    """Count the floating-point operations per piece."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        pieces = work()
    return float(counter.get_total_flops() / pieces)


def measure_peak(device: Any, dtype: Any) -> float:
    """Measure the operations per second of large matrix products, the bound that the card reaches in practice."""
    import torch

    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def work() -> int:
        for _ in range(8):
            left @ right
        return 8

    return measure_rate(work, device)[0] * 2 * side**3


def make_scenes(count: int, size: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Make random source and target pictures, (size, size, 3) uint8 each, and square masks."""
    rng = np.random.default_rng(0)
    sources, targets = (list(rng.integers(0, 256, (count, size, size, 3), np.uint8)) for _ in range(2))
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    return sources, targets, [mask] * count


def build_module(kind: Any, config: Mapping[str, Any], device: Any, dtype: Any) -> Any:
    """Build a module with random weights."""
    import torch

    with torch.device("meta"):
        module = kind(**config)
    return fill_random(module, device, dtype)


@dataclass(frozen=True)
class Setup:
    """Device, types, sizes and configurations of the measurement.

    Attributes:
        device: torch device.
        dtype: of Rasura's networks.
        rorem_dtype: of RORem's.
        unet: configuration of the UNet.
        vae: configuration of the VAE.
        encoders: configurations of the two text encoders.
        size: side of the pictures, px.
        batch: candidates per batch.
    """

    device: Any
    dtype: Any
    rorem_dtype: Any
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    encoders: tuple[Mapping[str, Any], Mapping[str, Any]]
    size: int
    batch: int

    @property
    def cuda(self) -> bool:
        """True on a CUDA card."""
        return bool(self.device.type == "cuda")


def choose_setup() -> Setup:
    """Choose full size on a CUDA card, and tiny size elsewhere."""
    import torch

    from rasura.networks.unet_config import SDXL_UNET

    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        device = torch.device("cuda")
        return Setup(device, torch.bfloat16, torch.float16, SDXL_UNET, VAE, (ENCODER, ENCODER_2), 512, BATCH or 32)
    torch.set_num_threads(1)
    from support import tiny_models

    vae = VAE | {"block_out_channels": (8, 8, 8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    device, dtype = torch.device("cpu"), torch.float32
    return Setup(device, dtype, dtype, tiny_models.UNET, vae, (TINY_ENCODER, TINY_ENCODER), 128, BATCH or 4)


@dataclass(frozen=True)
class Inputs:
    """Inputs of all networks: embeddings of a prompt, its token ids, and scenes."""

    tokens: Any
    pooled: Any
    ids: Any
    sources: list[Any]
    targets: list[Any]
    masks: list[Any]


def make_inputs(setup: Setup) -> Inputs:
    """Make random inputs."""
    import torch

    width = setup.unet["cross_attention_dim"]
    pooled_width = setup.unet["projection_class_embeddings_input_dim"] - 6 * setup.unet["addition_time_embed_dim"]
    tokens = torch.randn(1, 77, width, device=setup.device, dtype=setup.dtype)
    pooled = torch.randn(1, pooled_width, device=setup.device, dtype=setup.dtype)
    ids = torch.ones(1, 77, dtype=torch.long, device=setup.device)
    return Inputs(tokens, pooled, ids, *make_scenes(setup.batch, setup.size))


def free_memory() -> None:
    """Return the memory of deleted modules to the card."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def measure_scores(setup: Setup, inputs: Inputs) -> dict[str, float]:
    """Measure Rasura's discriminator: half a UNet, no text encoder, batches."""
    import torch
    from diffusers import AutoencoderKL

    from rasura.discriminator import network
    from rasura.discriminator.model import Discriminator
    from rasura.networks.pca_codec import Vae

    config = network.Config(unet=dict(setup.unet), size=setup.size)
    module = fill_random(network.build(config, "meta"), setup.device, setup.dtype)
    vae = build_module(AutoencoderKL, setup.vae, setup.device, setup.dtype)
    vae.decoder = torch.nn.Identity()
    if setup.cuda:
        module, vae = (part.to(memory_format=torch.channels_last) for part in (module, vae))
    discriminator: Any = Discriminator(
        config, module, Vae(vae), inputs.tokens, inputs.pooled, setup.device, setup.dtype, setup.batch
    )
    scenes = zip(inputs.sources, inputs.targets, inputs.masks, strict=True)
    crops = [discriminator.preprocess(*scene) for scene in scenes]

    def score() -> int:
        discriminator.compute_logits(crops)
        return setup.batch

    per_second, mib = measure_rate(score, setup.device)
    return {"scores_per_s": per_second, "scores_mib": mib, "score_tflop": count_flops(score) / 1e12}


@dataclass(frozen=True)
class RoremModels:
    """All networks that RORem's scripts load; the candidates of both sides are made with its UNet and VAE."""

    unet: Any
    vae: Any
    encoders: list[Any]

    def encode_prompt(self, ids: Any) -> list[Any]:
        """Run both text encoders; return the hidden states before their last layers."""
        return [encoder(ids, output_hidden_states=True).hidden_states[-2] for encoder in self.encoders]


def build_rorem_models(setup: Setup) -> RoremModels:
    """Build RORem's networks with random weights."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = build_module(UNet2DConditionModel, setup.unet, setup.device, setup.rorem_dtype)
    vae = build_module(AutoencoderKL, setup.vae, setup.device, torch.float32)
    kinds = zip((CLIPTextModel, CLIPTextModelWithProjection), setup.encoders, strict=True)
    encoders = [
        build_module(kind, {"config": CLIPTextConfig(**config)}, setup.device, setup.rorem_dtype)
        for kind, config in kinds
    ]
    return RoremModels(unet, vae, encoders)


def measure_rorem_scores(setup: Setup, inputs: Inputs, models: RoremModels) -> dict[str, float]:
    """Measure RORem's discriminator: one candidate at a time, all networks loaded."""
    import torch

    from rasura.discriminator import network
    from rasura.networks.pca_codec import encode_pixels
    from rasura.removers.diffusion import loop

    device, dtype = setup.device, setup.rorem_dtype
    head: Literal["rorem", "pooled"] = "rorem" if setup.size == 512 else "pooled"
    config = network.Config(unet=dict(setup.unet), size=setup.size, feed="source", head=head)
    module = fill_random(network.build(config, "meta"), device, dtype)
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        setattr(module, name, getattr(models.unet, name))
    pooled = inputs.pooled.to(dtype)

    def score() -> int:
        with torch.inference_mode():
            states = models.encode_prompt(inputs.ids)
            pictures = (inputs.sources[0], inputs.targets[0])
            pixels = [loop.to_tensor([picture], device, torch.float32) for picture in pictures]
            source, target = (encode_pixels(models.vae, part).to(dtype) for part in pixels)
            hole = torch.from_numpy(inputs.masks[0][None, None]).to(device, dtype)
            hole = loop.resize_hole(hole, source.shape[2:])
            module(target, hole, source, torch.cat(states, dim=-1), pooled).item()
        return 1

    per_second, mib = measure_rate(score, device)
    return {"rorem_scores_per_s": per_second, "rorem_scores_mib": mib}


def measure_candidates(setup: Setup, inputs: Inputs, models: RoremModels, peak: float) -> dict[str, float]:
    """Measure candidates in 4 and 50 steps: RORem's singly with the text encoders run for each, Rasura's in batches.

    Args:
        setup: of the measurement.
        inputs: of the networks.
        models: UNet and VAE of both; the text encoders are deleted after RORem's turn.
        peak: operations per second of the card.
    """
    import torch
    from diffusers import EulerDiscreteScheduler, LCMScheduler

    from rasura.removers.diffusion import loop, rorem
    from rasura.removers.diffusion.conditioning import Conditioning

    tokens, pooled = inputs.tokens, inputs.pooled
    conditioning = Conditioning(tokens, pooled, torch.zeros_like(tokens), torch.zeros_like(pooled))
    ways: dict[int, tuple[Any, loop.Options]] = {
        4: (LCMScheduler, rorem.LCM_OPTIONS),
        50: (EulerDiscreteScheduler, rorem.ROREM_OPTIONS),
    }

    def make_fill(steps: int, count: int, dtype: Any, vae_dtype: Any, prepare: Callable[[], Any]) -> Callable[[], int]:
        unet, vae = models.unet.to(dtype), models.vae.to(vae_dtype)
        scheduler, options = ways[steps]
        parts = loop.Parts(unet, vae, scheduler(), conditioning.to(setup.device, dtype), setup.device, dtype)

        def fill() -> int:
            prepare()
            loop.fill(parts, options, inputs.sources[:count], inputs.masks[:count], list(range(count)))
            return count

        return fill

    def encode_prompt() -> None:
        with torch.inference_mode():
            models.encode_prompt(inputs.ids)

    result: dict[str, float] = {}
    for steps in ways:
        fill = make_fill(steps, 1, setup.rorem_dtype, torch.float32, encode_prompt)
        per_second, mib = measure_rate(fill, setup.device)
        result |= {f"rorem_candidates_{steps}_steps_per_s": per_second, f"rorem_candidates_{steps}_steps_mib": mib}
    models.encoders.clear()
    free_memory()
    if setup.cuda:
        for module in (models.unet, models.vae):
            module.to(memory_format=torch.channels_last)
    count = max(1, setup.batch // 4)
    for steps in ways:
        fill = make_fill(steps, count, setup.dtype, setup.dtype, lambda: None)
        per_second, mib = measure_rate(fill, setup.device)
        result |= {
            f"candidates_{steps}_steps_per_s": per_second,
            f"candidates_{steps}_steps_mib": mib,
            f"candidates_{steps}_steps_share_of_peak": per_second * count_flops(fill) / peak,
        }
    return {**result, "candidates_batch": count}


def measure_models() -> dict[str, Any]:
    """Measure scores and candidates, Rasura's and RORem's, in this process."""
    import torch

    setup = choose_setup()
    inputs = make_inputs(setup)
    result: dict[str, Any] = {"weights": "random", "device": torch.cuda.get_device_name() if setup.cuda else "cpu"}
    result |= {"size": setup.size, "batch": setup.batch, "type": str(setup.dtype).removeprefix("torch.")}
    result |= measure_scores(setup, inputs)
    peak = measure_peak(setup.device, setup.dtype)
    result["peak_tflop_per_s"] = peak / 1e12
    result["scores_share_of_peak"] = result["scores_per_s"] * result["score_tflop"] * 1e12 / peak
    free_memory()
    models = build_rorem_models(setup)
    result |= measure_rorem_scores(setup, inputs, models)
    result["times_rorem"] = result["scores_per_s"] / result["rorem_scores_per_s"]
    result["memory_of_rorem"] = result["scores_mib"] / max(1.0, result["rorem_scores_mib"])
    free_memory()
    result |= measure_candidates(setup, inputs, models, peak)
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}


def main() -> None:
    print_result("gpu_models", **measure_models())


if __name__ == "__main__":
    main()
