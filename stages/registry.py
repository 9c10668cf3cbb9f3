"""Stages and sources by the name a recipe gives them, and their description. A module is imported when it is needed.

A stage of one's own is named `package.module:Class`.
"""

import difflib
import importlib
import inspect
import json
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.safety.text import describe_error
from rasura.manifests.schemas import Kind
from rasura.manifests.spelling import suggest
from rasura.stages.stage import Params, Source, Stage

SOURCES = {
    "photos": "rasura.stages.sources.photos:Photos",
    "pairs": "rasura.stages.sources.pairs:Pairs",
    "clip": "rasura.stages.sources.clip.clip:Clip",
    "studio": "rasura.stages.sources.studio.studio:Studio",
    "flow": "rasura.stages.sources.flow:Flow",
    "draws": "rasura.stages.sources.draws:Draws",
    "ober": "rasura.stages.sources.ober:Ober",
    "rorem": "rasura.stages.sources.rorem:Rorem",
    "coco": "rasura.stages.sources.foreign.coco:Coco",
    "openimages": "rasura.stages.sources.foreign.openimages:OpenImages",
    "rord": "rasura.stages.sources.foreign.rord:Rord",
    "smarteraser": "rasura.stages.sources.foreign.folders:SmartEraser",
    "mulan": "rasura.stages.sources.foreign.mulan:Mulan",
    "webdataset": "rasura.stages.sources.foreign.webdataset:WebDataset",
    "table": "rasura.stages.sources.foreign.table:TableRows",
    "drawn": "rasura.stages.sources.drawn:Drawn",
    "compared": "rasura.stages.sources.compared:Compared",
    "corrections": "rasura.stages.correction.source:Corrections",
    "distinct": "rasura.stages.curation.distinct:Distinct",
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
    "instance": "rasura.stages.compositing.instance:Instance",
    "ground": "rasura.stages.ground:Ground",
    "composite": "rasura.stages.composite:Composite",
    "masks": "rasura.stages.masks:Masks",
    "correct": "rasura.stages.correction.correct:Correct",
    "inpaint": "rasura.stages.inpaint:Inpaint",
    "insert": "rasura.stages.insertion.insert:Insert",
    "confirm": "rasura.stages.insertion.confirm:Confirm",
    "score": "rasura.stages.score:Score",
    "keep": "rasura.stages.score:Keep",
    "measure": "rasura.stages.judging.measure:Measure",
    "choose": "rasura.stages.judging.choose:Choose",
    "select": "rasura.stages.select:Select",
    "inspect": "rasura.stages.curation.inspection:Inspect",
    "repair": "rasura.stages.curation.repair:Repair",
    "quality": "rasura.stages.curation.measuring:MeasureQuality",
    "fingerprint": "rasura.stages.curation.measuring:Fingerprint",
    "licence": "rasura.stages.curation.measuring:ReadLicence",
    "embed": "rasura.stages.curation.networks:Embed",
    "classify": "rasura.stages.curation.networks:Classify",
    "people": "rasura.stages.curation.people:People",
}

SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "multiple of {}"}
LONGEST_DEFAULT = 60
"""Characters of a default that is shown whole."""


class UnknownStage(UnknownNameError):
    """A name that no stage has, with the nearest that one has; or one of a class that cannot be a stage."""


def _import_class(name: str, registered: Mapping[str, str], noun: str) -> type[Stage]:
    """Import the class of a name in a table, or of `module:Class`."""
    target = registered.get(name, name if ":" in name else None)
    if target is None:
        raise UnknownStage(f"unknown {noun} '{name}'; {suggest(name, registered)}")
    module_name, _, attribute = target.partition(":")
    if not (module_name and attribute):
        raise UnknownStage(f"{noun} '{name}': expected a name such as my_module:MyClass")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UnknownStage(f"{noun} '{name}' cannot be loaded: {_explain_import(error, module_name)}") from error
    cls = getattr(module, attribute, None)
    if cls is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Stage)]
        place = getattr(module, "__file__", None) or module_name
        raise UnknownStage(
            f"{noun} '{name}' cannot be loaded: {place} has no '{attribute}'; {suggest(attribute, classes)}"
        )
    if not (isinstance(cls, type) and issubclass(cls, Stage)):
        raise UnknownStage(f"{noun} '{name}': {target} is no {noun}: it does not derive from rasura.Stage")
    for fault in _find_class_faults(cls):
        raise UnknownStage(f"{noun} '{name}': {fault}")
    return cls


