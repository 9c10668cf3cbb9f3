"""YAML as recipes and `--set` have it: plain values only, no key twice, and a bound on size and depth.

A few aliases that name each other can stand for more values than fit into memory; values are therefore counted as often
as aliases repeat them.
"""

from typing import Any

import yaml

MAX_DEPTH = 50
"""Levels of lists and mappings within each other."""
MAX_VALUES = 20_000
"""Keys and values, those of an alias counted as often as it is used."""


NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class InvalidYaml(Exception):
    """A text that is no YAML, or is too large or too deep.

    Args:
        problem: what is wrong with it.
        line, column: where, from 1; 0 where that is unknown.
    """

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.line, self.column = problem, line, column


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that is there twice, and counts what it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._sizes: dict[yaml.Node, tuple[int, int]] = {}
        """Values and levels of each node that is complete."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._level += 1
        _check_size(len(self._sizes), self._level, event)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None or node in self._sizes:
            return node
        if isinstance(event, yaml.AliasEvent):
            raise _locate(f"the alias *{event.anchor} contains itself", event)
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for entry in node.value for child in entry]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes = [self._sizes[child] for child in children]
        size, levels = 1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)
        _check_size(size, levels, event)
        self._sizes[node] = size, levels
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in NUMBER_TAGS and ":" in node.value:
            problem = f"'{node.value}' is a number to the base 60 in YAML; write it plainly, or as text in quotes"
            raise _locate(problem, node)
        try:
            return super().construct_object(node, deep)
        except ValueError:  # a date that there is not, a number with thousands of digits
            problem = f"'{str(node.value)[:20]}' cannot be read; put it into quotes if it is text"
            raise _locate(problem, node) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _locate("a key has to be text", key_node)
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise _locate(f"key '{key}' is there twice", key_node)
            keys.add(key)
        return super().construct_mapping(node, deep)


def _locate(problem: str, what: yaml.Event | yaml.Node) -> InvalidYaml:
    mark = what.start_mark
    return InvalidYaml(problem, mark.line + 1, mark.column + 1) if mark else InvalidYaml(problem)


def _check_size(size: int, levels: int, event: yaml.Event) -> None:
    if size > MAX_VALUES:
        raise _locate(f"more than {MAX_VALUES} values, counted as often as aliases (*name) repeat them", event)
    if levels > MAX_DEPTH:
        raise _locate(f"lists or mappings are nested more than {MAX_DEPTH} levels deep", event)


def _copy(value: Any) -> Any:
    """Copy a value so that what aliases share is apart, and can be set in one place alone."""
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    return [_copy(entry) for entry in value] if isinstance(value, list) else value


def read_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Read a text as plain values, and as the nodes that have their places.

    Raises:
        InvalidYaml: it is none, or is too large or too deep.

    Examples:
        >>> read_yaml("{a: [1, yes]}")[0]
        {'a': [1, True]}
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _copy(loader.construct_document(node))), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        raise InvalidYaml(problem, *((mark.line + 1, mark.column + 1) if mark else ())) from None
    except yaml.reader.ReaderError as error:
        place = text[: error.position].count("\n") + 1
        raise InvalidYaml(f"character U+{ord(text[error.position]):04X} cannot be in a text file", place, 1) from None
    except yaml.YAMLError as error:
        raise InvalidYaml(" ".join(str(error).split())) from None
