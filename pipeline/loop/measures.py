"""The measures of a loop's test set: PSNR, means with their errors, and the networks of LPIPS and ReMOVE."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rasura.networks.metrics.lpips import Lpips
from rasura.networks.metrics.remove_score import Features
from rasura.networks.onnx import open_session
from rasura.networks.weights import BadWeights
from rasura.pipeline.recipe.specs import file_sha256
from rasura.stages.segmenters import sam_onnx

MOST_PSNR = 60.0
"""PSNR of a perfect picture, dB, so that a mean is finite."""


class Measures(BaseModel):
    """The measures in a loop's recipe that need networks, and whether people judge the test pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lpips: Path | None = Field(
        None, description="torchvision's AlexNet or VGG-16, .pth or .safetensors: LPIPS, where there is a true target."
    )
    remove: Path | None = Field(None, description="SAM's image encoder, .onnx: ReMOVE, which needs no truth.")
    candidates: bool = Field(
        False, description="Keep the filled test pictures as a run, rounds/<n>/test, so that people can judge them."
    )


class MeasureNetworks:
    """The networks of the measures that a recipe has.

    lpips, features: None where the recipe has no such measure. weights: sha256 of their files. reasons: of measures
    that are missing, by name.

    Raises:
        BadWeights: a file is missing or is no such network.
    """

    def __init__(self, measures: Measures) -> None:
        self.lpips = Lpips(measures.lpips) if measures.lpips else None
        self.features = load_sam_features(measures.remove) if measures.remove else None
        paths = {"lpips": measures.lpips, "remove": measures.remove}
        self.weights = {name: file_sha256(path) for name, path in paths.items() if path}
        self.reasons = {name: f"the recipe has no measures.{name}" for name, path in paths.items() if not path}


def load_sam_features(path: Path) -> Features:
    """Load SAM's image encoder as a function from a picture (h, w, 3) uint8 to features (c, gh, gw).

    The cells of SAM's padding are cut off.

    Raises:
        BadWeights: it is not there, or no SAM encoder.
    """
    if not path.is_file():
        raise BadWeights(f"there is no file '{path}': ReMOVE needs SAM's image encoder as ONNX (measures.remove)")
    encoder = open_session(path)
    first = encoder.get_inputs()[0]
    if list(first.shape[1:]) != [3, sam_onnx.SIDE, sam_onnx.SIDE]:
        raise BadWeights(
            f"'{path}': input {first.shape} is not (n, 3, {sam_onnx.SIDE}, {sam_onnx.SIDE}): no SAM encoder"
        )

    def compute_features(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        features = np.asarray(encoder.run(None, {first.name: sam_onnx.prepare_input(picture)})[0][0], np.float32)
        height, width = (
            max(1, round(cells * side / max(picture.shape[:2])))
            for cells, side in zip(features.shape[1:], picture.shape[:2], strict=True)
        )
        return features[:, :height, :width]

    return compute_features


def compute_mean(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Compute a mean and its standard error; None and None without values.

    Examples:
        >>> compute_mean([1.0, 3.0, 1.0, 3.0]), compute_mean([])
        ((2.0, 0.5), (None, None))
    """
    if not len(values):
        return None, None
    return float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))


def compute_share(values: Sequence[bool]) -> tuple[float | None, float | None]:
    """Compute a share in percent and its standard error; None and None without values.

    Examples:
        >>> compute_share([True, False, True, False])
        (50.0, 25.0)
    """
    share, error = compute_mean([float(value) for value in values])
    return (None, None) if share is None or error is None else (100 * share, 100 * error)
