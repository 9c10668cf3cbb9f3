"""What each step of a loop does. Each may be begun again after it was killed; what it commits it does not do twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasura.discriminator import calibration, network
from rasura.discriminator import dataset as examples
from rasura.discriminator import model as judges
from rasura.discriminator import train as judge_training
from rasura.discriminator.evaluation import OneClass
from rasura.manifests.ids import seed_for
from rasura.manifests.tables import Tables
from rasura.pipeline.loop.candidates import TRUTH, Reader, Ref, draw, make_candidates
from rasura.pipeline.loop.measure import measure
from rasura.pipeline.loop.state import Loop, Waiting, idle
from rasura.pipeline.training import discriminator as loop_judge
from rasura.pipeline.training import oracle
from rasura.pipeline.training import remover as loop_models
from rasura.pipeline.training import votes as loop_votes
from rasura.pipeline.training.workers import carry_out
from rasura.removers.training.train import Item

if TYPE_CHECKING:
    from rasura.annotator.store.items import Row


def initial(loop: Loop, number: int) -> dict[str, Any]:
    """The rows that the loop starts from, draws from and is tested on; no scene of the test set is in the others."""
    recipe, reader = loop.recipe, Reader(loop.store)
    test = reader.refs(recipe.test, recipe.seed)
    frozen = {ref.scene for ref in test}
    start = [ref for ref in reader.refs(recipe.initial, recipe.seed) if ref.scene not in frozen]
    used = frozen | {ref.scene for ref in start}
    pool = [ref for ref in reader.refs(recipe.pool, recipe.seed) if ref.scene not in used]
    if not start or not test:
        raise ValueError(f"{len(start)} initial triplets and {len(test)} test triplets: the loop needs both")
    for name, refs in (("initial", start), ("pool", pool), ("test", test)):
        text = json.dumps([asdict(ref) for ref in refs])
        loop.store.write(f"{name}.json", text.encode())
    if recipe.remover.preset == "tiny":
        size = loop_models.settings_of(recipe, False).size
        pictures = [reader.row(ref)["source"] for ref in start[: loop_models.FITTED]]
        loop_models.fit_codec(pictures, loop.folder / loop_models.CODEC, size)
    return {"initial": len(start), "pool": len(pool), "test": len(test)}


def refs(loop: Loop, name: str) -> list[Ref]:
    """A list that an earlier step wrote."""
    return [Ref(**one) for one in json.loads(loop.store.read(f"{name}.json"))]


def training_set(loop: Loop, number: int) -> list[Item]:
    """The initial triplets and what the rounds up to this one added."""
    found = refs(loop, "initial")
    for at in range(1, number + 1):
        found += refs(loop, f"rounds/{at:02d}/kept")
    return loop_models.items(loop.store, found)


def train(loop: Loop, number: int) -> dict[str, Any]:
    """The first training of the remover."""
    return _train(loop, number, None)


def tune(loop: Loop, number: int) -> dict[str, Any]:
    """The remover goes on with what the round added."""
    return _train(loop, number, loop.remover(number - 1))


def _train(loop: Loop, number: int, start: Path | None) -> dict[str, Any]:
    given, items, out = loop.recipe.remover, training_set(loop, number), loop.remover(number)
    settings = loop_models.settings_of(loop.recipe, start is not None)
    work = partial(loop_models.train, given, settings, items, loop.folder / loop_models.CODEC, start, out)
    carry_out(work, given.workers, out, gpus=given.preset != "tiny")
    return {"triplets": len(items), "steps": settings.steps}


def distill(loop: Loop, number: int) -> dict[str, Any]:
    """The last remover in four steps."""
    given, items, out = loop.recipe.remover, training_set(loop, number), loop.distilled
    settings = loop_models.distillation_settings(given, loop.recipe.seed)
    teacher = loop_models.teacher(given, loop.remover(number), out)
    carry_out(partial(loop_models.distil, given, settings, items, teacher, out), given.workers, out, gpus=True)
    return {"triplets": len(items), "steps": settings.steps, "remover": str(out.relative_to(loop.folder))}


def pretrain(loop: Loop, number: int) -> dict[str, Any]:
    """A judge before any vote: on candidates of the initial triplets, whose truth is known, by the oracle."""
    recipe = loop.recipe
    start = refs(loop, "initial")[: recipe.judge.pretrain_scenes]
    _inpaint(loop, 0, start)
    rows = list(oracle.votes_on(loop.round(0)))
    return _judge(loop, 0, loop_votes.examples_of(loop.round(0), rows), recipe.judge.pretrain, recipe.judge.start) | {
        "oracle_votes": len(rows)
    }


def draw_scenes(loop: Loop, number: int) -> dict[str, Any]:
    """The round's scenes: none that an earlier round had."""
    recipe = loop.recipe
    seen = {ref.scene for at in range(1, number) for ref in refs(loop, f"rounds/{at:02d}/scenes")}
    one = recipe.rounds[number - 1]
    found = draw(refs(loop, "pool"), seen, one.count, recipe.cap, recipe.exclude)
    if not found:
        raise ValueError(f"round {number}: the pool has no scene left that no round has seen")
    loop.store.write(f"rounds/{number:02d}/scenes.json", json.dumps([asdict(ref) for ref in found]).encode())
    return {"scenes": len(found), "wanted": one.count}


