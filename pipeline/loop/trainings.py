"""The steps of a loop that a worker of the cluster carries out: listing of rows, trainings, calibration.

They open networks, which the driver of a loop does not. A training's folder is in the loop's store, wherever that is.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rasura.discriminator import calibration
from rasura.discriminator import dataset as examples
from rasura.discriminator import model as judges
from rasura.discriminator.dataset import StoredExample
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.discriminator.judges import folder as judge_folders
from rasura.discriminator.judges.battery import LEAST_ROWS, FailedCheck, TrueTriplet
from rasura.discriminator.judges.folder import needs_check
from rasura.networks.memory import NetworkMemory
from rasura.networks.trainer import OnProgress
from rasura.networks.weights import resolve
from rasura.pipeline.loop.results import (
    DiscriminatorResult,
    DistillationResult,
    FinalResult,
    InitialResult,
    ThresholdResult,
    TrainingResult,
)
from rasura.pipeline.loop.selection import select_rows
from rasura.pipeline.loop.state import DISTILLED, RECIPE, Loop, discriminator_path, remover_path, round_path
from rasura.pipeline.loop.voting.human import list_votes_to_learn_from
from rasura.pipeline.recipe.positions import Positions
from rasura.pipeline.training import discriminator as discriminators
from rasura.pipeline.training import oracle
from rasura.pipeline.training import remover as removers
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.folders import open_folder
from rasura.pipeline.training.placement import estimate_discriminator_training, estimate_remover_training
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import (
    build_discriminator_settings,
    build_distillation_settings,
    build_final_settings,
    build_training_settings,
)
from rasura.pipeline.training.workers import find_rank, run_training
from rasura.removers.training.train import Item, Settings

CHECKED_TRIPLETS = 100
"""Initial triplets on which a judge that learns nothing is checked, at most."""


def list_rows(loop: Loop, number: int) -> InitialResult:
    """List the rows that the loop starts from, draws from and is tested on; no test scene is in the others."""
    recipe, reader = loop.recipe, RowReader(loop.store)
    rows = select_rows(recipe, Positions(f"{loop.store.uri}/{RECIPE}"), reader)
    for name, refs in (("initial", rows.initial), ("pool", rows.pool), ("test", rows.test)):
        loop.write_rows(name, refs)
    if recipe.remover.preset == "tiny":
        size = build_training_settings(recipe.remover, recipe.seed, tune=False).size
        pictures = [reader.read_row(ref)["source"] for ref in rows.initial[: removers.CODEC_PICTURES]]
        with tempfile.TemporaryDirectory() as folder:
            removers.fit_codec(pictures, Path(folder) / removers.CODEC, size)
            loop.store.write(removers.CODEC, (Path(folder) / removers.CODEC).read_bytes())
    return InitialResult(len(rows.initial), len(rows.pool), len(rows.test))


def list_training_set(loop: Loop, number: int) -> list[Item]:
    """List the initial triplets and those that the rounds up to this one added; of the last training, its own."""
    recipe = loop.recipe
    if recipe.final and number == recipe.last:
        tested = {ref.scene for ref in loop.read_rows("test")}
        rows = RowReader(loop.store).list_rows(recipe.final.rows, recipe.seed)
        items = removers.list_items(loop.store, [ref for ref in rows if ref.scene not in tested])
        return items + (list_training_set(loop, number - 1) if recipe.final.rounds else [])
    refs = loop.read_rows("initial")
    for earlier in range(1, number + 1):
        refs += loop.read_rows(f"{round_path(earlier)}/kept")
    return removers.list_items(loop.store, refs)


def train_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> TrainingResult:
    """Train the remover for the first time, or after a round further with the triplets that were added."""
    settings = _build_settings(loop, number)
    _run_training(partial(_train_remover, loop, number), loop, remover_path(number), settings, on_progress)
    return TrainingResult(len(list_training_set(loop, number)), settings.steps)


def finish_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> FinalResult:
    """Train the remover for the last time, on triplets of its own."""
    result = train_remover(loop, number, on_progress)
    return FinalResult(result.triplets, result.steps)


def _build_settings(loop: Loop, number: int) -> Settings:
    """Build the settings of the training after a round."""
    recipe = loop.recipe
    if recipe.final and number == recipe.last:
        return build_final_settings(recipe.remover, recipe.final, recipe.seed)
    return build_training_settings(recipe.remover, recipe.seed, tune=number > 0)


def _train_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> None:
    """Train a remover, as each process of a training does it."""
    config, tune, settings = loop.recipe.remover, number > 0, _build_settings(loop, number)
    start = resolve(loop.locate(remover_path(number - 1))) if tune else None
    codec = Path() if tune or config.preset != "tiny" else resolve(loop.locate(removers.CODEC))
    with open_folder(loop.store, remover_path(number), find_rank() == 0) as out:
        removers.train_remover(config, settings, list_training_set(loop, number), codec, start, out, on_progress)


def distill_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DistillationResult:
    """Distill the last remover into one of four steps."""
    config, settings = loop.recipe.remover, build_distillation_settings(loop.recipe.remover, loop.recipe.seed)
    with open_folder(loop.store, DISTILLED) as out:  # what the teacher needs is there before any worker begins
        removers.prepare_teacher(config, resolve(loop.locate(remover_path(number))), out)
    _run_training(partial(_distill_remover, loop, number), loop, DISTILLED, settings, on_progress)
    return DistillationResult(len(list_training_set(loop, number)), settings.steps, DISTILLED)


def _distill_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> None:
    """Distill a remover, as each process of a distillation does it."""
    config, settings = loop.recipe.remover, build_distillation_settings(loop.recipe.remover, loop.recipe.seed)
    with open_folder(loop.store, DISTILLED, find_rank() == 0) as out:
        teacher = removers.prepare_teacher(config, resolve(loop.locate(remover_path(number))), out)
        removers.distill_remover(config, settings, list_training_set(loop, number), teacher, out, on_progress)


def _run_training(work: Any, loop: Loop, path: str, settings: Settings, on_progress: OnProgress | None) -> None:
    config = loop.recipe.remover
    memory = estimate_remover_training(config, settings)
    run_training(work, config.workers, loop.store.sub(path), memory, on_progress)


def estimate_training(loop: Loop, number: int, step: Callable[..., object]) -> NetworkMemory:
    """Estimate the memory that the training of a step needs, on a machine that has the networks' files."""
    config = loop.recipe.remover
    if step in (train_discriminator, pretrain_discriminator):
        return estimate_discriminator_training(loop.recipe.discriminator, loop.recipe.seed)
    if step is distill_remover:
        return estimate_remover_training(config, build_distillation_settings(config, loop.recipe.seed))
    return estimate_remover_training(config, _build_settings(loop, number))


