"""Ranking, battery, calibration and cost of the tiny discriminator on photographs that it was not trained on.

Scenes have 64 px (`loop_scenes`); each has five of eleven kinds of candidates, and one of a twelfth kind that is only
tested on. Verdicts are the oracle's. A quarter of the photographs is for testing, some others are for calibration only.
Goals: an AUC of 0.89 (0.90 on the unseen kind), original > blurred > swapped in 95 % of the scenes, a calibration error
of 0.03, ten minutes on two cores.

  python -m benchmarks.discriminator_tiny FOLDER [--photos FOLDER] [--seed N] [--scenes N] [--set KEY=VALUE …]
                                         [--side calibrate|test] [--threads N] [--bases]
                                         [--more] [--seen-too] [--start DISCRIMINATOR]
FOLDER keeps the candidates; an interrupted training in it continues. Options are chosen with `--side calibrate`, which
does not use the test photographs. `--scenes 20 --start DISCRIMINATOR --set steps=300 --set rate=0.001` trains a
discriminator further on 100 votes: five for each scene.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.common import ROOT
from benchmarks.discriminator_kinds import KINDS, MORE, TRUE, UNSEEN, copy_neighbour
from benchmarks.loop_scenes import compose_scene, load_photographs
from rasura.discriminator.augment import Case
from rasura.discriminator.dataset import Example
from rasura.stages.judging.truth import review_candidate

Array = npt.NDArray[Any]

KINDS_PER_SCENE = 5
"""Number of kinds of candidates drawn for a scene."""
SCENES = {"learn": 6000, "calibrate": 400, "test": 600, "learn-more": 300}
"""Number of scenes of each side; `learn-more` has further scenes of the photographs of `learn`, for `--bases`."""
BATTERY_SCENES = 200
"""Number of scenes of the measured side on which the battery is run."""
DEFAULTS = {"negatives": 0.0, "dilate": 0.0}
"""Settings of the training: no synthetic failures and no dilation, since the candidates contain both."""


def find_effects(photo: Array, other: Array, seed: Sequence[int]) -> Array | None:
    """Find the pixels (h, w) bool of a scene's shadow, by composing it again with a black and with a white object."""
    black, white = (compose_scene(photo, np.full_like(other, value), np.random.default_rng(seed)) for value in (0, 255))
    if black is None or white is None:
        return None
    alpha = (white["source"].astype(float) - black["source"]).mean(2) / 255
    darker = (black["target"].astype(float) - black["source"]).mean(2) > 6
    return np.asarray((alpha < 0.02) & darker)


def make_candidates(photos: Sequence[tuple[str, Array]], count: int, seed: int) -> dict[str, Array]:
    """Make scenes and their candidates with the oracle's verdicts; a scene's last candidate is of the unseen kind.

    Returns:
        source, truth (scenes, 64, 64, 3) uint8, mask (scenes, 64, 64) bool; target (candidates, 64, 64, 3) uint8,
        of (candidates,) index of the scene, kind (candidates,), yes (candidates,) bool.
    """
    scenes: dict[str, list[Array]] = {"source": [], "truth": [], "mask": []}
    candidates: dict[str, list[Any]] = {"target": [], "of": [], "kind": [], "yes": []}
    names, attempt = list(KINDS), -1
    while len(scenes["mask"]) < count:
        attempt += 1
        number = len(scenes["mask"])
        rng = np.random.default_rng([seed, attempt])
        photo = photos[number % len(photos)][1]
        other, third = (photos[int(rng.integers(len(photos)))][1] for _ in range(2))
        composed = compose_scene(photo, other, np.random.default_rng([seed, attempt, 1]))
        if composed is None:
            continue
        case = Case(
            composed["source"],
            composed["target"],
            composed["mask"],
            find_effects(photo, other, [seed, attempt, 1]),
            third,
        )
        for name, part in zip(scenes, (case.source, case.truth, case.mask), strict=True):
            scenes[name].append(part)
        drawn = [names[k] for k in rng.choice(len(names), KINDS_PER_SCENE, replace=False)]
        for kind in [*drawn, UNSEEN]:
            target = copy_neighbour(case, rng) if kind == UNSEEN else KINDS[kind](case, rng)
            yes = review_candidate(target, case.truth, case.source, case.mask).verdict == "yes"
            for name, value in zip(candidates, (target, number, kind, yes), strict=True):
                candidates[name].append(value)
    return {name: np.array(values) for name, values in {**scenes, **candidates}.items()}


