"""`--set KEY=VALUE`: values on the command line, with the same syntax for all commands that take them.

KEY is a path of keys with dots between them; entries of a list are named by their number, and stages also by their
name. VALUE is YAML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.errors import RecipeError
from rasura.manifests.spelling import format_count, suggest
from rasura.pipeline.recipe.positions import OPTION, KeyPath, Positions
from rasura.pipeline.recipe.yaml_reader import InvalidYaml, read_yaml

Overrides = Sequence[str] | Mapping[str, Any]
"""Texts `key=value` as on the command line; or keys with values that need no parsing."""


@dataclass(frozen=True)
class Override:
    """One value that is set.

    Attributes:
        option: the option as it was written, for messages.
        keys: the path to the value.
        value: the value, parsed.
    """

    option: str
    keys: tuple[str, ...]
    value: Any


def parse_override(text: str, example: str = "engine.shard_rows=8") -> Override:
    """Parse `key=value`.

    Raises:
        RecipeError: there is no key, no `=`, or the value is not YAML.

    Examples:
        >>> parse_override("engine.workers=2").keys, parse_override("engine.workers=2").value
        (('engine', 'workers'), 2)
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"{OPTION}{text}: expected KEY=VALUE, for example --set {example}")
    try:
        return Override(f"{OPTION}{text}", tuple(key.split(".")), read_yaml(value)[0])
    except InvalidYaml as error:
        raise RecipeError(f"{OPTION}{text}: '{value}' is not valid YAML: {error.problem}") from None


def parse_overrides(overrides: Overrides, example: str = "engine.shard_rows=8") -> list[Override]:
    """Parse all values that are set.

    Raises:
        RecipeError: one of them is not `key=value`.
    """
    if isinstance(overrides, Mapping):
        return [Override(f"{OPTION}{key}={value}", tuple(key.split(".")), value) for key, value in overrides.items()]
    return [parse_override(text, example) for text in overrides]


def apply_overrides(raw: dict[str, Any], overrides: Sequence[Override], positions: Positions) -> None:
    """Set values in a recipe, and note for each that an option has set it.

    Args:
        raw: the recipe as YAML gives it; changed in place.
        positions: places of its values; changed in place.

    Raises:
        RecipeError: a path leads through a value that has no keys, or to an entry that a list does not have.
    """
    for override in overrides:
        _apply(raw, override, positions)


def _apply(raw: dict[str, Any], override: Override, positions: Positions) -> None:
    container: Any = raw
    path: list[str | int] = []
    for position, name in enumerate(override.keys):
        key: Any = name
        if isinstance(container, list):
            container, key = _find_entry(container, name, override.option, path)
            if isinstance(container, dict) and container[key] is None:
                container[key] = {}
        elif not isinstance(container, dict):
            raise RecipeError(f"{override.option}: '{'.'.join(override.keys[:position])}' has no keys")
        elif container and name not in container:
            _check_name(container, name, override, path)
        path.append(key)
        if position == len(override.keys) - 1:
            container[key] = override.value
            _forget_below(positions, tuple(path))
            positions.places[tuple(path)] = override.option
            return
        if isinstance(container, dict) and container.get(key) is None:
            container[key] = {}
            positions.places[tuple(path)] = override.option
        if isinstance(container[key], str) and _is_stage(tuple(path)):
            container[key] = {container[key]: {}}
        container = container[key]


def _is_stage(path: KeyPath) -> bool:
    """Return whether a source or a stage is at a path."""
    return path[:1] == ("flows",) and (path[2:] == ("source",) or (len(path) == 4 and path[2] == "stages"))


def _check_name(container: Mapping[str, Any], name: str, override: Override, path: Sequence[str | int]) -> None:
    """Check that a path does not lead through a flow, a source or a stage that the recipe does not have."""
    option, keys = override.option, override.keys
    if _is_stage(tuple(path)):
        noun = "source" if path[2] == "source" else "stage"
        raise RecipeError(f"{option}: {'.'.join(map(str, path))} is no {noun} '{name}'; {suggest(name, container)}")
    if tuple(path) == ("flows",) and len(keys) > 2:  # a whole flow may be new
        raise RecipeError(f"{option}: no flow '{name}'; {suggest(name, container)}")


def _find_entry(entries: list[Any], name: str, option: str, path: list[str | int]) -> tuple[Any, Any]:
    """Return the container and key of a list's entry, by its number or by the name of the stage."""
    if name.isdigit() and int(name) < len(entries):
        return entries, int(name)
    for index, entry in enumerate(entries if path[-1:] == ["stages"] else ()):
        if entry == name:
            entries[index] = {name: {}}
        if isinstance(entries[index], dict) and name in entries[index]:
            path.append(index)
            return entries[index], name
    if path[-1:] == ["stages"] and not name.isdigit():
        names = [entry if isinstance(entry, str) else str(next(iter(entry or [""]), "")) for entry in entries]
        raise RecipeError(f"{option}: no stage '{name}'; {suggest(name, names)}")
    count = format_count(len(entries), "entry") + (f", numbered 0 to {len(entries) - 1}" if entries else "")
    raise RecipeError(f"{option}: no entry '{name}'; {'.'.join(map(str, path))} has {count}")


def _forget_below(positions: Positions, path: tuple[str | int, ...]) -> None:
    """Remove the places below a value that was replaced as a whole."""
    for other in list(positions.places):
        if len(other) > len(path) and other[: len(path)] == path:
            del positions.places[other]
