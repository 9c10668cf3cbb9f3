"""The report beside the recipe: which rows are nearest to a limit, how measures are distributed, what was rejected."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.report_pages import TRIPLETS, Page, ReportRun, triplet

from rasura.manifests.images import encode_image, encode_mask
from rasura.manifests.schemas import Kind
from rasura.manifests.shards import RejectedRow
from rasura.pipeline.report import measures, run_page, thumbnails
from rasura.pipeline.report.galleries import Gallery, convert_values, write_galleries
from rasura.pipeline.report.limits import Limit, read_limits
from rasura.pipeline.report.run_page import write

COLUMNS = TRIPLETS | {"seam": Kind.FLOAT, "tilt": Kind.FLOAT}


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    return ReportRun(tmp_path / "run")


def write_recipe(run: ReportRun, flows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    recipe = {"name": "cars", "flows": {name: {"stages": list(stages)} for name, stages in flows.items()}}
    run.store.write("recipe.yaml", yaml.safe_dump(recipe).encode())


def select(**keep: Mapping[str, Any]) -> dict[str, Any]:
    return {"select": {"keep": keep}}


def list_pictured_rows(page: Page) -> list[int]:
    """List the numbers of the rows that have pictures."""
    return [int(page.column("cars", "id")[row][:8], 16) for row in page.pictures("cars")]


def test_the_rows_nearest_to_any_limit_have_pictures(run: ReportRun) -> None:
    """Nearness has no unit: it is the distance to the limit beside that of the median. A row without values is never
    near; without a recipe, rows with pictures are a sample. The page knows each limit and its measure's median."""
    seam = [1.0, 1.0, 3.8, 1.0, 2.0, 1.0, 1.0, 1.0]  # median 1, limit 4
    tilt: list[float | None] = [900.0, 900.0, 900.0, 515.0, 900.0, 900.0, None, 900.0]  # median 900, limit 500
    rows = [triplet(n, seam=seam[n], tilt=tilt[n]) for n in range(8)]
    run.flow("cars", rows, COLUMNS)
    assert "limits" not in run.page().gallery("cars")
    write_recipe(run, {"cars": [select(seam={"max": 4}, tilt={"min": 500}, label={"any_of": ["car"]})]})
    page = run.page(rows=6)
    shown = list_pictured_rows(page)
    assert {3, 2, 4} <= set(shown)  # 15/400, 0.2/3, 2/3
    assert len(set(shown)) == len(shown) == 6
    assert page.gallery("cars")["limits"] == {
        "seam": {"low": None, "high": 4.0, "typical": 1.0},
        "tilt": {"low": 500.0, "high": None, "typical": 900.0},
    }
    write_recipe(run, {"cars": [select(seam={"max": math.nan}, tilt={"min": -math.inf})]})
    assert "limits" not in run.page().gallery("cars")


