"""A loop's rounds in the form of RORem's Table 1, further measures, and both loops side by side as a chart."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rasura.discriminator.binomial import compute_interval
from rasura.pipeline.loop.decide import NO_DISCRIMINATOR, NOT_BEST
from rasura.pipeline.loop.measure import PeopleSuccess, count_people_votes
from rasura.pipeline.loop.results import AddResult, DistillationResult, FinalResult, InitialResult, TestResult
from rasura.pipeline.loop.state import (
    DECISIONS,
    Loop,
    explain_missing_discriminator,
    find_refusal,
    list_steps,
    round_path,
)
from rasura.pipeline.report import loop_charts


class RoremRow(NamedTuple):
    """A row of RORem's Table 1 (arXiv 2501.00740): 500 test pictures, success by people."""

    name: str
    candidates: int | None
    selected: int | None
    total: int
    success: float
    psnr: float


ROREM = (
    RoremRow("initialisation", 61_565, 61_565, 61_565, 38.6, 28.41),
    RoremRow("human 1", 10_000, 4_182, 65_747, 47.8, 28.63),
    RoremRow("auto 1", 30_000, 20_634, 86_381, 55.6, 28.60),
    RoremRow("human 2", 10_000, 7_008, 93_389, 61.4, 28.70),
    RoremRow("auto 2", 80_000, 51_099, 144_488, 67.2, 28.75),
    RoremRow("human 3", 10_000, 6_133, 150_621, 71.8, 28.77),
    RoremRow("auto 3", 95_204, 49_313, 199_934, 75.4, 28.78),
    RoremRow("final", None, 1_200, 201_134, 76.2, 31.10),
)
MEASURES: Mapping[str, str] = {
    "success": "success",
    "psnr": "PSNR hole",
    "psnr_background": "PSNR around",
    "lpips": "LPIPS",
    "remove": "ReMOVE",
    "rc_s": "RC-S",
    "judged": "mean score",
    "judged_kept": "accepted",
}
"""Keys of the measures in a test step's result, each with its standard error, and their names in the tables."""


@dataclass(frozen=True)
class RoundRow:
    """The start of a loop, or one of its rounds, as far as the loop got; None for what is not available yet.

    selected: candidates that joined the training set. yielded: the same in percent of the scenes. total: triplets of
    the training set then.
    true_yes, with_truth: of the selected candidates, those that the oracle accepts, and those with a true target.
    true_low, true_high: Clopper-Pearson interval of true_yes / with_truth, in percent.
    test: an empty result where the remover was not tested yet. people: success of the test pictures by people.
    """

    name: str
    scenes: int | None
    candidates: int | None
    selected: int
    yielded: float | None
    total: int
    true_yes: int | None
    with_truth: int | None
    true_low: float | None
    true_high: float | None
    left_to_people: int | None
    votes: int | None
    test: TestResult
    people: PeopleSuccess

    def to_json(self) -> dict[str, Any]:
        """Return the row as `rasura loop status --json` prints it."""
        test = self.test.to_json()
        return {
            "round": self.name,
            "scenes": self.scenes,
            "candidates": self.candidates,
            "selected": self.selected,
            "yield": self.yielded,
            "total": self.total,
            "truly_yes": self.true_yes,
            "truth_known": self.with_truth,
            "true_low": self.true_low,
            "true_high": self.true_high,
            "left_to_people": self.left_to_people,
            "votes": self.votes,
            **{key: test[key] for name in MEASURES for key in (name, f"{name}_error")},
            **{key: test[key] for key in ("judge", "count", "weights", "absent")},
            "voted": self.people.voted,
            "people": self.people.percent,
            "people_error": self.people.error,
        }


def build_rows(loop: Loop) -> list[RoundRow]:
    """Build a row for the start and one for each round, as far as the loop got."""
    rows: list[RoundRow] = []
    initial, tally = loop.read_result(InitialResult, 0), {"human": 0, "auto": 0}
    if initial is None:
        return rows
    total = initial.initial
    rows.append(_build_row(loop, 0, "initialisation", total, None))
    for number, entry in enumerate(loop.recipe.rounds, 1):
        added = loop.read_result(AddResult, number)
        if added is None:
            break
        tally[entry.kind] += 1
        total += added.kept
        rows.append(_build_row(loop, number, f"{entry.kind} {tally[entry.kind]}", total, added))
    final = loop.read_result(FinalResult, loop.recipe.last)
    if final is not None:
        own = final.triplets - (total if loop.recipe.final and loop.recipe.final.rounds else 0)
        rows.append(replace(_build_row(loop, loop.recipe.last, "final", total + own, None), selected=own))
    return rows


