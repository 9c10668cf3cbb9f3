"""Where things can stand in a photo, and how large they would be there.

The flat area is: an allowed class (`ground_classes`), on a plane through the depth (`depth`, `ground_plane`), where the
depth runs along that plane. What no network is given for is left out of the test: without classes water, walls and
cupboards may count; without depth (`lower-region`) the plane is a guess from where the area ends. Things of known size
that stand in the picture (`things`) make a guessed plane a measured one. How well a plane is known is a measurement
too (`ground_view_error`, `ground_size_error`), and `composite` puts nothing on a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.weights import Reference, Revision, listed, resolve, single
from rasura.stages import stage
from rasura.stages.compositing.class_places import place_of
from rasura.stages.detectors.boxes import Detection, Detector, strongest
from rasura.stages.ground_plane import classes as floor_classes
from rasura.stages.ground_plane import depth
from rasura.stages.ground_plane.known_objects import Prior, Sighting, camera, feet_of, sightings, within
from rasura.stages.ground_plane.plane import (
    fit_floor,
    flat_part,
    is_floor,
    own_plane,
    pixels,
    plane_columns,
    recedes,
    relative_error,
    scale_of_plane,
)
from rasura.stages.ground_plane.region import calm_region, guessed_plane, horizon_guess, tidy, water_likeness
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]

GRID = 320  # px: long side at which planes are looked for
COARSE = 100  # rows or columns below which a depth map cannot see where a floor ends
GUESS = 12.0  # degrees by which a guessed pitch is off: photographs are taken level, or down at what is near
OCCUPIED = 0.3  # score of a detection from which its box is taken: a doubtful thing is in the way too


@dataclass(frozen=True, eq=False)
class Found:
    """The ground of one picture, in its own pixels."""

    mask: Array  # (h, w) bool
    plane: tuple[float, float, float, float]  # n and d of n.P = d
    residual: float | None  # median relative depth error on the mask


def find_on_depth(
    inverse: Array,
    picture: Array,
    focal: float,
    rng: np.random.Generator,
    allowed: Array | None,
    feet: Array,
    params: "GroundParams",
) -> Found | str:
    """The flat area on a map of inverse depth, or why there is none.

    Args:
        inverse: (h', w') of the whole frame. picture: (h, w, 3) uint8. focal: px. allowed: (h, w) bool or None.
        feet: (h, w) bool, what things are seen to stand on.
    """
    shape = picture.shape[:2]
    size = depth.work_grid(shape, GRID)
    values = depth.resampled(inverse, size)
    where = None if allowed is None else on_grid(allowed, size)
    line = fit_floor(values, shape, focal, rng, where, params.tolerance, params.support)
    if line is None:
        return "no plane that could be a floor holds enough of " + (
            "the lower half" if where is None else "the classes"
        )
    flat, error = flat_part(values, line, shape, params.tolerance)
    if where is not None:
        flat &= where
    mask = on_grid(tidy(flat), (shape[1], shape[0]))
    if allowed is not None:
        mask &= allowed
    coarse = min(inverse.shape) < COARSE
    if params.evidence == "calm" or (params.evidence == "auto" and coarse and allowed is None):
        calm = calm_region(
            picture, feet=feet
        )  # without the depth's help: cut to what is near a floor, every wall is one
        own = own_plane(values, shape, on_grid(calm, size))
        if own is None or not recedes(own):
            return "the calm region at the lower border does not recede upwards"
        mask = calm_region(picture, mask & calm, feet)
        line = own if is_floor(plane_columns(own, focal, shape)) else line
        error = relative_error(values.ravel(), line, pixels(size, shape)).reshape(values.shape)
    near = on_grid(mask, size) & np.isfinite(error)
    residual = float(np.median(error[near])) if near.any() else None
    return Found(mask, plane_columns(line, focal, shape), residual)


def find_by_region(picture: Array, focal: float, allowed: Array | None, feet: Array, evidence: str) -> Found:
    """The area that the picture stands on, with a guessed plane: what touches the lower border (or the feet of things)
    and is calm, or, with classes, all that is allowed."""
    mask = allowed if allowed is not None and evidence != "calm" else calm_region(picture, allowed, feet)
    mask = mask.copy()
    height = len(mask)
    horizon = horizon_guess(mask)
    mask[: max(0, int(horizon + 0.08 * height))] = False
    return Found(mask, guessed_plane(horizon, focal, height), None)


def on_grid(mask: Array, size: tuple[int, int]) -> Array:
    """A (h, w) bool mask on another grid, (width, height)."""
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)) >= 0.5


class GroundParams(stage.Params):
    backend: Literal["lower-region", "depth-onnx", "depth-anything", "depth-column"] = Field(
        "lower-region", description="Where depth comes from: nowhere, a network, or a column of the record."
    )
    weights: Reference | None = Field(None, description="The depth network: a file or folder, or a hub id.")
    revision: Revision | None = Field(None, description="Commit of the depth network, where it is a hub id.")
    depth_output: depth.Output = Field("depth", description="What an ONNX file gives: depth, or disparity (1/depth).")
    depth_pixels: Literal["unit", "imagenet"] = Field(
        "unit", description="What an ONNX file takes: RGB 0-1, or normalised by ImageNet's mean and deviation."
    )
    depth_unit: float | None = Field(
        None, gt=0, description="Metres in one unit of depth; null: 0.01 for ONNX (cm), 0.001 for a column (mm)."
    )
    depth_metric: bool = Field(True, description="Whether depths in these units are to be trusted as metres.")
    depth_column: str = Field("true_depth", description="Column that holds the depth (depth-column).")
    classes: Literal["none", "mask2former"] = Field("none", description="What tells floors from water and walls.")
    class_weights: Reference | None = Field(None, description="The class network: a folder, or a hub id.")
    class_revision: Revision | None = Field(None, description="Commit of the class network on the hub.")
    class_mode: floor_classes.Mode = Field("panoptic", description="Panoptic (sure segments only) or semantic.")
    class_score: float = Field(0.5, ge=0, le=1, description="Least score of a panoptic segment.")
    standable: tuple[str, ...] = Field(
        floor_classes.STANDABLE, min_length=1, description="Names of the classes that something can stand on."
    )
    evidence: Literal["auto", "calm", "none"] = Field(
        "auto",
        description="Limit the area to the calm region at the foot; auto: where nothing else sees its edge.",
    )
    fov: float = Field(
        60.0, gt=10, lt=140, description="Horizontal field of view, degrees, where no column `camera_fov` tells it."
    )
    tolerance: float = Field(0.1, gt=0, lt=1, description="Relative distance from the plane that still is ground.")
    support: float = Field(0.33, gt=0, le=1, description="Share of the lower half (or the classes) the plane holds.")
    things: Reference | None = Field(
        None, description="A YOLOX in ONNX form: what it finds is no floor, and what has a usual size tells the camera."
    )
    things_score: float = Field(0.6, ge=0, le=1, description="Score from which a thing's size is believed.")
    beyond: float = Field(
        1.25, ge=1, description="Floor is believed this many times as far as the farthest thing of known size stands."
    )
    plane_error: float | None = Field(
        None,
        gt=0,
        description="Degrees by which a plane of this depth is off; null: 4 (a coarse network 12, a column 0.5).",
    )
    scale_error: float | None = Field(
        None, gt=0, description="Relative error of this depth's metres; null: 0.2 of a network, 0.02 of a column."
    )

    @model_validator(mode="after")
    def _weights_are_there(self) -> "GroundParams":
        if self.backend in ("depth-onnx", "depth-anything") and self.weights is None:
            raise ValueError(f"backend '{self.backend}' needs weights: a depth network; 'lower-region' needs none")
        if self.classes != "none" and self.class_weights is None:
            raise ValueError(f"classes '{self.classes}' needs class_weights: a folder or a hub id")
        return self


class Ground(Stage):
    """Measures where things can stand in a photo, or in the empty picture of a pair."""

    name = "ground"
    version = "3"
    gives: ClassVar[Schema] = {
        "ground_mask": Kind.MASK,
        "ground_rule": Kind.STRING,
        "ground_class": Kind.STRING,
        "ground_area": Kind.FLOAT,
        "ground_residual": Kind.FLOAT,
        "ground_water": Kind.FLOAT,
        "ground_scale": Kind.FLOATS,
        "ground_plane": Kind.FLOATS,
        "ground_focal": Kind.FLOAT,
        "ground_metric": Kind.BOOL,
        "ground_view_error": Kind.FLOAT,  # degrees, of the angle at which the area is looked down on
        "ground_size_error": Kind.FLOAT,  # log units, of the size of what stands on it
        "ground_seen": Kind.INT,  # things of known size that told the camera
        "ground_things": Kind.FLOATS,  # boxes of all that was found, x0, y0, x1, y1 one after another
        "ground_place": Kind.STRING,  # indoors or outdoors, where things or the class tell
    }
    Params = GroundParams
    params: GroundParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.network: depth.DepthNetwork | None = None
        self.classifier: floor_classes.Mask2Former | None = None
        self.detector: Detector | None = None

    def schema(self, given: Schema) -> Schema:
        needs = ["source"] if "gt" not in given else []
        needs += [self.params.depth_column] if self.params.backend == "depth-column" else []
        if missing := tuple(name for name in needs if name not in given):
            raise MissingColumns(self.name, missing, tuple(given))
        return super().schema(given)

    def weights(self) -> Mapping[str, Path]:
        p = self.params
        found: dict[str, Path] = {}
        if p.weights is not None and p.backend in ("depth-onnx", "depth-anything"):
            found |= listed("depth", p.weights, p.revision)
        if p.class_weights is not None and p.classes != "none":
            found |= listed("classes", p.class_weights, p.class_revision)
        if p.things is not None:
            found |= listed("things", p.things)
        return found

    def setup(self) -> None:
        p = self.params
        if p.weights is not None and p.backend in ("depth-onnx", "depth-anything"):
            path = resolve(p.weights, p.revision)
            self.network = depth.open_depth(p.backend, path, p.depth_output, p.depth_unit or 0.01, p.depth_pixels)
        if p.class_weights is not None and p.classes != "none":
            folder = resolve(p.class_weights, p.class_revision)
            self.classifier = floor_classes.Mask2Former(folder, p.class_mode, p.class_score)
            self.ids = floor_classes.standable_ids(self.classifier.labels, p.standable)
        if p.things is not None:
            from rasura.stages.detectors.yolox import YoloxOnnx

            self.detector = YoloxOnnx(single(resolve(p.things), [".onnx"]), OCCUPIED)

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        pictures = [np.ascontiguousarray(record["gt" if "gt" in record else "source"]) for record in records]
        inverses: Sequence[Array | None] = [None] * len(records)
        if self.params.backend == "depth-column":
            unit = self.params.depth_unit or 0.001
            given = [record[self.params.depth_column] for record in records]
            inverses = [None if one is None else depth.inverse_depth(one, unit) for one in given]
        elif self.network is not None:
            inverses = self.network.inverse(pictures)
        classes: Sequence[Array | None] = [None] * len(records)
        if self.classifier is not None:
            classes = self.classifier.classes(pictures)
        return [self.judge(*parts) for parts in zip(records, pictures, inverses, classes, strict=True)]

    def process_one(self, record: Record) -> Outcome:
        return self.process([record])[0]

    def judge(self, record: Record, picture: Array, inverse: Array | None, classes: Array | None) -> Outcome:
        """The outcome of one record, from what the networks say of its picture."""
        shape = picture.shape[:2]
        fov = record.get("camera_fov") or self.params.fov
        focal = shape[1] / 2 / float(np.tan(np.deg2rad(fov) / 2))
        allowed = None if classes is None else floor_classes.standable(classes, self.ids)
        if allowed is not None and not allowed.any():
            return self.nothing(record, "no class that something can stand on")
        if inverse is None and self.params.backend == "depth-column":
            return self.nothing(record, f"no depth in '{self.params.depth_column}'")
        things = [] if self.detector is None else strongest(self.detector.find([picture])[0], 0.45, 0.9)
        seen = self.sightings(record, things, shape)
        feet = feet_of(seen, shape)
        if inverse is None:
            found: Found | str = find_by_region(picture, focal, allowed, feet, self.params.evidence)
        else:
            found = find_on_depth(inverse, picture, focal, self.rng(record), allowed, feet, self.params)
        if isinstance(found, str):
            return self.nothing(record, found)
        if not found.mask.any():
            return self.nothing(record, "nothing calm at the lower border" if inverse is None else "nothing flat")
        label = None
        if classes is not None and self.classifier is not None:
            label = floor_classes.commonest(classes, found.mask, self.classifier.labels)
        trusted = (
            self.network.metric if self.network is not None else inverse is not None
        ) and self.params.depth_metric
        prior = self.prior(found, inverse, trusted)
        ys, xs = np.nonzero(found.mask)
        look = (float(np.median(xs)) + 0.5, float(np.median(ys)) + 0.5)
        sure = camera(seen, prior, focal, shape, look, record.get("camera_fov") is not None)
        plane = sure.plane if seen else found.plane
        rule = "lower-region" if inverse is None else "depth-plane"
        rule = rule if classes is None else f"classes, {rule}"
        mask = within(found.mask, [thing.box for thing in things], seen, plane, focal, self.params.beyond)
        if not mask.any():
            return self.nothing(record, "all of it is above the horizon, or behind things")
        made = {
            "ground_mask": mask,
            "ground_rule": f"{rule}, things" if seen else rule,
            "ground_class": label,
            "ground_area": float(mask.mean()),
            "ground_residual": found.residual,
            "ground_water": water_likeness(picture, mask),
            "ground_scale": [float(v) for v in scale_of_plane(plane, focal, shape)],
            "ground_plane": list(plane),
            "ground_focal": focal,
            "ground_metric": trusted or bool(seen),
            "ground_view_error": sure.view_error,
            "ground_size_error": sure.size_error,
            "ground_seen": len(seen),
            "ground_things": [float(v) for thing in things for v in thing.box],
            "ground_place": place_of(
                [thing.label for thing in things if thing.score >= self.params.things_score], label
            ),
        }
        return Kept([record | made])

    def sightings(self, record: Record, things: Sequence[Detection], shape: tuple[int, int]) -> list[Sighting]:
        """What stands on the floor and has a known size: things of the picture, and of a pair the object that was
        removed, which stood there too."""
        found = [(thing.label, thing.score, thing.box) for thing in things]
        own, label = record.get("object_mask"), record.get("label")
        if "gt" in record and own is not None and own.any() and label is not None:
            _, _, stats, _ = cv2.connectedComponentsWithStats(own.astype(np.uint8))
            x, y, wide, high, _ = (float(v) for v in stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))])
            score = record.get("detect_score")
            found.append((label, 1.0 if score is None else score, (x, y, x + wide, y + high)))
        return sightings(found, shape, self.params.things_score)

    def prior(self, found: Found, inverse: Array | None, trusted: bool) -> Prior:
        """What depth, or the guess, says about the camera, and how far it can be off. Coarse depth (METER's was 24
        degrees off where a guess was 14) counts as a guess."""
        nx, ny, nz, d = found.plane
        exact = self.params.backend == "depth-column"
        pitch, lean = float(np.rad2deg(np.arctan2(nz, np.hypot(nx, ny)))), float(np.rad2deg(np.arctan2(nx, ny)))
        coarse = inverse is None or (not exact and min(inverse.shape) < COARSE)
        off = GUESS if coarse else 0.5 if exact else 4.0
        off = off if inverse is None else self.params.plane_error or off
        if not trusted:
            return Prior(pitch, off, lean=lean)
        return Prior(pitch, off, d, self.params.scale_error or (0.02 if exact else 0.2), lean)

    def nothing(self, record: Record, why: str) -> Outcome:
        """A photo without ground is no background. A pair without one stays: its ground only tells how it was seen."""
        if "gt" not in record:
            return Rejected("no ground", why)
        return Kept([record | dict.fromkeys(self.gives) | {"ground_area": 0.0}])
