"""Draws for compositing: which foregrounds go onto which background. The same seed and tables give the same draws."""

from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from manifests.ids import seed_for, stable_hash
from manifests.schemas import PROVENANCE, Kind, Schema
from stages import stage
from stages.sources.files import RunContext
from stages.stage import Kept, MissingColumns, Outcome, Record, Source

FOREGROUND = ["id", "label", "scene_id", "origin", "licence", "stages", "weights"]
BACKGROUND = ["scene_id", "split", "origin", "licence", "stages", "weights"]
CUT_OUT = ["foreground", "foreground_object", "foreground_box", "picture_width", "picture_height"]
GROUND = ["ground_mask", "ground_rule", "ground_scale"]


class DrawsParams(stage.Params):
    foregrounds: str = Field(description="flow whose rows are cut-out objects (after `split`)")
    backgrounds: str = Field(description="flow whose rows have a ground (after `ground`)")
    count: int = Field(ge=1, description="how many draws")
    objects: tuple[int, int] = Field((1, 2), description="least and most foregrounds a draw")

    @field_validator("objects")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"least and most objects have to be 1 or more, in this order, not {list(value)}")
        return value


@lru_cache(maxsize=1)
def _order(seed: int, lap: int, count: int) -> list[int]:
    """The order in which backgrounds take turns in one round."""
    return [int(n) for n in np.random.default_rng(seed_for(seed, "draws", f"lap {lap}")).permutation(count)]


def draw(
    number: int,
    seed: int,
    backgrounds: list[dict[str, Any]],
    foregrounds: dict[str, dict[str, list[dict[str, Any]]]],
    objects: tuple[int, int],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One background and its foregrounds.

    Backgrounds take turns in a shuffled order that is new every round; a foreground's label is drawn first, so that
    rare labels come as often as common ones. All are of the background's split, so that no scene is in two splits.

    Args:
        foregrounds: split -> label -> rows.
    """
    lap, place = divmod(number, len(backgrounds))
    background = backgrounds[_order(seed, lap, len(backgrounds))[place]]
    rng = np.random.default_rng(seed_for(seed, "draws", f"draw {number}"))
    labels = foregrounds[background["split"]]
    names = sorted(labels)
    chosen: list[dict[str, Any]] = []
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        rows = labels[names[int(rng.integers(len(names)))]]
        row = rows[int(rng.integers(len(rows)))]
        if row["id"] not in [other["id"] for other in chosen]:
            chosen.append(row)
    return background, chosen


class Draws(Source):
    """Foregrounds and a background, drawn together."""

    name = "draws"
    gives = {
        **PROVENANCE,
        "background": Kind.RGB,
        "ground_mask": Kind.MASK,
        "ground_rule": Kind.STRING,
        "ground_scale": Kind.FLOATS,
        "foregrounds": Kind.RECORDS,
    }
    Params = DrawsParams
    params: DrawsParams

    def upstream(self) -> list[str]:
        return [self.params.foregrounds, self.params.backgrounds]

    def schema(self, given: Schema) -> Schema:
        # `given` has the columns of the first flow that is named by `upstream`
        if missing := tuple(column for column in CUT_OUT if column not in given):
            raise MissingColumns(self.name, missing, tuple(given))
        return dict(self.gives)

    def items(self, run: RunContext) -> list[Record]:
        grouped: dict[str, dict[str, list[dict[str, Any]]]] = {}
        columns = ["id", "label", "split", "shard", "row"]
        for row in run.tables.table(self.params.foregrounds).light(columns).to_pylist():
            grouped.setdefault(row["split"], {}).setdefault(row.get("label") or "", []).append(row)
        backgrounds = run.tables.table(self.params.backgrounds).light([*columns, "origin"]).to_pylist()
        backgrounds = [row for row in backgrounds if row["split"] in grouped]
        items: list[Record] = []
        for number in range(self.params.count if backgrounds else 0):
            background, chosen = draw(number, self.seed, backgrounds, grouped, self.params.objects)
            items.append(
                {
                    "id": stable_hash([number, self.seed, background["id"], [row["id"] for row in chosen]]),
                    "origin": background["origin"],
                    "background": [background["shard"], background["row"]],
                    "foregrounds": [[row["shard"], row["row"]] for row in chosen],
                }
            )
        return items

    def _row(self, flow: str, place: list[Any], columns: list[str]) -> Record:
        shard, row = place
        return self.tables.row(flow, shard, row, columns)

    def process_one(self, item: Record) -> Outcome:
        behind = self._row(self.params.backgrounds, item["background"], ["id", "source", *BACKGROUND, *GROUND])
        cut_outs = []
        for place in item["foregrounds"]:
            row = self._row(self.params.foregrounds, place, [*FOREGROUND, *CUT_OUT])
            cut_outs.append({**row, "source_size": [row.pop("picture_width"), row.pop("picture_height")]})
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
