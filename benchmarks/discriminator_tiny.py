"""The judge at tiny size, on photographs it never saw: what its scores are worth, and what they cost.

Scenes of 64 px (`loop_scenes`); of each, five of eleven kinds of candidates; a twelfth kind is only tested on. Verdicts
are the oracle's. A quarter of the photographs is for testing, some of the others for calibration alone.
  python -m benchmarks.judge_tiny FOLDER [--photos FOLDER] [--seed N] [--scenes N] [--set KEY=VALUE …]
                                         [--side calibrate|test] [--threads N] [--bases]
                                         [--more] [--seen-too]
The candidates are kept in FOLDER; a judge that was begun there goes on. Options are chosen by `--side calibrate`, which
leaves the test photographs alone.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.common import ROOT
from benchmarks.judge_kinds import KINDS, MORE, TRUE, UNSEEN, shifted
from benchmarks.loop_scenes import photographs, scene
from rasura.discriminator.augment import Case
from rasura.discriminator.dataset import Example
from rasura.pipeline.training import oracle

Array = npt.NDArray[Any]

EACH = 5
"""Kinds of candidates drawn for a scene."""
SCENES = {"learn": 6000, "calibrate": 400, "test": 600, "learn-more": 300}
"""Of each side; a few more of the photographs to learn from, for what is learned on a trained base."""
GIVEN = {"negatives": 0.0, "dilate": 0.0}
"""Settings of its training: no failures made on purpose, and masks as they are, for the candidates have both."""


def effects_of(photo: Array, other: Array, seed: Sequence[int]) -> Array | None:
    """Where a scene shows its shadow and not its object: the scene made once more, with a black and a white thing."""
    black, white = (scene(photo, np.full_like(other, value), np.random.default_rng(seed)) for value in (0, 255))
    if black is None or white is None:
        return None
    alpha = (white["source"].astype(float) - black["source"]).mean(2) / 255
    darker = (black["target"].astype(float) - black["source"]).mean(2) > 6
    return np.asarray((alpha < 0.02) & darker)


def candidates(photos: Sequence[tuple[str, Array]], count: int, seed: int) -> dict[str, Array]:
    """Scenes and their candidates with the oracle's verdicts; the unseen kind is the last of every scene's.

    Returns:
        source, truth (scenes, 64, 64, 3) uint8, mask (scenes, 64, 64) bool; target (candidates, 64, 64, 3) uint8,
        of (candidates,) the scene's number, kind (candidates,), yes (candidates,) bool.
    """
    scenes: dict[str, list[Array]] = {"source": [], "truth": [], "mask": []}
    made: dict[str, list[Any]] = {"target": [], "of": [], "kind": [], "yes": []}
    names, attempt = list(KINDS), -1
    while len(scenes["mask"]) < count:
        attempt += 1
        number = len(scenes["mask"])
        rng = np.random.default_rng([seed, attempt])
        photo = photos[number % len(photos)][1]
        other, third = (photos[int(rng.integers(len(photos)))][1] for _ in range(2))
        found = scene(photo, other, np.random.default_rng([seed, attempt, 1]))
        if found is None:
            continue
        case = Case(found["source"], found["target"], found["mask"],
                    effects_of(photo, other, [seed, attempt, 1]), third)  # fmt: skip
        for name, part in zip(scenes, (case.source, case.truth, case.mask), strict=True):
            scenes[name].append(part)
        drawn = [names[k] for k in rng.choice(len(names), EACH, replace=False)]
        for kind in [*drawn, UNSEEN]:
            target = shifted(case, rng) if kind == UNSEEN else KINDS[kind](case, rng)
            yes = oracle.judge(target, case.truth, case.source, case.mask).verdict == "yes"
            for name, value in zip(made, (target, number, kind, yes), strict=True):
                made[name].append(value)
    return {name: np.array(values) for name, values in {**scenes, **made}.items()}


def further(found: Mapping[str, Array]) -> dict[str, Array]:
    """One candidate of each further kind for every scene, as `candidates` has them."""
    made: dict[str, list[Any]] = {"target": [], "of": [], "kind": [], "yes": []}
    for number, (source, truth, mask) in enumerate(zip(found["source"], found["truth"], found["mask"], strict=True)):
        case, rng = Case(source, truth, mask, None, truth), np.random.default_rng([len(SCENES), number])
        for kind, make in MORE.items():
            target = make(case, rng)
            yes = oracle.judge(target, truth, source, mask).verdict == "yes"
            for name, value in zip(made, (target, number, kind, yes), strict=True):
                made[name].append(value)
    return {name: np.array(values) for name, values in made.items()}


def divided(photos: Sequence[tuple[str, Array]]) -> dict[str, list[tuple[str, Array]]]:
    """Every fourth photograph tests, every seventh of the others calibrates."""
    rest = [one for index, one in enumerate(photos) if index % 4]
    return {
        "learn": [one for index, one in enumerate(rest) if index % 7 != 3],
        "calibrate": [one for index, one in enumerate(rest) if index % 7 == 3],
        "test": [one for index, one in enumerate(photos) if index % 4 == 0],
    }


def stored(path: Path, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Candidates from a file, or made and kept there."""
    if not path.is_file():
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            made: Any = make()
            np.savez(file, **made)
        part.replace(path)
    with np.load(path) as found:
        return dict(found)


