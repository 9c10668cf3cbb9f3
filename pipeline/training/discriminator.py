"""A discriminator's life on a run's votes: created, trained, calibrated, evaluated. The loop and the command line
share it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator import binomial, calibration, evaluation
from rasura.discriminator import dataset as examples
from rasura.discriminator import model as judges
from rasura.discriminator import train as trainer
from rasura.discriminator.calibration import Rule
from rasura.discriminator.crops import cut_crop
from rasura.discriminator.dataset import AnyExample
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.judges import battery as batteries
from rasura.discriminator.judges.base import Judge
from rasura.discriminator.judges.battery import Battery, TrueTriplet
from rasura.discriminator.judges.ensemble import Ensemble
from rasura.discriminator.judges.folder import create_ensemble, open_judge
from rasura.discriminator.model import Discriminator
from rasura.discriminator.network import Config, WrongDiscriminator
from rasura.discriminator.train import Settings
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.pca_codec import Pca
from rasura.networks.trainer import OnProgress
from rasura.pipeline.report import loop_charts

Array = npt.NDArray[Any]

CODEC_PICTURES = 512
"""Pictures that the linear codec of the preset `tiny` is fitted on, at most."""
BATCH_ROWS = 64
"""Candidates that are read, and by a tiny discriminator scored, at a time."""
SIDES = "votes.json"
"""In a discriminator's folder: how the votes' scenes were divided, so that later commands divide them likewise."""
EVALUATION, CHART = "evaluation.json", "evaluation.svg"


def open_discriminator(folder: Path, base: Path | None) -> Judge:
    """Open a discriminator of any backend for candidates that come in a fixed order.

    A tiny one takes many of them at a time: on a CPU that is four times as fast as one by one, and because the batches
    are always the same, so are the scores.

    Raises:
        WrongDiscriminator: the folder has no discriminator, or one of another base.
    """
    judge = open_judge(folder, base)
    if isinstance(judge, Discriminator) and judge.config.preset == "tiny":
        return replace(judge, batch=BATCH_ROWS)
    return judge


def create_discriminator(
    config: Config, votes: Sequence[AnyExample], base: Path | None, prompts: Path | None, seed: int
) -> Discriminator:
    """Create a discriminator that has learned nothing yet.

    Args:
        votes: candidates whose sources the linear codec of the preset `tiny` is fitted on.
        base: SDXL-inpainting's folder, for the other presets.
        prompts: file of the empty prompt's embeddings; None: they are made by the base's own text encoders.

    Raises:
        WrongDiscriminator: a preset that needs a base has none.
        MissingWeights: files of the base are missing.
    """
    if config.preset == "tiny":
        step = max(1, len(votes) // CODEC_PICTURES)
        chosen = [vote.load() for vote in votes[::step][:CODEC_PICTURES]]
        crops = [crop_source(config, example) for example in chosen]
        return judges.create_tiny(Pca.fit(crops, config.channels), config, seed)
    if base is None:
        raise WrongDiscriminator(
            f"a discriminator of preset '{config.preset}' builds on SDXL-inpainting: name its folder with --base"
        )
    config = replace(config, unet=_read_shape(config.unet, base))
    return judges.create_on_base(config, base, _load_prompt(base, prompts), seed=seed)


def _read_shape(unet: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the shape of a UNet with the values of the base's own, so that a smaller base is a base too."""
    file = base / "unet" / "config.json"
    values = json.loads(file.read_text()) if file.is_file() else {}
    shape = {name: values.get(name, value) for name, value in unet.items()}
    return {name: tuple(value) if isinstance(unet[name], tuple) else value for name, value in shape.items()}


def _load_prompt(base: Path, prompts: Path | None) -> dict[str, Any]:
    import torch

    from rasura.removers.diffusion import conditioning

    cpu = torch.device("cpu")
    encoded = conditioning.load(prompts) if prompts else conditioning.encode(base, "", None, cpu, torch.float32)
    return {"tokens": encoded.tokens, "pooled": encoded.get_pooled()[0]}


