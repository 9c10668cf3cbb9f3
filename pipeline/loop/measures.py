"""The measures of a loop's test set: their settings, and means with their errors."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Measures(BaseModel):
    """The measures in a loop's recipe that need networks, and whether people judge the test pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lpips: Path | None = Field(
        None, description="torchvision's AlexNet or VGG-16, .pth or .safetensors: LPIPS, where there is a true target."
    )
    remove: Path | None = Field(None, description="SAM's image encoder, .onnx: ReMOVE, which needs no truth.")
    rc_s: Path | None = Field(None, description="DINOv2, .onnx: RC-S, which needs no truth.")
    candidates: bool = Field(
        False, description="Has no effect any more: the test pictures are always a run, which people can judge."
    )

    def list_files(self) -> dict[str, str]:
        """Return the networks' files by the names of the measures that need them."""
        files = {"lpips": self.lpips, "remove": self.remove, "rc_s": self.rc_s}
        return {name: str(file) for name, file in files.items() if file}


def compute_mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Compute a mean and its standard error; None and None without values.

    Examples:
        >>> compute_mean([1.0, 3.0, 1.0, 3.0]), compute_mean([])
        ((2.0, 0.5), (None, None))
    """
    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


def compute_share(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Compute a share in percent and its standard error; None and None without values.

    Examples:
        >>> compute_share([True, False, True, False])
        (50.0, 25.0)
    """
    share, error = compute_mean([float(value) for value in values])
    return (None, None) if share is None or error is None else (100 * share, 100 * error)