def examples(found: Mapping[str, Array], side: str, unseen: bool = False) -> list[Example]:
    """As the judge's training takes them: the kinds that are learned from, or the one that is not."""
    return [
        Example(found["source"][at], target, found["mask"][at], float(yes), f"{side} {at}", str(kind))
        for target, at, kind, yes in zip(found["target"], found["of"], found["kind"], found["yes"], strict=True)
        if (kind == UNSEEN) == unseen
    ]


def measured(judge: Any, found: Mapping[str, Array], side: str, rule: Any = None) -> dict[str, Any]:
    """Ranking on one side's candidates, of each kind too, with its share of yes; calibration where there is a rule."""
    from rasura.discriminator import evaluation
    from rasura.pipeline.training import discriminator as loop_judge

    judge.batch = loop_judge.AT_ONCE
    seen, unseen = examples(found, side), examples(found, side, unseen=True)
    logits, other = (loop_judge.logits(judge, given) for given in (seen, unseen))
    votes, others = (np.array([one.vote for one in given]) for given in (seen, unseen))
    kinds = np.array([one.remover for one in seen])
    fills = ~np.isin(kinds, TRUE)
    told: dict[str, Any] = {
        "auc": evaluation.auc(logits, votes),
        "auc_fills": evaluation.auc(logits[fills], votes[fills]),
        "auc_unseen": evaluation.auc(other, others),
        "ece": evaluation.expected_error(rule.calibration(logits), votes) if rule else None,
        "yes": votes.mean(), "yes_unseen": others.mean(), "count": len(votes), "count_unseen": len(others),
    }  # fmt: skip
    told["kinds"] = {
        kind: {"auc": evaluation.auc(logits[here], votes[here]) if 0 < votes[here].sum() < here.sum() else None,
               "yes": votes[here].mean(), "count": int(here.sum())}
        for kind in KINDS for here in [kinds == kind]
    }  # fmt: skip
    return told


BASES = {
    "LoRA and head on the trained base": ("lora", True),
    "head alone on the trained base": ("head", True),
    "LoRA and head on a random base": ("lora", False),
}
FEW_STEPS = 300


def on_bases(folder: Path, fresh: Callable[[], Any], settings: Any, more: list[Example], side: str,
             found: Mapping[str, Array]) -> dict[str, Any]:  # fmt: skip
    """What a few votes teach a new head, with and without a LoRA, on a base that was trained before or is random."""
    import torch

    from rasura.discriminator import model as judges
    from rasura.discriminator import network, train

    told = {}
    for name, (learn, trained) in BASES.items():
        judge = judges.load(folder, device="cpu") if trained else fresh()
        torch.manual_seed(settings.seed)
        setattr(judge.network, network.HEAD, network.make_head(judge.config))
        changed = replace(settings, steps=FEW_STEPS, learn=learn, evaluate_every=FEW_STEPS)
        train.train(judge, more, changed, folder / name.replace(" ", "-"))
        judge.network.eval()
        full = measured(judge, found, side)
        told[name] = {key: full[key] for key in ("auc", "auc_unseen")}
    return told


