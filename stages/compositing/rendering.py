"""Rendering of cut-outs: objects, their effects on the ground plane, occlusion, and the triplet.

Everything works on windows: a 512 px picture with one chair costs what the chair costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import Box, Cutout, find_contact_point, find_mask_box, split_layers
from rasura.stages.compositing.harmonize import LUMA, ColorStatistics, compute_gains, estimate_grain, match_grain
from rasura.stages.compositing.placement import Placement
from rasura.stages.compositing.projection import View, apply_homography, compute_transfer_homography

Array = npt.NDArray[Any]

CERTAIN_EFFECT = 0.08  # effects this strong are in the mask, however thin they are
MIN_ALPHA = 2 / 255  # below it a layer leaves no trace that a mask should hold
MIN_LIGHT = 1.5  # levels of added light below which it leaves none
TO_CENTRES = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # warpPerspective counts pixels from their centres


@dataclass(frozen=True, eq=False)
class HarmonizeSettings:
    """How far colour and grain may go towards the background's; see `compositing.harmonize`."""

    statistics: ColorStatistics
    strength: float = 0.4
    exposure: float = 0.2
    balance: float = 0.05
    grain: float = 3.0


@dataclass(frozen=True, eq=False)
class Layer:
    """A placed cut-out. Its arrays are clipped to the frame: `window` and `shadow_window` say which part they cover."""

    cutout: Cutout
    placement: Placement
    box: Box  # of the object, on the background, not clipped
    window: Box
    colour: Array  # (h, w, 3) float32 0-255, multiplied by alpha
    alpha: Array  # (h, w) float32
    object_mask: Array  # (h, w) bool
    reflection: Array | None  # (h, w, 3) float32, light added to the ground
    shadow_window: Box
    shadow: Array  # (h', w') float32: share of the light that the ground loses
    object_pixels: int  # of the complete object, also beyond the frame


def clip_box(box: Sequence[int], shape: Sequence[int]) -> Box:
    """Return the part of a box inside (height, width); empty ones have no area.

    Examples:
        >>> clip_box((-5, 10, 50, 300), (240, 320))
        (0, 10, 50, 240)
    """
    x0, y0 = min(max(box[0], 0), shape[1]), min(max(box[1], 0), shape[0])
    return x0, y0, max(x0, min(box[2], shape[1])), max(y0, min(box[3], shape[0]))


def crop_window(values: Array, box: Box, window: Box) -> Array:
    """Return the part of `values`, which cover `box`, that is in `window` (a box inside `box`)."""
    return values[window[1] - box[1] : window[3] - box[1], window[0] - box[0] : window[2] - box[0]]


