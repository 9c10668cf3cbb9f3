"""The Python API on single pictures: `rasura.effects` and `rasura.remove`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_content_id, compute_seed
from rasura.manifests.images import RGB, Mask
from rasura.removers.base import Remover
from rasura.removers.base import remove as remove_from_batch
from rasura.removers.registry import open_remover
from rasura.stages.registry import find_stage
from rasura.stages.stage import Kept, Record, Rejected

Picture = npt.NDArray[np.uint8] | Image.Image
"""(h, w, 3) uint8 RGB, or any PIL image."""


@dataclass(frozen=True)
class Effects:
    """A before/after pair, taken apart.

    Args:
        source: (h, w, 3) uint8: the picture with the object, as it was given.
        target: (h, w, 3) uint8: without the object and its effects; outside `foreground_mask` equal to `source`.
        clean: (h, w, 3) uint8: the given picture without the object, registered to `source`.
        object_mask: (h, w) bool, True on the object (M_o).
        effect_mask: (h, w) bool, True on its shadow, reflection and bounced light (M_e).
        foreground: (h, w, 4) uint8, straight alpha: object and shadow (Eq. 1 of OBER); zero outside of its box.
        light: (h, w, 3) uint8: the light that reflections and bounces add.
        measurements: what was measured on the way, by the names of the columns in a run.
    """

    source: RGB
    target: RGB
    clean: RGB
    object_mask: Mask
    effect_mask: Mask
    foreground: npt.NDArray[np.uint8]
    light: RGB
    measurements: Mapping[str, Any]

    @property
    def foreground_mask(self) -> Mask:
        """(h, w) bool: the object with its effects, M_fg = M_o ∪ M_e."""
        return self.object_mask | self.effect_mask


def _to_rgb(picture: Picture, name: str) -> RGB:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"), np.uint8)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            f"{name} is {array.shape} {array.dtype}; expected (height, width, 3) uint8 RGB, or a PIL image"
        )
    return array


def _to_mask(mask: npt.NDArray[Any] | Image.Image, shape: tuple[int, ...]) -> Mask:
    array = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
    if array.shape != shape:
        raise InputError(f"mask is {array.shape}; expected {shape}, the height and width of the picture")
    if array.dtype == np.bool_:
        return array
    values = np.unique(array)
    if not np.isin(values, (0, 1, 255)).all():
        raise InputError(
            f"mask holds values other than 0, 1 and 255, for example {values[~np.isin(values, (0, 1, 255))][0]}; "
            "give a mask of two values, in which 1 or 255 is what to remove"
        )
    return array > 0


def _run_stages(record: Record, stages: Sequence[tuple[str, Mapping[str, Any]]]) -> Record:
    for name, params in stages:
        stage_type = find_stage(name)
        stage = stage_type(stage_type.Params(**params))
        stage.setup()
        (outcome,) = stage.process([record])
        if isinstance(outcome, Rejected):
            raise InputError(f"the pair was rejected by stage '{name}': {outcome.reason} ({outcome.detail})")
        assert isinstance(outcome, Kept)
        record = {**record, **outcome.records[0]}
    return record


def effects(
    input: Picture, gt: Picture, *, mask: npt.NDArray[Any] | Image.Image | None = None, **segment: Any
) -> Effects:
    """Take a before/after pair of a fixed camera apart: masks, triplet and layers.

    Args:
        input: the picture with the object.
        gt: the same scene without it, of the same size.
        mask: the object's mask, (h, w) bool or 0/255; drawn from the pair where None.
        segment: parameters of stage `segment` (`rasura stages segment`); GrabCut, which needs no weights, by default.

    Returns:
        Masks, target, foreground and measurements.

    Raises:
        InputError: the pictures do not fit each other, or nothing in them differs.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> gt = rng.normal(150, 3, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        >>> scene = rng.normal(150, 3, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        >>> scene[40:70, 60:90] = (200, 30, 30)
        >>> scene[70:78, 60:100] //= 2
        >>> result = effects(scene, gt)
        >>> bool(result.object_mask[55, 75]), bool(result.effect_mask[74, 70])
        (True, True)
        >>> bool((result.target[~result.foreground_mask] == scene[~result.foreground_mask]).all())
        True
    """
    source, clean = _to_rgb(input, "input"), _to_rgb(gt, "gt")
    if source.shape != clean.shape:
        raise InputError(f"input is {source.shape[:2]} and gt {clean.shape[:2]} (height, width); they must be equal")
    record: Record = {"id": compute_content_id(source.tobytes(), clean.tobytes()), "input": source, "gt": clean}
    if mask is not None:
        record["given_mask"] = _to_mask(mask, source.shape[:2])
    pair = _run_stages(record, [("pair", {}), ("effects", {}), ("segment", {"backend": "grabcut", **segment})])
    layers = _run_stages(pair, [("matte", {})])
    triplet = _run_stages(pair, [("capture", {})])
    x0, y0, x1, y1 = (int(value) for value in layers["foreground_box"])
    foreground = np.zeros((*source.shape[:2], 4), np.uint8)
    light = np.zeros_like(source)
    foreground[y0:y1, x0:x1] = layers["foreground"]
    light[y0:y1, x0:x1] = layers["foreground_light"]
    pictures = {name for name, value in layers.items() if isinstance(value, np.ndarray)}
    return Effects(
        source,
        triplet["target"],
        pair["gt"],
        pair["object_mask"],
        triplet["foreground_mask"] & ~pair["object_mask"],
        foreground,
        light,
        {name: value for name, value in layers.items() if name not in {*pictures, "id"}},
    )


def remove(
    image: Picture,
    mask: npt.NDArray[Any] | Image.Image,
    remover: str | Remover = "telea",
    *,
    seed: int = 0,
    dilation: int = 8,
    context: float = 0.75,
) -> RGB:
    """Return a picture without what a mask covers. Pixels outside the grown mask stay as they are, bit by bit.

    Args:
        image: (h, w, 3) uint8 RGB, or a PIL image.
        mask: (h, w) bool, or 0/255; True (255) is what to remove.
        remover: a name (`rasura stages inpaint`), `module:Class`, or a remover.
        seed: the same seed gives the same fill.
        dilation: px by which the mask grows before it is filled.
        context: picture around the hole that the remover sees, in units of the hole's size.

    Raises:
        InputError: the mask does not fit the picture, is empty, or covers all of it.
        UnknownNameError: no remover has this name.

    Examples:
        >>> import numpy as np
        >>> image = np.full((64, 64, 3), 120, np.uint8)
        >>> image[28:36, 28:36] = 250
        >>> mask = np.zeros((64, 64), bool)
        >>> mask[26:38, 26:38] = True
        >>> image[32, 32, 0], bool(remove(image, mask, remover="telea").max() < 130)
        (np.uint8(250), True)
    """
    picture = _to_rgb(image, "image")
    hole = _to_mask(mask, picture.shape[:2])
    chosen = open_remover(remover, {}) if isinstance(remover, str) else remover
    chosen.setup()
    own_seed = compute_seed(seed, chosen.name, compute_content_id(picture.tobytes()))
    try:
        return remove_from_batch(chosen, [picture], [hole], [own_seed], dilation, context)[0]
    except ValueError as error:
        raise InputError(f"nothing can be removed: {error}") from error
