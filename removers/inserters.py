"""Inserters by the name that a recipe gives them: models that paint what a text says into a hole."""

from collections.abc import Mapping, Sequence
from typing import Any

from rasura.removers.base import Inserter
from rasura.removers.registry import ModelParams, UnknownRemover, open_remover

INSERTING: Mapping[str, Mapping[str, Any]] = {
    "powerpaint": {"task": "text-guided", "guidance": 7.5},
    "powerpaint-v2": {"task": "text-guided", "guidance": 7.5},
    "brushnet": {},
    "brushnet-xl": {},
    # a hole that begins as its own surroundings stays one
    "sdxl-inpaint": {"start": "noise"},
    "sd15": {},
    "catdiffusion": {},
    "diffusers": {"source": "masked"},
    "image-edits": {},
    "comfyui": {},
}
"""Kinds of networks that paint by a text, and their defaults where they differ from those of removal."""


def check_inserters(names: Sequence[str], models: Mapping[str, ModelParams]) -> None:
    """Check that a recipe's names are those of inserters, without opening them.

    Raises:
        ValueError: a name has no model, is there twice, or names a model that paints nothing by a text.

    Examples:
        >>> check_inserters(["powerpaint"], {"powerpaint": ModelParams(base="sd15")})
        >>> check_inserters(["lama"], {"lama": ModelParams(base="big-lama.pt")})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: `models: lama`: lama paints nothing by a text; inserters are brushnet, ...
    """
    if len(set(names)) < len(names):
        raise ValueError("an inserter is named twice: its pictures would have one id")
    if unused := sorted(set(models) - set(names)):
        raise ValueError(f"`models` has '{unused[0]}', which is not among `inserters`")
    kinds = ", ".join(sorted(INSERTING))
    for name in names:
        if ":" in name:
            continue
        if name not in models:
            raise ValueError(f"inserter '{name}' needs its files: add `models: {name}:` with a `kind` of {kinds}")
        if (kind := models[name].kind or name) not in INSERTING:
            raise ValueError(f"`models: {name}`: {kind} paints nothing by a text; inserters are {kinds}")


def open_inserter(name: str, models: Mapping[str, ModelParams], texts: Sequence[str]) -> Inserter:
    """Open an inserter by name. It is not set up yet: call its `weights` and `setup`.

    Args:
        name: of `models`, or `package.module:Class` for one of your own.
        models: networks of the recipe, by the names that it gives them.
        texts: all that it will paint.

    Raises:
        UnknownRemover: nothing has that name, or it is no inserter.
        BadWeights: files of the network are missing.
        ValueError: the network cannot be used with these options, or removes with them.
    """
    own = models.get(name)
    if own is not None:
        defaults = INSERTING.get(own.kind or name, {})
        unset = {key: value for key, value in defaults.items() if getattr(own, key) is None}
        models = {**models, name: own.model_copy(update=unset)}
    inserter = open_remover(name, models)
    if not isinstance(inserter, Inserter):
        raise UnknownRemover(f"'{name}' is no inserter: it has no `set_texts` and `paint`")
    if inserter.capability.role != "inserter":
        raise ValueError(f"'{name}' removes with these options: leave out its `task`, or name text-guided")
    inserter.set_texts(texts)
    return inserter
