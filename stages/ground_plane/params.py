"""Parameters of the stage `ground`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from rasura.networks.weights import Reference, Revision
from rasura.stages import stage
from rasura.stages.ground_plane import classes as ground_classes
from rasura.stages.ground_plane.depth import Output
from rasura.stages.ground_plane.drawing import hash_drawings


class GroundParams(stage.Params):
    """Parameters of the stage `ground`."""

    former_names: ClassVar[Mapping[str, str]] = {"object_detector": "things", "field_of_view": "fov"}

    backend: Literal["lower-region", "depth-onnx", "depth-anything", "depth-column"] = Field(
        "lower-region",
        description="Where depth comes from: nowhere, a network, or a column of the record. Weights of Depth Anything: "
        "V1 and V2 Small are under Apache-2.0, V2 Base, Large and Giant under CC-BY-NC-4.0 (not for commercial use).",
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
        "none",
        description="Network that separates ground from water and walls. The published weights of Mask2Former are "
        "under CC-BY-NC-4.0 (not for commercial use).",
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
    field_of_view: float | None = Field(
        None,
        gt=10,
        lt=140,
        description="Degrees across the width, where no column `camera_fov` has it; null: 60 across the longer side.",
    )
    camera_height: float | None = Field(
        None, gt=0.02, lt=1000, description="Metres of the camera above the ground; a column `camera_height` wins."
    )
    camera_height_error: float = Field(0.1, gt=0, le=1, description="Relative error of the height that is given.")
    pitch: float | None = Field(
        None, ge=-60, lt=90, description="Degrees by which the camera looks down; a column `camera_pitch` wins."
    )
    pitch_error: float = Field(3.0, gt=0, le=20, description="Degrees by which the pitch that is given may be off.")
    horizon: Literal["lines", "none"] = Field(
        "lines", description="Estimate the horizon from straight lines (and the sky), where no depth is exact; or not."
    )
    drawings: str | None = Field(
        None, description="Folder of floors and horizons that people drew (*.ground.json), by the photographs' names."
    )
    drawings_sha256: str | None = Field(None, description="Hash of the drawings; filled in by the run itself.")
    tolerance: float = Field(0.1, gt=0, lt=1, description="Relative distance from the plane that still is ground.")
    support: float = Field(0.33, gt=0, le=1, description="Share of the lower half (or the classes) the plane holds.")
    object_detector: Reference | None = Field(
        None,
        description="A YOLOX in ONNX form: an object is no ground, and objects of known size give the camera's pose.",
    )
    things_score: float = Field(0.5, ge=0, le=1, description="Score from which an object's size is believed.")
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

    @model_validator(mode="before")
    @classmethod
    def _hash_drawings(cls, values: Any) -> Any:
        # what people drew is an input: another drawing has to make other shards
        if isinstance(values, dict) and values.get("drawings") and not values.get("drawings_sha256"):
            return {**values, "drawings_sha256": hash_drawings(values["drawings"])}
        return values
