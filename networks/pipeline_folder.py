"""Folders of diffusers' pipelines: what they hold, which class runs them, and how their networks are opened.

Only code of diffusers and transformers is run, never that of a model's folder; only safetensors are read.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rasura.manifests.extras import can_import, describe_missing
from rasura.manifests.spelling import suggest
from rasura.networks.pretrained import (
    TEXT_SPARE,
    MissingWeights,
    get_variant,
    list_diffusers_files,
    open_checked,
    open_diffusers,
    quiet,
    read_settings,
    refuse_others,
)

CALL = ("image", "mask_image", "generator")
"""Arguments that a pipeline has to take."""


def find_pipeline(name: str) -> Any:
    """Return the class of an inpainting pipeline of diffusers.

    Raises:
        MissingWeights: diffusers is not installed, has no class of that name, or the class does not inpaint.
    """
    if not can_import("diffusers"):
        raise MissingWeights(describe_missing("diffusers"))
    import diffusers

    cls = getattr(diffusers, name, None)
    if not isinstance(cls, type) or not name.endswith("Pipeline"):
        others = [
            other for other in dir(diffusers) if other.endswith("Pipeline") and ("npaint" in other or "Fill" in other)
        ]
        raise MissingWeights(f"diffusers {diffusers.__version__} has no pipeline '{name}'; {suggest(name, others)}")
    if needed := getattr(cls, "_backends", None):  # a stand-in, which only says what is not installed
        missing = [module for module in needed if not can_import(module)] or list(needed)
        raise MissingWeights(f"'{name}': {describe_missing(missing[0])}")
    parameters = inspect.signature(cls.__call__).parameters
    if lacking := [argument for argument in CALL if argument not in parameters]:
        raise MissingWeights(f"'{name}' of diffusers does not inpaint: its call takes no {' and no '.join(lacking)}")
    return cls


def get_system(pipeline: str) -> str:
    """Return the system that a pipeline belongs to: the name of its class without the task.

    Examples:
        >>> get_system("StableDiffusion3InpaintPipeline"), get_system("StableDiffusion3Pipeline")
        ('StableDiffusion3', 'StableDiffusion3')
        >>> get_system("FluxFillPipeline")
        'FluxFill'
    """
    return pipeline.replace("Inpainting", "").replace("Inpaint", "").removesuffix("Pipeline")


def read_index(folder: Path) -> dict[str, Any]:
    """Return the table of a pipeline's folder: `_class_name`, and [library, class] of each component.

    Raises:
        MissingWeights: the folder has none, or it names code that is not part of diffusers or transformers.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise MissingWeights(f"'{folder}' has no model_index.json: it is no folder of a diffusers pipeline")
    index = read_settings(path)
    if not isinstance(index.get("_class_name"), str):
        raise MissingWeights(f"'{path}' names no pipeline of diffusers (`_class_name`); code of a model is never run")
    return index


def list_components(index: Mapping[str, Any]) -> dict[str, tuple[str, str] | None]:
    """Return the components of a pipeline's table: library and class, or None for one that it does without.

    Examples:
        >>> list_components({"_class_name": "P", "vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None]})
        {'vae': ('diffusers', 'AutoencoderKL'), 'safety_checker': None}
    """
    entries = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: (value[0], value[1]) if value[0] and value[1] else None for name, value in entries.items()}


def list_component_files(folder: Path, name: str, kind: str) -> dict[str, Path]:
    """Return the files of a component, by name: of a network its `config.json` and its safetensors.

    Args:
        folder: the pipeline's. kind: class of the component.

    Raises:
        MissingWeights: there are none, or only pickles.
    """
    place = folder / name
    if not place.is_dir():
        raise MissingWeights(f"'{folder}' lacks its component '{name}' ({kind}): there is no folder '{place}'")
    if "Tokenizer" in kind or kind.endswith(("Scheduler", "Processor", "Extractor", "ProcessorFast")):
        files = {path.name: path for path in sorted(place.iterdir()) if path.is_file()}
        if not files:
            raise MissingWeights(f"'{folder}' lacks its component '{name}' ({kind}): '{place}' is empty")
    else:
        files = list_diffusers_files(place)
    return {f"{name}/{file}": path for file, path in files.items()}


def check_library(folder: Path, name: str, library: str, kind: str) -> None:
    """Check that a component is code of diffusers or transformers, never of the model's folder.

    Raises:
        MissingWeights
    """
    from diffusers import pipelines

    if library not in ("diffusers", "transformers") and not hasattr(pipelines, library):
        raise MissingWeights(
            f"'{folder}': component '{name}' is {library}.{kind}, which is not part of diffusers or transformers: code "
            "of a model is never run"
        )


def open_network(folder: Path, library: str, kind: str, dtype: Any) -> Any:
    """Open a component that is a network, all of whose tensors have to be there; None where it is none.

    Raises:
        MissingWeights: it is of another class, or lacks tensors.
    """
    import diffusers
    import transformers

    if library == "diffusers" and issubclass(getattr(diffusers, kind), diffusers.ModelMixin):
        return open_diffusers(kind, folder, dtype)
    # the third place is that of models which a pipeline brings along, such as the safety checker
    module: Any = transformers if library == "transformers" else getattr(diffusers.pipelines, library, None)
    named = getattr(module, kind, None)
    if not isinstance(named, type) or not issubclass(named, transformers.PreTrainedModel):
        return None
    return open_checked(named, folder, (*TEXT_SPARE, "lm_head."), variant=get_variant(folder), dtype=dtype)


def open_pipeline(cls: Any, folder: Path, dtype: Any) -> Any:
    """Open a pipeline from its folder, on the CPU; all tensors of all its networks have to be there.

    Args:
        cls: the class, of `find_pipeline`.

    Raises:
        MissingWeights: a component lacks tensors, or is of another class.
    """
    components = list_components(read_index(folder))
    parameters = inspect.signature(cls.__init__).parameters
    with refuse_others(folder, f"a {cls.__name__}"), quiet(), quiet_diffusers():
        networks = {
            name: open_network(folder / name, *entry, dtype) if entry else None
            for name, entry in components.items()
            if entry or name in parameters
        }
        others = {name for name, network in networks.items() if network is None and components[name]}
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
        if "add_watermarker" in parameters:
            options["add_watermarker"] = False  # a mark in every picture would be learned
        passed = {name: network for name, network in networks.items() if name not in others}
        pipe = cls.from_pretrained(folder, **passed, **options)
        for name in others:
            if hasattr(component := getattr(pipe, name), "parameters"):  # the safety checker
                component.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Silence diffusers' progress bars and advice, which would interleave with the run's own progress."""
    from diffusers.utils import logging

    log: Any = logging  # it has no types
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
