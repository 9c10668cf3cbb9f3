"""The section of a loop's page about the precision target: what automatic rounds accepted, and what votes certified."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rasura.discriminator import binomial
from rasura.discriminator.selection import UNCERTIFIED, VOTED_NO
from rasura.pipeline.loop import table
from rasura.pipeline.loop.results import AddResult
from rasura.pipeline.loop.state import DECISIONS, SPOT_CHECK, Loop, round_path
from rasura.pipeline.report.html import escape_text, render_note, render_numbers


def render_target(loop: Loop) -> str:
    """Render what automatic rounds accepted beside the target, why some accepted nothing, and their spot checks."""
    recipe = loop.recipe
    if recipe.keep != "precision_target":
        return render_note(
            f"This loop is a control that keeps “{escape_text(recipe.keep)}”: no discriminator decides, and no "
            "precision target applies."
        )
    target = recipe.discriminator.precision_target
    lines: list[tuple[str, ...]] = [
        ("round", "scenes", "accepted", "to people", "true yes", "share [95 %]", "all candidates", "target", "")
    ]
    yes = count = kept = 0
    for number, entry in enumerate(recipe.rounds, 1):
        added = loop.read_result(AddResult, number)
        if entry.kind != "auto" or added is None:
            continue
        yes, count, kept = yes + added.true_yes, count + added.with_truth, kept + added.kept
        lines.append(_format_round(number, added, target))
    if len(lines) == 1:
        return render_note("No automatic round is done yet.")
    outcome = describe_outcome(yes, count, target, "" if kept else "nothing accepted")
    lines.append(("together", "", "", "", *_format_share(yes, count), "", _format_target(target), outcome))
    return (
        f"<p>A person should agree with at least {100 * target:.0f} % of what an automatic round accepts. The table "
        "compares that with the ground-truth reviewer’s verdicts, where the true picture is available. The column "
        "“all candidates” is "
        f"the share of yes that accepting every candidate would give.</p>{render_numbers(lines)}"
        f"{''.join(render_note(text) for text in map(escape_text, table.describe_empty_rounds(loop)))}"
        f"{_render_spot_checks(loop)}"
    )


def _render_spot_checks(loop: Loop) -> str:
    """Render what people's votes on samples of automatic rounds have certified; nothing where no round has such."""
    lines: list[tuple[str, ...]] = [
        ("round", "votes", "of them yes", "certified", "dropped by votes", "kept", "not certified")
    ]
    for number, entry in enumerate(loop.recipe.rounds, 1):
        result = loop.read_json(f"{round_path(number)}/{SPOT_CHECK}", None) if entry.spot_check else None
        if result is None:
            continue
        decisions: Mapping[str, Mapping[str, Any]] = loop.read_json(f"{round_path(number)}/{DECISIONS}", {})
        reasons = Counter(decision["reason"] for decision in decisions.values())
        votes, dropped = result["votes"], reasons[VOTED_NO]
        certified = f"best {result['certified']:,}" if result["certified"] else "none"
        numbers = (dropped, result["kept"], reasons[UNCERTIFIED])
        lines.append((f"round {number}", f"{votes:,}", f"{votes - dropped:,}", certified, *map("{:,}".format, numbers)))
    if len(lines) == 1:
        return ""
    return (
        "<h3>Spot checks</h3><p>Votes on a sample of what a round would keep certify how many of its best candidates "
        "meet the target. What a vote rejects is dropped, and what is not certified does not join.</p>"
        f"{render_numbers(lines)}"
    )


def _format_round(number: int, added: AddResult, target: float) -> tuple[str, ...]:
    everything = f"{100 * added.all_true_yes / added.all_with_truth:.1f} %" if added.all_with_truth else "–"
    return (
        f"round {number}",
        f"{added.scenes:,}",
        f"{added.kept:,}",
        f"{added.left_to_people:,}",
        *_format_share(added.true_yes, added.with_truth),
        everything,
        _format_target(target),
        describe_outcome(added.true_yes, added.with_truth, target, "" if added.kept else "nothing accepted"),
    )


def _format_target(target: float) -> str:
    return f"≥ {100 * target:.0f} %"


def _format_share(yes: int, count: int) -> tuple[str, str]:
    if not count:
        return "–", "–"
    low, high = binomial.compute_interval(yes, count)
    return f"{yes:,}/{count:,}", f"{100 * yes / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def describe_outcome(yes: int, count: int, target: float, otherwise: str = "") -> str:
    """Describe whether a precision target was reached; it is missed where the whole interval is below it.

    Args:
        yes, count: accepted candidates that are truly yes, of those with a truth.
        otherwise: the description where `count` is 0.

    Examples:
        >>> describe_outcome(9, 10, 0.9), describe_outcome(8, 10, 0.9), describe_outcome(40, 100, 0.9)
        ('✓ reached', 'below, within its interval', '✗ missed')
    """
    if not count:
        return otherwise or "no truth available"
    if yes >= target * count:
        return "✓ reached"
    return "✗ missed" if binomial.compute_interval(yes, count)[1] < target else "below, within its interval"
