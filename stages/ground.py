"""The ground plane of a photo: where objects can stand, and how large they would be there.

The flat area is: an allowed class (`ground_plane.classes`), on a plane through the depth (`ground_plane.depth`,
`ground_plane.plane`), where the depth runs along that plane. A test without its network is left out: without classes
water, walls and cupboards may count; without depth (`lower-region`) the plane is a default from where the area ends.
Objects of known size in the picture (`object_detector`) turn a default plane into a measured one. How accurate a plane
is, is a measurement too (`ground_view_error`, `ground_size_error`): `composite` rejects planes that are not accurate.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import NetworkMemory
from rasura.networks.weights import find_single, list_files, resolve
from rasura.stages.compositing.class_places import classify_scene
from rasura.stages.detectors.boxes import Detection, Detector, keep_strongest
from rasura.stages.ground_plane import classes as ground_classes
from rasura.stages.ground_plane.depth import DepthNetwork, inverse_depth
from rasura.stages.ground_plane.depth_networks import estimate_networks, open_depth_network
from rasura.stages.ground_plane.drawing import (
    BadDrawing,
    DrawingFolder,
    GroundDrawing,
    check_aspect,
    hash_drawings,
    list_drawings,
    parse_drawing,
    scale_uprights,
)
from rasura.stages.ground_plane.horizon import (
    MAX_HORIZON_ERROR,
    Horizon,
    compute_horizon_pitch,
    compute_plane_horizon,
    estimate_horizon_from_lines,
    estimate_horizon_from_sky,
)
from rasura.stages.ground_plane.known_objects import (
    CameraPrior,
    Sighting,
    estimate_camera,
    limit_to_reliable_area,
    make_upright_sighting,
    mask_contact_points,
    select_sightings,
)
from rasura.stages.ground_plane.line_segments import Segments, find_segments
from rasura.stages.ground_plane.params import GroundParams
from rasura.stages.ground_plane.plane import compute_ground_scale
from rasura.stages.ground_plane.plane_fit import PlaneFit, estimate_plane_from_region, fit_plane_to_depth, is_coarse
from rasura.stages.ground_plane.region import DEFAULT_CAMERA_HEIGHT, find_region_top, measure_water_likeness
from rasura.stages.ground_plane.region_checks import cut_along_walls, measure_foot_share, measure_upright_share
from rasura.stages.ground_plane.reported_camera import ReportedCamera, collect_reported_camera
from rasura.stages.ground_plane.sky import find_sky, find_sky_end
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]

PRIOR_PITCH_ERROR = (
    12.0  # degrees by which a default pitch is off: photographs are taken level, or down at what is near
)
MIN_LINES_ERROR = 1.0  # degrees: no horizon of lines is better
MIN_OBSTACLE_SCORE = 0.3  # score of a detection from which its box is no ground: a doubtful object is in the way too


class Ground(Stage):
    """Measure where objects can stand in a photo, or in the empty picture of a pair."""

    name = "ground"
    version = "4"
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
        "ground_horizon": Kind.FLOAT,  # row of the horizon by straight lines, px; null: they do not show it
        "ground_horizon_error": Kind.FLOAT,  # its error, degrees
        "ground_conflict": Kind.FLOAT,  # deviations by which the lines' horizon is off the plane's; null: none
        "ground_upright": Kind.FLOAT,  # share of the straight lines on the area that are upright, as on walls
        "ground_foot": Kind.FLOAT,  # share of the picture's lower border that the area reaches
        "ground_place": Kind.STRING,  # indoors or outdoors, by the objects and the class; null: unknown
    }
    Params = GroundParams
    params: GroundParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.network: DepthNetwork | None = None
        self.classifier: ground_classes.Mask2Former | None = None
        self.detector: Detector | None = None
        self.drawings: DrawingFolder | None = None

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

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        return estimate_networks(self.weights(), self.params.backend)

    def setup(self) -> None:
        p = self.params
        if p.weights is not None and p.backend in ("depth-onnx", "depth-anything"):
            path, unit = resolve(p.weights, p.revision), p.depth_unit or 0.01
            self.network = open_depth_network(p.backend, path, p.depth_output, unit, p.depth_pixels)
        if p.class_weights is not None and p.classes != "none":
            folder = resolve(p.class_weights, p.class_revision)
            self.classifier = ground_classes.Mask2Former(folder, p.class_mode, p.class_score)
            self.ids = ground_classes.find_standable_ids(self.classifier.labels, p.standable)
        if p.object_detector is not None:
            from rasura.stages.detectors.yolox import YoloxOnnx

            self.detector = YoloxOnnx(find_single(resolve(p.object_detector), [".onnx"]), MIN_OBSTACLE_SCORE)
        if p.drawings is not None:
            self.drawings = list_drawings(p.drawings)
            if hash_drawings(p.drawings) != p.drawings_sha256:
                raise BadDrawing(f"the drawings in '{p.drawings}' are not what they were at the start; run again")

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        pictures = [np.ascontiguousarray(record["gt" if "gt" in record else "source"]) for record in records]
        inverses: Sequence[Array | None] = [None] * len(records)
        if self.params.backend == "depth-column":
            unit, depths = self.params.depth_unit or 0.001, [record[self.params.depth_column] for record in records]
            inverses = [None if depth is None else inverse_depth(depth, unit) for depth in depths]
        elif self.network is not None:
            inverses = self.network.predict_inverse_depth(pictures)
        classes = self.classifier.segment(pictures) if self.classifier else [None] * len(records)
        return [self.measure(*parts) for parts in zip(records, pictures, inverses, classes, strict=True)]

    def process_one(self, record: Record) -> Outcome:
        return self.process([record])[0]

    def measure(self, record: Record, picture: Array, inverse: Array | None, classes: Array | None) -> Outcome:
        """Return the outcome of one record, from the outputs of the networks for its picture.

        Args:
            picture: (h, w, 3) uint8. inverse: inverse depth (h', w') of the same frame. classes: (h, w) class ids.
        """
        shape = picture.shape[:2]
        drawing = self.find_drawing(record, shape)
        p = self.params
        camera = collect_reported_camera(record, drawing, shape, p.field_of_view, p.pitch, p.camera_height)
        drawn = drawing.paint_floor(shape) if drawing is not None and drawing.floor else None
        allowed = None if classes is None else ground_classes.mask_standable(classes, self.ids)
        allowed = allowed if drawn is None else drawn
        if allowed is not None and not allowed.any():
            return self.report_no_ground(record, "no class that something can stand on")
        if inverse is None and p.backend == "depth-column":
            return self.report_no_ground(record, f"no depth in '{p.depth_column}'")
        objects = [] if self.detector is None else keep_strongest(self.detector.find([picture])[0], 0.45, 0.9)
        sightings = self.collect_sightings(record, objects, shape)
        uprights = [] if drawing is None else [make_upright_sighting(*line) for line in scale_uprights(drawing, shape)]
        feet = mask_contact_points(sightings, shape)
        fit = self.find_plane(record, picture, inverse, camera.focal, allowed, drawn is not None, feet)
        if isinstance(fit, str):
            return self.report_no_ground(record, fit)
        label = None if drawing is None else drawing.floor_class
        if label is None and classes is not None and self.classifier is not None:
            label = ground_classes.find_commonest_class(classes, fit.mask, self.classifier.labels)
        segments = None if p.backend == "depth-column" else find_segments(picture)
        lines, lines_rule = self.estimate_horizon(picture, segments, fit.mask, [s.box[3] for s in sightings])
        prior, evidence = self.make_prior(fit, inverse, camera, lines, shape)
        evidence = [lines_rule if part == "lines" else part for part in evidence]
        pixel = find_reference_pixel(record, fit.mask)
        known = [*sightings, *uprights]
        estimate = estimate_camera(known, prior, camera.focal, shape, pixel, camera.focal_reported)
        plane = estimate.plane if known or evidence else fit.plane
        boxes = [detection.box for detection in objects]
        farthest = [] if drawn is not None else sightings
        mask = limit_to_reliable_area(fit.mask, boxes, farthest, plane, camera.focal, p.beyond)
        if segments is not None and inverse is None and drawn is None and mask.any():
            middles = mask_contact_points(sightings, shape, 0.4)
            mask = cut_along_walls(mask, segments, plane, camera.focal, middles)
        if not mask.any():
            return self.report_no_ground(record, "all of it is above the horizon, or behind things")
        labels = [detection.label for detection in objects if detection.score >= p.things_score]
        measurements = {
            "ground_rule": name_rule(classes is not None, drawn is not None, inverse is not None, evidence, known),
            "ground_class": label,
            "ground_residual": fit.residual,
            "ground_metric": self.has_metric_depth(inverse) or bool(known) or camera.height is not None,
            "ground_view_error": estimate.view_error,
            "ground_size_error": estimate.size_error,
            "ground_seen": len(known),
            "ground_things": [float(v) for box in boxes for v in box],
            "ground_place": classify_scene(labels, label),
        }
        return Kept([record | measurements | measure_area(picture, mask, plane, camera.focal, lines, segments)])

    def find_drawing(self, record: Record, shape: tuple[int, int]) -> GroundDrawing | None:
        """Read what a person drew on a photo of (height, width); None where there is nothing."""
        if self.drawings is None:
            return None
        path = self.drawings.find(str(record.get("origin") or ""))
        if path is None:
            return None
        drawing = parse_drawing(path.read_bytes(), path.name)
        check_aspect(drawing, shape, path.name)
        return drawing

    def estimate_horizon(
        self, picture: Array, segments: Segments | None, region: Array, feet: Sequence[float]
    ) -> tuple[Horizon | None, str]:
        """Estimate the horizon from straight lines, else from sky and ground.

        Args:
            segments: None where exact depth makes it needless. region: (h, w) bool, the ground.
            feet: rows on which objects stand, px.

        Returns:
            None where they do not show it; and `lines` or `sky`.
        """
        if self.params.horizon == "none" or segments is None:
            return None, ""
        shape = picture.shape[:2]
        horizon = estimate_horizon_from_lines(segments, shape)
        if horizon is not None and horizon.error <= MAX_HORIZON_ERROR:
            return horizon, "lines"
        sky, top = find_sky(picture), min([find_region_top(region), *(foot / shape[0] for foot in feet)])
        horizon = None if sky is None else estimate_horizon_from_sky(find_sky_end(sky), top, shape)
        return (horizon, "sky") if horizon is not None and horizon.error <= MAX_HORIZON_ERROR else (None, "")

    def find_plane(
        self,
        record: Record,
        picture: Array,
        inverse: Array | None,
        focal: float,
        allowed: Array | None,
        is_drawn: bool,
        feet: Array,
    ) -> PlaneFit | str:
        """Find the flat area and its plane, on the depth where there is one; else return why there is none."""
        p = self.params
        evidence = "none" if is_drawn else p.evidence
        if inverse is None:
            region = estimate_plane_from_region(picture, focal, allowed, feet, evidence)
            return region if region.mask.any() else "nothing calm at the lower border"
        fit = fit_plane_to_depth(
            inverse, picture, focal, self.rng(record), allowed, feet, evidence, p.tolerance, p.support
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

    def make_prior(
        self,
        fit: PlaneFit,
        inverse: Array | None,
        camera: ReportedCamera,
        lines: Horizon | None,
        shape: tuple[int, int],
    ) -> tuple[CameraPrior, list[str]]:
        """Return the camera before any object of known size is used, with its errors, and what it rests on.

        The pitch is the most certain of: a horizon or pitch that somebody reported, the horizon of straight lines, the
        depth, a default. Coarse depth (METER's was 24 degrees off where a default was 14) counts as a default. The
        second value names the parts that do not come from depth or default, as they are in `ground_rule`.
        """
        p = self.params
        nx, ny, nz, d = fit.plane
        exact = p.backend == "depth-column"
        pitch, roll = float(np.rad2deg(np.arctan2(nz, np.hypot(nx, ny)))), float(np.rad2deg(np.arctan2(nx, ny)))
        coarse = inverse is None or (not exact and is_coarse(inverse))
        error = PRIOR_PITCH_ERROR if coarse else 0.5 if exact else 4.0
        error = error if inverse is None else p.plane_error or error
        evidence: list[str] = []
        if camera.horizon is not None:
            (pitch, roll), error = compute_horizon_pitch(camera.horizon, camera.focal, shape), camera.horizon.error
            evidence.append("horizon")
        elif camera.pitch is not None and not exact:
            pitch, roll, error = camera.pitch, 0.0, p.pitch_error
            evidence.append("camera")
        if lines is not None and camera.horizon is None and max(MIN_LINES_ERROR, lines.error) < error:
            by_lines, line_roll = compute_horizon_pitch(lines, camera.focal, shape)
            line_error = max(MIN_LINES_ERROR, lines.error)
            if camera.pitch is None or abs(by_lines - pitch) <= 2 * float(np.hypot(error, line_error)):
                pitch, roll, error = by_lines, line_roll, line_error
                evidence.append("lines")
        height: float = d
        height_error: float | None = p.scale_error or (0.02 if exact else 0.2)
        if not self.has_metric_depth(inverse):
            height, height_error = DEFAULT_CAMERA_HEIGHT, None
        if camera.height is not None and not (exact and height_error is not None):
            height, height_error = camera.height, p.camera_height_error
            evidence += [] if "camera" in evidence else ["camera"]
        return CameraPrior(pitch, error, height, height_error, roll), evidence

    def report_no_ground(self, record: Record, reason: str) -> Outcome:
        """Reject a photo without ground: it is no background. A pair stays: its ground is only a measurement."""
        if "gt" not in record:
            return Rejected("no ground", reason)
        return Kept([record | dict.fromkeys(self.gives) | {"ground_area": 0.0}])


def name_rule(
    by_classes: bool, is_drawn: bool, by_depth: bool, evidence: Sequence[str], known: Sequence[Sighting]
) -> str:
    """Name what a ground plane rests on: the area, then the pose."""
    parts = ["classes"] if by_classes else []
    parts.append("drawn" if is_drawn else "depth-plane" if by_depth else "lower-region")
    return ", ".join([*parts, *evidence, *(["things"] if known else [])])


def measure_area(
    picture: Array,
    mask: Array,
    plane: tuple[float, float, float, float],
    focal: float,
    lines: Horizon | None,
    segments: Segments | None,
) -> Record:
    """Return the columns that follow from the area and its plane.

    Args:
        mask: (h, w) bool. focal: px. lines: the horizon of straight lines. segments: None where nobody looked for them.
    """
    shape = picture.shape[:2]
    return {
        "ground_mask": mask,
        "ground_area": float(mask.mean()),
        "ground_water": measure_water_likeness(picture, mask),
        "ground_scale": [float(v) for v in compute_ground_scale(plane, focal, shape)],
        "ground_plane": list(plane),
        "ground_focal": focal,
        "ground_horizon": None if lines is None else lines.row,
        "ground_horizon_error": None if lines is None else lines.error,
        "ground_conflict": measure_conflict(lines, plane, focal, shape),
        "ground_upright": None if segments is None else measure_upright_share(segments, mask, plane, focal),
        "ground_foot": measure_foot_share(mask),
    }


def find_reference_pixel(record: Record, mask: Array) -> tuple[float, float]:
    """Find the pixel of the ground that errors are stated for: a pair's object stands there; else the area's middle."""
    object_mask = record.get("object_mask") if "gt" in record else None
    if object_mask is not None and object_mask.any():
        ys, xs = np.nonzero(object_mask)
        low = ys >= ys.max() - max(1, (ys.max() - ys.min()) // 20)
        return float(np.median(xs[low])) + 0.5, float(ys.max()) + 1.0
    ys, xs = np.nonzero(mask)
    return float(np.median(xs)) + 0.5, float(np.median(ys)) + 0.5


def measure_conflict(
    lines: Horizon | None, plane: tuple[float, float, float, float], focal: float, shape: tuple[int, int]
) -> float | None:
    """Measure by how many of its deviations the lines' horizon is off the plane's; None where lines show none."""
    if lines is None:
        return None
    row = compute_plane_horizon(plane, focal, shape)
    off = np.arctan((row - shape[0] / 2) / focal) - np.arctan((lines.row - shape[0] / 2) / focal)
    return float(abs(np.rad2deg(off)) / max(MIN_LINES_ERROR, lines.error))
