"""The loop: killed at every step boundary it continues to the same end, no step is done twice; human rounds wait."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from conftest import ASSETS, DATA, ROOT
from support import tiny_models
from support.annotator.runs import row
from support.loops import DISCRIMINATOR, REMOVER, build_recipe, read_contents, run_silently, share_ray, write_scenes
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

import torch
import yaml
from safetensors.torch import load_file

from benchmarks import loop_removers, loop_scenes
from rasura.manifests.errors import RecipeError
from rasura.manifests.storage import Store
from rasura.pipeline.cli import loop as loop_cli
from rasura.pipeline.loop import table
from rasura.pipeline.loop.recipe import LoopRecipe, load
from rasura.pipeline.loop.results import (
    DiscriminatorResult,
    DistillationResult,
    ScoreResult,
    TrainingResult,
    VotesResult,
)
from rasura.pipeline.loop.runner import run_loop
from rasura.pipeline.loop.runs import mend_loop
from rasura.pipeline.loop.state import DISTILLED, Loop, NoLoop, OtherLoop, Step, list_steps, remover_path
from rasura.pipeline.run.events import EventLog, read_events
from rasura.pipeline.run.verify import verify
from rasura.pipeline.training import oracle
from rasura.pipeline.training.settings import build_training_settings
from rasura.removers.base import remove
from rasura.removers.diffusion import rorem
from rasura.removers.diffusion.remover import Files

pytestmark = [pytest.mark.ray, pytest.mark.torch]

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One Ray for all loops of this file."""
    with share_ray():
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A run with captured rows of thirty scenes, ten of them for testing."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "run").store.uri


class Killed(BaseException):
    """The end of a driver in the middle of a step: nothing of it is carried out after that."""


def die_once(monkeypatch, when):
    """Have the next mark of a finished step end the driver: before it is there, or right after."""
    real, calls = Store.create, []

    def create(self, path, data):
        if not path.startswith("steps/") or calls:
            return real(self, path, data)
        calls.append(path)
        if when == "after":
            real(self, path, data)
        raise Killed

    monkeypatch.setattr(Store, "create", create)


def list_begun(folder):
    """The steps that were begun, in order, by the loop's log."""
    return [event["step"] for event in sorted(read_events(Store(folder)), key=lambda event: event["time"])]


def test_killed_at_every_boundary_it_ends_the_same_and_does_no_step_twice(scenes, tmp_path, monkeypatch):
    """One loop is ended before and after each of its steps is marked done, in turn. Each step is begun at most twice,
    never once it was marked, and all that is on disk in the end is what an undisturbed loop has."""
    recipe = LoopRecipe.model_validate(build_recipe(scenes))
    undisturbed = run_silently(recipe, tmp_path / "whole")
    for when in ("before", "after") * len(list_steps(recipe)):
        with monkeypatch.context() as killing:
            die_once(killing, when)
            with pytest.raises(Killed):
                run_silently(recipe, tmp_path / "killed")
    run_silently(recipe, tmp_path / "killed")
    steps = list_steps(undisturbed.recipe)
    assert list_begun(tmp_path / "killed") == [step.file for step in steps for _ in range(2)]
    ours, theirs = read_contents(tmp_path / "whole"), read_contents(tmp_path / "killed")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert list_begun(tmp_path / "whole") == [step.file for step in steps]
    again = run_loop(recipe, str(tmp_path / "whole"), lambda text: pytest.fail(text))
    assert undisturbed.read_result(DiscriminatorResult, 1).folder == "judges/01"
    assert undisturbed.read_result(ScoreResult, 2).scored == 9
    rows = table.build_rows(again)
    assert [row.name for row in rows] == ["initialisation", "human 1", "auto 1"]
    assert rows[1].candidates == 3 * rows[1].scenes == 24
    assert rows[1].true_yes == rows[1].selected > 0
    assert rows[-1].total == sum(row.selected for row in rows)
    text = table.format_text(again)
    assert "finished" in text
    assert "by the ground-truth reviewer" in text
    assert ET.fromstring(table.draw_chart(again)).tag.endswith("svg")


def test_a_killed_round_keeps_the_candidates_it_committed(scenes, tmp_path, monkeypatch):
    """Ended after its first shard of candidates, a round makes only the others anew, and has the same tables."""
    recipe = LoopRecipe.model_validate(build_recipe(scenes, keep="everything", rounds=[{"kind": "auto", "count": 6}]))
    real, commits = EventLog.add, []

    def count(self, kind, **fields):
        real(self, kind, **fields)
        if kind == "commit" and fields["flow"] == "candidates" and self.run.uri.endswith("rounds/01"):
            commits.append(fields["shard"])
            if len(commits) == 1:
                raise Killed

    monkeypatch.setattr(EventLog, "add", count)
    with pytest.raises(Killed):
        run_silently(recipe, tmp_path / "loop")
    committed = (tmp_path / "loop/rounds/01/tables/candidates/lines").iterdir()
    run_silently(recipe, tmp_path / "loop")
    assert len(commits) + len([path for path in committed if path.stem not in commits]) == 2
    assert len(set(commits)) == len(commits)


