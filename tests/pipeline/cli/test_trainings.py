"""The folder of a training, and its first line."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rasura.manifests.run_layout import PLAN
from rasura.pipeline.cli.trainings import ForeignTarget, check_out, describe_training


def test_a_training_is_not_mixed_with_something_else(tmp_path: Path) -> None:
    """A run's folder, a file and a folder of other files are refused; a new, an empty and a training's own are not."""
    for name in ("run", "other", "empty", "begun"):
        (tmp_path / name).mkdir()
    for name in (f"run/{PLAN}", "other/notes.txt", "begun/codec.safetensors", "file"):
        (tmp_path / name).touch()
    for name, message in (("run", "run or a loop"), ("run/x", "run or a loop"), ("other", "notes"), ("file", "a file")):
        with pytest.raises(ForeignTarget, match=message):
            check_out(tmp_path / name)
    for name in ("empty", "begun", "new"):
        check_out(tmp_path / name)


def test_a_batch_that_repeats_its_rows_is_warned_of() -> None:
    """The first line names steps and rows before the first step."""
    assert describe_training(SimpleNamespace(steps=5, batch=2), 3, "triplet").count("\n") == 0
    assert "--set batch=3 is enough" in describe_training(SimpleNamespace(steps=5, batch=9), 3, "triplet")
