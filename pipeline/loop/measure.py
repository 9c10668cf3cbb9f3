"""A remover on a loop's frozen test set: its success, its closeness to the truth, and its scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.manifests.run_layout import REVIEW_DATABASE
from rasura.manifests.tables import Tables
from rasura.pipeline.loop.measures import compute_mean, compute_share
from rasura.pipeline.loop.results import TestResult
from rasura.pipeline.loop.state import Loop, explain_missing_discriminator
from rasura.pipeline.loop.trainings import read_rule
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_logs
from rasura.pipeline.training.remover import CURRENT
from rasura.pipeline.training.rows import RowRef

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow

NO_TRUTH = "no test row has a true target"
MEASURES = ("psnr", "psnr_background", "lpips", "remove_score", "rc_s")
"""Columns of the flow `measured` that are averaged, which are fields of a `TestResult`."""
NETWORKS = ("lpips", "remove", "rc_s")
"""Measures that need a network."""


def summarize_test(loop: Loop, number: int, rows: Sequence[RowRef], discriminator: str | None) -> TestResult:
    """Summarize what the flows of a round's test have measured.

    Args:
        rows: of the test set, in their order.
        discriminator: the place in the loop of the one that scored the pictures; None where there is none.
    """
    tables = Tables(loop.open_test_run(number))
    measured = tables.table("measured").read_light(("id", "parents", "weights", "truth_verdict", *MEASURES)).to_pylist()
    verdicts = {row["parents"][0]: row["truth_verdict"] for row in measured}
    yes = [None if (verdict := verdicts.get(ref.id)) is None else verdict == "yes" for ref in rows]
    summary: dict[str, Any] = _name("success", compute_share([value for value in yes if value is not None]))
    for name in MEASURES:
        summary |= _name(name, compute_mean([row[name] for row in measured if row[name] is not None]))
    files = loop.recipe.measures.list_files()
    reasons = {name: f"the recipe has no measures.{name}" for name in NETWORKS if name not in files}
    if not any(value is not None for value in yes):
        reasons |= dict.fromkeys(("success", "psnr", "psnr_background", "lpips"), NO_TRUTH)
    scores, missing = _summarize_scores(loop, number, tables, discriminator)
    hashes = {entry["name"]: entry["value"] for row in measured[:1] for entry in row["weights"]}
    return TestResult(
        count=len(rows),
        **summary,
        **scores,
        weights={name: hashes[f"measure.{name}"] for name in files if measured},
        reasons=reasons | missing,
        yes=yes,
    )


def _name(name: str, value: tuple[float | None, float | None]) -> dict[str, float | None]:
    return {name: value[0], f"{name}_error": value[1]}


def _summarize_scores(
    loop: Loop, number: int, tables: Tables, discriminator: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Summarize a discriminator's scores of the test pictures; return them, and why some are missing, by key."""
    if discriminator is None:
        return {}, dict.fromkeys(("judged", "judged_kept"), explain_missing_discriminator(loop, number))
    scores: list[float] = tables.table("scored").read_light(("id", "score"))["score"].to_pylist()
    rule, reasons = read_rule(loop, discriminator), {}
    keep = rule.overall if loop.recipe.discriminator.thresholds == "overall" else rule.removers.get(CURRENT)
    threshold = keep.threshold if keep else None
    if threshold is None:
        reasons["judged_kept"] = keep.why if keep else "the discriminator has no vote on this remover"
    above = [score > threshold for score in scores] if threshold is not None else []
    return {
        "discriminator": discriminator.rpartition("/")[2],
        **_name("mean_probability", compute_share(scores)),
        **_name("accepted", compute_share(above)),
    }, reasons


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
    run = loop.open_test_run(number)
    rows = vote_logs.read_votes_folder(run.sub("votes"), "people")
    if (review := run.find(REVIEW_DATABASE)) is not None:
        rows += _read_review(review)
    entries = {row["nonce"]: row for row in rows}.values()
    tallies = vote_logs.tally_votes(sorted(entries, key=lambda row: (row["time"], row.get("seq") or 0)))
    yes = [tally["yes"] > tally["no"] for tally in tallies.values()]
    return PeopleSuccess(len(yes), *compute_share(yes))


def _read_review(file: Path) -> "list[VoteRow]":
    """Read people's votes of a run's review."""
    if not file.is_file():
        return []
    from rasura.annotator.exchange.votes_file import list_votes
    from rasura.annotator.store.database import Database

    database = Database(str(file), create=False)
    try:
        with database.read() as connection:
            return [row for row in list_votes(connection) if row["reviewer"] != oracle.NAME]
    finally:
        database.close()
