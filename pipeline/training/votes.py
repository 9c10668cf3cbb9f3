"""Votes of a review as training data of a discriminator: each candidate with the share of its reviewers' yes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasura.discriminator.dataset import StoredExample, compute_opinion
from rasura.manifests.errors import ReviewError
from rasura.manifests.ids import assign_split
from rasura.manifests.remote_files import fetch
from rasura.manifests.schemas import CANDIDATE_KINDS
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.training import oracle
from rasura.stages.judging.truth import find_effects

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow
    from rasura.annotator.store.rows import ReviewableRow

SHARES: Mapping[str, float] = {"evaluate": 0.15, "calibrate": 0.35, "learn": 0.5}
"""Uses of a scene's votes. Thresholds need about as many votes as learning, to be shown to reach the target."""

RULING_VOTES = 3
"""Votes that an expert's ruling counts as, at least: as many as reviewers who disagree are asked for, by default."""
Reviewers = Literal["people", "oracle"]
"""The two sorts of reviewers, whose votes are never mixed."""


class UnknownVotes(ReviewError):
    """Votes on items that the run does not have."""


class MixedVotes(ReviewError):
    """Votes of people and of the oracle together, without a choice of the ones that count."""


def read_votes_files(files: Sequence[Path], reviewers: Reviewers | None = None) -> "tuple[list[VoteRow], Reviewers]":
    """Read the entries of votes files, oldest first.

    Args:
        reviewers: whose votes count; None: all, if they are of one sort.

    Returns:
        The entries, and whose they are.

    Raises:
        BadVotes: a file that is missing, or no votes file.
        MixedVotes: votes of both sorts.
    """
    from rasura.annotator.exchange.votes_file import read_votes

    rows = [row for file in files for row in read_votes(file)]
    sorts: Counter[Reviewers] = Counter("oracle" if row["reviewer"] == oracle.NAME else "people" for row in rows)
    if reviewers is None and len(sorts) > 1:
        shares = " and ".join(f"{count} of {name}" for name, count in sorted(sorts.items()))
        raise MixedVotes(f"the votes are {shares}: say which ones count with --reviewers people or --reviewers oracle")
    sort: Reviewers = reviewers if reviewers is not None else next(iter(sorts), "people")
    rows = [row for row in rows if (row["reviewer"] == oracle.NAME) == (sort == "oracle")]
    return sorted(rows, key=lambda row: (row["time"], row.get("seq") or 0)), sort


def read_votes_folder(folder: Store, reviewers: Reviewers) -> "list[VoteRow]":
    """Read the votes of one sort in a folder's `*.jsonl`, oldest first and each entry once; [] without a folder."""
    names = [name for name in folder.files() if name.endswith(".jsonl")]
    files = [folder.find(name) or fetch(f"{folder.uri}/{name}") for name in names]
    rows, _ = read_votes_files(files, reviewers)
    return list({row["nonce"]: row for row in rows}.values())


def index_candidates(run: Store) -> "dict[str, ReviewableRow]":
    """Return the candidates of a round by the ids of their items."""
    from rasura.annotator.store.items import compute_item_id
    from rasura.annotator.store.rows import list_rows

    return {compute_item_id(row.place, "target"): row for row in list_rows(run, ["candidates"])}


def tally_votes(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Count the verdicts that stand on each item: each reviewer's last, unless it was withdrawn.

    An expert's ruling stands in place of all of them, with `RULING_VOTES` votes.

    Args:
        rows: entries of the log, oldest first.

    Returns:
        Counts of verdicts by item; items without a verdict are left out.

    Examples:
        >>> entry = {"item": "a", "action": "vote", "reviewer": "Ann", "verdict": "yes"}
        >>> tally_votes([entry, {**entry, "reviewer": "Bob"}, {**entry, "verdict": "no"}])
        {'a': Counter({'no': 1, 'yes': 1})}
    """
    last: dict[tuple[str, str], str | None] = {}
    ruled: dict[str, str | None] = {}
    for row in rows:
        if row.get("kind") not in (None, "candidate") or row["action"] in ("flag", "correct"):
            continue
        if row["action"] == "overrule":
            ruled[row["item"]] = row.get("verdict")
            continue
        verdict = row.get("verdict") if row["action"] in ("vote", "edit", "restore") else None
        last[row["item"], row["reviewer"]] = verdict
    tallies: dict[str, Counter[str]] = {}
    for (item, _), verdict in last.items():
        if verdict:
            tallies.setdefault(item, Counter())[verdict] += 1
    for item, verdict in ruled.items():
        if verdict:
            tallies[item] = Counter({verdict: max(RULING_VOTES, sum(tallies.get(item, Counter()).values()))})
    return tallies


def load_examples(run: Store, rows: Sequence[Mapping[str, Any]], flows: Sequence[str] = ()) -> list[StoredExample]:
    """List the candidates of a run that have votes, ordered by place. Their pictures are read when they are needed.

    Args:
        rows: entries of the votes' log, oldest first.
        flows: whose candidates; all where empty.

    Raises:
        UnknownVotes: an item is not in the run.
        NothingToReview: there is no such flow, or no run.
    """
    from rasura.annotator.store.items import compute_item_id
    from rasura.annotator.store.rows import list_rows

    tables = Tables(run)
    candidates = {
        compute_item_id(row.place, "target"): row for row in list_rows(run, flows) if row.kind in CANDIDATE_KINDS
    }
    tallies = tally_votes(rows)
    if missing := sorted(set(tallies) - set(candidates)):
        raise UnknownVotes(
            f"{len(missing)} of {len(tallies)} items with votes are not in {run.uri}, {missing[0]} for one: "
            "the votes are of another run, or its candidates were made again"
        )
    examples = []
    inclusion = {row["item"]: (row.get("inclusion") or 1.0, row.get("complete") is not False) for row in rows}
    for item in sorted(tallies, key=lambda item: (candidates[item].place, item)):
        row, tally = candidates[item], tallies[item]
        share = compute_opinion(tally["yes"], tally["no"], tally["unsure"])
        if share is not None:
            read = partial(_read_pictures, tables, row.place)
            probability, complete = inclusion[item]
            weight = share.weight / probability
            examples.append(StoredExample(read, share.vote, row.scene, row.remover or "", weight, complete))
    return examples


def _read_pictures(tables: Tables, place: tuple[str, str, int]) -> dict[str, Any]:
    row = tables.row(*place, ("source", "target", "mask", "foreground_mask", "foreground_visible"))
    pictures, effects = {name: row[name] for name in ("source", "target", "mask")}, find_effects(row)
    return pictures if effects is None else pictures | {"effects": effects}


def divide_examples(
    examples: Sequence[StoredExample], shares: Mapping[str, float], seed: int
) -> dict[str, list[StoredExample]]:
    """Divide examples among uses such as `learn` and `calibrate`, each scene to one; later votes move no scene.

    Args:
        shares: of the scenes, by use; they sum to 1.
    """
    parts: dict[str, list[StoredExample]] = {name: [] for name in shares}
    for example in examples:
        parts[assign_split(f"judge {seed} {example.scene}", shares)].append(example)
    return parts
