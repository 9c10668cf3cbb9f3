"""The ground plane of a photo: where objects can stand, and how large they would be there.

The flat area is: an allowed class (`ground_plane.classes`), on a plane through the depth (`ground_plane.depth`,
`ground_plane.plane`), where the depth runs along that plane. A test without its network is left out: without classes
water, walls and cupboards may count; without depth (`lower-region`) the plane is a default from where the area ends.
Objects of known size in the picture (`object_detector`) turn a default plane into a measured one. How accurate a plane
is, is a measurement too (`ground_view_error`, `ground_size_error`): `composite` rejects planes that are not accurate.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.weights import Reference, Revision, find_single, list_files, resolve
from rasura.stages import stage
from rasura.stages.compositing.class_places import classify_scene
from rasura.stages.detectors.boxes import Detection, Detector, keep_strongest
from rasura.stages.ground_plane import classes as ground_classes
from rasura.stages.ground_plane.depth import DepthNetwork, Output, inverse_depth
from rasura.stages.ground_plane.depth_networks import open_depth_network
from rasura.stages.ground_plane.known_objects import (
    CameraPrior,
    Sighting,
    estimate_camera,
    limit_to_reliable_area,
    mask_contact_points,
    select_sightings,
)
from rasura.stages.ground_plane.plane import compute_ground_scale
from rasura.stages.ground_plane.plane_fit import PlaneFit, estimate_plane_from_region, fit_plane_to_depth, is_coarse
from rasura.stages.ground_plane.region import measure_water_likeness
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]

PRIOR_PITCH_ERROR = (
    12.0  # degrees by which a default pitch is off: photographs are taken level, or down at what is near
)
MIN_OBSTACLE_SCORE = 0.3  # score of a detection from which its box is no ground: a doubtful object is in the way too


class GroundParams(stage.Params):
    """Parameters of the stage `ground`."""

    former_names: ClassVar[Mapping[str, str]] = {"object_detector": "things"}

    backend: Literal["lower-region", "depth-onnx", "depth-anything", "depth-column"] = Field(
        "lower-region", description="Where depth comes from: nowhere, a network, or a column of the record."
    )
    weights: Reference | None = Field(None, description="The depth network: a file or folder, or a hub id.")
    revision: Revision | None = Field(None, description="Commit of the depth network, where it is a hub id.")
    depth_output: Output = Field("depth", description="What an ONNX file gives: depth, or disparity (1/depth).")
    depth_pixels: Literal["unit", "imagenet"] = Field(
        "unit", description="What an ONNX file takes: RGB 0-1, or normalised by ImageNet's mean and deviation."
    )
    depth_unit: float | None = Field(
        None, gt=0, description="Metres in one unit of depth; null: 0.01 for ONNX (cm), 0.001 for a column (mm)."
    )
    depth_metric: bool = Field(True, description="Whether depths in these units are to be trusted as metres.")
    depth_column: str = Field("true_depth", description="Column that holds the depth (depth-column).")
    classes: Literal["none", "mask2former"] = Field(
        "none", description="Network that separates ground from water and walls."
    )
    class_weights: Reference | None = Field(None, description="The class network: a folder, or a hub id.")
    class_revision: Revision | None = Field(None, description="Commit of the class network on the hub.")
    class_mode: ground_classes.Mode = Field("panoptic", description="Panoptic (sure segments only) or semantic.")
    class_score: float = Field(0.5, ge=0, le=1, description="Least score of a panoptic segment.")
    standable: tuple[str, ...] = Field(
        ground_classes.STANDABLE, min_length=1, description="Names of the classes that something can stand on."
    )
    evidence: Literal["auto", "calm", "none"] = Field(
        "auto",
        description="Limit the area to the smooth region at the foot; auto: where nothing else shows its edge.",
    )
    fov: float = Field(
        60.0, gt=10, lt=140, description="Horizontal field of view, degrees, where no column `camera_fov` has it."
    )
    tolerance: float = Field(0.1, gt=0, lt=1, description="Relative distance from the plane that still is ground.")
    support: float = Field(0.33, gt=0, le=1, description="Share of the lower half (or the classes) the plane holds.")
    object_detector: Reference | None = Field(
        None,
        description="A YOLOX in ONNX form: an object is no ground, and objects of known size give the camera's pose.",
    )
    things_score: float = Field(0.6, ge=0, le=1, description="Score from which an object's size is believed.")
    beyond: float = Field(
        1.25, ge=1, description="Ground is believed this many times as far as the farthest object of known size stands."
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
    def _require_weights(self) -> "GroundParams":
        if self.backend in ("depth-onnx", "depth-anything") and self.weights is None:
            raise ValueError(f"backend '{self.backend}' needs weights: a depth network; 'lower-region' needs none")
        if self.classes != "none" and self.class_weights is None:
            raise ValueError(f"classes '{self.classes}' needs class_weights: a folder or a hub id")
        return self


class Ground(Stage):
    """Measure where objects can stand in a photo, or in the empty picture of a pair."""

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
        "ground_seen": Kind.INT,  # objects of known size that the camera's pose was estimated from
        "ground_things": Kind.FLOATS,  # boxes of all detected objects, x0, y0, x1, y1 one after another
        "ground_place": Kind.STRING,  # indoors or outdoors, by the objects and the class; null: unknown
    }
    Params = GroundParams
    params: GroundParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.network: DepthNetwork | None = None
        self.classifier: ground_classes.Mask2Former | None = None
        self.detector: Detector | None = None

    def schema(self, columns: Schema) -> Schema:
        needs = ["source"] if "gt" not in columns else []
        needs += [self.params.depth_column] if self.params.backend == "depth-column" else []
        if missing := tuple(name for name in needs if name not in columns):
            raise MissingColumns(self.name, missing, tuple(columns))
        return super().schema(columns)

    def weights(self) -> Mapping[str, Path]:
        p = self.params
        files: dict[str, Path] = {}
        if p.weights is not None and p.backend in ("depth-onnx", "depth-anything"):
            files |= list_files("depth", p.weights, p.revision)
        if p.class_weights is not None and p.classes != "none":
            files |= list_files("classes", p.class_weights, p.class_revision)
        if p.object_detector is not None:
            files |= list_files("things", p.object_detector)  # this name is in the rows of earlier runs
        return files

    def setup(self) -> None:
        p = self.params
        if p.weights is not None and p.backend in ("depth-onnx", "depth-anything"):
            path = resolve(p.weights, p.revision)
            self.network = open_depth_network(p.backend, path, p.depth_output, p.depth_unit or 0.01, p.depth_pixels)
        if p.class_weights is not None and p.classes != "none":
            folder = resolve(p.class_weights, p.class_revision)
            self.classifier = ground_classes.Mask2Former(folder, p.class_mode, p.class_score)
            self.ids = ground_classes.find_standable_ids(self.classifier.labels, p.standable)
        if p.object_detector is not None:
            from rasura.stages.detectors.yolox import YoloxOnnx

            self.detector = YoloxOnnx(find_single(resolve(p.object_detector), [".onnx"]), MIN_OBSTACLE_SCORE)

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        pictures = [np.ascontiguousarray(record["gt" if "gt" in record else "source"]) for record in records]
        inverses: Sequence[Array | None] = [None] * len(records)
        if self.params.backend == "depth-column":
            unit = self.params.depth_unit or 0.001
            depths = [record[self.params.depth_column] for record in records]
            inverses = [None if depth is None else inverse_depth(depth, unit) for depth in depths]
        elif self.network is not None:
            inverses = self.network.predict_inverse_depth(pictures)
        classes: Sequence[Array | None] = [None] * len(records)
        if self.classifier is not None:
            classes = self.classifier.segment(pictures)
        return [self.measure(*parts) for parts in zip(records, pictures, inverses, classes, strict=True)]

    def process_one(self, record: Record) -> Outcome:
        return self.process([record])[0]

    def measure(self, record: Record, picture: Array, inverse: Array | None, classes: Array | None) -> Outcome:
        """Return the outcome of one record, from the outputs of the networks for its picture.

        Args:
            picture: (h, w, 3) uint8. inverse: inverse depth (h', w') of the same frame. classes: (h, w) class ids.
        """
        shape = picture.shape[:2]
        fov = record.get("camera_fov") or self.params.fov
        focal = shape[1] / 2 / float(np.tan(np.deg2rad(fov) / 2))
        allowed = None if classes is None else ground_classes.mask_standable(classes, self.ids)
        if allowed is not None and not allowed.any():
            return self.report_no_ground(record, "no class that something can stand on")
        if inverse is None and self.params.backend == "depth-column":
            return self.report_no_ground(record, f"no depth in '{self.params.depth_column}'")
        objects = [] if self.detector is None else keep_strongest(self.detector.find([picture])[0], 0.45, 0.9)
        sightings = self.collect_sightings(record, objects, shape)
        fit = self.find_plane(record, picture, inverse, focal, allowed, mask_contact_points(sightings, shape))
        if isinstance(fit, str):
            return self.report_no_ground(record, fit)
        label = None
        if classes is not None and self.classifier is not None:
            label = ground_classes.find_commonest_class(classes, fit.mask, self.classifier.labels)
        metric = self.has_metric_depth(inverse)
        ys, xs = np.nonzero(fit.mask)
        middle = (float(np.median(xs)) + 0.5, float(np.median(ys)) + 0.5)
        focal_reported = record.get("camera_fov") is not None
        camera = estimate_camera(sightings, self.make_prior(fit, inverse), focal, shape, middle, focal_reported)
        plane = camera.plane if sightings else fit.plane
        boxes = [detection.box for detection in objects]
        mask = limit_to_reliable_area(fit.mask, boxes, sightings, plane, focal, self.params.beyond)
        if not mask.any():
            return self.report_no_ground(record, "all of it is above the horizon, or behind things")
        rule = "lower-region" if inverse is None else "depth-plane"
        rule = rule if classes is None else f"classes, {rule}"
        labels = [detection.label for detection in objects if detection.score >= self.params.things_score]
        measurements = {
            "ground_mask": mask,
            "ground_rule": f"{rule}, things" if sightings else rule,
            "ground_class": label,
            "ground_area": float(mask.mean()),
            "ground_residual": fit.residual,
            "ground_water": measure_water_likeness(picture, mask),
            "ground_scale": [float(v) for v in compute_ground_scale(plane, focal, shape)],
            "ground_plane": list(plane),
            "ground_focal": focal,
            "ground_metric": metric or bool(sightings),
            "ground_view_error": camera.view_error,
            "ground_size_error": camera.size_error,
            "ground_seen": len(sightings),
            "ground_things": [float(v) for box in boxes for v in box],
            "ground_place": classify_scene(labels, label),
        }
        return Kept([record | measurements])

    def find_plane(
        self,
        record: Record,
        picture: Array,
        inverse: Array | None,
        focal: float,
        allowed: Array | None,
        feet: Array,
    ) -> PlaneFit | str:
        """Find the flat area and its plane, on the depth where there is one; else return why there is none."""
        p = self.params
        if inverse is None:
            region = estimate_plane_from_region(picture, focal, allowed, feet, p.evidence)
            return region if region.mask.any() else "nothing calm at the lower border"
        fit = fit_plane_to_depth(
            inverse, picture, focal, self.rng(record), allowed, feet, p.evidence, p.tolerance, p.support
        )
        return fit if isinstance(fit, str) or fit.mask.any() else "nothing flat"

    def has_metric_depth(self, inverse: Array | None) -> bool:
        """Return whether the plane's unit can be trusted to be the metre."""
        metric = self.network.metric if self.network is not None else inverse is not None
        return metric and self.params.depth_metric

    def collect_sightings(self, record: Record, objects: Sequence[Detection], shape: tuple[int, int]) -> list[Sighting]:
        """Collect the objects of known size that stand on the ground plane.

        They are detected in the picture; of a pair, the object that was removed stood there too.
        """
        detections = [(detection.label, detection.score, detection.box) for detection in objects]
        object_mask, label = record.get("object_mask"), record.get("label")
        if "gt" in record and object_mask is not None and object_mask.any() and label is not None:
            _, _, stats, _ = cv2.connectedComponentsWithStats(object_mask.astype(np.uint8))
            x, y, width, height, _ = (float(v) for v in stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))])
            score = record.get("detect_score")
            detections.append((label, 1.0 if score is None else score, (x, y, x + width, y + height)))
        return select_sightings(detections, shape, self.params.things_score)

    def make_prior(self, fit: PlaneFit, inverse: Array | None) -> CameraPrior:
        """Return the camera that the plane implies, and how far it can be off.

        Coarse depth (METER's was 24 degrees off where a default was 14) counts as a default.
        """
        nx, ny, nz, d = fit.plane
        exact = self.params.backend == "depth-column"
        pitch, roll = float(np.rad2deg(np.arctan2(nz, np.hypot(nx, ny)))), float(np.rad2deg(np.arctan2(nx, ny)))
        coarse = inverse is None or (not exact and is_coarse(inverse))
        error = PRIOR_PITCH_ERROR if coarse else 0.5 if exact else 4.0
        error = error if inverse is None else self.params.plane_error or error
        if not self.has_metric_depth(inverse):
            return CameraPrior(pitch, error, roll=roll)
        return CameraPrior(pitch, error, d, self.params.scale_error or (0.02 if exact else 0.2), roll)

    def report_no_ground(self, record: Record, reason: str) -> Outcome:
        """Reject a photo without ground: it is no background. A pair stays: its ground is only a measurement."""
        if "gt" not in record:
            return Rejected("no ground", reason)
        return Kept([record | dict.fromkeys(self.gives) | {"ground_area": 0.0}])
