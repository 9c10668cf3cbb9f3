"""The markers `ray` and `torch` are complete: `make test-fast` leaves out by them what is slow to start."""

import importlib.util

import pytest
from support.markers import UNMARKED_RAY, UNMARKED_TORCH

from rasura.manifests.errors import RunError
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.recipe.schema import EngineSettings


def test_ray_does_not_start_without_its_marker() -> None:
    with pytest.raises(RunError, match=UNMARKED_RAY), cluster(EngineSettings()):
        pass


def test_torch_is_not_imported_without_its_marker() -> None:
    """That it is installed can be found out all the same."""
    assert importlib.util.find_spec("torch")
    with pytest.raises(AssertionError, match=UNMARKED_TORCH):
        importlib.import_module("torch")


@pytest.mark.torch
def test_torch_is_imported_with_its_marker() -> None:
    assert importlib.import_module("torch").ones(1).item() == 1
