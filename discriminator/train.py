"""Training of a judge: one file that reads from top to bottom.

What a step sees follows from the seed and the step's number alone, so a run that was killed goes on from its last
checkpoint to the same weights, bit for bit, as one that was not (same machine type, same threads).
"""

import importlib.util
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator import dataset as examples
from rasura.discriminator import evaluation, network
from rasura.discriminator import model as judges
from rasura.discriminator.crops import View
from rasura.discriminator.dataset import Voted
from rasura.discriminator.model import Judge
from rasura.manifests.ids import stable_hash
from rasura.networks.checkpoint import Checkpoint, TrainingFailed

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """How it is trained. Defaults: RORem's for a LoRA on SDXL; the preset `tiny` learns with `TINY`.

    learn: a LoRA and the head, the head alone, or everything.
    negatives: share of accepted candidates of a batch that are spoiled on purpose (`negatives.py`).
    flip, turn, recolour, dilate: how candidates are varied (`examples.varied`).
    held: share of scenes that are held out for early stopping. patience: evaluations without a better one.
    """

    steps: int = 15_000
    batch: int = 32
    rate: float = 1e-5
    warm_up: int = 500
    decay: bool = False
    weight_decay: float = 1e-2
    clip: float = 1.0
    learn: Literal["lora", "head", "all"] = "lora"
    negatives: float = 0.25
    flip: bool = True
    turn: bool = False
    recolour: bool = False
    dilate: float = 0.05
    held: float = 0.1
    evaluate_every: int = 250
    patience: int = 10
    checkpoint_every: int = 500
    precision: str = "no"
    save_memory: bool = False
    seed: int = 0


TINY = Settings(
    steps=7500,
    batch=16,
    rate=2e-3,
    warm_up=50,
    decay=True,
    learn="all",
    turn=True,
    recolour=True,
    evaluate_every=1500,
    checkpoint_every=500,
)

BEST = "best.safetensors"
"""In a training's folder: the weights that did best on the votes held out."""
HELD_BATCH = 64
"""Held-out candidates at a time: alone, as they are scored on a CPU, they would cost as much as the training."""


