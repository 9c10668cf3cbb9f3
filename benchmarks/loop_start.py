"""The first discriminator of the tiny loop.

It is trained on photographs and rendered scenes that are in no round and no test, on candidates of the removers that
need no training, with the oracle's verdicts, and on anchors (true targets and clear failures).

  python -m benchmarks.loop_start SCENES OUT     SCENES: the folder that `benchmarks.loop_scenes` wrote

An interrupted training in OUT continues.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from rasura.discriminator import network, train
from rasura.discriminator.anchors import make_anchors
from rasura.discriminator.dataset import AnyExample
from rasura.manifests.storage import Store
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.training import discriminator as discriminator_training
from rasura.pipeline.training import oracle
from rasura.pipeline.training import votes as vote_reading
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import FlowRows

SEED = 1


NAMES = ("Left", "Ghost", "Wrong", "Hallucinated", "Shifted", "Blurred")
REMOVERS = ["telea", "ns", *(f"benchmarks.loop_removers:{name}" for name in NAMES)]
"""The removers of the loop's recipe, and a blur, which resembles a remover after little training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run, reader = Store(arguments.out / "candidates"), RowReader(Store(arguments.out))
    scenes = reader.list_rows([FlowRows(run=str(arguments.scenes), flow="judge")], SEED)
    run.write("scenes.json", json.dumps([asdict(ref) for ref in scenes]).encode())
    inpaint = {"removers": REMOVERS, "dilation": 0, "context": 4}
    flows = {
        "drawn": {"source": {"drawn": {"round": 0}}, "shard_rows": 50},
        "candidates": {"source": {"flow": {"of": "drawn"}}, "stages": [{"inpaint": inpaint}], "shard_rows": 50},
    }
    with LoopEngine(EngineSettings()) as engine:
        engine.make_flows(run, "start", SEED, flows)
    votes = list(oracle.review_run(run))
    examples: list[AnyExample] = [*vote_reading.load_examples(run, votes, ["candidates"])]
    pictures = [(reader.read_row(ref), ref.scene) for ref in scenes]
    examples += make_anchors([(row["source"], row["target"], row["mask"], scene) for row, scene in pictures])
    discriminator = discriminator_training.create_discriminator(network.PRESETS["tiny"], examples, None, None, SEED)
    settings = replace(train.TINY, steps=arguments.steps, negatives=0.0, dilate=0.0, seed=SEED)
    summary = discriminator_training.train(discriminator, examples, settings, arguments.out / "judge")
    yes = sum(vote["verdict"] == "yes" for vote in votes)
    counts = f"{len(votes)} candidates of {len(scenes)} scenes, {yes} yes"
    print(f"{arguments.out / 'judge'}: {counts}; {summary}")


if __name__ == "__main__":
    main()
