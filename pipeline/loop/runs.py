"""The runs of a loop, with the accounting and the checks of any run."""

from collections.abc import Iterator
from typing import Any

from rasura.manifests.run_layout import PLAN
from rasura.manifests.storage import Store
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.loop.table import build_rows
from rasura.pipeline.run.accounting import compute_accounting, to_json_values


def list_runs(loop: Loop) -> Iterator[tuple[str, Store]]:
    """Yield the names and runs of a loop's rounds and tests, as far as they have begun."""
    for number in range(len(loop.store.folders("rounds")) + 1):
        for name, run in (
            (f"round {number}", loop.open_round(number)),
            (f"test {number}", loop.open_test_run(number)),
        ):
            if run.exists(PLAN):
                yield name, run


def to_json(loop: Loop) -> dict[str, Any]:
    """Return a loop's rounds, and the accounting of each of its runs, as JSON values."""
    runs = {name: to_json_values(compute_accounting(run)) for name, run in list_runs(loop)}
    return {"name": loop.recipe.name, "rounds": [row.to_json() for row in build_rows(loop)], "runs": runs}
