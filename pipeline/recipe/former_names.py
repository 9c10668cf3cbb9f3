"""Keys that were renamed: a recipe may still use the former name, and is warned once a key.

A class of parameters declares them as `former_names`, the present name to the former one. Hashes are computed with the
former names, so that a run that was begun before the renaming goes on without making anything again.
"""

import logging
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from rasura.pipeline.recipe.positions import KeyPath, Positions

log = logging.getLogger(__name__)

OnFault = Callable[[KeyPath, str], None]


def list_models(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """List the pydantic models that a type contains, each with how: "" itself, "list" or "dict" of them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    if origin is Annotated:
        return list_models(arguments[0])
    if origin in (Union, types.UnionType):
        return [entry for argument in arguments for entry in list_models(argument)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [(model, "dict") for model, how in list_models(arguments[1]) if not how]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [(model, "list") for argument in arguments for model, how in list_models(argument) if not how]
    return []


def find_model(root: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """Find the model that validates the value at a path; None where the path leads to no model.

    Examples:
        >>> from rasura.pipeline.recipe.schema import Recipe
        >>> find_model(Recipe, ("flows", "photos")).__name__
        'Flow'
    """
    model, index = root, 0
    while index < len(path):
        field = model.model_fields.get(str(path[index]))
        models = list_models(field.annotation) if field else []
        if not models:
            return None
        model, how = models[0]
        index += 2 if how else 1
    return model


def rename_keys(raw: Any, model: type[BaseModel], path: KeyPath, positions: Positions, on_fault: OnFault) -> Any:
    """Return a part of a recipe with present names in place of former ones.

    Args:
        raw: the part as YAML gives it.
        model: the model that will validate it.
        path: its place in the recipe.
        positions: places of all values; changed in place, so that they can be found under the present names.
        on_fault: receives path and message where a key is there under both names.
    """
    if not isinstance(raw, Mapping):
        return raw
    raw = dict(raw)
    for name, former in getattr(model, "former_names", {}).items():
        if former in raw:
            _rename(raw, name, former, path, positions, on_fault)
    for name, values in getattr(model, "former_values", {}).items():
        for value, former in values.items():
            if raw.get(name) == former:
                log.warning("%s: '%s' is called '%s' now", positions.locate((*path, name)), former, value)
                raw[name] = value
    for name, field in model.model_fields.items():
        for child, how in list_models(field.annotation):
            raw_child, child_path = raw.get(name), (*path, name)
            if how == "dict" and isinstance(raw_child, Mapping):
                raw[name] = {
                    key: rename_keys(entry, child, (*child_path, key), positions, on_fault)
                    for key, entry in raw_child.items()
                }
            elif how == "list" and isinstance(raw_child, Sequence) and not isinstance(raw_child, str):
                raw[name] = [
                    rename_keys(entry, child, (*child_path, index), positions, on_fault)
                    for index, entry in enumerate(raw_child)
                ]
            elif not how and name in raw:
                raw[name] = rename_keys(raw_child, child, child_path, positions, on_fault)
    return raw


def _rename(
    raw: dict[str, Any], name: str, former: str, path: KeyPath, positions: Positions, on_fault: OnFault
) -> None:
    """Rename one key. Where it is there under both names, a value from the command line replaces one of the file."""
    log.warning("%s: '%s' is called '%s' now", positions.locate((*path, former)), former, name)
    value = raw.pop(former)
    if name in raw:
        former_is_option = positions.comes_from_option((*path, former))
        if not former_is_option and not positions.comes_from_option((*path, name)):
            on_fault((*path, former), f"'{former}' is the former name of '{name}', and both are set; remove '{former}'")
        elif isinstance(value, Mapping) and isinstance(raw[name], Mapping):
            raw[name] = {**raw[name], **value} if former_is_option else {**value, **raw[name]}
        elif former_is_option:
            raw[name] = value
    else:
        raw[name] = value
    positions.rename((*path, former), name)


def dump_former_names(model: BaseModel, exclude: Any = None) -> dict[str, Any]:
    """Dump a model as JSON values under the names that its keys had first, in the order of its fields.

    Examples:
        >>> from rasura.stages.stage import Params
        >>> class CropParams(Params):
        ...     former_names = {"margin": "border"}
        ...     margin: int = 16
        >>> dump_former_names(CropParams())
        {'border': 16}
    """
    values = model.model_dump(mode="json", exclude=exclude)
    former_names = getattr(model, "former_names", {})
    former_values = getattr(model, "former_values", {})
    dump = {}
    for name, value in values.items():
        value = _dump_child(getattr(model, name), value)
        if isinstance(value, str):
            value = former_values.get(name, {}).get(value, value)
        dump[former_names.get(name, name)] = value
    return dump


def _dump_child(child: Any, dump: Any) -> Any:
    if isinstance(child, BaseModel):
        former = dump_former_names(child)
        names = getattr(child, "former_names", {})
        return {names.get(key, key): former[names.get(key, key)] for key in dump}
    if isinstance(child, Mapping) and isinstance(dump, Mapping):
        return {
            key: _dump_child(entry, value) for (key, value), entry in zip(dump.items(), child.values(), strict=True)
        }
    if isinstance(child, list | tuple) and isinstance(dump, list):
        return [_dump_child(entry, value) for entry, value in zip(child, dump, strict=True)]
    return dump
