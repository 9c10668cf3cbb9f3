"""A loop as one page to look at, and its triplets as one dataset."""

import base64
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

import numpy as np
import pyarrow.parquet as pq
import torch
from support.loops import DISCRIMINATOR, build_recipe, run_silently, share_ray, write_scenes
from support.report_pages import Page, count_panels
from typer.testing import CliRunner

from rasura.discriminator import evaluation
from rasura.manifests.formats.folder_export import find_faults
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Tables
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.export import export_run
from rasura.pipeline.loop import table
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import AddResult, VotesResult
from rasura.pipeline.loop.state import TRUTH, Loop, NoLoop, Waiting
from rasura.pipeline.report import loop_charts, loop_page, loop_target
from rasura.pipeline.report.run_page import write
from rasura.pipeline.run.verify import verify
from rasura.pipeline.training import oracle

pytestmark = [pytest.mark.ray, pytest.mark.torch]

torch.set_num_threads(1)

ROUNDS = [{"kind": "human", "count": 8}, {"kind": "auto", "count": 4}]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """One Ray for all loops of this file."""
    with share_ray():
        yield


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A loop of a human round and an automatic one whose precision target is so small that it keeps something."""
    folder = tmp_path_factory.mktemp("reported")
    run = write_scenes(folder / "run")
    discriminator = DISCRIMINATOR | {"precision_target": 0.05, "confidence": 0.1}
    loop = run_silently(
        build_recipe(run.store.uri, rounds=ROUNDS, discriminator=discriminator, name="a-loop"), folder / "loop"
    )
    truth = {vote["item"]: vote["verdict"] == "yes" for vote in oracle.review_run(loop.open_round(2))}
    loop.open_round(2).write(TRUTH, json.dumps(truth, sort_keys=True).encode())
    return loop


def render_page(folder: Path, rows: int = 3) -> Page:
    """Render the page of a loop; the words of its tables count as its words."""
    page = Page(loop_page.render(Store(folder), rows))
    tables = {id: value for id, value in page.json.items() if id.startswith(("galleries", "columns-"))}
    page.words += json.dumps(tables, ensure_ascii=False)
    return page


def test_the_page_shows_the_loop(loop: Loop) -> None:
    """`rasura report LOOP` writes one page: the table's figures, the charts as pictures of their own, the precision
    target with its outcome, every discriminator with its thresholds, candidates that joined and that did not with score
    and verdict; it fetches nothing, and the same loop gives the same bytes."""
    place = Path(write(Store(loop.store.local), None, 3))
    assert place == loop.store.local / "report.html"
    page = render_page(loop.store.local)
    assert place.read_text() == page.html
    kept = [loop.read_result(AddResult, number).kept for number in (1, 2)]
    assert kept[1] > 0
    for row in table.build_rows(loop):
        assert f"{row.test.success:.1f} ± {row.test.success_error:.1f}" in page.words
        assert row.name in page.words
    for words in (
        "report of a loop",
        "a-loop",
        "finished",
        "✓ reached",
        "After round 1",
        "oracle: yes",
        "oracle: no",
        f"{kept[1]:,} of 12 candidates joined",
        "true yes",
        "together",
    ):
        assert words in page.words
    automatic = table.build_rows(loop)[2]
    assert f"[{automatic.true_low:.1f}, {automatic.true_high:.1f}]" in page.words
    assert count_panels(page, "source") == sum(
        min(2, joined) + min(1, others) for joined, others in ((kept[0], 24 - kept[0]), (kept[1], 12 - kept[1]))
    )
    assert [gallery["title"] for gallery in page.json["galleries"]] == ["Round 2, automatic", "Round 1, human"]
    scores = page.column("Round 2, automatic", "score")
    assert len(scores) == 12
    assert all(0 <= score <= 1 for score in scores)
    assert page.column("Round 2, automatic", "joined").count("joined the training set") == kept[1]
    assert all(entry["panels"][0]["paths"]["object"] for entry in page.pictures("Round 1, human").values())
    charts = [image["src"] for image in page.all("img", **{"class": "plot"})]
    assert len(charts) == 2
    for chart in charts:
        assert ET.fromstring(base64.b64decode((chart or "").partition(",")[2])).tag.endswith("svg")
    assert len({image["alt"] for image in page.all("img")}) == len(page.all("img"))
    assert not [
        attributes for _, attributes in page.tags if not (attributes.get("href") or "#").startswith(("#", "data:"))
    ]
    assert len([script for script in page.all("script") if script.get("type") != "application/json"]) == 1


def test_status_shows_further_measures_when_asked(loop: Loop) -> None:
    """`rasura loop status LOOP --all` has the second table, without `--all` only RORem's; `--json` has every figure."""
    outputs = {
        option: CliRunner().invoke(loop_cli.loop, ["status", str(loop.store.local), *option.split()]).output
        for option in ("", "--all", "--json")
    }
    assert "mean score %" not in outputs[""]
    assert "mean score %" in outputs["--all"]
    assert "not measured: LPIPS: the recipe has no measures.lpips" in outputs["--all"]
    assert {f"{name}{error}" for name in table.MEASURES for error in ("", "_error")} <= set(
        json.loads(outputs["--json"])[0]
    )


