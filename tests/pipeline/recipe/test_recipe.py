"""Recipes: what is wrong is told in one line with its place and the nearest right word, before anything starts."""

from pathlib import Path

import pytest
import yaml

from rasura.pipeline.recipe.load import RecipeError, load, parse
from rasura.pipeline.recipe.plan import plan

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
def good(tmp_path: Path) -> str:
    weights = tmp_path / "net.onnx"
    weights.write_bytes(b"net")
    return GOOD.replace("WEIGHTS", str(weights))


def fault(text: str, *overrides: str) -> str:
    """What is told of a recipe."""
    with pytest.raises(RecipeError) as caught:
        plan(*parse(text, "r.yaml", overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
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
            "r.yaml:12:40: flows.chosen.stages.0.select.keep.detect_score.min: Input should be a",
        ),
        ("${pics}", "${pix}", "r.yaml:5:23: flows.photos.source.photos.path: unknown variable 'pix'; did you mean"),
        ("name: cars", "name: cars\nname: dogs", "r.yaml:2:1: not valid YAML: key 'name' stands twice"),
        ("flows:", "flows: [", "r.yaml:5:11: not valid YAML: expected"),
        ("{of: photos}", "{of: chosen}", "flows run in a circle: chosen -> chosen"),
        ("name: cars", "name: cars\nsplits: {train: .5}", "the shares must be positive and sum to 1, they sum to 0.5"),
        ("name: cars", "name: cars\ndataset: {flows: [chosn]}", "there is no flow 'chosn'; did you mean 'chosen'?"),
        ("name: cars", "name: cars\nengine: {shard_rows: 0}", "greater than or equal to 1 (it is 0)"),
        ("  photos:\n", "  ../photos:\n", "flow '../photos': letters, digits, _ and - only"),
        ("name: cars", "name: cars\nsplits: {test-hard: 1}", "split 'test-hard': letters, digits and _ only"),
        ("name: cars", "name: cars\nflows: 5\nx: &x {a: 1}", "not valid YAML: key 'flows' stands twice"),
        ("- select", "- matte\n      - select", "stage 'matte' needs foreground_mask, gt, input, but the"),
    ],
)
def test_faults_have_their_place_and_the_nearest_word(good: str, old: str, new: str, told: str) -> None:
    """Each fault is one line: file, line, column, the path of keys, what is wrong, what may have been meant."""
    assert old in good
    text = fault(good.replace(old, new, 1))
    assert told in text
    assert len(text.splitlines()) == len(set(text.splitlines()))


def test_missing_weights_are_told_before_the_run(good: str, tmp_path: Path) -> None:
    """A file that is not there is named with its place in the recipe."""
    (tmp_path / "net.onnx").unlink()
    assert f"there is no file '{tmp_path / 'net.onnx'}'" in fault(good)


def test_all_faults_are_told_at_once(good: str) -> None:
    """Two mistakes in two flows are two lines, not two attempts."""
    assert len(fault(good.replace("segment", "segmnt").replace("of: photos", "oof: photos")).splitlines()) >= 2


def test_overrides(good: str) -> None:
    """`--set` reaches any value, stages by name or number; an unknown place is told with the nearest word."""
    recipe, _ = parse(good, "r.yaml", ["flows.photos.stages.segment.backend=sam-onnx", "engine.shard_rows=3"])
    assert recipe.flows["photos"].stages[1].params["backend"] == "sam-onnx"
    assert recipe.engine.shard_rows == 3
    assert "did you mean 'segment'?" in fault(good, "flows.photos.stages.segmnt.backend=x")
    assert "expected key=value" in fault(good, "engine.shard_rows")


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
    paths = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    flows = [path for path in paths if "rounds" not in yaml.safe_load(path.read_text())]
    assert len(flows) >= 4
    for path in flows:
        recipe, _ = load(path)
        assert recipe.flows
