"""Training of a discriminator: one file that reads from top to bottom.

A step's candidates follow from the seed and the step's number alone, so a training that was killed goes on from its
last checkpoint to the same weights, bit for bit, as one that was not (same machine type, same threads).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.discriminator import evaluation, model, network
from rasura.discriminator.crops import Crop
from rasura.discriminator.dataset import AnyExample, check_examples, split_by_scene, spoil, vary
from rasura.discriminator.ladders import compute_order_loss, list_pairs, make_ladder
from rasura.discriminator.model import Discriminator
from rasura.manifests.ids import hash_json
from rasura.networks import lora
from rasura.networks.setting_types import Batch, Count, Number, PositiveNumber, Precision, Seed, Share, WholeNumber
from rasura.networks.tracking import Tracker, list_effective
from rasura.networks.trainer import Evaluation, OnProgress, Trainer

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a training. Defaults: RORem's for a LoRA on SDXL; the preset `tiny` learns with `TINY`.

    learn: a LoRA and the head, the head alone, or everything.
    negatives: share of accepted candidates of a batch that are spoiled on purpose (`augment.py`).
    ladders: share of accepted candidates of a batch that come with three worse versions each (`ladders.py`).
    flip, turn, recolour, dilate: variation of the candidates (`dataset.vary`).
    held: share of scenes that are held out for early stopping. patience: evaluations without a better one.
    tracker: where loss and measurements are shown beside `log.jsonl`.
    """

    steps: Count = 15_000
    batch: Batch = 32
    rate: PositiveNumber = 1e-5
    warm_up: WholeNumber = 500
    decay: bool = False
    weight_decay: Number = 1e-2
    clip: PositiveNumber = 1.0
    learn: Literal["lora", "head", "all"] = "lora"
    negatives: Share = 0.25
    ladders: Share = 0.3
    flip: bool = True
    turn: bool = False
    recolour: bool = False
    dilate: Share = 0.05
    held: Annotated[float, Field(ge=0, lt=1)] = 0.1
    evaluate_every: Count = 250
    patience: Count = 10
    checkpoint_every: Count = 500
    precision: Precision = "no"
    save_memory: bool = False
    seed: Seed = 0
    tracker: Tracker = "none"


