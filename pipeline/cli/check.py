"""`rasura check`: the recipe of a run or of a loop is checked as a whole, and what would be done is printed."""

from pathlib import Path

from rasura.pipeline.loop.check import CheckedLoop, check_loop, describe_loop
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.recipe.describe import describe_plan
from rasura.pipeline.recipe.load import load, parse_yaml, read_text
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.plan import Plan, load_plan


def load_checked(file: str | Path, overrides: Overrides = ()) -> Plan | LoopRecipe:
    """Load the recipe of a run or of a loop and check all that can be known before the start.

    Returns:
        The plan of a run, or the recipe of a loop.

    Raises:
        RecipeError: all that is wrong, one line each with its place.
    """
    checked = _check(file, overrides)
    return checked.recipe if isinstance(checked, CheckedLoop) else checked


def _check(file: str | Path, overrides: Overrides) -> Plan | CheckedLoop:
    raw, _ = parse_yaml(read_text(file), str(file))
    if LoopRecipe.distinctive_key not in raw:
        return load_plan(file, overrides)
    return check_loop(*load(file, overrides, LoopRecipe))


def check_recipe(file: str | Path, overrides: Overrides = ()) -> str:
    """Check a recipe and return a description of what it would do.

    Raises:
        RecipeError: all that is wrong, one line each with its place.
    """
    checked = _check(file, overrides)
    return describe_plan(checked) if isinstance(checked, Plan) else describe_loop(checked)
