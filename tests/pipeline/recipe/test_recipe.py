"""Recipes: a mistake is reported in one line with its place and the nearest right word, before anything starts."""

import shutil
from pathlib import Path

import pytest
import yaml
from conftest import DATA, ROOT

from rasura.manifests import extras
from rasura.manifests.errors import RecipeError
from rasura.manifests.storage import Store
from rasura.pipeline.loop.check import check_inputs
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.recipe.former_names import dump_former_names
from rasura.pipeline.recipe.load import load, parse
from rasura.pipeline.recipe.plan import plan
from rasura.pipeline.recipe.shards import list_shards

GOOD = """\
name: cars
vars: {pics: photos}
flows:
  photos:
    source: {photos: {path: "${pics}/a"}}
    stages:
      - detect: {weights: WEIGHTS}
      - segment: {backend: grabcut}
  chosen:
    source: {flow: {of: photos}}
    stages:
      - select: {keep: {detect_score: {min: 0.3}}}
"""


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "one.png").write_bytes(b"one")
    weights = tmp_path / "net.onnx"
    weights.write_bytes(b"net")
    return GOOD.replace("WEIGHTS", str(weights))


def fault(text: str, *overrides: str) -> str:
    """The faults of a recipe, as text."""
    with pytest.raises(RecipeError) as caught:
        plan(*parse(text, "r.yaml", overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: cars", "nam: cars", "r.yaml:1:1: nam: unknown key 'nam'; did you mean 'name'?"),
        (
            "stages:\n      - detect",
            "stage:\n      - detect",
            "r.yaml:6:5: flows.photos.stage: unknown key 'stage'; did",
        ),
        (
            "- segment:",
            "- segmnt:",
            "r.yaml:8:9: flows.photos.stages.1: unknown stage 'segmnt'; did you mean 'segment'?",
        ),
        (
            "backend:",
            "bakend:",
            "r.yaml:8:19: flows.photos.stages.1.segment.bakend: unknown key 'bakend'; did you mean",
        ),
        ("{photos: {path", "{photo: {path", "r.yaml:5:5: flows.photos.source: unknown source 'photo'; did you mean"),
        ("of: photos", "of: photo", "no flow 'photo'; did you mean 'photos'?"),
        ("detect_score:", "detect_scor:", "'detect_scor' (did you mean 'detect_score'?)"),
        (
            "min: 0.3",
            "min: high",
            "r.yaml:12:40: flows.chosen.stages.0.select.keep.detect_score.min: expected a number (it is 'high')",
        ),
        (
            "min: 0.3",
            "mn: 0.3",
            "r.yaml:12:40: flows.chosen.stages.0.select.keep.detect_score.mn: unknown key 'mn'; did you mean 'min'?",
        ),
        ("${pics}", "${pix}", "r.yaml:5:23: flows.photos.source.photos.path: unknown variable 'pix'; did you mean"),
        ("name: cars", "name: cars\nname: dogs", "r.yaml:2:1: not valid YAML: key 'name' is there twice"),
        ("flows:", "flows: [", "r.yaml:5:11: not valid YAML: expected"),
        ("{of: photos}", "{of: chosen}", "flows run in a circle: chosen -> chosen"),
        ("name: cars", "name: cars\nsplits: {train: .5}", "the shares must be positive and sum to 1, they sum to 0.5"),
        ("name: cars", "name: cars\ndataset: {flows: [chosn]}", "there is no flow 'chosn'; did you mean 'chosen'?"),
        (
            "name: cars",
            "name: cars\nengine: {shard_rows: 0}",
            "r.yaml:2:10: engine.shard_rows: expected 1 or more (it is 0)",
        ),
        ("  photos:\n", "  ../photos:\n", "flow '../photos': letters, digits, _ and - only"),
        ("name: cars", "name: cars\nsplits: {test-hard: 1}", "split 'test-hard': letters, digits and _ only"),
        ("name: cars", "name: cars\nflows: 5\nx: &x {a: 1}", "not valid YAML: key 'flows' is there twice"),
        ("- select", "- matte\n      - select", "stage 'matte' needs foreground_mask, gt, input, but the"),
    ],
)
def test_faults_have_their_place_and_the_nearest_word(good: str, old: str, new: str, message: str) -> None:
    """Each fault is one line: file, line, column, the path of keys, what is wrong, what may have been meant."""
    assert old in good
    text = fault(good.replace(old, new, 1))
    assert message in text
    assert len(text.splitlines()) == len(set(text.splitlines()))


