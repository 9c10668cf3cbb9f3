"""Cut-outs laid into a picture: what stands, what lies on the floor, who hides whom, and the triplet that follows.

Everything works on windows: a 512 px picture with one chair costs what the chair costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import Box, Cutout, foot_of, layers_of, mask_box
from rasura.stages.compositing.harmonize import LUMA, Mood, gains, grain_of, matched_grain
from rasura.stages.compositing.placement import Spot
from rasura.stages.compositing.projection import View, floor_to_floor, through

Array = npt.NDArray[Any]

CERTAIN = 0.08  # effects this strong are in the mask, however thin they are
FAINT = 2 / 255  # alpha below which a layer leaves no trace that a mask should hold
DIM = 1.5  # levels of added light below which it leaves none


@dataclass(frozen=True, eq=False)
class Matching:
    """How far colour and grain may go towards the background's; see `harmonise`."""

    mood: Mood
    strength: float = 0.4
    exposure: float = 0.2
    balance: float = 0.05
    grain: float = 3.0


@dataclass(frozen=True, eq=False)
class Layer:
    """A placed cut-out. Its arrays are cut to the frame: `window` and `shade_window` say where they lie."""

    cutout: Cutout
    spot: Spot
    box: Box  # of the object, on the background, not cut
    window: Box
    colour: Array  # (h, w, 3) float32 0-255, multiplied by alpha
    alpha: Array  # (h, w) float32
    solid: Array  # (h, w) bool: the object itself
    light: Array | None  # (h, w, 3) float32, added to the floor
    shade_window: Box
    shade: Array  # (h', w') float32: share of the light that the floor loses
    pixels: int  # of the whole object, also beyond the frame


def clipped(box: Sequence[int], shape: Sequence[int]) -> Box:
    """The part of a box inside (height, width); empty ones have no area."""
    x0, y0 = min(max(box[0], 0), shape[1]), min(max(box[1], 0), shape[0])
    return x0, y0, max(x0, min(box[2], shape[1])), max(y0, min(box[3], shape[0]))


def part(values: Array, at: Box, window: Box) -> Array:
    """What of `values`, which cover `at`, lies in `window` (a box inside `at`)."""
    return values[window[1] - at[1] : window[3] - at[1], window[0] - at[0] : window[2] - at[0]]


