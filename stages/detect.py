"""Stage `detect`: what is in a picture and where.

On photos every detection becomes a record of its own; on pairs the detection that fits the object mask names it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from rasura.manifests.ids import child_id
from rasura.manifests.images import RGB
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.weights import Reference, Revision, listed, resolve, single
from rasura.stages import stage
from rasura.stages.detectors.boxes import Detection, Detector, box_area, box_cut, fit_to_mask, strongest
from rasura.stages.detectors.classes import COCO, NOT_OBJECTS
from rasura.stages.stage import Kept, Outcome, Record, Stage, picture_column

ASKED = ("grounding-dino", "groundingdino-original")  # backends that are asked in words


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
    nms: float = Field(0.45, gt=0, le=1, description="IoU above which the weaker of two boxes of one class goes.")
    across: float = Field(
        0.9, gt=0, le=1, description="IoU above which boxes of two classes are one object, and the weaker goes."
    )
    include: tuple[str, ...] = Field(
        (), description="Classes that are wanted: GroundingDINO is asked for these; the others know theirs, empty: all."
    )
    exclude: tuple[str, ...] = Field(
        NOT_OBJECTS, description="Classes that are not wanted; clothes and parts of bodies by default."
    )
    side: int = Field(640, ge=32, description="yolo: px of the square into which pictures are letterboxed.")
    max_per_photo: int = Field(10, ge=1, description="Detections of one photo at most, the best ones.")


class UnknownClass(ValueError):
    """A class that the network has no name for."""

    def __init__(self, names: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(f"no classes of this network: {', '.join(names)}; the names are {', '.join(known)}")


def check_classes(include: Sequence[str], exclude: Sequence[str], known: Sequence[str]) -> None:
    """Raises UnknownClass for a name that a network does not know; what is excluded by default need not be known."""
    if unknown := sorted(set(include) - set(known) | set(exclude) - set(known) - set(NOT_OBJECTS)):
        raise UnknownClass(unknown, known)


class Detect(Stage):
    """Finds objects: one record a detection for photos, a label for pairs."""

    name = "detect"
    version = "2"
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
        if params.backend in ASKED and not params.include:
            raise ValueError(f"backend '{params.backend}' is asked in words: say which classes (include)")
        if params.backend == "groundingdino-original" and not (params.config and params.text_encoder):
            raise ValueError("backend 'groundingdino-original' needs the parameters config and text_encoder")

    def schema(self, given: Schema) -> Schema:
        if not {"input", "source"} & set(given):
            raise stage.MissingColumns(self.name, ("source",), tuple(given))
        return super().schema(given)

    def weights(self) -> dict[str, Path]:
        params = self.params
        files = listed(params.backend, params.weights, params.revision)
        if params.backend == "groundingdino-original" and params.config and params.text_encoder:
            files |= listed("config", params.config)
            files |= listed("text-encoder", params.text_encoder, params.text_encoder_revision, ("*.json", "*.txt"))
        return files

    def setup(self) -> None:
        self.detector = self._detector()
        if self.params.backend == "yolo":
            check_classes(self.params.include, self.params.exclude, getattr(self.detector, "names", ()))

    def _detector(self) -> Detector:
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
                    single(path), config, text_encoder, params.include, params.min_score, params.text_threshold
                )
            case "yolo":
                from rasura.stages.detectors.yolo import Yolo

                return Yolo(single(path), params.min_score, params.nms, params.side)
            case _:
                from rasura.stages.detectors.yolox import YoloxOnnx

                return YoloxOnnx(single(path, [".onnx"]), params.min_score)

    def find(self, picture: RGB) -> list[Detection]:
        """Wanted detections of an RGB picture, best first."""
        return self._wanted(self.detector.find([picture])[0])

    def _wanted(self, found: Sequence[Detection]) -> list[Detection]:
        include, exclude = {name.lower() for name in self.params.include}, {n.lower() for n in self.params.exclude}
        wanted = [d for d in found if (not include or d.label.lower() in include) and d.label.lower() not in exclude]
        return strongest(wanted, self.params.nms, self.params.across)

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        pictures = [record[picture_column(record)] for record in records]
        if self.detector.batches:
            found = self.detector.find(pictures)
        else:  # on one thread a batch gains nothing, and its sums would round otherwise
            found = [self.detector.find([picture])[0] for picture in pictures]
        return [self._outcome(record, self._wanted(some)) for record, some in zip(records, found, strict=True)]

    def process_one(self, record: Record) -> Outcome:
        return self.process([record])[0]

    def _outcome(self, record: Record, found: Sequence[Detection]) -> Outcome:
        height, width = record[picture_column(record)].shape[:2]
        if record.get("object_mask") is not None:
            best = fit_to_mask(found, record["object_mask"])
            return Kept([record | (columns(best, (height, width)) if best else dict.fromkeys(self.gives))])
        return Kept(
            [
                record | {"id": child_id(record["id"], f"{k:02d}")} | columns(one, (height, width))
                for k, one in enumerate(found[: self.params.max_per_photo])
            ]
        )


def columns(one: Detection, size: tuple[int, int]) -> Record:
    """A detection in a picture of (height, width) as columns."""
    return {
        "label": one.label,
        "box": list(one.box),
        "detect_score": one.score,
        "box_area": box_area(one.box, size),
        "box_cut": box_cut(one.box, size),
    }
