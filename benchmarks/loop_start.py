"""The judge that the tiny loop begins with: trained on photographs and rendered scenes that no round and no test has,
on candidates of removers that are there before any training, by the oracle's verdicts.

  python -m benchmarks.loop_start SCENES OUT     SCENES: what `benchmarks.loop_scenes` wrote
A folder that was begun goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import loop_removers
from rasura.discriminator import network
from rasura.discriminator import train as training
from rasura.manifests.storage import Store
from rasura.pipeline.loop.candidates import Reader, make_candidates
from rasura.pipeline.loop.recipe import Rows
from rasura.pipeline.training import discriminator as loop_judge
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as loop_votes
from rasura.removers.base import Remover
from rasura.stages.inpaint import REMOVERS

SEED = 1


def removers() -> list[Remover]:
    """Those of the loop's recipe, and a blur, which is what a remover that has hardly learned gives."""
    return [
        REMOVERS["telea"](), REMOVERS["ns"](), loop_removers.Left(), loop_removers.Ghost(), loop_removers.Wrong(),
        loop_removers.Hallucinated(), loop_removers.Shifted(), loop_removers.Blurred(),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run, reader = Store(given.out / "candidates"), Reader(Store(given.out))
    scenes = reader.refs([Rows(run=str(given.scenes), flow="judge")], SEED)
    made = make_candidates(run, reader, scenes, removers, 0, SEED, 0, 4, 50)
    votes = list(oracle.votes_on(run))
    examples = loop_votes.examples_of(run, votes, ["candidates"])
    judge = loop_judge.fresh(network.PRESETS["tiny"], examples, None, None, SEED)
    settings = replace(training.TINY, steps=given.steps, negatives=0.0, dilate=0.0, seed=SEED)
    about = loop_judge.train(judge, examples, settings, given.out / "judge")
    yes = sum(one["verdict"] == "yes" for one in votes)
    print(f"{given.out / 'judge'}: {made['candidates']} candidates of {made['drawn']} scenes, {yes} yes; {about}")


if __name__ == "__main__":
    main()
