"""The scripts of `examples/` run as they stand, on real pictures, and are short."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import DATA, ROOT, environment
from support import tiny_diffusion
from support.annotator.runs import make_run
from support.clip_files import write_clip

from rasura.removers.inserters import open_inserter
from rasura.removers.registry import ModelParams

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object) -> str:
    """Run an example in a process of its own; return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=1200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples_are_short() -> None:
    """Six scripts of at most forty lines, each with its usage in the first lines."""
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 6
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert text.count("\n") <= 40, script
        assert "usage: python examples/" in text, script


@pytest.mark.torch
@pytest.mark.parametrize("script", [script.name for script in sorted(EXAMPLES.glob("*.py"))])
def test_without_arguments_a_script_prints_its_usage(script: str) -> None:
    """It ends with exit status 1 and its usage, in place of a traceback."""
    command = [sys.executable, str(EXAMPLES / script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 1
    assert f"usage: python examples/{script} " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.ray
@pytest.mark.torch
def test_pairs_to_triplets_and_training(tmp_path: Path) -> None:
    """Real pairs become triplets, and a model trains on them straight from the run."""
    printed = run_example("pairs_to_triplets.py", DATA / "written_by_0_1_0" / "my-pairs", tmp_path)
    assert "captured select in" in printed
    assert (tmp_path / "run" / "report.html").is_file()
    assert list(tmp_path.glob("*.png"))
    pytest.importorskip("torch")
    assert "step 3 of 3: loss" in run_example("train_a_model.py", tmp_path / "run", 3)


@pytest.mark.torch
def test_train_an_inserter(tmp_path: Path) -> None:
    """All four trainings of CATDiffusion on the rows of a run; the line that the last one prints runs the result."""
    pytest.importorskip("accelerate")
    from support import tiny_catdiffusion as cat

    base = cat.write_base(tmp_path / "sd15", cat.SMALL_VISION)
    run = make_run(tmp_path / "run", candidates=0, truth=4)
    small = ("steps=1", "batch=1", "size=64", "save_memory=false")
    arguments = (run.store.uri, "captured", base, base / "image_encoder", tmp_path / "out", *small)
    printed = run_example("train_an_inserter.py", *arguments)
    assert printed.count("learned from 4 triplets in 1 steps") == 4
    model = ModelParams.model_validate(yaml.safe_load(printed.splitlines()[-1]) | {"size": 64, "steps": 2})
    inserter = open_inserter("mine", {"mine": model}, ["dog"])
    inserter.weights()
    inserter.setup()
    picture, hole = tiny_diffusion.make_grainy_scene()
    (painted,) = inserter.paint([picture], [hole], [1], ["dog"])
    assert (painted[hole] != picture[hole]).any()


@pytest.mark.ray
def test_clip_to_triplets(tmp_path: Path) -> None:
    """A clip is cut into moments and becomes triplets."""
    printed = run_example("clip_to_triplets.py", write_clip(tmp_path / "clip.mp4"), tmp_path / "out")
    assert "moments with an object" in printed
    assert not printed.startswith("0 ")


def test_photos_with_remover(tmp_path: Path) -> None:
    """Each photograph is written beside what the remover made of it, and something changed."""
    printed = run_example("photos_with_remover.py", DATA / "pictures" / "photos", tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == len(printed.splitlines()) > 2
    assert "changed 0.0%" not in printed


@pytest.mark.ray
def test_sharpness(tmp_path: Path) -> None:
    """A stage of one's own runs in workers, and `select` uses what it measured."""
    printed = run_example("sharpness.py", DATA / "pictures" / "photos", tmp_path / "run")
    assert "kept: " in printed
    assert "sharpness" in printed
