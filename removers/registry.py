"""Removers by the name that a recipe gives them.

A name is one of `REMOVERS`, one under a recipe's `models`, or `package.module:Class` for a remover of one's own.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rasura.manifests.errors import RecipeError, UnknownNameError
from rasura.manifests.spelling import suggest
from rasura.networks.weights import resolve
from rasura.removers import opencv
from rasura.removers.base import Capability, Remover
from rasura.removers.diffusion import (
    any_pipeline,
    brushnet,
    catdiffusion,
    moebius,
    objectclear,
    pixelhacker,
    powerpaint,
    rorem,
    sd15,
)
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import Files
from rasura.removers.generators import lama, migan
from rasura.removers.generators.generator import GeneratorOptions
from rasura.removers.model_params import ModelParams as ModelParams
from rasura.removers.remote import comfyui, image_edits
from rasura.removers.remote.remote import RemoteOptions

REMOVERS: Mapping[str, Callable[[], Remover]] = {"telea": opencv.telea, "ns": opencv.ns}
"""Removers that need no weights."""


TINY = Capability("remover", 64, False, "of its triplets", name="tiny", steps=1, needs_weights=True)
"""What `rasura.removers.tiny` is, which is not imported for it: it needs torch."""
TINY_BATCH = 1


class UnknownRemover(UnknownNameError, RecipeError):
    """A recipe's name of no remover, or a class of one's own that cannot be imported."""


DIFFUSION_KEYS = (
    *("base", "revision", "unet", "unet_revision", "vae", "lora", "prompts", "size", "steps", "guidance", "prompt"),
    *("negative", "start", "source", "batch", "device", "dtype", "compile"),
)
"""Keys that every network of the denoising loop has."""


class Network(NamedTuple):
    """A kind of remover that needs weights.

    open: creates it by its name and its entry under `models`.
    keys: those of `ModelParams` that it takes. needs: those without which it cannot run.
    defaults: values of keys that are not set, those of its authors.
    note: what to know before weights are looked for; empty where they are published.
    """

    capability: Capability
    open: Callable[[str, ModelParams], Remover]
    keys: tuple[str, ...]
    needs: tuple[str, ...]
    defaults: Mapping[str, Any]
    note: str = ""


def _describe_diffusion(
    capability: Capability,
    construct: Callable[[str, Files, Options], Remover],
    defaults: Options,
    keys: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    note: str = "",
) -> Network:
    """Describe a network of the denoising loop, with the keys that it has beside those of all of them."""

    def open_network(name: str, model: ModelParams) -> Remover:
        return construct(name, model.resolve_files(), model.override_options(defaults))

    capability = replace(capability, native_size=defaults.size, steps=defaults.steps)
    return Network(capability, open_network, DIFFUSION_KEYS + keys, ("base", *needs), vars(defaults), note)


def _describe_generator(capability: Capability, construct: Callable[[str, Path, GeneratorOptions], Remover]) -> Network:
    """Describe a network that fills a hole in one run, from one file."""
    defaults = GeneratorOptions()

    def open_network(name: str, model: ModelParams) -> Remover:
        set_here = {key: value for key in vars(defaults) if (value := getattr(model, key)) is not None}
        return construct(name, resolve(model.base or "", model.revision), replace(defaults, **set_here))

    capability = replace(capability, native_size=defaults.size)
    return Network(capability, open_network, ("base", "revision", *vars(defaults)), ("base",), vars(defaults))


def _open_tiny(name: str, model: ModelParams) -> Remover:
    from rasura.removers.tiny import TinyRemover

    return TinyRemover(name, resolve(model.base or ""), model.batch or TINY_BATCH)


def _describe_pipeline() -> Network:
    """Describe the pipelines of diffusers: their options are those that the pipeline has."""
    defaults = any_pipeline.PipelineOptions()

    def open_network(name: str, model: ModelParams) -> Remover:
        set_here = {key: value for key in vars(defaults) if (value := getattr(model, key)) is not None}
        return any_pipeline.any_pipeline(name, resolve(model.base or ""), replace(defaults, **set_here))

    keys = ("base", *vars(defaults))
    return Network(any_pipeline.CAPABILITY, open_network, keys, ("base", "pipeline"), vars(defaults))


def _describe_remote(
    capability: Capability, construct: Callable[[str, RemoteOptions], Remover], keys: tuple[str, ...]
) -> Network:
    """Describe a remover behind HTTP."""
    defaults = RemoteOptions()
    keys = ("url", *keys, "prompt", "size", "key_variable", "timeout_s", "attempts")

    def open_network(name: str, model: ModelParams) -> Remover:
        set_here = {key: value for key in keys if (value := getattr(model, key)) is not None}
        return construct(name, replace(defaults, **set_here))

    needs = ("url", "workflow") if "workflow" in keys else ("url",)
    return Network(replace(capability, native_size=defaults.size), open_network, keys, needs, vars(defaults))


_TEXT = ("tokenizer",)
_TASK = (*_TEXT, "text_encoder", "task", "fitting")
_BRANCH = ("brushnet", "brushnet_scale")
_TRAINED = ("semantic_inpainter", "image_encoder")

NETWORKS: Mapping[str, Network] = {
    "sdxl-inpaint": _describe_diffusion(rorem.SDXL_INPAINT, rorem.sdxl_inpaint, rorem.SDXL_OPTIONS, _TEXT),
    "rorem": _describe_diffusion(rorem.ROREM, rorem.rorem, rorem.ROREM_OPTIONS, _TEXT, needs=("unet",)),
    "rorem-lcm": _describe_diffusion(rorem.ROREM, rorem.rorem_lcm, rorem.LCM_OPTIONS, _TEXT, needs=("unet", "lora")),
    "objectclear": _describe_diffusion(objectclear.CAPABILITY, objectclear.objectclear, objectclear.OPTIONS),
    "sd15": _describe_diffusion(sd15.CAPABILITY, sd15.sd15, sd15.OPTIONS, _TEXT),
    "powerpaint": _describe_diffusion(powerpaint.CAPABILITY, powerpaint.powerpaint, powerpaint.OPTIONS, _TASK),
    "powerpaint-v2": _describe_diffusion(
        powerpaint.SECOND_CAPABILITY,
        powerpaint.powerpaint_v2,
        powerpaint.SECOND_OPTIONS,
        _TASK + _BRANCH,
        ("brushnet", "text_encoder"),
    ),
    "brushnet": _describe_diffusion(
        brushnet.CAPABILITY, brushnet.brushnet, brushnet.OPTIONS, _TEXT + _BRANCH, needs=("brushnet",)
    ),
    "brushnet-xl": _describe_diffusion(
        brushnet.XL_CAPABILITY, brushnet.brushnet_xl, brushnet.XL_OPTIONS, _TEXT + _BRANCH, needs=("brushnet",)
    ),
    "catdiffusion": _describe_diffusion(
        catdiffusion.CAPABILITY,
        catdiffusion.catdiffusion,
        catdiffusion.OPTIONS,
        _TEXT + _TRAINED,
        ("unet", *_TRAINED),
        catdiffusion.NO_WEIGHTS,
    ),
    "pixelhacker": _describe_diffusion(pixelhacker.CAPABILITY, pixelhacker.pixelhacker, pixelhacker.OPTIONS),
    "moebius": _describe_diffusion(moebius.CAPABILITY, moebius.moebius, moebius.OPTIONS),
    "lama": _describe_generator(lama.CAPABILITY, lama.lama),
    "migan": _describe_generator(migan.CAPABILITY, migan.migan),
    "diffusers": _describe_pipeline(),
    "tiny": Network(TINY, _open_tiny, ("base", "batch"), ("base",), {"batch": TINY_BATCH}),
    "image-edits": _describe_remote(image_edits.CAPABILITY, image_edits.image_edits, ("model",)),
    "comfyui": _describe_remote(comfyui.CAPABILITY, comfyui.comfyui, ("workflow",)),
}
"""Removers that need weights, by the kind that a recipe gives them."""


def check_keys(name: str, kind: str, model: ModelParams) -> None:
    """Check that a kind of network has the keys that are set for it, and that those that it needs are.

    Raises:
        ValueError: a key is not one of its, or is missing.

    Examples:
        >>> check_keys("mine", "rorem", ModelParams(base="sdxl", task="object-removal"))
        Traceback (most recent call last):
        ValueError: `models: mine`: rorem has no `task`; that is a key of powerpaint, powerpaint-v2
    """
    for key in model.list_keys():
        if key not in NETWORKS[kind].keys:
            others = [other for other, network in NETWORKS.items() if key in network.keys]
            raise ValueError(f"`models: {name}`: {kind} has no `{key}`; that is a key of {', '.join(others)}")
    for key in NETWORKS[kind].needs:
        if getattr(model, key) is None:
            note = f" ({NETWORKS[kind].note})" if NETWORKS[kind].note else ""
            what = ModelParams.model_fields[key].description
            raise ValueError(f"`models: {name}`: {kind} needs `{key}`: {what}{note}")


def check_removers(names: Sequence[str], models: Mapping[str, ModelParams]) -> None:
    """Check that a recipe's names can be opened, without opening them.

    Raises:
        ValueError: a name is unknown, is there twice, or has no model where it needs one.

    Examples:
        >>> check_removers(["telea", "my_package.mine:Mine"], {})
        >>> check_removers(["magic"], {})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no remover called magic; there are ns, telea, and under `models` brushnet, ...
    """
    unknown = sorted(name for name in set(names) - set(REMOVERS) - set(models) if ":" not in name)
    networks = ", ".join(sorted(NETWORKS))
    for name in unknown:
        if name in NETWORKS:
            raise ValueError(f"'{name}' {_describe_needs(name)}")
    if unknown:
        raise ValueError(
            f"no remover called {', '.join(unknown)}; there are {', '.join(sorted(REMOVERS))}, and under `models` "
            f"{networks}; one of your own is named module:Class"
        )
    if len(set(names)) < len(names):
        raise ValueError("a remover is named twice: its candidates would have one id")
    for name, model in models.items():
        if name not in names:
            raise ValueError(f"`models` has '{name}', which is not among `removers`")
        if (model.kind or name) not in NETWORKS or name in REMOVERS:
            raise ValueError(f"`models: {name}` needs a `kind`: {networks}")
        check_keys(name, model.kind or name, model)


def check_entries(names: Any) -> Any:
    """Check that a recipe's list of removers has no options in it, and return it.

    Raises:
        ValueError: an entry has some; the text says where they belong.

    Examples:
        >>> check_entries([{"lama": {"base": "big-lama.pt"}}])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: `removers` has names alone: write `removers: [lama]` and `models: {lama: {base: …}}`
    """
    for entry in names if isinstance(names, list | tuple) else ():
        if isinstance(entry, Mapping) and len(entry) == 1:
            name, options = next(iter(entry.items()))
            inner = ", ".join(f"{key}: …" for key in options) if isinstance(options, Mapping) else "…"
            text = f"write `removers: [{name}]` and `models: {{{name}: {{{inner}}}}}`"
            raise ValueError(f"`removers` has names alone: {text}")
    return names


def open_remover(name: str, models: Mapping[str, ModelParams]) -> Remover:
    """Open a remover by name. It is not set up yet: call its `weights` and `setup`.

    Args:
        name: a name of `REMOVERS` or of `models`, or `package.module:Class`; the class is called without arguments.
        models: networks of the recipe, by the names that it gives them.

    Raises:
        UnknownRemover: nothing has that name, or the class cannot be imported.
        BadWeights: files of the network are missing.
        ValueError: the network cannot be used with these options.

    Examples:
        >>> open_remover("telea", {}).name
        'telea'
    """
    if name in REMOVERS:
        return REMOVERS[name]()
    if name in models:
        model = models[name]
        if (kind := model.kind or name) not in NETWORKS:
            raise UnknownRemover(f"`models: {name}` needs a `kind`: {', '.join(sorted(NETWORKS))}")
        check_keys(name, kind, model)
        return NETWORKS[kind].open(name, model)
    if ":" not in name:
        if name in NETWORKS:
            raise UnknownRemover(f"remover '{name}' {_describe_needs(name)}")
        raise UnknownRemover(f"no remover called '{name}'; {suggest(name, [*REMOVERS, *models, *NETWORKS])}")
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownRemover(f"remover '{name}' cannot be imported: {error}") from error
    if not callable(cls):
        raise UnknownRemover(f"remover '{name}': it is a {type(cls).__name__}, and not a class of a remover")
    try:
        remover = cls()
    except (TypeError, ValueError) as error:
        raise UnknownRemover(f"remover '{name}' cannot be imported: {error}") from error
    if not isinstance(remover, Remover):
        raise UnknownRemover(f"'{name}' is no remover: it lacks {', '.join(_list_missing(remover))}")
    return remover


def _describe_needs(kind: str) -> str:
    what = "weights" if NETWORKS[kind].capability.needs_weights else "a server"
    keys = " and ".join(f"`{key}`" for key in NETWORKS[kind].needs)
    note = f"; {NETWORKS[kind].note}" if NETWORKS[kind].note else ""
    return f"needs {what}: add `models: {kind}:` with {keys}{note}"


def _list_missing(remover: object) -> list[str]:
    return [name for name in ("name", "capability", "weights", "setup", "fill") if not hasattr(remover, name)]
