"""The spot check of automatic rounds, simulated: what it keeps, and how often it breaks the precision target.

    python -m benchmarks spot_check

Rounds are drawn from a falling curve of yes by rank, like those of the tiny loop; each round has its own verdicts and
its own sample. Worst cases are populations that miss the target by as little as possible, or at one prefix alone.
"""

import itertools
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.common import print_result
from rasura.discriminator.certification import list_prefix_sizes, run_spot_check

Array = npt.NDArray[np.float64]

ROUNDS, WORST_ROUNDS = 2000, 400
CONFIDENCE = 0.9
HEIGHT, MIDDLE, WIDTH = 1.343, 0.2684, 0.2387
"""Of a logistic curve of yes by rank: the best 97 of 500 have .9, the best 172 have .8, and all of them .436."""


def compute_yes_rate(count: int) -> Array:
    """Return the probability (count,) of a yes by rank; see `HEIGHT`."""
    rank = (np.arange(count) + 0.5) / count
    return np.minimum(1.0, HEIGHT / (1 + np.exp((rank - MIDDLE) / WIDTH)))


def check_round(truth: Array, votes: int, target: float, seed: int) -> tuple[int, float]:
    """Run one spot check, and return the number of kept candidates and the share of true yes among them.

    Args:
        truth: (n,) of 0 and 1, by rank.
    """
    items = [str(rank) for rank in range(len(truth))]
    answers: dict[str, bool] = {}
    while True:  # page by page, as people are asked: only votes that were asked for count
        check = run_spot_check(items, answers, votes, target, CONFIDENCE, seed)
        if not check.waiting:
            kept = [int(item) for item in check.kept]
            return len(kept), float(truth[kept].mean()) if kept else 1.0
        answers |= {item: bool(truth[int(item)]) for item in check.waiting}


def simulate(count: int, votes: int, target: float, rounds: int, seed: int) -> dict[str, float]:
    """Simulate rounds; return what is kept on average, its precision, and the share of rounds that miss the target."""
    rng = np.random.default_rng([seed, count, votes])
    rate = compute_yes_rate(count)
    results = []
    for number in range(rounds):
        truth = (rng.random(count) < rate).astype(float)
        kept, precision = check_round(truth, votes, target, number)
        results.append((kept, precision, kept > 0 and precision < target))
    kept, precision, broken = np.array(results, float).T
    largest = np.flatnonzero(np.cumsum(rate) / np.arange(1, count + 1) >= target)
    return {
        "kept": round(float(kept.mean()), 1),
        "kept_share": round(float(kept.mean() / count), 3),
        "largest_prefix_at_target": int(largest[-1]) + 1 if len(largest) else 0,
        "precision": round(float(precision.mean()), 3),
        "broken": round(float(broken.mean()), 4),
    }


def list_worst_cases(count: int, target: float) -> Iterator[tuple[str, Array]]:
    """Yield names and rates (count,) of populations that are made to break the target."""
    sizes = list_prefix_sizes(count)
    for gap in (0.01, 0.03, 0.06, 0.1, 0.2):
        yield f"all at target - {gap}", np.full(count, target - gap)
    for index in range(0, 2 * len(sizes) // 3, max(1, len(sizes) // 16)):
        rate = np.full(count, 0.5)
        rate[: sizes[index]] = target - 0.012
        yield f"just below up to prefix {index + 1}", rate
        for gap in (0.0, 0.05) if index else ():
            rate = np.full(count, 0.3)
            rate[: sizes[index - 1]] = min(1.0, target + 0.15)
            missing = (target - gap) * sizes[index] - rate[: sizes[index - 1]].sum() - 0.6
            rate[sizes[index - 1] : sizes[index]] = np.clip(missing / (sizes[index] - sizes[index - 1]), 0, 1)
            yield f"good up to prefix {index}, then {gap} below", rate
    for slope in (0.3, 0.6, 0.9):
        yield f"falls by {slope}", np.clip(target + 0.15 - slope * np.arange(count) / count, 0, 1)


def measure_worst(count: int, votes: int, target: float, rounds: int) -> tuple[str, float]:
    """Return the worst population's name and the share of its rounds that miss the target.

    A population's numbers of yes are exact in each step between prefixes; only their places and the sample are random.
    """
    worst = ("", -1.0)
    steps = [0, *list_prefix_sizes(count)]
    for place, (name, rate) in enumerate(list_worst_cases(count, target)):
        rng = np.random.default_rng([count, votes, place])
        exact = np.clip(np.diff(np.floor(np.cumsum(rate) + 1e-9), prepend=0), 0, 1)
        broken = 0
        for number in range(rounds):
            truth = exact.copy()
            for low, high in itertools.pairwise(steps):
                truth[low:high] = rng.permutation(truth[low:high])
            kept, precision = check_round(truth, votes, target, number)
            broken += kept > 0 and precision < target - 1e-9
        worst = max(worst, (name, broken / rounds), key=lambda entry: entry[1])
    return worst


def main() -> None:
    """Print the figures of both."""
    for count, votes, target, rounds in (
        *((500, votes, target, ROUNDS) for target in (0.8, 0.9) for votes in (30, 60, 100)),
        (10_000, 60, 0.8, 200),
        (10_000, 200, 0.8, 200),
    ):
        start = time.perf_counter()
        figures = simulate(count, votes, target, rounds, seed=1)
        seconds = (time.perf_counter() - start) / rounds
        print_result("spot check", count=count, votes=votes, target=target, seconds=round(seconds, 4), **figures)
    for count, votes, target in ((500, 60, 0.8), (500, 60, 0.9), (500, 150, 0.8), (120, 60, 0.8), (3000, 200, 0.8)):
        name, broken = measure_worst(count, votes, target, WORST_ROUNDS)
        print_result("spot check, worst case", count=count, votes=votes, target=target, case=name, broken=broken)


if __name__ == "__main__":
    main()
