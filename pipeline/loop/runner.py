"""RORem's loop as a durable sequence of steps: killed anywhere it continues, and no step is done twice.

A step's result is written once, by create-if-absent, after everything else of the step is on disk. A step that has its
result is never entered again. One that was killed continues from what it committed: shards of candidates, checkpoints
of a training.
"""

import json
from collections.abc import Callable, Collection
from functools import partial

from rasura.manifests.extras import can_import
from rasura.manifests.run_layout import PLAN, read_plan
from rasura.manifests.spelling import format_count
from rasura.manifests.storage import Store
from rasura.networks.trainer import OnProgress
from rasura.pipeline.loop.changes import find_used_changes
from rasura.pipeline.loop.check import check_loop
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import DiscriminatorResult, InitialResult, VotesResult
from rasura.pipeline.loop.state import RECIPE, Loop, OtherLoop, Step, find_refusal, list_steps, parse_recipe
from rasura.pipeline.loop.steps import STEPS
from rasura.pipeline.recipe.positions import Positions
from rasura.pipeline.run.events import EventLog


def run_loop(
    recipe: LoopRecipe,
    place: Store | str,
    say: Callable[[str], None] = print,
    on_progress: OnProgress | None = None,
    begin: Callable[[str], None] | None = None,
    positions: Positions | None = None,
    retry_failed: Collection[str] | None = None,
) -> Loop:
    """Run a loop, or continue it where it was left.

    Args:
        place: folder or URI of the loop.
        say: receives a line when a step begins, and those that a run prints: where the workers are, for one.
        on_progress: receives done, total and a note as often as a step makes some progress: scenes that were inpainted,
            steps of a training. Each step counts from 0.
        begin: receives the name of a step when it begins, before its first progress.
        positions: places of the recipe's values; its inputs are checked first where they are given.
        retry_failed: errors whose rows are made again, such as `ValueError`, in the runs of the step that comes next
            and of later ones; all failed rows where it is empty, none where it is None.

    Raises:
        RecipeError: something that the recipe names is not there.
        OtherLoop: the folder has a run, or a loop of another recipe.
        Waiting: a human round waits for votes.
        RunLocked: another process owns the loop.
    """
    loop = Loop(recipe, place)
    # what a loop that was begun has used up may be gone
    to_check = positions if check_folder(loop) else None
    if to_check is not None and can_import("torch"):
        check_loop(recipe, to_check)
    with LoopEngine(recipe.engine, on_progress, say, retry_failed) as engine, loop.store.lock():
        if to_check is not None and not can_import("torch"):  # the workers have it
            engine.run_task(partial(check_loop, recipe, to_check))
        check_folder(loop)
        loop.store.clear_temporary(["steps", "rounds"])
        _write_recipe(loop)
        log = EventLog(loop.store)
        for step in list_steps(recipe):
            if loop.has_result(step):
                continue
            say(str(step))
            if begin:
                begin(str(step))
            log.add("step", step=step.file)
            log.flush()
            result = STEPS[step.name](loop, step.round, engine)
            text = json.dumps(result.to_json(), indent=1, allow_nan=False)
            loop.store.create(f"steps/{step.file}", f"{text}\n".encode())
            if isinstance(result, DiscriminatorResult) and (refusal := find_refusal(loop, step.round)):
                say(f"automatic rounds keep nothing, since the discriminator failed its check: {refusal}")
            if isinstance(result, VotesResult) and result.unasked:
                votes = f"votes on {format_count(result.unasked, 'candidate')} that best first did not ask for"
                say(f"round {step.round}: {votes} decide what joins, and the discriminator learns nothing from them")
    return loop


def check_folder(loop: Loop) -> bool:
    """Check that a loop can be run in its folder: that there is no other one, and no run.

    The recipe in the folder is read by today's schema: a loop that an older version began continues where all that was
    added to the schema since has its default.

    Returns:
        True where the loop's rows are not listed yet: its inputs are to be checked.

    Raises:
        OtherLoop: the folder has a run, or a loop of another recipe.
    """
    if not loop.store.exists(RECIPE):
        if loop.store.exists(PLAN):
            raise OtherLoop(
                f"'{loop.store.uri}' has a run ('{read_plan(loop.store).name}') in it, where no loop can be: choose "
                "another folder with --into"
            )
        return True
    if changes := find_used_changes(loop, parse_recipe(loop.store.read(RECIPE))):
        raise OtherLoop(
            f"'{loop.store.uri}' has a loop of another recipe (it differs in {'; '.join(changes)}): choose another "
            "folder with --into, or set back what was changed"
        )
    return not loop.has_result(Step(InitialResult.step, 0))


def _write_recipe(loop: Loop) -> None:
    """Write the recipe into the folder, under the names that keys had first, so that an older version reads it."""
    document = f"{json.dumps({'recipe': loop.recipe.dump_former()}, indent=1)}\n".encode()
    if not loop.store.exists(RECIPE) or parse_recipe(loop.store.read(RECIPE)) != loop.recipe:
        loop.store.write(RECIPE, document)
