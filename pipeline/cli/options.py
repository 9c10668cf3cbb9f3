"""Values that a command line gives by name."""

from collections.abc import Sequence
from typing import Any

import typer


def given(overrides: Sequence[str] | None) -> dict[str, Any]:
    """What `--set KEY=VALUE` says, each value read as YAML.

    Raises:
        typer.BadParameter: one has no `=`.
    """
    import yaml

    found = {}
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals:
            raise typer.BadParameter(f"'{override}': expected KEY=VALUE, for example steps=3000", param_hint="--set")
        found[key] = yaml.safe_load(text)
    return found
