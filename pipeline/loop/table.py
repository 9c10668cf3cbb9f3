"""A loop's account in the form of RORem's Table 1, further measures, and both loops side by side as a chart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rasura.pipeline.loop.state import Loop, steps_of
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
)
MEASURED = ("success", "psnr", "psnr_background", "lpips", "remove", "judged", "judged_kept")
"""What the test step measures, each with its standard error."""
NAMES = dict(
    zip(
        MEASURED,
        ("success", "PSNR hole", "PSNR around", "LPIPS", "ReMOVE", "judge's mean", "judge keeps"),
        strict=True,
    )
)
"""What the tables call it."""


def rows(loop: Loop) -> list[dict[str, Any]]:
    """One row for the start and each round, as far as the loop got; None for what is not known yet.

    `true_low`, `true_high`: Clopper-Pearson interval, %, of the share of what was kept that is truly yes.
    """
    from rasura.discriminator.calibration import interval
    from rasura.pipeline.loop.measure import by_people

    found, total, tally = [], 0, {"human": 0, "auto": 0}
    for number in range(len(loop.recipe.rounds) + 1):
        added = loop.result("initial" if number == 0 else "add", number)
        if added is None:
            break
        if number == 0:
            name, scenes, candidates, kept = "initialisation", None, None, added["initial"]
        else:
            kind = loop.recipe.rounds[number - 1].kind
            tally[kind] += 1
            name, scenes = f"{kind} {tally[kind]}", added["scenes"]
            candidates, kept = added["candidates"], added["kept"]
        total += kept
        tested, known = loop.result("test", number), added.get("truth_known")
        low, high = interval(added["truly_yes"], known) if known else (None, None)
        found.append(
            {
                "round": name, "scenes": scenes, "candidates": candidates, "selected": kept,
                "yield": 100 * kept / scenes if scenes else None, "total": total,
                "truly_yes": added.get("truly_yes"), "truth_known": known,
                "true_low": None if low is None else 100 * low, "true_high": None if high is None else 100 * high,
                "left_to_people": added.get("left_to_people"),
                **{key: (tested or {}).get(key) for one in MEASURED for key in (one, f"{one}_error")},
                **{key: (tested or {}).get(key) for key in ("judge", "count", "weights", "absent")},
                **(by_people(loop, number) if tested else {"voted": 0, "people": None, "people_error": None}),
            }
        )  # fmt: skip
    return found


def _plain(name: str, digits: int = 0) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: "-" if row[name] is None else f"{row[name]:,.{digits}f}" if digits else f"{row[name]:,}"


def _with_error(name: str, digits: int) -> Callable[[Mapping[str, Any]], str]:
    def cell(row: Mapping[str, Any]) -> str:
        value, error = row[name], row[f"{name}_error"]
        told = "" if error is None else f" ± {error:.{digits}f}"  # an older loop's PSNR around the hole has none
        return "-" if value is None else f"{value:.{digits}f}{told}"

    return cell


def _truly(row: Mapping[str, Any]) -> str:
    return f"{row['truly_yes']}/{row['truth_known']}" if row["truth_known"] else "-"


def _interval(row: Mapping[str, Any]) -> str:
    if not row["truth_known"]:
        return "-"
    share = 100 * row["truly_yes"] / row["truth_known"]
    return f"{share:.1f} [{row['true_low']:.1f}, {row['true_high']:.1f}]"


def _people(row: Mapping[str, Any]) -> str:
    part = "" if row["voted"] == row["count"] else f" ({row['voted']}/{row['count']})"
    return f"{_with_error('people', 1)(row)}{part}" if row["voted"] else "-"


Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
"""Headings, and what stands below them in a row."""

TABLE_1: Columns = {
    "round": lambda row: str(row["round"]), "scenes": _plain("scenes"), "candidates": _plain("candidates"),
    "selected": _plain("selected"), "yield %": _plain("yield", 1), "true yes": _truly,
    "to people": _plain("left_to_people"), "total": _plain("total"), "people %": _people,
    "success %": _with_error("success", 1), "PSNR hole": _with_error("psnr", 2),
}  # fmt: skip
FURTHER: Columns = {
    "round": lambda row: str(row["round"]), "true yes % [95 %]": _interval,
    "judge": lambda row: str(row["judge"] or "-"), "judge's mean %": _with_error("judged", 1),
    "judge keeps %": _with_error("judged_kept", 1), "PSNR around": _with_error("psnr_background", 2),
    "LPIPS": _with_error("lpips", 4), "ReMOVE": _with_error("remove", 4),
}  # fmt: skip


def cells(columns: Columns, given: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Headings and rows of a table, as text; a column that is empty in every row is left out."""
    lines = [tuple(cell(row) for cell in columns.values()) for row in given]
    shown = [at for at, _ in enumerate(columns) if at == 0 or any(line[at] != "-" for line in lines)]
    return [tuple(line[at] for at in shown) for line in [tuple(columns), *lines]]


