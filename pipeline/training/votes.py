"""Votes of a review as what a judge learns from: each candidate with the share of its reviewers who said yes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasura.discriminator.dataset import Stored, opinion
from rasura.manifests.ids import split_of
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.training import oracle

if TYPE_CHECKING:
    from rasura.annotator.store.items import Row

SIDES: Mapping[str, float] = {"evaluate": 0.15, "calibrate": 0.35, "learn": 0.5}
"""What a scene's votes are for. Thresholds need about as many as learning: they have to show what they promise."""

Whose = Literal["people", "oracle"]


class UnknownVotes(ValueError):
    """Votes on items that the run does not hold."""


class MixedVotes(ValueError):
    """Votes of people and of the oracle together, and nobody said which ones count."""


def read(files: Sequence[Path], whose: Whose | None = None) -> tuple[list[dict[str, Any]], Whose]:
    """Entries of votes files, oldest first, and whose they are.

    Args:
        whose: the others are left out; None: all of them, if they are of one sort.

    Raises:
        BadVotes, FileNotFoundError, MixedVotes
    """
    from rasura.annotator.exchange.votes_file import read_votes

    rows = [row for file in files for row in read_votes(file)]
    sorts: Counter[Whose] = Counter("oracle" if row["reviewer"] == oracle.NAME else "people" for row in rows)
    if whose is None and len(sorts) > 1:
        told = " and ".join(f"{count} of {name}" for name, count in sorted(sorts.items()))
        raise MixedVotes(f"the votes are {told}: say which ones count with --reviewers people or --reviewers oracle")
    found: Whose = whose if whose is not None else next(iter(sorts), "people")
    rows = [row for row in rows if (row["reviewer"] == oracle.NAME) == (found == "oracle")]
    return sorted(rows, key=lambda row: (row["time"], row.get("seq") or 0)), found


def of_folder(folder: Path, whose: Whose) -> list[dict[str, Any]]:
    """The votes of one sort in a folder's `*.jsonl`, oldest first, the same entry once; none where it is not there."""
    rows, _ = read(sorted(folder.glob("*.jsonl")), whose)
    return list({row["nonce"]: row for row in rows}.values())


def candidates_of(run: Store) -> "dict[str, Row]":
    """A round's candidates by the id of their item."""
    from rasura.annotator.store.items import item_id, rows_of

    return {item_id(row.place, "target"): row for row in rows_of(run, ["candidates"])}


def standing(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Verdicts that count on each item, from entries in their order; items nobody has a verdict on are left out."""
    last: dict[tuple[str, str], str | None] = {}
    for row in rows:
        if row.get("kind") not in (None, "candidate") or row["action"] == "flag":
            continue
        said = row.get("verdict") if row["action"] in ("vote", "edit") else None
        last[row["item"], row["reviewer"]] = said
    found: dict[str, Counter[str]] = {}
    for (item, _), verdict in last.items():
        if verdict:
            found.setdefault(item, Counter())[verdict] += 1
    return found


def examples_of(run: Store, rows: Sequence[Mapping[str, Any]], flows: Sequence[str] = ()) -> list[Stored]:
    """The run's candidates that have votes, ordered by item; their pictures stay where they are.

    Raises:
        UnknownVotes: an item is not in the run.
        NothingToReview: no such flow, or no run.
    """
    from rasura.annotator.store.items import item_id, rows_of

    tables = Tables(run)
    places = {item_id(row.place, "target"): row for row in rows_of(run, flows) if row.kind == "edited"}
    counted = standing(rows)
    if missing := sorted(set(counted) - set(places)):
        raise UnknownVotes(
            f"{len(missing)} of {len(counted)} items with votes are not in {run.uri}, {missing[0]} for one: "
            "the votes are of another run, or its candidates were made again"
        )
    made = []
    for item in sorted(counted, key=lambda item: (places[item].place, item)):
        row, tally = places[item], counted[item]
        said = opinion(tally["yes"], tally["no"], tally["unsure"])
        if said is None:
            continue
        made.append(Stored(partial(_pictures, tables, row.place), said.vote, row.scene, row.remover or "", said.weight))
    return made


def _pictures(tables: Tables, place: tuple[str, str, int]) -> dict[str, Any]:
    found = tables.row(place[0], place[1], place[2], ("source", "target", "mask", "foreground_mask"))
    foreground = found.pop("foreground_mask", None)
    return found if foreground is None else found | {"effects": foreground & ~found["mask"]}


def sides(examples: Sequence[Stored], shares: Mapping[str, float], seed: int) -> dict[str, list[Stored]]:
    """Examples by what they are for; a scene is on one side, and votes that come later move none."""
    found: dict[str, list[Stored]] = {name: [] for name in shares}
    for one in examples:
        found[split_of(f"judge {seed} {one.scene}", shares)].append(one)
    return found
