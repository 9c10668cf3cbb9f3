"""The Python API on single pictures: `rasura.effects` and `rasura.remove`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura._checks import WrongType, describe_value, explain_missing_packages, read_options
from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_content_id, compute_seed
from rasura.manifests.images import RGB, Mask
from rasura.manifests.spelling import suggest
from rasura.removers.base import Remover
from rasura.removers.base import remove as remove_from_batch
from rasura.removers.registry import NETWORKS, REMOVERS, ModelParams, open_remover
from rasura.stages.curation.pair_parts import take_apart
from rasura.stages.inpaint import InpaintParams
from rasura.stages.segment import SegmentParams
from rasura.stages.stage import Record

Picture = npt.NDArray[np.uint8] | Image.Image
"""(h, w, 3) uint8 RGB, or any PIL image."""


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        height, width = self.object_mask.shape
        parts = [f"object {self.object_mask.mean():.1%}", f"effects {self.effect_mask.mean():.1%}"]
        return f"Effects({width} × {height} px: {', '.join(parts)}, {len(self.measurements)} measurements)"


def _to_array(picture: Any, name: str) -> npt.NDArray[Any]:
    if isinstance(picture, str | bytes | PurePath):
        raise WrongType(f"{name} is {describe_value(picture)}, not a picture; open it with PIL.Image.open({picture!r})")
    try:
        array = np.asarray(picture)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise WrongType(f"{name} is {describe_value(picture)}; give a numpy array or a PIL image")
    if array.size == 0:
        raise InputError(f"{name} has no pixels: its shape is {array.shape}")
    return array


def _to_rgb(picture: Picture, name: str) -> RGB:
    array = _to_array(picture.convert("RGB") if isinstance(picture, Image.Image) else picture, name)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            f"{name} is {array.shape} {array.dtype}; expected (height, width, 3) uint8 RGB, or a PIL image"
        )
    return array


def _to_mask(mask: npt.NDArray[Any] | Image.Image, shape: tuple[int, ...]) -> Mask:
    array = _to_array(mask.convert("L") if isinstance(mask, Image.Image) else mask, "mask")
    if array.shape != shape:
        raise InputError(f"mask is {array.shape}; expected {shape}, the height and width of the picture")
    values = np.unique(array)
    if not np.isin(values, (0, 1, 255)).all():
        raise InputError(
            f"mask holds values other than 0, 1 and 255, for example {values[~np.isin(values, (0, 1, 255))][0]}; "
            "give a mask of two values, in which 1 or 255 is what to remove"
        )
    if not values.any():
        raise InputError("mask is empty: no pixel of it is True (1, 255)")
    return array > 0


def effects(
    input: Picture, gt: Picture, *, mask: npt.NDArray[Any] | Image.Image | None = None, **segment: Any
) -> Effects:
    """Take a before/after pair of a fixed camera apart: masks, triplet and layers.

    Args:
        input: the picture with the object.
        gt: the same scene without it, of the same size.
        mask: the object's mask, (h, w) bool or 0/255; drawn from the pair where None.
        segment: parameters of stage `segment` (`rasura stages segment`), such as `backend="sam", weights="sam.pth"`;
            GrabCut, which needs no weights, by default.

    Returns:
        Masks, target, foreground and measurements.

    Raises:
        InputError: the pictures do not fit each other, nothing in them differs, or an option of `segment` is wrong.
        WeightsError: weights of the segmenter are missing or of another network.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> gt = rng.normal(150, 3, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        >>> scene = rng.normal(150, 3, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        >>> scene[40:70, 60:90] = (200, 30, 30)
        >>> scene[70:78, 60:100] //= 2
        >>> result = effects(scene, gt)
        >>> result
        Effects(160 × 120 px: object 4.6%, effects 4.3%, 26 measurements)
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
    segment_params = read_options(SegmentParams, {"backend": "grabcut", **segment}, "effects")
    with explain_missing_packages():
        return Effects(source, *take_apart(record, segment_params))


def _open_remover(remover: str | Remover, model: Mapping[str, Any]) -> Remover:
    if not isinstance(remover, str):
        if isinstance(remover, type) or not isinstance(remover, Remover):
            raise WrongType(
                f"remover is {describe_value(remover)}; give a name ({', '.join([*REMOVERS, *NETWORKS])}), "
                "'module:Class', or a remover, that is an object with the methods of rasura.Remover"
            )
        if model:
            raise InputError(f"remove({', '.join(model)}): these are options of a network that is given by its name")
        return remover
    if model and (remover in REMOVERS or ":" in remover):
        raise InputError(f"remover '{remover}' takes no options, but was given {', '.join(model)}")
    if remover in NETWORKS and "base" not in model:
        raise InputError(
            f"remover '{remover}' needs weights: give base='FOLDER', in diffusers' layout, or a model of the Hugging "
            "Face hub with its revision; `rasura stages inpaint` lists all options of a network"
        )
    return open_remover(remover, {remover: read_options(ModelParams, model, "remove")} if remover in NETWORKS else {})


def remove(
    image: Picture,
    mask: npt.NDArray[Any] | Image.Image,
    remover: str | Remover = "telea",
    *,
    seed: int = 0,
    dilation: int = 8,
    context: float = 0.75,
    **model: Any,
) -> RGB:
    """Return a picture without what a mask covers. Pixels outside the grown mask stay as they are, bit by bit.

    Args:
        image: (h, w, 3) uint8 RGB, or a PIL image.
        mask: (h, w) bool, or 0/255; True (255) is what to remove.
        remover: a name (docs/removers.md), `module:Class`, or a remover.
        seed: the same seed gives the same fill.
        dilation: px by which the mask grows before it is filled.
        context: picture around the hole that the remover sees, in units of the hole's size.
        model: files and options of a network, as under `models` of stage `inpaint`: `base="models/sdxl-inpainting"`.

    Raises:
        InputError: the mask does not fit the picture, is empty, or covers all of it; or an option is wrong.
        UnknownNameError: no remover has this name.
        WeightsError: weights of a network are missing or of another network.

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
    known = {"seed", "dilation", "context", *ModelParams.model_fields}
    if unknown := [name for name in model if name not in known]:
        raise WrongType(f"remove has no option '{unknown[0]}'; {suggest(unknown[0], known)}")
    if not isinstance(seed, int | np.integer):
        raise WrongType(f"seed is {describe_value(seed)}; give a whole number")
    options = read_options(InpaintParams, {"dilation": dilation, "context": context}, "remove")
    with explain_missing_packages():
        chosen = _open_remover(remover, model)
        chosen.setup()
        own_seed = compute_seed(seed, chosen.name, compute_content_id(picture.tobytes()))
        try:
            return remove_from_batch(chosen, [picture], [hole], [own_seed], options.dilation, options.context)[0]
        except ValueError as error:
            raise InputError(f"nothing can be removed: {error}") from error
