"""Rasura on a card, beside RORem's way: throughput, memory, share of the matrix peak, a run's GPU busy share, halving.

    python -m benchmarks gpu_run

On a CUDA card the networks have SDXL's size with random weights, and everything takes under eight minutes; elsewhere
they are tiny, and the figures only show that the benchmark runs. Prints three JSON lines:

gpu_models     scores and candidates (4 and 50 steps) per second and their memory, in batches, and one at a time with
               the whole UNet and both text encoders, as RORem's scripts do
gpu_halving    a batch that is larger than the card: the size to which it is halved; all candidates are there
gpu_run        `rasura run` with the remover in four steps: its plan, candidates per second, the share of what the
               same network reaches in a bare loop, how long the card was busy; with one worker a card and with two
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import gpu_models
from benchmarks.common import ROOT, make_scratch_folder, print_result, read_events, write_recipe
from benchmarks.gpu_models import Setup, build_module, choose_setup, free_memory, make_inputs

SAMPLE_S = 0.2
PICTURE_BYTES = 400_000_000
"""What a picture of 512 px takes at the peak of the VAE in bfloat16."""


def compute_busy_share(samples: Sequence[float]) -> float | None:
    """Return the mean of samples of a card's use in percent, from the first to the last above zero, as a share.

    Examples:
        >>> compute_busy_share([0, 0, 90, 100, 80, 0])
        0.9
        >>> compute_busy_share([]) is None
        True
    """
    busy = [index for index, sample in enumerate(samples) if sample > 0]
    if not busy:
        return None
    span = samples[busy[0] : busy[-1] + 1]
    return round(sum(span) / len(span) / 100, 3)


@contextmanager
def sample_card() -> Iterator[list[float]]:
    """Sample the use of the first card, percent, while the context lasts; nothing where there is no `nvidia-smi`."""
    samples: list[float] = []
    program, over = shutil.which("nvidia-smi"), threading.Event()
    query = [program or "", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            text = subprocess.run(query, capture_output=True, text=True).stdout.strip()
            if text.isdecimal():
                samples.append(float(text))

    thread = threading.Thread(target=sample, daemon=True)
    if program:
        thread.start()
    try:
        yield samples
    finally:
        over.set()
        if program:
            thread.join()


def write_model(setup: Setup, folder: Path) -> Path:
    """Write a remover of the SDXL family with random weights, in diffusers' layout, with embeddings of its prompt."""
    import torch
    from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel

    from rasura.removers.diffusion import conditioning

    build_module(UNet2DConditionModel, setup.unet, setup.device, setup.dtype).save_pretrained(folder / "unet")
    build_module(AutoencoderKL, setup.vae, setup.device, setup.dtype).save_pretrained(folder / "vae")
    scheduler: Any = LCMScheduler()  # type: ignore[no-untyped-call]
    scheduler.save_pretrained(folder / "scheduler")
    inputs = make_inputs(setup)
    tokens, pooled = inputs.tokens.float().cpu(), inputs.pooled.float().cpu()
    embeddings = conditioning.Conditioning(tokens, pooled, torch.zeros_like(tokens), torch.zeros_like(pooled))
    conditioning.save(embeddings, folder / "prompts.safetensors")
    free_memory()
    return folder


def measure_halving(setup: Setup, folder: Path) -> dict[str, Any]:
    """Fill more pictures at once than the card holds; return the batch that was asked for and the one that fitted."""
    import torch

    from rasura.removers.diffusion import rorem
    from rasura.removers.diffusion.loop import Options
    from rasura.removers.diffusion.remover import Files

    memory = torch.cuda.get_device_properties(0).total_memory if setup.cuda else 0
    count = max(3, int(1.5 * memory / PICTURE_BYTES))
    scenes = gpu_models.make_scenes(count, setup.size)
    options = Options(size=setup.size, steps=4, batch=count)
    remover = rorem.sdxl_inpaint("net", Files(folder, prompts=folder / "prompts.safetensors"), options)
    remover.setup()
    start = time.perf_counter()
    fills = remover.fill(scenes[0], scenes[2], list(range(count)))
    seconds = time.perf_counter() - start
    if len(fills) != count:
        raise SystemExit(f"{len(fills)} of {count} pictures were filled")
    del remover.parts
    free_memory()
    return {"batch": count, "fitting": remover.batch, "halved": remover.batch < count, "seconds": round(seconds, 1)}


def measure_run(setup: Setup, folder: Path, gpus: float | None) -> dict[str, Any]:
    """Run a recipe with the remover in four steps.

    Args:
        setup: of the measurement.
        folder: of the remover.
        gpus: share of a card that the recipe gives each worker; None leaves it to the plan.
    """
    rows = 256 if setup.cuda else 6
    model: dict[str, Any] = {
        "kind": "sdxl-inpaint",
        "base": str(folder),
        "prompts": str(folder / "prompts.safetensors"),
    }
    model |= {"size": setup.size, "steps": 4, "guidance": 1.0, "batch": 8 if setup.cuda else 2}
    inpaint: dict[str, Any] = {"removers": ["net"], "models": {"net": model}}
    if gpus is not None:
        inpaint["resources"] = {"gpus": gpus}
    triplets = {"synthetic:Triplet": {"reject_every": 10**6, "raise_every": 10**6}}
    source = {"synthetic:Numbers": {"count": rows, "side": setup.size}}
    flows = {"rows": {"source": source, "stages": [triplets, {"inpaint": inpaint}]}}
    with make_scratch_folder() as scratch:
        recipe = write_recipe(scratch, flows=flows, engine={"shard_rows": 8})
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        command = [sys.executable, "-m", "rasura", "run", str(recipe), "--into", str(scratch / "run")]
        with sample_card() as samples:
            done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        (flow,) = read_events(scratch / "run", "flow")
        (start,) = read_events(scratch / "run", "start")
        candidates = sum(event["rows"] for event in read_events(scratch / "run", "commit"))
    plan = next(line for line in done.stderr.splitlines() if "inpaint: " in line or ", inpaint" in line)
    rate = candidates / flow["working_seconds"]
    return {"plan": plan, "per_s": round(rate, 3), "busy": compute_busy_share(samples), "start_s": start["seconds"]}


def main() -> None:
    setup = choose_setup()
    models = gpu_models.measure_models()
    print_result("gpu_models", **models)
    free_memory()
    with make_scratch_folder() as scratch:
        folder = write_model(setup, scratch / "model")
        print_result("gpu_halving", device=models["device"], **measure_halving(setup, folder))
        free_memory()
        whole = measure_run(setup, folder, None)
        half = measure_run(setup, folder, 0.5) if setup.cuda else None
    bare = models["candidates_4_steps_per_s"]
    print_result(
        "gpu_run", device=models["device"], share_of_bare=round(whole["per_s"] / bare, 3), **whole, halves=half
    )
    if not setup.cuda:
        print("no CUDA card: tiny networks on the CPU. To be run on a card: all figures above", file=sys.stderr)


if __name__ == "__main__":
    main()
