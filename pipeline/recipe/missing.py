"""What a stage needs before the start: its weights, its modules, and the inputs of a source."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rasura.manifests.errors import InputError, RasuraError, StorageError
from rasura.manifests.extras import can_import, describe_missing
from rasura.manifests.run_layout import PLAN
from rasura.manifests.storage import Store, is_remote
from rasura.manifests.uris import check_uri
from rasura.pipeline.recipe.load import Fault
from rasura.pipeline.recipe.positions import KeyPath
from rasura.stages.registry import STAGES, find_stage
from rasura.stages.sources.listing import MissingInput, expand_path, find_files
from rasura.stages.stage import Source, Stage


class RunInInputs(InputError):
    """A run that would be written among the pictures that it reads."""


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


def check_run_folder(run: Store, sources: Iterable[Source]) -> None:
    """Check that a run is not written among the files that it reads.

    Raises:
        RunInInputs: its folder is the input folder of a source, or one that is in there and has files already.
    """
    if run.local is None or not run.local.is_dir() or run.exists(PLAN) or not any(run.local.iterdir()):
        return
    folder = run.local.resolve()
    for source in sources:
        for name in source.input_paths:
            path = getattr(source.params, name, None)
            if isinstance(path, str) and not is_remote(path):
                place = Path(expand_path(path)).resolve()
                if place in (folder, *folder.parents) or (place.is_file() and place.parent == folder):
                    raise RunInInputs(
                        f"the run cannot be written into '{run.uri}': it has the files that source '{source.name}' "
                        f"reads ('{path}'); name another folder with --into"
                    )


def input_exists(path: str) -> bool:
    """Return whether a local file or folder is there, or a glob matches something."""
    try:
        return Path(expand_path(path)).exists() or bool(find_files(path))
    except MissingInput:
        return False


def find_givers(name: str, missing: Sequence[str], chain: Sequence[Stage]) -> str:
    """Describe which stage gives what another one lacks: one of its flow that comes too late, or one of Rasura's.

    Args:
        name: of the stage that lacks columns.
        missing: the columns.
        chain: the stages of its flow.

    Returns:
        The end of a sentence; empty where none gives them.
    """
    for column in missing:
        for stage in chain:
            if column in stage.gives and column not in stage.needs:
                return f"; '{stage.name}' gives {column}: put it before '{name}'"
    hints = []
    for column in missing:
        classes = {other: find_stage(other) for other in STAGES}
        if givers := [other for other, cls in classes.items() if column in cls.gives and column not in cls.needs]:
            hints.append(f"; {column} is given by {', '.join(givers)}")
    return "".join(hints)


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
