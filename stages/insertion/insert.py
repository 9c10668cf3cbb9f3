"""Stage `insert`: an object is painted into an empty region of a photograph, which is then the true answer.

The result is a pair (`input` with the object, `gt` the photograph), which `effects` and `segment` take like any other;
`confirm` makes the triplet. Outside the region both are equal to the last bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from rasura.manifests.boxes import Box
from rasura.manifests.ids import compute_seed, make_child_id
from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import PICTURES, Kind, Schema
from rasura.removers.base import Filled, Inserter, remove
from rasura.removers.inserters import check_inserters, open_inserter
from rasura.removers.registry import ModelParams
from rasura.stages import stage
from rasura.stages.compositing.class_places import explain_misplacement
from rasura.stages.effect_mask.segmentation import detect_changes
from rasura.stages.imaging.comparison import compute_difference
from rasura.stages.imaging.morphology import dilate
from rasura.stages.inpaint import RemoverStage, check_mask, describe_licence
from rasura.stages.insertion.ground_restoration import find_painted_ground, measure_redrawn, restore_ground
from rasura.stages.insertion.regions import RegionLimits, find_region
from rasura.stages.registration.noise import estimate_noise
from rasura.stages.stage import Kept, Outcome, Record, Rejected

Array = npt.NDArray[Any]

CLASSES = (
    *("person", "dog", "cat", "chair", "stool", "bench", "bicycle", "suitcase", "backpack", "bucket", "trash can"),
    *("teddy bear", "stroller", "potted plant", "traffic cone"),
)
"""Things that stand on floors and grounds, and that networks know."""
MAX_CLASSES = 4  # classes that are tried where one has no room
NEAR_HOLE = 12  # px of what an inserter saw: so near its hole its picture may run over
MIN_OUTSIDE = 1000  # px that have to be left outside for a measurement


class InsertParams(stage.Params):
    inserters: tuple[str, ...] = Field(
        min_length=1, description="Inserters, each makes one candidate: of `models`, or module:Class."
    )
    models: Mapping[str, ModelParams] = Field({}, description="Networks among them: name to its files and options.")
    classes: tuple[str, ...] = Field(CLASSES, min_length=1, description="What is painted; each picture draws one.")
    text: str = Field("a photo of a {label}", description="Text for the inserter; {label} is the class.")
    count: int = Field(1, ge=1, le=64, description="Objects a photograph, each in a row of its own.")
    min_height: float = Field(0.12, gt=0, le=1, description="Smallest object, share of the picture's height.")
    max_height: float = Field(0.5, gt=0, le=1, description="Largest object, share of the picture's height.")
    room: float = Field(
        0.5, ge=0, le=4, description="Room for a shadow at each side of the object, in lengths of its longer side."
    )
    tries: int = Field(300, ge=1, description="Positions that are drawn for each object.")
    dilation: int = Field(8, ge=0, le=256, description="Px around the region over which the painting fades out.")
    context: float = Field(0.75, ge=0, le=10, description="Picture around the region that is seen, in region sizes.")
    max_redrawn: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the ground in the region that may have other details; above, it gets the photograph's "
        "back, in the painting's light. 1: it stays as it was painted.",
    )

    @field_validator("text")
    @classmethod
    def _check_text(cls, value: str) -> str:
        if "{label}" not in value or value.replace("{label}", "").count("{"):
            raise ValueError(f"has to name the class as {{label}}, and nothing else in braces: {value!r}")
        return value

    @model_validator(mode="after")
    def _check_inserters(self) -> "InsertParams":
        check_inserters(self.inserters, self.models)
        return self

    def write_text(self, label: str) -> str:
        """Return the inserter's text for a class."""
        return self.text.replace("{label}", label)


class Fidelity(NamedTuple):
    """How an inserter gives back what it was not asked to change; None where nothing was left to measure.

    Attributes:
        outside: grey levels by which it changed what lies outside of the hole, 95th percentile of 5 × 5 means.
        noise: sigma of the 5 × 5 mean difference there, as `pair_noise`: what its coding of the picture adds.
    """

    outside: float | None
    noise: float | None


