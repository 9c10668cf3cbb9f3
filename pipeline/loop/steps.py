"""The steps of a loop. Each may be begun again after it was killed, and does not repeat what it has committed.

A step has its flows carried out by the engine, or a task on a worker; what is left here are small lists of rows.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.discriminator.calibration import has_rule
from rasura.manifests.compacted.manifest import read_manifest
from rasura.manifests.errors import InputError
from rasura.manifests.run_layout import table_path
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.loop import rounds, trainings
from rasura.pipeline.loop.decide import FAILED_CHECK, LEFT_TO_PEOPLE, Basis, Candidate, Decision, Decisions, decide
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.loop.measure import summarize_test
from rasura.pipeline.loop.results import (
    AddResult,
    DrawResult,
    InpaintResult,
    ScoreResult,
    StepResult,
    TestResult,
    VotesResult,
)
from rasura.pipeline.loop.selection import draw_rows
from rasura.pipeline.loop.state import (
    DECISIONS,
    SCORES,
    TRUTH,
    Loop,
    find_refusal,
    keeps_nothing,
    local_run,
    round_path,
)
from rasura.pipeline.loop.voting import human, spot_check
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.rows import RowRef
from rasura.stages.judging.truth import TRUE_KINDS

if TYPE_CHECKING:
    from rasura.annotator.store.rows import ReviewableRow

Candidates = Mapping[str, "ReviewableRow"]
"""Candidates of a round by the ids of their items."""


def run_as_task(loop: Loop, number: int, engine: LoopEngine, step: Callable[..., StepResult]) -> StepResult:
    """Run a step on a worker, with what its training needs: a GPU where a card holds it, else a CPU and its memory.

    A training on several workers, which places them itself, waits for them in a task that holds nothing.
    """
    is_judge = step in (trainings.train_discriminator, trainings.pretrain_discriminator)
    if loop.recipe.remover.workers and not is_judge:
        engine.release()
        return engine.run_task(partial(step, loop, number), reports=True)
    memory = engine.run_task(partial(trainings.estimate_training, loop, number, step))
    return engine.run_task(partial(step, loop, number), engine.place_training(memory), reports=True)


def list_rows(loop: Loop, number: int, engine: LoopEngine) -> StepResult:
    """List the rows that the loop starts from, draws from and is tested on."""
    return engine.run_task(partial(trainings.list_rows, loop, number))


def draw_scenes(loop: Loop, number: int, engine: LoopEngine) -> DrawResult:
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


def _make_flows(loop: Loop, number: int, engine: LoopEngine, flows: rounds.Flows, test: bool = False) -> Store:
    """Carry out flows of a round's run, or of the run of its test pictures; return that run."""
    run = loop.open_test_run(number) if test else loop.open_round(number)
    engine.make_flows(run, f"{'test' if test else 'round'}-{number}", loop.recipe.seed, flows)
    return run


def inpaint_scenes(loop: Loop, number: int, engine: LoopEngine) -> InpaintResult:
    """Make candidates of the round's scenes, by the remover in training and the others."""
    run = _make_flows(loop, number, engine, rounds.list_candidate_flows(loop, number, max(0, number - 1)))
    records = read_manifest(run.sub(table_path("candidates")))[0]
    counts = [count for record in records for count in record.stages]
    failed: dict[str, list[str]] = {}
    if any(count.failed_outputs for count in counts):
        scenes, errors = (_read_column(run, "candidates", name) for name in ("scene_id", "failed_removers"))
        for row in {scene: errors[id] or {} for id, scene in scenes.items()}.values():
            for entry in row:
                failed.setdefault(entry["name"], []).append(entry["value"])
    for name, texts in failed.items():
        text = f"'{name}' made no candidate of {format_count(len(texts), 'scene')}, for example: {texts[0]}"
        engine.say_once(f"round {number}: {text}; the others' candidates are used")
    return InpaintResult(
        scenes=len(loop.read_rows(f"{round_path(number)}/scenes")),
        candidates=sum(record.rows for record in records),
        unfillable=sum(sum(count.rejected.values()) for count in counts),
        failed=sum(sum(count.failed.values()) for count in counts) or None,
        failed_candidates={name: len(texts) for name, texts in sorted(failed.items())} or None,
    )


