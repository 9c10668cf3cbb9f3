"""The units of `python -m benchmarks loop_study`: each measures one thing, and goes on where it was interrupted.

  python -m benchmarks.loop_units FOLDER KIND SIZE SEED [--factor F]

  candidates 0 0      candidates of the pool's scenes by the removers that are not trained, and the truth's verdicts
  curve N SEED        a remover that was trained long on the initial triplets and N accepted candidates
  arm NAME SEED       a loop of `ARMS`; all of them ask for about as many votes
  judge N SEED        a discriminator that was trained on N votes, on scenes that it has not seen

The result of a unit is FOLDER/results/KIND-SIZE-SEED.json.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.loop_arms import RECIPE
from benchmarks.loop_start import REMOVERS
from benchmarks.loop_study import ARMS
from rasura.discriminator import evaluation
from rasura.discriminator import model as discriminators
from rasura.discriminator.calibration import pick_best_of_scenes
from rasura.manifests.ids import compute_seed
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import AddResult, TestResult
from rasura.pipeline.loop.runner import run_loop
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.training import discriminator as discriminator_training
from rasura.pipeline.training import oracle, votes
from rasura.pipeline.training import remover as remover_training
from rasura.pipeline.training.rows import RowReader, RowRef
from rasura.pipeline.training.settings import (
    FlowRows,
    RemoverSettings,
    build_discriminator_settings,
    build_training_settings,
)

FIRST_STEPS, TUNE_STEPS = 200, 1200
"""Steps of a training of the curve: with the mean square, then with the energy score."""
ARM_TUNE_STEPS = 400
HELD_SCENES = 400
"""Scenes of the pool on which discriminators are evaluated."""


class Study:
    """The folder of a study.

    Args:
        factor: by which steps, scenes and votes are multiplied: below 1 it is tried out, and shows nothing.
    """

    def __init__(self, folder: Path, factor: float) -> None:
        self.folder, self.factor = folder.absolute(), factor
        self.scenes = str(self.folder / "scenes-1")
        self.candidates = Store(self.folder / "candidates")

    def scale(self, count: int, least: int = 1) -> int:
        return max(least, round(count * self.factor))

    def list_rows(self, flow: str) -> list[RowRef]:
        limit = self.scale(2100 if flow == "pool" else 600, 12)
        return RowReader(self.candidates).list_rows([FlowRows(run=self.scenes, flow=flow, limit=limit)], 1)


def make_candidates(study: Study) -> dict[str, Any]:
    """Make candidates of the pool's scenes, and have them compared with the truth."""
    run = study.candidates
    run.write("scenes.json", json.dumps([asdict(ref) for ref in study.list_rows("pool")]).encode())
    with LoopEngine(EngineSettings(workers=1)) as engine:
        engine.make_flows(run, "study", 1, list_flows(REMOVERS[:-1], {}))
    rows = oracle.list_votes(run)
    return {"candidates": len(rows), "yes": sum(row["verdict"] == "yes" for row in rows)}


def list_flows(removers: Sequence[str], models: Mapping[str, Any]) -> dict[str, Any]:
    """List the flows that make candidates and compare them with the truth."""
    inpaint = {"removers": list(removers), "models": models, "dilation": 0, "context": 4}
    compared = {"source": {"compared": {"of": "candidates", "truth": "drawn"}}, "stages": [{"measure": {}}]}
    return {
        "drawn": {"source": {"drawn": {}}, "shard_rows": 50},
        "candidates": {"source": {"flow": {"of": "drawn"}}, "stages": [{"inpaint": inpaint}], "shard_rows": 50},
        "measured": {**compared, "references": True, "shard_rows": 50 * len(removers)},
    }


def list_accepted(study: Study) -> list[RowRef]:
    """List an accepted candidate of each scene that has one, as places in the run of candidates."""
    accepted: dict[str, list[RowRef]] = {}
    yes = {row["item"] for row in oracle.list_votes(study.candidates) if row["verdict"] == "yes"}
    for item, row in votes.index_candidates(study.candidates).items():
        if item in yes:
            table, shard, position = row.place
            ref = RowRef(study.candidates.location, table, shard, position, row.id, row.scene)
            accepted.setdefault(row.scene, []).append(ref)
    return [min(refs, key=lambda ref: compute_seed(1, "study", ref.id)) for _, refs in sorted(accepted.items())]


def measure_curve(study: Study, size: int, seed: int) -> dict[str, Any]:
    """Train a remover long on the initial triplets and so many accepted candidates, and test it."""
    out = study.folder / f"curve-{size}-{seed}"
    initial, accepted = study.list_rows("initial"), list_accepted(study)
    accepted.sort(key=lambda ref: compute_seed(seed, "study", ref.id))
    extra = accepted[: max(0, size - len(initial))]
    items = remover_training.list_items(study.candidates, [*initial, *extra])
    pictures = [RowReader(study.candidates).read_row(ref)["source"] for ref in initial]
    config = RemoverSettings(preset="tiny", steps=study.scale(FIRST_STEPS, 2), settings={"dilate": 0})
    tune = {"objective": "energy", "batch": 10, "decay": True, "checkpoint_every": 100}
    config = config.model_copy(update={"tune_steps": study.scale(TUNE_STEPS, 2), "tune": tune})
    out.mkdir(parents=True, exist_ok=True)
    codec = out / remover_training.CODEC
    first = build_training_settings(config, seed, tune=False)
    remover_training.fit_codec(pictures, codec, first.size)
    for name, settings, start in (
        ("first", first, None),
        ("tuned", build_training_settings(config, seed, True), "first"),
    ):
        before = out / start if start else None
        remover_training.train_remover(config, settings, items, codec, before, out / name)
    run = Store(out / "test")
    run.write("scenes.json", json.dumps([asdict(ref) for ref in study.list_rows("test")]).encode())
    with LoopEngine(EngineSettings(workers=1)) as engine:
        engine.make_flows(
            run, "test", 1, list_flows(["current"], {"current": {"kind": "tiny", "base": str(out / "tuned")}})
        )
    measured = Tables(run).table("measured").read_light(("id", "parents", "truth_verdict", "psnr")).to_pylist()
    verdicts = {row["parents"][0]: row["truth_verdict"] == "yes" for row in measured}
    yes = [verdicts.get(ref.id) for ref in study.list_rows("test")]
    return {"triplets": len(items), "yes": yes, "psnr": float(np.mean([row["psnr"] for row in measured]))}


