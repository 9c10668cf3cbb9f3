"""`rasura removers`: the removers that a recipe can name, and the keys of each."""

from collections.abc import Iterator
from copy import copy

from pydantic import BaseModel, create_model
from pydantic_core import PydanticUndefined

from rasura.manifests.errors import UnknownNameError
from rasura.manifests.spelling import suggest
from rasura.removers.base import Capability
from rasura.removers.registry import NETWORKS, REMOVERS, ModelParams
from rasura.stages.registry import describe_parameters

HALF = 2
"""Bytes of a parameter in half precision."""


def describe_memory(capability: Capability) -> str:
    """Describe the accelerator memory that a remover's weights take in half precision.

    Examples:
        >>> describe_memory(Capability("remover", 512, False, "CC0", parameters=943_189_227))
        '1.9 GB'
        >>> describe_memory(Capability("remover", 512, False, "CC0", parameters=51_000_000))
        '102 MB'
    """
    size = capability.parameters * HALF
    if not size:
        return "–"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def list_capabilities() -> dict[str, Capability]:
    """Return what every remover can do, by the name that a recipe gives it."""
    return {name: create().capability for name, create in REMOVERS.items()} | {
        name: network.capability for name, network in NETWORKS.items()
    }


def describe_removers() -> Iterator[str]:
    """Yield a line for each remover under a heading, in columns."""
    rows = [("name", "role", "size", "steps", "memory", "licence of the weights")]
    for name, capability in list_capabilities().items():
        size = f"{capability.native_size} px" if capability.native_size else "any"
        licence = capability.licence
        if capability.non_commercial and "non-commercial" not in licence.lower():
            licence += " (non-commercial)"
        steps = str(capability.steps or "–")
        rows.append((name, capability.role, size, steps, describe_memory(capability), licence))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        columns = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        yield "  ".join((*columns, row[5]))
    yield ""
    yield "memory: of the weights in half precision; the pictures come on top. `rasura removers NAME` lists the keys."


def describe_remover(name: str) -> Iterator[str]:
    """Yield what a remover is, and its keys under a recipe's `models` with their defaults.

    Raises:
        UnknownNameError: nothing has that name.
    """
    capabilities = list_capabilities()
    if name not in capabilities:
        raise UnknownNameError(f"no remover called '{name}'; {suggest(name, capabilities)}")
    capability = capabilities[name]
    model = f"{capability.name}, {capability.role}" + (" of object and effects" if capability.effects else "")
    yield f"{name}: {model}"
    yield f"  licence of the weights: {capability.licence}"
    if capability.non_commercial:
        yield "  not for commercial use, neither are its results"
    if name not in NETWORKS:
        yield "  no weights, no keys: write the name in the list `removers`"
        return
    if NETWORKS[name].note:
        yield f"  {NETWORKS[name].note}"
    yield f"  memory of the weights in half precision: {describe_memory(capability)}"
    yield f"  keys under `models: {name}:`"
    yield from describe_parameters(make_key_model(name), "    ")


def make_key_model(name: str) -> type[BaseModel]:
    """Return a parameter model of a network's keys alone, with its own defaults."""
    network = NETWORKS[name]
    fields = {}
    for key, field in ModelParams.model_fields.items():
        if key in network.keys:
            own = copy(field)
            own.default = PydanticUndefined if key in network.needs else network.defaults.get(key, field.default)
            fields[key] = (field.annotation, own)
    model: type[BaseModel] = create_model(name, **fields)  # type: ignore[call-overload]
    return model