def test_the_nearest_rows_are_those_of_the_whole_table(run: ReportRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A median may be of a sample; the row at the limit is found wherever it is."""
    monkeypatch.setattr(measures, "SAMPLED_ROWS", 4)
    rows = [triplet(n, seam=3.99 if n == 17 else 1.0 + n / 100, tilt=0.0) for n in range(20)]
    run.flow("cars", rows, COLUMNS)
    write_recipe(run, {"cars": [select(seam={"max": 4})]})
    assert 17 in list_pictured_rows(run.page(rows=2))


def test_limits_are_read_from_the_recipe(run: ReportRun) -> None:
    """Two selections in a row narrow each other; a recipe that is missing or damaged has no limits."""
    assert read_limits(run.store) == {}
    stages = [select(seam={"max": 9, "min": 1}), {"matte": {}}, select(seam={"max": 4, "missing": True}), "masks"]
    write_recipe(run, {"cars": stages})
    assert read_limits(run.store) == {"cars": {"seam": Limit(1, 4)}}
    for damaged in (b"flows: [", b"flows: {cars: 3, vans: {stages: [{select: {keep: [1]}}]}}", b"\xff\xfe"):
        run.store.write("recipe.yaml", damaged)
        assert all(not limits for limits in read_limits(run.store).values())


def test_margins_at_the_edges() -> None:
    """A median at the limit has no margin; beyond a limit the margin is negative; of two limits the nearer counts."""
    assert Limit(high=0).compute_margins(np.array([0.0, 1.0]), typical=0).tolist() == [math.inf, math.inf]
    assert Limit(low=0, high=10).compute_margins(np.array([1.0, 9.5, 11.0]), typical=5).tolist() == [0.2, 0.1, -0.2]
    assert Limit(high=1).compute_margins(np.array([np.nan]), typical=0.5).tolist() == [math.inf]


def test_rejected_inputs_have_pictures_by_reason(run: ReportRun) -> None:
    """An input that a selection rejected has the pictures and values that it has in the flow that was selected from,
    and the value for which it was rejected; of each reason one has pictures before another has two. One that is no row
    of another flow is a line."""
    run.flow("cars", [triplet(n, seam=float(n), tilt=1.0 - n / 9) for n in range(9)], COLUMNS)
    light = {name: kind for name, kind in COLUMNS.items() if kind in (Kind.STRING, Kind.FLOAT)}
    kept = [{name: value for name, value in triplet(n, seam=float(n), tilt=0.5).items() if name in light} for n in (0,)]
    reasons = ["seam above 1"] * 6 + ["tilt below 0.2"]
    gone = [
        RejectedRow(f"{n:08x}" * 4, "in/x", "select", "rejected", reason, f"{n}.5", f"{n:08x}" * 4)
        for n, reason in enumerate(reasons, 2)
    ]
    gone.append(RejectedRow("draw", "in/y", "select", "rejected", "no place", "", "draw"))
    run.flow("good", kept, light, gone, upstream=["cars"], stage="select")
    write_recipe(run, {"good": [select(seam={"max": 1}, tilt={"min": 0.2})]})
    page = run.page(rows=3)
    name = "good, rejected"
    assert [page.column(name, "reason")[row] for row in page.pictures(name)] == [*reasons[:2], reasons[-1]]
    assert [entry["panels"][0]["name"] for entry in page.pictures(name).values()] == ["source"] * 3
    assert page.column(name, "seam") == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.0, None]
    assert page.column(name, "tilt")[:7] == [*(float(f"{1 - n / 9:.6g}") for n in range(2, 8)), 8.5]
    assert page.column(name, "label") == ["car"] * 7 + [None]
    assert page.gallery(name)["of"] == page.gallery("good")["id"]
    assert page.gallery("good")["limits"]["seam"]["typical"] == 5.0  # of 0, of 2.5 to 7.5, and of 8
    button = page.all("button", **{"data-reason": "no place"})[0]
    assert button["data-gallery"] == page.gallery(name)["id"]


def test_a_page_is_bounded_whatever_its_data(run: ReportRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that do not compress and texts without end make no larger page."""
    noise = np.random.default_rng(3).integers(0, 256, (200, 300, 3), np.uint8)
    long = "W" * 100_000
    fields = dict.fromkeys(("label", "origin", "licence", "scene_id"), long)
    size = {"mask": np.zeros((200, 300), bool), "foreground_mask": np.zeros((200, 300), bool)}
    rows = [triplet(n, source=noise, target=noise[::-1].copy(), **size, **fields) for n in range(6)]
    gone = [RejectedRow(f"x{n}", long, "load", "rejected", f"{n} {long}", long, "x") for n in range(3)]
    run.flow("cars", rows, TRIPLETS, gone)
    write(run.store, tmp_path / "small.html", rows=0)
    bare = (tmp_path / "small.html").stat().st_size
    assert bare < 200_000
    monkeypatch.setattr(run_page, "INSIDE_BYTES", 30_000)
    write(run.store, tmp_path / "page.html", rows=6)
    assert (tmp_path / "page.html").stat().st_size < bare + 10_000
    assert len(Page((tmp_path / "page.html").read_text()).pictures("cars")) == 6


def test_columns_are_read_as_they_were_written() -> None:
    """Whatever values a column has, the page has the same, to six digits; what JSON cannot say is missing or text."""
    rng = np.random.default_rng(11)
    floats = [*rng.normal(0, 1e5, 50).tolist(), math.inf, -math.inf, math.nan, None, 0.0, -0.0, 1e-300]
    numbers = convert_values(Kind.FLOAT, floats)
    assert numbers[50:54] == [None] * 4
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(numbers[:50], floats[:50], strict=True))
    assert convert_values(Kind.INT, [2**53, -1, None]) == [2**53, -1, None]
    assert convert_values(Kind.INT, [2**53 + 1, 3]) == [str(2**53 + 1), "3"]
    assert convert_values(Kind.BOOL, [True, None]) == ["yes", None]
    assert convert_values(Kind.VERSIONS, [[{"name": "a", "value": "1"}], []]) == ["a 1", None]
    for values in ([], [None, None], ["x"], ["x", None], ["b", "a", "b", "b", "a", "b", None], [1, "x"], [0, 0.0]):
        page = Page(write_galleries([Gallery("g", "t", len(values), {"a": list(values), "n": [1.5] * len(values)})]))
        expected = values if not {type(value) for value in values} >= {int, str} else ["1", "x"]
        assert page.column("t", "a") == expected
    assert Page(write_galleries([Gallery("g", "t", 1, {"a": ["\ud800</script>"]})])).column("t", "a") == ["?</script>"]


def test_light_that_would_be_black_is_not_shown() -> None:
    """A cut-out is shown with the outline of its object; its light only where it can be seen."""
    roles = thumbnails.assign_roles(
        {"foreground": Kind.RGBA, "foreground_light": Kind.RGB, "foreground_object": Kind.MASK}
    )
    light = np.zeros((40, 40, 3), np.uint8)
    light[0, 0] = 60
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    cells = {
        "foreground": encode_image(np.full((40, 40, 4), 90, np.uint8)),
        "foreground_light": encode_image(light),
        "foreground_object": encode_mask(mask),
    }
    raw = {name: {"bytes": value, "path": None} for name, value in cells.items()}
    (panel,) = thumbnails.build_example(raw, roles, 40).panels
    assert panel.name == "cut-out"
    assert panel.paths["object"]
