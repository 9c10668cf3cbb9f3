"""A remover on a loop's frozen test set: success, closeness to the truth, and what judge and people say of it."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rasura.discriminator import calibration
from rasura.manifests.ids import seed_for, shard_id
from rasura.manifests.schemas import encode_records
from rasura.manifests.shards import Line, StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.networks.metrics import remove_score as remove_metric
from rasura.pipeline.loop.candidates import CANDIDATES, Reader, Ref, candidate, records
from rasura.pipeline.loop.measures import Measures, Opened, mean_of, psnr, share_of
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.training import discriminator as loop_judge
from rasura.pipeline.training import oracle
from rasura.pipeline.training import remover as loop_models
from rasura.pipeline.training import votes as loop_votes
from rasura.removers.base import hole_of, remove

NOTHING = Measures()


def measure(loop: Loop, number: int, test: Sequence[Ref], wanted: Measures = NOTHING) -> dict[str, Any]:
    """What is known of the remover of a round, each with its standard error (`…_error`); None for what is not.

    success: % by the oracle, of rows with a true target; `yes` is each scene's (None without truth).
    psnr, psnr_background: dB in the hole and around it. lpips: of the whole picture. remove: ReMOVE.
    judged: the newest judge's mean probability, %; judged_kept: share above its threshold, %.
    absent: why something is None.

    Raises:
        BadWeights: a network of `wanted` cannot be opened.
    """
    recipe, opened = loop.recipe, Opened(wanted)
    remover, judged = loop_models.current(recipe, loop.remover(number)), _Judged(loop, number)
    kept = _Kept(loop, number) if wanted.candidates else None
    found: dict[str, list[float]] = defaultdict(list)
    yes: list[bool | None] = []
    for rows in records(Reader(loop.store), test, recipe.shard_scenes):
        # the same seed in every round: what differs is the remover
        seeds = [seed_for(recipe.seed, "test", row["id"]) for row in rows]
        sources, masks = [row["source"] for row in rows], [row["mask"] for row in rows]
        targets = remove(remover, sources, masks, seeds, recipe.dilation, recipe.context)
        holes = [hole_of(mask, recipe.dilation) for mask in masks]
        for row, made, hole in zip(rows, targets, holes, strict=True):
            true, foreground = row.get("target"), row.get("foreground_mask")
            if true is None:
                yes.append(None)
                continue
            effects = foreground & ~row["mask"] if foreground is not None else None
            found["psnr"].append(psnr(made, true, hole))
            found["psnr_background"].append(psnr(made, true, ~hole))
            yes.append(oracle.judge(made, true, row["source"], hole, effects).verdict == "yes")
        if opened.lpips:
            pairs = [
                (made, row["target"]) for made, row in zip(targets, rows, strict=True) if row.get("target") is not None
            ]
            found["lpips"] += opened.lpips.distances([made for made, _ in pairs], [true for _, true in pairs]).tolist()
        if opened.features:
            found["remove"] += [
                remove_metric.score(made, hole, opened.features) for made, hole in zip(targets, holes, strict=True)
            ]
        judged.see(sources, targets, masks)
        if kept:
            kept.add(rows, targets, seeds)
    if kept:
        kept.close()
    told: dict[str, Any] = {"count": len(yes)}
    told |= _named("success", share_of([one for one in yes if one is not None]))
    for name in ("psnr", "psnr_background", "lpips", "remove"):
        told |= _named(name, mean_of(found[name]))
    absent = dict(opened.absent)
    if all(one is None for one in yes):
        absent |= dict.fromkeys(("success", "psnr", "psnr_background", "lpips"), "no test row has a true target")
    absent |= judged.absent
    return told | judged.told() | {"weights": opened.weights, "absent": absent, "yes": yes}


def _named(name: str, value: tuple[float | None, float | None]) -> dict[str, float | None]:
    return {name: value[0], f"{name}_error": value[1]}


class _Judged:
    """What the newest judge up to a round says of the test pictures."""

    def __init__(self, loop: Loop, number: int) -> None:
        self.folder, self.scores = loop.judge(number), list[float]()
        self.absent: dict[str, str] = {}
        self.threshold: float | None = None
        if self.folder is None:
            self.absent = dict.fromkeys(("judged", "judged_kept"), "no judge has been trained yet")
            return
        self.judge = loop_judge.opened(self.folder, loop.recipe.judge.base)
        self.rule = calibration.read_rule(self.folder)
        own = self.rule.removers.get(loop_models.CURRENT)
        keep = self.rule.overall if loop.recipe.judge.thresholds == "overall" else own
        self.threshold = keep.threshold if keep else None
        if self.threshold is None:
            self.absent = {"judged_kept": keep.why if keep else "the judge has seen no vote on this remover"}

    def see(self, sources: Sequence[Any], targets: Sequence[Any], masks: Sequence[Any]) -> None:
        if self.folder is not None:
            views = [self.judge.see(*one) for one in zip(sources, targets, masks, strict=True)]
            self.scores += self.rule.calibration(self.judge.logits(views)).tolist()

    def told(self) -> dict[str, Any]:
        mean, error = mean_of(self.scores)
        above = [score > self.threshold for score in self.scores] if self.threshold is not None else []
        percent = (None, None) if mean is None or error is None else (100 * mean, 100 * error)
        return {
            "judge": self.folder.name if self.folder else None,
            **_named("judged", percent), **_named("judged_kept", share_of(above)),
        }  # fmt: skip


def test_run(loop: Loop, number: int) -> Store:
    """The run of a round's test pictures, where the recipe keeps them."""
    return loop.round(number).sub("test")