def crop_source(config: Config, example: examples.Example) -> Array:
    """Crop a candidate's source as a discriminator gets it: (size, size, 3) uint8."""
    return cut_crop(example.source, example.target, example.mask, config.size, config.view, config.context).source


def train(
    discriminator: Discriminator,
    votes: Sequence[AnyExample],
    settings: Settings,
    out: Path,
    division: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train a discriminator and write it. A training that fails before its first checkpoint leaves no folder behind.

    Args:
        division: how the scenes of all votes were divided. It is put into `votes.json` before anything else, so that
            no discriminator is ever without it.

    Returns:
        A summary of the training.

    Raises:
        SingleClassVotes: nothing can be learned from the votes.
        TrainingFailed: the loss is not a number, or the folder has another training.
    """
    examples.check_examples(votes, "votes to learn from")
    is_new = not out.exists()
    try:
        if division is not None and not (out / SIDES).exists():
            out.mkdir(parents=True, exist_ok=True)
            (out / SIDES).write_text(json.dumps(division, indent=2) + "\n")
        return trainer.train(discriminator, votes, settings, out, on_progress)
    except (TrainingFailed, SingleClassVotes):
        if is_new and not (out / "checkpoint.json").exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def compute_logits(discriminator: Judge, votes: Sequence[AnyExample], on_progress: OnProgress | None = None) -> Array:
    """Compute the logits (n,) of candidates, whose pictures are read a few at a time.

    Args:
        on_progress: receives the number of candidates that are scored, of all, and a note.

    Returns:
        The logits; NaN for candidates about which a judge that is no network gave no usable answer.

    Raises:
        WrongDiscriminator: some are not numbers, or none is.
    """
    parts = []
    for start in range(0, len(votes), BATCH_ROWS):
        batch = [vote.load() for vote in votes[start : start + BATCH_ROWS]]
        crops = [discriminator.preprocess(example.source, example.target, example.mask) for example in batch]
        parts.append(discriminator.compute_logits(crops))
        if on_progress:
            on_progress(start + len(batch), len(votes), "")
    logits = np.concatenate(parts) if parts else np.zeros(0)
    bad = int((~np.isfinite(logits)).sum())
    if bad and (isinstance(discriminator, Discriminator) or bad == len(logits)):
        raise WrongDiscriminator(f"the discriminator gives no number for {bad} of {len(logits)} candidates")
    return logits


def select_answered(votes: Sequence[AnyExample], logits: Array) -> tuple[list[AnyExample], Array]:
    """Select the votes on candidates that a judge has a logit for, and these logits."""
    return [vote for vote, logit in zip(votes, logits, strict=True) if not np.isnan(logit)], logits[~np.isnan(logits)]


def _columns(votes: Sequence[AnyExample]) -> tuple[Array, Array, list[str], list[str]]:
    """Return votes, weights, removers and scenes, one entry a candidate."""
    shares, weights = np.array([vote.vote for vote in votes], float), np.array([vote.weight for vote in votes], float)
    return shares, weights, [vote.remover for vote in votes], [vote.scene for vote in votes]


def calibrate(
    discriminator: Judge,
    folder: Path,
    votes: Sequence[AnyExample],
    method: Literal["temperature", "scaling", "isotonic"] = "scaling",
    precision_target: float = calibration.PRECISION_TARGET,
    confidence: float = binomial.CONFIDENCE,
    best: bool = True,
    on_progress: OnProgress | None = None,
) -> Rule:
    """Put calibration and thresholds into a discriminator's folder, from votes that it did not learn from.

    Args:
        best: count each scene's best candidate alone, for a loop that keeps one a scene.

    Raises:
        SingleClassVotes: nothing can be calibrated on the votes.
        WrongDiscriminator: scores are not numbers.
    """
    examples.check_examples(votes, "votes to calibrate on")
    votes, logits = select_answered(votes, compute_logits(discriminator, votes, on_progress))
    shares, weights, removers, scenes = _columns(votes)
    complete = np.array([vote.complete for vote in votes])
    rule = calibration.calibrate(
        logits, shares, removers, scenes if best else None, method, precision_target, confidence, weights, complete
    )
    calibration.write_rule(rule, folder)
    return rule


def evaluate(
    discriminator: Judge,
    rule: Rule,
    votes: Sequence[AnyExample],
    out: Path,
    overall: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Evaluate a discriminator on votes that neither training nor calibration has used.

    It writes `evaluation.json` and `evaluation.svg`: ranking, calibration, and whether the precision target holds.

    Args:
        overall: one threshold for all removers, in place of one for each.

    Raises:
        SingleClassVotes: nothing can be evaluated on the votes.
        WrongDiscriminator: scores are not numbers.
    """
    examples.check_examples(votes, "votes to evaluate on")
    votes, logits = select_answered(votes, compute_logits(discriminator, votes, on_progress))
    shares, _, removers, scenes = _columns(votes)
    probabilities = rule.calibration(logits, removers)
    report = evaluation.evaluate(probabilities, shares, removers)
    picked = calibration.pick_best_of_scenes(probabilities, scenes) if rule.picked else np.arange(len(shares))
    decisions = np.array([rule.decide(float(probabilities[k]), removers[k], overall) for k in picked])
    kept = picked[decisions == "keep"]
    yes = int((shares[kept] > 0.5).sum())
    low, high = binomial.compute_interval(yes, len(kept)) if len(kept) else (0.0, 1.0)
    report["promise"] = {
        "promise": rule.precision_target,
        "of": len(picked),
        "kept": len(kept),
        "people": int((decisions == "people").sum()),
        "yes": yes,
        "precision": yes / len(kept) if len(kept) else None,
        "low": low,
        "high": high,
    }
    threshold = (len(kept) / len(picked), yes / len(kept)) if len(kept) else None
    reliability = [(entry["score"], entry["yes"]) for entry in report["reliability"]]
    curve = [(point["kept"], point["precision"]) for point in report["curve"]]
    chart = loop_charts.draw_discriminator(reliability, curve, threshold)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((CHART, chart), (EVALUATION, json.dumps(report, indent=2, allow_nan=False) + "\n")):
        part = out / f"{name}.part"
        part.write_text(text)
        part.replace(out / name)
    return report


def combine(
    members: Sequence[Path],
    base: Path | None,
    votes: Sequence[AnyExample],
    out: Path,
    on_progress: OnProgress | None = None,
) -> list[float]:
    """Create an ensemble whose weights are fitted to votes that neither calibrate nor evaluate it later.

    Returns:
        The weight of each member.

    Raises:
        SingleClassVotes: nothing can be fitted to the votes.
        WrongDiscriminator: a member is no judge.
    """
    examples.check_examples(votes, "votes to fit the weights to")
    judge = Ensemble([open_discriminator(member, base) for member in members], [1.0] * len(members))
    logits = []
    for start in range(0, len(votes), BATCH_ROWS):
        batch = [vote.load() for vote in votes[start : start + BATCH_ROWS]]
        crops = [judge.preprocess(example.source, example.target, example.mask) for example in batch]
        logits.append(judge.compute_member_logits(crops))
        if on_progress:
            on_progress(start + len(batch), len(votes), "")
    shares, weights, _, _ = _columns(votes)
    table = np.concatenate(logits)
    answered = np.isfinite(table).all(axis=1)
    return create_ensemble(out, members, table[answered], shares[answered], weights[answered])


def check(
    folder: Path, base: Path | None, triplets: Sequence[TrueTriplet], on_progress: OnProgress | None = None
) -> Battery:
    """Run the battery of a discriminator of any backend, and put the result into its folder.

    Raises:
        FailedCheck: there are too few triplets.
    """
    battery = batteries.run_battery(open_discriminator(folder, base), triplets, on_progress)
    batteries.write_battery(battery, folder)
    return battery