def pretrain_discriminator(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DiscriminatorResult:
    """Train a discriminator before any vote, by the ground-truth reviewer, on candidates of initial triplets."""
    config, run = loop.recipe.discriminator, loop.open_round(0)
    rows = oracle.list_votes(run)
    votes = vote_logs.load_examples(run, rows, ["candidates"])
    start = str(config.start) if config.start else None
    return _train_discriminator(loop, 0, votes, config.pretrain, start, on_progress, len(rows))


def train_discriminator(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DiscriminatorResult:
    """Train the discriminator on all votes so far, and choose its thresholds."""
    recipe = loop.recipe
    votes = {
        earlier: vote_logs.load_examples(
            loop.open_round(earlier), list_votes_to_learn_from(loop, earlier), ["candidates"]
        )
        for earlier in range(1, number + 1)
        if recipe.rounds[earlier - 1].kind == "human"
    }
    # a spot check's scenes are the best ones: its votes teach and calibrate, and choose no threshold
    checked = [
        replace(vote, complete=False)
        for earlier in range(1, number)
        if recipe.rounds[earlier - 1].spot_check
        for vote in vote_logs.load_examples(loop.open_round(earlier), loop.read_votes(earlier), ["candidates"])
    ]
    former = loop.find_discriminator(number - 1)
    if former is not None:  # it has not learned from this round's votes yet: the report shows its evaluation on them
        complete = [vote for vote in votes[number] if vote.complete]  # the others were chosen by their scores
        _evaluate_discriminator(loop, former, complete)
    learned = [vote for round_votes in votes.values() for vote in round_votes] + checked
    config = recipe.discriminator
    start = loop.locate(former) if former else str(config.start) if config.start else None
    return _train_discriminator(loop, number, learned, config.settings, start, on_progress)


def _evaluate_discriminator(loop: Loop, path: str, votes: Sequence[StoredExample]) -> None:
    """Evaluate a discriminator on votes that it has not learned from, and put the result beside it."""
    config, folder = loop.recipe.discriminator, resolve(loop.locate(path))
    with suppress(SingleClassVotes), tempfile.TemporaryDirectory() as out:
        discriminator = discriminators.open_discriminator(folder, config.base)
        overall = config.thresholds == "overall"
        discriminators.evaluate(discriminator, calibration.read_rule(folder), votes, Path(out), overall)
        for file in sorted(Path(out).iterdir()):
            loop.store.write(f"{path}/{file.name}", file.read_bytes())


def _train_discriminator(
    loop: Loop,
    number: int,
    votes: Sequence[StoredExample],
    changes: Mapping[str, Any],
    start: str | None,
    on_progress: OnProgress | None,
    oracle_votes: int | None = None,
) -> DiscriminatorResult:
    recipe, seed, path = loop.recipe.discriminator, loop.recipe.seed, discriminator_path(number)
    if recipe.backend != "network":
        return _create_judge(loop, path, votes, on_progress)
    parts = vote_logs.divide_examples(votes, recipe.shares, seed)
    learn, held_out = parts["learn"], parts["calibrate"]
    config, settings = build_discriminator_settings(recipe.preset, seed, changes)
    try:
        if start is not None:
            discriminator = judges.load(resolve(start), recipe.base, train=True)
        else:
            examples.check_examples(learn, "votes to learn from")
            discriminator = discriminators.create_discriminator(config, learn, recipe.base, recipe.prompts, seed)
        with open_folder(loop.store, path) as out:
            summary = discriminators.train(discriminator, learn, settings, out, {"shares": recipe.shares}, on_progress)
            judge = discriminators.open_discriminator(out, recipe.base)
            target, confidence = recipe.precision_target, recipe.confidence
            rule = discriminators.calibrate(judge, out, held_out, "scaling", target, confidence)
            refusal = _check_discriminator(loop, out, on_progress)
    except (
        SingleClassVotes
    ) as error:  # nothing can be learned from the votes; automatic rounds keep nothing, and say so
        return DiscriminatorResult(None, str(error), oracle_votes=oracle_votes)
    return DiscriminatorResult(
        folder=path,
        learned=summary["votes"],
        calibrated=len(held_out),
        thresholds=_describe_thresholds(rule),
        oracle_votes=oracle_votes,
        refusal=refusal,
    )


def _check_discriminator(loop: Loop, folder: Path, on_progress: OnProgress | None) -> str | None:
    """Run a discriminator's battery on initial triplets, without which only a trained network may decide.

    Returns:
        Why it may not decide what is kept; None where it may.
    """
    config, reader = loop.recipe.discriminator, RowReader(loop.store)
    refs, is_required = loop.read_rows("initial")[:CHECKED_TRIPLETS], needs_check(folder)
    remedy = "or allow it with `discriminator: {unchecked: true}`"
    if is_required and config.unchecked:  # its answers may cost money
        return "it has not been checked: allow it with `discriminator: {unchecked: true}`"
    if not is_required and len(refs) < LEAST_ROWS:
        return None
    rows = [(reader.read_row(ref), ref.id) for ref in refs]
    triplets = [TrueTriplet(row["source"], row["target"], row["mask"], id) for row, id in rows]
    try:
        battery = discriminators.check(folder, config.base, triplets, on_progress)
    except FailedCheck as error:
        return f"{error}: add initial triplets, {remedy}"
    faults = "; ".join(battery.faults)
    advice = "train it longer, use another" if not is_required else "use another"
    return None if battery.passed else f"on {len(refs)} initial triplets {faults}: {advice}, {remedy}"


def _describe_thresholds(rule: calibration.Rule) -> dict[str, ThresholdResult]:
    return {
        name: ThresholdResult(keep.threshold, keep.yes, keep.count, keep.low, keep.why)
        for name, keep in {**rule.removers, "overall": rule.overall}.items()
    }


def _create_judge(
    loop: Loop, path: str, votes: Sequence[StoredExample], on_progress: OnProgress | None
) -> DiscriminatorResult:
    """Create a judge that learns nothing, check it on initial triplets, and calibrate it on all votes."""
    recipe = loop.recipe.discriminator
    with open_folder(loop.store, path) as out:
        if recipe.backend == "vlm":
            limit = recipe.max_tokens
            judge_folders.create_vlm(out, recipe.url or "", recipe.model or "", recipe.prompt, max_tokens=limit)
        else:
            judge_folders.create_metric(out, recipe.backend, recipe.weights or Path())
        judge = discriminators.open_discriminator(out, None)
        target, confidence = recipe.precision_target, recipe.confidence
        try:
            rule = discriminators.calibrate(judge, out, votes, "scaling", target, confidence, on_progress=on_progress)
        except SingleClassVotes as error:
            return DiscriminatorResult(None, str(error))
        refusal = _check_discriminator(loop, out, on_progress)
    thresholds = _describe_thresholds(rule)
    return DiscriminatorResult(path, learned=0, calibrated=len(votes), thresholds=thresholds, refusal=refusal)


def read_rule(loop: Loop, path: str) -> calibration.Rule:
    """Read the calibration and thresholds of a discriminator in the loop."""
    return calibration.Rule.from_json(json.loads(loop.store.read(f"{path}/calibration.json")))
