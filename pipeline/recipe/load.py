"""A recipe: YAML, validated whole before anything starts. Every error names its line, column and the nearest word."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rasura.annotator.store.policy import Policy
from rasura.stages.registry import nearest

_VARIABLE = re.compile(r"\$\{([\w.-]+)\}")


class RecipeError(ValueError):
    """What is wrong with a recipe: one line a fault, each with its place."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ResourcesEntry(_Model):
    """What one worker of a stage holds, in Ray's units."""

    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    custom: dict[str, float] = Field(default_factory=dict)


class Entry(_Model):
    """A stage or source as it stands in a recipe: its name, its parameters, and how it is run."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    resources: ResourcesEntry | None = None
    batch_size: int | None = Field(None, ge=1)
    time_limit_s: float | None = Field(None, gt=0)


_RUNNING = ("resources", "batch_size", "time_limit_s")


def _entry(value: Any) -> Any:
    """`name` or `{name: {parameters}}` as the fields of an Entry."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, body),) = value.items()
        body = {} if body is None else body
        if isinstance(name, str) and isinstance(body, Mapping):
            running = {key: body[key] for key in _RUNNING if key in body}
            return {"name": name, "params": {k: v for k, v in body.items() if k not in _RUNNING}, **running}
    raise ValueError("expected a name, or one name with its parameters, like 'effects: {method: noise}'")


class Flow(_Model):
    """One chain: a source and the stages that its records pass."""

    source: Entry
    stages: list[Entry] = Field(default_factory=list)
    shard_rows: int | None = Field(None, ge=1, description="inputs a shard; the engine's where null")

    @field_validator("source", mode="before")
    @classmethod
    def _source(cls, value: Any) -> Any:
        return _entry(value)

    @field_validator("stages", mode="before")
    @classmethod
    def _stages(cls, value: Any) -> Any:
        if value is None:
            return []
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError("expected a list of stages")
        return [_entry(entry) for entry in value]


class Dataset(_Model):
    """What the run writes in the end: the triplets of some flows, as one dataset."""

    flows: list[str] = Field(min_length=1, description="flows whose rows are triplets")
    shard_bytes: int = Field(500_000_000, ge=1_000_000, description="largest data file")


class Engine(_Model):
    """How the work is carried. Nothing here changes a byte of the dataset."""

    shard_rows: int = Field(16, ge=1, description="inputs a shard")
    workers: int | None = Field(None, ge=1, description="CPU workers; one a core where null")
    queue: int = Field(2, ge=1, description="shards handed to a worker at a time")
    tries: int = Field(3, ge=1, description="how often a record may end its worker before it is failed")
    object_store_mb: int = Field(1024, ge=80, description="Ray's shared memory on one machine")


class Recipe(_Model):
    """The whole recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seed: int = Field(0, ge=0)
    vars: dict[str, str] = Field(default_factory=dict, description="texts that ${name} stands for")
    splits: dict[str, float] = Field(default_factory=lambda: {"test": 0.1, "train": 0.9})
    flows: dict[str, Flow] = Field(min_length=1)
    dataset: Dataset | None = None
    engine: Engine = Engine()
    review: Policy | None = Field(None, description="how people judge the run's candidates")

    @field_validator("flows")
    @classmethod
    def _names(cls, value: dict[str, Flow]) -> dict[str, Flow]:
        if bad := [name for name in value if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)]:
            raise ValueError(f"flow '{bad[0]}': letters, digits, _ and - only")
        return value

    @field_validator("splits")
    @classmethod
    def _sum(cls, value: dict[str, float]) -> dict[str, float]:
        if bad := [name for name in value if not re.fullmatch(r"\w+", name)]:
            raise ValueError(f"split '{bad[0]}': letters, digits and _ only")
        if not value or abs(sum(value.values()) - 1) > 1e-9 or min(value.values()) < 0:
            raise ValueError(f"the shares must be positive and sum to 1, they sum to {sum(value.values()):g}")
        return value


@dataclass(frozen=True)
class Places:
    """Where in the file each value stands: path of keys and indices -> (line, column), from 1."""

    file: str
    marks: Mapping[tuple[str | int, ...], tuple[int, int]]

    def of(self, path: Sequence[str | int]) -> str:
        """`file:line:column` of a value, or of the nearest thing around it that is in the file."""
        for end in range(len(path), -1, -1):
            if mark := self.marks.get(tuple(path[:end])):
                return f"{self.file}:{mark[0]}:{mark[1]}"
        return self.file


def _places(node: yaml.Node | None, path: tuple[str | int, ...], marks: dict[tuple[str | int, ...], Any]) -> None:
    if node is None:
        return
    marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            marks[(*path, key.value)] = (key.start_mark.line + 1, key.start_mark.column + 1)
            _places(value, (*path, key.value), marks)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _places(value, (*path, index), marks)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _interpolate(value: Any, variables: Mapping[str, str], path: tuple[str | int, ...], faults: list[Any]) -> Any:
    if isinstance(value, str):

        def text(match: re.Match[str]) -> str:
            if match[1] in variables:
                return str(variables[match[1]])
            faults.append((path, f"unknown variable '{match[1]}'; {nearest(match[1], list(variables))}"))
            return ""

        return _VARIABLE.sub(text, value)
    if isinstance(value, dict):
        return {key: _interpolate(item, variables, (*path, key), faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, variables, (*path, index), faults) for index, item in enumerate(value)]
    return value


def set_value(raw: dict[str, Any], assignment: str) -> None:
    """Applies one `--set a.b.0.c=value`; the value is YAML. Stages are named by index or by their name.

    Raises:
        RecipeError
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {assignment}: expected key=value, for example --set engine.shard_rows=8")
    keys = path.split(".")
    at: Any = raw
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(at, list):
            at, key = _in_list(at, key, assignment)
            if not last and at[key] is None:
                at[key] = {}
        elif not isinstance(at, dict):
            raise RecipeError(f"--set {assignment}: '{'.'.join(keys[:position])}' holds no keys")
        if last:
            try:
                at[key] = yaml.safe_load(text)
            except yaml.YAMLError:
                raise RecipeError(f"--set {assignment}: '{text}' is not valid YAML") from None
        elif isinstance(at, dict):
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
        else:
            at = at[key]


