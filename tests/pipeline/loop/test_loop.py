"""The loop: killed at every step boundary it continues to the same end, no step is done twice; human rounds wait."""

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment
from support import tiny_models
from support.annotator_runs import CAPTURED, Run, row
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

import torch
import yaml
from safetensors.torch import load_file

from benchmarks import loop_removers, loop_scenes
from rasura.manifests.storage import Store
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.loop import candidates as loop_data
from rasura.pipeline.loop import state as loop
from rasura.pipeline.loop import steps as loop_steps
from rasura.pipeline.loop import table as loop_table
from rasura.pipeline.loop.recipe import LoopRecipe, load
from rasura.pipeline.recipe.load import RecipeError
from rasura.pipeline.training import oracle
from rasura.pipeline.training import remover as loop_models
from rasura.removers import rorem
from rasura.removers.base import remove
from rasura.removers.sdxl import Files

torch.set_num_threads(1)

REMOVER = {"preset": "tiny", "steps": 2, "tune_steps": 2, "settings": {"batch": 2, "checkpoint_every": 1}}
JUDGE = {
    "preset": "tiny", "promise": 0.5, "confidence": 0.6, "thresholds": "overall",
    "settings": {"steps": 3, "batch": 4, "held": 0.0, "evaluate_every": 2, "checkpoint_every": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A run with captured rows of thirty scenes, ten of them for testing."""
    made = Run(tmp_path_factory.mktemp("scenes") / "run")
    rows = [row(n, "captured", 48, split="test" if n % 3 == 0 else "train") for n in range(30)]
    for one in rows:  # what is removed is the thing with its shadow: then some fills are good
        one["mask"] = one["foreground_mask"]
    made.flow("start", [one for one in rows[:9] if one["split"] == "train"], CAPTURED)
    made.flow("rest", rows[9:], CAPTURED)
    return made.store.uri


def recipe_of(scenes, **changed):
    told = {
        "name": "small", "seed": 3, "initial": [{"run": scenes, "flow": "start"}],
        "pool": [{"run": scenes, "flow": "rest", "split": "train"}],
        "test": [{"run": scenes, "flow": "rest", "split": "test", "limit": 4}],
        "removers": ["telea", "benchmarks.loop_removers:Left"], "remover": REMOVER, "judge": JUDGE,
        "rounds": [{"kind": "human", "count": 8}, {"kind": "auto", "count": 3}], "reviewers": "oracle",
        "dilation": 2, "shard_scenes": 3,
    }  # fmt: skip
    return told | changed


KILLER = """
import json, os, signal, sys
import torch, torch.utils.tensorboard
from accelerate import Accelerator  # here once, not in each of the processes that are killed
from diffusers import UNet2DConditionModel
torch.set_num_threads(1)
from pathlib import Path
from manifests.storage import Store
from pipeline import loop, loop_steps
from pipeline.loop_recipe import load

recipe, folder = load(sys.argv[1]), Path(sys.argv[2])
real = Store.create

def dies(when):
    def create(self, path, data):
        if not path.startswith("steps/"):
            return real(self, path, data)
        if when == "after":
            real(self, path, data)
        os.kill(os.getpid(), signal.SIGKILL)
    return create

ends = []
for turn in range(2 * len(loop.steps_of(recipe)) + 1):
    pid = os.fork()
    if not pid:
        Store.create = dies(("before", "after")[turn % 2])
        loop.run(recipe, folder, lambda text: None)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(ends))
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a loop that must not depend on what happened to it."""
    skip = {".lock", "begun.log", "log.jsonl", "loop.json", "checkpoint.json", "optimizer.pt"}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in skip]
    files = [path for path in files if not path.name.startswith("events.out.")]  # TensorBoard's, with the time in them
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_at_every_boundary_it_ends_the_same_and_does_no_step_twice(scenes, tmp_path):
    """One loop is killed with SIGKILL before and after each of its steps is marked done, in turn. Each step is begun
    at most twice, never once it was marked, and all that is on disk in the end is what an undisturbed loop has."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe_of(scenes)))
    whole = loop.run(load(file), tmp_path / "whole", lambda text: None)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(file), str(tmp_path / "killed")],
        capture_output=True, text=True, env=environment(OMP_NUM_THREADS="1"), timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    steps = loop.steps_of(whole.recipe)
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * (2 * len(steps)) + [0]
    begun = (tmp_path / "killed" / "begun.log").read_text().split()
    assert begun == [step.file for step in steps for _ in range(2)]
    ours, theirs = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert (tmp_path / "whole" / "begun.log").read_text().split() == [step.file for step in steps]
    again = loop.run(load(file), tmp_path / "whole", lambda text: pytest.fail(text))
    assert whole.result("judge", 1)["judge"] == "judges/01"
    assert whole.result("score", 2)["scored"] == 9
    told = loop_table.rows(again)
    assert [one["round"] for one in told] == ["initialisation", "human 1", "auto 1"]
    assert told[1]["candidates"] == 3 * told[1]["scenes"] == 24
    assert told[1]["truly_yes"] == told[1]["selected"] > 0
    assert told[-1]["total"] == sum(one["selected"] for one in told)
    text = loop_table.text(again)
    assert "finished" in text
    assert "by the oracle" in text
    assert ET.fromstring(loop_table.chart(again)).tag.endswith("svg")


