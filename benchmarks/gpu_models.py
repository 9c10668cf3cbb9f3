"""Networks with random weights: scores and candidates a second beside RORem's way, same card, same run.

    python -m benchmarks gpu_models

On a CUDA card at SDXL's full size and 512 px, else at tiny size, where the numbers only say that it runs. RORem's way
is what its scripts do: one candidate at a time, both text encoders loaded and run for each, the whole UNet in memory,
the VAE in float32 because SDXL's asks for it. Prints one JSON line.
"""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import say

SECONDS = float(os.environ.get("RASURA_BENCH_SECONDS", "10"))
BATCH = int(os.environ.get("RASURA_BENCH_BATCH", "0"))

# SDXL's two text encoders and its VAE, by their published configurations
ENCODER = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
           "num_attention_heads": 12, "projection_dim": 768}  # fmt: skip
ENCODER_2 = {"vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
             "num_attention_heads": 20, "projection_dim": 1280, "hidden_act": "gelu"}  # fmt: skip
VAE = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
       "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4,
       "scaling_factor": 0.13025, "force_upcast": True}  # fmt: skip


def filled(module: Any, device: Any, dtype: Any) -> Any:
    """A module that was made on the meta device, with small random numbers."""
    import torch

    module = module.to_empty(device=device).to(dtype)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point():
                # a norm's weights are near one, or deep random networks run to infinity
                value.normal_(1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.02)
            else:
                value.copy_(torch.arange(value.numel(), device=device).view(value.shape))
    return module.eval().requires_grad_(False)


def rate(work: Callable[[], int], device: Any) -> tuple[float, float]:
    """Pieces a second over some seconds, and the most memory that was held meanwhile, MiB (0 on a CPU)."""
    import torch

    cuda = device.type == "cuda"
    for _ in range(2):
        work()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        done += work()
        if cuda:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return done / seconds, torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0


def flops(work: Callable[[], int]) -> float:
    """Floating-point operations of one piece."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        pieces = work()
    return counter.get_total_flops() / pieces


def peak(device: Any, dtype: Any) -> float:
    """Operations a second of a large matrix product: what the card reaches, not what its data sheet says."""
    import torch

    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def work() -> int:
        for _ in range(8):
            left @ right
        return 8

    return rate(work, device)[0] * 2 * side**3


def scenes(count: int, size: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Random pictures, other ones, and a square mask."""
    rng = np.random.default_rng(0)
    sources, targets = (list(rng.integers(0, 256, (count, size, size, 3), np.uint8)) for _ in range(2))
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    return sources, targets, [mask] * count


