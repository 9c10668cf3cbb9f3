"""Draws for compositing: which foregrounds go onto which background. The same seed and tables give the same draws."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from rasura.manifests.ids import seed_for, stable_hash
from rasura.manifests.schemas import PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.balance import (
    Balance,
    CutOut,
    Light,
    Limits,
    compatible,
    seen_from,
    size_of,
    view_gap,
    views_of,
)
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Source

SHADOW = ["shadow_azimuth", "shadow_elevation", "shadow_confidence", "shadow_softness"]
PLANE = ["ground_plane", "ground_focal", "ground_metric", "ground_view_error", "ground_size_error"]
FOREGROUND = ["id", "label", "scene_id", "origin", "licence", "stages", "weights"]
BACKGROUND = ["scene_id", "split", "origin", "licence", "stages", "weights"]
CUT_OUT = ["foreground", "foreground_object", "foreground_box", "picture_width", "picture_height"]
LAYERS = ["foreground_light", "detect_score", *SHADOW, *PLANE]  # None where a flow has no such column
GROUND = ["ground_mask", "ground_rule", "ground_scale", "ground_class", "ground_place", "ground_things", *PLANE]
NEEDED = ["source", "ground_mask", "ground_scale"]  # of a background
SEEN = ["foreground_box", "picture_width", "picture_height", "ground_scale", *PLANE]  # what tells the view
LISTED = ["label", "split", "scene_id", "origin", "foreground_area", *SEEN, *SHADOW]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Flows = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed)]


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
    max_uses: int | None = Field(None, ge=1, description="how often one foreground is drawn at most")

    @field_validator("objects")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"least and most objects have to be 1 or more, in this order, not {list(value)}")
        return value


@lru_cache(maxsize=8)
def _order(seed: int, lap: int, count: int) -> list[int]:
    """The order in which backgrounds take turns in one round."""
    return [int(n) for n in np.random.default_rng(seed_for(seed, "draws", f"lap {lap}")).permutation(count)]


def light_of(row: Record, min_confidence: float = 0.0) -> Light:
    """What the shadow columns of a row say; a direction that is not sure enough is unknown."""
    confidence = row.get("shadow_confidence")
    sure = confidence is None or confidence >= min_confidence
    azimuth = row.get("shadow_azimuth") if sure else None
    return Light(azimuth, row.get("shadow_elevation") if sure else None, row.get("shadow_softness"))


class Drawing:
    """Draws one after another, balanced over all that were drawn before.

    Backgrounds take turns in a shuffled order that is new every round, those without a foreground that was seen from
    a like angle only where no other has one. All of a draw is of the background's split, so that no scene is in two.
    """

    def __init__(self, foregrounds: Sequence[Record], backgrounds: Sequence[Record], params: DrawsParams, seed: int):
        self.params, self.seed = params, seed
        self.limits = Limits(params.turn, params.elevation, params.softness, params.soft)
        by_split: dict[str, list[CutOut]] = {}
        for row in foregrounds:
            by_split.setdefault(row["split"], []).append(
                CutOut(
                    row["id"], row.get("scene_id") or row["id"], row.get("label") or "",
                    size_of(row.get("foreground_area")), light_of(row, params.min_confidence),
                    seen_from(row), row,
                )
            )  # fmt: skip
        mirror = params.mirror != "never"
        self.balance = {split: Balance(cut_outs, seed, mirror, params.max_uses) for split, cut_outs in by_split.items()}
        self.seen = {split: [one.seen for one in cut_outs] for split, cut_outs in by_split.items()}
        here = sorted((row for row in backgrounds if row["split"] in by_split), key=lambda row: str(row["id"]))
        self.views = {row["id"]: views_of(row) for row in here}
        gaps = {row["id"]: self._gap(row) for row in here}
        # the difference that all have to bear with: the limit, or the least there is
        self.limit = max(params.view, min(gaps.values(), default=0.0) + 1)
        self.backgrounds = [row for row in here if gaps[row["id"]] <= self.limit]

    def _gap(self, background: Record) -> float:
        """Degrees to the nearest view of a foreground in the same split; 0 where one of them is unknown."""
        views, seen = self.views[background["id"]], self.seen[background["split"]]
        if views is None or None in seen:
            return 0.0
        angles = np.asarray(seen, np.float64)
        return float(np.maximum(np.maximum(views[0] - angles, angles - views[1]), 0).min())

    def draw(self, number: int) -> tuple[Record, list[CutOut]]:
        """A background and its foregrounds: as many as drawn by lot, fewer where no other goes with the first."""
        lap, place = divmod(number, len(self.backgrounds))
        background = self.backgrounds[_order(self.seed, lap, len(self.backgrounds))[place]]
        rng = np.random.default_rng(seed_for(self.seed, "draws", f"draw {number}"))
        wanted = int(rng.integers(self.params.objects[0], self.params.objects[1] + 1))
        balance = self.balance[background["split"]]
        light = light_of(background, self.params.min_confidence)
        chosen: list[CutOut] = []
        # a background that shows its own light, and other scenes than its own, are wishes; the rest is a must
        wishes = [(lit, own) for lit in (True, False) for own in (False, True)]
        while len(chosen) < wanted:
            for lit, own in wishes:
                one = balance.take(lambda one, lit=lit, own=own: self._fits(one, background, light, chosen, lit, own))  # type: ignore[misc]
                if one is not None:
                    chosen.append(one)
                    wishes = [wish for wish in wishes if wish[0] == lit]  # what comes beside it has its light
                    break
            else:
                break
        return background, chosen

    def _fits(
        self, one: CutOut, background: Record, light: Light, chosen: Sequence[CutOut], lit: bool, own: bool
    ) -> bool:
        if one.id in [other.id for other in chosen] or (not own and one.scene == background.get("scene_id")):
            return False
        alone = not chosen and light.azimuth is None
        if one.mirror and self.params.mirror == "match" and alone:
            return False  # there is nothing to match
        if view_gap(one.seen, self.views[background["id"]]) > self.limit:
            return False
        if lit and light.azimuth is not None and not compatible(one.light, light, self.limits):
            return False
        return all(compatible(one.light, other.light, self.limits) for other in chosen)


class Draws(Source):
    """Foregrounds and a background, drawn together."""

    name = "draws"
    version = "3"
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

    def schema(self, given: Schema) -> Schema:
        # `given` has the columns of the first flow that is named by `upstream`
        if missing := tuple(column for column in CUT_OUT if column not in given):
            raise MissingColumns(self.name, missing, tuple(given))
        return dict(self.gives)

    def items(self, run: RunContext) -> list[Record]:
        foregrounds, backgrounds = (
            [row for flow in flows for row in self._rows(run, flow, needed)]
            for flows, needed in ((self.params.foregrounds, CUT_OUT), (self.params.backgrounds, NEEDED))
        )
        drawing = Drawing(foregrounds, backgrounds, self.params, self.seed)
        items: list[Record] = []
        for number in range(self.params.count if drawing.backgrounds else 0):
            background, chosen = drawing.draw(number)
            if not chosen:
                continue  # every foreground of this split was used up
            items.append(
                {
                    "id": stable_hash([number, self.seed, background["id"], [[one.id, one.mirror] for one in chosen]]),
                    "origin": background["origin"],
                    "background": [background["flow"], background["shard"], background["row"]],
                    "foregrounds": [
                        [*(one.row[key] for key in ("flow", "shard", "row")), one.mirror] for one in chosen
                    ],
                }
            )
        return items

    def _rows(self, run: RunContext, flow: str, needed: list[str]) -> list[Record]:
        """A flow's rows without their pictures, and where they stand.

        Raises:
            MissingColumns: what was checked of the first flow before the run, here of all.
        """
        table = run.tables.table(flow)
        if missing := tuple(column for column in needed if column not in table.whole):
            raise MissingColumns(f"{self.name} of flow {flow}", missing, tuple(table.whole))
        return [{**row, "flow": flow} for row in table.light([*LISTED, "shard", "row"]).to_pylist()]

    def process_one(self, item: Record) -> Outcome:
        flow, shard, number = item["background"]
        behind = self.tables.row(flow, shard, number, ["id", "source", *BACKGROUND, *GROUND])
        cut_outs = []
        for flow, shard, number, mirror in item["foregrounds"]:
            row = self.tables.row(flow, shard, number, [*FOREGROUND, *CUT_OUT, *LAYERS])
            size = [row.pop("picture_width"), row.pop("picture_height")]
            cut_outs.append(dict.fromkeys(LAYERS) | row | {"source_size": size, "mirror": mirror})
        licences = sorted({behind["licence"], *(row["licence"] for row in cut_outs)} - {None})
        merged: dict[str, dict[str, str]] = {"stages": {}, "weights": {}}
        for part in merged:
            for row in [behind, *cut_outs]:
                merged[part] |= row[part] or {}
        return Kept(
            [
                {
                    "id": item["id"],
                    "scene_id": behind["scene_id"],
                    "split": behind["split"],
                    "origin": behind["origin"],
                    "licence": "; ".join(licences),
                    "parents": [behind["id"], *(row["id"] for row in cut_outs)],
                    **merged,
                    "background": behind["source"],
                    **{column: behind.get(column) for column in GROUND},
                    "foregrounds": cut_outs,
                }
            ]
        )
