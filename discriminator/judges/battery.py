"""The judge battery: tests of a judge that need no people, on triplets whose true target is known.

Metrics without truth are known to rise when a hole is blurred, or to prefer an untouched source; what they would keep
is then worse than a random choice. A judge may decide what is kept only after it has passed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.discriminator.augment import Case, blur_hole, fill_with_other
from rasura.discriminator.judges.base import Judge
from rasura.manifests.errors import TrainingError
from rasura.manifests.ids import compute_seed
from rasura.networks.trainer import OnProgress

Array = npt.NDArray[Any]

FILE = "check.json"
BLURS = (0.03, 0.06, 0.12, 0.25)
"""Sigma of the blurs, in square roots of the hole's area."""
TRIPLETS_AT_A_TIME = 9
"""Triplets whose 14 pictures each are scored together: they fill two batches of a tiny discriminator."""
LEAST_ROWS = 20
LEAST_SHARE = 0.95
"""Share of the triplets that must be in order."""
LEAST_CORRELATION = 0.9
"""Rank correlation of the scores with those of the mirrored pictures."""


class FailedCheck(TrainingError):
    """A judge that has failed its battery, or has not been checked, and may not decide what is kept."""


class TrueTriplet(NamedTuple):
    """Source and true target (h, w, 3) uint8, mask (h, w) bool, and an id."""

    source: Array
    target: Array
    mask: Array
    id: str


@dataclass(frozen=True)
class Battery:
    """The results of a battery.

    rows: number of triplets.
    curve: mean logits of the true target and of it with more and more of a blur in the hole.
    monotone: share of the steps of the curve that fall. monotone_rows: the same over the steps of all triplets.
    ordered: share of the triplets whose true target scores above its strongest blur, and that above a hole filled from
        another picture.
    untouched: share of the triplets whose true target scores above the source.
    mirrored: rank correlation of the scores of all pictures with those of their mirror images.
    faults: in words; empty where it has passed.
    """

    rows: int
    curve: Sequence[float]
    monotone: float
    monotone_rows: float
    ordered: float
    untouched: float
    mirrored: float
    faults: Sequence[str]

    @property
    def passed(self) -> bool:
        """Return True where there is no fault."""
        return not self.faults


def make_variants(triplet: TrueTriplet, other: TrueTriplet) -> list[Array]:
    """Make the pictures that a judge has to order: the true target, its blurs, a swapped patch, the source.

    Args:
        other: a triplet whose target fills the hole of the swapped one.
    """
    source, target, mask, id = triplet
    blurs = [blur_hole(target, mask, share) for share in BLURS]
    rng = np.random.default_rng(compute_seed(0, "battery", id))
    swapped = fill_with_other(Case(source, target, mask, None, other.target), rng)
    return [target, *blurs, swapped, source]


def run_battery(judge: Judge, triplets: Sequence[TrueTriplet], on_progress: OnProgress | None = None) -> Battery:
    """Run the battery. Triplets about whose pictures the judge gives no usable answer are left out.

    Raises:
        FailedCheck: there are too few triplets.
    """
    check_count(len(triplets), "with a true target")
    logits: list[Array] = []
    for start in range(0, len(triplets), TRIPLETS_AT_A_TIME):
        crops: list[Any] = []
        part = range(start, min(start + TRIPLETS_AT_A_TIME, len(triplets)))
        for index in part:
            source, _, mask, _ = triplets[index]
            variants = make_variants(triplets[index], triplets[(index + 1) % len(triplets)])
            crops += [judge.preprocess(source, picture, mask) for picture in variants]
            flipped = [np.ascontiguousarray(picture[:, ::-1]) for picture in (source, mask, *variants)]
            crops += [judge.preprocess(flipped[0], picture, flipped[1]) for picture in flipped[2:]]
        logits += [*judge.compute_logits(crops).reshape(len(part), 2, -1)]
        if on_progress:
            on_progress(len(logits), len(triplets), "")
    answered = np.array([row for row in logits if np.isfinite(row).all()])
    check_count(len(answered), "about whose pictures it gives usable answers")
    return summarize_battery(answered[:, 0], answered[:, 1])


def check_count(count: int, which: str) -> None:
    """Check that triplets are enough for a battery.

    Raises:
        FailedCheck: they are too few.
    """
    if count < LEAST_ROWS:
        raise FailedCheck(f"{count} triplets {which} are too few to check a judge: {LEAST_ROWS} are needed")


def summarize_battery(logits: Array, mirrored: Array) -> Battery:
    """Summarize the scores of the pictures of `make_variants`.

    Args:
        logits: (n, k), of n triplets; mirrored: (n, k), of the mirror images.

    Examples:
        >>> falling = np.tile(np.arange(7.0)[::-1], (20, 1)) + np.arange(20)[:, None] / 100
        >>> summarize_battery(falling, falling).faults
        []
        >>> summarize_battery(-falling, -falling).faults[0]
        'the mean score rises with the blur in 4 of 4 steps'
    """
    curve = logits[:, : len(BLURS) + 1]
    means = curve.mean(axis=0)
    falls = np.diff(means) < 0
    target, blurred, swapped, source = logits[:, 0], logits[:, len(BLURS)], logits[:, -2], logits[:, -1]
    ordered = float(((target > blurred) & (blurred > swapped)).mean())
    untouched = float((target > source).mean())
    mirror = _correlate_ranks(logits.ravel(), mirrored.ravel())
    faults = []
    if not falls.all():
        faults.append(f"the mean score rises with the blur in {int((~falls).sum())} of {len(falls)} steps")
    if ordered < LEAST_SHARE:
        faults.append(f"original > blurred > swapped in {ordered:.1%} of the triplets (at least {LEAST_SHARE:.0%})")
    if untouched < LEAST_SHARE:
        faults.append(f"the true target is above the untouched source in {untouched:.1%} (at least {LEAST_SHARE:.0%})")
    if mirror < LEAST_CORRELATION:
        faults.append(f"mirrored pictures correlate at {mirror:.2f} (at least {LEAST_CORRELATION:.2f})")
    rows = float((np.diff(curve, axis=1) < 0).mean())
    return Battery(len(logits), means.tolist(), float(falls.mean()), rows, ordered, untouched, mirror, faults)


def _correlate_ranks(first: Array, second: Array) -> float:
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def write_battery(battery: Battery, folder: Path) -> None:
    """Write a battery's results to a judge's folder, as a whole or not at all."""
    part = (folder / FILE).with_suffix(".part")
    part.write_text(json.dumps({**asdict(battery), "passed": battery.passed}, indent=2) + "\n")
    part.replace(folder / FILE)


def check_battery(folder: Path, is_required: bool) -> None:
    """Check that a judge may decide what is kept.

    Args:
        is_required: it must have been checked; else it may only not have failed.

    Raises:
        FailedCheck: it has failed, or has not been checked.
    """
    path = folder / FILE
    remedy = "allow it with `unchecked: true`"
    if not path.is_file():
        if is_required:
            command = f"rasura discriminator check {folder} RUN"
            raise FailedCheck(f"the judge in {folder} has not been checked: run `{command}`, or {remedy}")
        return
    result = json.loads(path.read_text())
    if not result["passed"]:
        raise FailedCheck(
            f"the judge in {folder} has failed its battery ({'; '.join(result['faults'])}): what it keeps would be "
            f"wrong; train it longer, use another, or {remedy}"
        )