def test_missing_weights_are_reported_before_the_run(good: str, tmp_path: Path) -> None:
    """A file that is not there is named with its place in the recipe."""
    (tmp_path / "net.onnx").unlink()
    assert f"there is no file '{tmp_path / 'net.onnx'}'" in fault(good)


def test_all_faults_are_reported_at_once(good: str) -> None:
    """Two mistakes in two flows are two lines, not two attempts."""
    assert len(fault(good.replace("segment", "segmnt").replace("of: photos", "oof: photos")).splitlines()) >= 2


def test_overrides(good: str) -> None:
    """`--set` reaches any value, stages by name or number; an unknown place is answered with the nearest word."""
    recipe, _ = parse(good, "r.yaml", ["flows.photos.stages.segment.backend=sam-onnx", "engine.shard_rows=3"])
    assert recipe.flows["photos"].stages[1].params["backend"] == "sam-onnx"
    assert recipe.engine.shard_rows == 3
    assert "did you mean 'segment'?" in fault(good, "flows.photos.stages.segmnt.backend=x")
    assert "expected KEY=VALUE" in fault(good, "engine.shard_rows")


def test_hash_tells_results_apart_not_ways_of_running(good: str, tmp_path: Path) -> None:
    """The hash of a flow changes with its parameters, its weights' bytes and its upstream flows; not with how the work
    is carried, and not when the weights are moved."""

    def parts(*overrides: str) -> dict[str, str]:
        resolved = plan(*parse(good, "r.yaml", overrides))
        return {name: flow.part for name, flow in resolved.flows.items()}

    base = parts()
    assert parts("engine.shard_rows=3", "flows.photos.stages.detect.batch_size=9") == base
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(b"net")
    assert parts(f"flows.photos.stages.detect.weights={moved}") == base
    order = [f"splits={{{names}}}" for names in ("a: 0.5, b: 0.5", "b: 0.5, a: 0.5")]
    assert parts(order[0])["photos"] != parts(order[1])["photos"]  # which hash goes where depends on it
    chosen = parts("flows.chosen.stages.select.keep.detect_score.min=0.5")
    assert chosen["photos"] == base["photos"]
    assert chosen["chosen"] != base["chosen"]
    (tmp_path / "net.onnx").write_bytes(b"another net")
    other = parts()
    assert other["photos"] != base["photos"]
    assert other["chosen"] != base["chosen"]


def test_no_recipe_names_those_that_are_there(tmp_path: Path) -> None:
    """A misspelt file name is answered with the nearest recipe beside it."""
    (tmp_path / "cars.yaml").write_text("name: cars")
    with pytest.raises(RecipeError, match=r"did you mean '.*cars\.yaml'"):
        load(tmp_path / "carz.yaml")


def test_recipes_of_the_repository_are_valid() -> None:
    """Every recipe of flows that comes with Rasura parses (its files may be elsewhere); `test_loop` reads the loops."""
    paths = sorted((ROOT / "recipes").glob("*.yaml"))
    flows = [path for path in paths if "rounds" not in yaml.safe_load(path.read_text())]
    assert len(flows) >= 4
    for path in flows:
        recipe, _ = load(path)
        assert recipe.flows


def check(text: str, *overrides: str, schema: type = LoopRecipe) -> str:
    """The faults of a loop's recipe."""
    with pytest.raises(RecipeError) as caught:
        parse(text, "l.yaml", overrides, schema)
    return str(caught.value)


