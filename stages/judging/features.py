"""SAM's image encoder as the features that ReMOVE compares."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from rasura.networks.metrics.remove_score import Features
from rasura.networks.onnx import open_session
from rasura.networks.weights import BadWeights
from rasura.stages.segmenters import sam_onnx


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