def measure_arm(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Run a loop, or go on with it."""
    recipe = yaml.safe_load(RECIPE.read_text()) | {"name": f"{name}-{seed}", "seed": seed}
    limits = {"initial": None, "pool": study.scale(2100, 100), "test": study.scale(600, 12)}
    for part, limit in limits.items():
        recipe[part] = [{"run": study.scenes, "flow": part, "limit": limit}]
    recipe["rounds"] = [
        {**entry, "count": study.scale(int(entry["count"]), 12 if entry["kind"] == "human" else 6)}
        for entry in ARMS[name]
    ]
    recipe["remover"] |= {"steps": study.scale(FIRST_STEPS, 2), "tune_steps": study.scale(ARM_TUNE_STEPS, 2)}
    settings = recipe["discriminator"]["settings"]
    settings["steps"] = study.scale(settings["steps"], 2)
    recipe["discriminator"]["start"] = str(study.folder / "start" / "judge")
    recipe["engine"] = {"workers": 1}
    loop = run_loop(LoopRecipe.model_validate(recipe), str(study.folder / f"arm-{name}-{seed}"))
    numbers = range(1, len(loop.recipe.rounds) + 1)
    added = [result for number in numbers if (result := loop.read_result(AddResult, number))]
    test = loop.read_result(TestResult, len(loop.recipe.rounds))
    assert test is not None
    return {
        "votes": sum(loop.count_votes(number) or 0 for number in numbers),
        "triplets": sum(result.kept for result in added),
        "true_yes": sum(result.true_yes for result in added),
        "rounds": [[result.kind, result.kept, result.true_yes] for result in added],
        "yes": test.yes,
        "psnr": test.psnr,
    }


def measure_discriminator(study: Study, size: int, seed: int) -> dict[str, Any]:
    """Train the first discriminator further on so many votes, and evaluate it on other scenes."""
    rows = votes.load_examples(study.candidates, oracle.list_votes(study.candidates), ["candidates"])
    scenes = sorted({row.scene for row in rows}, key=lambda scene: compute_seed(1, "study", scene))
    held = set(scenes[: study.scale(HELD_SCENES, 6)])
    order = {scene: compute_seed(seed, "study", scene) for scene in scenes}
    learned = sorted((row for row in rows if row.scene not in held), key=lambda row: order[row.scene])
    learned = learned[: study.scale(size, 60)]
    parts = votes.divide_examples(learned, {"calibrate": 0.6, "learn": 0.4}, seed)
    changes = yaml.safe_load(RECIPE.read_text())["discriminator"]["settings"]
    _, settings = build_discriminator_settings("tiny", seed, changes)
    settings = replace(settings, steps=study.scale(settings.steps, 2))
    out = study.folder / f"judge-{size}-{seed}"
    start = discriminators.load(study.folder / "start" / "judge", None, train=True)
    discriminator_training.train(start, parts["learn"], settings, out)
    judge = discriminator_training.open_discriminator(out, None)
    rule = discriminator_training.calibrate(judge, out, parts["calibrate"], "scaling", 0.8, 0.9)
    tested = [row for row in rows if row.scene in held]
    truth = np.array([row.vote for row in tested])
    scores = rule.calibration(discriminator_training.compute_logits(judge, tested), [row.remover for row in tested])
    picked = pick_best_of_scenes(scores, [row.scene for row in tested])
    ranked = picked[np.argsort(-scores[picked], kind="stable")]
    right = np.cumsum(truth[ranked] > 0.5) / np.arange(1, len(ranked) + 1)
    prefix = np.flatnonzero(right >= 0.8)
    kept = [k for k in picked if rule.decide(float(scores[k]), tested[k].remover, True) == "keep"]
    return {
        "votes": len(learned),
        "auc": float(evaluation.evaluate(scores, truth, [row.remover for row in tested])["auc"]),
        "scenes": len(picked),
        "yes_of_best": int((truth[picked] > 0.5).sum()),
        "right_prefix": int(prefix[-1]) + 1 if len(prefix) else 0,
        "kept": len(kept),
        "kept_yes": int((truth[kept] > 0.5).sum()) if kept else 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=("candidates", "curve", "arm", "judge"))
    parser.add_argument("size")
    parser.add_argument("seed", type=int)
    parser.add_argument("--factor", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(arguments.folder, arguments.factor)
    match arguments.kind:
        case "candidates":
            result = make_candidates(study)
        case "curve":
            result = measure_curve(study, int(arguments.size), arguments.seed)
        case "arm":
            result = measure_arm(study, arguments.size, arguments.seed)
        case _:
            result = measure_discriminator(study, int(arguments.size), arguments.seed)
    name = f"results/{arguments.kind}-{arguments.size}-{arguments.seed}.json"
    Store(study.folder).write(name, json.dumps(result).encode())


if __name__ == "__main__":
    main()
