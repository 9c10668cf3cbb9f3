"""Removers of a loop that fail: one costs its own candidates, and a round that failed goes on when it is repaired."""

import json
import os

import pytest
import yaml
from support.failing_removers import REPAIRED
from support.loops import build_recipe, share_ray, write_scenes
from typer.testing import CliRunner

from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.loop.results import AddResult, InpaintResult
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.run.accounting import compute_accounting
from rasura.pipeline.run.outcome import AllInputsFailed
from rasura.pipeline.run.verify import verify

pytestmark = [pytest.mark.ray, pytest.mark.torch]


@pytest.fixture(scope="module", autouse=True)
def flag(tmp_path_factory):
    """The file that repairs a remover; the workers of the one Ray of this file know its path."""
    path = tmp_path_factory.mktemp("flag") / "repaired"
    os.environ[REPAIRED] = str(path)
    with share_ray():
        yield path
    os.environ.pop(REPAIRED, None)


def test_a_round_that_failed_is_continued_and_a_failed_candidate_costs_itself(flag, tmp_path):
    """All scenes of a round fail: the same command says so again, and with `--retry-failed` it goes on when the cause
    is gone. A remover that fails on some scenes costs its candidates of these, which are told and counted."""
    scenes = write_scenes(tmp_path / "scenes").store.uri
    removers = [f"support.failing_removers:{name}" for name in ("Odd", "Exits")]
    file, folder = tmp_path / "recipe.yaml", tmp_path / "loop"
    recipe = build_recipe(scenes, removers=removers, keep="humans", rounds=[{"kind": "human", "count": 6}])
    file.write_text(yaml.safe_dump(recipe))

    def call(*arguments):
        return CliRunner().invoke(loop_cli.loop, [str(file), "--into", str(folder), *arguments])

    for _ in range(2):
        error = call().exception
        assert isinstance(error, AllInputsFailed)
        assert "6 of 6 failed with RuntimeError (SystemExit: no licence)" in str(error)
        assert "--retry-failed" in str(error)
    flag.touch()
    assert isinstance(call("--retry-failed", "KeyError").exception, AllInputsFailed)
    done = call("--retry-failed")
    assert done.exit_code == 0, done.output
    assert "candidates: made again for their failed rows: 2 shards\n" in done.output
    lines = [line for line in done.output.splitlines() if line.startswith(("inpaint: ", "training: "))]
    assert len(lines) == len(set(lines)) >= 1, "the plan is told, once"

    loop = Loop.open(str(folder))
    result, run = loop.read_result(InpaintResult, 1), loop.open_round(1)
    odd = result.failed_candidates["odd"]
    assert 0 < odd < 6
    assert set(result.failed_candidates) == {"odd"}
    assert (result.scenes, result.candidates, result.failed) == (6, 3 * 6 - odd, None)
    assert f"round 1: 'odd' made no candidate of {odd} scene" in done.output
    assert "for example: ValueError: odd picture\\x0a" in done.output
    stage = next(flow for flow in compute_accounting(run).flows if flow.flow == "candidates").stages[1]
    assert (stage.inputs, stage.kept, stage.out) == (6, 6, result.candidates)
    assert stage.failed_outputs == {"ValueError": odd}
    assert loop.read_result(AddResult, 1).candidates == result.candidates
    assert verify(Store(run.uri), lambda rows: None)[0] == []
    rows = Tables(run).table("candidates").read_light(("id",)).to_pylist()
    assert set(json.loads(run.read("decisions.json"))) == {row["id"] for row in rows}