def _build_row(loop: Loop, number: int, name: str, total: int, added: AddResult | None) -> RoundRow:
    test = loop.read_result(TestResult, number)
    low, high = compute_interval(added.true_yes, added.with_truth) if added and added.with_truth else (None, None)
    return RoundRow(
        name=name,
        scenes=added.scenes if added else None,
        candidates=added.candidates if added else None,
        selected=added.kept if added else total,
        yielded=100 * added.kept / added.scenes if added and added.scenes else None,
        total=total,
        true_yes=added.true_yes if added else None,
        with_truth=added.with_truth if added else None,
        true_low=None if low is None else 100 * low,
        true_high=None if high is None else 100 * high,
        left_to_people=added.left_to_people if added else None,
        votes=loop.count_votes(number) if added else None,
        test=test or TestResult(),
        people=count_people_votes(loop, number) if test else PeopleSuccess(0, None, None),
    )


def _format_count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _format_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return "-"
    # a loop of an older version has no error of the PSNR around the hole
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _format_truth(row: RoundRow) -> str:
    return f"{row.true_yes}/{row.with_truth}" if row.with_truth else "-"


def _format_interval(row: RoundRow) -> str:
    if not row.with_truth or row.true_yes is None:
        return "-"
    return f"{100 * row.true_yes / row.with_truth:.1f} [{row.true_low:.1f}, {row.true_high:.1f}]"


def _format_people(row: RoundRow) -> str:
    if not row.people.voted:
        return "-"
    part = "" if row.people.voted == row.test.count else f" ({row.people.voted}/{row.test.count})"
    return f"{_format_error(row.people.percent, row.people.error, 1)}{part}"


Columns = Mapping[str, Callable[[RoundRow], str]]
"""Headings, and the text of a row below each."""

TABLE_1: Columns = {
    "round": lambda row: row.name,
    "scenes": lambda row: _format_count(row.scenes),
    "candidates": lambda row: _format_count(row.candidates),
    "selected": lambda row: _format_count(row.selected),
    "yield %": lambda row: "-" if row.yielded is None else f"{row.yielded:,.1f}",
    "true yes": _format_truth,
    "to people": lambda row: _format_count(row.left_to_people),
    "total": lambda row: _format_count(row.total),
    "people %": _format_people,
    "success %": lambda row: _format_error(row.test.success, row.test.success_error, 1),
    "PSNR hole": lambda row: _format_error(row.test.psnr, row.test.psnr_error, 2),
}
FURTHER: Columns = {
    "round": lambda row: row.name,
    "true yes % [95 %]": _format_interval,
    "votes": lambda row: _format_count(row.votes),
    "discriminator": lambda row: row.test.discriminator or "-",
    "mean score %": lambda row: _format_error(row.test.mean_probability, row.test.mean_probability_error, 1),
    "accepted %": lambda row: _format_error(row.test.accepted, row.test.accepted_error, 1),
    "PSNR around": lambda row: _format_error(row.test.psnr_background, row.test.psnr_background_error, 2),
    "LPIPS": lambda row: _format_error(row.test.lpips, row.test.lpips_error, 4),
    "ReMOVE": lambda row: _format_error(row.test.remove_score, row.test.remove_score_error, 4),
    "RC-S": lambda row: _format_error(row.test.rc_s, row.test.rc_s_error, 4),
}


def format_cells(columns: Columns, rows: Sequence[RoundRow]) -> list[tuple[str, ...]]:
    """Format a table as text: the headings and a line for each row. A column without any value is left out."""
    lines = [tuple(cell(row) for cell in columns.values()) for row in rows]
    used = [index for index, _ in enumerate(columns) if index == 0 or any(line[index] != "-" for line in lines)]
    return [tuple(line[index] for index in used) for line in [tuple(columns), *lines]]


