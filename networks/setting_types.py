"""Types of the settings of trainings: numbers with their bounds, which a recipe and `--set` are checked against."""

from typing import Annotated, Any, Literal

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