def _measure_candidates(loop: Loop, number: int, engine: LoopEngine) -> bool:
    """Compare a round's candidates with the truth; False where there is none."""
    kinds = Tables(loop.open_round(number)).table("drawn").read_light(("kind",))["kind"].to_pylist()
    if not set(kinds) & set(TRUE_KINDS):
        return False
    if "measured" not in Tables(loop.open_round(number)).names():
        _make_flows(loop, number, engine, rounds.list_measuring_flows(loop, networks=False))
    return True


def collect_votes(loop: Loop, number: int, engine: LoopEngine) -> VotesResult:
    """Collect a human round's votes.

    Raises:
        Waiting: there are not enough yet.
        NoTruth: the ground-truth reviewer has nothing to compare with.
    """
    return human.collect_votes(loop, number, partial(_measure_candidates, loop, number, engine))


def pretrain_discriminator(loop: Loop, number: int, engine: LoopEngine) -> StepResult:
    """Train a discriminator before any vote, on candidates of initial triplets."""
    count = loop.recipe.discriminator.pretrain_scenes
    loop.write_rows(f"{round_path(0)}/scenes", loop.read_rows("initial")[:count])
    _make_flows(loop, 0, engine, rounds.list_candidate_flows(loop, 0, 0))
    if not _measure_candidates(loop, 0, engine):
        raise oracle.describe_missing_truth(loop.open_round(0), len(vote_logs.index_candidates(loop.open_round(0))))
    return run_as_task(loop, number, engine, trainings.pretrain_discriminator)


def score_candidates(loop: Loop, number: int, engine: LoopEngine) -> ScoreResult:
    """Score the round's candidates with the newest discriminator, before any with the one that the loop starts from.

    Nothing is scored where neither is calibrated: a human round is then asked in no order, an automatic one keeps none.
    """
    run, discriminator, start = (
        loop.open_round(number),
        loop.find_discriminator(number),
        loop.recipe.discriminator.start,
    )
    if discriminator is None and not (start and has_rule(Path(start))):
        run.write(SCORES, b"{}")
        return ScoreResult(None, "no discriminator could be trained on the votes so far")
    place = loop.locate(discriminator) if discriminator else str(start)
    _make_flows(loop, number, engine, rounds.list_scoring_flows(loop, place))
    scores = _read_column(run, "scored", "score")
    items = {item: scores[row.id] for item, row in vote_logs.index_candidates(run).items() if row.id in scores}
    run.write(SCORES, json.dumps(items, sort_keys=True).encode())
    return ScoreResult(discriminator.rpartition("/")[2] if discriminator else "start", scored=len(items))


def _read_column(run: Store, flow: str, column: str) -> dict[str, Any]:
    """Read a column of a table by the ids of its rows; {} where the run has no such table."""
    tables = Tables(run)
    if flow not in tables.names():
        return {}
    light = tables.table(flow).read_light(("id", column))
    return dict(zip(light["id"].to_pylist(), light[column].to_pylist(), strict=True))