def _lined(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def text(loop: Loop, further: bool = False) -> str:
    """The table, and where the loop stands; with `further`, what else was measured and why some of it was not."""
    given = rows(loop)
    parts = [_lined(cells(TABLE_1, given))]
    if further:
        parts.append(_lined(cells(FURTHER, given)))
        last: Mapping[str, str] = next((row["absent"] for row in reversed(given) if row["absent"]), {})
        parts += ["not measured: " + "; ".join(f"{NAMES[name]}: {why}" for name, why in last.items())] if last else []
    parts.append(f"{stands(loop)} {whose(loop)}")
    return "\n\n".join(parts) if further else "\n".join(parts)


def stands(loop: Loop) -> str:
    """How far the loop is, and what comes next."""
    every = steps_of(loop.recipe)
    done = sum(1 for _ in loop.finished())
    left = [one for one in every if loop.result(one.name, one.round) is None]
    told = loop.result("distill", len(loop.recipe.rounds))
    return f"{done} of {len(every)} steps done; " + (
        f"next: round {left[0].round}, {left[0].name}."
        if left
        else f"finished; in four steps: {loop.folder / told['remover']}."
        if told
        else "finished."
    )


def whose(loop: Loop) -> str:
    """Who said what the table counts."""
    name = "the oracle" if loop.recipe.reviewers == "oracle" else "people"
    return f"Votes by {name}; success and true yes by the oracle."


def chart(loop: Loop) -> str:
    """Success, growth of the training set and yield by round, beside RORem's, as an SVG file."""
    own = rows(loop)
    tested = [(at, row) for at, row in enumerate(own) if row["success"] is not None]
    voted = [(at, row) for at, row in enumerate(own) if row["people"] is not None]
    same = [row["round"] for row in own] == [one.name for one in ROREM][: len(own)]
    count = max(len(own), len(ROREM))
    names = [one.name for one in ROREM] if same else ["initialisation", *(f"round {at}" for at in range(1, count))]
    short = ["init", *(f"{name.split()[0][:1]}{name.split()[1]}" for name in names[1:count])]
    success = {
        "this loop (oracle)": [(float(at), float(row["success"])) for at, row in tested],
        "this loop (people)": [(float(at), float(row["people"])) for at, row in voted],
        "RORem (people)": [(float(at), one.success) for at, one in enumerate(ROREM)],
    }
    errors = {
        "this loop (oracle)": [float(row["success_error"]) for _, row in tested],
        "this loop (people)": [float(row["people_error"]) for _, row in voted],
    }
    grown = {
        "this loop": [(float(at), row["total"] / own[0]["total"]) for at, row in enumerate(own)],
        "RORem": [(float(at), one.total / ROREM[0].total) for at, one in enumerate(ROREM)],
    }
    yielded = {
        "this loop (of scenes)": [
            (float(at), float(row["yield"])) for at, row in enumerate(own) if row["yield"] is not None
        ],
        "RORem (of candidates)": [
            (float(at), 100 * one.selected / one.candidates)
            for at, one in enumerate(ROREM)
            if at and one.selected and one.candidates
        ],
    }
    top = loop_charts.round_top(max(y for line in grown.values() for _, y in line))
    edge = float(count - 1)
    across = "h: human round, a: automatic" if same else "round"
    panels = [
        loop_charts.panel(
            "Success", across, "% of the test set", _shown(success), (0, 0), (edge, 100), names=short, errors=errors
        ),
        loop_charts.panel("Training set", across, "times the first", _shown(grown), (0, 0), (edge, top), names=short),
        loop_charts.panel("Yield", across, "% that joined", _shown(yielded), (0, 0), (edge, 100), names=short),
    ]  # fmt: skip
    return loop_charts.page(panels, legend=len(_shown(success)))


def _shown(lines: Mapping[str, loop_charts.Line]) -> dict[str, loop_charts.Line]:
    return {name: line for name, line in lines.items() if line}