def test_a_human_round_waits_for_people_and_goes_on_with_their_votes(scenes, tmp_path):
    """Without votes the command stops with exit code 3 and says what to do; the oracle's votes do not count for
    people's; with enough votes in the round's folder it goes on; status shows where it stands."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(build_recipe(scenes, reviewers="people", rounds=[{"kind": "human", "count": 5}])))

    def call(*arguments, code=0):
        done = CliRunner().invoke(loop_cli.loop, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    folder = tmp_path / "loop"
    assert "0 of 15 candidates have 1 vote" in call(file, "--into", folder, code=loop_cli.WAITING)
    run = Store(folder / "rounds" / "01")
    rows = list(oracle.review_run(run))
    oracle.write_votes(rows, run.sub("votes"))
    assert "0 of 15 candidates" in call(file, "--into", folder, code=loop_cli.WAITING)
    assert "next: round 1, votes" in call("status", folder)
    people = [{**vote, "reviewer": "Ann", "nonce": f"ann {k}"} for k, vote in enumerate(rows)]
    (folder / "rounds" / "01" / "votes" / "ann.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in people))
    assert "finished" in call(file, "--into", folder)
    result = Loop.open(str(folder)).read_result(VotesResult, 1)
    assert (result.voted, result.reviewers) == (15, "people")
    assert "Votes by people" in call("status", folder, "--chart", tmp_path / "chart.svg")
    assert len(json.loads(call("status", folder, "--json"))) == 2
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")


def test_progress_is_reported(scenes, tmp_path):
    """Trainings, candidates, scores and measures report how much of the step is done, up to all of it."""
    reports = {}
    recipe = LoopRecipe.model_validate(build_recipe(scenes))
    run_loop(
        recipe,
        str(tmp_path / "loop"),
        lambda line: None,
        lambda done, total, note: reports[list(reports)[-1]].append((done, total)),
        lambda step: reports.setdefault(step, []),
    )
    assert list(reports) == [str(step) for step in list_steps(recipe)]
    for name in ("round 0: train", "round 1: inpaint", "round 1: discriminator", "round 2: score", "round 2: test"):
        done, total = reports[name][-1]
        assert done == total > 0


def test_controls_keep_what_they_say_with_the_same_steps(scenes, tmp_path):
    """Of four arms, `nothing` adds nothing, `humans` nothing in the automatic round, `everything` one candidate of
    each scene; all train for the same number of steps."""
    added, trained = {}, {}
    for arm in ("nothing", "humans", "everything"):
        loop = run_silently(build_recipe(scenes, keep=arm), tmp_path / arm)
        added[arm] = [row.selected for row in table.build_rows(loop)][1:]
        trained[arm] = [loop.read_result(TrainingResult, number).steps for number in (1, 2)]
    assert added["nothing"] == [0, 0]
    assert added["humans"][0] > 0
    assert added["humans"][1] == 0
    assert added["everything"] == [8, 3]
    assert len({str(steps) for steps in trained.values()}) == 1


def test_no_scene_is_seen_twice_and_labels_have_a_cap(scenes, tmp_path):
    """Scenes of the test set are in no other part; a round draws none that an earlier one had, at most the cap of a
    label, and none that is excluded."""
    loop = run_silently(build_recipe(scenes, keep="nothing", exclude=["dog"], cap=2), tmp_path / "loop")
    parts = [loop.read_rows(name) for name in ("test", "initial", "rounds/01/scenes", "rounds/02/scenes")]
    part_scenes = [{ref.scene for ref in part} for part in parts]
    assert sum(map(len, part_scenes)) == len(set.union(*part_scenes))
    labels = [ref.label for ref in parts[2]]
    assert labels
    assert "dog" not in labels
    assert max(labels.count(label) for label in labels) <= 2


def test_other_recipes_and_mistakes_are_reported(scenes, tmp_path):
    """A folder of another recipe, an automatic round without any vote, an unknown remover, a loop that is not there."""
    first = LoopRecipe.model_validate(build_recipe(scenes, keep="nothing", rounds=[{"kind": "auto", "count": 1}]))
    run_silently(first, tmp_path / "loop")
    with pytest.raises(OtherLoop, match="differs in seed"):
        run_silently(first.model_copy(update={"seed": 4}), tmp_path / "loop")
    with pytest.raises(NoLoop, match=r"no loop\.json"):
        Loop.open(str(tmp_path))
    for changes, message in (
        ({"rounds": [{"kind": "auto", "count": 4}]}, "begin with a human round"),
        ({"removers": ["lama"]}, "'lama' needs weights: add `models: lama:` with `base`"),
        ({"remover": {"preset": "sdxl"}}, "remover: the preset sdxl"),
        ({"remover": {**REMOVER, "distill": {}}}, "distill: only a remover of many steps"),
        ({"remover": {"base": "b", "distill": {}, "settings": {"objective": "x0"}}}, "distill: only a remover of many"),
        ({"remover": {"base": "b", "distill": {}, "prompts": "p"}}, "under `distill.teacher_prompts`"),
        ({"remover": {**REMOVER, "workers": -1}}, "remover.workers"),
        ({"roundz": []}, "roundz"),
    ):
        file = tmp_path / "wrong.yaml"
        file.write_text(yaml.safe_dump(build_recipe(scenes, **changes)))
        with pytest.raises(RecipeError, match=message):
            load(file)
    gone = LoopRecipe.model_validate(build_recipe(scenes, removers=["nowhere:Gone"], keep="humans"))
    with pytest.raises(RecipeError, match="cannot be imported"):
        run_silently(gone, tmp_path / "gone")


def test_the_first_discriminator_may_go_on_from_one_that_was_trained_elsewhere(scenes, tmp_path):
    """With `discriminator.start` the first training begins at that discriminator's weights: without a step that moves
    them, the loop's discriminator is that one."""
    loop = run_silently(build_recipe(scenes), tmp_path / "one")
    start = tmp_path / "one" / loop.find_discriminator(1)
    settings = DISCRIMINATOR["settings"] | {"rate": 1e-12, "steps": 1, "held": 0.0}
    still = DISCRIMINATOR | {"start": str(start), "settings": settings}
    rounds = [{"kind": "human", "count": 8}]
    other = run_silently(build_recipe(scenes, discriminator=still, rounds=rounds, seed=4), tmp_path / "two")
    ours, theirs = (
        load_file(folder / "weights.safetensors") for folder in (tmp_path / "two" / other.find_discriminator(1), start)
    )
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_the_repositorys_loops_are_valid():
    """Both recipes are read whole, and the settings they give have names that there are."""
    for name in ("loop-demo", "rorem"):
        recipe = load(ROOT / "recipes" / f"{name}.yaml")
        assert recipe.name == name
        assert build_training_settings(recipe.remover, recipe.seed, tune=True).rate > 0
        last = "distill" if recipe.remover.distill else "test"
        assert list_steps(recipe)[-1] == Step(last, recipe.last)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_last_remover_is_distilled_and_its_folder_runs(scenes, tmp_path):
    """With `remover.distill` the loop's last step leaves a LoRA on the last round's UNet that `rorem-lcm` runs in four
    steps to another picture than without; taken away again that is another recipe."""
    base = tiny_models.sdxl_folder(tmp_path / "base")
    quick = {"size": 64, "batch": 2, "warm_up": 1, "rate": 1e-3}
    remover = {
        "preset": "sdxl",
        "base": str(base),
        "steps": 1,
        "settings": quick,
        "distill": {"steps": 2, "settings": {"batch": 2, "rank": 4, "warm_up": 1, "rate": 0.01}},
    }
    test = [{"run": scenes, "flow": "rest", "split": "test", "limit": 1}]
    rounds = [{"kind": "auto", "count": 1}]
    recipe = LoopRecipe.model_validate(
        build_recipe(scenes, remover=remover, keep="nothing", rounds=rounds, removers=[], test=test)
    )
    loop = run_silently(recipe, tmp_path / "loop")
    assert list_steps(recipe)[-1] == Step("distill", 1)
    result = loop.read_result(DistillationResult, 1)
    assert (result.remover, result.steps) == ("removers/lcm", 2)
    record = json.loads((tmp_path / "loop" / DISTILLED / "training.json").read_text())
    assert record["unet"] == str((tmp_path / "loop" / remover_path(1)) / "unet")
    assert record["settings"]["size"] == 64
    files = Files(
        base,
        unet=(tmp_path / "loop" / remover_path(1)) / "unet",
        lora=tmp_path / "loop" / DISTILLED / "lora.safetensors",
    )
    options = replace(rorem.LCM_OPTIONS, size=64, device="cpu")
    scene, fills = row(0, "captured", 48), []
    for lora in (files.lora, None):
        make = rorem.rorem_lcm if lora else rorem.rorem
        remover = make("lcm", replace(files, lora=lora), replace(options, scheduler="LCMScheduler"))
        remover.setup()
        fills.append(remove(remover, [scene["source"]], [scene["mask"]], [1], dilation=2)[0])
    assert (fills[0] != fills[1]).any()
    without = recipe.model_copy(update={"remover": recipe.remover.model_copy(update={"distill": None})})
    with pytest.raises(OtherLoop, match="differs in remover"):
        run_silently(without, tmp_path / "loop")


