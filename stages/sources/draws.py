"""Draws for compositing: foregrounds with a background each. The same seed and tables give the same draws."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from rasura.manifests.ids import compute_seed, hash_json
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.stages import stage
from rasura.stages.compositing.instances import InstanceFilter, select_instances
from rasura.stages.compositing.placement import summarize_areas
from rasura.stages.sources.balance import (
    BalancedSampler,
    Foreground,
    Lighting,
    LightingLimits,
    are_compatible,
    compute_view_gap,
    estimate_depression,
    estimate_depression_range,
    find_size_bin,
)
from rasura.stages.sources.files import RunContext, survey_tables
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Source

SHADOW_COLUMNS = ["shadow_azimuth", "shadow_elevation", "shadow_confidence", "shadow_softness"]
PLANE_COLUMNS = ["ground_plane", "ground_focal", "ground_metric", "ground_view_error", "ground_size_error"]
FOREGROUND_COLUMNS = ["id", "label", "scene_id", "origin", "licence", "stages", "weights"]
BACKGROUND_COLUMNS = ["scene_id", "split", "origin", "licence", "stages", "weights"]
CUTOUT_COLUMNS = ["foreground", "foreground_object", "foreground_box", "picture_width", "picture_height"]
OPTIONAL_COLUMNS = ["foreground_light", "detect_score", *SHADOW_COLUMNS, *PLANE_COLUMNS]  # None where a flow has none
GROUND_COLUMNS = [
    "ground_mask",
    "ground_rule",
    "ground_scale",
    "ground_class",
    "ground_place",
    "ground_things",
    *PLANE_COLUMNS,
]
PHOTO_COLUMNS = ["source"]  # of a background
REQUIRED_COLUMNS = [*PHOTO_COLUMNS, "ground_mask", "ground_scale"]  # of a background with a ground plane
VIEW_COLUMNS = [
    "foreground_box",
    "picture_width",
    "picture_height",
    "ground_scale",
    *PLANE_COLUMNS,
]  # determine the view
LISTING_COLUMNS = [
    "label",
    "split",
    "scene_id",
    "origin",
    "foreground_area",
    "clip_score",
    *VIEW_COLUMNS,
    *SHADOW_COLUMNS,
]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Flows = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_tuple)]


class DrawsParams(stage.Params):
    foregrounds: Flows = Field(description="flows whose rows are cut-out objects (after `split`)")
    backgrounds: Flows = Field(description="flows whose rows have a ground (after `ground`)")
    count: int = Field(ge=1, description="how many draws")
    objects: tuple[int, int] = Field((1, 3), description="least and most foregrounds a draw")
    mirror: Literal["never", "match", "any"] = Field(
        "match", description="turn a foreground left to right: to match another's shadow, or also to balance directions"
    )
    turn: float = Field(45.0, ge=0, le=180, description="degrees by which shadow directions in a draw may differ")
    elevation: float = Field(25.0, ge=0, le=90, description="degrees by which elevations of the light may differ")
    softness: float = Field(0.25, ge=0, description="by how much the softness of shadows in a draw may differ")
    soft: float = Field(0.3, ge=0, description="softness from which a shadow goes with an object that shows none")
    min_confidence: float = Field(0.0, ge=0, le=1, description="shadow directions less sure than this are unknown")
    view: float = Field(
        5.0, ge=0, description="degrees by which an object may be seen more or less from above than any of the floor"
    )
    ground: bool = Field(
        True, description="backgrounds need a ground plane; false, for `composite: {placement: gaussian}`: any photo"
    )
    instances: InstanceFilter | None = Field(
        None, description="leave out foregrounds as Syn4Removal does; areas of the classes are those of what is left"
    )
    max_uses: int | None = Field(None, ge=1, description="how often one foreground is drawn at most")

    @field_validator("objects")
    @classmethod
    def _check_order(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"expected the least and the most objects, from 1, in this order; not {list(value)}")
        return value


@lru_cache(maxsize=8)
def _shuffle_backgrounds(seed: int, lap: int, count: int) -> list[int]:
    """Return the order in which backgrounds take turns in one lap."""
    return [int(n) for n in np.random.default_rng(compute_seed(seed, "draws", f"lap {lap}")).permutation(count)]


def read_lighting(row: Record, min_confidence: float = 0.0) -> Lighting:
    """Read the shadow columns of a row; a direction below `min_confidence` is unknown.

    Examples:
        >>> read_lighting({"shadow_azimuth": 30.0, "shadow_confidence": 0.2}, min_confidence=0.5).azimuth is None
        True
    """
    confidence = row.get("shadow_confidence")
    confident = confidence is None or confidence >= min_confidence
    azimuth = row.get("shadow_azimuth") if confident else None
    return Lighting(azimuth, row.get("shadow_elevation") if confident else None, row.get("shadow_softness"))


class PairSampler:
    """Sampler of backgrounds with foregrounds, each draw balanced over all draws before it.

    Backgrounds take turns in a shuffled order that is new every lap, those without a foreground that was seen from
    a similar angle only where no other has one. All of a draw is of the background's split, so that no scene is in two.

    Args:
        foregrounds, backgrounds: rows with the columns of `LISTING_COLUMNS`. seed: the recipe's.
    """

    def __init__(self, foregrounds: Sequence[Record], backgrounds: Sequence[Record], params: DrawsParams, seed: int):
        self.params, self.seed = params, seed
        self.limits = LightingLimits(params.turn, params.elevation, params.softness, params.soft)
        by_split: dict[str, list[Foreground]] = {}
        for row in foregrounds:
            entry = Foreground(
                id=row["id"],
                scene=row.get("scene_id") or row["id"],
                label=row.get("label") or "",
                size_bin=find_size_bin(row.get("foreground_area")),
                lighting=read_lighting(row, params.min_confidence),
                depression=estimate_depression(row),
                row=row,
            )
            by_split.setdefault(row["split"], []).append(entry)
        mirror = params.mirror != "never"
        self.samplers = {
            split: BalancedSampler(entries, seed, mirror, params.max_uses) for split, entries in by_split.items()
        }
        self.depressions = {split: [entry.depression for entry in entries] for split, entries in by_split.items()}
        candidates = sorted((row for row in backgrounds if row["split"] in by_split), key=lambda row: str(row["id"]))
        self.view_ranges = {row["id"]: estimate_depression_range(row) for row in candidates}
        gaps = {row["id"]: self._compute_least_gap(row) for row in candidates}
        # the difference that is accepted: the limit, or the least there is
        self.max_gap = max(params.view, min(gaps.values(), default=0.0) + 1)
        self.backgrounds = [row for row in candidates if gaps[row["id"]] <= self.max_gap]

    def _compute_least_gap(self, background: Record) -> float:
        """Return the degrees to the nearest view of a foreground in the same split; 0 where one is unknown."""
        view_range, depressions = self.view_ranges[background["id"]], self.depressions[background["split"]]
        if view_range is None or None in depressions:
            return 0.0
        angles = np.asarray(depressions, np.float64)
        return float(np.maximum(np.maximum(view_range[0] - angles, angles - view_range[1]), 0).min())

    def sample(self, number: int) -> tuple[Record, list[Foreground]]:
        """Sample a background and its foregrounds: as many as drawn by lot, fewer where no other fits the first.

        Args:
            number: of the draw, 0, 1, 2 … in this order.
        """
        lap, place = divmod(number, len(self.backgrounds))
        background = self.backgrounds[_shuffle_backgrounds(self.seed, lap, len(self.backgrounds))[place]]
        rng = np.random.default_rng(compute_seed(self.seed, "draws", f"draw {number}"))
        count = int(rng.integers(self.params.objects[0], self.params.objects[1] + 1))
        sampler = self.samplers[background["split"]]
        lighting = read_lighting(background, self.params.min_confidence)
        chosen: list[Foreground] = []
        # the background's lighting, and another scene than the background's, are preferences; the rest is required
        preferences = [(match_light, same_scene) for match_light in (True, False) for same_scene in (False, True)]
        while len(chosen) < count:
            for match_light, same_scene in preferences:
                fits = partial(self._is_compatible, background, lighting, chosen, match_light, same_scene)
                if (entry := sampler.sample(fits)) is not None:
                    chosen.append(entry)
                    # objects beside it have the same lighting
                    preferences = [pair for pair in preferences if pair[0] == match_light]
                    break
            else:
                break
        return background, chosen

    def _is_compatible(
        self,
        background: Record,
        lighting: Lighting,
        chosen: Sequence[Foreground],
        match_light: bool,
        same_scene: bool,
        entry: Foreground,
    ) -> bool:
        if entry.id in [other.id for other in chosen]:
            return False
        if not same_scene and entry.scene == background.get("scene_id"):
            return False
        alone = not chosen and lighting.azimuth is None
        if entry.mirror and self.params.mirror == "match" and alone:
            return False  # there is nothing to match
        if compute_view_gap(entry.depression, self.view_ranges[background["id"]]) > self.max_gap:
            return False
        if match_light and lighting.azimuth is not None and not are_compatible(entry.lighting, lighting, self.limits):
            return False
        return all(are_compatible(entry.lighting, other.lighting, self.limits) for other in chosen)


class Draws(Source):
    """Foregrounds and a background, sampled together."""

    name = "draws"
    version = "4"
    gives = {
        **PROVENANCE,
        "background": Kind.RGB,
        "ground_mask": Kind.MASK,
        "ground_rule": Kind.STRING,
        "ground_scale": Kind.FLOATS,
        "ground_plane": Kind.FLOATS,
        "ground_focal": Kind.FLOAT,
        "ground_metric": Kind.BOOL,
        "ground_view_error": Kind.FLOAT,
        "ground_size_error": Kind.FLOAT,
        "ground_class": Kind.STRING,
        "ground_place": Kind.STRING,
        "ground_things": Kind.FLOATS,
        "foregrounds": Kind.RECORDS,
    }
    Params = DrawsParams
    params: DrawsParams

    def upstream(self) -> list[str]:
        return list(dict.fromkeys([*self.params.foregrounds, *self.params.backgrounds]))

    def required_columns(self) -> Mapping[str, Sequence[str]]:
        required = dict.fromkeys(self.params.backgrounds, self.background_columns)
        for flow in self.params.foregrounds:
            required[flow] = [*CUTOUT_COLUMNS, *required.get(flow, ())]
        return required

    @property
    def background_columns(self) -> list[str]:
        """The columns that backgrounds need."""
        return REQUIRED_COLUMNS if self.params.ground else PHOTO_COLUMNS

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return survey_tables(run, self.upstream())

    def items(self, run: RunContext) -> list[Record]:
        p = self.params
        foregrounds = [row for flow in p.foregrounds for row in self._read_rows(run, flow, CUTOUT_COLUMNS)]
        backgrounds = [row for flow in p.backgrounds for row in self._read_rows(run, flow, self.background_columns)]
        areas: dict[str, tuple[float, float]] = {}
        if p.instances is not None:
            foregrounds = select_instances(foregrounds, p.instances)
            sizes = [(row.get("label"), row.get("foreground_area")) for row in foregrounds]
            areas = summarize_areas([(label, area) for label, area in sizes if area is not None])
        sampler = PairSampler(foregrounds, backgrounds, self.params, self.seed)
        items: list[Record] = []
        for number in range(self.params.count if sampler.backgrounds else 0):
            background, chosen = sampler.sample(number)
            if not chosen:
                continue  # every foreground of this split was used up
            items.append(
                {
                    "id": hash_json(
                        [number, self.seed, background["id"], [[entry.id, entry.mirror] for entry in chosen]]
                    ),
                    "origin": background["origin"],
                    "background": [background["flow"], background["shard"], background["row"]],
                    "foregrounds": [
                        [*(entry.row[key] for key in ("flow", "shard", "row")), entry.mirror, areas.get(entry.label)]
                        for entry in chosen
                    ],
                }
            )
        return items

    def _read_rows(self, run: RunContext, flow: str, required: list[str]) -> list[Record]:
        """Return a flow's rows without their pictures, with the place of each in its table.

        Raises:
            MissingColumns: a column is missing in the table, though the plan of the flow has it.
        """
        table = run.tables.table(flow)
        if missing := tuple(column for column in required if column not in table.full_schema):
            raise MissingColumns(f"{self.name} of flow {flow}", missing, tuple(table.full_schema))
        return [{**row, "flow": flow} for row in table.read_light([*LISTING_COLUMNS, "shard", "row"]).to_pylist()]

    def process_one(self, item: Record) -> Outcome:
        flow, shard, number = item["background"]
        background = self.tables.row(flow, shard, number, ["id", "source", *BACKGROUND_COLUMNS, *GROUND_COLUMNS])
        cutouts = []
        for flow, shard, number, mirror, area in item["foregrounds"]:
            row = self.tables.row(flow, shard, number, [*FOREGROUND_COLUMNS, *CUTOUT_COLUMNS, *OPTIONAL_COLUMNS])
            size = [row.pop("picture_width"), row.pop("picture_height")]
            cutouts.append(
                dict.fromkeys(OPTIONAL_COLUMNS) | row | {"source_size": size, "mirror": mirror, "class_area": area}
            )
        licences = sorted({background["licence"], *(row["licence"] for row in cutouts)} - {None})
        merged: dict[str, dict[str, str]] = {"stages": {}, "weights": {}}
        for column in merged:
            for row in [background, *cutouts]:
                merged[column] |= row[column] or {}
        return Kept(
            [
                {
                    "id": item["id"],
                    "scene_id": background["scene_id"],
                    "split": background["split"],
                    "origin": background["origin"],
                    "licence": "; ".join(licences),
                    "parents": [background["id"], *(row["id"] for row in cutouts)],
                    **merged,
                    "background": background["source"],
                    **{column: background.get(column) for column in GROUND_COLUMNS},
                    "foregrounds": cutouts,
                }
            ]
        )