def test_a_loop_in_any_state_is_shown(loop: Loop, tmp_path: Path) -> None:
    """A loop that waits for people, one that has only begun, one whose discriminator could not be trained, a control, a
    shard of candidates that is cut short, a truth that is not available, a discriminator with an evaluation: each has
    its page."""
    recipe = json.loads((loop.store.local / "loop.json").read_text())["recipe"]
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "loop.json").write_text(json.dumps({"recipe": {**recipe, "keep": "everything"}}))
    page = render_page(begun)
    for words in (
        "No step is done yet.",
        "No discriminator has been trained yet.",
        "No round has candidates yet.",
        "control",
    ):
        assert words in page.words
    waiting = LoopRecipe.model_validate({**recipe, "reviewers": "people", "name": "waits"})
    with pytest.raises(Waiting):
        run_silently(waiting, tmp_path / "waits")
    page = render_page(tmp_path / "waits")
    for words in ("next: round 1, votes", "Not decided yet", "No automatic round is done yet."):
        assert words in page.words
    shard = next((tmp_path / "waits" / "rounds" / "01" / "tables" / "candidates" / "shards").iterdir())
    lost = pq.read_metadata(shard).num_rows
    shard.write_bytes(shard.read_bytes()[:500])
    assert f", {lost} cannot be read" in render_page(tmp_path / "waits").words
    with pytest.raises(NoLoop):
        loop_page.render(Store(tmp_path / "nothing"), 3)
    step = loop.store.local / "steps" / "01-judge.json"
    text, truth = step.read_text(), loop.open_round(2).read(TRUTH)
    try:
        loop.open_round(2).delete(TRUTH)
        assert "their truth is not available" in render_page(loop.store.local).words
        told_of = evaluation.evaluate(np.linspace(0.1, 0.9, 20), np.arange(20) % 3 > 0, ["telea"] * 20)
        file = loop.store.local / "judges" / "01" / "evaluation.json"
        file.write_text(json.dumps(told_of | {"promise": {"of": 20, "kept": 5, "precision": 0.8}}))
        assert "on 20 held-out votes" in render_page(loop.store.local).words
        file.unlink()
        step.write_text(json.dumps({"judge": None, "why": "all 3 votes are <no>"}))
        assert "No discriminator: all 3 votes are <no>." in render_page(loop.store.local).words
    finally:
        step.write_text(text)
        loop.open_round(2).write(TRUTH, truth)


def test_the_precision_target_is_compared_with_an_interval() -> None:
    """At or above the target it is reached; below, it is missed only where the whole interval is below too."""
    assert loop_target.describe_outcome(9, 10, 0.9) == "✓ reached"
    assert loop_target.describe_outcome(8, 10, 0.9) == "below, within its interval"
    assert loop_target.describe_outcome(40, 100, 0.9) == "✗ missed"
    assert loop_target.describe_outcome(0, 0, 0.9) == "no truth available"
    assert [loop_charts.round_axis(value) for value in (1.0, 3.25, 100.0, 101.0)] == [1.0, 5.0, 100.0, 125.0]


def test_its_triplets_are_one_dataset(loop: Loop, tmp_path: Path) -> None:
    """`rasura export LOOP` writes what its remover learns from now: the initial triplets and those that joined, from as
    many runs as they lie in, in every layout, each picture as it is there; a human round's rows have their verdict, an
    automatic one's their score. The judged candidates are a dataset too, with yes and no as RORem's discriminator
    learns them. The card says whose verdicts they are."""
    manifest = export_run(Store(loop.store.local), Store(tmp_path / "plain"))
    expected = {ref.id for name in ("initial", "rounds/01/kept", "rounds/02/kept") for ref in loop.read_rows(name)}
    rows = pq.read_table(tmp_path / "plain" / manifest["files"][0]["name"]).to_pylist()
    assert {row["id"] for row in rows} == expected
    assert manifest["rows"] == len(rows) == table.build_rows(loop)[-1].total
    assert verify(Store(tmp_path / "plain"))[0] == []
    assert "verdicts by the oracle" in (tmp_path / "plain" / "README.md").read_text()
    kept = loop.read_rows("rounds/02/kept")[0]
    ours = next(row for row in rows if row["id"] == kept.id)
    theirs = Tables(loop.open_round(2)).read_raw(kept.table, kept.shard, kept.row).to_pylist()[0]
    assert ours["target"] == theirs["target"]
    scores = json.loads(loop.open_round(2).read("scores.json"))
    assert ours["score"] == max(scores.values()) or ours["score"] in scores.values()
    assert {(row["verdict"], row["score"] is None) for row in rows if row["round"] == 1} == {("yes", True)}
    assert {(row["verdict"], row["score"]) for row in rows if row["round"] is None} == {(None, None)}

    manifest = export_run(Store(loop.store.local), Store(tmp_path / "rorem"), "rorem")
    assert manifest["rows"] == len(expected)
    assert find_faults(Store(tmp_path / "rorem"), manifest) == []
    manifest = export_run(Store(loop.store.local), Store(tmp_path / "votes"), "rorem", ["votes"])
    entries = json.loads((tmp_path / "votes" / "train" / "meta.json").read_text())
    result = loop.read_result(VotesResult, 1)
    assert [sum(entry["score"] for entry in entries), len(entries)] == [result.yes, result.voted]
    for flows, message in ((["other"], "it has triplets, votes"), (["triplets", "votes"], "name one")):
        with pytest.raises(NoTable, match=message):
            export_run(Store(loop.store.local), Store(tmp_path / "other"), flows=flows)
