"""A judge's life on a run's votes: made, trained, calibrated, evaluated. The command line and the loop both use it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.discriminator import calibration, evaluation
from rasura.discriminator import dataset as examples
from rasura.discriminator import model as judges
from rasura.discriminator import train as training
from rasura.discriminator.calibration import Rule
from rasura.discriminator.dataset import Voted
from rasura.discriminator.evaluation import OneClass
from rasura.discriminator.model import Judge
from rasura.discriminator.network import Config, WrongJudge
from rasura.discriminator.train import Settings
from rasura.networks.checkpoint import TrainingFailed
from rasura.pipeline.report import loop_charts

Array = npt.NDArray[Any]

FITTED = 512
"""Pictures that the linear codec of the preset `tiny` is fitted on, at most."""
AT_ONCE = 64
"""Candidates that are read, and by a tiny judge scored, at a time."""
SIDES = "votes.json"
"""In a judge's folder: how the votes' scenes were divided, so that later commands divide them in the same way."""
EVALUATION, CHART = "evaluation.json", "evaluation.svg"


def adjusted(config: Config, settings: Settings, given: Mapping[str, Any]) -> tuple[Config, Settings]:
    """A preset with what is given by name.

    Raises:
        ValueError: no such name, or a value of another type.
    """
    parts: list[Any] = [config, settings]
    known = {field.name: index for index, part in enumerate(parts) for field in fields(part)}
    for key, value in given.items():
        if key not in known or key in ("preset", "unet"):
            have = ", ".join(name for name in known if name not in ("preset", "unet"))
            raise ValueError(f"there is no '{key}'; there are {have}")
        old = getattr(parts[known[key]], key)
        if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(old):
            raise ValueError(f"{key} is {value!r}; expected something like {old!r}")
        parts[known[key]] = replace(parts[known[key]], **{key: value})
    return parts[0], parts[1]


def opened(folder: Path, base: Path | None) -> Judge:
    """A judge for votes and candidates that have an order: a tiny one takes many of them at a time, which on a CPU is
    four times as fast as one by one, and the same every time, for the batches are.

    Raises:
        WrongJudge
    """
    judge = judges.load(folder, base)
    return replace(judge, batch=AT_ONCE) if judge.config.preset == "tiny" else judge


def fresh(config: Config, learn: Sequence[Voted], base: Path | None, prompts: Path | None, seed: int) -> Judge:
    """A judge that has learned nothing yet.

    Args:
        learn: whose pictures the linear codec of the preset `tiny` is fitted on.
        base: SDXL-inpainting's folder, for the other presets. prompts: file of the empty prompt's embeddings; by
            the base's own text encoders where None.

    Raises:
        WrongJudge, MissingWeights
    """
    from rasura.networks.pca_codec import Pca
    from rasura.removers import conditioning

    if config.preset == "tiny":
        step = max(1, len(learn) // FITTED)
        loaded = [one.load() for one in learn[::step][:FITTED]]
        views = [config_view(config, one) for one in loaded]
        return judges.tiny(Pca.fit(views, config.channels), config, seed)
    if base is None:
        raise WrongJudge(f"a judge of preset '{config.preset}' stands on SDXL-inpainting: name its folder with --base")
    said = conditioning.load(prompts) if prompts else conditioning.encode(base, "", None, *_on_cpu())
    return judges.on_base(config, base, {"tokens": said.tokens, "pooled": said.pooled}, seed=seed)


def config_view(config: Config, one: examples.Example) -> Array:
    """The source of a candidate as that judge sees it."""
    from rasura.discriminator.crops import view

    return view(one.source, one.target, one.mask, config.size, config.view, config.context).source


def _on_cpu() -> tuple[Any, Any]:
    import torch

    return torch.device("cpu"), torch.float32


def train(
    judge: Judge, given: Sequence[Voted], settings: Settings, out: Path, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Trains and writes a judge. What fails before its first checkpoint leaves no folder behind.

    Args:
        told: what `votes.json` is to say of the votes' sides; written first, so that no judge is ever without it.

    Raises:
        OneClass, TrainingFailed
    """
    examples.check(given, "votes to learn from")
    new = not out.exists()
    try:
        if told is not None and not (out / SIDES).exists():
            out.mkdir(parents=True, exist_ok=True)
            (out / SIDES).write_text(json.dumps(told, indent=2) + "\n")
        return training.train(judge, given, settings, out)
    except (TrainingFailed, OneClass):
        if new and not (out / "checkpoint.json").exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def logits(judge: Judge, given: Sequence[Voted]) -> Array:
    """Logits (n,) of candidates, whose pictures are read a few at a time.

    Raises:
        WrongJudge: they are not numbers.
    """
    found = []
    for start in range(0, len(given), AT_ONCE):
        loaded = [one.load() for one in given[start : start + AT_ONCE]]
        found.append(judge.logits([judge.see(one.source, one.target, one.mask) for one in loaded]))
    made = np.concatenate(found) if found else np.zeros(0)
    if not np.isfinite(made).all():
        raise WrongJudge(f"the judge gives no number for {int((~np.isfinite(made)).sum())} of {len(made)} candidates")
    return made