def _explain_import(error: Exception, module: str) -> str:
    """Explain why a module of one's own cannot be imported: it is not there, or something in it is wrong."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return (
            f"there is no module '{error.name}' in the working folder {Path.cwd()}, nor among the installed packages; "
            "run the command in the folder that has it, or set PYTHONPATH"
        )
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}: {describe_error(error)}"


def _find_class_faults(cls: type[Stage]) -> Iterator[str]:
    """Yield what a class of one's own lacks to be a stage, or a source."""
    if not isinstance(getattr(cls, "name", None), str):
        yield f"{cls.__name__} has no name; set `name`, the name that a recipe uses"
    for attribute in ("needs", "gives"):
        if fault := describe_schema_fault(getattr(cls, attribute)):
            yield f"{cls.__name__}.{attribute} {fault}"
    if not (isinstance(cls.Params, type) and issubclass(cls.Params, Params)):
        yield f"{cls.__name__}.Params is {cls.Params!r}; it has to be a class that derives from rasura.Params"
    if cls.process is Stage.process and cls.process_one is Stage.process_one:
        yield f"{cls.__name__} defines neither process nor process_one"
    if issubclass(cls, Source) and cls.items is Source.items:
        yield f"{cls.__name__} defines no items, which lists what the source loads"


def describe_schema_fault(schema: Any) -> str | None:
    """Describe what is wrong with a schema; None where it maps names of columns to kinds.

    Examples:
        >>> describe_schema_fault({"sharpness": "float"})
        "maps 'sharpness' to 'float', which is no Kind; did you mean Kind.FLOAT?"
        >>> describe_schema_fault({"sharpness": Kind.FLOAT})
    """
    if not isinstance(schema, Mapping):
        return f"is {schema!r}; it has to map names of columns to kinds, such as {{'source': Kind.RGB}}"
    for column, kind in schema.items():
        if not isinstance(kind, Kind):
            names = {member.name.lower(): member.name for member in Kind} | {member: member.name for member in Kind}
            word = kind.__name__ if isinstance(kind, type) else str(kind)
            close = difflib.get_close_matches({"str": "string"}.get(word, word).lower(), names, n=1, cutoff=0.5)
            hint = f"did you mean Kind.{names[close[0]]}?" if close else f"kinds are {', '.join(Kind.__members__)}"
            return f"maps '{column}' to {kind!r}, which is no Kind; {hint}"
    return None


def find_stage(name: str) -> type[Stage]:
    """Return the class of a stage or source.

    Args:
        name: a name of `STAGES` or `SOURCES`, or `package.module:Class`.

    Raises:
        UnknownStage: nothing has that name, or it cannot be imported, or lacks what a stage must have.

    Examples:
        >>> find_stage("select")
        <class 'rasura.stages.select.Select'>
    """
    return _import_class(name, STAGES | SOURCES, "stage")


def find_source(name: str) -> type[Source]:
    """Return the class of a source, as `find_stage` does for a stage.

    Raises:
        UnknownStage: nothing has that name, or it cannot be imported, or lacks what a stage must have.
    """
    if name in STAGES:
        raise UnknownStage(f"unknown source '{name}': it is a stage, and belongs into the list `stages` of its flow")
    cls = _import_class(name, SOURCES, "source")
    if not issubclass(cls, Source):
        raise UnknownStage(f"source '{name}': {cls.__name__} does not derive from rasura.stages.stage.Source")
    return cls


def describe(name: str) -> str:
    """Describe a stage: its purpose, columns and parameters, and the example of its docstring.

    Returns:
        Text whose first line is `name: purpose`.

    Raises:
        UnknownStage: nothing has that name, or it cannot be imported, or lacks what a stage must have.

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
        if least := getattr(constraint, "min_length", None):
            yield "not empty" if least == 1 else f"at least {least}"


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
