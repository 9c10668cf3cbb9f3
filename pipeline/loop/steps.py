"""The steps of a loop. Each may be begun again after it was killed, and does not repeat what it has committed."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasura.discriminator import calibration
from rasura.discriminator import dataset as examples
from rasura.discriminator import model as judges
from rasura.discriminator.dataset import StoredExample
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_seed
from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.networks.trainer import OnProgress
from rasura.pipeline.loop.candidates import CandidateSettings, draw_rows, make_candidates
from rasura.pipeline.loop.measure import measure_remover
from rasura.pipeline.loop.results import (
    AddResult,
    DiscriminatorResult,
    DistillationResult,
    DrawResult,
    InitialResult,
    InpaintResult,
    ScoreResult,
    StepResult,
    TestResult,
    ThresholdResult,
    TrainingResult,
    VotesResult,
)
from rasura.pipeline.loop.selection import select_rows
from rasura.pipeline.loop.state import RECIPE, SCORES, TRUTH, Loop, Step, Waiting, keeps_nothing, local_run, round_path
from rasura.pipeline.recipe.positions import Positions
from rasura.pipeline.training import discriminator as discriminators
from rasura.pipeline.training import oracle
from rasura.pipeline.training import remover as removers
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.rows import RowReader, RowRef
from rasura.pipeline.training.settings import (
    build_discriminator_settings,
    build_distillation_settings,
    build_training_settings,
)
from rasura.pipeline.training.workers import run_training
from rasura.removers.base import Remover
from rasura.removers.training.train import Item

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow
    from rasura.annotator.store.items import ReviewableRow

Candidates = Mapping[str, "ReviewableRow"]
"""Candidates of a round by the ids of their items."""


def list_rows(loop: Loop, number: int, on_progress: OnProgress | None = None) -> InitialResult:
    """List the rows that the loop starts from, draws from and is tested on; no test scene is in the others."""
    recipe, reader = loop.recipe, RowReader(loop.store)
    rows = select_rows(recipe, Positions(str(loop.folder / RECIPE)), reader)
    for name, refs in (("initial", rows.initial), ("pool", rows.pool), ("test", rows.test)):
        loop.write_rows(name, refs)
    if recipe.remover.preset == "tiny":
        size = build_training_settings(recipe.remover, recipe.seed, tune=False).size
        pictures = [reader.read_row(ref)["source"] for ref in rows.initial[: removers.CODEC_PICTURES]]
        removers.fit_codec(pictures, loop.folder / removers.CODEC, size)
    return InitialResult(len(rows.initial), len(rows.pool), len(rows.test))


def list_training_set(loop: Loop, number: int) -> list[Item]:
    """List the initial triplets, and those that the rounds up to this one added."""
    refs = loop.read_rows("initial")
    for earlier in range(1, number + 1):
        refs += loop.read_rows(f"{round_path(earlier)}/kept")
    return removers.list_items(loop.store, refs)


def train_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> TrainingResult:
    """Train the remover for the first time."""
    return _train_remover(loop, number, None, on_progress)


def tune_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> TrainingResult:
    """Train the remover further, with the triplets that the round added."""
    return _train_remover(loop, number, loop.remover_folder(number - 1), on_progress)


def _train_remover(loop: Loop, number: int, start: Path | None, on_progress: OnProgress | None) -> TrainingResult:
    config, items, out = loop.recipe.remover, list_training_set(loop, number), loop.remover_folder(number)
    settings = build_training_settings(config, loop.recipe.seed, tune=start is not None)
    work = partial(removers.train_remover, config, settings, items, loop.folder / removers.CODEC, start, out)
    run_training(work, config.workers, out, config.preset != "tiny", on_progress)
    return TrainingResult(len(items), settings.steps)


def distill_remover(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DistillationResult:
    """Distill the last remover into one of four steps."""
    config, items, out = loop.recipe.remover, list_training_set(loop, number), loop.distilled_folder
    settings = build_distillation_settings(config, loop.recipe.seed)
    teacher = removers.prepare_teacher(config, loop.remover_folder(number), out)
    work = partial(removers.distill_remover, config, settings, items, teacher, out)
    run_training(work, config.workers, out, True, on_progress)
    return DistillationResult(len(items), settings.steps, str(out.relative_to(loop.folder)))


def draw_scenes(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DrawResult:
    """Draw the round's scenes: none that an earlier round had."""
    recipe, requested = loop.recipe, loop.recipe.rounds[number - 1].count
    used_scenes = {ref.scene for earlier in range(1, number) for ref in loop.read_rows(f"{round_path(earlier)}/scenes")}
    scenes = draw_rows(loop.read_rows("pool"), used_scenes, requested, recipe.cap, recipe.exclude)
    if not scenes:
        raise InputError(
            f"round {number}: all scenes of the pool were in earlier rounds or are excluded; add flows to `pool`, or "
            "ask for fewer scenes a round"
        )
    loop.write_rows(f"{round_path(number)}/scenes", scenes)
    return DrawResult(len(scenes), requested)