def test_a_killed_round_keeps_the_candidates_it_committed(scenes, tmp_path, monkeypatch):
    """Killed between two shards of candidates, a round makes only the others anew."""
    made = []

    def counting(one, pictures, *given):
        made.append(len(pictures))
        if len(made) == 4:
            raise KeyboardInterrupt
        return real(one, pictures, *given)

    recipe = LoopRecipe.model_validate(recipe_of(scenes, keep="everything", rounds=[{"kind": "auto", "count": 6}]))
    real = loop_data.remove
    monkeypatch.setattr(loop_data, "remove", counting)
    with pytest.raises(KeyboardInterrupt):
        loop.run(recipe, tmp_path / "loop", lambda text: None)
    loop.run(recipe, tmp_path / "loop", lambda text: None)
    assert made == [3] * 4 + [3] * 3  # three removers: one shard whole, one begun and made again


def test_a_human_round_waits_for_people_and_goes_on_with_their_votes(scenes, tmp_path):
    """Without votes the command stops with exit code 3 and says what to do; the oracle's votes do not count for
    people's; with enough votes in the round's folder it goes on; status shows where it stands."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe_of(scenes, reviewers="people", rounds=[{"kind": "human", "count": 5}])))

    def call(*arguments, code=0):
        done = CliRunner().invoke(loop_cli.loop, [str(one) for one in arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    folder = tmp_path / "loop"
    assert "0 of 15 candidates have 1 vote" in call(file, "--into", folder, code=loop_cli.WAITS)
    run = Store(folder / "rounds" / "01")
    rows = list(oracle.votes_on(run))
    oracle.write(rows, run.sub("votes"))
    assert "0 of 15 candidates" in call(file, "--into", folder, code=loop_cli.WAITS)
    assert "next: round 1, votes" in call("status", folder)
    people = [{**one, "reviewer": "Ann", "nonce": f"ann {k}"} for k, one in enumerate(rows)]
    (folder / "rounds" / "01" / "votes" / "ann.jsonl").write_text("".join(json.dumps(one) + "\n" for one in people))
    assert "finished" in call(file, "--into", folder)
    told = json.loads((folder / "steps" / "01-votes.json").read_text())
    assert (told["voted"], told["reviewers"]) == (15, "people")
    assert "Votes by people" in call("status", folder, "--chart", tmp_path / "chart.svg")
    assert len(json.loads(call("status", folder, "--json"))) == 2
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")


def test_controls_keep_what_they_say_with_the_same_steps(scenes, tmp_path):
    """Of four arms, `nothing` adds nothing, `humans` nothing in the automatic round, `everything` one candidate of
    each scene; all train for the same number of steps."""
    added, trained = {}, {}
    for arm in ("nothing", "humans", "everything"):
        made = loop.run(LoopRecipe.model_validate(recipe_of(scenes, keep=arm)), tmp_path / arm, lambda text: None)
        added[arm] = [one["selected"] for one in loop_table.rows(made)][1:]
        trained[arm] = [made.result("tune", number)["steps"] for number in (1, 2)]
    assert added["nothing"] == [0, 0]
    assert added["humans"][0] > 0
    assert added["humans"][1] == 0
    assert added["everything"] == [8, 3]
    assert len({str(one) for one in trained.values()}) == 1


def test_no_scene_is_seen_twice_and_labels_have_a_cap(scenes, tmp_path):
    """Scenes of the test set are in no other part; a round draws none that an earlier one had, at most the cap of a
    label, and none that is excluded."""
    made = loop.run(
        LoopRecipe.model_validate(recipe_of(scenes, keep="nothing", exclude=["dog"], cap=2)), tmp_path / "loop",
        lambda text: None,
    )  # fmt: skip
    parts = [loop_steps.refs(made, name) for name in ("test", "initial", "rounds/01/scenes", "rounds/02/scenes")]
    seen = [{ref.scene for ref in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))
    labels = [ref.label for ref in parts[2]]
    assert labels
    assert "dog" not in labels
    assert max(labels.count(label) for label in labels) <= 2


def test_other_recipes_and_mistakes_are_said(scenes, tmp_path):
    """A folder of another recipe, an automatic round without any vote, an unknown remover, a loop that is not there."""
    first = LoopRecipe.model_validate(recipe_of(scenes, keep="nothing", rounds=[{"kind": "auto", "count": 1}]))
    loop.run(first, tmp_path / "loop", lambda text: None)
    with pytest.raises(loop.OtherLoop, match="differs in seed"):
        loop.run(first.model_copy(update={"seed": 4}), tmp_path / "loop", lambda text: None)
    with pytest.raises(loop.NoLoop, match=r"no loop\.json"):
        loop.Loop.open(tmp_path)
    for changed, said in (
        ({"rounds": [{"kind": "auto", "count": 4}]}, "begin with a human round"),
        ({"removers": ["lama"]}, "no remover called 'lama'"),
        ({"remover": {"preset": "sdxl"}}, "remover: the preset sdxl"),
        ({"remover": {**REMOVER, "distill": {}}}, "distill: only a remover of many steps"),
        ({"remover": {"base": "b", "distill": {}, "settings": {"objective": "x0"}}}, "distill: only a remover of many"),
        ({"remover": {"base": "b", "distill": {}, "prompts": "p"}}, "under `distill.teacher_prompts`"),
        ({"remover": {**REMOVER, "workers": -1}}, "remover.workers"),
        ({"roundz": []}, "roundz"),
    ):
        file = tmp_path / "wrong.yaml"
        file.write_text(yaml.safe_dump(recipe_of(scenes, **changed)))
        with pytest.raises(RecipeError, match=said):
            load(file)
    gone = LoopRecipe.model_validate(recipe_of(scenes, removers=["nowhere:Gone"], keep="humans"))
    with pytest.raises(RecipeError, match="cannot be imported"):
        loop.run(gone, tmp_path / "gone", lambda text: None)


def test_the_first_judge_may_go_on_from_one_that_was_trained_elsewhere(scenes, tmp_path):
    """With `judge.start` the first training begins at that judge's weights: without a step that moves them, the
    loop's judge is that judge."""
    made = loop.run(LoopRecipe.model_validate(recipe_of(scenes)), tmp_path / "one", lambda text: None)
    start = made.judge(1)
    still = JUDGE | {"start": str(start), "settings": JUDGE["settings"] | {"rate": 1e-12, "steps": 1, "held": 0.0}}
    rounds = [{"kind": "human", "count": 8}]
    other = loop.run(
        LoopRecipe.model_validate(recipe_of(scenes, judge=still, rounds=rounds, seed=4)), tmp_path / "two",
        lambda text: None,
    )  # fmt: skip
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (other.judge(1), start))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_the_repositorys_loops_are_valid():
    """Both recipes are read whole, and the settings they give have names that there are."""
    for name in ("loop-demo", "rorem-loop"):
        recipe = load(ROOT / "recipes" / f"{name}.yaml")
        assert recipe.name == name
        assert loop_models.settings_of(recipe, True).rate > 0
        last = "distill" if recipe.remover.distill else "test"
        assert loop.steps_of(recipe)[-1] == loop.Step(last, len(recipe.rounds))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_last_remover_is_distilled_and_its_folder_runs(scenes, tmp_path):
    """With `remover.distill` the loop's last step leaves a LoRA on the last round's UNet that `rorem-lcm` runs in four
    steps to another picture than without; taken away again that is another recipe."""
    base = tiny_models.sdxl_folder(tmp_path / "base")
    quick = {"size": 64, "batch": 2, "warm_up": 1, "rate": 1e-3}
    remover = {
        "preset": "sdxl", "base": str(base), "steps": 1, "settings": quick,
        "distill": {"steps": 2, "settings": {"batch": 2, "rank": 4, "warm_up": 1, "rate": 0.01}},
    }  # fmt: skip
    test = [{"run": scenes, "flow": "rest", "split": "test", "limit": 1}]
    told = recipe_of(
        scenes, remover=remover, keep="nothing", rounds=[{"kind": "auto", "count": 1}], removers=[], test=test
    )
    recipe = LoopRecipe.model_validate(told)
    made = loop.run(recipe, tmp_path / "loop", lambda text: None)
    assert loop.steps_of(recipe)[-1] == loop.Step("distill", 1)
    found = made.result("distill", 1)
    assert (found["remover"], found["steps"]) == ("removers/lcm", 2)
    record = json.loads((made.distilled / "training.json").read_text())
    assert record["unet"] == str(made.remover(1) / "unet")
    assert record["settings"]["size"] == 64
    files = Files(base, unet=made.remover(1) / "unet", lora=made.distilled / "lora.safetensors")
    options = replace(rorem.LCM_OPTIONS, size=64, device="cpu")
    one, fills = row(0, "captured", 48), []
    for lora in (files.lora, None):
        make = rorem.rorem_lcm if lora else rorem.rorem
        remover = make("lcm", replace(files, lora=lora), replace(options, scheduler="LCMScheduler"))
        remover.setup()
        fills.append(remove(remover, [one["source"]], [one["mask"]], [1], dilation=2)[0])
    assert (fills[0] != fills[1]).any()
    without = recipe.model_copy(update={"remover": recipe.remover.model_copy(update={"distill": None})})
    with pytest.raises(loop.OtherLoop, match="differs in remover"):
        loop.run(without, tmp_path / "loop", lambda text: None)


