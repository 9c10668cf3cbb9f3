"""Cut-outs: a foreground with its contact point, the view and scale of its photo, and the direction of its shadow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import compute_bounds
from rasura.stages.compositing.class_sizes import Size, estimate_min_depression, find_class_size, fit_box_scale
from rasura.stages.compositing.projection import View, read_view

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]

DEFAULT_DEPRESSION = 10.0  # degrees: assumed where a photo's ground plane is unknown
CLASS_SIZE_ERROR = 0.15  # log units: of a size that comes from the class alone
MIN_LABEL_SCORE = 0.5  # score of a detection from which its label is believed


@dataclass(frozen=True, eq=False)
class Cutout:
    """A foreground. Crop pixels count from its upper left corner, photo pixels from its photo's."""

    id: str
    label: str | None
    rgba: Array  # (h, w, 4) uint8, straight alpha; black with alpha where it darkens
    reflection: Array | None  # (h, w, 3) uint8, light that the object adds around itself
    object_mask: Array  # (h, w) bool
    crop_origin: tuple[float, float]  # upper left corner of the crop, photo px
    photo_size: tuple[int, int]  # width and height
    object_box: Box  # crop px
    contact_point: tuple[float, float]  # where the object touches the ground, crop px
    base_columns: tuple[int, int]  # from and to, of the part that touches the ground, crop px
    view: View | None  # in metres, as far as `size_rule` provides them
    pixels_per_metre: float | None  # at the contact point
    depression: float | None  # degrees at which the contact point was looked down on
    size_rule: str  # where the metres come from, see `resolve_scale`
    view_error: float | None  # degrees, of its depression; None: a default
    size_error: float | None  # log units, of its size in metres; None: a default
    shadow_azimuth: float | None  # degrees, where its shadow falls
    shadow_confidence: float
    is_mirrored: bool = False
    rotation: float = 0.0  # degrees counter-clockwise that it was rotated in the picture's plane
    class_area: tuple[float, float] | None = None  # mean and deviation of its class's share of a picture

    @property
    def photo_contact_point(self) -> tuple[float, float]:
        """The contact point in photo pixels."""
        return self.crop_origin[0] + self.contact_point[0], self.crop_origin[1] + self.contact_point[1]

    @property
    def object_size(self) -> tuple[int, int]:
        """Width and height of the object, px."""
        return self.object_box[2] - self.object_box[0], self.object_box[3] - self.object_box[1]


def find_mask_box(mask: Array) -> Box:
    """Return x0, y0, x1, y1 (exclusive) of the True pixels of (h, w).

    Raises:
        ValueError: there are none.
    """
    if not mask.any():
        raise ValueError("the object mask of a foreground is empty")
    return compute_bounds(mask)


