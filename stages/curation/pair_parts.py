"""One pair taken apart without a run: its masks, its layers and its triplet, by the stages that a run has."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rasura.manifests.errors import InputError, RasuraError
from rasura.manifests.images import RGB, Mask
from rasura.stages.registry import find_stage
from rasura.stages.segment import SegmentParams
from rasura.stages.stage import Kept, Params, Record, Rejected

Layer = npt.NDArray[np.uint8]


class PairParts(NamedTuple):
    """What is in a pair.

    Attributes:
        target: (h, w, 3) uint8, without the object and its effects.
        clean: (h, w, 3) uint8, gt registered to input.
        object_mask, effect_mask: (h, w) bool, M_o and M_e.
        foreground: (h, w, 4) uint8, object and shadow, straight alpha.
        light: (h, w, 3) uint8, what reflections and bounces add.
        measurements: columns without pictures.
    """

    target: RGB
    clean: RGB
    object_mask: Mask
    effect_mask: Mask
    foreground: Layer
    light: RGB
    measurements: dict[str, Any]


def run_stages(record: Record, stages: Sequence[tuple[str, Params]]) -> Record:
    """Run a record through stages, by name and parameters.

    Raises:
        InputError: a stage rejects it, fails on it, or has parameters that do not go together.
    """
    for name, params in stages:
        try:
            stage = find_stage(name)(params)
        except ValueError as error:  # of two parameters, one without the other
            raise error if isinstance(error, RasuraError) else InputError(str(error)) from error
        try:
            stage.setup()
            (outcome,) = stage.process([record])
        except (RasuraError, ModuleNotFoundError):
            raise
        except Exception as error:  # in a run this would be a failed row
            raise InputError(f"stage '{name}' failed on the pair: {type(error).__name__}: {error}") from error
        if isinstance(outcome, Rejected):
            raise InputError(f"the pair was rejected by stage '{name}': {outcome.reason} ({outcome.detail})")
        assert isinstance(outcome, Kept)
        record = {**record, **outcome.records[0]}
    return record


def expand_layer(layer: Layer, box: Sequence[float], shape: tuple[int, ...]) -> Layer:
    """Return a layer (h, w, channels), which covers a box x0, y0, x1, y1 of a picture, at the picture's size.

    Examples:
        >>> expand_layer(np.ones((1, 2, 4), np.uint8), [1, 0, 3, 1], (2, 4, 3))[..., 3].tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    expanded = np.zeros((*shape[:2], layer.shape[2]), np.uint8)
    expanded[y0:y1, x0:x1] = layer
    return expanded


def take_apart(record: Record, segment: SegmentParams) -> PairParts:
    """Take a pair apart.

    Args:
        record: `id`, `input` and `gt` of one size, and maybe `given_mask`.
        segment: parameters of the stage that draws M_o.

    Raises:
        InputError: the pictures do not fit each other, or nothing in them differs.
        WeightsError: weights of the segmenter are missing or of another network.
    """
    defaults = {name: find_stage(name).Params() for name in ("pair", "effects", "matte", "capture")}
    pair = run_stages(record, [("pair", defaults["pair"]), ("effects", defaults["effects"]), ("segment", segment)])
    layers = run_stages(pair, [("matte", defaults["matte"])])
    triplet = run_stages(pair, [("capture", defaults["capture"])])
    shape, box = record["input"].shape, layers["foreground_box"]
    return PairParts(
        triplet["target"],
        pair["gt"],
        pair["object_mask"],
        triplet["foreground_mask"] & ~pair["object_mask"],
        expand_layer(layers["foreground"], box, shape),
        expand_layer(layers["foreground_light"], box, shape),
        {name: value for name, value in layers.items() if not isinstance(value, np.ndarray) and name != "id"},
    )
