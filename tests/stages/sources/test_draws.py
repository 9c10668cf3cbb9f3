"""Draws: what is put together fits together, comes evenly, and is the same for the same tables and seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.draw_rows import make_camera_columns

from rasura.stages.sources.balance import (
    Lighting,
    LightingLimits,
    are_compatible,
    estimate_depression,
    estimate_depression_range,
)
from rasura.stages.sources.draws import Draws, PairSampler, read_lighting


def make_view_columns(pitch: float, row: int = 24) -> dict[str, Any]:
    """The columns of a cut-out that stands in the middle of such a picture, on a row of it."""
    return make_camera_columns(pitch) | {
        "foreground_box": [30.0, 10.0, 34.0, float(row)],
        "picture_width": 64,
        "picture_height": 48,
    }


def make_foreground_row(number: int, **fields: Any) -> dict[str, Any]:
    """A cut-out as far as drawing looks at it."""
    row = {"id": f"f{number}", "split": "train", "scene_id": f"s{number}", "label": "car", "shard": "a", "row": number}
    return row | fields


def make_background_row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"b{number}",
        "split": "train",
        "scene_id": f"t{number}",
        "origin": "o",
        "shard": "a",
        "row": number,
    } | fields


def sample_pairs(
    foregrounds: Sequence[Mapping[str, Any]], backgrounds: Sequence[Mapping[str, Any]], count: int, **params: Any
) -> list[tuple[Any, Any]]:
    whole = Draws.Params(foregrounds="cars", backgrounds="grounds", count=count, **params)
    drawing = PairSampler([dict(row) for row in foregrounds], [dict(row) for row in backgrounds], whole, 3)
    return [drawing.sample(number) for number in range(count)]


def random_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Cut-outs of a few common and many rare classes, all sizes, and mostly one shadow direction."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 11)
    rows = []
    for number in range(count):
        azimuth = None if rng.random() < 0.3 else float(rng.normal(200, 70) % 360)
        rows.append(
            make_foreground_row(
                number,
                label=f"class {rng.choice(10, p=shares / shares.sum())}",
                shadow_azimuth=azimuth,
                foreground_area=float(10 ** rng.uniform(-3, -0.5)),
                shadow_softness=float(rng.uniform(0, 0.6)),
                shadow_elevation=None if azimuth is None else float(rng.uniform(20, 70)),
                scene_id=f"s{number // 3}",
            )
        )
    return rows


def test_classes_sizes_and_directions_come_evenly() -> None:
    """Of rows that are mostly one class and one direction, all classes, sizes and directions are drawn equally often,
    to within a tenth; what is rare comes again oftener, but no cut-out is drawn all the time."""
    rows = random_rows(400)
    draws = sample_pairs(rows, [make_background_row(n) for n in range(50)], 400, mirror="any")
    taken = [one for _, chosen in draws for one in chosen]
    for levels in (
        Counter(one.label for one in taken),
        Counter(one.size_bin for one in taken),
        Counter(one.lighting.direction_bin for one in taken),
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
    for _, chosen in sample_pairs(
        list(rows.values()), [make_background_row(n) for n in range(20)], 300, objects=(2, 3)
    ):
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
    for _, chosen in sample_pairs(
        list(rows.values()), [make_background_row(n) for n in range(20)], 60, objects=(3, 3), mirror="never"
    ):
        assert not any(one.mirror for one in chosen)


@given(
    st.floats(0, 359),
    st.floats(0, 359),
    st.none() | st.floats(0, 90),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
)
def test_light_compares_as_light_does(
    one: float, other: float, elevation: float | None, soft: float | None, softer: float | None
) -> None:
    """Compatibility does not depend on which is asked first nor on mirroring the whole picture; everything goes with
    itself; turning a mirror image back gives the original."""
    limits = LightingLimits()
    a, b = Lighting(one, elevation, soft), Lighting(other, 40.0, softer)
    unknown = Lighting(None, None, softer)
    for x, y in ((a, b), (a, unknown), (unknown, unknown)):
        assert are_compatible(x, y, limits) == are_compatible(y, x, limits)
        assert are_compatible(x, x, limits)
        if abs(abs((one - other + 180) % 360 - 180) - 45) > 1e-6:  # at the limit itself rounding decides
            assert are_compatible(x.mirror(), y.mirror(), limits) == are_compatible(x, y, limits)
    assert a.mirror().mirror().azimuth == pytest.approx(one % 360, abs=1e-9)
    assert a.direction_bin in range(8)


def test_directions_are_clusters_centred_on_multiples_of_45() -> None:
    """The bins are those of the shadow stage's clusters, and a mirror exchanges left and right, not near and far."""
    assert [Lighting(azimuth).direction_bin for azimuth in (0, 22, 23, 359, 180, 337, 338)] == [0, 0, 1, 0, 4, 7, 0]
    assert Lighting(None).direction_bin == -1
    assert Lighting(0.0).mirror().azimuth == 180
    assert Lighting(90.0).mirror().azimuth == 90
    assert Lighting(300.0).mirror().azimuth == 240
    row = {"shadow_azimuth": 10.0, "shadow_elevation": 30.0, "shadow_confidence": 0.2, "shadow_softness": 0.1}
    assert read_lighting(row, 0.3) == Lighting(None, None, 0.1)
    assert read_lighting(row, 0.1) == Lighting(10.0, 30.0, 0.1)