def inpaint(loop: Loop, number: int) -> dict[str, Any]:
    """Candidates of the round's scenes by the trained remover and the others."""
    return _inpaint(loop, number, refs(loop, f"rounds/{number:02d}/scenes"))


def _inpaint(loop: Loop, number: int, scenes: Sequence[Ref]) -> dict[str, Any]:
    recipe = loop.recipe

    def removers() -> list[Any]:
        return [loop_models.current(recipe, loop.remover(max(0, number - 1))), *loop_models.others(recipe)]

    return make_candidates(
        loop.round(number), Reader(loop.store), scenes, removers, number, recipe.seed, recipe.dilation, recipe.context,
        recipe.shard_scenes,
    )  # fmt: skip


def votes(loop: Loop, number: int) -> dict[str, Any]:
    """Waits for a human round's votes; the oracle gives its own at once.

    Raises:
        Waiting
    """
    recipe, run = loop.recipe, loop.round(number)
    folder = loop.votes(number)
    if recipe.reviewers == "oracle":
        oracle.write(list(oracle.votes_on(run)), run.sub("votes"))
    else:
        _export(folder.parent, run)
    rows = _votes(loop, number)
    counted = loop_votes.standing(rows)
    candidates = loop_votes.candidates_of(loop.round(number))
    have = sum(sum(counted[item].values()) >= recipe.votes for item in candidates if item in counted)
    if have < recipe.enough * len(candidates):
        raise Waiting(
            f"round {number} waits for people: {have} of {len(candidates)} candidates have {recipe.votes} vote(s), "
            f"{recipe.enough:.0%} must. Review with: rasura review {run.uri} (or put votes.jsonl into {folder}); "
            "then give the same command again"
        )
    tally = [counted[item] for item in candidates if item in counted]
    yes = sum(one["yes"] > one["no"] for one in tally)
    return {"candidates": len(candidates), "voted": have, "yes": yes, "reviewers": recipe.reviewers}


def _export(folder: Path, run: Any) -> None:
    """Brings what the round's review holds into its votes, so that they stay readable without the database."""
    from rasura.annotator.exchange.votes_file import export
    from rasura.annotator.store.database import Database

    if (folder / "review" / "review.sqlite").is_file():
        database = Database(str(folder / "review" / "review.sqlite"), False)
        try:
            with database.read() as connection:
                export(connection, run.sub("votes"))
        finally:
            database.close()


