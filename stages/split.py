"""Stage `split`: separates the cut-out of a pair into its objects, each with its own part of shadow and reflection.

Between the two frames of a pair several objects may have been removed at once; they are composited one by one.
"""

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.ids import make_child_id
from rasura.manifests.images import Mask
from rasura.manifests.schemas import PICTURES, PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.detect import ALL_DETECTIONS, read_detections
from rasura.stages.detectors.boxes import match_to_box
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

Labels = npt.NDArray[np.int32]
Layer = npt.NDArray[np.uint8]

SHARED_COLUMNS: Schema = {
    "detect_score": Kind.FLOAT,
    "shadow_azimuth": Kind.FLOAT,
    "shadow_elevation": Kind.FLOAT,
    "shadow_confidence": Kind.FLOAT,
    "shadow_cluster": Kind.INT,
    "shadow_softness": Kind.FLOAT,
    "ground_plane": Kind.FLOATS,
    "ground_focal": Kind.FLOAT,
    "ground_metric": Kind.BOOL,
    "ground_view_error": Kind.FLOAT,
    "ground_size_error": Kind.FLOAT,
}
"""Columns of a pair that are valid for each of its objects: one detection, one sun, one ground plane."""

MEASURED = frozenset(["depth-plane", "things", "drawn"])
"""Parts of `ground_rule` where the ground was measured, or drawn by a person."""


def label_objects(mask: Mask, gap: int, smallest: float) -> Labels:
    """Label the separate objects in a mask from 1, largest first; 0 elsewhere.

    Args:
        mask: (h, w) M_o.
        gap: px; pieces that are no farther apart are one object (a chair's legs).
        smallest: share of the largest object's area; a smaller piece belongs to the nearest object.

    Returns:
        (h, w) int32, 0 where `mask` is False.

    Examples:
        >>> mask = np.zeros((5, 60), bool)
        >>> mask[:, :10] = mask[:, 14:20] = mask[:, 50:] = True
        >>> label_objects(mask, gap=8, smallest=0.08)[0, [0, 15, 30, 55]].tolist()
        [1, 1, 0, 2]
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap + 1, gap + 1))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask.astype(np.uint8), kernel), connectivity=8)
    areas = np.bincount(labels[mask], minlength=len(stats)).astype(np.int64)
    areas[0] = 0
    order = [int(index) for index in np.argsort(-areas, kind="stable") if areas[index] >= smallest * areas.max()]
    seeds = np.zeros(mask.shape, np.int32)
    for label, index in enumerate(order, start=1):
        seeds[mask & (labels == index)] = label
    return np.where(mask, spread_labels(seeds), 0).astype(np.int32)


def spread_labels(seeds: Labels) -> Labels:
    """Give each pixel the label of the nearest labelled pixel. (h, w) int32 in and out; all 0 where there is none.

    Examples:
        >>> spread_labels(np.array([[1, 0, 0, 0, 0, 2]], np.int32)).tolist()
        [[1, 1, 1, 2, 2, 2]]
    """
    if not seeds.any():
        return seeds
    empty = (seeds == 0).astype(np.uint8)
    _, cells = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner = np.zeros(int(cells.max()) + 1, np.int32)
    owner[cells[empty == 0]] = seeds[empty == 0]
    return owner[cells]


def measure_frame_share(mask: Mask, box: tuple[int, int, int, int], size: tuple[int, int]) -> float:
    """Return the share of an object's outline on the frame of its picture: above about 2 % the object is cut off.

    Args:
        mask: (h, w) bool, the object inside its crop.
        box: the crop's x0, y0, x1, y1 in the picture.
        size: the picture's width and height.

    Examples:
        >>> measure_frame_share(np.ones((4, 4), bool), (0, 10, 4, 14), (100, 100))
        0.3333333333333333
    """
    on_frame = 0
    for edge, touches in (
        (mask[:, 0], box[0] <= 0),
        (mask[0], box[1] <= 0),
        (mask[:, -1], box[2] >= size[0]),
        (mask[-1], box[3] >= size[1]),
    ):
        on_frame += int(edge.sum()) if touches else 0
    outline = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) == 0)
    return on_frame / max(1, int(outline.sum()))


def find_content_box(drawn: Mask) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 (exclusive) of the part of a cut-out that is not empty."""
    ys, xs = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def clip_effects_to_ground(
    rgba: Layer, light: Layer, object_mask: Mask, ground: Mask, fade: float
) -> tuple[Layer, Layer, float]:
    """Remove the effects of a cut-out that are not on the ground.

    A shadow that fell on a wall or on a table would be on the ground wherever the cut-out is composited.

    Args:
        rgba: (h, w, 4) uint8, colours and alpha of the cut-out.
        light: (h, w, 3) uint8, light that it adds.
        object_mask: (h, w) bool, M_o of the cut-out.
        ground: (h, w) bool, the ground of its photo.
        fade: px over which the effects end.

    Returns:
        Colours and light, and the share of the shadow that stays (1 where there is none).
    """
    effect = ~object_mask & (rgba[..., :3].max(axis=2) == 0)
    near = cv2.GaussianBlur(ground.astype(np.float32), (0, 0), fade) if fade else ground.astype(np.float32)
    weight = np.where(effect, np.minimum(1, 2 * near), 1).astype(np.float32)
    rgba = rgba.copy()
    total = float(rgba[effect, 3].sum(dtype=np.float64))
    rgba[..., 3] = np.rint(rgba[..., 3] * weight).astype(np.uint8)
    faded_light = np.rint(light * weight[..., None]).astype(np.uint8)
    return rgba, faded_light, float(rgba[effect, 3].sum(dtype=np.float64)) / total if total else 1.0


