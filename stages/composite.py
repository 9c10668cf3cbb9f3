"""Foregrounds onto a background: a triplet with an exact answer (OBER's simulated part).

A foreground is an RGBA crop: the object with alpha 1 and its own colour, its shadow black with the alpha of OBER's
Eq. 1, so that laying it over gives (1 - alpha) * background in the shadow. Of one or two foregrounds one is removed;
the other stays in the target with its own shadow.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from manifests.schemas import Kind, Schema
from stages import stage
from stages.stage import Kept, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]

FAINT = 2 / 255  # alpha below which a layer leaves no trace that a mask should hold


@dataclass(frozen=True, eq=False)
class Layer:
    """A placed foreground, cut to the background's frame. Arrays cover rows y0.., columns x0.. of the background."""

    id: str
    label: str | None
    colour: Array  # (h, w, 3) float32 0-255, already multiplied by alpha
    alpha: Array  # (h, w) float32 0-1
    solid: Array  # (h, w) bool: the object itself
    x0: int
    y0: int
    foot: tuple[float, float]  # x, y on the background
    scale: float
    box: tuple[int, int, int, int]  # of the object, on the background, x0, y0, x1, y1 (not cut)

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.alpha.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def mask_box(mask: Array) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 (exclusive) of the True pixels of (h, w).

    Raises:
        ValueError: there are none.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        raise ValueError("the object mask of a foreground is empty")
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def foot_of(solid: Array) -> tuple[float, float]:
    """Where the object stands, x, y in the crop: middle of its lowest twentieth, just below its last row."""
    _, y0, _, y1 = mask_box(solid)
    band = solid[max(y0, y1 - max(1, (y1 - y0) // 20)) : y1]
    return float(np.median(np.nonzero(band)[1])) + 0.5, float(y1)


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


def at_frame(
    foot: tuple[int, int], sides: frozenset[str], solid: Array, scale: float, size: tuple[int, int]
) -> tuple[int, int]:
    """The foot moved so that an object's cut sides lie on the frame. `size` is the background's (width, height)."""
    x0, y0, x1, y1 = mask_box(solid)
    own_x, _ = foot_of(solid)
    x, y = foot
    if "left" in sides:
        x = int((own_x - x0) * scale)
    elif "right" in sides:
        x = int(size[0] - (x1 - own_x) * scale)
    if "bottom" in sides:
        y = size[1] - 1
    elif "top" in sides:
        y = int((y1 - y0) * scale) - 1
    return x, y


def natural_scale(
    foot: tuple[float, float],
    own_foot: tuple[float, float],
    own_size: tuple[float, float],
    size: tuple[float, float],
    ground_scale: Sequence[float],
) -> float:
    """How many background pixels one pixel of the foreground should be.

    Nobody knows the object's metres, but its photo shows how large it was where it stood. It keeps that share of the
    frame at the same place of the new frame, and elsewhere grows with the ground's pixels per metre:
    s = frame ratio * ppm(foot) / ppm(own place), ppm(x, y) = a x + b y + c.

    Args:
        foot: on the background, px. own_foot: on its own photo, px. own_size, size: (width, height) of both photos.

    Returns:
        0 where the ground has no scale (on or above the horizon).
    """
    a, b, c = ground_scale
    width, height = size
    ratio = min(width / own_size[0], height / own_size[1])
    own = (own_foot[0] / own_size[0] * width, own_foot[1] / own_size[1] * height)
    bottom = a * width / 2 + b * height + c
    here, there = a * foot[0] + b * foot[1] + c, a * own[0] + b * own[1] + c
    if here <= 0 or bottom <= 0:
        return 0.0
    return float(ratio * here / max(there, 0.25 * bottom))  # its own place may lie above this photo's horizon


def resized(rgba: Array, solid: Array, scale: float) -> tuple[Array, Array, Array]:
    """Premultiplied colour (h, w, 3) float32, alpha (h, w) float32 0-1 and object mask (h, w), `scale` times as large.

    Colours are multiplied by alpha before they are averaged; otherwise what lies under transparent pixels bleeds in
    as a dark or bright fringe.
    """
    height, width = solid.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    alpha = rgba[..., 3].astype(np.float32) / 255
    colour = rgba[..., :3].astype(np.float32) * alpha[..., None]
    stack: Array = np.dstack([colour, alpha])
    inside: Array = solid.astype(np.float32)
    if size != (width, height):
        stack, inside = (cv2.resize(part, size, interpolation=how) for part in (stack, inside))
    alpha = np.clip(stack[..., 3], 0, 1)
    return np.clip(stack[..., :3], 0, 255 * alpha[..., None]), alpha, inside >= 0.5


def place(foreground: Mapping[str, Any], foot: tuple[int, int], scale: float, shape: tuple[int, int]) -> Layer | None:
    """The foreground with its foot on a pixel of the background, cut to the frame; None when nothing is inside."""
    solid = np.asarray(foreground["foreground_object"])
    colour, alpha, placed = resized(np.asarray(foreground["foreground"]), solid, scale)
    if not placed.any():
        return None
    own_x, own_y = foot_of(placed)
    left, top = round(foot[0] + 0.5 - own_x), round(foot[1] + 1 - own_y)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(shape[1], left + alpha.shape[1]), min(shape[0], top + alpha.shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    bx0, by0, bx1, by1 = mask_box(placed)
    return Layer(
        id=str(foreground["id"]),
        label=foreground.get("label"),
        colour=colour[cut],
        alpha=alpha[cut],
        solid=placed[cut],
        x0=x0,
        y0=y0,
        foot=(float(foot[0]), float(foot[1])),
        scale=scale,
        box=(left + bx0, top + by0, left + bx1, top + by1),
    )


def stands(layer: Layer, ground: Array, share: float) -> bool:
    """Whether at least `share` of the object's base (its lowest twentieth, one row below) is on the ground mask."""
    height, width = ground.shape
    _, y0, _, y1 = layer.box
    band = np.nonzero(layer.solid[max(0, y1 - max(1, (y1 - y0) // 20) - layer.y0) : y1 - layer.y0].any(axis=0))[0]
    if not len(band) or not 0 < y1 <= height + 2:
        return False
    columns = np.clip(band + layer.x0, 0, width - 1)
    return bool(ground[min(y1, height - 1), columns].mean() >= share)


def overlap(box: Sequence[int], other: Sequence[int]) -> float:
    """Share of `other` that `box` covers."""
    wide = min(box[2], other[2]) - max(box[0], other[0])
    high = min(box[3], other[3]) - max(box[1], other[1])
    area = (other[2] - other[0]) * (other[3] - other[1])
    return max(0, wide) * max(0, high) / area if area > 0 else 0.0


def compose(background: Array, layers: Sequence[Layer]) -> Array:
    """(h, w, 3) float32: the layers over the background, in order: colour * alpha + (1 - alpha) * what is under."""
    out = background.astype(np.float32)
    for layer in layers:
        out[layer.window] = layer.colour + (1 - layer.alpha[..., None]) * out[layer.window]
    return out


def triplet(background: Array, layers: Sequence[Layer], removed: int) -> tuple[Array, Array, Array, Array]:
    """Source, target, visible M_o and visible M_fg of the removed layer.

    Args:
        background: (h, w, 3) uint8. layers: far to near. removed: index of the one that goes.

    Returns:
        source and target (h, w, 3) uint8, equal to the last bit outside the foreground mask; masks (h, w) bool that
        exclude what a nearer object hides.
    """
    layer = layers[removed]
    target = np.rint(compose(background, [one for k, one in enumerate(layers) if k != removed])).astype(np.uint8)
    full = np.rint(compose(background, layers)).astype(np.uint8)
    seen = np.ones(background.shape[:2], np.float32)
    for near in layers[removed + 1 :]:
        # a nearer object hides; its shadow only falls on what is there
        seen[near.window] *= 1 - near.alpha * cv2.dilate(near.solid.astype(np.uint8), np.ones((3, 3), np.uint8))
    mask = np.zeros(background.shape[:2], bool)
    mask[layer.window] = layer.solid & (seen[layer.window] > 0.5)
    foreground = mask.copy()
    foreground[layer.window] |= layer.alpha * seen[layer.window] > FAINT
    source = target.copy()
    source[foreground] = full[foreground]
    return source, target, mask, foreground


class CompositeParams(stage.Params):
    tries: int = Field(60, ge=1, description="Positions that are tried for each foreground.")
    overlap: float = Field(0.5, ge=0, le=1, description="Share of another object's box that an object may cover.")
    on_ground: float = Field(0.8, ge=0, le=1, description="Share of an object's base that must be on the ground.")
    min_visible: float = Field(0.4, gt=0, le=1, description="Share of the removed object that must be seen.")
    min_height: float = Field(0.07, gt=0, le=1, description="Smallest object, share of the background's height.")
    max_height: float = Field(0.75, gt=0, description="Largest object, share of the background's height.")
    max_upscale: float = Field(1.3, gt=0, description="Enlargement above which an object would be blurred.")
    scale_jitter: float = Field(0.1, ge=0, description="Spread of the size around the natural one, log units.")
    allow_cut: bool = Field(True, description="Place objects that their photo's frame cut, at the same side again.")


class Composite(Stage):
    """Lays drawn foregrounds over a background and gives the triplet in which one of them is removed."""

    name = "composite"
    needs: ClassVar[Schema] = {"background": Kind.RGB, "ground_mask": Kind.MASK, "ground_scale": Kind.FLOATS}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "label": Kind.STRING,
        "placement": Kind.STRING,
    }
    drops: ClassVar[frozenset[str]] = frozenset(
        {"background", "ground_mask", "ground_rule", "ground_area", "ground_residual", "ground_scale", "foregrounds"}
    )
    Params = CompositeParams

    def position(
        self, record: Record, foreground: Mapping[str, Any], others: Sequence[Layer], rng: Any
    ) -> Layer | None:
        """A place that fits, or None after `tries`."""
        params: CompositeParams = self.params
        background, ground = record["background"], record["ground_mask"]
        height, width = ground.shape
        ys, xs = np.nonzero(ground)
        solid, box = np.asarray(foreground["foreground_object"]), foreground["foreground_box"]
        own_x, own_y = foot_of(solid)
        _, top, _, bottom = mask_box(solid)
        own_foot = (box[0] + own_x, box[1] + own_y)
        sides = cut_sides(solid, box, foreground["source_size"])
        if {"left", "right"} <= sides or {"top", "bottom"} <= sides:
            return None

        def scale_at(foot: tuple[int, int]) -> float:
            return natural_scale(foot, own_foot, foreground["source_size"], (width, height), record["ground_scale"])

        for pick in rng.integers(0, len(ys), params.tries):
            jitter = float(np.exp(np.clip(rng.normal(), -2, 2) * params.scale_jitter))
            foot = (int(xs[pick]), int(ys[pick]))
            scale = jitter * scale_at(foot)
            if sides:  # the place decides the size and the size the place: twice is near enough
                for _ in range(2):
                    foot = at_frame(foot, sides, solid, scale, (width, height))
                    scale = jitter * scale_at(foot)
                foot = at_frame(foot, sides, solid, scale, (width, height))
            tall = scale * (bottom - top)
            if not params.min_height * height <= tall <= params.max_height * height or scale > params.max_upscale:
                continue
            layer = place(foreground, foot, scale, background.shape[:2])
            if layer is None or not stands(layer, ground, params.on_ground):
                continue
            x0, y0, x1, y1 = layer.box
            slack = 2 if sides else 0  # rounding, where the frame cuts the object anyway
            if x0 < -slack or y0 < -slack or x1 > width + slack or y1 > height + slack:
                continue
            pairs = [(layer.box, other.box) for other in others]
            if all(overlap(a, b) <= params.overlap and overlap(b, a) <= params.overlap for a, b in pairs):
                return layer
        return None

    def process_one(self, record: Record) -> Outcome:
        params: CompositeParams = self.params
        foregrounds = record["foregrounds"]
        if not foregrounds:
            raise ValueError(f"record {record['id']} has no foregrounds to place")
        if not record["ground_mask"].any():
            return Rejected("no place", "the ground mask is empty")
        for one in foregrounds:
            solid = np.asarray(one["foreground_object"])
            if not params.allow_cut and cut_sides(solid, one["foreground_box"], one["source_size"]):
                return Rejected("cut object", f"{one['id']} touches the frame of its own photo")
        rng = self.rng(record)
        goes = int(rng.integers(len(foregrounds)))
        # the removed one may be hidden by the other beyond use: then both are placed anew
        for _ in range(4):
            layers: list[Layer] = []
            for one in foregrounds:
                layer = self.position(record, one, layers, rng)
                if layer is None:
                    return Rejected("no place", f"none of {params.tries} positions fits {one['id']}")
                layers.append(layer)
            gone = layers[goes]
            order = sorted(layers, key=lambda layer: layer.foot[1])  # stable: equal feet keep the drawn order
            source, target, mask, foreground_mask = triplet(record["background"], order, order.index(gone))
            if mask.sum() >= params.min_visible * gone.solid.sum():
                break
        else:
            return Rejected("no place", f"{gone.id} stays hidden behind the other object")
        placement = {
            "removed": gone.id,
            "order": [layer.id for layer in order],
            "objects": [
                {"id": o.id, "label": o.label, "foot": o.foot, "scale": round(o.scale, 6), "box": o.box} for o in order
            ],
        }
        out = {name: value for name, value in record.items() if name not in self.drops}
        out |= {"kind": "simulated", "source": source, "target": target, "mask": mask}
        out |= {"foreground_mask": foreground_mask, "label": gone.label, "placement": json.dumps(placement)}
        return Kept([out])
