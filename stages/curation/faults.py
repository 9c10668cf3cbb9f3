"""Faults and doubts of a pair or triplet, from what `inspect` measured. Nothing is measured here.

A fault is something that a model would learn: `rasura audit` repairs it or leaves the row out. A doubt is a measurement
that is unusual, and correct often enough: a person should look.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rasura.manifests.errors import InputError
from rasura.manifests.spelling import suggest

Level = Literal["fault", "doubt"]
Repair = Literal["registration", "exposure", "outside"]


class Limit(NamedTuple):
    """A limit of one measurement, and what it means where it is passed.

    Attributes:
        column: that is compared. Null is within the limit.
        reason: a fixed phrase, by which rows are counted.
        text: a format of the value for the table, with `{0}`.
        most: largest value that is within.
        least: smallest value that is within.
        level: fault or doubt.
        repair: how `repair` mends it; None: the row is left out.
        power: the text shows 2 to the power of so many times the value; 0: the value itself.
    """

    column: str
    reason: str
    text: str
    most: float | None = None
    least: float | None = None
    level: Level = "fault"
    repair: Repair | None = None
    power: int = 0


LIMITS: Sequence[Limit] = (
    Limit(
        "inspect_swap",
        "source and target swapped",
        "the step at the mask's outline is {0:.1f} times as high in the target",
        least=-1.0,
        power=-1,
    ),
    Limit("mask_changed", "mask covers what stays", "{0:.0%} of the mask changed", least=0.6),
    Limit("mask_change", "mask misses what changed", "{0:.0%} of the change is in or near the mask", least=0.05),
    Limit("inspect_shift", "shifted", "{0:.2f} px", most=0.12, repair="registration"),
    Limit("inspect_zoom", "zoomed", "{0:.2%}", most=0.0012, repair="registration"),
    Limit("inspect_turn", "turned", "{0:.2f}°", most=0.06, repair="registration"),
    Limit("inspect_gain", "exposure or white balance", "{0:.2%}", most=0.0075, repair="exposure"),
    Limit("pair_tone", "developed differently", "{0:.1f} levels", most=2.0, repair="exposure"),
    Limit("inspect_outside", "change outside", "{0:.2%} of the picture", most=0.003, repair="outside"),
    Limit("pair_motion", "moved beyond repair", "{0:.2f} px are left", most=1.0),
    Limit("effects_left", "part of the object left", "{0:.0f} levels", most=25.0),
    Limit("pair_sharpness", "target blurred or sharpened", "{0:.0%} of the contrast", least=-0.45, most=0.45, power=1),
    Limit("pair_grain", "target denoised", "{0:.0%} of the grain", least=-0.5, power=1),
    Limit("pair_blocks", "target compressed more", "its 8 px grid is {0:.0%} as strong", most=0.4, power=1),
    Limit("inspect_faint", "faint change outside", "{0:.1%} of the picture", most=0.02, level="doubt"),
    Limit("audit_residue", "object shines through", "{0:.1%}", most=0.035, level="doubt"),
    Limit("audit_cut", "edges left in the target", "{0:.2f} of the object's size", most=0.4, level="doubt"),
    Limit("audit_strange", "another thing in its place", "{0:.1f} times as strange", most=2.5, level="doubt"),
    Limit("audit_second", "another object went", "{0:.0%} of the object's area", most=0.03, level="doubt"),
    Limit("audit_ghost", "something in the target alone", "{0:.2%} of the picture", most=0.001, level="doubt"),
    Limit("audit_moving", "things moved", "{0:.2%} of the picture", most=0.00035, level="doubt"),
    Limit("audit_evidence", "a shadow without its object", "{0:.0%} is an object", least=0.3, level="doubt"),
)
"""In the order in which they are named; the first fault is the row's reason."""


class Fault(NamedTuple):
    """A limit that a row passes.

    Attributes:
        limit: which.
        value: of the row.
        severity: how far beyond: 1 at the limit, 2 at twice its distance from the value of a perfect row.
    """

    limit: Limit
    value: float
    severity: float

    def describe(self) -> str:
        """Describe it in a few words with its value."""
        return f"{self.limit.reason}: {self.describe_value()}"

    def describe_value(self) -> str:
        """Describe the value, without the reason."""
        power = self.limit.power
        return self.limit.text.format(2 ** min(power * self.value, 20.0) if power else self.value)


def change_limits(changes: Mapping[str, float], limits: Sequence[Limit] = LIMITS) -> Sequence[Limit]:
    """Return the limits with other values for some columns.

    Args:
        changes: column to the value that replaces `most`, or `least` where the limit has no `most`.

    Raises:
        InputError: no limit is on such a column.

    Examples:
        >>> next(limit.most for limit in change_limits({"inspect_shift": 0.5}) if limit.column == "inspect_shift")
        0.5
    """
    columns = {limit.column for limit in limits}
    for column in changes:
        if column not in columns:
            raise InputError(f"no limit on '{column}'; {suggest(column, columns)}")
    return tuple(_replace_bound(limit, changes[limit.column]) if limit.column in changes else limit for limit in limits)


def _replace_bound(limit: Limit, value: float) -> Limit:
    return limit._replace(least=value) if limit.most is None else limit._replace(most=value)


def find_faults(row: Mapping[str, Any], limits: Sequence[Limit] = LIMITS) -> list[Fault]:
    """Find the limits that a row of `inspect` passes, faults before doubts, each in the order of `limits`.

    Examples:
        >>> [fault.describe() for fault in find_faults({"inspect_shift": 0.31, "inspect_zoom": 0.0})]
        ['shifted: 0.31 px']
    """
    faults = list(_iterate_faults(row, limits))
    return sorted(faults, key=lambda fault: fault.limit.level == "doubt")


def _iterate_faults(row: Mapping[str, Any], limits: Sequence[Limit]) -> Iterator[Fault]:
    for limit in limits:
        value = row.get(limit.column)
        if value is None or value != value:
            continue
        value = float(value)
        if limit.most is not None and value > limit.most:
            yield Fault(limit, value, 1 + (value - limit.most) / max(abs(limit.most), 1e-9))
        elif limit.least is not None and value < limit.least:
            yield Fault(limit, value, 1 + (limit.least - value) / max(abs(limit.least), 1e-9))
