"""The recipe reader, for recipes of runs and of loops: YAML that is validated as a whole before anything starts.

Every fault is one line with file, line and column (or the option of the command line), the path of keys, what is wrong,
and the nearest right word.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from rasura.manifests.errors import RecipeError, StorageError
from rasura.manifests.spelling import list_nearest, suggest
from rasura.manifests.uris import check_path
from rasura.pipeline.recipe.former_names import find_model, rename_keys
from rasura.pipeline.recipe.overrides import Overrides, apply_overrides, parse_overrides
from rasura.pipeline.recipe.positions import KeyPath, Positions, find_file_path, read_positions
from rasura.pipeline.recipe.schema import Recipe, RootModel
from rasura.pipeline.recipe.wording import translate_error
from rasura.pipeline.recipe.yaml_reader import InvalidYaml, read_yaml

VARIABLE = re.compile(r"\$\{(?:([^{}]*)\})?")
MAX_BYTES = 1_000_000
"""Size of the largest recipe."""
COMMANDS = {"flows": "rasura run", "rounds": "rasura loop"}
"""The key by which the two kinds of recipes are told apart: the command that takes such a recipe."""

Root = TypeVar("Root", bound=RootModel)
Fault = tuple[KeyPath, str]
"""A fault: path of keys, and what is wrong."""


class FaultyRecipe(RecipeError):
    """A recipe of a run with faults outside of its flows, which can still be checked.

    Args:
        text: all faults.
        recipe: the recipe, with defaults in place of the values that are wrong.
        positions: places of its values.
    """

    def __init__(self, text: str, recipe: Recipe, positions: Positions) -> None:
        super().__init__(text)
        self.recipe, self.positions = recipe, positions


def parse_yaml(text: str, file: str) -> tuple[dict[str, Any], Positions]:
    """Parse a document whose top level has keys, and the places of its values.

    Raises:
        RecipeError: it is not valid YAML, or has no keys.
    """
    try:
        raw, node = read_yaml(text)
    except InvalidYaml as error:
        place = f"{file}:{error.line}:{error.column}" if error.line else file
        raise RecipeError(f"{place}: not valid YAML: {error.problem}") from None
    if raw is None:
        raise RecipeError(f"{file}: nothing is in it; `rasura init` writes a recipe to start from")
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: expected keys such as name, flows and dataset, or name, pool and rounds for a loop")
    return raw, read_positions(node, file)


def substitute(value: Any, variables: Mapping[str, str], path: KeyPath, faults: list[Fault]) -> Any:
    """Return a value with every `${name}` replaced.

    Args:
        variables: name to text.
        path: place of the value.
        faults: collects unknown names.

    Examples:
        >>> substitute({"path": "${pics}/a"}, {"pics": "photos"}, (), [])
        {'path': 'photos/a'}
    """
    if isinstance(value, str):

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name in variables:
                return str(variables[name])
            if name is None:
                faults.append((path, f"'${{' without its '}}' in '{value}'; a variable is written ${{name}}"))
            else:
                faults.append((path, f"unknown variable '{name}'; {suggest(name, list(variables))}"))
            return ""

        return VARIABLE.sub(replace, value)
    if isinstance(value, dict):
        return {key: substitute(entry, variables, (*path, key), faults) for key, entry in value.items()}
    if isinstance(value, list):
        return [substitute(entry, variables, (*path, index), faults) for index, entry in enumerate(value)]
    return value


def describe_faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Convert pydantic's errors into faults in plain words, with the nearest right word for an unknown key."""
    faults = []
    for fault in error.errors():
        path: KeyPath = fault["loc"]
        if fault["type"] == "extra_forbidden":
            parent = find_model(model, path[:-1])
            message = f"unknown key '{path[-1]}'; {suggest(str(path[-1]), parent.model_fields if parent else ())}"
        else:
            message = translate_error(fault)
        faults.append((path, message))
    return faults


def raise_faults(faults: Sequence[Fault], positions: Positions) -> None:
    """Raise all faults as one error.

    Raises:
        RecipeError: there is at least one; one line each, none twice.
    """
    if lines := [positions.describe_fault(path, message) for path, message in faults]:
        raise RecipeError("\n".join(dict.fromkeys(lines)))


def validate(raw: Mapping[str, Any], positions: Positions, model: type[BaseModel], faults: Sequence[Fault] = ()) -> Any:
    """Validate a part of a recipe, with present names in place of former ones.

    Args:
        faults: what has been found before.

    Raises:
        RecipeError: all faults, one line each.
    """
    collected = list(faults)
    raw = rename_keys(raw, model, (), positions, lambda path, message: collected.append((path, message)))
    try:
        instance = model.model_validate(raw)
    except ValidationError as error:
        collected += [(find_file_path(raw, path), message) for path, message in describe_faults(error, model)]
        instance = None
    if isinstance(instance, RootModel):
        collected += instance.find_faults()
    try:
        raise_faults(collected, positions)
    except RecipeError as error:
        rest = instance if isinstance(instance, Recipe) else None
        if rest is None and model is Recipe:
            rest = _validate_rest(raw, collected)
        rest = None if faults else rest  # what variables stand for is missing
        raise error if rest is None else FaultyRecipe(str(error), rest, positions) from None
    return instance


