"""Draws from tables on disk: splits, the columns of a record, several flows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.draw_rows import make_plane
from support.run_tables import write_table

from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.sources.draws import Draws
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import Kept, MissingColumns

CUT_OUTS = {
    **PROVENANCE,
    "label": Kind.STRING,
    "foreground": Kind.RGBA,
    "foreground_object": Kind.MASK,
    "foreground_box": Kind.FLOATS,
    "foreground_area": Kind.FLOAT,
    "picture_width": Kind.INT,
    "picture_height": Kind.INT,
}
LIT = {
    **CUT_OUTS,
    "foreground_light": Kind.RGB,
    "shadow_azimuth": Kind.FLOAT,
    "shadow_elevation": Kind.FLOAT,
    "shadow_confidence": Kind.FLOAT,
    "shadow_softness": Kind.FLOAT,
    "ground_plane": Kind.FLOATS,
    "ground_focal": Kind.FLOAT,
    "ground_metric": Kind.BOOL,
}
GROUNDS = {
    **PROVENANCE,
    "source": Kind.RGB,
    "ground_mask": Kind.MASK,
    "ground_rule": Kind.STRING,
    "ground_scale": Kind.FLOATS,
    "ground_plane": Kind.FLOATS,
    "ground_focal": Kind.FLOAT,
    "ground_metric": Kind.BOOL,
}


def make_cutout_row(number: int, columns: Mapping[str, Kind], **fields: Any) -> dict[str, Any]:
    """A cut-out with pictures."""
    rgba = np.full((6, 4, 4), number % 250, np.uint8)
    row = {
        "id": f"f{number:03d}",
        "scene_id": f"s{number}",
        "split": "train",
        "origin": f"in/{number}.png",
        "licence": f"L{number % 2}",
        "stages": {"matte": "1"},
        "weights": {"sam": "ab"},
        "label": f"c{number % 3}",
        "foreground": rgba,
        "foreground_light": rgba[..., :3],
        "foreground_object": rgba[..., 3] >= 0,
        "foreground_box": [1.0, 2.0, 5.0, 8.0],
        "foreground_area": 0.02,
        "picture_width": 64,
        "picture_height": 48,
        "shadow_azimuth": 45.0 * (number % 8),
        "shadow_elevation": 40.0,
        "shadow_confidence": 0.9,
        "shadow_softness": 0.1,
        "ground_plane": make_plane(10),
        "ground_focal": 60.0,
        "ground_metric": True,
    }
    return {name: value for name, value in (row | fields).items() if name in columns}


def scene(number: int, **fields: Any) -> dict[str, Any]:
    """A background with pictures."""
    mask = np.zeros((48, 64), bool)
    mask[30:] = True
    return {
        "id": f"b{number:03d}",
        "scene_id": f"t{number}",
        "split": "train",
        "origin": f"bg/{number}.png",
        "licence": "B",
        "stages": {"ground": "2"},
        "weights": {"depth": "cd"},
        "source": np.full((48, 64, 3), number, np.uint8),
        "ground_mask": mask,
        "ground_rule": "depth-plane",
        "ground_scale": [0.0, 1.0, -10.0],
        "ground_plane": make_plane(12),
        "ground_focal": 55.0,
        "ground_metric": False,
    } | fields


def test_no_scene_is_in_two_splits(tmp_path: Path) -> None:
    """All of a draw is of one split; a background whose split has no foregrounds is not drawn; the record says which
    split it is. From tables on disk, cut into different shards, the same items come out."""
    fronts = [make_cutout_row(n, LIT, split="test" if n % 4 == 0 else "train") for n in range(12)]
    behind = [scene(n, split=("train", "test", "other")[n % 3]) for n in range(9)]
    listings = []
    for rows in (2, 5):
        run = Store(tmp_path / f"run{rows}")
        write_table(run, "cars", fronts, LIT, rows)
        write_table(run, "grounds", behind, GROUNDS, rows)
        source = Draws(Draws.Params(foregrounds="cars", backgrounds="grounds", count=30), 5)
        source.tables = Tables(run)
        items = source.items(RunContext(run, "drawn"))
        assert len(items) == 30
        listings.append([item["id"] for item in items])
        for item in items:
            outcome = source.process([item])[0]
            assert isinstance(outcome, Kept)
            (record,) = outcome.records
            number = int(record["parents"][0][1:])
            assert record["split"] == ("train", "test")[number % 3]
            for one in record["foregrounds"]:
                assert ("test" if int(one["id"][1:]) % 4 == 0 else "train") == record["split"]
    assert listings[0] == listings[1]
    assert len(set(listings[0])) == 30


def test_a_record_has_all_that_composite_needs(tmp_path: Path) -> None:
    """Every column of the cut-outs and of the background is handed on; those that a flow does not have are None; the
    licences, stages and weights of all that go into a picture are its own."""
    for columns in (LIT, CUT_OUTS):
        run = Store(tmp_path / str(len(columns)))
        write_table(run, "cars", [make_cutout_row(n, columns) for n in range(9)], columns, 4)
        write_table(run, "grounds", [scene(0)], GROUNDS, 4)
        source = Draws(Draws.Params(foregrounds="cars", backgrounds="grounds", count=8, objects=(2, 2)), 5)
        source.tables = Tables(run)
        assert set(source.schema(columns)) >= {"ground_plane", "ground_focal", "ground_metric", "foregrounds"}
        for item in source.items(RunContext(run, "drawn")):
            outcome = source.process([item])[0]
            assert isinstance(outcome, Kept)
            (record,) = outcome.records
            assert set(record) <= set(source.gives)
            assert record["background"].shape == (48, 64, 3)
            assert record["ground_plane"] == make_plane(12)
            assert record["ground_metric"] is False
            assert len(record["foregrounds"]) == 2
            for one in record["foregrounds"]:
                assert set(one) == {
                    "id",
                    "scene_id",
                    "label",
                    "origin",
                    "licence",
                    "stages",
                    "weights",
                    "foreground",
                    "foreground_light",
                    "foreground_object",
                    "foreground_box",
                    "source_size",
                    "class_area",
                    "mirror",
                    "shadow_azimuth",
                    "shadow_elevation",
                    "shadow_confidence",
                    "shadow_softness",
                    "ground_plane",
                    "ground_focal",
                    "ground_metric",
                    "ground_view_error",
                    "ground_size_error",
                    "detect_score",
                }
                assert one["source_size"] == [64, 48]
                assert isinstance(one["mirror"], bool)
                assert (one["foreground_light"] is None) == (columns is CUT_OUTS)
                assert (one["shadow_azimuth"] is None) == (columns is CUT_OUTS)
            assert record["parents"] == ["b000", *(one["id"] for one in record["foregrounds"])]
            assert record["stages"] == {"ground": "2", "matte": "1"}
            assert record["weights"] == {"depth": "cd", "sam": "ab"}
            assert record["licence"].startswith("B; L")


def test_foregrounds_and_backgrounds_of_several_flows(tmp_path: Path) -> None:
    """Rows of all flows that are named are drawn from as if they were one table; one that is none of cut-outs is told
    by what it lacks."""
    run = Store(tmp_path / "run")
    write_table(run, "cars", [make_cutout_row(n, LIT) for n in range(4)], LIT, 3)
    write_table(run, "chairs", [make_cutout_row(n, CUT_OUTS) for n in range(4, 8)], CUT_OUTS, 3)
    write_table(run, "grounds", [scene(n) for n in range(3)], GROUNDS, 2)
    whole = Draws.Params(foregrounds=["cars", "chairs"], backgrounds="grounds", count=20)
    source = Draws(whole, 5)
    assert source.upstream() == ["cars", "chairs", "grounds"]
    source.tables = Tables(run)
    drawn_from = set()
    for item in source.items(RunContext(run, "drawn")):
        outcome = source.process([item])[0]
        assert isinstance(outcome, Kept)
        drawn_from |= {one["id"] for one in outcome.records[0]["foregrounds"]}
    assert drawn_from == {f"f{n:03d}" for n in range(8)}
    wrong = Draws(Draws.Params(foregrounds=["cars", "grounds"], backgrounds="grounds", count=1), 5)
    with pytest.raises(MissingColumns, match="'draws of flow grounds' needs foreground, foreground_object"):
        wrong.items(RunContext(run, "drawn"))