def test_a_view_from_above_goes_onto_a_view_from_above() -> None:
    """What was looked down on steeply goes where a floor is looked down on so, and what was seen from the side where
    a floor is seen from the side; backgrounds that nothing suits have no turn. Where nothing suits any of them, the
    nearest are taken all the same."""
    rows = [make_foreground_row(n, label=f"c{n % 3}", **make_view_columns(12 if n % 2 else 65)) for n in range(30)]
    backgrounds = [
        make_background_row(0, **make_camera_columns(0)),
        make_background_row(1, **make_camera_columns(55)),
        make_background_row(2),
        make_background_row(3, **make_camera_columns(-40)),
    ]
    draws = sample_pairs(rows, backgrounds, 60, objects=(1, 1))
    depressions = {background["id"]: {round(one.depression) for one in chosen} for background, chosen in draws}
    assert depressions["b0"] == {12}  # its floor is seen at 0 to 22 degrees
    assert depressions["b1"] == {65}  # at 32 to 78
    assert set(depressions) == {"b0", "b1", "b2"}  # b2's own view is not known: anything goes there
    steep = [row for row in rows if row["id"] in {f"f{n}" for n in range(0, 30, 2)}]
    assert all(chosen for _, chosen in sample_pairs(steep, backgrounds[:1], 10))


def test_views_are_those_of_the_camera() -> None:
    """The angle at which a cut-out was seen is that of its foot's row; the angles of a floor go from the horizon, or
    the picture's top, to its lower edge; both are unknown where the plane is."""
    assert estimate_depression(make_view_columns(20)) == pytest.approx(20)
    assert estimate_depression(make_view_columns(20, row=48)) == pytest.approx(42.5)
    assert estimate_depression(make_view_columns(-30)) is None  # above the horizon
    assert estimate_depression({"foreground_box": [0, 0, 1, 1]}) is None
    for pitch, expected in ((0, (0, 22.5)), (15, (0, 37.5)), (50, (27.5, 72.5))):
        assert estimate_depression_range(make_camera_columns(pitch)) == pytest.approx(expected, abs=0.5)
    assert estimate_depression_range({}) is None


def test_a_background_that_shows_its_light_gets_objects_of_that_light() -> None:
    """Where the background's own shadow direction is known, objects that go with it are taken, mirrored where that
    helps; where there is none, others are taken rather than nothing."""
    rows = [make_foreground_row(n, shadow_azimuth=40.0 * n, shadow_softness=0.1) for n in range(9)]
    lit = [make_background_row(0, shadow_azimuth=100.0, shadow_softness=0.1)]
    for _, chosen in sample_pairs(rows, lit, 20):
        for one in chosen:
            assert abs((one.lighting.azimuth - 100 + 180) % 360 - 180) <= 45
    opposed = [make_foreground_row(0, shadow_azimuth=280.0, shadow_softness=0.1)]
    assert all(chosen for _, chosen in sample_pairs(opposed, lit, 3))


def test_an_object_is_not_put_back_where_it_came_from() -> None:
    """A cut-out goes onto its own scene's background only where there is no other cut-out."""
    rows = [make_foreground_row(n, scene_id=f"t{n % 2}") for n in range(4)]
    draws = sample_pairs(rows, [make_background_row(0), make_background_row(1)], 20, objects=(1, 1))
    assert all(one.scene != background["scene_id"] for background, chosen in draws for one in chosen)
    assert all(chosen for _, chosen in sample_pairs(rows[:1], [make_background_row(0)], 4))


def test_draws_do_not_depend_on_the_order_of_the_tables() -> None:
    """Rows in another order, in other shards, give the same draws; more draws begin with the same ones; another seed
    gives others."""

    def told(draws: list[tuple[Any, Any]]) -> list[Any]:
        return [(background["id"], [(one.id, one.mirror) for one in chosen]) for background, chosen in draws]

    rows, backgrounds = random_rows(60), [make_background_row(n) for n in range(7)]
    first = told(sample_pairs(rows, backgrounds, 40))
    moved = [row | {"shard": "z", "row": 99 - row["row"]} for row in reversed(rows)]
    assert told(sample_pairs(moved, backgrounds[3:] + backgrounds[:3], 40)) == first
    assert told(sample_pairs(rows, backgrounds, 60))[:40] == first
    params = Draws.Params(foregrounds="cars", backgrounds="grounds", count=40)
    other = PairSampler(rows, backgrounds, params, 4)
    assert told([other.sample(number) for number in range(40)]) != first


def test_a_foreground_is_used_no_oftener_than_allowed() -> None:
    """With `max_uses` each comes at most so often, and draws end when all are used up."""
    rows = [make_foreground_row(n, label=f"c{n}") for n in range(5)]
    draws = sample_pairs(rows, [make_background_row(n) for n in range(3)], 20, objects=(1, 1), max_uses=2)
    assert Counter(one.id for _, chosen in draws for one in chosen) == {f"f{n}": 2 for n in range(5)}
    with pytest.raises(ValueError, match="in this order"):
        Draws.Params(foregrounds="a", backgrounds="b", count=1, objects=(3, 1))