def test_scenes_for_a_loop_follow_from_their_seed(assets, tmp_path):
    """Made twice they are the same to the byte; the hole differs from the truth, the rest does not; no photograph of
    the test flow is in another."""
    photos = loop_scenes.photographs(assets / "photos")
    shared = loop_scenes.divided(photos)
    names = [name for some in shared.values() for name, _ in some]
    assert len(names) == len(set(names)) == len(photos)
    assert set(shared) == {"initial", "judge", "pool", "test"}
    once, again = (loop_scenes.rows(photos[:4], 6, 2, "pool") for _ in range(2))
    for one, same in zip(once, again, strict=True):
        assert (one["source"] == same["source"]).all()
        assert (one["source"] == one["target"])[~one["mask"]].all()
        assert (one["source"] != one["target"])[one["mask"]].any()
    for name in ("one", "two"):
        loop_scenes.write(Store(tmp_path / name), {"pool": once})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_judge_may_learn_before_any_vote_from_initial_triplets(scenes, tmp_path):
    """With `pretrain_scenes` the oracle's verdicts on candidates of initial triplets make a first judge, in a round of
    its own that no person's votes are in; what one class gives no judge, and it is said."""
    judge = {**JUDGE, "pretrain_scenes": 6, "pretrain": JUDGE["settings"]}
    rounds = [{"kind": "auto", "count": 3}]
    made = loop.run(LoopRecipe.model_validate(recipe_of(scenes, judge=judge, rounds=rounds)), tmp_path / "loop",
                    lambda text: None)  # fmt: skip
    told = made.result("pretrain", 0)
    assert told["judge"] == "judges/00" or "why" in told
    assert made.result("score", 1) is not None
    assert not (tmp_path / "loop" / "rounds" / "00" / "votes").exists()


def test_a_shifted_fill_finds_what_repeats():
    """A picture that repeats itself is restored in its hole; where no part of the picture could fill the hole, the rim
    is continued instead, and nothing outside the hole is asked for."""
    tile = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    picture = np.tile(tile, (8, 8, 1))
    hole = np.zeros((64, 64), bool)
    hole[20:33, 24:39] = True
    spoiled = np.where(hole[..., None], np.uint8(9), picture)
    made = loop_removers.Shifted().fill([spoiled], [hole], [1])[0]
    assert np.abs(made[hole].astype(int) - picture[hole]).mean() < 3
    large = np.zeros((64, 64), bool)
    large[4:60, 4:60] = True
    filled = loop_removers.Shifted().fill([spoiled], [large], [1])[0]
    assert (filled == loop_removers.telea(spoiled, large)).all()