def add_triplets(loop: Loop, number: int, engine: LoopEngine) -> AddResult:
    """Decide which candidates join the training set, one a scene, and count how many the truth accepts."""
    recipe, run = loop.recipe, loop.open_round(number)
    candidates: Candidates = {} if keeps_nothing(recipe, number) else vote_logs.index_candidates(run)
    places = {row.id: (item, row) for item, row in candidates.items()}
    truth: dict[str, bool] = {}
    decisions: Decisions = {}
    if candidates:
        if _measure_candidates(loop, number, engine):
            verdicts = _read_column(run, "measured", "truth_verdict")
            truth = {places[id][0]: verdict == "yes" for id, verdict in verdicts.items() if verdict and id in places}
        decisions = decide_candidates(loop, number, candidates)
        document = {id: decision.to_json() for id, decision in decisions.items()}
        run.write(DECISIONS, json.dumps(document, sort_keys=True).encode())
        scored = "scored" in Tables(run).names()
        _make_flows(loop, number, engine, rounds.list_keeping_flows(loop, number, scored))
    kept_ids = [id for id, decision in decisions.items() if decision.kept]
    kept = [_make_ref(number, places[id][1]) for id in sorted(kept_ids, key=lambda id: places[id][1].scene)]
    loop.write_rows(f"{round_path(number)}/kept", kept)
    run.write("kept.txt", "".join(f"{ref.id}\n" for ref in kept).encode())
    run.write(TRUTH, json.dumps(truth, sort_keys=True).encode())
    verdicts_kept = [truth[places[id][0]] for id in kept_ids if places[id][0] in truth]
    reasons = Counter(decision.reason for decision in decisions.values())
    return AddResult(
        kind=recipe.rounds[number - 1].kind,
        candidates=len(candidates),
        scenes=len(loop.read_rows(f"{round_path(number)}/scenes")),
        kept=len(kept),
        left_to_people=reasons[LEFT_TO_PEOPLE],
        true_yes=sum(verdicts_kept),
        with_truth=len(verdicts_kept),
        all_true_yes=sum(truth.values()),
        all_with_truth=len(truth),
    )


def decide_candidates(loop: Loop, number: int, candidates: Candidates) -> Decisions:
    """Decide about a round's candidates by what the recipe says: votes, scores, or nothing."""
    recipe = loop.recipe
    is_human = recipe.rounds[number - 1].kind == "human"
    basis: Basis = "nothing" if recipe.keep == "everything" else "votes" if is_human else "score"
    tallies = vote_logs.tally_votes(loop.read_votes(number)) if basis == "votes" else {}
    scores = loop.read_json(f"{round_path(number)}/{SCORES}", {}) if basis == "score" else {}
    discriminator = loop.find_discriminator(number) if basis == "score" else None
    rule = trainings.read_rule(loop, discriminator) if discriminator else None
    rows = [
        Candidate(row.id, row.scene, row.remover or "", scores.get(item), tallies.get(item))
        for item, row in candidates.items()
    ]
    if rule is not None:
        if refusal := find_refusal(loop, number):
            return {row.id: Decision(False, FAILED_CHECK, refusal) for row in rows}
        items = {row.id: item for item, row in candidates.items()}
        return spot_check.decide_by_score(loop, number, rows, items, rule)
    return decide(rows, basis, recipe.seed)


def _make_ref(number: int, row: "ReviewableRow") -> RowRef:
    table, shard, position = row.place
    return RowRef(local_run(number), table, shard, position, row.id, row.scene, row.label)


def measure_test_set(loop: Loop, number: int, engine: LoopEngine) -> TestResult:
    """Have the remover of this round fill the test pictures, and measure them."""
    rows: Sequence[RowRef] = loop.read_rows("test")
    loop.write_rows(f"{round_path(number)}/test/scenes", rows)
    _make_flows(loop, number, engine, rounds.list_candidate_flows(loop, number, number, others=False), test=True)
    discriminator = loop.find_discriminator(number)
    if discriminator is not None:
        flows = rounds.list_scoring_flows(loop, loop.locate(discriminator), others=False)
        _make_flows(loop, number, engine, flows, test=True)
    _make_flows(loop, number, engine, rounds.list_measuring_flows(loop, networks=True, others=False), test=True)
    return summarize_test(loop, number, rows, discriminator)


StepFunction = Callable[[Loop, int, LoopEngine], StepResult]

STEPS: Mapping[str, StepFunction] = {
    "initial": list_rows,
    "train": partial(run_as_task, step=trainings.train_remover),
    "pretrain": pretrain_discriminator,
    "draw": draw_scenes,
    "inpaint": inpaint_scenes,
    "votes": collect_votes,
    "judge": partial(run_as_task, step=trainings.train_discriminator),
    "score": score_candidates,
    "add": add_triplets,
    "tune": partial(run_as_task, step=trainings.train_remover),
    "test": measure_test_set,
    "final": partial(run_as_task, step=trainings.finish_remover),
    "distill": partial(run_as_task, step=trainings.distill_remover),
}
"""The function of each step, by the step's name."""
