"""Mistakes in a recipe and in `--set` that are told before anything starts: values, names, places, all at once."""

from pathlib import Path

import pytest

from rasura.manifests.errors import InputError, RecipeError
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.load import parse
from rasura.pipeline.recipe.missing import check_run_folder
from rasura.pipeline.recipe.plan import load_plan, plan
from rasura.pipeline.recipe.starters import write_starter
from rasura.stages.sources.pairs import Pairs, PairsParams

RECIPE = """\
name: small
flows:
  pairs:
    source: {pairs: {path: mine}}
    stages: [pair, effects]
  chosen: {source: {flow: {of: pairs}}, stages: [select: {keep: {pair_noise: {min: 1}}}]}
"""


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that has a pair of empty files."""
    monkeypatch.chdir(tmp_path)
    for part in ("input", "gt"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        (tmp_path / "mine" / part / "a.png").touch()


def fault(text: str, *overrides: str) -> str:
    """The faults of a recipe."""
    with pytest.raises(RecipeError) as caught:
        plan(*parse(text, "r.yaml", overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flows.pair.stages.effects.sigmas=5", "no flow 'pair'; did you mean 'pairs'?"),
        ("flows.pairs.source.pair.path=x", "is no source 'pair'; did you mean 'pairs'?"),
        ("flows.pairs.stages.1.efects.sigmas=5", "is no stage 'efects'; did you mean 'effects'?"),
        ("flows.pairs.stages.1.sigmas=5", "is no stage 'sigmas'; available: effects"),
        ("flows.pairs.stages.7.sigmas=5", "no entry '7'; flows.pairs.stages has 2 entries, numbered 0 to 1"),
        ("flows.pairs.stages.1.effects.sigmas=-5", "expected more than 0 (it is -5)"),
        ("seed=1:30", "'1:30' is a number to the base 60 in YAML"),
        ("engine.workers=100000000", "expected 4096 or less"),
        ("splits={test: -0.1, train: 1.1}", "split 'test': a share cannot be negative (it is -0.1)"),
        ("flows.pairs.source.pairs.endings={input: _a, gt: _a}", "'_a' is there twice"),
        ("flows.pairs.stages=[effects, pair]", "'pair' gives pair_noise: put it before 'effects'"),
        ("flows.chosen.stages.0.select.keep={}", "it is empty"),
        ("flows.chosen.stages.select.keep={origin: {any_of: []}}", "it is empty"),
        ("flows.chosen.stages.select.keep={origin: {any_of: [a], none_of: [a]}}", "'a' is in any_of and in none_of"),
        ('flows.chosen.stages.select.keep={pair_noise: {max: "0.4"}}', "expected a number, without quotes"),
        ("flows.chosen.stages.select.keep={input: {min: 1}}", "'input' is a picture, which no rule can compare"),
    ],
)
def test_a_mistake_is_one_sentence_at_its_option(override: str, message: str) -> None:
    """The option is named, with what is wrong and the nearest right word."""
    text = fault(RECIPE, override)
    assert message in text
    assert override in text
    assert len(text.splitlines()) == 1


def test_the_path_of_an_error_is_accepted_by_set() -> None:
    """`flows.pairs.stages.1.effects.sigmas` is set although the recipe gives that stage no parameters."""
    recipe, _ = parse(RECIPE, "r.yaml", ["flows.pairs.stages.1.effects.sigmas=5"])
    assert recipe.flows["pairs"].stages[1].params == {"sigmas": 5}


def test_faults_of_settings_and_of_stages_are_reported_together(tmp_path: Path) -> None:
    """A wrong seed and a wrong key of the dataset do not hide a misspelt stage."""
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.replace("effects", "efects") + "seed: -1\ndataset: {flow: [x]}\n")
    with pytest.raises(RecipeError) as caught:
        load_plan(file)
    lines = str(caught.value).splitlines()
    assert [any(word in line for line in lines) for word in ("seed", "dataset.flow", "unknown stage 'efects'")] == [
        True
    ] * 3


@pytest.mark.parametrize("into", ["mine", "mine/input"])
def test_a_run_is_not_written_among_its_inputs(into: str) -> None:
    """The folder of the pictures is refused; another one is not."""
    source = Pairs(PairsParams(path="mine"))
    with pytest.raises(InputError, match="name another folder with --into"):
        check_run_folder(Store(into), [source])
    check_run_folder(Store("runs/small"), [source])


def test_a_starter_does_not_replace_a_folder(tmp_path: Path) -> None:
    """Also with `force`."""
    (tmp_path / "dd.yaml").mkdir()
    with pytest.raises(RecipeError, match="is a folder"):
        write_starter(tmp_path, "dd", "pairs", force=True)
