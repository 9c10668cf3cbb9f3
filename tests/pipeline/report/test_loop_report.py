"""A loop as one page to look at, and its triplets as one dataset."""

import base64
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

import numpy as np
import torch
from support.annotator_runs import CAPTURED, Run, row
from test_loop import JUDGE, recipe_of
from test_report import Page, panels
from typer.testing import CliRunner

from rasura.discriminator import evaluation
from rasura.manifests.formats.rorem_export import faults
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable, Tables
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.export import export_run
from rasura.pipeline.loop import state as loop
from rasura.pipeline.loop import steps as loop_steps
from rasura.pipeline.loop import table as loop_table
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.report import loop_charts
from rasura.pipeline.report import loop_page as loop_report
from rasura.pipeline.report.run_page import write
from rasura.pipeline.run.verify import verify
from rasura.pipeline.training import oracle

torch.set_num_threads(1)

ROUNDS = [{"kind": "human", "count": 8}, {"kind": "auto", "count": 4}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> loop.Loop:
    """A loop of a human round and an automatic one whose promise is so small that it keeps something."""
    folder = tmp_path_factory.mktemp("reported")
    run = Run(folder / "run")
    rows = [row(n, "captured", 48, split="test" if n % 3 == 0 else "train") for n in range(30)]
    for one in rows:
        one["mask"] = one["foreground_mask"]
    run.flow("start", [one for one in rows[:9] if one["split"] == "train"], CAPTURED)
    run.flow("rest", rows[9:], CAPTURED)
    judge = JUDGE | {"promise": 0.05, "confidence": 0.1}
    told = recipe_of(run.store.uri, rounds=ROUNDS, judge=judge, name="a-loop")
    found = loop.run(LoopRecipe.model_validate(told), folder / "loop", lambda text: None)
    truth = {vote["item"]: vote["verdict"] == "yes" for vote in oracle.votes_on(found.round(2))}
    found.round(2).write(loop_report.TRUTH, json.dumps(truth, sort_keys=True).encode())
    return found


def page_of(folder: Path, rows: int = 3) -> Page:
    return Page(loop_report.render(Store(folder), rows))


def test_the_page_shows_the_loop(made: loop.Loop) -> None:
    """`rasura report LOOP` writes one page: the table's figures, the charts as pictures of their own, the promise with
    what became of it, every judge with its thresholds, candidates that joined and that did not with score and verdict;
    it fetches nothing, and the same loop gives the same bytes."""
    place = Path(write(Store(made.folder), None, 3))
    assert place == made.folder / "report.html"
    page = Page(place.read_text())
    assert place.read_text() == loop_report.render(Store(made.folder), 3)
    kept = [made.result("add", number)["kept"] for number in (1, 2)]
    assert kept[1] > 0
    for told in loop_table.rows(made):
        assert f"{told['success']:.1f} ± {told['success_error']:.1f}" in page.words
        assert told["round"] in page.words
    for words in ("report of a loop", "a-loop", "finished", "✓ held", "After round 1", "oracle: yes", "oracle: no",
                  f"{kept[1]:,} of 12 candidates joined", "truly yes", "score 0.", "together"):  # fmt: skip
        assert words in page.words
    low, high = (loop_table.rows(made)[2][name] for name in ("true_low", "true_high"))
    assert f"[{low:.1f}, {high:.1f}]" in page.words
    assert panels(page, "source") == sum(min(3, one) for one in (kept[0], 24 - kept[0], kept[1], 12 - kept[1]))
    assert len(page.all("path", **{"class": "object"})) == panels(page, "source") + 1  # one is the legend's
    charts = [one["src"] for one in page.all("img", **{"class": "plot"})]
    assert len(charts) == 2
    for chart in charts:
        assert ET.fromstring(base64.b64decode((chart or "").partition(",")[2])).tag.endswith("svg")
    assert len({one["alt"] for one in page.all("img")}) == len(page.all("img"))
    assert not [attributes for _, attributes in page.tags if (attributes.get("href") or "#")[0] != "#"]
    assert not page.all("script", src="")
    assert len(page.all("script")) == 1


def test_status_shows_further_measures_when_asked(made: loop.Loop) -> None:
    """`rasura loop status LOOP --all` has the second table, without `--all` only RORem's; `--json` has every figure."""
    shown = {
        option: CliRunner().invoke(loop_cli.loop, ["status", str(made.folder), *option.split()]).output
        for option in ("", "--all", "--json")
    }
    assert "judge's mean %" not in shown[""]
    assert "judge's mean %" in shown["--all"]
    assert "not measured: LPIPS: the recipe has no measures.lpips" in shown["--all"]
    assert {f"{name}{error}" for name in loop_table.MEASURED for error in ("", "_error")} <= set(
        json.loads(shown["--json"])[0]
    )


def test_a_loop_in_any_state_is_told(made: loop.Loop, tmp_path: Path) -> None:
    """A loop that waits for people, one that has only begun, one whose judge could not be trained, a control, a shard
    of candidates that is cut short, a truth that is not known, a judge with an evaluation: each has its page."""
    recipe = json.loads((made.folder / "loop.json").read_text())["recipe"]
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "loop.json").write_text(json.dumps({"recipe": {**recipe, "keep": "everything"}}))
    page = page_of(begun)
    for words in ("No step is done yet.", "No judge has been trained yet.", "No round has candidates yet.", "control"):
        assert words in page.words
    waiting = LoopRecipe.model_validate({**recipe, "reviewers": "people", "name": "waits"})
    with pytest.raises(loop.Waiting):
        loop.run(waiting, tmp_path / "waits", lambda text: None)
    page = page_of(tmp_path / "waits")
    for words in ("next: round 1, votes", "nothing is decided yet", "3 of 24", "No automatic round is done yet."):
        assert words in page.words
    shard = next((tmp_path / "waits" / "rounds" / "01" / "tables" / "candidates" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:500])
    assert ", 9 cannot be read" in page_of(tmp_path / "waits").words
    with pytest.raises(loop.NoLoop):
        loop_report.render(Store(tmp_path / "nothing"), 3)
    step = made.folder / "steps" / "01-judge.json"
    told, truth = step.read_text(), made.round(2).read(loop_report.TRUTH)
    try:
        made.round(2).delete(loop_report.TRUTH)
        assert "its truth is not known" in page_of(made.folder).words
        told_of = evaluation.evaluate(np.linspace(0.1, 0.9, 20), np.arange(20) % 3 > 0, ["telea"] * 20)
        file = made.folder / "judges" / "01" / "evaluation.json"
        file.write_text(json.dumps(told_of | {"promise": {"of": 20, "kept": 5, "precision": 0.8}}))
        assert "on 20 votes that it had not seen" in page_of(made.folder).words
        file.unlink()
        step.write_text(json.dumps({"judge": None, "why": "all 3 votes are <no>"}))
        assert "No judge: all 3 votes are <no>." in page_of(made.folder).words
    finally:
        step.write_text(told)
        made.round(2).write(loop_report.TRUTH, truth)