LOOP = """\
name: small
vars: {run: runs/pairs}
initial: [{run: "${run}", flow: captured}]
pool: [{run: "${run}", flow: captured}]
test: [{run: "${run}", flow: captured, split: test}]
remover: {preset: tiny}
discriminator: {preset: tiny, precision_target: 0.8}
rounds: [{kind: human, count: 3}]
keep: precision_target
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("precision_target: 0.8", "precison_target: 1", "l.yaml:7:31: discriminator.precison_target: unknown key"),
        ("precision_target: 0.8", "precison_target: 1", "did you mean 'precision_target'?"),
        (
            "kind: human",
            "kind: hooman",
            "rounds.0.kind: expected human or auto (it is 'hooman'); did you mean 'human'?",
        ),
        ("kind: human", "kind: auto", "l.yaml:8:11: rounds.0.kind: the first round is automatic"),
        ("name: small", "name: small\nremovers: [telea, nz]", "l.yaml:2:19: removers.1: no remover called 'nz'; did"),
        ("remover: {", "remover: {base: x, base: y, ", "l.yaml:6:20: not valid YAML: key 'base' is there twice"),
        ("${run}", "${rum}", "l.yaml:3:12: initial.0.run: unknown variable 'rum'; did you mean 'run'?"),
        ("rounds: [", "rounds: &a [*a, ", "l.yaml:8:13: not valid YAML: the alias *a contains itself"),
        ("rounds:", "flows:", "l.yaml:8:1: a recipe with 'flows' is for `rasura run`, not `rasura loop`"),
    ],
)
def test_a_loops_faults_have_their_place_and_the_nearest_word(old: str, new: str, message: str) -> None:
    """Recipes of loops are read by the same reader: place, path of keys, nearest word, variables."""
    assert old in LOOP
    assert message in check(LOOP.replace(old, new, 1))


def test_faults_of_an_option_have_the_option_as_their_place(good: str) -> None:
    """What `--set` has set is named by the option, whether it is a key, a value or a stage's parameter."""
    assert fault(good, "engine.shard_row=3").startswith("--set engine.shard_row=3: unknown key 'shard_row'; did you")
    assert fault(good, "engine.shard_rows=0").startswith("--set engine.shard_rows=0: expected 1 or more (it is 0)")
    text = fault(good, "flows.photos.stages.segment.bakend=x")
    assert text.startswith("--set flows.photos.stages.segment.bakend=x: unknown key 'bakend'; did you mean 'backend'?")
    assert fault(good, "flows.photos.source.photos.path=gone").startswith(
        "--set flows.photos.source.photos.path=gone: there"
    )
    assert fault(good, "splits={test: 2.0}").startswith("--set splits={test: 2.0}: the shares must be positive")
    assert fault(good, "engin.shard_rows=3").startswith("--set engin.shard_rows=3: unknown key 'engin'; did you mean")
    assert check(LOOP, "rounds.0.count=0").startswith("--set rounds.0.count=0: expected 1 or more (it is 0)")


def test_a_missing_folder_has_its_place(good: str, tmp_path: Path) -> None:
    """A source's folder that is not there is reported before the start, in the line that names it."""
    shutil.rmtree(tmp_path / "photos" / "a")
    assert fault(good) == "r.yaml:5:23: flows.photos.source.photos.path: there is no file or folder 'photos/a'"


def test_inputs_of_a_loop_have_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, flows and weights that a loop's recipe names are checked together, each with its place."""
    monkeypatch.chdir(tmp_path)
    recipe, positions = parse(LOOP, "l.yaml", ["remover.prompts=gone.safetensors"], LoopRecipe)
    with pytest.raises(RecipeError) as caught:
        check_inputs(recipe, positions)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("l.yaml:3:12: initial.0.run: 'runs/pairs' is no run")
    assert lines[-1] == "--set remover.prompts=gone.safetensors: there is no file or folder 'gone.safetensors'"
    pairs = DATA / "written_by_0_1_0" / "pairs_run"
    recipe, positions = parse(LOOP.replace("runs/pairs", str(pairs)), "l.yaml", ["test.0.split=null"], LoopRecipe)
    check_inputs(recipe, positions)
    with monkeypatch.context() as without:
        without.setattr("rasura.pipeline.loop.check.can_import", lambda module: module != "diffusers")
        with pytest.raises(
            RecipeError, match=r"^l\.yaml:6:1: remover: 'diffusers' is not installed; .*rasura\[models\]"
        ):
            check_inputs(recipe, positions)
    recipe, positions = parse(LOOP.replace("runs/pairs", str(pairs)), "l.yaml", ["pool.0.flow=capturd"], LoopRecipe)
    with pytest.raises(RecipeError, match=r"--set pool\.0\.flow=capturd: .* has no flow 'capturd'; did you mean 'capt"):
        check_inputs(recipe, positions)


def test_a_dataset_of_no_triplets_is_reported_before_the_start(good: str) -> None:
    """A flow whose rows have no mask or target cannot be in the dataset; the place is its name there."""
    text = fault(good.replace("name: cars", "name: cars\ndataset: {flows: [chosen]}"))
    assert text.startswith(
        "r.yaml:2:19: dataset.flows.0: flow 'chosen' makes no triplets: its rows have no mask, target"
    )