def _votes(loop: Loop, number: int) -> list[dict[str, Any]]:
    """A round's votes, of the sort that the recipe asks for and no other."""
    return loop_votes.of_folder(loop.votes(number), loop.recipe.reviewers)


def judge(loop: Loop, number: int) -> dict[str, Any]:
    """The judge learns from all votes so far, and thresholds are chosen anew."""
    given = {
        at: loop_votes.examples_of(loop.round(at), _votes(loop, at), ["candidates"])
        for at in range(1, number + 1)
        if loop.recipe.rounds[at - 1].kind == "human"
    }
    old = loop.judge(number - 1)
    if old is not None:  # nothing of this round's votes was learned from yet: what the report shows of it
        with suppress(OneClass):
            rule = calibration.read_rule(old)
            overall = loop.recipe.judge.thresholds == "overall"
            loop_judge.evaluate(loop_judge.opened(old, loop.recipe.judge.base), rule, given[number], old, overall)
    learned = [one for examples_of_round in given.values() for one in examples_of_round]
    return _judge(loop, number, learned, loop.recipe.judge.settings, old or loop.recipe.judge.start)


def _judge(
    loop: Loop, number: int, given: Sequence[Any], changed: Mapping[str, Any], start: Path | None
) -> dict[str, Any]:
    recipe, out = loop.recipe.judge, loop.folder / "judges" / f"{number:02d}"
    sides = loop_votes.sides(given, recipe.shares, loop.recipe.seed)
    config = network.PRESETS[recipe.preset]
    defaults = judge_training.TINY if recipe.preset == "tiny" else judge_training.Settings()
    config, settings = loop_judge.adjusted(config, defaults, loop_models.overrides_of(changed, loop.recipe.seed))
    try:
        if start is not None:
            made = judges.load(start, recipe.base, train=True)
        else:
            examples.check(sides["learn"], "votes to learn from")
            made = loop_judge.fresh(config, sides["learn"], recipe.base, recipe.prompts, loop.recipe.seed)
        about = loop_judge.train(made, sides["learn"], settings, out, {"shares": recipe.shares})
        opened = loop_judge.opened(out, recipe.base)
        rule = loop_judge.calibrate(opened, out, sides["calibrate"], "scaling", recipe.promise, recipe.confidence)
    except OneClass as error:  # nothing can be learned from them; automatic rounds keep nothing, and it is said
        return {"judge": None, "why": str(error)}
    keep = {name: asdict(one) for name, one in {**rule.removers, "overall": rule.overall}.items()}
    return {
        "judge": str(out.relative_to(loop.folder)), "learned": about["votes"], "calibrated": len(sides["calibrate"]),
        "keep": keep,
    }  # fmt: skip


def score(loop: Loop, number: int) -> dict[str, Any]:
    """Probabilities of the round's candidates by the newest judge, into `scores.json`."""
    folder = loop.judge(number)
    if folder is None:
        loop.round(number).write("scores.json", b"{}")
        return {"judge": None, "why": "no judge could be trained on the votes so far"}
    opened, rule = loop_judge.opened(folder, loop.recipe.judge.base), calibration.read_rule(folder)
    tables, found = Tables(loop.round(number)), dict[str, float]()
    candidates = list(loop_votes.candidates_of(loop.round(number)).items())
    for start in range(0, len(candidates), loop_judge.AT_ONCE):
        part = candidates[start : start + loop_judge.AT_ONCE]
        rows = [tables.row(*row.place, ("source", "target", "mask")) for _, row in part]
        scores = rule.calibration(
            opened.logits([opened.see(one["source"], one["target"], one["mask"]) for one in rows])
        )
        found |= {item: float(score) for (item, _), score in zip(part, scores, strict=True)}
    loop.round(number).write("scores.json", json.dumps(found, sort_keys=True).encode())
    return {"judge": folder.name, "scored": len(found)}