TINY = Settings(
    steps=6500,
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
"""File of a training's folder with the weights that were best on the held-out votes."""
HELD_BATCH = 64
"""Held-out candidates in one run: one by one, as on a CPU, they would cost as much as the training."""


def train(
    discriminator: Discriminator,
    examples: Sequence[AnyExample],
    settings: Settings,
    out: Path,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train a discriminator and write it to `out`. Called again on the same folder it goes on.

    Args:
        discriminator: from `model.create_tiny`, `model.create_on_base` or `model.load(…, train=True)`; it is changed.
        examples: votes; a share of their scenes is held out, for stopping only. Calibrate on others.

    Returns:
        A summary of the training.

    Raises:
        SingleClassVotes: nothing can be learned from the votes.
        TrainingFailed: the loss is not a number, or the folder holds another training.
    """
    # the votes to learn from, and those that stop the training
    learned, held_out = split_by_scene(examples, settings.held, settings.seed)
    check_examples(learned, "votes to learn from")
    if held_out:
        check_examples(held_out, "votes held out for stopping")
    loaded = (example.load() for example in held_out)
    held_out_crops = [discriminator.preprocess(example.source, example.target, example.mask) for example in loaded]

    # the parameters that learn
    prepare_network(discriminator, settings)
    config = discriminator.config
    identity = {"settings": list_effective(settings), "config": config.to_json(), "votes": hash_examples(examples)}
    trainer = Trainer(
        discriminator.network,
        settings,
        out,
        identity,
        name="judge",
        device=discriminator.device,
        dtype=discriminator.dtype,
        smoothing=0.02,
        fused=True,
        best=BEST,
    )

    def compute_step_loss(module: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        crops, votes, weights, pairs = draw_batch(discriminator, learned, settings, step, rank, world)
        logits = module(*discriminator.encode(crops), discriminator.tokens, discriminator.pooled).float()
        return compute_loss(logits[: len(votes)], votes, weights, config.link) + compute_order_loss(logits, pairs)

    def measure() -> dict[str, float]:
        return measure_held_out(discriminator, held_out, held_out_crops)

    stopping = Evaluation(measure, settings.evaluate_every, settings.patience) if held_out else None
    trainer.fit(compute_step_loss, stopping, on_progress=on_progress)

    # the best parameters become the discriminator
    progress, settings_used = asdict(trainer.progress), list_effective(settings)
    about = {"settings": settings_used, **progress, "votes": len(learned), "held": len(held_out)}
    trainer.write(lambda: save(discriminator, settings, out, about))
    return about


def prepare_network(discriminator: Discriminator, settings: Settings) -> None:
    """Let the parameters of `Settings.learn` require gradients, and save memory where it is set."""
    if settings.learn == "lora" and not lora.has_lora(discriminator.network):
        network.add_lora(discriminator.network, settings.seed)
    elif settings.learn != "lora":
        network.unfreeze_parameters(discriminator.network, everything=settings.learn == "all")
    if settings.save_memory:
        network.enable_checkpointing(discriminator.network)


def save(discriminator: Discriminator, settings: Settings, out: Path, about: dict[str, Any]) -> None:
    """Write a trained discriminator: all of it, or the LoRA and the head where a published base is under them."""
    is_complete = settings.learn == "all" or discriminator.config.preset == "tiny"
    collect = lora.compute_plain_state if is_complete else lora.collect_trainable
    model.save(discriminator, out, collect(discriminator.network), about, is_complete)


class Draw(NamedTuple):
    """One process's share of a step.

    crops: the candidates with votes first, then the lower steps of ladders. votes, weights: (n,) of the first n.
    pairs: indices of a better and a worse crop.
    """

    crops: list[Crop]
    votes: "torch.Tensor"
    weights: "torch.Tensor"
    pairs: list[tuple[int, int]]


def draw_batch(
    discriminator: Discriminator,
    examples: Sequence[AnyExample],
    settings: Settings,
    step: int,
    rank: int = 0,
    world: int = 1,
) -> Draw:
    """Draw one process's share of one step, some candidates spoiled, some with a ladder, all varied."""
    import torch

    crops, votes, weights, ladders = [], [], [], []
    for place in range(rank, settings.batch, world):
        position = step * settings.batch + place
        epoch, index = divmod(position, len(examples))
        order = shuffle_epoch(settings.seed, epoch, len(examples))
        rng = np.random.default_rng([settings.seed, 2, position])
        example = examples[int(order[index])].load()
        if example.vote > 0.5 and rng.random() < settings.negatives:
            example = spoil(example, examples[int(rng.integers(len(examples)))].load().source, rng)
        variation = deepcopy(rng)  # a ladder is varied as one: only its order differs
        crop = discriminator.preprocess(example.source, example.target, example.mask)
        crops.append(vary(crop, rng, settings))
        votes.append(example.vote)
        weights.append(example.weight)
        if example.vote > 0.5 and rng.random() < settings.ladders:
            other = examples[int(rng.integers(len(examples)))].load().source
            steps = [
                discriminator.preprocess(example.source, worse, example.mask)
                for worse in make_ladder(example, other, rng)
            ]
            ladders.append((len(crops) - 1, [vary(worse, deepcopy(variation), settings) for worse in steps]))
    pairs = []
    for top, steps in ladders:
        pairs += list_pairs([top, *range(len(crops), len(crops) + len(steps))])
        crops += steps
    return Draw(crops, torch.tensor(votes), torch.tensor(weights), pairs)


@lru_cache(maxsize=2)
def shuffle_epoch(seed: int, epoch: int, count: int) -> Array:
    """Return the order (count,) in which an epoch goes through its votes."""
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


def compute_loss(logits: "torch.Tensor", votes: "torch.Tensor", weights: "torch.Tensor", link: str) -> "torch.Tensor":
    """Return the weighted mean of the cross entropy for `sigmoid`, of the score's squared error for `softplus`.

    Args:
        logits, votes, weights: (n,); votes are shares of yes.
    """
    import torch.nn.functional as F

    votes, weights = votes.to(logits.device), weights.to(logits.device)
    if link == "sigmoid":
        losses = F.binary_cross_entropy_with_logits(logits, votes, reduction="none")
    else:
        losses = (F.softplus(logits) - votes) ** 2
    return (losses * weights).sum() / weights.sum()


def measure_held_out(
    discriminator: Discriminator, examples: Sequence[AnyExample], crops: Sequence[Crop]
) -> dict[str, float]:
    """Measure loss and ranking on votes that nothing was learned from."""
    import torch

    config = replace(discriminator.config, looks=1)
    logits = replace(discriminator, batch=discriminator.batch or HELD_BATCH, config=config).compute_logits(crops)
    votes = np.array([example.vote for example in examples])
    weights = torch.tensor([example.weight for example in examples]).double()
    loss = compute_loss(torch.from_numpy(logits), torch.from_numpy(votes), weights, config.link)
    return {"loss": float(loss), "auc": evaluation.compute_auc(logits, votes)}


def hash_examples(examples: Sequence[AnyExample]) -> str:
    """Hash the votes, so that a training on other votes does not go on with a checkpoint."""
    return hash_json(
        [[example.scene, example.remover, float(example.vote), float(example.weight)] for example in examples]
    )
