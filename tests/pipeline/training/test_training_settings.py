"""Settings of trainings: values that a training cannot have are refused before it, with the name and the value."""

import time
from pathlib import Path
from typing import Any

import pytest

from rasura.manifests.errors import RecipeError
from rasura.pipeline.training.settings import (
    RemoverSettings,
    build_discriminator_settings,
    build_distillation_settings,
    build_training_settings,
)
from rasura.pipeline.training.workers import ProgressFile

WRONG: dict[str, list[Any]] = {
    "steps": [0, 1.5, True, "many"],
    "batch": [0, -1],
    "rate": [0, -1e-3, float("nan"), float("inf")],
    "warm_up": [-1],
    "weight_decay": [-0.1],
    "clip": [0],
    "checkpoint_every": [0],
    "precision": ["float16", True],
    "seed": [-1, 2**31],
    "size": [0, 12, 100],
    "context": [-1],
    "rank": [0],
    "flip": ["maybe"],
    "stepz": [1],
}
"""Values that no training can have, by the name of the setting."""
OF_DISCRIMINATORS: dict[str, list[Any]] = {
    "negatives": [-0.1, 1.1, True],
    "ladders": [-0.1, 1.1, True],
    "held": [1.0],
    "patience": [0],
    "evaluate_every": [0],
    "looks": [0, 5],
    "head": ["rorem", "round"],
    "unet": [{}],
}
OF_REMOVERS: dict[str, list[Any]] = {"objective": ["x1"], "dilate": [-1], "mask_loss": [-1], "inside": [-1]}
OF_DISTILLATIONS: dict[str, list[Any]] = {"solver_steps": [0], "huber": [0], "weakest": [11.0], "objective": ["x0"]}


def list_cases(*values: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for part in values for name, entries in part.items() for value in entries]


@pytest.mark.parametrize(("name", "value"), list_cases(WRONG, OF_REMOVERS))
@pytest.mark.parametrize("tune", [False, True])
def test_a_remover_is_not_trained_with_a_wrong_setting(name: str, value: Any, tune: bool) -> None:
    """In the first training and in those after rounds; the line names the setting."""
    config = RemoverSettings(preset="tiny", **{"tune" if tune else "settings": {name: value}})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=name):
        build_training_settings(config, 0, tune)


@pytest.mark.parametrize(("name", "value"), list_cases(WRONG, OF_DISTILLATIONS))
def test_a_remover_is_not_distilled_with_a_wrong_setting(name: str, value: Any) -> None:
    config = RemoverSettings.model_validate({"base": "b", "distill": {"settings": {name: value}}})
    with pytest.raises(RecipeError, match=name):
        build_distillation_settings(config, 0)


@pytest.mark.parametrize(("name", "value"), list_cases(WRONG, OF_DISCRIMINATORS))
def test_a_discriminator_is_not_trained_with_a_wrong_setting(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match="size" if value == "rorem" else name):
        build_discriminator_settings("tiny", 0, {name: value})


def test_numbers_and_words_may_be_written_as_yaml_reads_them() -> None:
    """YAML reads 5e-5 as a text, and the word no as false; both are what they look like."""
    config = RemoverSettings(preset="tiny", settings={"rate": "5e-5", "precision": False, "batch": 4.0})
    settings = build_training_settings(config, 0, tune=False)
    assert (settings.rate, settings.precision, settings.batch) == (5e-5, "no", 4)
    assert build_discriminator_settings("tiny", 3, {"rate": "1e-3"})[1].rate == 1e-3


def test_progress_of_another_process_arrives(tmp_path: Path) -> None:
    """Reports through the file arrive while the training runs, and the last one at its end; without any there is
    none."""
    reports: list[tuple[int, int, str]] = []
    file = ProgressFile(tmp_path / ".ray" / "progress.json")
    with file.watch(lambda *report: reports.append(report)):
        assert reports == []
        file.write(1, 3, "loss 0.5")
        deadline = time.monotonic() + 60
        while not reports and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reports == [(1, 3, "loss 0.5")]
        file.write(3, 3, "loss 0.1")
    assert reports[-1] == (3, 3, "loss 0.1")
    assert len(reports) == 2