def make_further_candidates(scenes: Mapping[str, Array]) -> dict[str, Array]:
    """Make a candidate of each further kind for every scene, in the form of `make_candidates`."""
    candidates: dict[str, list[Any]] = {"target": [], "of": [], "kind": [], "yes": []}
    for number, (source, truth, mask) in enumerate(zip(scenes["source"], scenes["truth"], scenes["mask"], strict=True)):
        case, rng = Case(source, truth, mask, None, truth), np.random.default_rng([len(SCENES), number])
        for kind, make in MORE.items():
            target = make(case, rng)
            yes = review_candidate(target, truth, source, mask).verdict == "yes"
            for name, value in zip(candidates, (target, number, kind, yes), strict=True):
                candidates[name].append(value)
    return {name: np.array(values) for name, values in candidates.items()}


def divide_photographs(photos: Sequence[tuple[str, Array]]) -> dict[str, list[tuple[str, Array]]]:
    """Divide photographs: every fourth is for testing, every seventh of the others for calibration."""
    rest = [photo for index, photo in enumerate(photos) if index % 4]
    return {
        "learn": [photo for index, photo in enumerate(rest) if index % 7 != 3],
        "calibrate": [photo for index, photo in enumerate(rest) if index % 7 == 3],
        "test": [photo for index, photo in enumerate(photos) if index % 4 == 0],
    }


