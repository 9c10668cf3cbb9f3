"""The measurement for a card runs through on a machine without one, and says what is missing."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, environment

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.slow]


def test_the_measurement_on_a_card_runs_at_tiny_size() -> None:
    """`python -m benchmarks gpu_run` prints its three lines, each with all its figures, and what is still to be run."""
    pytest.importorskip("diffusers")
    env = environment(RASURA_BENCH_SECONDS="0.05", RASURA_BENCH_BATCH="2", CUDA_VISIBLE_DEVICES="")
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu_run"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    models, halving, run = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    for steps in (4, 50):
        assert models[f"candidates_{steps}_steps_per_s"] > 0
        assert models[f"rorem_candidates_{steps}_steps_per_s"] > 0
    assert 0 < models["scores_share_of_peak"] < 1
    assert halving["batch"] == halving["fitting"]  # there is no card whose memory could end
    assert run["per_s"] > 0
    assert "inpaint: " in run["plan"]
    assert run["busy"] is None
    assert "no CUDA card" in done.stderr
