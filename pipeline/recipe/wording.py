"""Pydantic's errors in plain words, for recipes and options."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic_core import ErrorDetails

from rasura.manifests.spelling import suggest
from rasura.pipeline.recipe.schema import MOST_LETTERS, NAME

TEXT = "expected text"
WHOLE = "expected a whole number"
NUMBER = "expected a number"
TRUTH = "expected true or false"
LIST = "expected a list, [first, second]"
KEYS = "expected keys with values, {{key: value}}"

MESSAGES: Mapping[str, str] = {
    "string_type": TEXT,
    "path_type": TEXT,
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "int_parsing_size": "the number has too many digits",
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "expected a finite number",
    "bool_type": TRUTH,
    "bool_parsing": TRUTH,
    "list_type": LIST,
    "tuple_type": LIST,
    "dict_type": KEYS,
    "mapping_type": KEYS,
    "model_type": KEYS,
    "model_attributes_type": KEYS,
    "greater_than_equal": "expected {ge} or more",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected {le} or less",
    "less_than": "expected less than {lt}",
    "multiple_of": "expected a multiple of {multiple_of}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected text of the form {pattern}",
    "too_short": "expected at least {min_length} in the list, not {actual_length}",
    "too_long": "expected at most {max_length} in the list, not {actual_length}",
}
"""Type of an error to what is said of it; names in braces are limits that pydantic gives with it."""

LONGEST_VALUE = 60
"""Characters of a text that is shown whole."""


def translate_error(error: ErrorDetails) -> str:
    """Translate an error into a clause that says what was expected, and what is there instead.

    Examples:
        >>> translate_error({"type": "int_parsing", "loc": ("workers",), "msg": "", "input": "two"})
        "expected a whole number (it is 'two')"
    """
    kind, value, limits = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "missing":
        return f"'{error['loc'][-1]}' is missing"
    if kind in ("too_short", "string_too_short") and limits["min_length"] == 1:
        return "it is empty"
    if kind == "value_error":
        message = str(limits["error"])
    elif kind == "literal_error":
        expected = str(limits["expected"]).replace("'", "")
        hint = suggest(value, expected.replace(" or ", ", ").split(", ")) if isinstance(value, str) else ""
        return f"expected {expected}{_describe_value(value)}" + (f"; {hint}" if hint.startswith("did") else "")
    elif kind == "string_pattern_mismatch" and limits["pattern"] == NAME:
        message = "expected letters, digits, _ and - only, the first a letter or a digit"
        if isinstance(value, str) and len(value) > MOST_LETTERS:
            message = f"expected {MOST_LETTERS} letters at most, not {len(value)}"
    elif kind in MESSAGES:
        message = MESSAGES[kind].format(**{key: _format_limit(limit) for key, limit in limits.items()})
    else:
        message = error["msg"]
    if message == TEXT and isinstance(value, bool | int | float | date):
        message += " in quotes"
    return message + _describe_value(value)


def _format_limit(limit: Any) -> Any:
    return f"{limit:g}" if isinstance(limit, float) else limit


def _describe_value(value: Any) -> str:
    """Describe what is there, as YAML writes it; nothing where it has keys, which have places of their own."""
    if isinstance(value, Mapping):
        return ""
    if isinstance(value, bool) or value is None:
        text = json.dumps(value)
    elif isinstance(value, str):
        text = repr(value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…")
    elif isinstance(value, int | float | date):
        text = str(value)[:LONGEST_VALUE]
    else:
        text = "a list"
    return f" (it is {text})"
