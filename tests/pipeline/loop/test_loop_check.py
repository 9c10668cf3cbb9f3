"""The check of a loop before its start: rows are counted, settings of later steps are checked; the recipe of a loop
that was begun may change where no step has used it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.annotator.runs import CAPTURED, Run, row
from support.loops import REMOVER, build_recipe, write_scenes
from typer.testing import CliRunner

from rasura.manifests.errors import RecipeError
from rasura.manifests.run_layout import FolderInUse, NoRun, RunPlan, check_folder, read_plan, write_plan
from rasura.manifests.storage import Store
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.cli.check import check_recipe
from rasura.pipeline.loop import runner
from rasura.pipeline.loop.changes import USES, find_used_changes
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.state import Loop, OtherLoop, Step, list_steps
from rasura.pipeline.recipe.starters import write_starter


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of thirty captured scenes, ten of them for testing, and of pictures without a mask or a truth."""
    run = write_scenes(tmp_path_factory.mktemp("scenes") / "run")
    records = [row(n, "captured") for n in range(40, 43)]
    untrue = {name: kind for name, kind in CAPTURED.items() if name != "target"}
    run.flow("untrue", [{name: record[name] for name in untrue if name in record} for record in records], untrue)
    bare = {name: kind for name, kind in untrue.items() if name not in ("source", "mask")}
    run.flow("bare", [{name: record[name] for name in bare if name in record} for record in records], bare)
    return run.store.uri


def write_recipe(folder: Path, scenes: str, **changes: Any) -> Path:
    file = folder / "l.yaml"
    file.write_text(yaml.safe_dump(build_recipe(scenes, **changes), sort_keys=False))
    return file


def test_the_check_counts_the_rows_and_the_scenes_of_each_round(scenes: str, tmp_path: Path) -> None:
    """Triplets, scenes and test rows are counted without those of other parts, and a short round says what it gets."""
    file = write_recipe(tmp_path, scenes, rounds=[{"kind": "human", "count": 8}, {"kind": "auto", "count": 30}])
    lines = check_recipe(file).splitlines()
    assert lines[1:4] == [
        f"initial: 6 triplets, start of {scenes}",
        f"pool: 14 scenes, rest of {scenes} (train)",
        f"test: 4 rows, rest of {scenes} (test)",
    ]
    assert lines[-2].startswith("round 1: 8 scenes, votes by the ground-truth reviewer (draw, inpaint, votes, discrim")
    assert lines[-1].startswith("round 2: 6 of 30 scenes, automatic")


def test_the_check_names_the_discriminator_that_decides(scenes: str, tmp_path: Path) -> None:
    """A judge that is not trained is described as what it is, and not by the preset of one that is."""
    vlm = {"backend": "vlm", "url": "http://localhost:1/v1", "model": "qwen"}
    text = check_recipe(write_recipe(tmp_path, scenes, discriminator=vlm), ())
    assert "discriminator: the VLM qwen at http://localhost:1/v1, prompt removal-1, precision target 0.9" in text
    assert "sdxl" not in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "test.0.split",
            "tets",
            "--set test.0.split=tets: 'rest' of .* has no rows in the split 'tets'; it has 7 in 't",
        ),
        (
            "test.0.flow",
            "bare",
            "--set test.0.flow=bare: rows of 'bare' in .* are no pictures with a mask: they have no",
        ),
        ("initial.0.flow", "untrue", "rows of 'untrue' in .* are no triplets: they have no target; flows that fit: re"),
        ("initial.0.flow", "strat", "has no flow 'strat'; did you mean 'start'"),
        ("pool.0.run", "nowhere", "--set pool.0.run=nowhere: 'nowhere' is no run"),
        (
            "pool",
            "[{run: RUN, flow: start}]",
            "no rows are left: all 6 are of scenes .*6 in `initial`.*a `limit`",
        ),
        (
            "rounds.0.count",
            "14",
            r"l\.yaml:\d+:\d+: rounds\.1\.count: no scene is left .* 14 scenes, earlier .* draw 14",
        ),
        ("exclude", "[car, chair, dog]", "rounds.0.count: no scene is left .* 14 have a label that is excluded"),
        ("removers", "[telea, telea]", "removers=.*: 'telea' is there twice"),
        ("removers", "[telea, {lama: {base: x}}]", "has names alone: write `removers: .lama.` and `models: {lama: "),
        ("removers", "[telea, lama]", "removers.1: 'lama' needs weights: add `models: lama:` with `base`"),
        ("removers", "['nowhere:Gone']", "remover 'nowhere:Gone' cannot be imported"),
        ("remover.settings.bach", "2", "--set remover.settings.bach=2: there is no 'bach'; did you mean 'batch'"),
        ("remover.settings.batch", "0", "--set remover.settings.batch=0: expected 1 or more"),
        (
            "remover",
            "{preset: catdiffusion, base: RUN, image_encoder: RUN}",
            "remover.preset: catdiffusion inserts, and a loop trains what removes",
        ),
        ("remover.tune", "{rate: -1}", "remover.tune.rate: expected more than 0"),
        ("remover.workers", "4", "remover.settings.batch: a batch of 2 cannot be divided evenly among 4 workers"),
        ("discriminator.settings.held", "1.0", "held=1.0: expected less than 1"),
        ("discriminator.settings.looks", "5", "looks=5: expected 4 or less"),
        (
            "discriminator.pretrain",
            "{stepz: 3}",
            "discriminator.pretrain.stepz: there is no 'stepz'; did you mean 'ste",
        ),
        ("discriminator.shares", "{calibrate: 1.0, learn: 0.5}", "both shares must be above 0 and sum to 1"),
        ("discriminator.start", ".", "start=.: no discriminator in"),
        pytest.param("measures.lpips", "RECIPE", "measures", marks=pytest.mark.torch),
    ],
)
def test_what_only_a_later_step_uses_is_checked_before_the_start(
    scenes: str, tmp_path: Path, key: str, value: str, message: str
) -> None:
    """Rows, rounds, removers, settings of every training, networks: one line with the place, and nothing is written."""
    file = write_recipe(tmp_path, scenes)
    value = value.replace("RUN", scenes).replace("RECIPE", str(file))
    with pytest.raises(RecipeError, match=message) as caught:
        check_recipe(file, [f"{key}={value}"])
    assert "\n" not in str(caught.value)
    arguments = [str(file), "--into", str(tmp_path / "loop"), "--set", f"{key}={value}"]
    with pytest.raises(RecipeError, match=message):
        CliRunner().invoke(loop_cli.loop, arguments, catch_exceptions=False)
    assert not (tmp_path / "loop").exists()


