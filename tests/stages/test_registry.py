"""Stages and removers by name: their descriptions explain what a recipe may set, unknown names are reported."""

import pytest

from rasura.manifests.errors import RasuraError, RecipeError, UnknownNameError
from rasura.removers.registry import ModelParams, UnknownRemover, check_removers, open_remover
from rasura.stages.registry import SOURCES, STAGES, UnknownStage, describe, find_source, find_stage
from rasura.stages.stage import MissingColumns, Params, Stage


def test_select_is_described_with_its_rules_and_an_example() -> None:
    """The keys of a rule, their types, and a recipe's lines that use them."""
    text = describe("select")
    assert text.startswith("select: Keeps the rows whose")
    assert "\n  keep (mapping of text to Rule, not empty, required): " in text
    assert "\n    Rule: Condition on the value of one column" in text
    for key in (
        "min (number,",
        "max (number,",
        "any_of (list of text,",
        "none_of (list of text,",
        "missing (true or fa",
    ):
        assert f"\n      {key}" in text
    assert "detect_score: {min: 0.5}" in text


def test_every_stage_and_source_is_described() -> None:
    """A line for each parameter with its type and default; bounds, nested models and choices are shown."""
    for name in (*STAGES, *SOURCES):
        lines = describe(name).splitlines()
        for key, field in find_stage(name).Params.model_fields.items():
            (line,) = (line for line in lines if line.startswith(f"  {key} ("))
            assert ("required" if field.is_required() else "default") in line
    assert "dilation (whole number, ≥ 0, ≤ 256, default 8)" in describe("inpaint")
    assert "dtype (auto | float32 | bfloat16 | float16, default auto)" in describe("score")
    assert "discriminator (text, required, formerly judge)" in describe("keep")
    assert "\n      base (text, default null): " in describe("inpaint")


def test_unknown_names_are_errors_of_the_tree() -> None:
    """With the nearest name; a class that is no stage and a module that is missing are reported too."""
    with pytest.raises(UnknownNameError, match="unknown stage 'effcts'; did you mean 'effects'"):
        find_stage("effcts")
    with pytest.raises(UnknownStage, match="unknown source 'matte'"):
        find_source("matte")
    with pytest.raises(UnknownStage, match="is no stage"):
        find_stage("pathlib:Path")
    with pytest.raises(UnknownStage, match="cannot be loaded"):
        find_stage("no_such_module:Thing")
    assert issubclass(MissingColumns, RecipeError)
    assert issubclass(UnknownRemover, RasuraError)


def test_removers_are_opened_by_name_or_class() -> None:
    """Those without weights, a class of one's own; a name of neither is reported with the nearest."""
    assert open_remover("telea", {}).name == "telea"
    assert open_remover("rasura.removers.opencv:ns", {}).name == "ns"
    with pytest.raises(UnknownRemover, match="no remover called 'tele'; did you mean 'telea'"):
        open_remover("tele", {})
    with pytest.raises(RecipeError, match="'no_such_module:Thing' cannot be imported"):
        open_remover("no_such_module:Thing", {})
    with pytest.raises(UnknownRemover, match="needs a `kind`"):
        open_remover("mine", {"mine": ModelParams(base="x")})
    check_removers(["telea", "my.module:Mine"], {})


def test_progress_is_reported_where_somebody_listens() -> None:
    """Outside of the engine a report does nothing; the worker's callback gets its values."""
    stage = Stage(Params())
    stage.report_progress(1, 4)
    reports: list[tuple[float, float, str]] = []
    stage.on_progress = lambda *report: reports.append(report)
    stage.report_progress(2, 4, "loss 0.3")
    assert reports == [(2, 4, "loss 0.3")]