class Painting(NamedTuple):
    """One object to be painted: its row's id, class, region, and the rule by which the region was found."""

    record: Record
    id: str
    label: str
    region: Box
    rule: str


def measure_fidelity(picture: RGB, painted: RGB, hole: Mask) -> Fidelity:
    """Measure how an inserter's picture, before only its hole is used, differs from the one that it got.

    Args:
        picture, painted: (h, w, 3) uint8. hole: (h, w) bool.
    """
    outside = ~dilate(hole, NEAR_HOLE)
    if outside.sum() < MIN_OUTSIDE:
        return Fidelity(None, None)
    level = float(np.percentile(compute_difference(painted, picture)[outside], 95))
    return Fidelity(level, estimate_noise(painted, picture, outside))


class TextPainter:
    """An inserter with a text for each picture, in the place of a remover; it measures what it is not asked to do."""

    def __init__(self, inserter: Inserter, texts: Sequence[str]) -> None:
        self.inserter, self.texts = inserter, texts
        self.name, self.capability = inserter.name, inserter.capability
        self.weights, self.setup = inserter.weights, inserter.setup
        self.fidelity: list[Fidelity] = []

    def fill(self, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]) -> Sequence[Array | Filled]:
        """Paint as `Inserter.paint` does."""
        results = self.inserter.paint(pictures, holes, seeds, self.texts)
        for picture, hole, result in zip(pictures, holes, results, strict=False):
            painted = result.picture if isinstance(result, Filled) else result
            fits = painted.shape == picture.shape
            self.fidelity.append(measure_fidelity(picture, painted, hole) if fits else Fidelity(None, None))
        return results


