"""Which rows an export takes, and of what size: every row that is left out has its reason."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import rasura
from hypothesis import given
from hypothesis import strategies as st
from support.dataset_runs import WIDE, make_finished_run, make_row
from support.run_tables import write_table

from rasura._runs import open_run
from rasura.manifests.errors import RasuraError
from rasura.manifests.formats.dataset_rows import NothingToExport
from rasura.manifests.formats.filters.crops import Crop, cut_row, plan_cut
from rasura.manifests.formats.filters.expressions import BadCondition, parse_condition
from rasura.manifests.images import decode_image, decode_mask, encode_image, encode_mask
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.pipeline.export import ExportOptions, export_run
from rasura.pipeline.run.verify import verify

COLUMNS = {**WIDE, "effects_area": Kind.FLOAT, "is_night": Kind.BOOL}
LABELS = ("person", "person", "o'neill", None)
AREAS = (0.1, 0.3, 0.1, None)
SCORES = (0.95, 0.5, None, 0.9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four captured triplets, which are the dataset, and four candidates of them, on which three people voted."""
    rows = [
        make_row(n, id=f"c{n}", scene_id=f"{n}", split="train", label=LABELS[n], score=SCORES[n], verdict=None)
        | {"effects_area": AREAS[n], "is_night": n == 1}
        for n in range(4)
    ]
    run = make_finished_run(tmp_path_factory.mktemp("filters") / "run", rows, columns=COLUMNS, flow="captured")
    edited = [row | {"id": f"{row['id']}.ns", "kind": "edited", "foreground_mask": None} for row in rows]
    write_table(run, "candidates", edited, COLUMNS, 3)
    plan = json.loads(run.read("plan.json"))
    plan["flows"]["candidates"] = plan["flows"]["captured"]
    run.write("plan.json", json.dumps(plan).encode())
    names = [name.removesuffix(".json") for name in run.files("tables/candidates/lines")]
    run.write("tables/candidates/work.json", json.dumps(names).encode())
    votes = [(0, "yes"), (1, "no"), (2, "yes"), (2, "no")]
    lines = [
        {"item": "x", "place_table": "candidates", "place_shard": f"candidates{3 * (row // 3)}", "place_row": row % 3}
        | {"variant": "target", "reviewer": f"r{number}", "time": 5 + number, "action": "vote", "verdict": verdict}
        | {"nonce": f"nonce-{number:08d}"}
        for number, (row, verdict) in enumerate(votes)
    ]
    assert run.local is not None
    file = run.local.parent / "votes.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert "4 entries added" in rasura("votes", "import", run.uri, file).stdout
    return run


def export(run: Store, out: Path, layout: str = "huggingface", flows: Sequence[str] = (), **options: Any) -> Any:
    manifest = export_run(run, Store(out), layout, flows, options=ExportOptions(**options))
    assert verify(Store(out)).faults == []
    return manifest


