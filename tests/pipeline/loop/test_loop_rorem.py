"""RORem's recipe as a whole, on networks of SDXL's kind at tiny size."""

import pytest
from conftest import ROOT
from support import tiny_models
from support.annotator.runs import CAPTURED, Run, row
from support.loops import share_ray

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from rasura.manifests.schemas import Kind
from rasura.pipeline.loop import table
from rasura.pipeline.loop.check import check_loop, describe_loop
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import DiscriminatorResult, DistillationResult, FinalResult, ScoreResult
from rasura.pipeline.loop.runner import run_loop
from rasura.pipeline.recipe.load import load

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PHOTOS = {**CAPTURED, "object_mask": Kind.MASK}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run in place of those that the recipe reads; its photographs know what is behind their objects."""
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    pairs = [row(n, "captured", 48, split="test" if n < 2 else "train") for n in range(6)]
    run.flow("captured", pairs, CAPTURED)
    run.flow("simulated", [row(n, "simulated", 48) for n in range(10, 13)], CAPTURED)
    scenes = [row(n, "captured", 48) for n in range(20, 32)]
    run.flow("objects", [{**scene, "object_mask": scene["foreground_mask"]} for scene in scenes], PHOTOS)
    high = Run(tmp_path_factory.mktemp("high") / "run")
    high.flow("captured", [row(n, "captured", 96) for n in range(40, 43)], CAPTURED)
    return run.store.uri, high.store.uri


def test_rorems_recipe_runs_to_its_end(runs, tmp_path):
    """With its paths given `rasura check` passes; with its counts lowered the recipe runs whole: initial set, a human
    and an automatic round, the last training at two sizes, and the distillation of that remover."""
    run, high = runs
    base = tiny_models.sdxl_folder(tmp_path / "sdxl")
    paths = [f"vars.{name}={run}" for name in ("captured", "simulated", "photos")]
    paths += [f"vars.high={high}", f"vars.sdxl={base}"]
    size = "size: 64, batch: 2, warm_up: 1, checkpoint_every: 1, precision: no, rate: 0.001"
    smaller = [
        "rounds=[{kind: human, count: 6}, {kind: auto, count: 2}]",
        "remover.steps=1",
        f"remover.settings={{{size}}}",
        "remover.distill.steps=1",
        "remover.distill.settings={batch: 2, rank: 4, warm_up: 1}",
        "discriminator.settings={size: 64, steps: 1, batch: 2, held: 0.0, warm_up: 1}",
        "discriminator.thresholds=overall",
        "final.settings={large: 128}",
        "final.steps=2",
        "reviewers=oracle",
        "removers=[telea]",  # whose fills are good, unlike those of random weights
        "dilation=2",
        "engine.workers=1",
    ]
    recipe, positions = load(ROOT / "recipes" / "rorem.yaml", [*paths, *smaller], LoopRecipe)
    text = describe_loop(check_loop(recipe, positions))
    assert "initial: 7 triplets" in text
    assert "pool: 12 scenes" in text
    with share_ray():
        loop = run_loop(recipe, str(tmp_path / "loop"), lambda step: None)
    assert [row.name for row in table.build_rows(loop)] == ["initialisation", "human 1", "auto 1", "final"]
    assert loop.read_result(DiscriminatorResult, 1).folder == "judges/01"
    assert loop.read_result(ScoreResult, 2).scored == 4
    final = loop.read_result(FinalResult, 3)
    assert (final.steps, final.triplets >= 3 + 7) == (2, True)
    assert loop.read_result(DistillationResult, 3).remover == "removers/lcm"
    assert (tmp_path / "loop" / "removers" / "lcm" / "lora.safetensors").is_file()
