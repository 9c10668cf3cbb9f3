"""What the command lines of `rasura audit` and `rasura masks` give: limits, parameters, and the folder's name."""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from rasura.manifests.errors import InputError
from rasura.manifests.safety.text import escape_controls
from rasura.stages.curation.faults import change_limits


def name_run(places: Sequence[str]) -> str:
    """Name the folder of an audit by the last part of its first place.

    Examples:
        >>> name_run(["data/My pairs/"]), name_run(["train=a/x", "test=a/y"])
        ('runs/audit-My-pairs', 'runs/audit-x')
    """
    last = re.split(r"[/\\\\]", places[0].partition("=")[2] or places[0].rstrip("/"))[-1]
    return f"runs/audit-{re.sub(r'[^A-Za-z0-9_-]+', '-', last).strip('-')[:80] or 'dataset'}"


def parse_params(texts: Sequence[str]) -> dict[str, Any]:
    """Parse parameters that a command line gives: a name and YAML.

    Raises:
        InputError: one is no `key=value`, or its value is no YAML.

    Examples:
        >>> parse_params(["max_side=512", "endings={input: _a, gt: _b}"])
        {'max_side': 512, 'endings': {'input': '_a', 'gt': '_b'}}
    """
    values = {}
    for text in texts:
        key, mark, value = text.partition("=")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"'{escape_controls(text)}': its value is no YAML: {error}") from None
        if not mark or not key:
            raise InputError(f"'{escape_controls(text)}': expected KEY=VALUE, such as max_side=512")
    return values


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """Parse limits that a command line gives.

    Raises:
        InputError: one is no `column=number`, or there is no limit on the column.

    Examples:
        >>> parse_limits(["inspect_shift=0.5"])
        {'inspect_shift': 0.5}
    """
    limits = {}
    for text in texts:
        column, mark, number = text.partition("=")
        try:
            limits[column] = float(number)
        except ValueError:
            raise InputError(
                f"--limit {escape_controls(text)}: expected COLUMN=NUMBER, such as inspect_shift=0.5"
            ) from None
        if not mark or limits[column] != limits[column]:
            raise InputError(f"--limit {escape_controls(text)}: expected COLUMN=NUMBER, such as inspect_shift=0.5")
    change_limits(limits)
    return limits
