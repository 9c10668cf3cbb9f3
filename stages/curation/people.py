"""Stage `people`: how many people a picture shows, how much of it they cover, and their faces."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import NetworkMemory
from rasura.stages.curation.measuring import check_picture_column
from rasura.stages.detect import Detect, DetectParams
from rasura.stages.stage import Kept, Outcome, Params, Record, Stage, get_picture_column

Box = tuple[float, float, float, float]
PERSON = "person"


class PeopleParams(Params):
    detector: DetectParams = Field(description="The detector, with the parameters of stage `detect`.")
    min_score: float = Field(0.4, ge=0, le=1, description="Of a person or a face, from which one counts.")
    faces: DetectParams | None = Field(
        None, description="A detector that knows faces, such as GroundingDINO; null: faces are not counted."
    )
    face: str = Field("face", min_length=1, description="What a face is called by that detector.")


def measure_cover(boxes: Sequence[Box], height: int, width: int) -> float:
    """Measure the share of a picture that boxes cover together.

    Examples:
        >>> measure_cover([(0, 0, 5, 10), (0, 0, 2, 10)], 10, 10)
        0.5
    """
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        rows = slice(max(0, round(top)), max(0, round(bottom)))
        covered[rows, max(0, round(left)) : max(0, round(right))] = True
    return float(covered.mean())


def ask_for(detector: DetectParams, label: str, min_score: float) -> DetectParams:
    """Return a detector's parameters for one class alone."""
    return detector.model_copy(update={"include": (label,), "exclude": (), "min_score": min_score})


class People(Stage):
    """Count people and faces, and measure which share of the picture their boxes cover.

    Examples:
        - people: {detector: {weights: models/yolox_s.onnx}}
        - select: {keep: {people_count: {max: 0}}}
    """

    name = "people"
    gives = {
        "people_count": Kind.INT,
        "people_area": Kind.FLOAT,  # share of the picture
        "face_count": Kind.INT,  # null where faces are not searched
        "face_area": Kind.FLOAT,
    }
    Params = PeopleParams
    params: PeopleParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.detect = Detect(ask_for(params.detector, PERSON, params.min_score), seed)
        self.detect_faces = (
            None if params.faces is None else Detect(ask_for(params.faces, params.face, params.min_score), seed)
        )

    def schema(self, columns: Schema) -> Schema:
        check_picture_column(self.name, columns)
        return super().schema(columns)

    def weights(self) -> Mapping[str, Path]:
        faces = {} if self.detect_faces is None else self.detect_faces.weights()
        return {**self.detect.weights(), **{f"faces-{name}": path for name, path in faces.items()}}

    def network_memory(self, batch_size: int) -> NetworkMemory:
        people = self.detect.network_memory(batch_size)
        return people if self.detect_faces is None else people + self.detect_faces.network_memory(batch_size)

    def required_modules(self) -> Sequence[str]:
        faces = () if self.detect_faces is None else self.detect_faces.required_modules()
        return tuple(dict.fromkeys([*self.detect.required_modules(), *faces]))

    def setup(self) -> None:
        self.detect.setup()
        if self.detect_faces is not None:
            self.detect_faces.setup()

    def process_one(self, record: Record) -> Outcome:
        picture = record[get_picture_column(record)]
        height, width = picture.shape[:2]
        people = [detection.box for detection in self.detect.find(picture)]
        faces = None if self.detect_faces is None else [found.box for found in self.detect_faces.find(picture)]
        columns = {
            "people_count": len(people),
            "people_area": measure_cover(people, height, width),
            "face_count": None if faces is None else len(faces),
            "face_area": None if faces is None else measure_cover(faces, height, width),
        }
        return Kept([record | columns])