def meet(first: Box, second: Box) -> Box | None:
    """The box that two share, None when there is none."""
    box = (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all that have an area."""
    real = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    if not real:
        return 0, 0, 0, 0
    low, high = np.array(real)[:, :2].min(axis=0), np.array(real)[:, 2:].max(axis=0)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def resized(values: Array, size: tuple[int, int]) -> Array:
    """(h, w) or (h, w, c) float32 at (width, height). Colours have to be multiplied by alpha: what lies under clear
    pixels would bleed in as a fringe."""
    if size == (values.shape[1], values.shape[0]):
        return values
    shrinks = size[0] < values.shape[1]
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def floor_shadow(
    shade: Array, one: Cutout, scales: tuple[float, float], foot: tuple[float, float], view: View, turn: float
) -> tuple[Array, Box]:
    """A cut-out's shadow as it lies on another floor, cut to the frame, and where it is.

    What the cut-out's own photo shows near its horizon is left out: it would be drawn out without end.

    Args:
        shade: (h, w) float32, the crop's, `scales` times as large as it was cut. foot: on the background, px.
        view: the background's; `one.view` counts in the same unit. turn: degrees, see `floor_to_floor`.
    """
    nothing: tuple[Array, Box] = (np.zeros((0, 0), np.float32), (0, 0, 0, 0))
    own = one.view
    x, y, wide, high = cv2.boundingRect((shade > FAINT / 2).astype(np.uint8))
    if own is None or not wide:
        return nothing
    shade = shade[y : y + high, x : x + wide]
    back = np.array([[1 / scales[0], 0, one.corner[0]], [0, 1 / scales[1], one.corner[1]], [0, 0, 1]])
    back = back @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    corners = np.array([[0.0, 0], [wide, 0], [wide, high], [0, high]])
    ends = through(back, corners)
    near = own.rays(ends[:, 0], ends[:, 1]) @ np.array(own.n) / (own.rays(*one.stand) @ np.array(own.n))
    if near.min() < 0.25:
        # nearness is linear in the pixel, so that its corners say it everywhere
        ramp = cv2.resize(near[[0, 1, 3, 2]].reshape(2, 2).astype(np.float32), (2 * wide, 2 * high))
        ramp = ramp[high // 2 : high // 2 + high, wide // 2 : wide // 2 + wide]
        shade = shade * np.clip((ramp - 0.1) / 0.15, 0, 1)
        kept = np.flatnonzero((ramp > 0.1).all(axis=1))
        if not len(kept):
            return nothing
        corners[:2, 1] = kept[0]
    forward = floor_to_floor(own, one.stand, view, foot, turn) @ back
    depth = np.column_stack([corners, np.ones(4)]) @ forward.T
    frame = (0, 0, *view.size)
    if (depth[:, 2] > 0).all():
        marks = through(forward, corners)
        low, high_ = np.floor(marks.min(axis=0)) - 1, np.ceil(marks.max(axis=0)) + 1
        bounds = np.clip([*low, *high_], -1e6, 1e6).astype(int)
        window = clipped([int(v) for v in bounds], (view.size[1], view.size[0]))
    else:
        window = frame
    if window[0] >= window[2] or window[1] >= window[3]:
        return nothing
    to_centres = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # warpPerspective counts pixels from their centres
    shift = np.array([[1, 0, -window[0]], [0, 1, -window[1]], [0, 0, 1.0]])
    matrix = np.linalg.inv(to_centres) @ shift @ forward @ to_centres
    size = (window[2] - window[0], window[3] - window[1])
    laid = cv2.warpPerspective(np.ascontiguousarray(shade, np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    xs, ys = np.meshgrid([window[0], window[2]], [window[1], window[3]])
    if view.density(xs, ys).min() <= 0:  # above the horizon the map comes back from behind the camera
        gx, gy = np.meshgrid(np.arange(window[0], window[2]), np.arange(window[1], window[3]))
        laid = np.where(view.density(gx, gy) > 0, laid, 0)
    return np.asarray(laid, np.float32), window


def lay(
    one: Cutout,
    spot: Spot,
    picture: Array,
    view: View | None = None,
    turn: float = 0.0,
    matching: Matching | None = None,
    rng: np.random.Generator | None = None,
) -> Layer | None:
    """The cut-out with its foot on a pixel of the background; None when nothing of the object is inside.

    Its shadow is laid on the background's floor where both floors are known, else it is scaled with the object.

    Args:
        picture: (h, w, 3) uint8, the background. view: its floor, in metres, None to scale the shadow.
        turn: degrees by which the shadow is turned about the foot. matching: None leaves the colours.
    """
    warped = view is not None and one.view is not None and one.density is not None
    height, width = one.solid.shape
    size = (max(1, round(width * spot.scale)), max(1, round(height * spot.scale)))
    parts = layers_of(one, warped)
    colour, alpha, shade = (resized(values, size) for values in parts[:3])
    light = None if parts[3] is None else resized(parts[3], size)
    solid = resized(one.solid.astype(np.float32), size) >= 0.5
    if not solid.any():
        return None
    alpha = np.clip(alpha, 0, 1)
    own_x, own_y = foot_of(solid)
    left, top = round(spot.foot[0] + 0.5 - own_x), round(spot.foot[1] + 1 - own_y)
    whole = (left, top, left + size[0], top + size[1])
    window = clipped(whole, picture.shape)
    box = mask_box(solid)
    placed = (left + box[0], top + box[1], left + box[2], top + box[3])
    inside = clipped(placed, picture.shape)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return None
    if matching is not None and rng is not None:
        colour, light = matched(colour, alpha, solid, light, picture, inside, matching, rng)
    if warped:
        assert view is not None
        assert one.view is not None
        assert one.density is not None
        factor = spot.scale * one.density / float(view.density(spot.foot[0] + 0.5, spot.foot[1] + 1.0))
        scales = (size[0] / width, size[1] / height)
        foot = (left + one.foot[0] * scales[0], top + one.foot[1] * scales[1])
        grown = replace(one, view=one.view.scaled(factor))
        shade, shade_window = floor_shadow(shade, grown, scales, foot, view, turn)
    else:
        shade, shade_window = part(shade, whole, window), window
    return Layer(
        cutout=one,
        spot=spot,
        box=placed,
        window=window,
        colour=part(colour, whole, window),
        alpha=part(alpha, whole, window),
        solid=part(solid, whole, window),
        light=None if light is None else part(light, whole, window),
        shade_window=shade_window,
        shade=shade,
        pixels=int(solid.sum()),
    )


def matched(
    colour: Array,
    alpha: Array,
    solid: Array,
    light: Array | None,
    picture: Array,
    inside: Box,
    how: Matching,
    rng: np.random.Generator,
) -> tuple[Array, Array | None]:
    """Body colour (multiplied by alpha) and light, brought towards the background around the object's box."""
    wide, high = inside[2] - inside[0], inside[3] - inside[1]
    x0, y0, x1, y1 = clipped(
        (inside[0] - wide // 2, inside[1] - high // 4, inside[2] + wide // 2, inside[3] + high // 4), picture.shape
    )
    near = np.ascontiguousarray(picture[y0:y1, x0:x1])
    bx0, by0, bx1, by1 = mask_box(solid)
    within = solid[by0:by1, bx0:bx1]
    shown = colour[by0:by1:2, bx0:bx1:2][within[::2, ::2]]
    mood = how.mood
    factors = gains(shown, mood, near[::2, ::2], how.strength, how.exposure, how.balance)
    colour = np.minimum(colour * factors, 255)
    if how.strength > 0 and mood.hue < 1:  # a coloured thing in a black and white photo
        colour = colour * mood.hue + (1 - mood.hue) * (colour @ LUMA)[..., None]
    body = colour[by0:by1, bx0:bx1]
    if how.grain > 0:
        covered = alpha[by0:by1, bx0:bx1]
        own, wanted = grain_of(body, within), min(grain_of(near), mood.grain)
        colour[by0:by1, bx0:bx1] = matched_grain(body, covered, own, wanted, how.grain, rng)
    return colour, None if light is None else light * factors


def transmission(layers: Sequence[Layer], window: Box) -> Array:
    """(h, w) float32: the share of its light that the floor in a window keeps.

    Where shadows meet, the darkest counts: one sun, and light that is gone is not taken twice.
    """
    kept = np.ones((window[3] - window[1], window[2] - window[0]), np.float32)
    for layer in layers:
        if (box := meet(layer.shade_window, window)) is not None:
            at = part(kept, window, box)
            np.minimum(at, 1 - part(layer.shade, layer.shade_window, box), out=at)
    return kept


def paint(background: Array, layers: Sequence[Layer], window: Box) -> Array:
    """(h, w, 3) float32: the window of the background with the layers, far to near, in it.

    First the floor: its light, less the shadows, plus what objects mirror onto it. Then what stands, so that no shadow
    on the floor darkens who stands before it: colour * alpha + (1 - alpha) * what is behind.
    """
    out = background[window[1] : window[3], window[0] : window[2]] * transmission(layers, window)[..., None]
    for layer in layers:
        if layer.light is not None and (box := meet(layer.window, window)) is not None:
            part(out, window, box)[...] += part(layer.light, layer.window, box)
    for layer in layers:
        if (box := meet(layer.window, window)) is not None:
            at = part(out, window, box)
            at *= 1 - part(layer.alpha, layer.window, box)[..., None]
            at += part(layer.colour, layer.window, box)
    return np.asarray(np.clip(out, 0, 255), np.float32)


def visible(layers: Sequence[Layer], number: int, window: Box) -> Array:
    """(h, w) float32: the share of each pixel in a window that nearer objects leave free."""
    free = np.ones((window[3] - window[1], window[2] - window[0]), np.float32)
    for near in layers[number + 1 :]:
        if (box := meet(near.window, window)) is not None:
            part(free, window, box)[...] *= 1 - part(near.alpha, near.window, box)
    return free


def triplet(background: Array, layers: Sequence[Layer], removed: int) -> tuple[Array, Array, Array, Array]:
    """Source, target, visible M_o and visible M_fg of the removed layer.

    M_fg holds what the removed object changes: itself, the shadow that no other shadow already makes, its light on
    the floor; and nothing that a nearer object hides. A pixel that a nearer object's edge half covers may be in it.

    Args:
        background: (h, w, 3) uint8. layers: far to near. removed: index of the one that goes.

    Returns:
        source and target (h, w, 3) uint8, equal to the last bit outside the foreground mask; masks (h, w) bool that
        exclude what a nearer object hides.
    """
    gone, others = layers[removed], [one for k, one in enumerate(layers) if k != removed]
    target = background.copy()
    if others:
        x0, y0, x1, y1 = around([box for one in others for box in (one.window, one.shade_window)])
        target[y0:y1, x0:x1] = np.rint(paint(background, others, (x0, y0, x1, y1)))
    window = around([gone.window, gone.shade_window])
    x0, y0, x1, y1 = window
    free = visible(layers, removed, window)
    lost = transmission(others, window) - transmission(layers, window)
    here = lost * free > FAINT
    own = free > 0.5
    body = part(here, window, gone.window)
    seen = part(free, window, gone.window)
    body |= gone.alpha * seen > FAINT
    if gone.light is not None:
        body |= gone.light.max(axis=2) * seen > DIM
    sure = lost * free > CERTAIN
    certain = part(sure, window, gone.window)
    certain |= gone.alpha * seen > CERTAIN
    # the end of a soft shadow frays into specks, which no mask should have; thin legs and strands stay
    smooth = np.asarray(cv2.medianBlur(here.astype(np.uint8), 7), np.uint8) > 0
    here = (smooth & (free > FAINT)) | (here & sure)
    mask, foreground = np.zeros(background.shape[:2], bool), np.zeros(background.shape[:2], bool)
    wx0, wy0, wx1, wy1 = gone.window
    mask[wy0:wy1, wx0:wx1] = gone.solid & part(own, window, gone.window)
    foreground[y0:y1, x0:x1] = here
    foreground |= mask
    full = np.rint(paint(background, layers, window)).astype(np.uint8)
    source = target.copy()
    np.copyto(source[y0:y1, x0:x1], full, where=foreground[y0:y1, x0:x1, None])
    return source, target, mask, foreground
