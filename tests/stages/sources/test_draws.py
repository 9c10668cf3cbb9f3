"""Draws: what is put together fits together, comes evenly, and is the same for the same tables and seed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.manifests.schemas import PROVENANCE, Kind, encode_records
from rasura.manifests.shards import StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.ground_plane.plane import scale_of_plane
from rasura.stages.sources.balance import Light, Limits, compatible, seen_from, views_of
from rasura.stages.sources.draws import Drawing, Draws, light_of
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import Kept, MissingColumns

CUT_OUTS = {
    **PROVENANCE, "label": Kind.STRING, "foreground": Kind.RGBA, "foreground_object": Kind.MASK,
    "foreground_box": Kind.FLOATS, "foreground_area": Kind.FLOAT, "picture_width": Kind.INT,
    "picture_height": Kind.INT,
}  # fmt: skip
LIT = {
    **CUT_OUTS, "foreground_light": Kind.RGB, "shadow_azimuth": Kind.FLOAT, "shadow_elevation": Kind.FLOAT,
    "shadow_confidence": Kind.FLOAT, "shadow_softness": Kind.FLOAT, "ground_plane": Kind.FLOATS,
    "ground_focal": Kind.FLOAT, "ground_metric": Kind.BOOL,
}  # fmt: skip
GROUNDS = {
    **PROVENANCE, "source": Kind.RGB, "ground_mask": Kind.MASK, "ground_rule": Kind.STRING,
    "ground_scale": Kind.FLOATS, "ground_plane": Kind.FLOATS, "ground_focal": Kind.FLOAT, "ground_metric": Kind.BOOL,
}  # fmt: skip


def plane(pitch: float) -> list[float]:
    """The ground of a camera that looks down by so many degrees."""
    return [0.0, math.cos(math.radians(pitch)), math.sin(math.radians(pitch)), 1.6]


def camera(pitch: float) -> dict[str, Any]:
    """The ground columns of a picture of 64 x 48 taken with a camera that looks down so; it sees 45 degrees high."""
    focal = 24 / math.tan(math.radians(22.5))
    nx, ny, nz, d = plane(pitch)
    scale = [float(value) for value in scale_of_plane((nx, ny, nz, d), focal, (48, 64))]
    return {"ground_plane": [nx, ny, nz, d], "ground_focal": focal, "ground_metric": False, "ground_scale": scale}


def standing(pitch: float, row: int = 24) -> dict[str, Any]:
    """The columns of a cut-out that stands in the middle of such a picture, on a row of it."""
    return camera(pitch) | {"foreground_box": [30.0, 10.0, 34.0, float(row)], "picture_width": 64, "picture_height": 48}


def light(number: int, **fields: Any) -> dict[str, Any]:
    """A cut-out as far as drawing looks at it."""
    row = {"id": f"f{number}", "split": "train", "scene_id": f"s{number}", "label": "car", "shard": "a", "row": number}
    return row | fields


def ground(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"b{number}", "split": "train", "scene_id": f"t{number}", "origin": "o", "shard": "a",
            "row": number} | fields  # fmt: skip


def drawn(
    foregrounds: Sequence[Mapping[str, Any]], backgrounds: Sequence[Mapping[str, Any]], count: int, **params: Any
) -> list[tuple[Any, Any]]:
    whole = Draws.Params(foregrounds="cars", backgrounds="grounds", count=count, **params)
    drawing = Drawing([dict(row) for row in foregrounds], [dict(row) for row in backgrounds], whole, 3)
    return [drawing.draw(number) for number in range(count)]


def random_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Cut-outs of a few common and many rare classes, all sizes, and mostly one shadow direction."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 11)
    rows = []
    for number in range(count):
        azimuth = None if rng.random() < 0.3 else float(rng.normal(200, 70) % 360)
        rows.append(
            light(
                number, label=f"class {rng.choice(10, p=shares / shares.sum())}", shadow_azimuth=azimuth,
                foreground_area=float(10 ** rng.uniform(-3, -0.5)), shadow_softness=float(rng.uniform(0, 0.6)),
                shadow_elevation=None if azimuth is None else float(rng.uniform(20, 70)), scene_id=f"s{number // 3}",
            )
        )  # fmt: skip
    return rows


def table(run: Store, name: str, records: Sequence[Mapping[str, Any]], columns: Mapping[str, Kind], rows: int) -> None:
    """A table on disk in shards of so many rows."""
    lines = []
    for start in range(0, len(records), rows):
        part = records[start : start + rows]
        count = StageCount("write", len(part), len(part), len(part))
        data = encode_records(part, columns)
        lines.append(commit(run.sub(f"tables/{name}"), f"{name}{start}", "p", len(part), data, [], [count]))
    write_manifest(run.sub(f"tables/{name}"), lines, columns)


def cut_out(number: int, columns: Mapping[str, Kind], **fields: Any) -> dict[str, Any]:
    """A cut-out with pictures."""
    rgba = np.full((6, 4, 4), number % 250, np.uint8)
    row = {
        "id": f"f{number:03d}", "scene_id": f"s{number}", "split": "train", "origin": f"in/{number}.png",
        "licence": f"L{number % 2}", "stages": {"matte": "1"}, "weights": {"sam": "ab"}, "label": f"c{number % 3}",
        "foreground": rgba, "foreground_light": rgba[..., :3], "foreground_object": rgba[..., 3] >= 0,
        "foreground_box": [1.0, 2.0, 5.0, 8.0], "foreground_area": 0.02, "picture_width": 64, "picture_height": 48,
        "shadow_azimuth": 45.0 * (number % 8), "shadow_elevation": 40.0, "shadow_confidence": 0.9,
        "shadow_softness": 0.1, "ground_plane": plane(10), "ground_focal": 60.0, "ground_metric": True,
    }  # fmt: skip
    return {name: value for name, value in (row | fields).items() if name in columns}


def scene(number: int, **fields: Any) -> dict[str, Any]:
    """A background with pictures."""
    mask = np.zeros((48, 64), bool)
    mask[30:] = True
    return {
        "id": f"b{number:03d}", "scene_id": f"t{number}", "split": "train", "origin": f"bg/{number}.png",
        "licence": "B", "stages": {"ground": "2"}, "weights": {"depth": "cd"},
        "source": np.full((48, 64, 3), number, np.uint8), "ground_mask": mask, "ground_rule": "depth-plane",
        "ground_scale": [0.0, 1.0, -10.0], "ground_plane": plane(12), "ground_focal": 55.0, "ground_metric": False,
    } | fields  # fmt: skip


def test_classes_sizes_and_directions_come_evenly() -> None:
    """Of rows that are mostly one class and one direction, all classes, sizes and directions are drawn equally often,
    to within a tenth; what is rare comes again oftener, but no cut-out is drawn all the time."""
    rows = random_rows(400)
    draws = drawn(rows, [ground(n) for n in range(50)], 400, mirror="any")
    taken = [one for _, chosen in draws for one in chosen]
    for levels in (
        Counter(one.label for one in taken),
        Counter(one.size for one in taken),
        Counter(one.light.bin for one in taken),
    ):
        assert min(levels.values()) > 0.9 * len(taken) / len(levels), levels
    assert len(taken) > 700
    assert max(Counter(one.id for one in taken).values()) <= 16  # of a class with 12 cut-outs for its 80 draws
    backgrounds = Counter(background["id"] for background, _ in draws)
    assert set(backgrounds.values()) == {8}  # they take turns


def test_what_stands_together_could_stand_in_one_light() -> None:
    """Within a draw known directions differ by 45 degrees at most, mirrored where the draw says so; a hard shadow is
    never beside an object that shows none; softness and elevation are alike; no object comes twice."""
    rows = {row["id"]: row for row in random_rows(200, seed=5)}
    seen, mirrored = Counter[int](), 0
    for _, chosen in drawn(list(rows.values()), [ground(n) for n in range(20)], 300, objects=(2, 3)):
        seen[len(chosen)] += 1
        assert len({one.id for one in chosen}) == len(chosen)
        for one, other in combinations(chosen, 2):
            azimuths = []
            for each in (one, other):
                azimuth = rows[each.id]["shadow_azimuth"]
                azimuths.append(None if azimuth is None else (180 - azimuth) % 360 if each.mirror else azimuth)
                mirrored += each.mirror
            a, b = azimuths
            soft = [rows[each.id]["shadow_softness"] for each in (one, other)]
            assert abs(soft[0] - soft[1]) <= 0.25
            if a is not None and b is not None:
                assert min(abs(a - b), 360 - abs(a - b)) <= 45
                assert abs(rows[one.id]["shadow_elevation"] - rows[other.id]["shadow_elevation"]) <= 25
            elif a is not None or b is not None:
                assert soft[0 if a is not None else 1] >= 0.3
    assert seen[2] > 60
    assert seen[3] > 60
    assert mirrored > 20
    for _, chosen in drawn(list(rows.values()), [ground(n) for n in range(20)], 60, objects=(3, 3), mirror="never"):
        assert not any(one.mirror for one in chosen)


@given(
    st.floats(0, 359), st.floats(0, 359), st.none() | st.floats(0, 90), st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
)  # fmt: skip
def test_light_compares_as_light_does(
    one: float, other: float, elevation: float | None, soft: float | None, softer: float | None
) -> None:
    """Compatibility does not depend on which is asked first nor on mirroring the whole picture; everything goes with
    itself; turning a mirror image back gives the original."""
    limits = Limits()
    a, b = Light(one, elevation, soft), Light(other, 40.0, softer)
    unknown = Light(None, None, softer)
    for x, y in ((a, b), (a, unknown), (unknown, unknown)):
        assert compatible(x, y, limits) == compatible(y, x, limits)
        assert compatible(x, x, limits)
        if abs(abs((one - other + 180) % 360 - 180) - 45) > 1e-6:  # at the limit itself rounding decides
            assert compatible(x.mirrored(), y.mirrored(), limits) == compatible(x, y, limits)
    assert a.mirrored().mirrored().azimuth == pytest.approx(one % 360, abs=1e-9)
    assert a.bin in range(8)


def test_directions_are_clusters_centred_on_multiples_of_45() -> None:
    """The bins are those of the shadow stage's clusters, and a mirror exchanges left and right, not near and far."""
    assert [Light(azimuth).bin for azimuth in (0, 22, 23, 359, 180, 337, 338)] == [0, 0, 1, 0, 4, 7, 0]
    assert Light(None).bin == -1
    assert Light(0.0).mirrored().azimuth == 180
    assert Light(90.0).mirrored().azimuth == 90
    assert Light(300.0).mirrored().azimuth == 240
    row = {"shadow_azimuth": 10.0, "shadow_elevation": 30.0, "shadow_confidence": 0.2, "shadow_softness": 0.1}
    assert light_of(row, 0.3) == Light(None, None, 0.1)
    assert light_of(row, 0.1) == Light(10.0, 30.0, 0.1)