def _in_list(entries: list[Any], key: str, assignment: str) -> tuple[Any, Any]:
    """Container and key of a list's entry, by its number or by the name of the stage."""
    if key.isdigit() and int(key) < len(entries):
        return entries, int(key)
    for index, entry in enumerate(entries):
        if entry == key:
            entries[index] = {key: {}}
        if isinstance(entries[index], dict) and key in entries[index]:
            return entries[index], key
    names = [entry if isinstance(entry, str) else next(iter(entry), "") for entry in entries]
    raise RecipeError(f"--set {assignment}: no entry '{key}'; {nearest(key, names)}")


def _message(fault: Any, model_keys: Mapping[str, Sequence[str]]) -> str:
    kind, where = fault["type"], fault["loc"]
    if kind == "extra_forbidden":
        known = model_keys.get(".".join(str(p) for p in where[:-1] if not isinstance(p, int)), [])
        return f"unknown key '{where[-1]}'; {nearest(str(where[-1]), known)}"
    if kind == "missing":
        return f"'{where[-1]}' is missing"
    value = fault.get("input")
    shown = f" (it is {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{str(fault['msg']).removeprefix('Value error, ')}{shown}"


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def params_faults(error: ValidationError, model: type[BaseModel]) -> list[tuple[tuple[str | int, ...], str]]:
    """Faults of a stage's parameters: path below the stage, message."""
    return [(fault["loc"], _message(fault, {"": _keys(model)})) for fault in error.errors()]


def parse(text: str, file: str, overrides: Sequence[str] = ()) -> tuple[Recipe, Places]:
    """A recipe from YAML text.

    Raises:
        RecipeError
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise RecipeError(f"{place}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise RecipeError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: expected keys such as name, flows and dataset")
    marks: dict[tuple[str | int, ...], tuple[int, int]] = {}
    _places(node, (), marks)
    places = Places(file, marks)
    for assignment in overrides:
        set_value(raw, assignment)
    faults: list[tuple[Sequence[str | int], str]] = []
    variables = raw.get("vars") or {}
    if isinstance(variables, dict):
        raw = {**_interpolate({k: v for k, v in raw.items() if k != "vars"}, variables, (), faults), "vars": variables}
    model_keys = {
        "": _keys(Recipe),
        "engine": _keys(Engine),
        "dataset": _keys(Dataset),
        "review": _keys(Policy),
        **{f"flows.{name}": _keys(Flow) for name in (raw["flows"] if isinstance(raw.get("flows"), dict) else {})},
    }
    recipe = None
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        for fault in error.errors():
            faults.append((fault["loc"], _message(fault, model_keys)))
    if recipe and recipe.dataset:
        for index, name in enumerate(recipe.dataset.flows):
            if name not in recipe.flows:
                message = f"there is no flow '{name}'; {nearest(name, list(recipe.flows))}"
                faults.append((("dataset", "flows", index), message))
    if faults or recipe is None:
        lines = [f"{places.of(path)}: {'.'.join(map(str, path))}: {message}" for path, message in faults]
        raise RecipeError("\n".join(lines))
    return recipe, places


def load(file: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Places]:
    """A recipe from a file.

    Raises:
        RecipeError: it is not there, or something in it is wrong.
    """
    path = Path(file)
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise RecipeError(f"there is no recipe '{file}'; {nearest(str(file), near)}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    return parse(text, str(file), overrides)