def train(judge: Judge, given: Sequence[Voted], settings: Settings, out: Path) -> dict[str, Any]:
    """Trains a judge, writes it to `out`, and says how it went. Called again on the same folder it goes on.

    Args:
        judge: from `judge.tiny`, `judge.on_base` or `judge.load(…, train=True)`; it is changed.
        given: votes; a share of their scenes is held out, for stopping only. Calibrate on others.

    Raises:
        OneClass: nothing can be learned from the votes. TrainingFailed: the loss is not a number.
    """
    import torch
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    # what is learned from and what stops it
    learn, held = examples.by_scene(given, settings.held, settings.seed)
    examples.check(learn, "votes to learn from")
    if held:
        examples.check(held, "votes held out for stopping")
    held_views = [judge.see(one.source, one.target, one.mask) for one in (vote.load() for vote in held)]

    # what learns
    if settings.learn == "lora" and not network.has_lora(judge.network):
        network.add_lora(judge.network, settings.seed)
    elif settings.learn != "lora":
        network.unfreeze(judge.network, everything=settings.learn == "all")
    if settings.save_memory:
        network.checkpoint_blocks(judge.network)
    names = [name for name, value in judge.network.named_parameters() if value.requires_grad]
    parameters = dict(judge.network.named_parameters())
    for name in names:
        parameters[name].data = parameters[name].data.float()  # half-precision weights lose small steps
    optimizer = torch.optim.AdamW(
        [parameters[name] for name in names], lr=settings.rate, weight_decay=settings.weight_decay, fused=True
    )

    # where it runs: one process or many, by how the program was started
    out.mkdir(parents=True, exist_ok=True)
    tracked = importlib.util.find_spec("tensorboard") is not None
    AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
    accelerator: Any = Accelerator(
        mixed_precision="bf16" if judge.dtype == torch.bfloat16 else settings.precision,
        cpu=judge.device.type == "cpu",
        log_with="tensorboard" if tracked else None,
        project_dir=out,
    )
    if tracked:
        accelerator.init_trackers("judge")
    model, optimizer = accelerator.prepare(judge.network, optimizer)
    rank, world = accelerator.process_index, accelerator.num_processes

    # where it stands
    made_with = {"settings": asdict(settings), "config": judge.config.to_json(), "votes": digest(given)}
    state = Checkpoint(out, made_with, beside=(BEST,))
    progress = Progress(**state.load(parameters, names, optimizer, writes=accelerator.is_main_process))
    started = time.monotonic()
    while progress.step < settings.steps and progress.since_best < settings.patience:
        # the step's candidates, some spoiled, all varied: from the seed and the step's number alone
        views, votes, weights = batch(judge, learn, settings, progress.step, rank, world)
        with torch.no_grad():
            feed = judge.feed(views)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(settings, progress.step)
        logits = model(*feed, judge.tokens, judge.pooled).float()
        loss = loss_of(logits, votes.to(logits.device), weights.to(logits.device), judge.config.link)
        if not math.isfinite(loss.item()):
            raise TrainingFailed(
                f"the loss is {loss.item()} at step {progress.step}; the last checkpoint is of step {state.saved}. "
                f"A smaller rate than {settings.rate} or another precision than '{settings.precision}' may help"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_([parameters[name] for name in names], settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        progress.loss = 0.98 * progress.loss + 0.02 * loss.item() if progress.loss else loss.item()

        last = progress.step == settings.steps
        if held and (last or progress.step % settings.evaluate_every == 0):
            found = held_out(judge, held, held_views)
            better = found["loss"] < progress.best
            progress.since_best = 0 if better else progress.since_best + 1
            progress.best, progress.best_step = (
                (found["loss"], progress.step) if better else (progress.best, progress.best_step)
            )
            if better and accelerator.is_main_process:
                keep_best(out, parameters, names)
            line = {"step": progress.step, "train_loss": progress.loss, **found}
            if accelerator.is_main_process:
                state.log(line | {"seconds": round(time.monotonic() - started, 1)})
            if tracked:
                accelerator.log({key: value for key, value in line.items() if key != "step"}, step=progress.step)
        if accelerator.is_main_process and (last or progress.step % settings.checkpoint_every == 0):
            state.save(parameters, names, optimizer, asdict(progress))

    # the best of them becomes the judge
    for tracker in accelerator.trackers:  # not `end_training`: the processes' group is not ours to end
        tracker.finish()
    accelerator.wait_for_everyone()
    if progress.best_step:
        load_best(out, parameters, names)
    about = {"settings": asdict(settings), **asdict(progress), "votes": len(learn), "held": len(held)}
    if accelerator.is_main_process:
        whole = settings.learn == "all" or judge.config.preset == "tiny"
        tensors = network.plain_state(judge.network) if whole else network.trained(judge.network)
        judges.save(judge, out, tensors, about, whole)
    return about


def batch(
    judge: Judge, learn: Sequence[Voted], settings: Settings, step: int, rank: int = 0, world: int = 1
) -> tuple[list[View], Any, Any]:
    """Views, votes and weights of one process's share of one step."""
    import torch

    views, votes, weights = [], [], []
    for place in range(rank, settings.batch, world):
        position = step * settings.batch + place
        epoch, at = divmod(position, len(learn))
        order = order_of(settings.seed, epoch, len(learn))
        rng = np.random.default_rng([settings.seed, 2, position])
        one = learn[int(order[at])].load()
        if one.vote > 0.5 and rng.random() < settings.negatives:
            one = examples.spoiled(one, learn[int(rng.integers(len(learn)))].load().source, rng)
        view = judge.see(one.source, one.target, one.mask)
        views.append(examples.varied(view, rng, settings))
        votes.append(one.vote)
        weights.append(one.weight)
    return views, torch.tensor(votes), torch.tensor(weights)


@lru_cache(maxsize=2)
def order_of(seed: int, epoch: int, count: int) -> Array:
    """In which order an epoch goes through its votes."""
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


def loss_of(logits: Any, votes: Any, weights: Any, link: str) -> Any:
    """Cross entropy for `sigmoid`, squared error of the score for `softplus`; weighted mean."""
    import torch.nn.functional as F

    if link == "sigmoid":
        each = F.binary_cross_entropy_with_logits(logits, votes, reduction="none")
    else:
        each = (F.softplus(logits) - votes) ** 2
    return (each * weights).sum() / weights.sum()


def schedule(settings: Settings, step: int) -> float:
    """Factor of the rate: up in a line, then constant, or down in a line to nothing."""
    rising = min(1.0, (step + 1) / max(1, settings.warm_up))
    falling = 1 - step / settings.steps if settings.decay else 1.0
    return rising * falling


def held_out(judge: Judge, held: Sequence[Voted], views: Sequence[View]) -> dict[str, float]:
    """Loss and ranking on votes that nothing was learned from."""
    import torch

    quick = replace(judge, batch=judge.batch or HELD_BATCH, config=replace(judge.config, looks=1))
    logits = quick.logits(views)
    votes = np.array([one.vote for one in held])
    weights = torch.tensor([one.weight for one in held]).double()
    loss = loss_of(torch.from_numpy(logits), torch.from_numpy(votes), weights, judge.config.link)
    return {"loss": float(loss), "auc": evaluation.auc(logits, votes)}


def digest(given: Sequence[Voted]) -> str:
    """What the run learns from, so that other votes do not go on with its checkpoint."""
    return stable_hash([[one.scene, one.remover, float(one.vote), float(one.weight)] for one in given])


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    loss: float = 0.0
    best: float = math.inf
    best_step: int = 0
    since_best: int = 0


def keep_best(out: Path, parameters: dict[str, Any], names: Sequence[str]) -> None:
    """Writes the weights that did best so far."""
    from safetensors.torch import save_file

    save_file({name: parameters[name].detach().cpu().contiguous() for name in names}, out / f"{BEST}.part")
    (out / f"{BEST}.part").replace(out / BEST)


def load_best(out: Path, parameters: dict[str, Any], names: Sequence[str]) -> None:
    """Puts them back."""
    from safetensors.torch import load_file

    tensors = load_file(out / BEST)
    for name in names:
        parameters[name].data.copy_(tensors[name])