def _validate_rest(raw: Mapping[str, Any], faults: Sequence[Fault]) -> Recipe | None:
    """Validate a recipe without the values that have faults; None where a flow has one."""
    wrong = {path[0] for path, _ in faults if path}
    rest = {"name": "unnamed", **{key: value for key, value in raw.items() if key not in wrong}}
    try:
        return Recipe.model_validate(rest)
    except ValidationError:
        return None


@overload
def parse(text: str, file: str, overrides: Overrides = ()) -> tuple[Recipe, Positions]: ...
@overload
def parse(text: str, file: str, overrides: Overrides, schema: type[Root]) -> tuple[Root, Positions]: ...
def parse(
    text: str, file: str, overrides: Overrides = (), schema: type[RootModel] = Recipe
) -> tuple[RootModel, Positions]:
    """Parse a recipe from YAML text.

    Args:
        text: the YAML.
        file: its name, for messages.
        overrides: values that replace those of the text, `key=value`.
        schema: the kind of recipe: `Recipe`, or `pipeline.loop.recipe.LoopRecipe`.

    Returns:
        The recipe, and the places of its values.

    Raises:
        RecipeError: all that is wrong, one line each.

    Examples:
        >>> recipe, positions = parse("name: cars\\nflows: {a: {source: {photos: {path: pics}}}}", "cars.yaml")
        >>> recipe.flows["a"].source.params
        {'path': 'pics'}
        >>> positions.locate(("flows", "a", "source"))
        'cars.yaml:2:13'
    """
    raw, positions = parse_yaml(text, file)
    if schema.distinctive_key not in raw:
        for key, command in COMMANDS.items():
            if key in raw:
                raise RecipeError(
                    f"{positions.locate((key,))}: a recipe with '{key}' is for `{command}`, not `{schema.command}`"
                )
    apply_overrides(raw, parse_overrides(overrides), positions)
    faults: list[Fault] = []
    variables = raw.get("vars") or {}
    if isinstance(variables, dict):
        for name, value in variables.items():
            if "${" in str(value):
                faults.append((("vars", name), f"a variable cannot contain another; write out the text of '{value}'"))
        values = substitute({key: value for key, value in raw.items() if key != "vars"}, variables, (), faults)
        raw = {**values, "vars": variables}
    recipe: RootModel = validate(raw, positions, schema, faults)
    return recipe, positions


def read_text(file: str | Path) -> str:
    """Read the text of a recipe.

    Raises:
        RecipeError: there is no such file, or it is not text.
    """
    try:
        check_path(str(file))
    except StorageError as error:
        raise RecipeError(f"there is no such recipe: {error}") from None
    path = Path(file)
    near = [str(other) for other in (path if path.is_dir() else path.parent).glob("*.yaml")]
    if path.is_dir():
        raise RecipeError(f"'{file}' is a folder; name the recipe in it ({list_nearest(str(file), near)})")
    if path.is_symlink() and not path.exists():
        raise RecipeError(f"'{file}' is a link that leads to no file; name the recipe itself")
    if not path.exists():
        raise RecipeError(f"there is no recipe '{file}'" + (f"; {suggest(str(file), near)}" if near else ""))
    if not path.is_file():
        raise RecipeError(f"'{file}' is no regular file; write the recipe into a file whose name ends in .yaml")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RecipeError(f"'{file}' has {size / 1e6:.1f} MB; a recipe is a text of at most {MAX_BYTES / 1e6:g} MB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"'{file}' is no text file: byte {error.start} is not UTF-8") from None
    except PermissionError:
        raise RecipeError(f"cannot read '{file}': permission denied; change its permissions") from None
    except OSError as error:
        raise RecipeError(f"cannot read '{file}': {error.strerror or error}") from None


@overload
def load(file: str | Path, overrides: Overrides = ()) -> tuple[Recipe, Positions]: ...
@overload
def load(file: str | Path, overrides: Overrides, schema: type[Root]) -> tuple[Root, Positions]: ...
def load(file: str | Path, overrides: Overrides = (), schema: type[RootModel] = Recipe) -> tuple[RootModel, Positions]:
    """Load a recipe from a file; see `parse`.

    Raises:
        RecipeError: it is not there, or something in it is wrong.
    """
    return parse(read_text(file), str(file), overrides, schema)