def find_box_in_picture(solid: Mask, left: int, top: int) -> tuple[int, int, int, int]:
    """Return the box of an object in its picture, from its mask in a window at (left, top)."""
    x0, y0, x1, y1 = find_content_box(solid)
    return left + x0, top + y0, left + x1, top + y1


def name_object(record: Record, box: tuple[int, int, int, int], is_largest: bool) -> Record:
    """Return the label of an object of a pair, and its `detect_score` where the pair has one.

    Args:
        record: of the pair.
        box: of the object in the picture, x0, y0, x1, y1 px; without its effects.
        is_largest: the largest object of a pair whose picture was not searched has the pair's own label.
    """
    detections = read_detections(record)
    if detections is None:
        return {"label": record.get("label") if is_largest else None}
    best = match_to_box(detections, box)
    if best is None and is_largest:
        return {"label": record.get("label"), "detect_score": record.get("detect_score")}
    return {"label": best and best.label, "detect_score": best and best.score}


class SplitParams(stage.Params):
    floor_only: bool = Field(
        True, description="Remove effects off the ground, where `ground` measured it by depth or by objects."
    )
    fade: float = Field(6.0, ge=0, description="px over which effects end where the ground does.")
    gap: int = Field(8, ge=0, description="px between pieces that are still one object.")
    smallest: float = Field(
        0.08, ge=0, le=1, description="Share of the largest object below which a piece is no object."
    )


class Split(Stage):
    """Separates a pair's cut-out into its objects, one record each."""

    name = "split"
    version = "3"
    needs = {
        "source": Kind.RGB,
        "foreground": Kind.RGBA,
        "foreground_light": Kind.RGB,
        "foreground_object": Kind.MASK,
        "foreground_box": Kind.FLOATS,
    }
    gives = {
        "foreground": Kind.RGBA,
        "foreground_light": Kind.RGB,
        "foreground_object": Kind.MASK,
        "foreground_box": Kind.FLOATS,
        "foreground_cut": Kind.FLOAT,
        "foreground_area": Kind.FLOAT,
        "foreground_on_floor": Kind.FLOAT,  # share of its shadow on the ground, which was kept; null: not measured
        "picture_width": Kind.INT,
        "picture_height": Kind.INT,
        "label": Kind.STRING,
    }
    drops = frozenset({"kind"})  # it is no longer a triplet
    Params = SplitParams
    params: SplitParams

    def schema(self, columns: Schema) -> Schema:
        # the pair's other pictures stay in its own table: `parents` leads to them
        light = {name: kind for name, kind in columns.items() if kind not in PICTURES or name in self.needs}
        light = {name: kind for name, kind in light.items() if name not in ALL_DETECTIONS}
        return {name: kind for name, kind in super().schema(light).items() if name != "source"}

    def process_one(self, record: Record) -> Outcome:
        height, width = record["source"].shape[:2]
        labels = label_objects(record["foreground_object"], self.params.gap, self.params.smallest)
        if not labels.any():
            return Rejected("no object", "the cut-out's object mask is empty")
        regions = spread_labels(labels)
        left, top, right, bottom = (int(value) for value in record["foreground_box"])
        drawn_layers = {name: record[name] for name in ("foreground", "foreground_light")}
        on_ground: float | None = None
        ground = record.get("ground_mask")
        if (
            self.params.floor_only
            and ground is not None
            and not MEASURED.isdisjoint((record.get("ground_rule") or "").split(", "))
        ):
            colours, light = drawn_layers.values()
            window_ground = ground[top:bottom, left:right]
            colours, light, on_ground = clip_effects_to_ground(
                colours, light, record["foreground_object"], window_ground, self.params.fade
            )
            drawn_layers = {"foreground": colours, "foreground_light": light}
        objects = []
        for number in range(1, int(labels.max()) + 1):
            region, solid = regions == number, labels == number
            layers = {
                name: np.where(region[..., None], layer, 0).astype(np.uint8) for name, layer in drawn_layers.items()
            }
            drawn = (layers["foreground"][..., 3] > 0) | layers["foreground_light"].any(2) | solid
            x0, y0, x1, y1 = find_content_box(drawn)
            window = np.s_[y0:y1, x0:x1]
            mask, box = solid[window], (left + x0, top + y0, left + x1, top + y1)
            objects.append(
                {name: record.get(name) for name in PROVENANCE}
                | {name: record[name] for name in SHARED_COLUMNS if name in record}
                | {name: layer[window] for name, layer in layers.items()}
                | {
                    "id": make_child_id(record["id"], f"o{number - 1}"),
                    "foreground_object": mask,
                    "foreground_box": [float(value) for value in box],
                    "foreground_cut": measure_frame_share(mask, box, (width, height)),
                    "foreground_area": float(mask.sum()) / (height * width),
                    "foreground_on_floor": on_ground,
                    "picture_width": width,
                    "picture_height": height,
                }
                | name_object(record, find_box_in_picture(solid, left, top), number == 1)
            )
        return Kept(objects)
