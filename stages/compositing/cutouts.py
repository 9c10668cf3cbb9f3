"""A foreground made ready for pasting: where it stands, how it was seen, its size, which way its shadow falls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.boxes import bounds
from rasura.stages.compositing.class_sizes import Size, class_size, density_of, least_depression
from rasura.stages.compositing.projection import View, view_of

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]

LEVEL = 10.0  # degrees: depression that is assumed where a photo's floor is unknown
CLASS_ERROR = 0.15  # log units: of a size that only the class tells
NAMED = 0.5  # score of a detection from which its label is believed


@dataclass(frozen=True, eq=False)
class Cutout:
    """A foreground. Crop pixels count from its upper left corner, picture pixels from its photo's."""

    id: str
    label: str | None
    rgba: Array  # (h, w, 4) uint8, straight alpha; black with alpha where it darkens
    light: Array | None  # (h, w, 3) uint8, what its reflections add
    solid: Array  # (h, w) bool, the object
    corner: tuple[float, float]  # of the crop, in the picture
    size: tuple[int, int]  # of the picture
    outline: Box  # of the object, in the crop
    foot: tuple[float, float]  # in the crop
    base: tuple[int, int]  # columns from and to of what stands on the floor, in the crop
    view: View | None  # in metres, as far as `rule` can tell
    density: float | None  # px a metre at its foot
    depression: float | None  # degrees at which its foot was looked down on
    rule: str  # where the metres come from
    view_error: float | None  # degrees, of its depression; None: a guess
    size_error: float | None  # log units, of its size in metres; None: a guess
    azimuth: float | None  # degrees, where its shadow falls
    confidence: float
    flipped: bool = False

    @property
    def stand(self) -> tuple[float, float]:
        """Its foot in the picture."""
        return self.corner[0] + self.foot[0], self.corner[1] + self.foot[1]

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the object."""
        return self.outline[2] - self.outline[0], self.outline[3] - self.outline[1]


def mask_box(mask: Array) -> Box:
    """x0, y0, x1, y1 (exclusive) of the True pixels of (h, w).

    Raises:
        ValueError: there are none.
    """
    if not mask.any():
        raise ValueError("the object mask of a foreground is empty")
    return bounds(mask)


def base_of(solid: Array) -> Array:
    """Columns, ascending, of each pixel in the object's lowest twentieth: what it stands on."""
    _, y0, _, y1 = mask_box(solid)
    return np.sort(np.nonzero(solid[max(y0, y1 - max(1, (y1 - y0) // 20)) : y1])[1])


def foot_of(solid: Array) -> tuple[float, float]:
    """Where the object stands, x, y in the crop: middle of its lowest twentieth, just below its last row."""
    return float(np.median(base_of(solid))) + 0.5, float(mask_box(solid)[3])


def cut_sides(solid: Array, box: Sequence[float], source_size: Sequence[float]) -> frozenset[str]:
    """Sides ("left", "top", "right", "bottom") on which the object touches the frame of the photo it was cut from.

    What lies beyond was never seen, so such an object can only stand at the same side of another frame.
    """
    x0, y0, x1, y1 = mask_box(solid)
    width, height = source_size
    touches = {
        "left": box[0] + x0 <= 1,
        "top": box[1] + y0 <= 1,
        "right": box[0] + x1 >= width - 1,
        "bottom": box[1] + y1 >= height - 1,
    }
    return frozenset(side for side, touched in touches.items() if touched)


def measured(
    view: View | None, stand: tuple[float, float], extent: tuple[int, int], size: Size | None, eye: float, trust: float
) -> tuple[View | None, float | None, float | None, str]:
    """The view in metres, pixels a metre at the foot, how steeply it is looked down on, and what told the metres:

    - `metric`: the photo's own floor, unless it makes the object `trust` times too large or small for its class;
    - `class-size`: the object is as large as its class usually is;
    - `camera-height`: the camera is `eye` metres above the floor;
    - `frame`: nothing is known (view and pixels a metre are None).

    Args:
        view: of the object's photo, in whatever unit. stand: the object's foot there, px. extent: its outline, px.
        size: height, width, length of its class.
    """
    if view is not None and view.depression(*stand) < 0.5:
        view = None  # its foot is above the horizon: a wrong plane
    if view is None:
        if size is None:
            return None, None, None, "frame"
        least = least_depression(*extent, size)
        return None, density_of(*extent, size, max(least, LEVEL)), least if least > LEVEL else None, "class-size"
    down = float(view.depression(*stand))
    usual = None if size is None else density_of(*extent, size, down)
    own = float(view.density(*stand))
    if view.metric and (usual is None or 1 / trust <= own / usual <= trust):
        return view, own, down, "metric"
    if usual is not None:
        return view.scaled(own / usual), usual, down, "class-size"
    return view.scaled(eye / view.d), own * view.d / eye, down, "camera-height"


def cutout(
    foreground: Mapping[str, Any], eye: float = 1.6, trust: float = 1.6, sizes: Mapping[str, Size] | None = None
) -> Cutout:
    """A record of `foregrounds` (see the `draws` source) made ready. Columns it lacks count as unknown, and so does a
    label that its detector was not sure of.

    Raises:
        ValueError: its object mask is empty.
    """
    solid = np.asarray(foreground["foreground_object"])
    outline, foot, base = mask_box(solid), foot_of(solid), base_of(solid)
    box, size = foreground["foreground_box"], foreground["source_size"]
    view = view_of(foreground, size)
    extent = (outline[2] - outline[0], outline[3] - outline[1])
    score = foreground.get("detect_score")
    label = foreground.get("label") if score is None or score >= NAMED else None
    view, density, down, rule = measured(
        view, (box[0] + foot[0], box[1] + foot[1]), extent, class_size(label, sizes), eye, trust
    )
    known = {"metric": foreground.get("ground_size_error"), "class-size": CLASS_ERROR}
    light = foreground.get("foreground_light")
    azimuth = foreground.get("shadow_azimuth")
    return Cutout(
        id=str(foreground["id"]),
        label=label,
        rgba=np.asarray(foreground["foreground"]),
        light=None if light is None else np.asarray(light),
        solid=solid,
        corner=(float(box[0]), float(box[1])),
        size=(int(size[0]), int(size[1])),
        outline=outline,
        foot=foot,
        base=(int(base[0]), int(base[-1]) + 1),
        view=view,
        density=density,
        depression=down,
        rule=rule,
        view_error=None if view is None else foreground.get("ground_view_error"),
        size_error=known.get(rule),
        azimuth=None if azimuth is None else float(azimuth),
        confidence=float(foreground.get("shadow_confidence") or 0.0),
    )


def mirrored(one: Cutout) -> Cutout:
    """The cut-out as its photo's mirror image would have given it: its shadow falls the other way."""
    width = one.solid.shape[1]
    x0, y0, x1, y1 = one.outline
    return replace(
        one,
        rgba=one.rgba[:, ::-1],
        light=None if one.light is None else one.light[:, ::-1],
        solid=one.solid[:, ::-1],
        corner=(one.size[0] - one.corner[0] - width, one.corner[1]),
        outline=(width - x1, y0, width - x0, y1),
        foot=(width - one.foot[0], one.foot[1]),
        base=(width - one.base[1], width - one.base[0]),
        view=None if one.view is None else one.view.mirrored(),
        azimuth=None if one.azimuth is None else (180 - one.azimuth) % 360,
        flipped=not one.flipped,
    )


def turned_by(angle: float) -> float:
    """An angle in degrees as -180 <= angle < 180."""
    return (angle + 180) % 360 - 180


def facing(cutouts: Sequence[Cutout]) -> list[Cutout]:
    """The cut-outs, mirrored where that brings their shadow nearer to that of the surest one."""
    known = [one for one in cutouts if one.azimuth is not None]
    if len(known) < 2:
        return list(cutouts)
    first = max(known, key=lambda one: one.confidence)
    assert first.azimuth is not None

    def off(one: Cutout) -> float:
        assert one.azimuth is not None
        assert first.azimuth is not None
        return abs(turned_by(one.azimuth - first.azimuth))

    return [
        one if one is first or one.azimuth is None or off(one) <= off(flip := mirrored(one)) else flip
        for one in cutouts
    ]


def run_out(one: Cutout, share: float = 0.06) -> Array:
    """(h, w) float32, 0 to 1: how much of the effects is left beside the frame of their photo.

    The frame cut them off there; pasted elsewhere they must not end in a straight line. They run out over `share` of
    the photo's longer side, but not on a side that cut the object itself: that side is laid on the frame again.
    """
    height, width = one.solid.shape
    (left, top), (wide, high) = one.corner, one.size
    reach = max(1.0, share * max(one.size))
    kept = cut_sides(one.solid, (left, top, left + width, top + height), one.size)
    xs, ys = left + np.arange(width) + 0.5, top + np.arange(height) + 0.5
    across, down = np.ones(width), np.ones(height)
    for side, at, distance in (
        ("left", across, xs),
        ("right", across, wide - xs),
        ("top", down, ys),
        ("bottom", down, high - ys),
    ):
        if side not in kept:
            ramp = np.clip(distance / reach, 0, 1)
            at *= ramp * ramp * (3 - 2 * ramp)
    return np.asarray(down[:, None] * across, np.float32)


def layers_of(one: Cutout, filled: bool) -> tuple[Array, Array, Array, Array | None]:
    """A cut-out taken apart into what stands and what lies on the floor.

    Effect pixels are those outside the object that are black or clear. The floor's shadow goes on under the object
    where `filled` (what a change of perspective uncovers there has to be dark too): there the alpha A of the rim is
    shared out, 1 - A = (1 - b)(1 - e), so that body over shadow gives what the cut-out gave.

    Returns:
        body colour (h, w, 3) float32 0-255, multiplied by alpha, with the light that the rim adds; body alpha b and
        shadow alpha e (h, w) float32; the light on the floor (h, w, 3) float32 or None.
    """
    alpha = one.rgba[..., 3].astype(np.float32) / 255
    red, green, blue, cover = (one.rgba[..., k] for k in range(4))
    body = one.solid | ((cover > 0) & ((red | green | blue) > 0))
    colour: Array = one.rgba[..., :3] * alpha[..., None]
    left = run_out(one)
    shade = (np.where(body, 0, alpha) * left).astype(np.float32)
    alpha = np.where(body, alpha, 0).astype(np.float32)
    if filled and shade.any():
        shade = np.where(body, np.minimum(spread(shade, ~body), np.minimum(alpha, 0.98)), shade)
        alpha = np.where(body, 1 - (1 - alpha) / np.maximum(1 - shade, 0.02), alpha)
    light: Array | None = None
    if one.light is not None and one.light.any():
        light = (np.where(body[..., None], 0, one.light) * left[..., None]).astype(np.float32)
        colour = colour + np.where(body[..., None], one.light, 0)
    return np.where(body[..., None], colour, 0).astype(np.float32), alpha, shade, light


def spread(values: Array, known: Array) -> Array:
    """(h, w) float32: the known values' weighted mean around each pixel, at a twentieth and a fifth of the size."""
    height, width = values.shape
    small = (max(2, width // 4), max(2, height // 4))
    stacked = np.dstack([values * known, known]).astype(np.float32)
    given = cv2.resize(stacked, small, interpolation=cv2.INTER_AREA)
    near, far = (cv2.GaussianBlur(given, (0, 0), max(1.0, share * max(small))) for share in (0.05, 0.2))
    mixed = near + 0.02 * far
    mean = mixed[..., 0] / (mixed[..., 1] + 1e-6)
    return np.asarray(cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
