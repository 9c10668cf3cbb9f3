"""A run whose judge is behind a server: a server that is away fails no row; one that babbles fails that row alone."""

import pytest
from conftest import rasura, write_recipe
from support.vlm_server import VlmServer

from rasura.discriminator.calibration import Rule, Threshold, write_rule
from rasura.discriminator.judges import folder
from rasura.discriminator.scaling import Scaling
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.run.accounting import compute_accounting

pytestmark = pytest.mark.ray

ROWS = 12


def test_a_server_that_dies_in_a_run_fails_no_row(tmp_path):
    """After five answers the server is away, and then gone: the run ends with one sentence. Once it is back, the same
    command asks only what was not answered, and fails the one row about which it gets no answer that can be used."""
    judge = tmp_path / "judge"
    with VlmServer(limit=5, dark=b"Well.") as server:
        folder.create_vlm(judge, server.url, "m", size=32, attempts=2, parallel=1)
        write_rule(Rule(Scaling(1.0), 0.9, 0.95, Threshold(0.5, 90, 95, 0.9), {}), judge)
        flows = {
            "made": {"source": {"synthetic:Numbers": {"count": ROWS}}, "stages": [{"synthetic:Dimmed": {}}]},
            "scored": {"source": {"flow": {"of": "made"}}, "stages": [{"score": {"discriminator": str(judge)}}]},
        }
        recipe = write_recipe(tmp_path, flows=flows, engine={"shard_rows": 4, "workers": 1, "patience_s": 0})
        run = tmp_path / "run"
        away = rasura("run", recipe, "--into", run, check=False)
        port, answered = server.http.server_port, server.answered
    gone = rasura("run", recipe, "--into", run, check=False)
    for done, reason in ((away, "status 503"), (gone, "refused")):
        assert done.returncode == 1
        assert reason in done.stdout + done.stderr
        assert "the same command" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not [flow for flow in compute_accounting(Store(run)).flows if any(entry.failed for entry in flow.stages)]
    assert answered == 5
    with VlmServer(port=port, dark=b"Well.") as server:
        rasura("run", recipe, "--into", run)
        assert server.answered == ROWS - 1 - answered
    flow = compute_accounting(Store(run)).flows[1]
    stage = next(entry for entry in flow.stages if entry.stage == "score")
    assert (stage.inputs, stage.kept, stage.failed) == (ROWS, ROWS - 1, {"NoAnswer": 1})
    scores = Tables(Store(run)).table("scored").read_light(("score",)).to_pylist()
    assert len({row["score"] for row in scores}) == ROWS - 1