def _columns(given: Sequence[Voted]) -> tuple[Array, Array, list[str], list[str]]:
    votes, weights = (np.array([getattr(one, name) for one in given], float) for name in ("vote", "weight"))
    return votes, weights, [one.remover for one in given], [one.scene for one in given]


def calibrate(
    judge: Judge,
    folder: Path,
    given: Sequence[Voted],
    method: Literal["temperature", "scaling", "isotonic"] = "scaling",
    promise: float = calibration.PROMISE,
    confidence: float = calibration.CONFIDENCE,
    best: bool = True,
) -> Rule:
    """Puts calibration and thresholds into a judge's folder, from votes it did not learn from.

    Args:
        best: count only each scene's best candidate, for a loop that keeps one.

    Raises:
        OneClass, WrongJudge; the folder is as it was.
    """
    examples.check(given, "votes to calibrate on")
    votes, weights, removers, scenes = _columns(given)
    rule = calibration.calibrate(
        logits(judge, given), votes, removers, scenes if best else None, method, promise, confidence, weights
    )
    calibration.write_rule(rule, folder)
    return rule


def evaluate(judge: Judge, rule: Rule, given: Sequence[Voted], out: Path, overall: bool = False) -> dict[str, Any]:
    """Writes `evaluation.json` and `evaluation.svg`: ranking, calibration, and whether the promise holds, on votes that
    neither training nor calibration has seen.

    Args:
        overall: the promise as it is kept with one threshold for all removers.

    Raises:
        OneClass, WrongJudge; nothing is written.
    """
    examples.check(given, "votes to evaluate on")
    votes, _, removers, scenes = _columns(given)
    probabilities = rule.calibration(logits(judge, given))
    found = evaluation.evaluate(probabilities, votes, removers)
    picked = calibration.best_of_each(probabilities, scenes) if rule.picked else np.arange(len(votes))
    decided = np.array([rule.decide(float(probabilities[k]), removers[k], overall) for k in picked])
    kept = picked[decided == "keep"]
    yes = int((votes[kept] > 0.5).sum())
    low, high = calibration.interval(yes, len(kept)) if len(kept) else (0.0, 1.0)
    found["promise"] = {
        "promise": rule.promise, "of": len(picked), "kept": len(kept), "people": int((decided == "people").sum()),
        "yes": yes, "precision": yes / len(kept) if len(kept) else None, "low": low, "high": high,
    }  # fmt: skip
    at = (len(kept) / len(picked), yes / len(kept)) if len(kept) else None
    chart = loop_charts.of_judge(
        [(one["score"], one["yes"]) for one in found["reliability"]],
        [(one["kept"], one["precision"]) for one in found["curve"]],
        at,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, text in ((CHART, chart), (EVALUATION, json.dumps(found, indent=2, allow_nan=False) + "\n")):
        part = out / f"{name}.part"
        part.write_text(text)
        part.replace(out / name)
    return found