def test_a_missing_extra_is_reported_before_the_start(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose module is not installed names the extra that installs it; tensors among the weights need torch."""
    monkeypatch.setattr("rasura.pipeline.recipe.missing.can_import", lambda module: False)
    text = good.replace("flows:", "flows:\n  scenes: {source: {studio: {count: 2}}}", 1)
    assert "r.yaml:4:12: flows.scenes.source: stage 'studio': 'mitsuba' is not installed" in fault(text)
    assert "pip install 'rasura[studio]'" in fault(text)
    Path("net.pth").write_bytes(b"net")
    assert "'torch' is not installed" in fault(good, "flows.photos.stages.detect.weights=net.pth")
    assert extras.find_extra("uvicorn.main") == "review"


@pytest.mark.parametrize("model", ["facebook/sam2", "facebook/sam2.1-hiera-large"])
def test_a_hub_id_without_its_commit_is_reported_with_its_place(good: str, model: str) -> None:
    """Also one with a dot in its name, which is not taken for a file."""
    text = good.replace("backend: grabcut", f"backend: sam2, weights: {model}")
    message = fault(text)
    assert message.startswith("r.yaml:8:34: flows.photos.stages.1.segment.weights: ")
    assert f"'{model}'" in message
    assert "give its commit too" in message


FORMER = """\
name: former
seed: 3
flows:
  photos:
    source: {photos: {path: pics}}
    stages: [{ground: {things: net.onnx}}]
    shard_rows: 1
  objects:
    source: {pairs: {path: more/x.parquet}}
    stages: [pair, effects, {segment: {backend: grabcut}}, shadow, matte, capture, split]
  drawn:
    source: {draws: {foregrounds: objects, backgrounds: photos, count: 2}}
    stages: [{composite: {leave_out: false, turn_shadows: 20.0, eye: 1.4, places: false}}]
"""
PRESENT = {
    "things": "object_detector",
    "leave_out": "skip_unplaceable",
    "turn_shadows": "max_shadow_rotation",
    "eye": "camera_height",
    "places": "check_scene_type",
}


def test_former_names_make_the_same_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Old and new names of parameters give the same hashes and shard ids; an old name is warned of once, with its
    place."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("pics/a.png", "one"), ("pics/b.png", "two"), ("net.onnx", "net"), ("more/x.parquet", "")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    present = FORMER
    for former, name in PRESENT.items():
        present = present.replace(f"{former}: ", f"{name}: ")
    identities = []
    for text, warnings in ((FORMER, 5), (present, 0)):
        caplog.clear()
        resolved = plan(*parse(text, "r.yaml"))
        shards = list_shards(resolved.flows["photos"], resolved.sources["photos"], Store(tmp_path / "run"))
        parts = {name: flow.part for name, flow in resolved.flows.items()}
        identities.append((resolved.hash, parts, [shard.id for shard in shards]))
        assert len(caplog.messages) == warnings
        if warnings:
            assert "r.yaml:6:24: 'things' is called 'object_detector' now" in caplog.messages
        assert "object_detector" in resolved.to_recipe()["flows"]["photos"]["stages"][0]["ground"]
    assert identities[0] == identities[1]
    assert len(set(identities[0][2])) == 2
    caplog.clear()
    resolved = plan(*parse(present, "r.yaml", ["flows.drawn.stages.composite.eye=1.5"]))
    assert caplog.messages == ["--set flows.drawn.stages.composite.eye=1.5: 'eye' is called 'camera_height' now"]
    assert resolved.flows["drawn"].stages[1].params["camera_height"] == 1.5
    both = present.replace("camera_height: 1.4", "camera_height: 1.4, eye: 1.3")
    assert "'eye' is the former name of 'camera_height', and both are set; remove 'eye'" in fault(both)


def test_former_names_in_a_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A loop's recipe under its old names is the same loop, from the file and from `--set`; each old name is warned of
    once. Hashes and `loop.json` have the old names."""
    present, _ = parse(LOOP, "l.yaml", (), LoopRecipe)
    old = LOOP.replace("discriminator:", "judge:").replace("precision_target: ", "promise: ")
    former, _ = parse(old.replace("keep: precision_target", "keep: promise"), "l.yaml", (), LoopRecipe)
    assert former.identify() == present.identify()
    assert sorted(caplog.messages) == [
        "l.yaml:7:1: 'judge' is called 'discriminator' now",
        "l.yaml:7:23: 'promise' is called 'precision_target' now",
        "l.yaml:9:1: 'promise' is called 'precision_target' now",
    ]
    changed, _ = parse(LOOP, "l.yaml", ["judge.promise=0.7"], LoopRecipe)
    assert changed.discriminator.precision_target == 0.7
    assert changed.discriminator.preset == "tiny"
    dump = present.dump_former()
    assert (dump["judge"]["promise"], dump["keep"]) == (0.8, "promise")
    assert "vars" not in dump
    assert LoopRecipe.model_validate(dump).identify() == present.identify()
    assert dump_former_names(present)["judge"] == dump["judge"]
