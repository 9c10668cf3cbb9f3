"""A remover on a loop's frozen test set: its success, its closeness to the truth, and its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.discriminator import calibration
from rasura.manifests.ids import compute_seed, compute_shard_id
from rasura.manifests.run_layout import REVIEW_DATABASE, FlowDescription, RunPlan, table_path, write_plan
from rasura.manifests.schemas import encode_records
from rasura.manifests.shards import CommitRecord, StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.networks.metrics import remove_score
from rasura.networks.metrics.psnr import compute_psnr
from rasura.networks.trainer import OnProgress
from rasura.pipeline.loop.candidates import CANDIDATES, build_candidate
from rasura.pipeline.loop.measures import MOST_PSNR, MeasureNetworks, Measures, compute_mean, compute_share
from rasura.pipeline.loop.results import TestResult
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.training import discriminator as discriminators
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.remover import CURRENT, open_current_remover
from rasura.pipeline.training.rows import RowReader, RowRef
from rasura.removers.base import make_hole, remove

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow

Picture = npt.NDArray[np.uint8]
NO_NETWORKS = Measures()
NO_TRUTH = "no test row has a true target"


def measure_remover(
    loop: Loop,
    number: int,
    test: Sequence[RowRef],
    measures: Measures = NO_NETWORKS,
    on_progress: OnProgress | None = None,
) -> TestResult:
    """Measure the remover of a round on the test set.

    Args:
        test: rows of the test set.
        measures: beyond success and PSNR.
        on_progress: receives the number of rows that are done, and of all.

    Raises:
        BadWeights: a network of `measures` cannot be opened.
    """
    recipe, networks = loop.recipe, MeasureNetworks(measures)
    remover = open_current_remover(recipe.remover, recipe.seed, loop.remover_folder(number))
    values, scores = _PictureMeasures(networks), _Scores(loop, number)
    pictures = _TestPictures(loop, number) if measures.candidates else None
    done = 0
    for rows in RowReader(loop.store).read_batches(test, recipe.shard_scenes):
        # the same seed in every round: only the remover differs
        seeds = [compute_seed(recipe.seed, "test", row["id"]) for row in rows]
        sources, masks = [row["source"] for row in rows], [row["mask"] for row in rows]
        targets = remove(remover, sources, masks, seeds, recipe.dilation, recipe.context)
        values.add(rows, targets, [make_hole(mask, recipe.dilation) for mask in masks])
        scores.add(sources, targets, masks)
        if pictures:
            pictures.add(rows, targets, seeds)
        done += len(rows)
        if on_progress:
            on_progress(done, len(test), "test rows")
    if pictures:
        pictures.close()
    return TestResult(
        count=len(values.yes),
        **values.summarize(),  # type: ignore[arg-type]
        **scores.summarize(),
        weights=networks.weights,
        reasons=networks.reasons | values.find_reasons() | scores.reasons,
        yes=values.yes,
    )


class _PictureMeasures:
    """Measures of filled test pictures, one value a picture."""

    def __init__(self, networks: MeasureNetworks) -> None:
        self.networks = networks
        self.psnr: list[float] = []
        self.psnr_background: list[float] = []
        self.lpips: list[float] = []
        self.remove_score: list[float] = []
        self.yes: list[bool | None] = []

    def add(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Picture], holes: Sequence[Any]) -> None:
        for row, target, hole in zip(rows, targets, holes, strict=True):
            truth, foreground = row.get("target"), row.get("foreground_mask")
            if truth is None:
                self.yes.append(None)
                continue
            effects = foreground & ~row["mask"] if foreground is not None else None
            self.psnr.append(compute_psnr(target, truth, hole, MOST_PSNR))
            self.psnr_background.append(compute_psnr(target, truth, ~hole, MOST_PSNR))
            opinion = oracle.review_candidate(target, truth, row["source"], hole, effects)
            self.yes.append(opinion.verdict == "yes")
        if self.networks.lpips:
            pairs = [
                (target, row["target"])
                for target, row in zip(targets, rows, strict=True)
                if row.get("target") is not None
            ]
            self.lpips += self.networks.lpips.compute_distances(
                [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            ).tolist()
        if self.networks.features:
            self.remove_score += [
                remove_score.compute_score(target, hole, self.networks.features)
                for target, hole in zip(targets, holes, strict=True)
            ]

    def summarize(self) -> dict[str, float | None]:
        """Return mean and error of each measure, as fields of a `TestResult`."""
        summary = _name("success", compute_share([yes for yes in self.yes if yes is not None]))
        for name in ("psnr", "psnr_background", "lpips", "remove_score"):
            summary |= _name(name, compute_mean(getattr(self, name)))
        return summary

    def find_reasons(self) -> dict[str, str]:
        """Return why measures are missing, by their key in the step's result."""
        if any(yes is not None for yes in self.yes):
            return {}
        return dict.fromkeys(("success", "psnr", "psnr_background", "lpips"), NO_TRUTH)


def _name(name: str, value: tuple[float | None, float | None]) -> dict[str, float | None]:
    return {name: value[0], f"{name}_error": value[1]}


