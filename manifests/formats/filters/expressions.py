"""Conditions on a row's columns, in the part of SQL that everybody knows: `label = 'person' and effects_area < 0.2`.

    condition  := conjunction ("or" conjunction)*
    conjunction := factor ("and" factor)*
    factor     := "not" factor | "(" condition ")" | comparison
    comparison := column ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
                | column ["not"] "in" "(" value ("," value)* ")"
                | column "is" ["not"] "null"
    value      := 'text' | "text" | number | true | false

A text is parsed into a tree of nodes and nothing is evaluated but these. A comparison with a null is neither true nor
false, as in SQL.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rasura.manifests.errors import InputError
from rasura.manifests.schemas import Kind, Schema
from rasura.manifests.spelling import suggest

LONGEST, DEEPEST = 4000, 40
"""Letters of a condition, and nested brackets in it."""
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|<>|!=|==|[=<>(),]))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SAME = {"==": "=", "<>": "!="}
_RESERVED = frozenset({"and", "or", "not", "in", "is", "null", "true", "false"})
_VALUES = {Kind.STRING: "a text in quotation marks", Kind.BOOL: "true or false", Kind.INT: "a number"}
Row = Mapping[str, Any]
Node = Callable[[Row], bool | None]
"""Evaluates to None where it cannot be told, because a column is null."""


class BadCondition(InputError):
    """A condition that cannot be read, or that no column of the rows fits."""


@dataclass(frozen=True)
class Condition:
    """A condition that was parsed.

    Attributes:
        text: as it was written.
        columns: that it reads.
        evaluate: returns True, False, or None where a column is null.

    Examples:
        >>> condition = parse_condition("label = 'dog' and score >= 0.9", {"label": Kind.STRING, "score": Kind.FLOAT})
        >>> condition.evaluate({"label": "dog", "score": 0.95}), condition.evaluate({"label": "dog", "score": None})
        (True, None)
    """

    text: str
    columns: Sequence[str]
    evaluate: Node


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    start: int


def parse_condition(text: str, columns: Schema) -> Condition:
    """Parse a condition.

    Args:
        text: the condition.
        columns: of the rows, with their kinds.

    Raises:
        BadCondition: it is no condition, names an unknown column, or compares a column with a value of another kind.

    Examples:
        >>> parse_condition("lable = 'dog'", {"label": Kind.STRING})
        Traceback (most recent call last):
        rasura.manifests.formats.filters.expressions.BadCondition: no column 'lable'; did you mean 'label'?
    """
    if len(text) > LONGEST:
        raise BadCondition(f"the condition has {len(text)} letters, and {LONGEST} are possible; shorten it")
    parser = _Parser(text, columns)
    node = parser.parse_any(0)
    if parser.next is not None:
        raise parser.explain("the end, `and` or `or`")
    return Condition(text, tuple(dict.fromkeys(parser.read)), node)


class _Parser:
    """A recursive-descent parser, one method for a rule of the grammar."""

    def __init__(self, text: str, columns: Schema) -> None:
        self._text, self._columns = text, columns
        self._tokens = _tokenize(text)
        self._position = 0
        self.read: list[str] = []

    @property
    def next(self) -> _Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def explain(self, expected: str) -> BadCondition:
        token = self.next
        place = f"at '{self._text[token.start :][:20]}'" if token else "at its end"
        return BadCondition(f"cannot read the condition '{self._text}' {place}: expected {expected}")

    def _take(self, *values: str) -> str | None:
        """Take the next token where it is one of these words or signs."""
        token = self.next
        if token and token.kind in ("word", "sign") and token.value.lower() in values:
            self._position += 1
            return token.value.lower()
        return None

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise self.explain(f"`{value}`")

    def parse_any(self, depth: int) -> Node:
        parts = [self._parse_all(depth)]
        while self._take("or"):
            parts.append(self._parse_all(depth))
        return parts[0] if len(parts) == 1 else lambda row: _join(parts, row, True)

    def _parse_all(self, depth: int) -> Node:
        parts = [self._parse_factor(depth)]
        while self._take("and"):
            parts.append(self._parse_factor(depth))
        return parts[0] if len(parts) == 1 else lambda row: _join(parts, row, False)

    def _parse_factor(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise BadCondition(f"the condition has more than {DEEPEST} brackets in each other")
        if self._take("not"):
            return _negate(self._parse_factor(depth + 1))
        if self._take("("):
            node = self.parse_any(depth + 1)
            self._expect(")")
            return node
        return self._parse_comparison()

    def _parse_comparison(self) -> Node:
        token = self.next
        if token is None or token.kind != "word" or token.value.lower() in _RESERVED:
            raise self.explain("a column")
        self._position += 1
        name = token.value
        if name not in self._columns:
            raise BadCondition(f"no column '{name}'; {suggest(name, self._columns)}")
        self.read.append(name)
        if self._take("is"):
            is_negated = self._take("not") is not None
            self._expect("null")
            return lambda row: (_get(row, name) is None) != is_negated
        kind = self._find_kind(name)
        is_negated = self._take("not") is not None
        if self._take("in"):
            values = self._parse_values(name, kind)
            return lambda row: None if _get(row, name) is None else (row[name] in values) != is_negated
        sign = None if is_negated else self._take(*_COMPARE, *_SAME)
        if sign is None:
            raise self.explain("`in`" if is_negated else f"one of {', '.join(_COMPARE)}, `in`, `is`")
        compare, value = _COMPARE[_SAME.get(sign, sign)], self._parse_value(name, kind)
        if kind is Kind.BOOL and sign not in ("=", "==", "!=", "<>"):
            raise BadCondition(f"column '{name}' is true or false, and has no order; compare it with = or !=")
        return lambda row: None if _get(row, name) is None else compare(row[name], value)

    def _find_kind(self, name: str) -> Kind:
        kind = self._columns[name]
        if kind not in (Kind.STRING, Kind.INT, Kind.FLOAT, Kind.BOOL):
            compared = "conditions compare texts, numbers, true and false (any column can be tested with `is null`)"
            raise BadCondition(f"column '{name}' is of kind {kind}; {compared}")
        return kind

    def _parse_values(self, name: str, kind: Kind) -> list[Any]:
        self._expect("(")
        values = [self._parse_value(name, kind)]
        while self._take(","):
            values.append(self._parse_value(name, kind))
        self._expect(")")
        return values

    def _parse_value(self, name: str, kind: Kind) -> Any:
        token = self.next
        expected = f"{_VALUES.get(kind, 'a number')}, as column '{name}' has"
        if token is None:
            raise self.explain(expected)
        value: Any = None
        if token.kind == "text" and kind is Kind.STRING:
            quote = token.value[0]
            value = token.value[1:-1].replace(quote * 2, quote)
        elif token.kind == "number" and kind in (Kind.INT, Kind.FLOAT):
            value = float(token.value) if re.search("[.eE]", token.value) else int(token.value)
        elif token.kind == "word" and kind is Kind.BOOL:
            value = {"true": True, "false": False}.get(token.value.lower())
        if value is None:
            raise self.explain(expected)
        self._position += 1
        return value


def _tokenize(text: str) -> list[_Token]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise BadCondition(f"cannot read the condition '{text}' at '{text[position:].lstrip()[:20]}'")
        tokens.append(_Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
        position = match.end()
    return tokens


def _get(row: Row, name: str) -> Any:
    """Return the value of a column; None where it is null or no number."""
    value = row.get(name)
    return None if value != value else value


def _join(parts: Sequence[Node], row: Row, decisive: bool) -> bool | None:
    """Join the values of parts by `or` (True decides) or `and` (False does)."""
    values = [part(row) for part in parts]
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def _negate(node: Node) -> Node:
    def negated(row: Row) -> bool | None:
        value = node(row)
        return None if value is None else not value

    return negated
