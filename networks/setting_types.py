"""Types of the settings of trainings: numbers with their bounds, which a recipe and `--set` are checked against."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field


def _read_precision(value: Any) -> Any:
    """Return `no` for False: that is what YAML makes of the plain word no."""
    return "no" if value is False else value


Count = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=1, le=4096)]
WholeNumber = Annotated[int, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
"""Side of a square crop, px: a multiple of what one latent stands for, down to the network's lowest level."""
Precision = Annotated[Literal["no", "bf16", "fp16"], BeforeValidator(_read_precision)]
"""Precision of a training's arithmetic, as accelerate names it; `no` is float32."""


def contains_bool(value: Any) -> bool:
    """Return True for true and false, and for a list or table that has one of them.

    Examples:
        >>> contains_bool([1, True]), contains_bool([1, 0])
        (True, False)
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(contains_bool, value)))


def accepts_numbers_only(annotation: Any) -> bool:
    """Return True where the values of a type, or those that it contains, are numbers and never true or false."""
    kinds = list(_list_kinds(annotation))
    return any(kind is int or kind is float for kind in kinds) and not any(kind is bool for kind in kinds)


def _list_kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _list_kinds(argument)
