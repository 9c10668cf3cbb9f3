"""Candidates and scores of a round: two workers against one, and against a bare loop over the same functions.

The remover waits a fixed time for each picture, as for a card, so that the figures show the engine and not the machine.
Times are from the first shard to the last commit; the time until workers are ready is beside them.

  python -m benchmarks loop_rounds
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import loop_scenes
from rasura.manifests.run_layout import table_path
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, encode_records
from rasura.manifests.shards import StageCount, commit
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.loop.engine import LoopEngine
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.run.events import read_events
from rasura.pipeline.training import discriminator as discriminators
from rasura.pipeline.training import oracle, votes
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import FlowRows, build_discriminator_settings
from rasura.removers import opencv
from rasura.removers.base import Capability
from rasura.stages.inpaint import Inpaint, InpaintParams
from rasura.stages.score import Score, ScoreParams

SCENES, SIDE, SHARD, SECONDS = 240, 96, 4, 0.15
COLUMNS = {**PROVENANCE, **TRIPLET, "hole_dilation": Kind.INT, "score_logit": Kind.FLOAT}
REMOVERS = ("telea", "benchmarks.loop_rounds:Waiting")


class Waiting:
    """A remover that takes `SECONDS` for each picture and no processor."""

    name = "waiting"
    capability = Capability("remover", None, needs_prompt=False, licence="none")

    def __init__(self) -> None:
        self._telea = opencv.telea()

    def weights(self) -> dict[str, Path]:
        return {}

    def setup(self) -> None:
        pass

    def fill(self, pictures: Sequence[Any], holes: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        time.sleep(SECONDS * len(pictures))
        return self._telea.fill(pictures, holes, seeds)


def make_rows() -> list[dict[str, Any]]:
    """Make scenes with a square to be removed: coarse noise, where a fill is wrong, and every other one smooth."""
    rows = []
    for number in range(SCENES):
        rng = np.random.default_rng([7, number])
        target = np.repeat(np.repeat(rng.integers(60, 200, (12, 12, 3)), 8, 0), 8, 1).astype(np.uint8)
        if number % 2:
            ramp = np.linspace(90, 150, SIDE)[None, :, None] + rng.integers(-20, 20, 3)
            target = np.broadcast_to(ramp, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[30:55, 35:60] = True
        source = np.where(mask[..., None], np.uint8(230), target)
        row = {"id": f"{number:04d}", "scene_id": f"{number:04d}", "kind": "captured", "split": "train"}
        rows.append({**row, "source": source, "target": target, "mask": mask, "licence": "CC0"})
    return rows


def list_flows(discriminator: Path | None) -> dict[str, Any]:
    """List the flows of a round."""
    stages = [{"inpaint": {"removers": list(REMOVERS), "dilation": 2}}]
    flows: dict[str, Any] = {
        "drawn": {"source": {"drawn": {}}, "shard_rows": SHARD},
        "candidates": {"source": {"flow": {"of": "drawn"}}, "stages": stages, "shard_rows": SHARD},
    }
    if discriminator:
        score = {"source": {"flow": {"of": "candidates"}}, "stages": [{"score": {"discriminator": str(discriminator)}}]}
        flows["scored"] = {**score, "references": True, "shard_rows": SHARD * len(REMOVERS)}
    return flows


def run_round(folder: Path, rows: bytes, workers: int, discriminator: Path | None) -> tuple[float, float]:
    """Carry out a round; return its seconds from the first shard to the last commit, flow by flow, and all seconds."""
    run, start = Store(folder), time.perf_counter()
    run.write("scenes.json", rows)
    with LoopEngine(EngineSettings(workers=workers)) as engine:
        engine.make_flows(run, "round-1", 0, list_flows(discriminator))
    working = sum(event["working_seconds"] for event in read_events(run) if event["event"] == "flow")
    return working, time.perf_counter() - start


def run_bare(folder: Path, scenes: Store, discriminator: Path) -> float:
    """Do the same work in one process, shard by shard, with the stages' own functions; return its seconds."""
    inpaint = Inpaint(InpaintParams(removers=REMOVERS, dilation=2))
    score = Score(ScoreParams(discriminator=str(discriminator)))
    inpaint.setup()
    score.setup()
    tables, start = Tables(scenes), time.perf_counter()
    places = tables.table("pool").read_light(("id",)).to_pylist()
    for first in range(0, len(places), SHARD):
        records = [tables.row("pool", place["shard"], place["row"]) for place in places[first : first + SHARD]]
        outcomes = inpaint.process(records)
        candidates = [candidate for outcome in outcomes for candidate in outcome.records]  # type: ignore[union-attr]
        scored = [outcome.records[0] for outcome in score.process(candidates)]  # type: ignore[union-attr]
        encoded = [{name: row.get(name) for name in COLUMNS} for row in scored]
        table, count = Store(folder).sub(table_path("candidates")), len(encoded)
        rows = encode_records(encoded, COLUMNS)
        commit(table, f"{first:08d}", "", count, rows, (), [StageCount("bare", count, count, count)])
    return time.perf_counter() - start


def train_discriminator(run: Store, folder: Path) -> None:
    """Train a tiny discriminator for two steps on a round's candidates."""
    examples = votes.load_examples(run, list(oracle.review_run(run)), ["candidates"])
    config, settings = build_discriminator_settings("tiny", 0, {"steps": 2, "batch": 4, "held": 0.0})
    network = discriminators.create_discriminator(config, examples, None, None, 0)
    discriminators.train(network, examples, settings, folder)
    discriminators.calibrate(discriminators.open_discriminator(folder, None), folder, examples)


def main() -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = Store(folder / "scenes")
        loop_scenes.write_run(scenes, {"pool": make_rows()})
        refs = RowReader(scenes).list_rows([FlowRows(run=scenes.location, flow="pool")], 0)
        rows = json.dumps([asdict(ref) for ref in refs]).encode()
        run_round(folder / "first", rows, 2, None)
        train_discriminator(Store(folder / "first"), folder / "judge")
        one, one_all = run_round(folder / "one", rows, 1, folder / "judge")
        two, two_all = run_round(folder / "two", rows, 2, folder / "judge")
        bare = run_bare(folder / "bare", scenes, folder / "judge")
    result = {
        "candidates": SCENES * len(REMOVERS),
        "bare_s": round(bare, 2),
        "one_worker_s": round(one, 2),
        "two_workers_s": round(two, 2),
        "speed_up": round(one / two, 2),
        "over_bare": round(one / bare, 3),
        "until_ready_s": [round(one_all - one, 1), round(two_all - two, 1)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