def _align(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def list_missing_measures(rows: Sequence[RoundRow]) -> list[tuple[str, str]]:
    """List the names of the measures that the last test step does not have, each with the reason."""
    reasons: Mapping[str, str] = next((row.test.reasons for row in reversed(rows) if row.test.reasons), {})
    return [(MEASURES[key], reason) for key, reason in reasons.items()]


def format_text(loop: Loop, further: bool = False) -> str:
    """Format the table and the loop's progress.

    Args:
        further: also the further measures, and why some are missing.
    """
    rows = build_rows(loop)
    parts = [_align(format_cells(TABLE_1, rows))]
    if further:
        parts.append(_align(format_cells(FURTHER, rows)))
        if missing := list_missing_measures(rows):
            parts.append("not measured: " + "; ".join(f"{name}: {reason}" for name, reason in missing))
    parts.append(f"{describe_progress(loop)} {describe_reviewers(loop)}")
    parts += describe_empty_rounds(loop)
    if refusal := find_refusal(loop, len(loop.recipe.rounds)):
        parts.append(f"Automatic rounds keep nothing, since the discriminator failed its check: {refusal}.")
    return "\n\n".join(parts) if further else "\n".join(parts)


def describe_progress(loop: Loop) -> str:
    """Describe how many steps are done, and which comes next."""
    steps = list_steps(loop.recipe)
    remaining = [step for step in steps if not loop.has_result(step)]
    done = f"{len(steps) - len(remaining)} of {len(steps)} steps done"
    if remaining:
        return f"{done}; next: round {remaining[0].round}, {remaining[0].title}."
    distilled = loop.read_result(DistillationResult, loop.recipe.last)
    return f"{done}; finished" + (f"; in four steps: {loop.locate(distilled.remover)}." if distilled else ".")


def describe_empty_rounds(loop: Loop) -> list[str]:
    """Describe why automatic rounds kept none of their candidates, a sentence each."""
    lines = []
    for number, entry in enumerate(loop.recipe.rounds, 1):
        added = loop.read_result(AddResult, number)
        if entry.kind == "human" or added is None or added.kept or not added.candidates:
            continue
        decisions: Mapping[str, Mapping[str, Any]] = loop.read_json(f"{round_path(number)}/{DECISIONS}", {})
        reasons = Counter(decision["reason"] for decision in decisions.values() if decision["reason"] != NOT_BEST)
        parts = []
        for reason, count in reasons.most_common():
            detail = next(entry["detail"] for entry in decisions.values() if entry["reason"] == reason)
            if reason == NO_DISCRIMINATOR:
                detail = explain_missing_discriminator(loop, number)
            parts.append(f"{count} × {reason}" + (f" ({detail})" if detail else ""))
        lines.append(f"Round {number} kept none of its {added.candidates:,} candidates: {'; '.join(parts)}.")
    return lines


def describe_reviewers(loop: Loop) -> str:
    """Describe whose verdicts the table counts."""
    votes = "Votes," if loop.recipe.reviewers == "oracle" else "Votes by people;"
    return f"{votes} success and true yes by the ground-truth reviewer."


def draw_chart(loop: Loop) -> str:
    """Draw success, growth of the training set and yield by round, beside RORem's, as an SVG file."""
    rows = build_rows(loop)
    tested = [(index, row.test) for index, row in enumerate(rows) if row.test.success is not None]
    voted = [(index, row.people) for index, row in enumerate(rows) if row.people.percent is not None]
    success = {
        "this loop (ground truth)": [(float(index), float(test.success or 0)) for index, test in tested],
        "this loop (people)": [(float(index), float(people.percent or 0)) for index, people in voted],
        "RORem (people)": [(float(index), row.success) for index, row in enumerate(ROREM)],
    }
    errors = {
        "this loop (ground truth)": [float(test.success_error or 0) for _, test in tested],
        "this loop (people)": [float(people.error or 0) for _, people in voted],
    }
    growth = {
        "this loop": [(float(index), row.total / rows[0].total) for index, row in enumerate(rows)],
        "RORem": [(float(index), row.total / ROREM[0].total) for index, row in enumerate(ROREM)],
    }
    yields = {
        "this loop (of scenes)": [
            (float(index), row.yielded) for index, row in enumerate(rows) if row.yielded is not None
        ],
        "RORem (of candidates)": [
            (float(index), 100 * row.selected / row.candidates)
            for index, row in enumerate(ROREM)
            if index and row.selected and row.candidates
        ],
    }
    top = loop_charts.round_axis(max(y for line in growth.values() for _, y in line))
    names, axis = _name_rounds(rows)
    edge = float(len(names) - 1)
    lines = _drop_empty(success)
    panels = [
        loop_charts.draw_panel(
            "Success", axis, "% of the test set", lines, (0, 0), (edge, 100), names=names, errors=errors
        ),
        loop_charts.draw_panel(
            "Training set", axis, "times the first", _drop_empty(growth), (0, 0), (edge, top), names=names
        ),
        loop_charts.draw_panel("Yield", axis, "% that joined", _drop_empty(yields), (0, 0), (edge, 100), names=names),
    ]
    return loop_charts.draw_page(panels, legend=len(lines))


def _name_rounds(rows: Sequence[RoundRow]) -> tuple[list[str], str]:
    """Return short names of the rounds across a chart, and the title of that axis."""
    same = [row.name for row in rows] == [row.name for row in ROREM][: len(rows)]
    count = max(len(rows), len(ROREM))
    names = [row.name for row in ROREM] if same else ["initialisation", *(f"round {n}" for n in range(1, count))]
    short = ["init", *("".join([*name[:1], *name.split()[1:]]) if " " in name else name for name in names[1:count])]
    return short, "h: human round, a: automatic" if same else "round"


def _drop_empty(lines: Mapping[str, loop_charts.Line]) -> dict[str, loop_charts.Line]:
    return {name: line for name, line in lines.items() if line}