def load_or_make(path: Path, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Load candidates from a file, or make and save them."""
    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            arrays: Any = make()
            np.savez(file, **arrays)
        part.replace(path)
    with np.load(path) as stored:
        return dict(stored)


def make_examples(data: Mapping[str, Array], side: str, unseen: bool = False) -> list[Example]:
    """Convert candidates to examples for training: of the kinds to train on, or of the unseen kind."""
    return [
        Example(data["source"][scene], target, data["mask"][scene], float(yes), f"{side} {scene}", str(kind))
        for target, scene, kind, yes in zip(data["target"], data["of"], data["kind"], data["yes"], strict=True)
        if (kind == UNSEEN) == unseen
    ]


def measure(discriminator: Any, data: Mapping[str, Array], side: str, rule: Any = None) -> dict[str, Any]:
    """Return AUC, share of yes and count of one side's candidates, in all and by kind.

    Args:
        discriminator: scores them.
        data: scenes and candidates of the side.
        side: its name.
        rule: thresholds and calibration; with them, the calibration error is computed.
    """
    from rasura.discriminator import evaluation
    from rasura.pipeline.training import discriminator as discriminator_training

    discriminator.batch = discriminator_training.BATCH_ROWS
    trained_kinds, unseen_kind = make_examples(data, side), make_examples(data, side, unseen=True)
    logits, unseen_logits = (
        discriminator_training.compute_logits(discriminator, examples) for examples in (trained_kinds, unseen_kind)
    )
    votes, unseen_votes = (
        np.array([example.vote for example in examples]) for examples in (trained_kinds, unseen_kind)
    )
    kinds = np.array([example.remover for example in trained_kinds])
    fills = ~np.isin(kinds, TRUE)
    figures: dict[str, Any] = {
        "auc": evaluation.compute_auc(logits, votes),
        "auc_fills": evaluation.compute_auc(logits[fills], votes[fills]),
        "auc_unseen": evaluation.compute_auc(unseen_logits, unseen_votes),
        "ece": evaluation.compute_expected_error(rule.calibration(logits, kinds), votes) if rule else None,
        "yes": votes.mean(),
        "yes_unseen": unseen_votes.mean(),
        "count": len(votes),
        "count_unseen": len(unseen_votes),
    }
    figures["kinds"] = {}
    for kind in KINDS:
        kind_logits, kind_votes = logits[kinds == kind], votes[kinds == kind]
        both = 0 < kind_votes.sum() < len(kind_votes)
        figures["kinds"][kind] = {
            "auc": evaluation.compute_auc(kind_logits, kind_votes) if both else None,
            "yes": kind_votes.mean(),
            "count": len(kind_votes),
        }
    return figures


def measure_battery(discriminator: Any, data: Mapping[str, Array]) -> dict[str, Any]:
    """Return the battery's figures on scenes of a side."""
    from rasura.discriminator.judges.battery import TrueTriplet, run_battery

    scenes = zip(data["source"], data["truth"], data["mask"], strict=True)
    triplets = [TrueTriplet(*scene, str(number)) for number, scene in enumerate(scenes)][:BATTERY_SCENES]
    battery = asdict(run_battery(discriminator, triplets))
    return {name: battery[name] for name in ("ordered", "monotone", "monotone_rows", "untouched", "mirrored", "faults")}


def measure_yield(discriminator: Any, data: Mapping[str, Array], side: str, rule: Any) -> dict[str, int]:
    """Return the scenes with an accepted fill, those whose best fill is one, and the largest prefixes that are right.

    Fills are candidates that are no copy of the truth. A prefix is the best fills of so many scenes, by probability.
    """
    from rasura.discriminator.calibration import pick_best_of_scenes
    from rasura.pipeline.training import discriminator as discriminator_training

    fills = [example for example in make_examples(data, side) if example.remover not in (*TRUE, "truth, soft")]
    logits = discriminator_training.compute_logits(discriminator, fills)
    probabilities = rule.calibration(logits, [fill.remover for fill in fills])
    best = pick_best_of_scenes(probabilities, [fill.scene for fill in fills])
    accepted = np.array([fills[k].vote for k in best[np.argsort(-probabilities[best], kind="stable")]])
    precision = np.cumsum(accepted) / np.arange(1, len(accepted) + 1)
    figures = {"scenes": len(best), "with_yes": len({fill.scene for fill in fills if fill.vote})}
    figures |= {"best_yes": int(accepted.sum())}
    return figures | {f"prefix_{t}": int(max(np.flatnonzero(precision >= t), default=-1)) + 1 for t in (0.8, 0.9)}


BASES = {
    "LoRA and head on the trained base": ("lora", True),
    "head alone on the trained base": ("head", True),
    "LoRA and head on a random base": ("lora", False),
}
FEW_STEPS = 300


def measure_bases(
    folder: Path, fresh: Callable[[], Any], settings: Any, more: list[Example], side: str, data: Mapping[str, Array]
) -> dict[str, Any]:
    """Train a new head on few votes, with and without a LoRA, on a trained and on a random base; return the AUCs."""
    import torch

    from rasura.discriminator import model as models
    from rasura.discriminator import network, train

    figures = {}
    for name, (learn, trained) in BASES.items():
        discriminator = models.load(folder, device="cpu") if trained else fresh()
        torch.manual_seed(settings.seed)
        setattr(discriminator.network, network.HEAD, network.make_head(discriminator.config))
        changed = replace(settings, steps=FEW_STEPS, learn=learn, evaluate_every=FEW_STEPS)
        train.train(discriminator, more, changed, folder / name.replace(" ", "-"))
        discriminator.network.eval()
        complete = measure(discriminator, data, side)
        figures[name] = {key: complete[key] for key in ("auc", "auc_unseen")}
    return figures


def read_cpu_seconds() -> float:
    """Return the CPU seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared" / "assets" / "photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=SCENES["learn"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bases", action="store_true", help="compare a LoRA with the head alone, see `measure_bases`")
    parser.add_argument("--more", action="store_true", help="train on six further kinds too")
    parser.add_argument("--seen-too", action="store_true", help="train on the twelfth kind too, for the upper limit")
    parser.add_argument("--start", type=Path, help="discriminator that is trained further")
    parser.add_argument("--side", choices=("calibrate", "test"), default="test")
    return parser.parse_args()


def make_side(folder: Path, photos: Sequence[tuple[str, Array]], side: str) -> dict[str, Array]:
    """Load or make the candidates of a side."""
    side_photos, count, seed = divide_photographs(photos)[side.split("-")[0]], SCENES[side], [*SCENES].index(side)
    return load_or_make(folder / f"{side}-{count}.npz", partial(make_candidates, side_photos, count, seed))


def make_training_examples(arguments: argparse.Namespace, data: Mapping[str, Array]) -> list[Example]:
    """Convert the candidates that the options select to examples for training."""
    learn = make_examples(data, "learn")[: KINDS_PER_SCENE * arguments.scenes]
    if arguments.seen_too:
        learn += make_examples(data, "learn", unseen=True)[: arguments.scenes]
    if arguments.more:
        file = arguments.folder / f"learn-{SCENES['learn']}-more.npz"
        further = load_or_make(file, partial(make_further_candidates, data))
        learn += make_examples({**data, **further}, "learn")[: len(MORE) * arguments.scenes]
    return learn


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print a line for each kind, and all other figures as JSON."""
    for kind, row in figures["kinds"].items():
        ranking = "    -" if row["auc"] is None else f"{row['auc']:5.3f}"
        print(f"{kind:<14} AUC {ranking}  yes {100 * row['yes']:5.1f} %  of {row['count']}")
    others = {key: value for key, value in figures.items() if key != "kinds"}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in others.items()}))