def test_a_view_from_above_goes_onto_a_view_from_above() -> None:
    """What was looked down on steeply goes where a floor is looked down on so, and what was seen from the side where
    a floor is seen from the side; backgrounds that nothing suits have no turn. Where nothing suits any of them, the
    nearest are taken all the same."""
    rows = [light(n, label=f"c{n % 3}", **standing(12 if n % 2 else 65)) for n in range(30)]
    backgrounds = [ground(0, **camera(0)), ground(1, **camera(55)), ground(2), ground(3, **camera(-40))]
    draws = drawn(rows, backgrounds, 60, objects=(1, 1))
    seen = {background["id"]: {round(one.seen) for one in chosen} for background, chosen in draws}
    assert seen["b0"] == {12}  # its floor is seen at 0 to 22 degrees
    assert seen["b1"] == {65}  # at 32 to 78
    assert set(seen) == {"b0", "b1", "b2"}  # b2's own view is not known: anything goes there
    steep = [row for row in rows if row["id"] in {f"f{n}" for n in range(0, 30, 2)}]
    assert all(chosen for _, chosen in drawn(steep, backgrounds[:1], 10))


def test_views_are_those_of_the_camera() -> None:
    """The angle at which a cut-out was seen is that of its foot's row; the angles of a floor go from the horizon, or
    the picture's top, to its lower edge; both are unknown where the plane is."""
    assert seen_from(standing(20)) == pytest.approx(20)
    assert seen_from(standing(20, row=48)) == pytest.approx(42.5)
    assert seen_from(standing(-30)) is None  # above the horizon
    assert seen_from({"foreground_box": [0, 0, 1, 1]}) is None
    for pitch, expected in ((0, (0, 22.5)), (15, (0, 37.5)), (50, (27.5, 72.5))):
        assert views_of(camera(pitch)) == pytest.approx(expected, abs=0.5)
    assert views_of({}) is None


