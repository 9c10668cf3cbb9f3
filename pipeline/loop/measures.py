"""What a loop measures on its test set beside success and PSNR, and the networks that this needs."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rasura.networks.metrics.lpips import Lpips
from rasura.networks.metrics.remove_score import Features
from rasura.networks.onnx import network
from rasura.networks.weights import BadWeights
from rasura.pipeline.recipe.plan import file_sha256
from rasura.stages.segmenters import sam_onnx


class Measures(BaseModel):
    """`measures` of a loop's recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lpips: Path | None = Field(
        None, description="torchvision's AlexNet or VGG-16, .pth or .safetensors: LPIPS, where there is a true target."
    )
    remove: Path | None = Field(None, description="SAM's image encoder, .onnx: ReMOVE, which needs no truth.")
    candidates: bool = Field(
        False, description="Keep what the remover made of the test set as a run, rounds/<n>/test, for people to judge."
    )


class Opened:
    """The networks of the measures that were asked for. `weights`: sha256 of their files; `absent`: why one is not
    there."""

    def __init__(self, wanted: Measures) -> None:
        """Raises:
        BadWeights
        """
        self.lpips = Lpips(wanted.lpips) if wanted.lpips else None
        self.features = sam_features(wanted.remove) if wanted.remove else None
        paths = {"lpips": wanted.lpips, "remove": wanted.remove}
        self.weights = {name: file_sha256(path) for name, path in paths.items() if path}
        self.absent = {name: f"the recipe has no measures.{name}" for name, path in paths.items() if not path}


def sam_features(path: Path) -> Features:
    """SAM's image encoder as features of a picture, (h, w, 3) uint8 to (c, gh, gw): without the cells of its padding.

    Raises:
        BadWeights: it is not there, or no SAM encoder.
    """
    if not path.is_file():
        raise BadWeights(f"there is no file '{path}': ReMOVE needs SAM's image encoder as ONNX (measures.remove)")
    encoder = network(path)
    first = encoder.get_inputs()[0]
    if list(first.shape[1:]) != [3, sam_onnx.SIDE, sam_onnx.SIDE]:
        raise BadWeights(
            f"'{path}': input {first.shape} is not (n, 3, {sam_onnx.SIDE}, {sam_onnx.SIDE}): no SAM encoder"
        )

    def features(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found = np.asarray(encoder.run(None, {first.name: sam_onnx.prepared(picture)})[0][0], np.float32)
        height, width = (
            max(1, round(cells * side / max(picture.shape[:2])))
            for cells, side in zip(found.shape[1:], picture.shape[:2], strict=True)
        )
        return found[:, :height, :width]

    return features


def psnr(made: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_]) -> float:
    """dB over a region (h, w) bool of (h, w, 3) uint8 pictures; at most 60, so that a perfect answer has a mean."""
    error = ((made.astype(np.float64) - true)[region] ** 2).mean()
    return float(min(60.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def mean_of(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and its standard error; None without values."""
    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


def share_of(values: Sequence[bool]) -> tuple[float | None, float | None]:
    """Share in percent and its standard error; None without values."""
    share, error = mean_of([float(value) for value in values])
    return (None, None) if share is None or error is None else (100 * share, 100 * error)
