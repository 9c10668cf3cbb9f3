"""The runs of a loop, with the accounting and the checks of any run."""

from collections.abc import Iterator
from typing import Any

from rasura.manifests.run_layout import PLAN
from rasura.manifests.storage import Store
from rasura.pipeline.loop.state import Loop, list_steps
from rasura.pipeline.loop.table import build_rows
from rasura.pipeline.run.accounting import compute_accounting, to_json_values
from rasura.pipeline.run.mending import drop_damage


def list_runs(loop: Loop) -> Iterator[tuple[str, Store]]:
    """Yield the names and runs of a loop's rounds and tests, as far as they have begun."""
    for number in range(len(loop.store.folders("rounds")) + 1):
        for name, run in (
            (f"round {number}", loop.open_round(number)),
            (f"test {number}", loop.open_test_run(number)),
        ):
            if run.exists(PLAN):
                yield name, run


TABLE_STEPS = ("pretrain", "inpaint", "score", "test")
"""Steps that make tables of a round. Begun again, they make what is missing and leave the rest as it is."""


def mend_loop(loop: Loop) -> Iterator[str]:
    """Drop what is damaged in the runs of a loop, and the results of the steps that make it again.

    Args:
        loop: that no other process owns.

    Yields:
        What was dropped, with the name of its run.
    """
    with loop.store.lock():
        for name, run in list_runs(loop):
            lines = list(drop_damage(run))
            yield from (f"{name}: {line}" for line in lines)
            number = int(name.split()[1])
            for step in list_steps(loop.recipe) if lines else ():
                if step.round == number and step.name in TABLE_STEPS:
                    loop.store.delete(f"steps/{step.file}")


def to_json(loop: Loop) -> dict[str, Any]:
    """Return a loop's rounds, and the accounting of each of its runs, as JSON values."""
    runs = {name: to_json_values(compute_accounting(run)) for name, run in list_runs(loop)}
    return {"name": loop.recipe.name, "rounds": [row.to_json() for row in build_rows(loop)], "runs": runs}
