"""Stages and sources by the name a recipe gives them. A module is imported when its stage is asked for.

A stage of one's own is named `package.module:Class`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from rasura.stages.stage import Source, Stage

SOURCES = {
    "photos": "rasura.stages.sources.photos:Photos",
    "pairs": "rasura.stages.sources.pairs:Pairs",
    "clip": "rasura.stages.sources.clip.clip:Clip",
    "studio": "rasura.stages.sources.studio.studio:Studio",
    "flow": "rasura.stages.sources.flow:Flow",
    "draws": "rasura.stages.sources.draws:Draws",
    "ober": "rasura.stages.sources.ober:Ober",
    "rorem": "rasura.stages.sources.rorem:Rorem",
}
STAGES = {
    "background": "rasura.stages.background:Background",
    "pair": "rasura.stages.pair:Pair",
    "effects": "rasura.stages.effects:Effects",
    "segment": "rasura.stages.segment:Segment",
    "detect": "rasura.stages.detect:Detect",
    "audit": "rasura.stages.audit:Audit",
    "shadow": "rasura.stages.shadow:Shadow",
    "matte": "rasura.stages.matte:Matte",
    "capture": "rasura.stages.capture:Capture",
    "split": "rasura.stages.split:Split",
    "ground": "rasura.stages.ground:Ground",
    "composite": "rasura.stages.composite:Composite",
    "masks": "rasura.stages.masks:Masks",
    "inpaint": "rasura.stages.inpaint:Inpaint",
    "score": "rasura.stages.score:Score",
    "keep": "rasura.stages.score:Keep",
    "select": "rasura.stages.select:Select",
}


class UnknownStage(ValueError):
    """A name that is no stage, with the nearest that is."""


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a misspelt name: the nearest right word, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(sorted(known)) or 'none'}"


def _load(name: str, known: dict[str, str], noun: str) -> type[Stage]:
    where = known.get(name, name if ":" in name else None)
    if where is None:
        raise UnknownStage(f"unknown {noun} '{name}'; {nearest(name, list(known))}")
    module, _, attribute = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownStage(f"{noun} '{name}' cannot be loaded from {where}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise UnknownStage(f"{noun} '{name}': {where} is no {noun}")
    return found


def stage_class(name: str) -> type[Stage]:
    """The class of a stage or source.

    Raises:
        UnknownStage
    """
    return _load(name, STAGES | SOURCES, "stage")


def describe(name: str) -> str:
    """A stage's purpose, columns and parameters as text; the first line is `name: purpose`.

    Raises:
        UnknownStage
    """
    cls = stage_class(name)
    purpose = " ".join((cls.__doc__ or sys.modules[cls.__module__].__doc__ or "").split("\n\n")[0].split())
    lines = [f"{name}: {purpose}"]
    for noun, columns in (("needs", cls.needs), ("gives", cls.gives)):
        if columns:
            lines.append(f"  {noun}: " + ", ".join(f"{column} ({kind})" for column, kind in columns.items()))
    for key, field in cls.Params.model_fields.items():
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        lines.append(f"  {key}: {field.description or ''} ({default})")
    return "\n".join(lines)


def source_class(name: str) -> type[Source]:
    """The class of a source.

    Raises:
        UnknownStage
    """
    found = _load(name, SOURCES, "source")
    if not issubclass(found, Source):
        raise UnknownStage(f"'{name}' is a stage, not a source; {nearest(name, list(SOURCES))}")
    return found