def find_base_columns(mask: Array) -> Array:
    """Return the columns, ascending, of each pixel in the lowest twentieth of an object, (h, w) bool: its base."""
    _, y0, _, y1 = find_mask_box(mask)
    return np.sort(np.nonzero(mask[max(y0, y1 - max(1, (y1 - y0) // 20)) : y1])[1])


def find_contact_point(mask: Array) -> tuple[float, float]:
    """Return where an object, (h, w) bool, touches the ground: x, y of the middle of its base, below its last row.

    Examples:
        >>> mask = np.zeros((40, 30), bool)
        >>> mask[10:30, 8:12] = True
        >>> find_contact_point(mask)
        (10.0, 30.0)
    """
    return float(np.median(find_base_columns(mask))) + 0.5, float(find_mask_box(mask)[3])


def find_cut_sides(mask: Array, box: Sequence[float], photo_size: Sequence[float]) -> frozenset[str]:
    """Return the sides ("left", "top", "right", "bottom") on which the photo's frame cuts the object.

    What is beyond was never in the picture, so such an object can only stand at the same side of another frame.

    Args:
        mask: (h, w) bool, of the crop. box: the crop's, photo px. photo_size: width and height.
    """
    x0, y0, x1, y1 = find_mask_box(mask)
    width, height = photo_size
    touches = {
        "left": box[0] + x0 <= 1,
        "top": box[1] + y0 <= 1,
        "right": box[0] + x1 >= width - 1,
        "bottom": box[1] + y1 >= height - 1,
    }
    return frozenset(side for side, touching in touches.items() if touching)


def resolve_scale(
    view: View | None,
    contact_point: tuple[float, float],
    object_size: tuple[int, int],
    size: Size | None,
    camera_height: float,
    size_trust: float,
) -> tuple[View | None, float | None, float | None, str]:
    """Find the view in metres, the pixels per metre and the depression at the contact point, and their origin:

    - `metric`: the photo's own ground plane, unless it makes the object `size_trust` times too large or too small for
      its class;
    - `class-size`: the object is as large as its class usually is;
    - `camera-height`: the camera is `camera_height` metres above the ground;
    - `frame`: nothing is available (view and pixels per metre are None).

    Args:
        view: of the object's photo, in whatever unit. contact_point: photo px. object_size: width and height, px.
        size: height, width, length of its class.
    """
    if view is not None and view.depression(*contact_point) < 0.5:
        view = None  # its contact point is above the horizon: a wrong plane
    if view is None:
        if size is None:
            return None, None, None, "frame"
        lowest = estimate_min_depression(*object_size, size)
        scale = fit_box_scale(*object_size, size, max(lowest, DEFAULT_DEPRESSION))
        return None, scale, lowest if lowest > DEFAULT_DEPRESSION else None, "class-size"
    down = float(view.depression(*contact_point))
    usual = None if size is None else fit_box_scale(*object_size, size, down)
    reported = float(view.pixels_per_unit(*contact_point))
    if view.metric and (usual is None or 1 / size_trust <= reported / usual <= size_trust):
        return view, reported, down, "metric"
    if usual is not None:
        return view.rescale(reported / usual), usual, down, "class-size"
    return view.rescale(camera_height / view.height), reported * view.height / camera_height, down, "camera-height"


def make_cutout(
    foreground: Mapping[str, Any],
    camera_height: float = 1.6,
    size_trust: float = 1.6,
    sizes: Mapping[str, Size] | None = None,
) -> Cutout:
    """Make a cut-out of a record of `foregrounds` (see the `draws` source).

    Columns that are absent count as unknown, and so does a label that its detector was not sure of.

    Args:
        camera_height: metres, where nothing better is available. size_trust: see `resolve_scale`.
        sizes: label to height, width, length in metres, before the built-in table.

    Raises:
        ValueError: its object mask is empty.
    """
    mask = np.asarray(foreground["foreground_object"])
    object_box, contact_point, base = find_mask_box(mask), find_contact_point(mask), find_base_columns(mask)
    box, photo_size = foreground["foreground_box"], foreground["source_size"]
    view = read_view(foreground, photo_size)
    object_size = (object_box[2] - object_box[0], object_box[3] - object_box[1])
    score = foreground.get("detect_score")
    label = foreground.get("label") if score is None or score >= MIN_LABEL_SCORE else None
    photo_contact_point = (box[0] + contact_point[0], box[1] + contact_point[1])
    view, scale, depression, rule = resolve_scale(
        view, photo_contact_point, object_size, find_class_size(label, sizes), camera_height, size_trust
    )
    size_errors = {"metric": foreground.get("ground_size_error"), "class-size": CLASS_SIZE_ERROR}
    reflection = foreground.get("foreground_light")
    azimuth, class_area = foreground.get("shadow_azimuth"), foreground.get("class_area")
    return Cutout(
        id=str(foreground["id"]),
        label=label,
        rgba=np.asarray(foreground["foreground"]),
        reflection=None if reflection is None else np.asarray(reflection),
        object_mask=mask,
        crop_origin=(float(box[0]), float(box[1])),
        photo_size=(int(photo_size[0]), int(photo_size[1])),
        object_box=object_box,
        contact_point=contact_point,
        base_columns=(int(base[0]), int(base[-1]) + 1),
        view=view,
        pixels_per_metre=scale,
        depression=depression,
        size_rule=rule,
        view_error=None if view is None else foreground.get("ground_view_error"),
        size_error=size_errors.get(rule),
        shadow_azimuth=None if azimuth is None else float(azimuth),
        shadow_confidence=float(foreground.get("shadow_confidence") or 0.0),
        class_area=None if class_area is None else (float(class_area[0]), float(class_area[1])),
    )


def mirror_cutout(cutout: Cutout) -> Cutout:
    """Return the cut-out as its photo's mirror image would have given it: its shadow falls the other way."""
    width = cutout.object_mask.shape[1]
    x0, y0, x1, y1 = cutout.object_box
    azimuth = cutout.shadow_azimuth
    return replace(
        cutout,
        rgba=cutout.rgba[:, ::-1],
        reflection=None if cutout.reflection is None else cutout.reflection[:, ::-1],
        object_mask=cutout.object_mask[:, ::-1],
        crop_origin=(cutout.photo_size[0] - cutout.crop_origin[0] - width, cutout.crop_origin[1]),
        object_box=(width - x1, y0, width - x0, y1),
        contact_point=(width - cutout.contact_point[0], cutout.contact_point[1]),
        base_columns=(width - cutout.base_columns[1], width - cutout.base_columns[0]),
        view=None if cutout.view is None else cutout.view.mirror(),
        shadow_azimuth=None if azimuth is None else (180 - azimuth) % 360,
        is_mirrored=not cutout.is_mirrored,
    )


def wrap_degrees(angle: float) -> float:
    """Return an angle in degrees as -180 <= angle < 180.

    Examples:
        >>> wrap_degrees(350.0), wrap_degrees(180.0)
        (-10.0, -180.0)
    """
    return (angle + 180) % 360 - 180


def align_shadow_sides(cutouts: Sequence[Cutout]) -> list[Cutout]:
    """Mirror the cut-outs where that brings their shadow nearer to the most confident one."""
    candidates = [(cutout, azimuth) for cutout in cutouts if (azimuth := cutout.shadow_azimuth) is not None]
    if len(candidates) < 2:
        return list(cutouts)
    reference, reference_azimuth = max(candidates, key=lambda pair: pair[0].shadow_confidence)

    def align(cutout: Cutout) -> Cutout:
        azimuth = cutout.shadow_azimuth
        if cutout is reference or azimuth is None:
            return cutout
        off = abs(wrap_degrees(azimuth - reference_azimuth))
        mirrored_off = abs(wrap_degrees((180 - azimuth) % 360 - reference_azimuth))
        return cutout if off <= mirrored_off else mirror_cutout(cutout)

    return [align(cutout) for cutout in cutouts]


def find_effect_pixels(cutout: Cutout) -> Array:
    """Find the pixels of a cut-out that are effects on the ground, (h, w) bool: outside the object, black or clear."""
    red, green, blue, cover = (cutout.rgba[..., k] for k in range(4))
    return np.asarray(~(cutout.object_mask | ((cover > 0) & ((red | green | blue) > 0))))


def compute_frame_weights(cutout: Cutout, share: float = 0.06) -> Array:
    """Compute how much of the effects is left beside the frame of their photo, (h, w) float32, 0 to 1.

    The frame cut them off there; pasted elsewhere they must not end in a straight line. They fade over `share` of the
    photo's longer side, but not on a side that cut the object itself: that side is placed at the frame again. Those of
    a rotated cut-out have faded before.
    """
    height, width = cutout.object_mask.shape
    if cutout.rotation:
        return np.ones((height, width), np.float32)
    (left, top), (photo_width, photo_height) = cutout.crop_origin, cutout.photo_size
    reach = max(1.0, share * max(cutout.photo_size))
    cut = find_cut_sides(cutout.object_mask, (left, top, left + width, top + height), cutout.photo_size)
    xs, ys = left + np.arange(width) + 0.5, top + np.arange(height) + 0.5
    across, down = np.ones(width), np.ones(height)
    for side, fade, distance in (
        ("left", across, xs),
        ("right", across, photo_width - xs),
        ("top", down, ys),
        ("bottom", down, photo_height - ys),
    ):
        if side not in cut:
            ramp = np.clip(distance / reach, 0, 1)
            fade *= ramp * ramp * (3 - 2 * ramp)
    return np.asarray(down[:, None] * across, np.float32)


def split_layers(cutout: Cutout, fill_under_object: bool) -> tuple[Array, Array, Array, Array | None]:
    """Split a cut-out into the object and its effects on the ground.

    Effect pixels are those outside the object that are black or clear. The shadow goes on under the object where
    `fill_under_object` (what a change of perspective uncovers there has to be dark too): there the alpha A of the rim
    is shared out, 1 - A = (1 - b)(1 - e), so that object over shadow gives what the cut-out gave.

    Returns:
        object colour (h, w, 3) float32 0-255, multiplied by alpha, with the light that the rim adds; object alpha b
        and shadow alpha e (h, w) float32; the light on the ground (h, w, 3) float32 or None.
    """
    alpha = cutout.rgba[..., 3].astype(np.float32) / 255
    body = ~find_effect_pixels(cutout)
    colour: Array = cutout.rgba[..., :3] * alpha[..., None]
    fade = compute_frame_weights(cutout)
    shadow = (np.where(body, 0, alpha) * fade).astype(np.float32)
    alpha = np.where(body, alpha, 0).astype(np.float32)
    if fill_under_object and shadow.any():
        shadow = np.where(body, np.minimum(extrapolate(shadow, ~body), np.minimum(alpha, 0.98)), shadow)
        alpha = np.where(body, 1 - (1 - alpha) / np.maximum(1 - shadow, 0.02), alpha)
    reflection: Array | None = None
    if cutout.reflection is not None and cutout.reflection.any():
        reflection = (np.where(body[..., None], 0, cutout.reflection) * fade[..., None]).astype(np.float32)
        colour = colour + np.where(body[..., None], cutout.reflection, 0)
    return np.where(body[..., None], colour, 0).astype(np.float32), alpha, shadow, reflection


def extrapolate(values: Array, valid: Array) -> Array:
    """Fill (h, w) float32 by the weighted mean of the valid values around, at a twentieth and a fifth of the size."""
    height, width = values.shape
    small = (max(2, width // 4), max(2, height // 4))
    stacked = np.dstack([values * valid, valid]).astype(np.float32)
    shrunk = cv2.resize(stacked, small, interpolation=cv2.INTER_AREA)
    near, wide = (cv2.GaussianBlur(shrunk, (0, 0), max(1.0, share * max(small))) for share in (0.05, 0.2))
    mixed = near + 0.02 * wide
    mean = mixed[..., 0] / (mixed[..., 1] + 1e-6)
    return np.asarray(cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