class Insert(RemoverStage):
    """Paints an object into an empty region of a photograph: a pair, for `effects`, `segment` and `confirm`.

    Examples:
        - insert:
            inserters: [powerpaint]
            models:
              powerpaint: {base: models/powerpaint}
            classes: [dog, chair, suitcase]
    """

    name = "insert"
    version = "2"
    needs: ClassVar[Schema] = {"source": Kind.RGB}
    gives: ClassVar[Schema] = {
        "input": Kind.RGB,
        "gt": Kind.RGB,
        "given_kind": Kind.STRING,
        "label": Kind.STRING,
        "remover": Kind.STRING,  # the inserter's name
        "hole_dilation": Kind.INT,
        "licence": Kind.STRING,
        "pair_noise": Kind.FLOAT,  # grey levels, of the inserter's own coding of the picture
        "insert_class": Kind.STRING,
        "insert_text": Kind.STRING,
        "insert_box": Kind.FLOATS,  # x0, y0, x1, y1 of the region, px
        "insert_rule": Kind.STRING,  # ground, empty or row: how the region was found
        "insert_outside": Kind.FLOAT,  # grey levels by which the inserter changed what lies outside; null: not seen
        "insert_redrawn": Kind.FLOAT,  # share of the ground in the region whose details were not the photograph's
        "insert_change": Kind.FLOAT,  # share of the region that changed
    }
    drops: ClassVar[frozenset[str]] = frozenset(
        {"source", "box", "points", "detect_score", "detect_labels", "detect_scores", "detect_boxes"}
        | {"box_area", "box_cut", "mask_area"}  # of what the photograph shows
    )
    candidate_kind = "inserted"
    batch_size = 8
    time_limit_s = 300.0
    Params = InsertParams
    params: InsertParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.texts = {label: params.write_text(label) for label in params.classes}
        self.inserters = [open_inserter(name, params.models, list(self.texts.values())) for name in params.inserters]
        self.removers = self.inserters
        self.limits = RegionLimits(params.tries, params.min_height, params.max_height, params.room)
        self.check_names()

    def schema(self, columns: Schema) -> Schema:
        after = super().schema(columns)
        # the pictures of what it was made from stay where they are: `parents` leads to them
        return {name: kind for name, kind in after.items() if kind not in PICTURES or name in self.gives}

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        """Run each inserter on all records at once: a network runs on batches."""
        drawn = [self.draw_paintings(record) for record in records]
        paintings = [painting for outcome in drawn if not isinstance(outcome, Rejected) for painting in outcome]
        children: dict[str, list[Record]] = {record["id"]: [] for record in records}
        masks = [_make_mask(painting) for painting in paintings]
        for inserter in self.inserters if paintings else []:
            painter = TextPainter(inserter, [self.texts[painting.label] for painting in paintings])
            seeds = [compute_seed(self.seed, f"{self.name}.{inserter.name}", painting.id) for painting in paintings]
            pictures = [painting.record["source"] for painting in paintings]
            results = remove(painter, pictures, masks, seeds, self.params.dilation, self.params.context)
            for painting, result, fidelity in zip(paintings, results, painter.fidelity, strict=True):
                child = self._make_child(inserter, painting, result, fidelity)
                children[painting.record["id"]].append(child)
        return [
            outcome if isinstance(outcome, Rejected) else Kept(children[record["id"]])
            for record, outcome in zip(records, drawn, strict=True)
        ]

    def draw_paintings(self, record: Record) -> list[Painting] | Rejected:
        """Draw what is painted into a photograph and where, `count` times; a rejection where there is never room."""
        paintings = []
        for number in range(self.params.count):
            id = make_child_id(record["id"], str(number))
            rng = np.random.default_rng(compute_seed(self.seed, self.name, id))
            for label in self._order_classes(record, rng)[:MAX_CLASSES]:
                found = find_region(record["source"], label, record, self.limits, rng)
                if found is not None:
                    paintings.append(Painting(record, id, label, *found))
                    break
        if not paintings:
            return Rejected("no place", "no free region for any of the classes that may be there")
        rejection = check_mask(_make_mask(paintings[0]), self.params.dilation)
        return paintings if rejection is None else rejection

    def _order_classes(self, record: Record, rng: np.random.Generator) -> list[str]:
        """Return the classes that may stand there, in random order."""
        order = [self.params.classes[k] for k in rng.permutation(len(self.params.classes))]
        where = record.get("ground_class"), record.get("ground_place")
        return [label for label in order if explain_misplacement(label, *where) is None]

    def _make_child(self, inserter: Inserter, painting: Painting, result: RGB, fidelity: Fidelity) -> Record:
        record, (x0, y0, x1, y1) = painting.record, painting.region
        rest = {
            name: value
            for name, value in record.items()
            if name not in self.drops and not (isinstance(value, np.ndarray) and value.ndim > 1)
        }
        noise, photo = fidelity.noise or 0.0, record["source"]
        redrawn = 0.0
        if self.params.max_redrawn < 1:
            region = dilate(_make_mask(painting), self.params.dilation)
            ground = find_painted_ground(result, photo, region)
            redrawn = measure_redrawn(result, photo, ground & _make_mask(painting))
            if redrawn > self.params.max_redrawn:
                result = restore_ground(result, photo, ground, region)
        changed = detect_changes(result, photo, noise)
        return rest | {
            "id": make_child_id(painting.id, inserter.name),
            "input": result,
            "gt": photo,
            "given_kind": "inserted",
            "label": painting.label,
            "remover": inserter.name,
            "hole_dilation": self.params.dilation,
            "licence": describe_licence(record.get("licence"), inserter),
            "pair_noise": noise,
            "insert_class": painting.label,
            "insert_text": self.texts[painting.label],
            "insert_box": [float(value) for value in painting.region],
            "insert_rule": painting.rule,
            "insert_outside": fidelity.outside,
            "insert_redrawn": redrawn,
            "insert_change": float(changed[y0:y1, x0:x1].mean()),
        }


def _make_mask(painting: Painting) -> Mask:
    mask = np.zeros(painting.record["source"].shape[:2], bool)
    x0, y0, x1, y1 = painting.region
    mask[y0:y1, x0:x1] = True
    return mask