def inpaint_scenes(loop: Loop, number: int, on_progress: OnProgress | None = None) -> InpaintResult:
    """Make candidates of the round's scenes, by the remover in training and the others."""
    return _inpaint(loop, number, loop.read_rows(f"{round_path(number)}/scenes"), on_progress)


def _inpaint(loop: Loop, number: int, scenes: Sequence[RowRef], on_progress: OnProgress | None) -> InpaintResult:
    recipe = loop.recipe

    def open_removers() -> list[Remover]:
        folder = loop.remover_folder(max(0, number - 1))
        current = removers.open_current_remover(recipe.remover, recipe.seed, folder)
        return [current, *removers.open_other_removers(recipe.removers, recipe.models)]

    settings = CandidateSettings(number, recipe.seed, recipe.dilation, recipe.context, recipe.shard_scenes)
    run, reader = loop.open_round(number), RowReader(loop.store)
    return make_candidates(run, reader, scenes, open_removers, settings, on_progress)


def collect_votes(loop: Loop, number: int, on_progress: OnProgress | None = None) -> VotesResult:
    """Collect a human round's votes; the oracle gives its own at once.

    Raises:
        Waiting: there are not enough yet.
    """
    recipe, run = loop.recipe, loop.open_round(number)
    folder = loop.votes_folder(number)
    if recipe.reviewers == "oracle":
        oracle.write_votes(list(oracle.review_run(run, on_progress=on_progress)), run.sub("votes"))
    else:
        _export_review(folder.parent, run)
    tallies = vote_logs.tally_votes(_read_votes(loop, number))
    candidates = vote_logs.index_candidates(run)
    voted = sum(sum(tallies[item].values()) >= recipe.votes for item in candidates if item in tallies)
    if voted < recipe.enough * len(candidates):
        raise Waiting(
            f"round {number} waits for people: {voted} of {len(candidates)} candidates have {recipe.votes} vote(s), "
            f"{recipe.enough:.0%} must. Review with: rasura review {run.uri} (or put votes.jsonl into {folder}); "
            "then give the same command again"
        )
    yes = sum(tallies[item]["yes"] > tallies[item]["no"] for item in candidates if item in tallies)
    return VotesResult(len(candidates), voted, yes, recipe.reviewers)


def _export_review(folder: Path, run: Store) -> None:
    """Copy the votes in the round's review into its `votes/`, where they can be read without the database."""
    from rasura.annotator.exchange.votes_file import export_votes
    from rasura.annotator.store.database import Database

    if (folder / REVIEW_DATABASE).is_file():
        database = Database(str(folder / REVIEW_DATABASE), False)
        try:
            with database.read() as connection:
                export_votes(connection, run.sub("votes"))
        finally:
            database.close()


def _read_votes(loop: Loop, number: int) -> "list[VoteRow]":
    """Read a round's votes, of the reviewers that the recipe names and no others."""
    return vote_logs.read_votes_folder(loop.votes_folder(number), loop.recipe.reviewers)