def test_a_background_that_shows_its_light_gets_objects_of_that_light() -> None:
    """Where the background's own shadow direction is known, objects that go with it are taken, mirrored where that
    helps; where there is none, others are taken rather than nothing."""
    rows = [light(n, shadow_azimuth=40.0 * n, shadow_softness=0.1) for n in range(9)]
    lit = [ground(0, shadow_azimuth=100.0, shadow_softness=0.1)]
    for _, chosen in drawn(rows, lit, 20):
        for one in chosen:
            assert abs((one.light.azimuth - 100 + 180) % 360 - 180) <= 45
    opposed = [light(0, shadow_azimuth=280.0, shadow_softness=0.1)]
    assert all(chosen for _, chosen in drawn(opposed, lit, 3))


def test_an_object_is_not_put_back_where_it_came_from() -> None:
    """A cut-out goes onto its own scene's background only where there is no other cut-out."""
    rows = [light(n, scene_id=f"t{n % 2}") for n in range(4)]
    draws = drawn(rows, [ground(0), ground(1)], 20, objects=(1, 1))
    assert all(one.scene != background["scene_id"] for background, chosen in draws for one in chosen)
    assert all(chosen for _, chosen in drawn(rows[:1], [ground(0)], 4))


def test_draws_do_not_depend_on_the_order_of_the_tables() -> None:
    """Rows in another order, in other shards, give the same draws; more draws begin with the same ones; another seed
    gives others."""

    def told(draws: list[tuple[Any, Any]]) -> list[Any]:
        return [(background["id"], [(one.id, one.mirror) for one in chosen]) for background, chosen in draws]

    rows, backgrounds = random_rows(60), [ground(n) for n in range(7)]
    first = told(drawn(rows, backgrounds, 40))
    moved = [row | {"shard": "z", "row": 99 - row["row"]} for row in reversed(rows)]
    assert told(drawn(moved, backgrounds[3:] + backgrounds[:3], 40)) == first
    assert told(drawn(rows, backgrounds, 60))[:40] == first
    params = Draws.Params(foregrounds="cars", backgrounds="grounds", count=40)
    other = Drawing(rows, backgrounds, params, 4)
    assert told([other.draw(number) for number in range(40)]) != first


