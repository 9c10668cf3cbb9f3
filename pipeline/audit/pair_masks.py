"""The masks and layers of one pair as files, with a sheet on which they can be judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from rasura.manifests.errors import InputError
from rasura.manifests.ids import compute_content_id
from rasura.manifests.images import MAX_PIXELS, RGB, BadImage, Mask, decode_image
from rasura.pipeline.audit.arguments import parse_params
from rasura.pipeline.recipe.load import describe_faults
from rasura.stages.curation.faults import find_faults
from rasura.stages.curation.pair_parts import take_apart
from rasura.stages.curation.strips import FOREGROUND, OBJECT, draw_difference, draw_outline, shrink
from rasura.stages.imaging.mask_change import compare_outlines
from rasura.stages.segment import SegmentParams
from rasura.stages.sources.provided_masks import load_mask
from rasura.stages.stage import Record, Rejected

SHEET_SIDE = 480  # px of the longer side of each picture on the sheet
CHECK = 12  # px of a checkerboard's squares
LABEL = 24  # px of a line of text


def draw_checkerboard(layer: np.ndarray) -> RGB:
    """Draw (h, w, 4) over a checkerboard, so that what is transparent can be told."""
    height, width = layer.shape[:2]
    rows, columns = np.mgrid[:height, :width] // CHECK
    board = np.where((rows + columns) % 2, 208, 255)[..., None].astype(np.float32)
    alpha = layer[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(alpha * layer[..., :3] + (1 - alpha) * board), np.uint8)


def crop_layer(layer: np.ndarray) -> np.ndarray:
    """Crop (h, w, 4) to what is not transparent; a single pixel where all is.

    Examples:
        >>> crop_layer(np.pad(np.full((2, 3, 4), 9, np.uint8), ((1, 1), (4, 0), (0, 0)))).shape
        (2, 3, 4)
    """
    rows, columns = np.nonzero(layer[..., 3])
    if not len(rows):
        return layer[:1, :1]
    return layer[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def paste_layers(clean: RGB, foreground: np.ndarray, light: RGB) -> RGB:
    """Paste both layers over the clean picture: what the pair's first picture has to be again (Eq. 1 of OBER)."""
    alpha = foreground[..., 3:].astype(np.float32) / 255
    mixed = alpha * foreground[..., :3] + (1 - alpha) * clean.astype(np.float32) + light
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def draw_sheet(panels: Sequence[tuple[str, RGB]], columns: int = 3) -> RGB:
    """Draw pictures with their names in a grid."""
    small = [(name, shrink(picture, SHEET_SIDE)) for name, picture in panels]
    height = max(picture.shape[0] for _, picture in small) + LABEL
    width = max(picture.shape[1] for _, picture in small) + 8
    rows = -(-len(small) // columns)
    sheet = np.full((rows * height, min(columns, len(small)) * width, 3), 255, np.uint8)
    for index, (name, picture) in enumerate(small):
        top, left = index // columns * height, index % columns * width
        sheet[top + LABEL : top + LABEL + picture.shape[0], left : left + picture.shape[1]] = picture
        cv2.putText(sheet, name, (left + 2, top + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def read_picture(path: Path) -> RGB:
    """Read a picture file.

    Raises:
        InputError: it is none.
    """
    try:
        return decode_image(path.read_bytes())
    except BadImage as error:
        raise InputError(f"'{path}': {error}") from error


def read_object_mask(path: Path, source: RGB, clean: RGB) -> Mask:
    """Read a mask file of a pair, in the polarity that fits what changed.

    Raises:
        InputError: it is no mask, or has nothing to do with what changed.
    """
    try:
        outcome = load_mask(path.read_bytes(), source, clean, "auto", MAX_PIXELS)
    except BadImage as error:
        raise InputError(f"'{path}': {error}") from error
    if isinstance(outcome, Rejected):
        raise InputError(f"'{path}': {outcome.reason} ({outcome.detail})")
    return outcome[0]


def read_segment_params(texts: Sequence[str]) -> SegmentParams:
    """Read parameters of stage `segment`, `key=value`; GrabCut by default.

    Raises:
        InputError: one is unknown or has a wrong value.
    """
    try:
        return SegmentParams.model_validate({"backend": "grabcut", **parse_params(texts)})
    except ValidationError as error:
        faults = describe_faults(error, SegmentParams)
    raise InputError("; ".join(f"--set {'.'.join(map(str, path))}=…: {message}" for path, message in faults))


def write_masks(
    input: Path, gt: Path, out: Path | None, mask: Path | None, settings: Sequence[str]
) -> tuple[Path, list[str]]:
    """Take a pair apart and write what is in it.

    Args:
        input, gt: picture files.
        out: the folder; None: beside `input`.
        mask: file of the object's mask; None: it is drawn from the pair.
        settings: parameters of stage `segment`, `key=value`.

    Returns:
        The folder, and lines about what was measured.

    Raises:
        InputError: a file is no picture, or the pair was rejected; the text says why.
        FileNotFoundError: a file is not there.
    """
    source, clean = read_picture(input), read_picture(gt)
    object_mask = None if mask is None else read_object_mask(mask, source, clean)
    if source.shape != clean.shape:
        sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in (source, clean))
        raise InputError(f"'{input}' and '{gt}' are of two sizes: {sizes}")
    record: Record = {"id": compute_content_id(source.tobytes(), clean.tobytes()), "input": source, "gt": clean}
    if object_mask is not None:
        record["given_mask"] = object_mask
    result = take_apart(record, read_segment_params(settings))
    foreground_mask = result.object_mask | result.effect_mask
    folder = input.parent / f"{input.stem}-masks" if out is None else out
    again = paste_layers(result.clean, result.foreground, result.light)
    bright = np.clip(result.light.astype(np.uint16) * 4, 0, 255).astype(np.uint8)
    outlined = draw_outline(draw_outline(source, foreground_mask, FOREGROUND), result.object_mask, OBJECT)
    pictures: dict[str, Any] = {
        "object_mask.png": result.object_mask,
        "effect_mask.png": result.effect_mask,
        "foreground.png": result.foreground,
        "light.png": result.light,
        "cutout.png": crop_layer(result.foreground),
        "target.png": result.target,
        "sheet.png": draw_sheet(
            [
                ("input, M_o and M_fg outlined", outlined),
                ("gt", clean),
                ("difference", draw_difference(source, result.clean)),
                ("target", result.target),
                ("object mask M_o", np.repeat(result.object_mask[..., None], 3, 2).astype(np.uint8) * 255),
                ("effect mask M_e", np.repeat(result.effect_mask[..., None], 3, 2).astype(np.uint8) * 255),
                ("foreground layer (cut-out)", draw_checkerboard(result.foreground)),
                ("light layer, 4 times as bright", bright),
                ("gt with both layers", again),
            ]
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (folder / name).write_bytes(encode_png(picture))
    measured = result.measurements
    lines = [
        f"object {result.object_mask.mean():.2%} of the picture, effects {result.effect_mask.mean():.2%}",
        f"shift {measured['pair_shift_x']:.2f}, {measured['pair_shift_y']:.2f} px; "
        f"gain {', '.join(f'{gain:.3f}' for gain in measured['pair_gain'])}; noise {measured['pair_noise']:.2f} levels",
    ]
    if measured.get("alpha_psnr") is not None:
        lines.append(f"gt with both layers gives input again at {measured['alpha_psnr']:.1f} dB")
    swap = compare_outlines(source, result.clean, result.object_mask) if result.object_mask.any() else 0.0
    lines += [
        f"warning: {fault.describe()}; is '{input}' the picture with the object, and '{gt}' the one without?"
        for fault in find_faults({"inspect_swap": swap})
    ]
    return folder, lines


def encode_png(picture: np.ndarray) -> bytes:
    """Encode (h, w) bool, (h, w, 3) or (h, w, 4) uint8 as PNG."""
    if picture.dtype == bool:
        picture = picture.astype(np.uint8) * 255
    order = {2: None, 3: cv2.COLOR_RGB2BGR if picture.shape[-1] == 3 else cv2.COLOR_RGBA2BGRA}[picture.ndim]
    _, data = cv2.imencode(".png", picture if order is None else cv2.cvtColor(picture, order))
    return data.tobytes()
