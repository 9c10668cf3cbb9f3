"""JSON lines: one JSON value a line. A line ends with a line feed and with nothing else.

`str.splitlines` also splits at U+2028, U+0085, form feeds and others, which JSON allows inside its texts.
"""

import json
from collections.abc import Iterator
from typing import Any

from rasura.manifests.errors import InputError


class BadJsonLine(InputError):
    """A line that is not JSON, or bytes that are no UTF-8.

    Args:
        number: of the line, from 1.
        reason: why it is not JSON.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number} is not JSON: {reason}")
        self.number, self.reason = number, reason


class NestedTooDeep(InputError):
    """JSON whose lists or objects are within each other by the thousand: parsing it would end the program."""


def parse_json(data: bytes | str, where: object = "", **options: Any) -> Any:
    """Parse JSON that others wrote.

    Args:
        data: the text.
        where: the file, for the message.
        options: of `json.loads`.

    Raises:
        NestedTooDeep: it is nested too deeply.
        ValueError: it is no JSON.

    Examples:
        >>> parse_json("[" * 100_000, "a.json")
        Traceback (most recent call last):
        rasura.manifests.json_lines.NestedTooDeep: a.json: lists or objects in it are nested too deeply
    """
    try:
        return json.loads(data, **options)
    except RecursionError as error:
        raise NestedTooDeep(f"{where}: {explain_json_error(error)}".removeprefix(": ")) from None


def parse_json_lines(data: bytes | str) -> Iterator[Any]:
    """Yield the values of JSON lines, in order; empty lines are skipped.

    Raises:
        BadJsonLine: a line is not JSON; the text names it.

    Examples:
        >>> list(parse_json_lines(b'{"remark": "a\\xe2\\x80\\xa8b"}\\n[1]\\r\\n\\n'))
        [{'remark': 'a\\u2028b'}, [1]]
        >>> list(parse_json_lines("[1]\\n[2"))
        Traceback (most recent call last):
        rasura.manifests.json_lines.BadJsonLine: line 2 is not JSON: Expecting ',' delimiter: line 1 column 3 (char 2)
    """
    lines: list[Any] = data.split(b"\n") if isinstance(data, bytes) else data.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadJsonLine(number, explain_json_error(error)) from None


def explain_json_error(error: ValueError | RecursionError) -> str:
    """Explain why a text is no JSON that can be read.

    Examples:
        >>> explain_json_error(RecursionError("maximum recursion depth exceeded"))
        'lists or objects in it are nested too deeply'
    """
    if isinstance(error, RecursionError):
        return "lists or objects in it are nested too deeply"
    if not isinstance(error, json.JSONDecodeError | UnicodeError):
        return "a number in it has thousands of digits"
    return str(error)
