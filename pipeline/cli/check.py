"""`rasura check`: the recipe of a run or of a loop is checked as a whole, and what would be done is printed."""

from pathlib import Path

from rasura.pipeline.loop.recipe import LoopRecipe, check_inputs
from rasura.pipeline.loop.state import list_steps
from rasura.pipeline.recipe.describe import describe_plan
from rasura.pipeline.recipe.load import load, parse_yaml, read_text
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.plan import Plan, plan


def load_checked(file: str | Path, overrides: Overrides = ()) -> Plan | LoopRecipe:
    """Load the recipe of a run or of a loop and check all that can be known before the start.

    Returns:
        The plan of a run, or the recipe of a loop.

    Raises:
        RecipeError: all that is wrong, one line each with its place.
    """
    raw, _ = parse_yaml(read_text(file), str(file))
    if LoopRecipe.distinctive_key not in raw:
        return plan(*load(file, overrides))
    recipe, positions = load(file, overrides, LoopRecipe)
    check_inputs(recipe, positions)
    return recipe


def check_recipe(file: str | Path, overrides: Overrides = ()) -> str:
    """Check a recipe and return a description of what it would do.

    Raises:
        RecipeError: all that is wrong, one line each with its place.
    """
    checked = load_checked(file, overrides)
    return describe_plan(checked) if isinstance(checked, Plan) else describe_loop(checked)


def describe_loop(recipe: LoopRecipe) -> str:
    """Describe a loop: where its rows come from, what is trained, its rounds."""
    steps = list_steps(recipe)
    lines = [f"loop '{recipe.name}' can be run: {len(recipe.rounds)} rounds in {len(steps)} steps"]
    for part in ("initial", "pool", "test"):
        flows = (
            f"{rows.flow} of {rows.run}" + (f" ({rows.split})" if rows.split else "") for rows in getattr(recipe, part)
        )
        lines.append(f"{part}: {', '.join(flows)}")
    lines.append(f"removers: {', '.join(['the one in training', *recipe.removers])}")
    workers = f", {recipe.remover.workers} workers of Ray Train" if recipe.remover.workers else ""
    lines.append(f"remover: preset {recipe.remover.preset}{_describe_base(recipe.remover.base)}{workers}")
    discriminator = recipe.discriminator
    lines.append(
        f"discriminator: preset {discriminator.preset}{_describe_base(discriminator.base)}, precision target "
        f"{discriminator.precision_target:g} at {discriminator.confidence:.0%} confidence"
    )
    for number, settings in enumerate(recipe.rounds, 1):
        kind = f"votes by {recipe.reviewers}" if settings.kind == "human" else "automatic"
        names = ", ".join(step.name for step in steps if step.round == number)
        lines.append(f"round {number}: {settings.count} scenes, {kind} ({names})")
    return "\n".join(lines)


def _describe_base(base: Path | None) -> str:
    return f" on {base}" if base else ""
