"""Loops of thirty tiny scenes: their run, their recipe, and short trainings."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.annotator.runs import CAPTURED, Run, row

from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.runner import run_loop
from rasura.pipeline.loop.state import Loop
from rasura.pipeline.recipe.schema import EngineSettings

REMOVER = {"preset": "tiny", "steps": 2, "tune_steps": 2, "settings": {"batch": 2, "checkpoint_every": 1}}
DISCRIMINATOR = {
    "preset": "tiny",
    "precision_target": 0.5,
    "confidence": 0.6,
    "thresholds": "overall",
    "settings": {"steps": 3, "batch": 4, "held": 0.0, "evaluate_every": 2, "checkpoint_every": 1},
}


def write_scenes(folder: Path, count: int = 30, initial: int = 9) -> Run:
    """Write a run with captured rows of so many scenes, a third of them for testing: flows `start` and `rest`."""
    run = Run(folder)
    rows = [row(n, "captured", 48, split="test" if n % 3 == 0 else "train") for n in range(count)]
    for record in rows:  # the object is removed together with its shadow: then some fills are good
        record["mask"] = record["foreground_mask"]
    run.flow("start", [record for record in rows[:initial] if record["split"] == "train"], CAPTURED)
    run.flow("rest", rows[initial:], CAPTURED)
    return run


def build_recipe(scenes: str, **changes: Any) -> dict[str, Any]:
    """Build the recipe of a human round and an automatic one on the run of `write_scenes`."""
    recipe = {
        "name": "small",
        "seed": 3,
        "initial": [{"run": scenes, "flow": "start"}],
        "pool": [{"run": scenes, "flow": "rest", "split": "train"}],
        "test": [{"run": scenes, "flow": "rest", "split": "test", "limit": 4}],
        "removers": ["telea", "benchmarks.loop_removers:Left"],
        "remover": REMOVER,
        "discriminator": DISCRIMINATOR,
        "rounds": [{"kind": "human", "count": 8}, {"kind": "auto", "count": 3}],
        "reviewers": "oracle",
        "dilation": 2,
        "shard_scenes": 3,
        "engine": {"workers": 1},
    }
    return recipe | changes


def run_silently(recipe: LoopRecipe | dict[str, Any], folder: Path | str) -> Loop:
    """Run a loop, or continue it, without printing anything."""
    return run_loop(LoopRecipe.model_validate(recipe), str(folder), lambda line: None)


def read_contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a loop that must not depend on what happened to it, or on its place."""
    skip = {".lock", "log.jsonl", "loop.json", "checkpoint.json", "optimizer.pt", "run_id"}  # the last is random
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in skip]
    files = [path for path in files if path.parent.name != "log"]
    files = [path for path in files if not path.name.startswith("events.out.")]  # TensorBoard's, with the time in them
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@contextlib.contextmanager
def share_ray(workers: int = 2) -> Iterator[None]:
    """Ray for all loops of a context: it starts once."""
    with cluster(EngineSettings(workers=workers)):
        yield
