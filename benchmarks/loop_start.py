"""The first discriminator of the tiny loop.

It is trained on photographs and rendered scenes that are in no round and no test, on candidates of the removers that
need no training, with the oracle's verdicts.

  python -m benchmarks.loop_start SCENES OUT     SCENES: the folder that `benchmarks.loop_scenes` wrote

An interrupted training in OUT continues.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import loop_removers
from rasura.discriminator import network, train
from rasura.manifests.storage import Store
from rasura.pipeline.loop.candidates import CandidateSettings, make_candidates
from rasura.pipeline.training import discriminator as discriminator_training
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_reading
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import FlowRows
from rasura.removers.base import Remover
from rasura.removers.registry import REMOVERS

SEED = 1


def make_removers() -> list[Remover]:
    """Make the removers of the loop's recipe, and a blur, which resembles a remover after little training."""
    return [
        REMOVERS["telea"](),
        REMOVERS["ns"](),
        loop_removers.Left(),
        loop_removers.Ghost(),
        loop_removers.Wrong(),
        loop_removers.Hallucinated(),
        loop_removers.Shifted(),
        loop_removers.Blurred(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run, reader = Store(arguments.out / "candidates"), RowReader(Store(arguments.out))
    scenes = reader.list_rows([FlowRows(run=str(arguments.scenes), flow="judge")], SEED)
    result = make_candidates(run, reader, scenes, make_removers, CandidateSettings(0, SEED, 0, 4, 50))
    votes = list(oracle.review_run(run))
    examples = vote_reading.load_examples(run, votes, ["candidates"])
    discriminator = discriminator_training.create_discriminator(network.PRESETS["tiny"], examples, None, None, SEED)
    settings = replace(train.TINY, steps=arguments.steps, negatives=0.0, dilate=0.0, seed=SEED)
    summary = discriminator_training.train(discriminator, examples, settings, arguments.out / "judge")
    yes = sum(vote["verdict"] == "yes" for vote in votes)
    counts = f"{result.candidates} candidates of {result.scenes} scenes, {yes} yes"
    print(f"{arguments.out / 'judge'}: {counts}; {summary}")


if __name__ == "__main__":
    main()