class _Kept:
    """A round's test pictures as a run of candidates, so that people judge them like any other."""

    def __init__(self, loop: Loop, number: int) -> None:
        self.loop, self.number, self.run = loop, number, test_run(loop, number)
        self.table, self.lines = self.run.sub("tables/candidates"), list[Line]()

    def add(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any], seeds: Sequence[int]) -> None:
        recipe = self.loop.recipe
        made = [
            candidate(row, f"test.{self.number}", target, seed, loop_models.CURRENT, self.number, recipe.dilation)
            for row, target, seed in zip(rows, targets, seeds, strict=True)
        ]
        # the round is in the shard's name: an item of a review is named by its place
        shard = shard_id(f"test {self.number} {recipe.seed}", [row["id"] for row in rows])
        counts = [StageCount(stage, len(rows), len(rows), len(made)) for stage in ("test", "write")]
        self.lines.append(commit(self.table, shard, "", len(rows), encode_records(made, CANDIDATES), (), counts))

    def close(self) -> None:
        write_manifest(self.table, self.lines, CANDIDATES)
        columns = {name: str(kind) for name, kind in CANDIDATES.items()}
        flows = {"candidates": {"part": "", "upstream": [], "stages": ["test"], "columns": columns}}
        plan = {"name": f"test-{self.number}", "recipe": "", "flows": flows, "dataset": None}
        self.run.write("plan.json", (json.dumps(plan, indent=1) + "\n").encode())


def by_people(loop: Loop, number: int) -> dict[str, Any]:
    """Success of a round's test pictures by people's votes so far, %, with its error, and how many have a vote.

    Votes are those of the run's own review, and `*.jsonl` files under its `votes/`; the oracle's do not count.
    """
    folder = test_run(loop, number).local
    rows: list[dict[str, Any]] = []
    if folder is not None and folder.is_dir():
        rows, _ = loop_votes.read(sorted((folder / "votes").glob("*.jsonl")), "people")
        rows += _of_review(folder)
    last = {row["nonce"]: row for row in rows}.values()
    counted = loop_votes.standing(sorted(last, key=lambda row: (row["time"], row.get("seq") or 0)))
    yes = [tally["yes"] > tally["no"] for tally in counted.values()]
    return {"voted": len(yes), **_named("people", share_of(yes))}


def _of_review(folder: Any) -> list[dict[str, Any]]:
    from rasura.pipeline.run.review import DATABASE

    if not (folder / DATABASE).is_file():
        return []
    from rasura.annotator.exchange.votes_file import vote_rows
    from rasura.annotator.store.database import Database

    database = Database(str(folder / DATABASE), create=False)
    try:
        with database.read() as connection:
            return [row for row in vote_rows(connection) if row["reviewer"] != oracle.NAME]
    finally:
        database.close()