def main() -> None:
    import torch
    from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from rasura.discriminator import network
    from rasura.discriminator.model import Judge
    from rasura.networks.pca_codec import Vae
    from rasura.removers import rorem, sdxl
    from rasura.removers.conditioning import Conditioning

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    half, theirs = (torch.bfloat16, torch.float16) if cuda else (torch.float32, torch.float32)
    if cuda:
        torch.backends.cudnn.benchmark = True
        unet, vae, encoders, size, batch = network.SDXL_UNET, VAE, (ENCODER, ENCODER_2), 512, BATCH or 32
    else:
        torch.set_num_threads(1)
        from support import tiny_models

        small = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "projection_dim": 32}  # fmt: skip
        vae = VAE | {"block_out_channels": (8, 8, 8, 16), "norm_num_groups": 4, "layers_per_block": 1}
        unet, encoders, size, batch = tiny_models.UNET, (small, small), 128, BATCH or 4
    width = unet["cross_attention_dim"]
    pooled_width = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]

    def made(kind: Any, dtype: Any, **config: Any) -> Any:
        with torch.device("meta"):
            return filled(kind(**config), device, dtype)

    def text(dtype: Any) -> list[Any]:
        found = []
        for kind, config in zip((CLIPTextModel, CLIPTextModelWithProjection), encoders, strict=True):
            with torch.device("meta"):
                found.append(filled(kind(CLIPTextConfig(**config)), device, dtype))
        return found

    tokens = torch.randn(1, 77, width, device=device, dtype=half)
    pooled = torch.randn(1, pooled_width, device=device, dtype=half)
    ids = torch.ones(1, 77, dtype=torch.long, device=device)
    sources, targets, masks = scenes(batch, size)

    # ours: half a UNet, no encoder, batches
    config = network.Config(unet=unet, size=size)
    judging = filled(network.build(config, "meta"), device, half)
    eye = made(AutoencoderKL, half, **vae)
    eye.decoder = torch.nn.Identity()
    if cuda:
        judging, eye = (one.to(memory_format=torch.channels_last) for one in (judging, eye))
    judge: Any = Judge(config, judging, Vae(eye), tokens, pooled, device, half, batch)
    views = [judge.see(*one) for one in zip(sources, targets, masks, strict=True)]

    def score() -> int:
        judge.logits(views)
        return batch

    result: dict[str, Any] = {"weights": "random", "device": torch.cuda.get_device_name() if cuda else "cpu"}
    result |= {"size": size, "batch": batch, "type": str(half).removeprefix("torch.")}
    result["scores_per_s"], result["scores_mib"] = rate(score, device)
    result["score_tflop"] = flops(score) / 1e12
    best = peak(device, half)
    result["peak_tflop_per_s"] = best / 1e12
    result["scores_share_of_peak"] = result["scores_per_s"] * result["score_tflop"] * 1e12 / best
    judge.network = judge.codec = judging = eye = None
    gc.collect()
    torch.cuda.empty_cache()

    # RORem's: one at a time, everything loaded
    whole = made(UNet2DConditionModel, theirs, **unet)
    old = network.Config(unet=unet, size=size, feed="source", head="rorem" if size == 512 else "pooled")
    judging = filled(network.build(old, "meta"), device, theirs)
    for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        setattr(judging, name, getattr(whole, name))
    eye = made(AutoencoderKL, torch.float32, **vae)
    reading = text(theirs)

    def score_as_rorem() -> int:
        with torch.inference_mode():
            states = [one(ids, output_hidden_states=True).hidden_states[-2] for one in reading]
            one, other = (sdxl.to_tensor([picture], device, torch.float32) for picture in (sources[0], targets[0]))
            latents = [sdxl.encode(eye, pixels).to(theirs) for pixels in (one, other)]
            hole = sdxl.latent_hole(torch.from_numpy(masks[0][None, None]).to(device, theirs), latents[0].shape[2:])
            said = torch.cat(states, dim=-1)
            judging(latents[1], hole, latents[0], said, pooled.to(theirs)).item()
        return 1

    result["rorem_scores_per_s"], result["rorem_scores_mib"] = rate(score_as_rorem, device)
    result["times_rorem"] = result["scores_per_s"] / result["rorem_scores_per_s"]
    result["memory_of_rorem"] = result["scores_mib"] / max(1.0, result["rorem_scores_mib"])
    judging = None
    gc.collect()

    # four steps: ours in batches, RORem's one by one with the encoders run for each
    said = Conditioning(tokens, pooled, torch.zeros_like(tokens), torch.zeros_like(pooled))
    count = max(1, batch // 4)
    options = rorem.LCM_OPTIONS

    def fills(number: int, dtype: Any, eye_type: Any, before: Callable[[], Any]) -> Callable[[], int]:
        parts = sdxl.Parts(whole.to(dtype), eye.to(eye_type), LCMScheduler(), said.to(device, dtype), device, dtype)

        def work() -> int:
            before()
            sdxl.fill(parts, options, sources[:number], masks[:number], list(range(number)))
            return number

        return work

    def read() -> None:
        with torch.inference_mode():
            for one in reading:
                one(ids, output_hidden_states=True)

    as_rorem = fills(1, theirs, torch.float32, read)
    result["rorem_candidates_per_s"], result["rorem_candidates_mib"] = rate(as_rorem, device)
    reading.clear()
    gc.collect()
    torch.cuda.empty_cache()
    if cuda:
        whole, eye = (one.to(memory_format=torch.channels_last) for one in (whole, eye))
    ours = fills(count, half, half, lambda: None)
    result["candidates_per_s"], result["candidates_mib"] = rate(ours, device)
    result["candidates_share_of_peak"] = result["candidates_per_s"] * flops(ours) / best
    result["candidates_batch"] = count
    say("gpu_models", **{key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()})


if __name__ == "__main__":
    main()