def pretrain_discriminator(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DiscriminatorResult:
    """Train a discriminator before any vote, by the oracle, on candidates of initial triplets."""
    config = loop.recipe.discriminator
    _inpaint(loop, 0, loop.read_rows("initial")[: config.pretrain_scenes], on_progress)
    rows = list(oracle.review_run(loop.open_round(0)))
    votes = vote_logs.load_examples(loop.open_round(0), rows)
    return _train_discriminator(loop, 0, votes, config.pretrain, config.start, on_progress, len(rows))


def train_discriminator(loop: Loop, number: int, on_progress: OnProgress | None = None) -> DiscriminatorResult:
    """Train the discriminator on all votes so far, and choose its thresholds."""
    recipe = loop.recipe
    votes = {
        earlier: vote_logs.load_examples(loop.open_round(earlier), _read_votes(loop, earlier), ["candidates"])
        for earlier in range(1, number + 1)
        if recipe.rounds[earlier - 1].kind == "human"
    }
    former = loop.find_discriminator(number - 1)
    if former is not None:  # it has not learned from this round's votes yet: the report shows its evaluation on them
        with suppress(SingleClassVotes):
            rule, overall = calibration.read_rule(former), recipe.discriminator.thresholds == "overall"
            discriminator = discriminators.open_discriminator(former, recipe.discriminator.base)
            discriminators.evaluate(discriminator, rule, votes[number], former, overall)
    learned = [vote for round_votes in votes.values() for vote in round_votes]
    start = former or recipe.discriminator.start
    return _train_discriminator(loop, number, learned, recipe.discriminator.settings, start, on_progress)


def _train_discriminator(
    loop: Loop,
    number: int,
    votes: Sequence[StoredExample],
    changes: Mapping[str, Any],
    start: Path | None,
    on_progress: OnProgress | None,
    oracle_votes: int | None = None,
) -> DiscriminatorResult:
    recipe, seed, out = loop.recipe.discriminator, loop.recipe.seed, loop.discriminator_folder(number)
    parts = vote_logs.divide_examples(votes, recipe.shares, seed)
    learn, held_out = parts["learn"], parts["calibrate"]
    config, settings = build_discriminator_settings(recipe.preset, seed, changes)
    try:
        if start is not None:
            discriminator = judges.load(start, recipe.base, train=True)
        else:
            examples.check_examples(learn, "votes to learn from")
            discriminator = discriminators.create_discriminator(config, learn, recipe.base, recipe.prompts, seed)
        summary = discriminators.train(discriminator, learn, settings, out, {"shares": recipe.shares}, on_progress)
        discriminator = discriminators.open_discriminator(out, recipe.base)
        target, confidence = recipe.precision_target, recipe.confidence
        rule = discriminators.calibrate(discriminator, out, held_out, "scaling", target, confidence)
    except (
        SingleClassVotes
    ) as error:  # nothing can be learned from the votes; automatic rounds keep nothing, and say so
        return DiscriminatorResult(None, str(error), oracle_votes=oracle_votes)
    thresholds = {
        name: ThresholdResult(keep.threshold, keep.yes, keep.count, keep.low, keep.why)
        for name, keep in {**rule.removers, "overall": rule.overall}.items()
    }
    return DiscriminatorResult(
        folder=str(out.relative_to(loop.folder)),
        learned=summary["votes"],
        calibrated=len(held_out),
        thresholds=thresholds,
        oracle_votes=oracle_votes,
    )


def score_candidates(loop: Loop, number: int, on_progress: OnProgress | None = None) -> ScoreResult:
    """Write the newest discriminator's probabilities of the round's candidates into `scores.json`."""
    run, folder = loop.open_round(number), loop.find_discriminator(number)
    if folder is None:
        run.write(SCORES, b"{}")
        return ScoreResult(None, "no discriminator could be trained on the votes so far")
    discriminator = discriminators.open_discriminator(folder, loop.recipe.discriminator.base)
    rule, tables = calibration.read_rule(folder), Tables(run)
    scores: dict[str, float] = {}
    candidates = list(vote_logs.index_candidates(run).items())
    for start in range(0, len(candidates), discriminators.BATCH_ROWS):
        batch = candidates[start : start + discriminators.BATCH_ROWS]
        rows = [tables.row(*candidate.place, ("source", "target", "mask")) for _, candidate in batch]
        crops = [discriminator.preprocess(row["source"], row["target"], row["mask"]) for row in rows]
        probabilities = rule.calibration(discriminator.compute_logits(crops))
        scores |= {item: float(score) for (item, _), score in zip(batch, probabilities, strict=True)}
        if on_progress:
            on_progress(len(scores), len(candidates), "candidates")
    run.write(SCORES, json.dumps(scores, sort_keys=True).encode())
    return ScoreResult(folder.name, scored=len(scores))


def add_triplets(loop: Loop, number: int, on_progress: OnProgress | None = None) -> AddResult:
    """Choose the candidates that join the training set, one a scene, and count how many the oracle accepts."""
    recipe, run = loop.recipe, loop.open_round(number)
    candidates = {} if keeps_nothing(recipe, number) else vote_logs.index_candidates(run)
    chosen, left_to_people = _choose_candidates(loop, number, candidates)
    best: dict[str, str] = {}
    for item in sorted(chosen, key=lambda item: (-chosen[item], compute_seed(recipe.seed, "keep", item))):
        best.setdefault(candidates[item].scene, item)
    kept = [_make_ref(number, scene, candidates[item]) for scene, item in sorted(best.items())]
    loop.write_rows(f"{round_path(number)}/kept", kept)
    run.write("kept.txt", "".join(f"{ref.id}\n" for ref in kept).encode())
    truth = _find_truth(loop, number) if candidates else {}
    run.write(TRUTH, json.dumps(truth, sort_keys=True).encode())
    verdicts = [truth[item] for item in best.values() if item in truth]
    return AddResult(
        kind=recipe.rounds[number - 1].kind,
        candidates=len(candidates),
        scenes=len(loop.read_rows(f"{round_path(number)}/scenes")),
        kept=len(kept),
        left_to_people=left_to_people,
        true_yes=sum(verdicts),
        with_truth=len(verdicts),
        all_true_yes=sum(truth.values()),
        all_with_truth=len(truth),
    )


def _make_ref(number: int, scene: str, row: "ReviewableRow") -> RowRef:
    table, shard, position = row.place
    return RowRef(local_run(number), table, shard, position, row.id, scene, row.label)


def _choose_candidates(loop: Loop, number: int, candidates: Candidates) -> tuple[dict[str, float], int]:
    """Choose the candidates that may join the training set.

    Returns:
        Their items with the value by which a scene's best is picked, and the number of candidates left to people.
    """
    recipe = loop.recipe
    if recipe.keep == "everything" or not candidates:
        return dict.fromkeys(candidates, 0.0), 0
    if recipe.rounds[number - 1].kind == "auto":
        return _choose_by_score(loop, number, candidates)
    tallies = vote_logs.tally_votes(_read_votes(loop, number))
    shares = {
        item: tally["yes"] / sum(tally.values())
        for item, tally in tallies.items()
        if item in candidates and tally["yes"] > tally["no"]
    }
    return shares, 0


def _choose_by_score(loop: Loop, number: int, candidates: Candidates) -> tuple[dict[str, float], int]:
    """Return the candidates that the discriminator keeps, with their scores, and how many it leaves to people."""
    scores = json.loads(loop.open_round(number).read(SCORES))
    folder = loop.find_discriminator(number)
    if folder is None or not scores:
        return {}, 0
    rule, overall = calibration.read_rule(folder), loop.recipe.discriminator.thresholds == "overall"
    items = sorted(scores)
    scenes = [candidates[item].scene for item in items]
    chosen, left_to_people = {}, 0
    # the precision target was shown to hold for each scene's best candidate, and holds for no other
    for index in calibration.pick_best_of_scenes(np.array([scores[item] for item in items]), scenes):
        item = items[index]
        decision = rule.decide(scores[item], candidates[item].remover, overall)
        left_to_people += decision == "people"
        if decision == "keep":
            chosen[item] = scores[item]
    return chosen, left_to_people


def _find_truth(loop: Loop, number: int) -> dict[str, bool]:
    """Return the oracle's verdicts on a round's candidates, for the report alone; {} where there is no truth."""
    has_voted = loop.recipe.reviewers == "oracle" and loop.has_result(Step(VotesResult.step, number))
    try:
        rows = _read_votes(loop, number) if has_voted else oracle.review_run(loop.open_round(number))
        return {row["item"]: row["verdict"] == "yes" for row in rows}
    except oracle.NoTruth:
        return {}


def measure_test_set(loop: Loop, number: int, on_progress: OnProgress | None = None) -> TestResult:
    """Measure the remover of this round on the test set."""
    return measure_remover(loop, number, loop.read_rows("test"), loop.recipe.measures, on_progress)


StepFunction = Callable[[Loop, int, OnProgress | None], StepResult]

STEPS: Mapping[str, StepFunction] = {
    "initial": list_rows,
    "train": train_remover,
    "pretrain": pretrain_discriminator,
    "draw": draw_scenes,
    "inpaint": inpaint_scenes,
    "votes": collect_votes,
    "judge": train_discriminator,
    "score": score_candidates,
    "add": add_triplets,
    "tune": tune_remover,
    "test": measure_test_set,
    "distill": distill_remover,
}
"""The function of each step, by the step's name."""
