"""Stage `detect`: the objects in a picture, with their boxes.

On photos every detection becomes a record; on pairs the detection that fits the object mask gives its label.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from rasura.manifests.errors import RecipeError, UnknownNameError
from rasura.manifests.ids import make_child_id
from rasura.manifests.images import RGB
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import Library, NetworkMemory, count_parameters, estimate_memory
from rasura.networks.weights import Reference, Revision, find_single, list_files, resolve
from rasura.stages import stage
from rasura.stages.detectors.boxes import (
    Detection,
    Detector,
    keep_strongest,
    match_to_mask,
    measure_box_area,
    measure_box_cut,
)
from rasura.stages.detectors.classes import COCO, NOT_OBJECTS
from rasura.stages.stage import Kept, Outcome, Record, Stage, get_picture_column

TEXT_BACKENDS = ("grounding-dino", "groundingdino-original")  # backends that are prompted with words


class DetectParams(stage.Params):
    backend: Literal["yolox-onnx", "grounding-dino", "groundingdino-original", "yolo"] = Field(
        "yolox-onnx",
        description="Kind of network: YOLOX in ONNX form; GroundingDINO of transformers; GroundingDINO's own library "
        "(extra `groundingdino`); YOLO of ultralytics (extra `yolo`, AGPL-3.0).",
    )
    weights: Reference = Field(
        description="The network: yolox-onnx an .onnx with raw outputs, grounding-dino a folder, "
        "groundingdino-original a .pth, yolo a .pt; with `revision` a model of the hub."
    )
    revision: Revision | None = Field(None, description="Commit of a model on the hub; without it, a local path.")
    config: Reference | None = Field(None, description="groundingdino-original: the checkpoint's configuration (.py).")
    text_encoder: Reference | None = Field(
        None, description="groundingdino-original: folder with config.json and vocabulary of bert-base-uncased."
    )
    text_encoder_revision: Revision | None = Field(None, description="Commit of text_encoder, if it is on the hub.")
    min_score: float = Field(0.1, ge=0, le=1, description="Detections below are noise; `select` sets the real limit.")
    text_threshold: float = Field(
        0.1, ge=0, le=1, description="GroundingDINO: how well an answer has to fit the words of its class."
    )
    nms: float = Field(0.45, gt=0, le=1, description="IoU above which the weaker of two boxes of one class is removed.")
    across: float = Field(
        0.9, gt=0, le=1, description="IoU above which boxes of two classes are one object; the weaker is removed."
    )
    include: tuple[str, ...] = Field(
        (),
        description="Classes to find: GroundingDINO is prompted with these; the others have a fixed list, empty: all.",
    )
    exclude: tuple[str, ...] = Field(
        NOT_OBJECTS, description="Classes to leave out; clothes and parts of bodies by default."
    )
    side: int = Field(640, ge=32, description="yolo: px of the square into which pictures are letterboxed.")
    max_per_photo: int = Field(10, ge=1, description="Detections of one photo at most, the best ones.")


ALL_DETECTIONS: Schema = {
    "detect_labels": Kind.STRINGS,
    "detect_scores": Kind.FLOATS,
    "detect_boxes": Kind.FLOATS,  # x0, y0, x1, y1 of each in turn
}
"""All objects in the picture of a pair: `split` names each of its cut-outs by them."""


class UnknownClass(RecipeError, UnknownNameError):
    """A recipe's class that the network cannot find."""

    def __init__(self, names: Sequence[str], available: Sequence[str]) -> None:
        super().__init__(f"no classes of this network: {', '.join(names)}; the names are {', '.join(available)}")


def check_classes(include: Sequence[str], exclude: Sequence[str], available: Sequence[str]) -> None:
    """Check that a network has the classes that a recipe names; those that are excluded by default may be missing.

    Raises:
        UnknownClass: it does not have one of them.

    Examples:
        >>> check_classes(["cat"], ["hat"], ["cat", "dog"])
        >>> check_classes(["cow"], [], ["cat", "dog"])
        Traceback (most recent call last):
        rasura.stages.detect.UnknownClass: no classes of this network: cow; the names are cat, dog
    """
    if unknown := sorted(set(include) - set(available) | set(exclude) - set(available) - set(NOT_OBJECTS)):
        raise UnknownClass(unknown, available)


