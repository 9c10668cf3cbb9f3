"""What every training of a remover does whatever its loss is: processes, checkpoints, rates, and the log."""

import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.checkpoint import Checkpoint, TrainingFailed

if TYPE_CHECKING:
    import torch

    from rasura.removers.training.train import Settings

TRACKED = "remover"
"""Folder of the events for TensorBoard, under the training's own."""


def descend(
    unet: Any,
    device: Any,
    dtype: Any,
    settings: "Settings",
    out: Path,
    made_with: Mapping[str, Any],
    loss_of: Callable[[Any, int, int, int], "torch.Tensor"],
    finish: Callable[[Mapping[str, "torch.Tensor"]], None],
) -> None:
    """Follows a loss down, from where the last checkpoint in `out` stands.

    Several processes do it together where the program was started so (accelerate, Ray Train): each has the loss of its
    share of a step, the mean of their gradients moves all of them alike, and the first one alone writes.

    Args:
        unet: its parameters that want gradients are learned, in float32.
        loss_of: (model, step, rank, world) to the mean loss of a process's share; it may depend on nothing else, or
            a training that was killed would not go on to the same weights.
        finish: writes what was learned; given the tensors by their names.

    Raises:
        TrainingFailed: a loss that is not a number, a folder of another training, shares of unequal size.
    """
    import torch
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    # what learns
    if settings.save_memory:
        unet.enable_gradient_checkpointing()
    parameters = dict(unet.named_parameters())
    names = [name for name, value in parameters.items() if value.requires_grad]
    for name in names:
        parameters[name].data = parameters[name].data.float()  # half-precision weights lose small steps
    learned = [parameters[name] for name in names]
    optimizer = torch.optim.AdamW(learned, lr=settings.rate, weight_decay=settings.weight_decay)

    # where it runs: one process or many, by how the program was started
    tracked = importlib.util.find_spec("tensorboard") is not None
    AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
    accelerator: Any = Accelerator(
        mixed_precision="bf16" if dtype == torch.bfloat16 else settings.precision,
        cpu=device.type == "cpu",
        log_with="tensorboard" if tracked else None,
        project_dir=out,
    )
    rank, world, first = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    if settings.batch % world:
        raise TrainingFailed(f"a batch of {settings.batch} cannot be divided evenly among {world} workers")
    model, optimizer = accelerator.prepare(unet, optimizer)

    # where it stands
    out.mkdir(parents=True, exist_ok=True)
    state = Checkpoint(out, made_with)
    progress = {"step": 0, "loss": 0.0} | state.load(parameters, names, optimizer, writes=first)
    if tracked:
        accelerator.init_trackers(TRACKED)
    started = time.monotonic()
    try:
        while progress["step"] < settings.steps:
            rate = settings.rate * schedule(settings, progress["step"])
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(model, progress["step"], rank, world)
            told = accelerator.reduce(loss.detach(), "mean").item()  # of all processes, so that they stop together
            if not math.isfinite(told):
                raise TrainingFailed(
                    f"the loss is {told} at step {progress['step']}; the last checkpoint is of step {state.saved}. "
                    f"A smaller rate than {settings.rate} or another precision than '{settings.precision}' may help"
                )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(learned, settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            smooth = 0.95 * progress["loss"] + 0.05 * told if progress["step"] else told
            progress = {"step": progress["step"] + 1, "loss": smooth}

            step, last = progress["step"], progress["step"] == settings.steps
            if first and (last or step % settings.log_every == 0):
                state.log(progress | {"rate": rate, "seconds": round(time.monotonic() - started, 1)})
                if tracked:
                    accelerator.log({"loss": smooth, "rate": rate}, step=step)
            if first and (last or step % settings.checkpoint_every == 0):
                state.save(parameters, names, optimizer, progress)
    finally:
        for tracker in accelerator.trackers:  # not `end_training`: the processes' group is not ours to end
            tracker.finish()

    # what was learned becomes a remover
    accelerator.wait_for_everyone()
    if first:
        finish({name: parameters[name].detach() for name in names})
    accelerator.wait_for_everyone()


def schedule(settings: "Settings", step: int) -> float:
    """Factor of the rate: up in a line, then constant, or down in a line to nothing."""
    rising = min(1.0, (step + 1) / max(1, settings.warm_up))
    return rising * (1 - step / settings.steps if settings.decay else 1.0)