def test_the_promise_is_judged_by_its_interval() -> None:
    """At or above the promise it held; below it, it is broken only where the interval lies below too."""
    assert loop_report._held(9, 10, 0.9) == "✓ held"
    assert loop_report._held(8, 10, 0.9) == "below, within its interval"
    assert loop_report._held(40, 100, 0.9) == "✗ broken"
    assert loop_report._held(0, 0, 0.9) == "truth not known"
    assert [loop_charts.round_top(value) for value in (1.0, 3.25, 100.0, 101.0)] == [1.0, 5.0, 100.0, 125.0]


def test_its_triplets_are_one_dataset(made: loop.Loop, tmp_path: Path) -> None:
    """`rasura export LOOP` writes what its remover learns from now: the initial triplets and those that joined, from as
    many runs as they lie in, in every layout, each picture as it is there; a human round's rows have their verdict, an
    automatic one's their score. The judged candidates are a dataset too, with yes and no as RORem's discriminator
    learns them. The card says whose verdicts they are."""
    manifest = export_run(Store(made.folder), Store(tmp_path / "plain"))
    wanted = {ref.id for name in ("initial", "rounds/01/kept", "rounds/02/kept") for ref in loop_steps.refs(made, name)}
    import pyarrow.parquet as pq

    rows = pq.read_table(tmp_path / "plain" / manifest["files"][0]["name"]).to_pylist()
    assert {one["id"] for one in rows} == wanted
    assert manifest["rows"] == len(rows) == loop_table.rows(made)[-1]["total"]
    assert verify(Store(tmp_path / "plain"))[0] == []
    assert "verdicts by the oracle" in (tmp_path / "plain" / "README.md").read_text()
    kept = loop_steps.refs(made, "rounds/02/kept")[0]
    ours = next(one for one in rows if one["id"] == kept.id)
    theirs = Tables(made.round(2)).encoded(kept.table, kept.shard, kept.row).to_pylist()[0]
    assert ours["target"] == theirs["target"]
    scores = json.loads(made.round(2).read("scores.json"))
    assert ours["score"] == max(scores.values()) or ours["score"] in scores.values()
    assert {(one["verdict"], one["score"] is None) for one in rows if one["round"] == 1} == {("yes", True)}
    assert {(one["verdict"], one["score"]) for one in rows if one["round"] is None} == {(None, None)}

    manifest = export_run(Store(made.folder), Store(tmp_path / "rorem"), "rorem")
    assert manifest["rows"] == len(wanted)
    assert faults(Store(tmp_path / "rorem"), manifest) == []
    manifest = export_run(Store(made.folder), Store(tmp_path / "votes"), "rorem", ["votes"])
    entries = json.loads((tmp_path / "votes" / "train" / "meta.json").read_text())
    tally = made.result("votes", 1)
    assert [sum(one["score"] for one in entries), len(entries)] == [tally["yes"], tally["voted"]]
    for flows, said in ((["other"], "it has triplets, votes"), (["triplets", "votes"], "name one")):
        with pytest.raises(NoTable, match=said):
            export_run(Store(made.folder), Store(tmp_path / "other"), flows=flows)
