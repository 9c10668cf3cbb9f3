"""Every example in a docstring runs, and gives what it says."""

import doctest
import importlib
import pkgutil
import shutil
from pathlib import Path

import pytest
from conftest import DATA

import rasura

OLD = DATA / "written_by_0_1_0"


def list_modules() -> list[str]:
    """All modules of the package that have an example, without importing them."""
    modules = ["rasura"]
    for info in pkgutil.walk_packages(rasura.__path__, "rasura.", onerror=lambda name: None):
        spec = importlib.util.find_spec(info.name)
        if spec and spec.origin and ">>> " in Path(spec.origin).read_text(encoding="utf-8"):
            modules.append(info.name)
    return modules


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the examples expect it: a recipe `mine.yaml`, its pairs, and its finished run."""
    shutil.copy(OLD / "pairs.yaml", tmp_path / "mine.yaml")
    shutil.copytree(OLD / "my-pairs", tmp_path / "my-pairs")
    shutil.copytree(OLD / "pairs_run", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNS_RECIPES = "rasura._runs"  # its examples start Ray
NETWORKS = ("rasura.networks.inpainting.", "rasura.removers.training.")  # architectures, which import torch


def find_marks(module: str) -> list[pytest.MarkDecorator]:
    """Return the markers that a module's examples need."""
    if module.startswith(NETWORKS):
        return [pytest.mark.torch]
    return [pytest.mark.ray] if module == RUNS_RECIPES else []


@pytest.mark.parametrize("module", [pytest.param(name, marks=find_marks(name)) for name in list_modules()])
def test_examples_give_what_they_say(module: str, working_folder: Path) -> None:
    """The examples of a module pass as doctests."""
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    result = doctest.testmod(loaded, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


def test_public_functions_have_examples() -> None:
    """At least forty docstrings have an example; every function and class of `import rasura` that does something has
    one."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    count = 0
    for module in list_modules():
        if module.startswith(NETWORKS):
            continue
        try:
            count += sum(bool(test.examples) for test in finder.find(importlib.import_module(module)))
        except ModuleNotFoundError:
            continue
    assert count >= 40
    for name in ("run", "open_run", "check", "effects", "remove", "Run", "Rows", "Row", "Stage"):
        assert ">>> " in (getattr(rasura, name).__doc__ or ""), name