def test_the_starter_can_be_run_on_a_run_of_the_size_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of `rasura init --kind loop` passes the check on about a hundred scenes of `runs/pairs`."""
    monkeypatch.chdir(tmp_path)
    records = [row(n, "captured", 24, split="test" if n % 10 == 0 else "train") for n in range(100)]
    Run("runs/pairs").flow("captured", records, CAPTURED)
    file, needs = write_starter(Path(), "mine", "loop")
    assert "runs/pairs" in needs
    assert "initial: 40 triplets" in check_recipe(file)


def begin(folder: Path, recipe: LoopRecipe, last: Step) -> Loop:
    """A loop whose steps are done up to one of them."""
    steps = list_steps(recipe)
    loop = Loop(recipe, folder)
    loop.store.write("loop.json", json.dumps({"recipe": recipe.dump_former()}).encode())
    for step in steps[: steps.index(last) + 1]:
        loop.store.write(f"steps/{step.file}", b"{}")
    return loop


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"enough": 0.5}, ""),
        ({"discriminator": {"preset": "tiny"}}, ""),
        ({"remover": REMOVER | {"tune_steps": 7, "workers": 2}}, ""),
        ({"rounds": [{"kind": "human", "count": 8}, {"kind": "auto", "count": 9}, {"kind": "auto", "count": 1}]}, ""),
        ({"remover": REMOVER | {"settings": {**REMOVER.get("settings", {}), "tracker": "wandb"}}}, ""),
        ({"seed": 9}, "seed, which 'round 0: initial' has used"),
        ({"remover": REMOVER | {"steps": 3}}, "remover.steps, which 'round 0: train' has used"),
        ({"rounds": [{"kind": "human", "count": 9}]}, "rounds, which 'round 1: draw' has used"),
        ({"removers": []}, "removers, which 'round 1: inpaint' has used"),
        ({"dilation": 3}, "dilation, which 'round 0: test' has used"),
        ({"keep": "nothing"}, "keep, which 'round 1: inpaint' has used"),
    ],
)
def test_a_setting_may_change_until_a_step_has_used_it(
    scenes: str, tmp_path: Path, changes: dict[str, Any], used: str
) -> None:
    """While a round waits for votes, what later steps use may be corrected; what finished steps used may not, and the
    sentence names it and the step."""
    before = LoopRecipe.model_validate(build_recipe(scenes))
    begin(tmp_path, before, Step("inpaint", 1))
    loop = Loop(LoopRecipe.model_validate(build_recipe(scenes, **changes)), tmp_path)
    assert find_used_changes(loop, before) == ([used] if used else [])
    if used:
        with pytest.raises(OtherLoop, match=used):
            runner.check_folder(loop)
    else:
        assert runner.check_folder(loop) is False


def test_every_key_of_a_recipe_says_which_steps_use_it(scenes: str) -> None:
    """A key that is added to the recipe has to be added to the table too."""
    recipe = LoopRecipe.model_validate(build_recipe(scenes)).identify()
    keys = {key for key in recipe if key not in ("remover", "discriminator")}
    keys |= {f"{part}.{key}" for part in ("remover", "discriminator") for key in recipe[part]}
    assert set(USES) == keys | {"remover.settings.size"}


def test_a_folder_has_one_run_or_one_loop(scenes: str, tmp_path: Path) -> None:
    """A loop is not begun in a run, no run in a loop or in the run of another recipe; a loop that is opened as a run
    says which command to use."""
    recipe = LoopRecipe.model_validate(build_recipe(scenes))
    with pytest.raises(OtherLoop, match=r"has a run .* in it, where no loop can be: choose another folder"):
        runner.check_folder(Loop(recipe, Path(scenes)))
    begin(tmp_path / "loop", recipe, Step("initial", 0))
    with pytest.raises(FolderInUse, match="has a loop in it, where no run can be"):
        check_folder(Store(tmp_path / "loop"), "mine")
    with pytest.raises(NoRun, match="is a loop and no run: use `rasura loop status"):
        read_plan(Store(tmp_path / "loop"))
    run = Store(tmp_path / "run")
    check_folder(run, "mine")
    write_plan(run, RunPlan("mine", "", {}))
    check_folder(run, "mine")
    with pytest.raises(FolderInUse, match="has the run of recipe 'mine', and this is recipe 'yours'"):
        check_folder(run, "yours")