def add(loop: Loop, number: int) -> dict[str, Any]:
    """Which candidates join the training set, one a scene; and how many of them the truth agrees with, where known."""
    recipe, kind = loop.recipe, loop.recipe.rounds[number - 1].kind
    candidates, waiting = {} if idle(recipe, number) else loop_votes.candidates_of(loop.round(number)), 0
    if recipe.keep == "everything" or not candidates:
        chosen = dict.fromkeys(candidates, 0.0)
    elif kind == "human":
        counted = loop_votes.standing(_votes(loop, number))
        chosen = {
            item: tally["yes"] / sum(tally.values())
            for item, tally in counted.items()
            if item in candidates and tally["yes"] > tally["no"]
        }
    else:
        chosen, waiting = _promised(loop, number, candidates)
    best: dict[str, str] = {}
    for item in sorted(chosen, key=lambda item: (-chosen[item], seed_for(recipe.seed, "keep", item))):
        best.setdefault(candidates[item].scene, item)
    kept = [
        Ref(_own(number), row.place[0], row.place[1], row.place[2], row.id, scene, row.label)
        for scene, item in sorted(best.items())
        for row in [candidates[item]]
    ]
    loop.round(number).write("kept.json", json.dumps([asdict(ref) for ref in kept]).encode())
    loop.round(number).write("kept.txt", "".join(f"{ref.id}\n" for ref in kept).encode())
    items = set(best.values())
    truth = _truth(loop, number) if candidates else {}
    loop.round(number).write(TRUTH, json.dumps(truth, sort_keys=True).encode())
    known = [item for item in items if item in truth]
    return {
        "kind": kind, "candidates": len(candidates), "scenes": len(refs(loop, f"rounds/{number:02d}/scenes")),
        "kept": len(kept), "left_to_people": waiting, "truly_yes": sum(truth[item] for item in known),
        "truth_known": len(known), "base_yes": sum(truth.values()), "base_known": len(truth),
    }  # fmt: skip


def _promised(loop: Loop, number: int, candidates: "Mapping[str, Row]") -> tuple[dict[str, float], int]:
    """What the judge keeps, each scene's best first, and how many candidates it leaves to people."""
    scores = json.loads(loop.round(number).read("scores.json"))
    folder = loop.judge(number)
    if folder is None or not scores:
        return {}, 0
    rule = calibration.read_rule(folder)
    items = sorted(scores)
    scenes = [candidates[item].scene for item in items]
    chosen, waiting = {}, 0
    overall = loop.recipe.judge.thresholds == "overall"
    # the promise was shown for each scene's best candidate, and holds for no other
    for at in calibration.best_of_each(np.array([scores[item] for item in items]), scenes):
        item = items[at]
        decided = rule.decide(scores[item], candidates[item].remover, overall)
        waiting += decided == "people"
        if decided == "keep":
            chosen[item] = scores[item]
    return chosen, waiting


def _own(number: int) -> str:
    return f"./rounds/{number:02d}"


def _truth(loop: Loop, number: int) -> dict[str, bool]:
    """The oracle's verdicts on a round's candidates, for the account alone; empty where nothing is known."""
    voted = loop.recipe.reviewers == "oracle" and loop.result("votes", number) is not None
    try:
        rows = _votes(loop, number) if voted else oracle.votes_on(loop.round(number))
        return {row["item"]: row["verdict"] == "yes" for row in rows}
    except oracle.NoTruth:
        return {}


def test(loop: Loop, number: int) -> dict[str, Any]:
    """The remover of this round on the frozen test set."""
    return measure(loop, number, refs(loop, "test"), loop.recipe.measures)


STEPS: Mapping[str, Callable[[Loop, int], dict[str, Any]]] = {
    "initial": initial, "train": train, "pretrain": pretrain, "draw": draw_scenes, "inpaint": inpaint, "votes": votes,
    "judge": judge, "score": score, "add": add, "tune": tune, "test": test, "distill": distill,
}  # fmt: skip