def read_rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_verdicts_of_the_runs_review(run: Store, tmp_path: Path) -> None:
    """`--verdict yes` takes what people accepted, from the flow that they were asked about; its rows carry the verdict
    and count as accepted in every layout; a tie is unsure."""
    manifest = export(run, tmp_path / "yes", verdict="yes")
    assert [(row["id"], row["verdict"]) for row in read_rows(tmp_path / "yes")] == [("c0.ns", "yes")]
    assert manifest["left_out"] == {"it has no verdict": 1, "its verdict is no": 1, "its verdict is unsure": 1}
    lines = [json.loads(line) for line in (tmp_path / "yes" / "left_out.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in lines}["c1.ns"] == "its verdict is no"
    manifest = export(run, tmp_path / "folders", "kohya", verdict="yes")
    assert manifest["rows"] == 1
    manifest = export(run, tmp_path / "all", "diffusers", ["candidates"])
    assert (manifest["rows"], sum(manifest["left_out"].values())) == (2, 2)  # and c3.ns, by its score
    export(run, tmp_path / "all", "huggingface", ["candidates"], where="verdict is null or verdict != 'no'")
    assert [row["verdict"] for row in read_rows(tmp_path / "all")] == ["yes", "unsure", None]
    export(run, tmp_path / "all", "huggingface", ["candidates"])  # the run's own rows, to the byte
    assert [row["verdict"] for row in read_rows(tmp_path / "all")] == [None] * 4
    both = "kind != 'edited' or verdict = 'yes'"
    manifest = export(run, tmp_path / "both", "smarteraser", ["captured", "candidates"], where=both)
    assert manifest["rows"] == 5
    text = rasura("export", run.uri, "--verdict", "no", "--out", tmp_path / "no", "--quiet").stdout
    assert "1 row in 1 file (1 kept + 3 left out = 4; 1: it has no verdict; 1: its verdict is unsure; " in text


def test_scores_and_conditions(run: Store, tmp_path: Path) -> None:
    """A null is neither above nor below; what cannot be told is counted apart; nothing left ends with the reasons."""
    manifest = export(run, tmp_path / "score", min_score=0.9)
    assert [row["id"] for row in read_rows(tmp_path / "score")] == ["c0", "c3"]
    assert manifest["left_out"] == {"it has no score": 1, "its score is below 0.9": 1}
    manifest = export(run, tmp_path / "where", where="label = 'person' and effects_area < 0.2")
    assert [row["id"] for row in read_rows(tmp_path / "where")] == ["c0"]
    reasons = sorted(manifest["left_out"])
    assert reasons[0].startswith("it has no label and no effects_area, so that")
    assert list(manifest["left_out"].values()) == [1, 2]
    with pytest.raises(NothingToExport, match="4: it has no verdict"):
        export(run, tmp_path / "none", flows=["captured"], verdict="yes")
    assert not (tmp_path / "none").exists()
    with pytest.raises(BadCondition, match="no column 'lable'; did you mean 'label'"):
        export(run, tmp_path / "none", where="lable = 'person'")


def test_the_same_from_python(run: Store, tmp_path: Path) -> None:
    """`Run.export` takes the same options, and refuses what the command refuses."""
    opened = open_run(run.uri)
    assert opened.export(tmp_path / "out", "kohya", verdict="yes", size=16, direction="insertion") == 1
    assert len(list((tmp_path / "out" / "train" / "control").iterdir())) == 1
    wrong: Sequence[Mapping[str, Any]] = (
        {"direction": "up"},
        {"language": "xx"},
        {"crop": "left"},
        {"verdict": "maybe"},
    )
    for options in wrong:
        with pytest.raises(RasuraError):
            opened.export(tmp_path / "none", "kohya", **options)


def test_other_filters_make_other_files(run: Store, tmp_path: Path) -> None:
    """Into one folder, one export after the other, each has its own rows alone."""
    export(run, tmp_path / "out", min_score=0.9)
    export(run, tmp_path / "out", where="is_night = true")
    assert [row["id"] for row in read_rows(tmp_path / "out")] == ["c1"]
    export(run, tmp_path / "out")
    assert len(read_rows(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "left_out.jsonl").exists()


VALUES = {"n": st.one_of(st.none(), st.integers(-3, 3)), "s": st.one_of(st.none(), st.sampled_from(["a", "b", "it's"]))}
KINDS = {"n": Kind.INT, "s": Kind.STRING}


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A condition, and a function that evaluates it by Python's own operators with SQL's three values."""
    kind = draw(st.sampled_from(["compare", "in", "null", "and", "or", "not"] if depth else ["compare", "in", "null"]))
    if kind in ("and", "or"):
        (one, first), (two, second) = draw(conditions(depth - 1)), draw(conditions(depth - 1))

        def join(row: Mapping[str, Any]) -> bool | None:
            values = {first(row), second(row)}
            decisive = kind == "or"
            return decisive if decisive in values else None if None in values else not decisive

        return f"({one}) {kind.upper() if draw(st.booleans()) else kind} ({two})", join
    if kind == "not":
        text, inner = draw(conditions(depth - 1))
        return f"not ({text})", lambda row: None if inner(row) is None else not inner(row)
    name = draw(st.sampled_from(sorted(KINDS)))
    if kind == "null":
        return f"{name} is null", lambda row: row[name] is None
    value = draw(VALUES[name].filter(lambda value: value is not None))
    literal = str(value) if name == "n" else "'" + value.replace("'", "''") + "'"
    if kind == "in":
        return f"{name} not in ({literal})", lambda row: None if row[name] is None else row[name] not in (value,)
    sign = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
    python = {"=": "=="}.get(sign, sign)
    return (
        f"{name}{sign}{literal}",
        lambda row: None if row[name] is None else eval(f"a {python} b", {"a": row[name], "b": value}),
    )


@given(conditions(), st.fixed_dictionaries(VALUES))
def test_conditions_mean_what_they_say(condition: tuple[str, Any], row: Mapping[str, Any]) -> None:
    text, meaning = condition
    assert parse_condition(text, KINDS).evaluate(row) == meaning(row)


@pytest.mark.parametrize(
    "text",
    [
        *("", "n", "n =", "n = 'a'", "s = 1", "s = a", "n < 1 n", "(n = 1", "n = 1)", "x = 1", "n in ()", "n in 1"),
        *("__import__('os')", "n = 1; s = 'a'", "n.real = 1", "mask = 1", "tags = 'a'", "n = 1 or", "not", "n is 1"),
        *("s = 'a", "n = 1e", "n == = 1", "(" * 300 + "n = 1" + ")" * 300, "n = 1" + " or n = 1" * 900, "n = \x00"),
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(BadCondition):
        parse_condition(text, {**KINDS, "mask": Kind.MASK, "tags": Kind.STRINGS})


def make_raw(rng: np.random.Generator) -> dict[str, Any]:
    """An encoded triplet of any size whose pictures differ inside the foreground mask only."""
    height, width = rng.integers(20, 90, 2)
    source = rng.integers(0, 256, (height, width, 3), np.uint8)
    y, x = rng.integers(0, height - 9), rng.integers(0, width - 9)
    mask = np.zeros((height, width), bool)
    mask[y : y + 7, x : x + 7] = True
    foreground = mask.copy()
    foreground[y : y + 9, x : x + 9] |= rng.random((9, 9)) > 0.5
    target = source.copy()
    target[foreground] = rng.integers(0, 256, (int(foreground.sum()), 3))
    masks = {"mask": mask, "foreground_mask": foreground, "mask_box": mask}
    pictures = {"source": encode_image(source), "target": encode_image(target)}
    pictures |= {name: encode_mask(pixels) for name, pixels in masks.items()}
    return {"id": "a", "label": "x", **{name: {"bytes": data, "path": name} for name, data in pictures.items()}}


def test_cuts_keep_the_promise_of_the_masks() -> None:
    """Whatever size a picture is cut to: the object is whole in it, its masks are of its size, and source and target
    are identical outside of the foreground mask."""
    rng, kept = np.random.default_rng(5), 0
    for number in range(150):
        raw = make_raw(rng)
        crop = Crop(int(rng.integers(5, 40)), int(rng.integers(5, 40)), ("object", "center", "none")[number % 3])
        if isinstance(place := plan_cut(raw, crop), str):
            continue
        kept += 1
        whole = decode_mask(raw["mask"]["bytes"])
        assert whole[place[1] : place[3], place[0] : place[2]].sum() == whole.sum()
        cut = cut_row(raw, crop)
        source, target = (decode_image(cut[name]["bytes"]) for name in ("source", "target"))
        mask, foreground, box = (decode_mask(cut[name]["bytes"]) for name in ("mask", "foreground_mask", "mask_box"))
        assert source.shape == target.shape == (*mask.shape, 3)
        assert mask.shape == foreground.shape == box.shape
        if crop.place != "none":
            assert mask.shape == (crop.height, crop.width)
        assert mask.any()
        assert not (mask & ~foreground).any()
        assert not ((source != target).any(axis=2) & ~foreground).any()
    assert kept > 50


def test_sizes_of_an_export(run: Store, tmp_path: Path) -> None:
    """All pictures have the size; what is too small is left out, never enlarged."""
    manifest = export(run, tmp_path / "small", crop=Crop(16, 12))
    assert manifest["rows"] == 4
    for row in read_rows(tmp_path / "small"):
        assert decode_image(row["source"]["bytes"]).shape == (12, 16, 3)
        assert decode_mask(row["mask_box"]["bytes"]).shape == (12, 16)
    export(run, tmp_path / "folder", "ai-toolkit", crop=Crop(16, 16, "center"))
    with pytest.raises(NothingToExport, match=r"4: it is smaller than 64 × 64 px"):
        export(run, tmp_path / "none", crop=Crop(64, 64))
    wrong = rasura("export", run.uri, "--out", tmp_path / "x", "--size", "0x9", check=False)
    assert "no size: '0x9'" in " ".join(wrong.stderr.split())
