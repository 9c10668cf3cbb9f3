"""What a stage needs before the start: its weights, its modules, and the inputs of a source."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rasura.manifests.errors import RasuraError, StorageError
from rasura.manifests.extras import can_import, describe_missing
from rasura.manifests.storage import is_remote
from rasura.manifests.uris import check_uri
from rasura.pipeline.recipe.load import Fault
from rasura.pipeline.recipe.positions import KeyPath
from rasura.stages.sources.files import expand_path
from rasura.stages.stage import Source, Stage

TENSOR_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Endings of weights that only torch opens."""


def find_missing(stage: Stage, params: Mapping[str, Any], path: KeyPath) -> Iterator[Fault]:
    """Yield a fault for every file and every module that is missing.

    Args:
        stage: with its parameters.
        params: its parameters in the recipe.
        path: their place.
    """
    modules = dict.fromkeys(stage.required_modules())
    for name, file in stage.weights().items():
        if not Path(file).is_file():
            message = f"there is no file '{file}'"
            yield (*path, name) if name in params else find_value(params, path, message), message
        elif Path(file).suffix in TENSOR_SUFFIXES:
            modules["torch"] = None
    for name in getattr(stage, "input_paths", ()):
        value = getattr(stage.params, name, None)
        if not isinstance(value, str):
            continue
        try:
            check_uri(value)
        except StorageError as error:
            yield (*path, name), str(error)
        else:
            if not is_remote(value) and not input_exists(value):
                yield (*path, name), f"there is no file or folder '{value}'"
    for module in modules:
        if not can_import(module):
            yield path[:-1], f"stage '{stage.name}': {describe_missing(module)}"


def count_inputs(source: Source, params: Mapping[str, Any], path: KeyPath, faults: list[Fault]) -> int | None:
    """Count what a source will read; None where that is unknown, or where there is a fault, which is collected."""
    try:
        inputs = source.list_inputs()
    except (RasuraError, FileNotFoundError, PermissionError) as error:
        place = find_value(params, path, str(error))
        if place == path and source.input_paths:
            place = (*path, source.input_paths[0])
        faults.append((place, str(error)))
        return None
    return None if inputs is None else len(inputs)


def input_exists(path: str) -> bool:
    """Return whether a local file or folder is there, or a glob matches something."""
    path = expand_path(path)
    return Path(path).exists() or next(glob.iglob(path, recursive=True), None) is not None


def find_value(params: Any, path: KeyPath, message: str) -> KeyPath:
    """Find the parameter whose value a message quotes; the place of all parameters where none is quoted."""

    def walk(value: Any, keys: KeyPath) -> Iterator[KeyPath]:
        if isinstance(value, Mapping):
            for key, entry in value.items():
                yield from walk(entry, (*keys, key))
        elif isinstance(value, list | tuple):
            for index, entry in enumerate(value):
                yield from walk(entry, (*keys, index))
        elif isinstance(value, str) and value and (f"'{value}'" in message or f"'{Path(value)}'" in message):
            yield keys

    return next(walk(params, path), path)