def main() -> None:
    arguments = parse_arguments()
    folder, side = arguments.folder, arguments.side
    folder.mkdir(parents=True, exist_ok=True)

    import torch
    import yaml

    from rasura.discriminator import model as models
    from rasura.pipeline.training import discriminator as discriminator_training
    from rasura.pipeline.training.settings import build_discriminator_settings

    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    photos = load_photographs(arguments.photos)
    data = {name: make_side(folder, photos, name) for name in ("learn", "calibrate", side)}
    overrides = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in arguments.set)}
    changed = {**DEFAULTS, "seed": arguments.seed, **overrides}
    config, settings = build_discriminator_settings("tiny", 0, changed)
    learn = make_training_examples(arguments, data["learn"])
    parts = ["judge", str(arguments.scenes), *(f"{key}={value}" for key, value in changed.items())]
    options = {"seen-too": arguments.seen_too, "more": arguments.more, "further": arguments.start is not None}
    out = folder / "-".join([*parts, *(name for name, chosen in options.items() if chosen)])

    cpu_start, wall_start = read_cpu_seconds(), time.monotonic()
    discriminator = (
        models.load(arguments.start, device="cpu", train=True)
        if arguments.start
        else discriminator_training.create_discriminator(config, learn, None, None, arguments.seed)
    )
    summary = discriminator_training.train(discriminator, learn, settings, out)
    cost = {
        "train_cpu_s": round(read_cpu_seconds() - cpu_start),
        "train_wall_s": round(time.monotonic() - wall_start),
    }
    discriminator.network.eval()
    discriminator.batch = discriminator_training.BATCH_ROWS
    by_looks = {}
    for looks in (4, 1):  # in this order, since the last calibration is the one that stays in the folder
        discriminator.config = replace(config, looks=looks)
        votes = make_examples(data["calibrate"], "calibrate")
        rule = discriminator_training.calibrate(discriminator, out, votes, best=False)
        by_looks[looks] = measure(discriminator, data[side], side, rule)
    figures = by_looks[1]
    figures["battery"] = measure_battery(discriminator, data[side])
    figures["yield"] = measure_yield(discriminator, data[side], side, rule)
    figures["four_looks"] = {key: by_looks[4][key] for key in ("auc", "auc_fills", "auc_unseen", "ece")}
    if arguments.bases:
        more = make_examples(make_side(folder, photos, "learn-more"), "learn-more")
        fresh = partial(discriminator_training.create_discriminator, config, learn, None, None, arguments.seed)
        figures["bases"] = measure_bases(out, fresh, settings, more, side, data[side])
    figures |= cost | {"side": side, "learned": len(learn), "best_step": summary["best_step"], "steps": summary["step"]}
    figures |= {"seed": arguments.seed, "threads": arguments.threads, "set": arguments.set}
    (out / f"{side}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print_figures(figures)


if __name__ == "__main__":
    main()