def spent() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, default=ROOT.parent / "shared" / "assets" / "photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=SCENES["learn"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--bases", action="store_true", help="and a LoRA against the head alone, see `on_bases`")
    parser.add_argument("--more", action="store_true", help="learn from six further kinds too")
    parser.add_argument(
        "--seen-too", action="store_true", help="learn from the twelfth kind too: what can be had on it"
    )
    parser.add_argument("--side", choices=("calibrate", "test"), default="test")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    import torch
    import yaml

    from rasura.discriminator import network, train
    from rasura.pipeline.training import discriminator as loop_judge

    torch.set_num_threads(given.threads)
    cv2.setNumThreads(1)
    photos = photographs(given.photos)

    def of_side(side: str) -> dict[str, Array]:
        of, count, place = divided(photos)[side.split("-")[0]], SCENES[side], [*SCENES].index(side)
        return stored(given.folder / f"{side}-{count}.npz", partial(candidates, of, count, place))

    data = {side: of_side(side) for side in ("learn", "calibrate", given.side)}
    asked = dict(one.split("=", 1) for one in given.set)
    changed = {**GIVEN, "seed": given.seed, **{key: yaml.safe_load(value) for key, value in asked.items()}}
    config, settings = loop_judge.adjusted(network.TINY, train.TINY, changed)
    learn = examples(data["learn"], "learn")[: EACH * given.scenes]
    parts = ["judge", str(given.scenes), *(f"{key}={value}" for key, value in changed.items())]
    if given.seen_too:
        learn += examples(data["learn"], "learn", unseen=True)[: given.scenes]
        parts.append("seen-too")
    if given.more:
        made = stored(given.folder / f"learn-{SCENES['learn']}-more.npz", partial(further, data["learn"]))
        learn += examples(data["learn"] | made, "learn")[: len(MORE) * given.scenes]
        parts.append("more")
    out = given.folder / "-".join(parts)
    started, wall = spent(), time.monotonic()
    judge = loop_judge.fresh(config, learn, None, None, given.seed)
    about = loop_judge.train(judge, learn, settings, out)
    cost = {"train_cpu_s": round(spent() - started), "train_wall_s": round(time.monotonic() - wall)}
    judge.network.eval()
    judge.batch = loop_judge.AT_ONCE
    told = {}
    for looks in (4, 1):  # the judge as it is last: its calibration is what stays in the folder
        judge.config = replace(config, looks=looks)
        rule = loop_judge.calibrate(judge, out, examples(data["calibrate"], "calibrate"), best=False)
        told[looks] = measured(judge, data[given.side], given.side, rule)
    found = told[1]
    found["four_looks"] = {key: told[4][key] for key in ("auc", "auc_fills", "auc_unseen", "ece")}
    for kind, one in found["kinds"].items():
        ranking = "    -" if one["auc"] is None else f"{one['auc']:5.3f}"
        print(f"{kind:<14} AUC {ranking}  yes {100 * one['yes']:5.1f} %  of {one['count']}")
    if given.bases:
        more = examples(of_side("learn-more"), "learn-more")
        fresh = partial(loop_judge.fresh, config, learn, None, None, given.seed)
        found["bases"] = on_bases(out, fresh, settings, more, given.side, data[given.side])
    found |= cost | {"side": given.side, "learned": len(learn), "best_step": about["best_step"],
                     "steps": about["step"], "seed": given.seed, "threads": given.threads,
                     "set": given.set}  # fmt: skip
    (out / f"{given.side}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value
                      for key, value in found.items() if key != "kinds"}))  # fmt: skip


if __name__ == "__main__":
    main()
