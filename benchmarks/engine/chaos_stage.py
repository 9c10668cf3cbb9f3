"""The stages of the job that `chaos` disturbs: light, slow enough to be met in the middle, with rows of each fate."""

import time

import numpy as np

from rasura.manifests.schemas import Kind
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage


class PaceParams(Params):
    seconds: float = 0.06


class Square(Stage):
    """A photo and itself with a dark square, as a triplet; one in eight is rejected, one in thirteen raises."""

    name = "benchmarks.engine.chaos_stage:Square"
    needs = {"source": Kind.RGB}
    gives = {
        "kind": Kind.STRING,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "number": Kind.INT,
    }
    batch_size = 2
    time_limit_s = 5.0
    Params = PaceParams
    params: PaceParams

    def process_one(self, record: Record) -> Outcome:
        time.sleep(self.params.seconds)
        number = int(record["id"][:6], 16)
        if number % 13 == 5:
            raise ValueError("this number does not please")
        if number % 8 == 3:
            return Rejected("number ends the week", str(number % 8))
        mask = np.zeros(record["source"].shape[:2], bool)
        x, y = self.rng(record).integers(4, mask.shape[0] - 12, 2)
        mask[y : y + 6, x : x + 6] = True
        target = np.where(mask[..., None], np.uint8(0), record["source"])
        columns = {"kind": "captured", "target": target, "mask": mask, "foreground_mask": mask}
        return Kept([{**columns, "number": number % 100}])


class Pace(Stage):
    """Passes records on, after a moment."""

    name = "benchmarks.engine.chaos_stage:Pace"
    needs = {"source": Kind.RGB}
    time_limit_s = 5.0
    Params = PaceParams
    params: PaceParams

    def process_one(self, record: Record) -> Outcome:
        time.sleep(self.params.seconds)
        return Kept([record])