class Detect(Stage):
    """Finds objects: one record a detection for photos, a label for pairs.

    Examples:
        - detect: {backend: yolox-onnx, weights: models/yolox_s.onnx, include: [person, car]}
    """

    name = "detect"
    version = "3"
    gives: ClassVar[Schema] = {
        "label": Kind.STRING,
        "box": Kind.FLOATS,
        "detect_score": Kind.FLOAT,
        "box_area": Kind.FLOAT,
        "box_cut": Kind.FLOAT,
    }
    batch_size = 8
    Params = DetectParams
    params: DetectParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        if params.backend == "yolox-onnx":
            check_classes(params.include, params.exclude, COCO)
        if params.backend in TEXT_BACKENDS and not params.include:
            raise ValueError(f"backend '{params.backend}' is prompted with words: name the classes (include)")
        if params.backend == "groundingdino-original" and not (params.config and params.text_encoder):
            raise ValueError("backend 'groundingdino-original' needs the parameters config and text_encoder")

    def schema(self, columns: Schema) -> Schema:
        if not {"input", "source"} & set(columns):
            raise stage.MissingColumns(self.name, ("source",), tuple(columns))
        return {**super().schema(columns), **(ALL_DETECTIONS if "object_mask" in columns else {})}

    def weights(self) -> dict[str, Path]:
        params = self.params
        files = list_files(params.backend, params.weights, params.revision)
        if params.backend == "groundingdino-original" and params.config and params.text_encoder:
            files |= list_files("config", params.config)
            files |= list_files("text-encoder", params.text_encoder, params.text_encoder_revision, ("*.json", "*.txt"))
        return files

    def network_memory(self, batch_size: int) -> NetworkMemory:
        is_prompted = self.params.backend in TEXT_BACKENDS  # a transformer at 800 by 1333 px, in batches on a card
        elements = 300_000_000 if is_prompted else 40_000_000
        library: Library = "onnx" if self.params.backend == "yolox-onnx" else "torch"
        return estimate_memory(
            count_parameters(self.weights().values()),
            elements * (batch_size if is_prompted else 1),
            "float32",
            library=library,
            cpu_elements=elements,
        )

    def required_modules(self) -> tuple[str, ...]:
        modules = {"yolo": ("ultralytics",), "groundingdino-original": ("groundingdino",)}
        return modules.get(self.params.backend, ())

    def setup(self) -> None:
        self.detector = self._open_detector()
        if self.params.backend == "yolo":
            check_classes(self.params.include, self.params.exclude, getattr(self.detector, "names", ()))

    def _open_detector(self) -> Detector:
        params = self.params
        path = resolve(params.weights, params.revision)
        match params.backend:
            case "grounding-dino":
                from rasura.stages.detectors.grounding_dino import GroundingDino

                return GroundingDino(path, params.include, params.min_score, params.text_threshold)
            case "groundingdino-original":
                from rasura.stages.detectors.grounding_dino_original import GroundingDinoOriginal

                config = resolve(params.config or "")
                text_encoder = resolve(params.text_encoder or "", params.text_encoder_revision, ("*.json", "*.txt"))
                return GroundingDinoOriginal(
                    find_single(path), config, text_encoder, params.include, params.min_score, params.text_threshold
                )
            case "yolo":
                from rasura.stages.detectors.yolo import Yolo

                return Yolo(find_single(path), params.min_score, params.nms, params.side)
            case _:
                from rasura.stages.detectors.yolox import YoloxOnnx

                return YoloxOnnx(find_single(path, [".onnx"]), params.min_score)

    def find(self, picture: RGB) -> list[Detection]:
        """Return the detections of an RGB picture that the recipe asks for, best first."""
        return self.filter_detections(self.detector.find([picture])[0])

    def filter_detections(self, detections: Sequence[Detection]) -> list[Detection]:
        """Return the detections of the recipe's classes, best first, without overlapping ones."""
        include, exclude = {name.lower() for name in self.params.include}, {n.lower() for n in self.params.exclude}
        chosen = [
            d for d in detections if (not include or d.label.lower() in include) and d.label.lower() not in exclude
        ]
        return keep_strongest(chosen, self.params.nms, self.params.across)

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        pictures = [record[get_picture_column(record)] for record in records]
        if self.detector.batches:
            detections = self.detector.find(pictures)
        else:  # on one thread a batch gains nothing, and its sums would be rounded differently
            detections = [self.detector.find([picture])[0] for picture in pictures]
        return [
            self._make_outcome(record, self.filter_detections(entry))
            for record, entry in zip(records, detections, strict=True)
        ]

    def process_one(self, record: Record) -> Outcome:
        return self.process([record])[0]

    def _make_outcome(self, record: Record, detections: Sequence[Detection]) -> Outcome:
        height, width = record[get_picture_column(record)].shape[:2]
        if record.get("object_mask") is not None:
            best = match_to_mask(detections, record["object_mask"])
            columns = make_columns(best, (height, width)) if best else dict.fromkeys(self.gives)
            return Kept([record | columns | list_detections(detections)])
        return Kept(
            [
                record | {"id": make_child_id(record["id"], f"{k:02d}")} | make_columns(detection, (height, width))
                for k, detection in enumerate(detections[: self.params.max_per_photo])
            ]
        )


def list_detections(detections: Sequence[Detection]) -> Record:
    """Return the columns of all detections in a picture; `read_detections` reads them back."""
    return {
        "detect_labels": [detection.label for detection in detections],
        "detect_scores": [float(detection.score) for detection in detections],
        "detect_boxes": [float(value) for detection in detections for value in detection.box],
    }


def read_detections(record: Record) -> list[Detection] | None:
    """Read the detections that `list_detections` listed; None where the picture was not searched.

    Examples:
        >>> read_detections(list_detections([Detection("cat", 0.5, (0.0, 1.0, 2.0, 3.0))]))
        [Detection(label='cat', score=0.5, box=(0.0, 1.0, 2.0, 3.0))]
    """
    labels, scores, boxes = (record.get(name) for name in ALL_DETECTIONS)
    if labels is None or scores is None or boxes is None:
        return None
    corners = zip(boxes[::4], boxes[1::4], boxes[2::4], boxes[3::4], strict=True)
    return [Detection(*entry) for entry in zip(labels, scores, corners, strict=True)]


def make_columns(detection: Detection, size: tuple[int, int]) -> Record:
    """Return the columns of a detection in a picture of (height, width)."""
    return {
        "label": detection.label,
        "box": list(detection.box),
        "detect_score": detection.score,
        "box_area": measure_box_area(detection.box, size),
        "box_cut": measure_box_cut(detection.box, size),
    }
