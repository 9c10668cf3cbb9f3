"""RORem's loop as a durable sequence of steps: killed anywhere it continues, and no step is done twice.

A step's result is written once, by create-if-absent, after everything else of the step is on disk. A step that has its
result is never entered again. One that was killed continues from what it committed: shards of candidates, checkpoints
of a training.
"""

import json
from collections.abc import Callable
from pathlib import Path

from rasura.networks.trainer import OnProgress
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.state import RECIPE, Loop, OtherLoop, list_steps, parse_recipe
from rasura.pipeline.loop.steps import STEPS


def run_loop(
    recipe: LoopRecipe,
    folder: Path,
    say: Callable[[str], None] = print,
    on_progress: OnProgress | None = None,
) -> Loop:
    """Run a loop, or continue it where it was left.

    Args:
        say: receives a line when a step begins.
        on_progress: receives done, total and a note as often as a step makes some progress: scenes that were inpainted,
            steps of a training. Each step counts from 0.

    Raises:
        OtherLoop: the folder has a loop of another recipe.
        Waiting: a human round waits for votes.
        RunLocked: another process owns the loop.
    """
    loop = Loop(recipe, folder)
    with loop.store.lock():
        loop.store.clear_temporary(["steps", "rounds"])
        # under the names that keys had first, so that an older version reads it
        document = json.dumps({"recipe": recipe.dump_former()}, indent=1) + "\n"
        if not loop.store.create(RECIPE, document.encode()):
            _check_recipe(loop)
        for step in list_steps(recipe):
            if loop.has_result(step):
                continue
            say(str(step))
            with (folder / "begun.log").open("a") as log:
                log.write(f"{step.file}\n")
            result = STEPS[step.name](loop, step.round, on_progress)
            text = json.dumps(result.to_json(), indent=1, allow_nan=False)
            loop.store.create(f"steps/{step.file}", f"{text}\n".encode())
    return loop


def _check_recipe(loop: Loop) -> None:
    """Compare the recipe of a loop that was begun with the one to go on with.

    The former is read by today's schema: a loop that an older version began continues where all that was added to the
    schema since has its default.
    """
    before, now = parse_recipe(loop.store.read(RECIPE)).identify(), loop.recipe.identify()
    if before != now:
        differing = sorted(key for key in now if before[key] != now[key])
        raise OtherLoop(
            f"{loop.folder} has a loop of another recipe (it differs in {', '.join(differing)}): "
            "choose another folder with --into, or remove it"
        )