class _Scores:
    """The newest discriminator's probabilities of the test pictures. reasons: why there are none, by key."""

    def __init__(self, loop: Loop, number: int) -> None:
        self.folder = loop.find_discriminator(number)
        self.scores: list[float] = []
        self.reasons: dict[str, str] = {}
        self.threshold: float | None = None
        if self.folder is None:
            self.reasons = dict.fromkeys(("judged", "judged_kept"), "no discriminator has been trained yet")
            return
        config = loop.recipe.discriminator
        self.discriminator = discriminators.open_discriminator(self.folder, config.base)
        self.rule = calibration.read_rule(self.folder)
        keep = self.rule.overall if config.thresholds == "overall" else self.rule.removers.get(CURRENT)
        self.threshold = keep.threshold if keep else None
        if self.threshold is None:
            self.reasons = {"judged_kept": keep.why if keep else "the discriminator has no vote on this remover"}

    def add(self, sources: Sequence[Any], targets: Sequence[Any], masks: Sequence[Any]) -> None:
        if self.folder is not None:
            pictures = zip(sources, targets, masks, strict=True)
            crops = [self.discriminator.preprocess(source, target, mask) for source, target, mask in pictures]
            self.scores += self.rule.calibration(self.discriminator.compute_logits(crops)).tolist()

    def summarize(self) -> dict[str, Any]:
        """Return fields of a `TestResult`."""
        mean, error = compute_mean(self.scores)
        above = [score > self.threshold for score in self.scores] if self.threshold is not None else []
        percent = (None, None) if mean is None or error is None else (100 * mean, 100 * error)
        return {
            "discriminator": self.folder.name if self.folder else None,
            **_name("mean_probability", percent),
            **_name("accepted", compute_share(above)),
        }


def open_test_run(loop: Loop, number: int) -> Store:
    """Open the run of a round's test pictures, which is there where the recipe keeps them."""
    return loop.open_round(number).sub("test")


class _TestPictures:
    """A round's filled test pictures as a run of candidates, so that people can judge them like any other."""

    def __init__(self, loop: Loop, number: int) -> None:
        self.loop, self.number, self.run = loop, number, open_test_run(loop, number)
        self.table = self.run.sub(table_path("candidates"))
        self.commits: list[CommitRecord] = []

    def add(self, rows: Sequence[Mapping[str, Any]], targets: Sequence[Any], seeds: Sequence[int]) -> None:
        recipe, label = self.loop.recipe, f"test.{self.number}"
        records = [
            build_candidate(row, label, target, seed, CURRENT, self.number, recipe.dilation)
            for row, target, seed in zip(rows, targets, seeds, strict=True)
        ]
        # the round is part of the shard's name, because an item of a review is named by its place
        shard = compute_shard_id(f"test {self.number} {recipe.seed}", [row["id"] for row in rows])
        counts = [StageCount(stage, len(rows), len(rows), len(records)) for stage in ("test", "write")]
        table = encode_records(records, CANDIDATES)
        self.commits.append(commit(self.table, shard, "", len(rows), table, (), counts))

    def close(self) -> None:
        write_manifest(self.table, self.commits, CANDIDATES)
        columns = {name: str(kind) for name, kind in CANDIDATES.items()}
        flows = {"candidates": FlowDescription(stages=["test"], columns=columns)}
        write_plan(self.run, RunPlan(f"test-{self.number}", "", flows))


@dataclass(frozen=True)
class PeopleSuccess:
    """Success of a round's test pictures by people's votes so far.

    voted: pictures with a vote. percent, error: their share of yes; None without votes.
    """

    voted: int
    percent: float | None
    error: float | None


def count_people_votes(loop: Loop, number: int) -> PeopleSuccess:
    """Count people's votes on a round's test pictures.

    Votes are those of the run's own review, and of `*.jsonl` files under its `votes/`. The oracle's do not count.
    """
    folder = open_test_run(loop, number).local
    rows: list[VoteRow] = []
    if folder is not None and folder.is_dir():
        rows, _ = vote_logs.read_votes_files(sorted((folder / "votes").glob("*.jsonl")), "people")
        rows += _read_review(folder)
    entries = {row["nonce"]: row for row in rows}.values()
    tallies = vote_logs.tally_votes(sorted(entries, key=lambda row: (row["time"], row.get("seq") or 0)))
    yes = [tally["yes"] > tally["no"] for tally in tallies.values()]
    return PeopleSuccess(len(yes), *compute_share(yes))


def _read_review(folder: Path) -> "list[VoteRow]":
    """Read people's votes of the review in a run's folder."""
    if not (folder / REVIEW_DATABASE).is_file():
        return []
    from rasura.annotator.exchange.votes_file import list_votes
    from rasura.annotator.store.database import Database

    database = Database(str(folder / REVIEW_DATABASE), create=False)
    try:
        with database.read() as connection:
            return [row for row in list_votes(connection) if row["reviewer"] != oracle.NAME]
    finally:
        database.close()
