"""A loop's account in the form of RORem's Table 1, and both side by side as a chart."""

from typing import Any, NamedTuple

from pipeline import loop_charts
from pipeline.loop import Loop, steps_of


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
HEADINGS = (
    "round", "scenes", "candidates", "selected", "yield %", "true yes", "total", "success %", "± se", "PSNR hole",
    "± se", "PSNR rest",
)  # fmt: skip


def rows(loop: Loop) -> list[dict[str, Any]]:
    """One row for the start and each round, as far as the loop got; None for what is not known yet."""
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
        tested = loop.result("test", number) or {}
        found.append(
            {
                "round": name, "scenes": scenes, "candidates": candidates, "selected": kept,
                "yield": 100 * kept / scenes if scenes else None, "total": total,
                "truly_yes": added.get("truly_yes"), "truth_known": added.get("truth_known"),
                "left_to_people": added.get("left_to_people"),
                **{key: tested.get(key) for key in ("success", "success_error", "psnr", "psnr_error",
                                                    "psnr_background")},
            }
        )  # fmt: skip
    return found


def text(loop: Loop) -> str:
    """The table, and where the loop stands."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for row in rows(loop):
        known = row["truth_known"]
        true = f"{row['truly_yes']}/{known}" if known else "-"
        cells = [row["round"], row["scenes"], row["candidates"], row["selected"], row["yield"], true, row["total"]]
        cells += [row[key] for key in ("success", "success_error", "psnr", "psnr_error", "psnr_background")]
        shown = ["-" if one is None else f"{one:.2f}" if isinstance(one, float) else f"{one}" for one in cells]
        lines.append(tuple(shown))
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADINGS))]
    table = "\n".join(
        "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in
                  enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip
    every = steps_of(loop.recipe)
    done = sum(1 for _ in loop.finished())
    left = [one for one in every if loop.result(one.name, one.round) is None]
    stands = f"next: round {left[0].round}, {left[0].name}" if left else "finished"
    whose = "the oracle" if loop.recipe.reviewers == "oracle" else "people"
    return (
        f"{table}\n{done} of {len(every)} steps done; {stands}. Votes by {whose}; success and true yes by the oracle."
    )


def chart(loop: Loop) -> str:
    """Success and size of the training set by round, beside RORem's, as an SVG file."""
    own = [row for row in rows(loop) if row["success"] is not None]
    names = [row["round"] for row in own] or [ROREM[0].name]
    names = names if len(names) >= len(ROREM) else [one.name for one in ROREM]
    short = [name[:4] + name[-2:].strip() if " " in name else "init" for name in names]
    success = {
        "this loop (oracle)": [(float(at), float(row["success"])) for at, row in enumerate(own)],
        "RORem (people)": [(float(at), one.success) for at, one in enumerate(ROREM)],
    }
    grown = {
        "this loop": [(float(at), row["total"] / own[0]["total"]) for at, row in enumerate(own)],
        "RORem": [(float(at), one.total / ROREM[0].total) for at, one in enumerate(ROREM)],
    }
    errors = {"this loop (oracle)": [float(row["success_error"]) for row in own]}
    top = max((y for line in grown.values() for _, y in line), default=1.0)
    edge = float(len(names) - 1)
    panels = [
        loop_charts.panel("Success", "round", "%", success, (0, 0), (edge, 100), names=short, errors=errors),
        loop_charts.panel("Training set", "round", "times the first", grown, (0, 0), (edge, top), names=short),
    ]
    return loop_charts.page(panels, legend=2)
