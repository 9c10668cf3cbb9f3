"""Places of values: line and column in the file, or the option of the command line that has set them."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
"""Place of a value inside a recipe: the keys and indices that lead to it."""
OPTION = "--set "
"""How the place of a value begins that comes from the command line."""


class Positions:
    """Places of the values of a recipe.

    Args:
        file: name of the recipe's file, as it is shown.
        places: place of each value, by its path of keys and indices.
    """

    def __init__(self, file: str, places: Mapping[KeyPath, str] | None = None) -> None:
        self.file = file
        self.places: dict[KeyPath, str] = dict(places or {})

    def locate(self, path: Sequence[str | int]) -> str:
        """Return `file:line:column` of a value, or `--set key=value` where an option has set it.

        A value that is not there itself has the place of the nearest value around it.
        """
        for end in range(len(path), -1, -1):
            if place := self.places.get(tuple(path[:end])):
                return place
        return self.file

    def comes_from_option(self, path: KeyPath) -> bool:
        """Return whether an option of the command line has set exactly this value."""
        return self.places.get(path, "").startswith(OPTION)

    def rename(self, path: KeyPath, name: str) -> None:
        """Give the places at and below a path to the same path under another last key."""
        for other, place in list(self.places.items()):
            if other[: len(path)] == path:
                self.places[(*path[:-1], name, *other[len(path) :])] = place

    def describe_fault(self, path: Sequence[str | int], message: str) -> str:
        """Return one line: the place, the path of keys, and what is wrong."""
        place, keys = self.locate(path), ".".join(map(str, path))
        if not keys or self.comes_from_option(tuple(path)):
            return f"{place}: {message}"
        return f"{place}: {keys}: {message}"


def read_positions(node: yaml.Node | None, file: str) -> Positions:
    """Collect the lines and columns of all keys and values of a YAML document."""
    positions = Positions(file)

    def visit(node: yaml.Node, path: KeyPath) -> None:
        positions.places.setdefault(path, place(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                positions.places[(*path, key.value)] = place(key)
                visit(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                visit(value, (*path, index))

    def place(node: yaml.Node) -> str:
        return f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    if node is not None:
        visit(node, ())
    return positions


def find_file_path(raw: Any, path: Sequence[str | int]) -> KeyPath:
    """Convert a path in the models to the path in the file, where a stage's name stands between.

    Examples:
        >>> find_file_path({"stages": [{"detect": {"batch_size": 0}}]}, ("stages", 0, "batch_size"))
        ('stages', 0, 'detect', 'batch_size')
    """
    keys: list[str | int] = []
    for key in path:
        if isinstance(raw, Mapping) and key not in raw and len(raw) == 1:
            ((name, body),) = raw.items()
            if isinstance(body, Mapping) and key in body:
                keys.append(name)
                raw = body
        keys.append(key)
        try:
            raw = raw[key]
        except (KeyError, IndexError, TypeError):
            raw = None
    return tuple(keys)