@pytest.mark.parametrize("folder", [DATA / "pictures" / "photos", ASSETS / "photos"], ids=["few", "many"])
def test_scenes_for_a_loop_follow_from_their_seed(folder, tmp_path):
    """Made twice they are the same to the byte; the hole differs from the truth, the rest does not; no photograph of
    the test flow is in another."""
    photos = loop_scenes.load_photographs(folder)
    if not photos:
        pytest.skip(f"no photographs at {folder} (set RASURA_ASSETS)")
    shared = loop_scenes.divide_photographs(photos)
    names = [name for some in shared.values() for name, _ in some]
    assert len(names) == len(set(names)) == len(photos)
    assert set(shared) == {"initial", "judge", "pool", "test"}
    once, again = (loop_scenes.make_rows(photos[:4], 6, 2, "pool") for _ in range(2))
    for scene, other in zip(once, again, strict=True):
        assert (scene["source"] == other["source"]).all()
        assert (scene["source"] == scene["target"])[~scene["mask"]].all()
        assert (scene["source"] != scene["target"])[scene["mask"]].any()
    for name in ("one", "two"):
        loop_scenes.write_run(Store(tmp_path / name), {"pool": once})
    assert read_contents(tmp_path / "one") == read_contents(tmp_path / "two")


def test_the_discriminator_may_learn_before_any_vote_from_initial_triplets(scenes, tmp_path):
    """With `pretrain_scenes` the oracle's verdicts on candidates of initial triplets make a first discriminator, in a
    round of its own without people's votes. Votes of one class give no discriminator, and the result says so."""
    discriminator = {**DISCRIMINATOR, "pretrain_scenes": 6, "pretrain": DISCRIMINATOR["settings"]}
    rounds = [{"kind": "auto", "count": 3}]
    loop = run_silently(build_recipe(scenes, discriminator=discriminator, rounds=rounds), tmp_path / "loop")
    pretrained = loop.read_result(DiscriminatorResult, 0)
    assert pretrained.folder == "judges/00" or pretrained.why
    assert loop.read_result(ScoreResult, 1) is not None
    assert not (tmp_path / "loop" / "rounds" / "00" / "votes").exists()