def intersect_boxes(first: Box, second: Box) -> Box | None:
    """Return the box that two share, None when there is none.

    Examples:
        >>> intersect_boxes((0, 0, 10, 10), (5, 5, 20, 20)), intersect_boxes((0, 0, 5, 5), (5, 0, 9, 5))
        ((5, 5, 10, 10), None)
    """
    box = (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None


def enclose_boxes(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all that have an area.

    Examples:
        >>> enclose_boxes([(0, 0, 4, 4), (7, 7, 7, 9), (2, 2, 6, 5)])
        (0, 0, 6, 5)
    """
    solid = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    if not solid:
        return 0, 0, 0, 0
    low, high = np.array(solid)[:, :2].min(axis=0), np.array(solid)[:, 2:].max(axis=0)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def resize(values: Array, size: tuple[int, int]) -> Array:
    """Resize (h, w) or (h, w, c) float32 to (width, height).

    Colours have to be multiplied by alpha: what is under clear pixels would bleed in as a fringe.
    """
    if size == (values.shape[1], values.shape[0]):
        return values
    shrinks = size[0] < values.shape[1]
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def project_shadow(
    shadow: Array, cutout: Cutout, scales: tuple[float, float], foot: tuple[float, float], view: View, turn: float
) -> tuple[Array, Box]:
    """Project a cut-out's shadow onto another ground plane; return it clipped to the frame, and its box.

    The part near the horizon of the cut-out's own photo is left out: it would be drawn out without end.

    Args:
        shadow: (h, w) float32, the crop's, `scales` times as large as it was cut. foot: on the background, px.
        view: the background's; `cutout.view` counts in the same unit. turn: degrees, see `compute_transfer_homography`.
    """
    nothing: tuple[Array, Box] = (np.zeros((0, 0), np.float32), (0, 0, 0, 0))
    photo_view = cutout.view
    x, y, width, height = cv2.boundingRect((shadow > MIN_ALPHA / 2).astype(np.uint8))
    if photo_view is None or not width:
        return nothing
    shadow = shadow[y : y + height, x : x + width]
    (left, top), contact = cutout.crop_origin, cutout.photo_contact_point
    to_photo = np.array([[1 / scales[0], 0, left], [0, 1 / scales[1], top], [0, 0, 1]])
    to_photo = to_photo @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    corners = np.array([[0.0, 0], [width, 0], [width, height], [0, height]])
    photo_corners = apply_homography(to_photo, corners)
    normal = np.array(photo_view.normal)
    near = photo_view.rays(photo_corners[:, 0], photo_corners[:, 1]) @ normal / (photo_view.rays(*contact) @ normal)
    if near.min() < 0.25:
        # nearness is linear in the pixel, so that its corners determine it everywhere
        ramp = cv2.resize(near[[0, 1, 3, 2]].reshape(2, 2).astype(np.float32), (2 * width, 2 * height))
        ramp = ramp[height // 2 : height // 2 + height, width // 2 : width // 2 + width]
        shadow = shadow * np.clip((ramp - 0.1) / 0.15, 0, 1)
        rows = np.flatnonzero((ramp > 0.1).all(axis=1))
        if not len(rows):
            return nothing
        corners[:2, 1] = rows[0]
    forward = compute_transfer_homography(photo_view, contact, view, foot, turn) @ to_photo
    window = find_projected_window(forward, corners, view.size)
    if window[0] >= window[2] or window[1] >= window[3]:
        return nothing
    shift = np.array([[1, 0, -window[0]], [0, 1, -window[1]], [0, 0, 1.0]])
    matrix = np.linalg.inv(TO_CENTRES) @ shift @ forward @ TO_CENTRES
    size = (window[2] - window[0], window[3] - window[1])
    projected = cv2.warpPerspective(np.ascontiguousarray(shadow, np.float32), matrix, size, flags=cv2.INTER_LINEAR)
    xs, ys = np.meshgrid([window[0], window[2]], [window[1], window[3]])
    if view.pixels_per_unit(xs, ys).min() <= 0:  # above the horizon the map comes back from behind the camera
        gx, gy = np.meshgrid(np.arange(window[0], window[2]), np.arange(window[1], window[3]))
        projected = np.where(view.pixels_per_unit(gx, gy) > 0, projected, 0)
    return np.asarray(projected, np.float32), window


def find_projected_window(matrix: Array, corners: Array, size: tuple[int, int]) -> Box:
    """Return the box, inside a frame of (width, height), that a (4, 2) quadrilateral covers under a homography."""
    depth = np.column_stack([corners, np.ones(4)]) @ matrix.T
    if not (depth[:, 2] > 0).all():
        return 0, 0, *size
    mapped = apply_homography(matrix, corners)
    low, high = np.floor(mapped.min(axis=0)) - 1, np.ceil(mapped.max(axis=0)) + 1
    bounds = np.clip([*low, *high], -1e6, 1e6).astype(int)
    return clip_box([int(v) for v in bounds], (size[1], size[0]))


def render_foreground(
    cutout: Cutout,
    placement: Placement,
    picture: Array,
    view: View | None = None,
    turn: float = 0.0,
    settings: HarmonizeSettings | None = None,
    rng: np.random.Generator | None = None,
) -> Layer | None:
    """Render a cut-out with its contact point on a pixel of the background; None when all of it is outside.

    Its shadow is projected onto the background's ground plane where both planes are available, else it is scaled with
    the object.

    Args:
        picture: (h, w, 3) uint8, the background. view: its ground plane, in metres, None to scale the shadow.
        turn: degrees by which the shadow is rotated about the foot. settings: None leaves the colours.
    """
    if view is None or cutout.view is None or cutout.pixels_per_metre is None:
        metres = None
    else:
        metres = (view, cutout.view, cutout.pixels_per_metre)
    height, width = cutout.object_mask.shape
    size = (max(1, round(width * placement.scale)), max(1, round(height * placement.scale)))
    parts = split_layers(cutout, metres is not None)
    colour, alpha, shadow = (resize(values, size) for values in parts[:3])
    reflection = None if parts[3] is None else resize(parts[3], size)
    mask = resize(cutout.object_mask.astype(np.float32), size) >= 0.5
    if not mask.any():
        return None
    alpha = np.clip(alpha, 0, 1)
    foot_x, foot_y = find_contact_point(mask)
    left = round(placement.contact_point[0] + 0.5 - foot_x)
    top = round(placement.contact_point[1] + 1 - foot_y)
    crop_box = (left, top, left + size[0], top + size[1])
    window = clip_box(crop_box, picture.shape)
    box = find_mask_box(mask)
    object_box = (left + box[0], top + box[1], left + box[2], top + box[3])
    inside = clip_box(object_box, picture.shape)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return None
    if settings is not None and rng is not None:
        colour, reflection = harmonize_foreground(colour, alpha, mask, reflection, picture, inside, settings, rng)
    if metres is not None:
        shadow, shadow_window = _transfer_shadow(shadow, cutout, placement, (left, top), size, metres, turn)
    else:
        shadow, shadow_window = crop_window(shadow, crop_box, window), window
    return Layer(
        cutout=cutout,
        placement=placement,
        box=object_box,
        window=window,
        colour=crop_window(colour, crop_box, window),
        alpha=crop_window(alpha, crop_box, window),
        object_mask=crop_window(mask, crop_box, window),
        reflection=None if reflection is None else crop_window(reflection, crop_box, window),
        shadow_window=shadow_window,
        shadow=shadow,
        object_pixels=int(mask.sum()),
    )


def _transfer_shadow(
    shadow: Array,
    cutout: Cutout,
    placement: Placement,
    origin: tuple[int, int],
    size: tuple[int, int],
    metres: tuple[View, View, float],
    turn: float,
) -> tuple[Array, Box]:
    """Project the shadow of a cut-out that was resized to `size`, so large that it fits the object beside it.

    Args:
        origin: of the resized crop on the background. metres: view of the background, view and pixels per metre of the
            cut-out.
    """
    view, photo_view, pixels_per_metre = metres
    x, y = placement.contact_point
    factor = placement.scale * pixels_per_metre / float(view.pixels_per_unit(x + 0.5, y + 1.0))
    height, width = cutout.object_mask.shape
    scales = (size[0] / width, size[1] / height)
    foot = (origin[0] + cutout.contact_point[0] * scales[0], origin[1] + cutout.contact_point[1] * scales[1])
    return project_shadow(shadow, replace(cutout, view=photo_view.rescale(factor)), scales, foot, view, turn)


def harmonize_foreground(
    colour: Array,
    alpha: Array,
    mask: Array,
    reflection: Array | None,
    picture: Array,
    inside: Box,
    settings: HarmonizeSettings,
    rng: np.random.Generator,
) -> tuple[Array, Array | None]:
    """Bring object colour (multiplied by alpha) and reflection towards the background around the object.

    Args:
        mask: (h, w) bool, the object. picture: (h, w, 3) uint8, the background. inside: the object's box on it.
    """
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    x0, y0, x1, y1 = clip_box(
        (inside[0] - width // 2, inside[1] - height // 4, inside[2] + width // 2, inside[3] + height // 4),
        picture.shape,
    )
    near = np.ascontiguousarray(picture[y0:y1, x0:x1])
    bx0, by0, bx1, by1 = find_mask_box(mask)
    cropped_mask = mask[by0:by1, bx0:bx1]
    object_colours = colour[by0:by1:2, bx0:bx1:2][cropped_mask[::2, ::2]]
    statistics = settings.statistics
    strength = settings.strength
    factors = compute_gains(object_colours, statistics, near[::2, ::2], strength, settings.exposure, settings.balance)
    colour = np.minimum(colour * factors, 255)
    colourfulness = statistics.colourfulness
    if strength > 0 and colourfulness < 1:  # a coloured object in a black and white photo
        colour = colour * colourfulness + (1 - colourfulness) * (colour @ LUMA)[..., None]
    body = colour[by0:by1, bx0:bx1]
    if settings.grain > 0:
        present = estimate_grain(body, cropped_mask)
        target = min(estimate_grain(near), statistics.grain)
        cropped_alpha = alpha[by0:by1, bx0:bx1]
        colour[by0:by1, bx0:bx1] = match_grain(body, cropped_alpha, present, target, settings.grain, rng)
    return colour, None if reflection is None else reflection * factors


def compute_transmission(layers: Sequence[Layer], window: Box) -> Array:
    """Compute the share of its light that the ground in a window keeps, (h, w) float32.

    Where shadows meet, the darkest counts: one sun, and light that is gone is not taken twice.
    """
    transmission = np.ones((window[3] - window[1], window[2] - window[0]), np.float32)
    for layer in layers:
        if (box := intersect_boxes(layer.shadow_window, window)) is not None:
            target = crop_window(transmission, window, box)
            np.minimum(target, 1 - crop_window(layer.shadow, layer.shadow_window, box), out=target)
    return transmission


def paint_layers(background: Array, layers: Sequence[Layer], window: Box) -> Array:
    """Paint the layers, far to near, over a window of the background, (h, w, 3) float32.

    First the ground: its light, less the shadows, plus what objects mirror onto it. Then the objects, so that no shadow
    on the ground darkens who stands before it: colour * alpha + (1 - alpha) * what is behind.
    """
    out = background[window[1] : window[3], window[0] : window[2]] * compute_transmission(layers, window)[..., None]
    for layer in layers:
        if layer.reflection is not None and (box := intersect_boxes(layer.window, window)) is not None:
            crop_window(out, window, box)[...] += crop_window(layer.reflection, layer.window, box)
    for layer in layers:
        if (box := intersect_boxes(layer.window, window)) is not None:
            target = crop_window(out, window, box)
            target *= 1 - crop_window(layer.alpha, layer.window, box)[..., None]
            target += crop_window(layer.colour, layer.window, box)
    return np.asarray(np.clip(out, 0, 255), np.float32)


def compute_visibility(layers: Sequence[Layer], index: int, window: Box) -> Array:
    """Compute the share of each pixel in a window that objects nearer than a layer leave free, (h, w) float32."""
    free = np.ones((window[3] - window[1], window[2] - window[0]), np.float32)
    for near in layers[index + 1 :]:
        if (box := intersect_boxes(near.window, window)) is not None:
            crop_window(free, window, box)[...] *= 1 - crop_window(near.alpha, near.window, box)
    return free


def compose_triplet(background: Array, layers: Sequence[Layer], removed: int) -> tuple[Array, Array, Array, Array]:
    """Compose source, target, visible M_o and visible M_fg of the removed layer.

    M_fg holds what the removed object changes: itself, the shadow that no other shadow already makes, its light on
    the ground; and nothing that a nearer object hides. A pixel that a nearer object's edge half covers may be in it.

    Args:
        background: (h, w, 3) uint8. layers: far to near. removed: index of the one that is removed.

    Returns:
        source and target (h, w, 3) uint8, equal to the last bit outside the foreground mask; masks (h, w) bool that
        exclude what a nearer object hides.
    """
    layer, others = layers[removed], [other for k, other in enumerate(layers) if k != removed]
    target = background.copy()
    if others:
        x0, y0, x1, y1 = enclose_boxes([box for other in others for box in (other.window, other.shadow_window)])
        target[y0:y1, x0:x1] = np.rint(paint_layers(background, others, (x0, y0, x1, y1)))
    window = enclose_boxes([layer.window, layer.shadow_window])
    x0, y0, x1, y1 = window
    free = compute_visibility(layers, removed, window)
    lost_light = compute_transmission(others, window) - compute_transmission(layers, window)
    visible = crop_window(free, window, layer.window)
    changes = lost_light * free > MIN_ALPHA
    object_changes = crop_window(changes, window, layer.window)
    object_changes |= layer.alpha * visible > MIN_ALPHA
    if layer.reflection is not None:
        object_changes |= layer.reflection.max(axis=2) * visible > MIN_LIGHT
    certain = lost_light * free > CERTAIN_EFFECT
    certain_object = crop_window(certain, window, layer.window)
    certain_object |= layer.alpha * visible > CERTAIN_EFFECT
    # the end of a soft shadow frays into specks, which no mask should have; thin legs and strands stay
    smooth = np.asarray(cv2.medianBlur(changes.astype(np.uint8), 7), np.uint8) > 0
    changes = (smooth & (free > MIN_ALPHA)) | (changes & certain)
    mask, foreground = np.zeros(background.shape[:2], bool), np.zeros(background.shape[:2], bool)
    wx0, wy0, wx1, wy1 = layer.window
    mask[wy0:wy1, wx0:wx1] = layer.object_mask & (visible > 0.5)
    foreground[y0:y1, x0:x1] = changes
    foreground |= mask
    full = np.rint(paint_layers(background, layers, window)).astype(np.uint8)
    source = target.copy()
    np.copyto(source[y0:y1, x0:x1], full, where=foreground[y0:y1, x0:x1, None])
    return source, target, mask, foreground
