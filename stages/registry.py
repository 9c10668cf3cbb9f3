"""Stages and sources by the name a recipe gives them, and their description. A module is imported when it is needed.

A stage of one's own is named `package.module:Class`.
"""

import importlib
import inspect
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.spelling import suggest
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

SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "multiple of {}"}
LONGEST_DEFAULT = 60
"""Characters of a default that is shown whole."""


class UnknownStage(UnknownNameError):
    """A name that no stage has, with the nearest that one has."""


def _import_class(name: str, registered: Mapping[str, str], noun: str) -> type[Stage]:
    """Import the class of a name in a table, or of `module:Class`."""
    target = registered.get(name, name if ":" in name else None)
    if target is None:
        raise UnknownStage(f"unknown {noun} '{name}'; {suggest(name, registered)}")
    module, _, attribute = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownStage(f"{noun} '{name}' cannot be loaded from {target}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Stage)):
        raise UnknownStage(f"{noun} '{name}': {target} is no {noun}")
    return cls


def find_stage(name: str) -> type[Stage]:
    """Return the class of a stage or source.

    Args:
        name: a name of `STAGES` or `SOURCES`, or `package.module:Class`.

    Raises:
        UnknownStage: nothing has that name, or it cannot be imported.

    Examples:
        >>> find_stage("select")
        <class 'rasura.stages.select.Select'>
    """
    return _import_class(name, STAGES | SOURCES, "stage")


def find_source(name: str) -> type[Source]:
    """Return the class of a source, as `find_stage` does for a stage.

    Raises:
        UnknownStage: nothing has that name, it cannot be imported, or it is a stage that is no source.
    """
    cls = _import_class(name, SOURCES, "source")
    if not issubclass(cls, Source):
        raise UnknownStage(f"'{name}' is a stage, not a source; {suggest(name, SOURCES)}")
    return cls


def describe(name: str) -> str:
    """Describe a stage: its purpose, columns and parameters, and the example of its docstring.

    Returns:
        Text whose first line is `name: purpose`.

    Raises:
        UnknownStage: nothing has that name, or it cannot be imported.

    Examples:
        >>> print(describe("background"))  # doctest: +ELLIPSIS
        background: ...
          gives: source (rgb)...
    """
    cls = find_stage(name)
    docstring = inspect.cleandoc(cls.__doc__ or sys.modules[cls.__module__].__doc__ or "")
    lines = [f"{name}: {extract_first_paragraph(docstring)}"]
    for noun, columns in (("needs", cls.needs), ("gives", cls.gives)):
        if columns:
            lines.append(f"  {noun}: " + ", ".join(f"{column} ({kind})" for column, kind in columns.items()))
    lines += describe_parameters(cls.Params)
    _, _, example = docstring.partition("\nExamples:\n")
    if example and ">>>" not in example:
        lines += ["  example:", *(f"  {line}" for line in example.rstrip().splitlines())]
    return "\n".join(lines)


def describe_type(annotation: Any) -> str:
    """Describe a type in the words of a recipe.

    Examples:
        >>> describe_type(list[float] | None)
        'list of number'
        >>> describe_type(Literal["auto", "cpu"])
        'auto | cpu'
        >>> describe_type(dict[str, tuple[float, float]])
        'mapping of text to [number, number]'
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments if argument is not type(None))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {describe_type(arguments[0])} to {describe_type(arguments[1])}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(describe_type, arguments))}]"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {describe_type(arguments[0])}"
    return SCALARS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def find_models(annotation: Any) -> list[type[BaseModel]]:
    """Return the parameter models that a type mentions, in order.

    Examples:
        >>> class Rule(BaseModel): ...
        >>> find_models(dict[str, Rule] | None)
        [<class 'rasura.stages.registry.Rule'>]
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in find_models(argument)]


def describe_parameters(model: type[BaseModel], indent: str = "  ") -> Iterator[str]:
    """Yield a line a parameter: `name (type, bounds, default): description`; those of nested models follow indented."""
    former_names: Mapping[str, str] = getattr(model, "former_names", {})
    for name, field in model.model_fields.items():
        facts = [describe_type(field.annotation), *_describe_bounds(field), _describe_default(field)]
        if name in former_names:
            facts.append(f"formerly {former_names[name]}")
        yield f"{indent}{name} ({', '.join(facts)}){f': {field.description}' if field.description else ''}"
        for nested in find_models(field.annotation):
            yield f"{indent}  {nested.__name__}: {extract_first_paragraph(nested.__doc__)}"
            yield from describe_parameters(nested, f"{indent}    ")


def extract_first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph of a docstring as one line.

    Examples:
        >>> extract_first_paragraph('''Keep rows
        ... by rules.
        ...
        ... More.''')
        'Keep rows by rules.'
    """
    return " ".join((docstring or "").split("\n\n")[0].split())


def _describe_bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, template in BOUNDS.items():
            bound = getattr(constraint, attribute, None)
            if bound is not None:
                yield template.format(bound)
        if pattern := getattr(constraint, "pattern", None):
            yield f"pattern {pattern}"
        if getattr(constraint, "min_length", None):
            yield f"at least {constraint.min_length}"


def _describe_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    text = default if isinstance(default, str) and default else json.dumps(default, ensure_ascii=False, default=str)
    if len(text) > LONGEST_DEFAULT and isinstance(default, list | tuple):
        start = ", ".join(map(str, default[:3]))
        return f"default [{start}, … {len(default)} in all]"
    return f"default {text}"