def test_no_scene_is_in_two_splits(tmp_path: Path) -> None:
    """All of a draw is of one split; a background whose split has no foregrounds is not drawn; the record says which
    split it is. From tables on disk, cut into different shards, the same items come out."""
    fronts = [cut_out(n, LIT, split="test" if n % 4 == 0 else "train") for n in range(12)]
    behind = [scene(n, split=("train", "test", "other")[n % 3]) for n in range(9)]
    found = []
    for rows in (2, 5):
        run = Store(tmp_path / f"run{rows}")
        table(run, "cars", fronts, LIT, rows)
        table(run, "grounds", behind, GROUNDS, rows)
        source = Draws(Draws.Params(foregrounds="cars", backgrounds="grounds", count=30), 5)
        source.tables = Tables(run)
        items = source.items(RunContext(run, "drawn"))
        assert len(items) == 30
        found.append([item["id"] for item in items])
        for item in items:
            outcome = source.process([item])[0]
            assert isinstance(outcome, Kept)
            (record,) = outcome.records
            number = int(record["parents"][0][1:])
            assert record["split"] == ("train", "test")[number % 3]
            for one in record["foregrounds"]:
                assert ("test" if int(one["id"][1:]) % 4 == 0 else "train") == record["split"]
    assert found[0] == found[1]
    assert len(set(found[0])) == 30


def test_a_record_has_all_that_composite_needs(tmp_path: Path) -> None:
    """Every column of the cut-outs and of the background is handed on; those that a flow does not have are None; the
    licences, stages and weights of all that go into a picture are its own."""
    for columns in (LIT, CUT_OUTS):
        run = Store(tmp_path / str(len(columns)))
        table(run, "cars", [cut_out(n, columns) for n in range(9)], columns, 4)
        table(run, "grounds", [scene(0)], GROUNDS, 4)
        source = Draws(Draws.Params(foregrounds="cars", backgrounds="grounds", count=8, objects=(2, 2)), 5)
        source.tables = Tables(run)
        assert set(source.schema(columns)) >= {"ground_plane", "ground_focal", "ground_metric", "foregrounds"}
        for item in source.items(RunContext(run, "drawn")):
            outcome = source.process([item])[0]
            assert isinstance(outcome, Kept)
            (record,) = outcome.records
            assert set(record) <= set(source.gives)
            assert record["background"].shape == (48, 64, 3)
            assert record["ground_plane"] == plane(12)
            assert record["ground_metric"] is False
            assert len(record["foregrounds"]) == 2
            for one in record["foregrounds"]:
                assert set(one) == {
                    "id", "scene_id", "label", "origin", "licence", "stages", "weights", "foreground",
                    "foreground_light", "foreground_object", "foreground_box", "source_size", "mirror",
                    "shadow_azimuth", "shadow_elevation", "shadow_confidence", "shadow_softness",
                    "ground_plane", "ground_focal", "ground_metric", "ground_view_error", "ground_size_error",
                    "detect_score",
                }  # fmt: skip
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
    table(run, "cars", [cut_out(n, LIT) for n in range(4)], LIT, 3)
    table(run, "chairs", [cut_out(n, CUT_OUTS) for n in range(4, 8)], CUT_OUTS, 3)
    table(run, "grounds", [scene(n) for n in range(3)], GROUNDS, 2)
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


def test_a_foreground_is_used_no_oftener_than_allowed() -> None:
    """With `max_uses` each comes at most so often, and draws end when all are used up."""
    rows = [light(n, label=f"c{n}") for n in range(5)]
    draws = drawn(rows, [ground(n) for n in range(3)], 20, objects=(1, 1), max_uses=2)
    assert Counter(one.id for _, chosen in draws for one in chosen) == {f"f{n}": 2 for n in range(5)}
    with pytest.raises(ValueError, match="in this order"):
        Draws.Params(foregrounds="a", backgrounds="b", count=1, objects=(3, 1))