def test_a_shifted_fill_finds_what_repeats():
    """A picture that repeats itself is restored in its hole; where no part of the picture could fill the hole, the rim
    is continued instead, and nothing outside the hole is asked for."""
    tile = np.random.default_rng(3).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    picture = np.tile(tile, (8, 8, 1))
    hole = np.zeros((64, 64), bool)
    hole[20:33, 24:39] = True
    spoiled = np.where(hole[..., None], np.uint8(9), picture)
    result = loop_removers.Shifted().fill([spoiled], [hole], [1])[0]
    assert np.abs(result[hole].astype(int) - picture[hole]).mean() < 3
    large = np.zeros((64, 64), bool)
    large[4:60, 4:60] = True
    filled = loop_removers.Shifted().fill([spoiled], [large], [1])[0]
    assert (filled == loop_removers.fill_telea(spoiled, large)).all()


def test_damaged_tables_of_a_round_are_made_again(scenes, tmp_path):
    """`verify` names a flipped byte in a round's candidates; mended, the loop begins that step again and no training,
    and has the bytes of an undisturbed one."""
    recipe = LoopRecipe.model_validate(build_recipe(scenes, keep="everything", rounds=[{"kind": "auto", "count": 6}]))
    run_silently(recipe, tmp_path / "loop")
    before, steps = read_contents(tmp_path / "loop"), len(list_begun(tmp_path / "loop"))
    shard = next((tmp_path / "loop/rounds/01/tables/candidates/shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert any(shard.name in fault for fault in verify(Store(tmp_path / "loop/rounds/01")).faults)
    assert list(mend_loop(Loop.open(tmp_path / "loop"))) == ["round 1: candidates: 1 shard dropped"]
    run_silently(recipe, tmp_path / "loop")
    assert list_begun(tmp_path / "loop")[steps:] == ["01-inpaint.json", "01-test.json"]
    assert read_contents(tmp_path / "loop") == before
