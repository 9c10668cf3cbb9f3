"""Small stages and a source of synthetic pictures, for tests and benchmarks of the engine. Some of them misbehave."""

import ctypes
import errno
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from rasura.manifests.ids import hash_json
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.networks.memory import NetworkMemory
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Resources, Source, Stage


class NumbersParams(Params):
    count: int = Field(ge=0)
    side: int = 32


class Numbers(Source):
    """Pictures of noise, `number` 0 … count-1."""

    name = "synthetic:Numbers"
    gives = {**PROVENANCE, "number": Kind.INT, "source": Kind.RGB}
    Params = NumbersParams
    params: NumbersParams

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        return "numbers", self.params.count

    def items(self, run: RunContext) -> list[Record]:
        return [{"id": hash_json(["number", n]), "origin": f"number {n}", "n": n} for n in range(self.params.count)]

    def process_one(self, item: Record) -> Outcome:
        side = self.params.side
        picture = self.rng(item).integers(0, 256, (side, side, 3), dtype=np.uint8)
        record = {"id": item["id"], "scene_id": item["id"], "origin": item["origin"], "licence": "none", "parents": []}
        return Kept([{**record, "number": item["n"], "source": picture}])


class Light(Numbers):
    """Numbers without pictures."""

    name = "synthetic:Light"
    gives = {**PROVENANCE, "number": Kind.INT}

    def process_one(self, item: Record) -> Outcome:
        record = {"id": item["id"], "scene_id": item["id"], "origin": item["origin"], "licence": "none", "parents": []}
        return Kept([{**record, "number": item["n"]}])


class TripletParams(Params):
    sleep_s: float = 0.0
    reject_every: int = 7
    raise_every: int = 11


class Triplet(Stage):
    """A picture and itself with a dark square, as a triplet; some numbers are rejected, some raise, some have twins."""

    name = "synthetic:Triplet"
    needs = {"source": Kind.RGB, "number": Kind.INT}
    gives = {
        "kind": Kind.STRING,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "label": Kind.STRING,
    }
    batch_size = 4
    Params = TripletParams
    params: TripletParams

    def process_one(self, record: Record) -> Outcome:
        time.sleep(self.params.sleep_s)
        number = record["number"]
        if number % self.params.raise_every == 5:
            raise ValueError(f"number {number} does not please")
        if number % self.params.reject_every == 3:
            return Rejected("number ends the week", str(number))
        mask = np.zeros(record["source"].shape[:2], bool)
        x, y = self.rng(record).integers(4, mask.shape[0] - 12, 2)
        mask[y : y + 6, x : x + 6] = True
        target = np.where(mask[..., None], np.uint8(0), record["source"])
        triplet = {"kind": "captured", "target": target, "mask": mask, "foreground_mask": mask, "label": "square"}
        if number % 5 == 0:
            return Kept([{**triplet, "id": f"{record['id']}.{k}"} for k in range(2)])
        return Kept([triplet])


class Dimmed(Stage):
    """A candidate that is the brighter the larger its number."""

    name = "synthetic:Dimmed"
    needs = {"source": Kind.RGB, "number": Kind.INT}
    gives = {"kind": Kind.STRING, "target": Kind.RGB, "mask": Kind.MASK, "remover": Kind.STRING}

    def process_one(self, record: Record) -> Outcome:
        mask = np.zeros(record["source"].shape[:2], bool)
        mask[8:20, 10:22] = True
        target = np.full_like(record["source"], 20 + 15 * record["number"])
        return Kept([{**record, "kind": "edited", "target": target, "mask": mask, "remover": "dimmed"}])


class PoisonParams(Params):
    segfault: list[int] = []
    hang: list[int] = []
    kill: list[int] = []


class Poison(Stage):
    """Passes records on, but some numbers end the process or hang in native code."""

    name = "synthetic:Poison"
    needs = {"number": Kind.INT}
    time_limit_s = 2.0
    batch_size = 4
    Params = PoisonParams
    params: PoisonParams

    def process_one(self, record: Record) -> Outcome:
        if record["number"] in self.params.segfault:
            ctypes.string_at(0)
        if record["number"] in self.params.kill:
            os.kill(os.getpid(), 9)
        if record["number"] in self.params.hang:
            ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock: no Python thread could end it
        return Kept([record])


class NodeKiller(Stage):
    """Passes records on, but some numbers kill the raylet of their node."""

    name = "synthetic:NodeKiller"
    needs = {"number": Kind.INT}
    Params = PoisonParams
    params: PoisonParams

    def process_one(self, record: Record) -> Outcome:
        if record["number"] in self.params.kill:
            os.kill(os.getppid(), 9)
            time.sleep(60)
        return Kept([record])


class LateDeath(Stage):
    """Passes records on, but some numbers end the process a moment after they have left the stage."""

    name = "synthetic:LateDeath"
    needs = {"number": Kind.INT}
    batch_size = 4
    Params = PoisonParams
    params: PoisonParams

    def process_one(self, record: Record) -> Outcome:
        time.sleep(0.05)
        if record["number"] in self.params.kill:
            threading.Timer(0.2, os.kill, (os.getpid(), 9)).start()
        return Kept([record])


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's."""


class SmallGpu(Stage):
    """A GPU whose memory holds two pictures at a time."""

    name = "synthetic:SmallGpu"
    needs = {"source": Kind.RGB}
    gives = {"brightness": Kind.FLOAT}
    batch_size = 8

    def process(self, records: list[Record]) -> list[Outcome]:  # type: ignore[override]
        if len(records) > 2:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return [Kept([{**record, "brightness": float(record["source"].mean())}]) for record in records]


class FaultyParams(Params):
    folder: str
    only: list[int] = []


class Faulty(Stage):
    """Passes records on, but while its folder has a file `fault`, raises the error that is named there, and counts."""

    name = "synthetic:Faulty"
    needs = {"number": Kind.INT}
    Params = FaultyParams
    params: FaultyParams

    def process_one(self, record: Record) -> Outcome:
        folder = Path(self.params.folder)
        fault = folder / "fault"
        if fault.exists() and (not self.params.only or record["number"] in self.params.only):
            with (folder / "raised").open("a") as counter:
                counter.write(".")
            raise ERRORS[fault.read_text()]
        return Kept([record])


ERRORS: dict[str, Exception] = {
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
    "bad disk": OSError(errno.EIO, "Input/output error"),
    "memory": MemoryError("Unable to allocate 3.2 GiB"),
    "row": ValueError("this row does not please"),
}


class BadSetup(Stage):
    """Cannot be set up."""

    name = "synthetic:BadSetup"

    def setup(self) -> None:
        raise OSError("the weights are of another model")

    def process_one(self, record: Record) -> Outcome:
        return Kept([record])


class Undeclared(Stage):
    """Makes a column that it does not declare."""

    name = "synthetic:Undeclared"

    def process_one(self, record: Record) -> Outcome:
        return Kept([{**record, "surprise": 1}])


class WorkParams(Params):
    rounds: int = 20


class Work(Stage):
    """Real CPU work on a picture: blurs it `rounds` times."""

    name = "synthetic:Work"
    needs = {"source": Kind.RGB}
    gives = {"source": Kind.RGB}
    Params = WorkParams
    params: WorkParams

    def process_one(self, record: Record) -> Outcome:
        picture = record["source"]
        for _ in range(self.params.rounds):
            picture = cv2.GaussianBlur(picture, (0, 0), 3)
        return Kept([{**record, "source": picture}])


class SlowParams(Params):
    seconds: float = 0.2
    log: str = ""


class SlowDevice(Stage):
    """Stands for a GPU: sleeps for each batch of 8, and logs when it did."""

    name = "synthetic:SlowDevice"
    resources = Resources(cpus=0, custom={"device": 1})
    batch_size = 8
    Params = SlowParams
    params: SlowParams

    def process(self, records: list[Record]) -> list[Outcome]:  # type: ignore[override]
        start = time.time()
        time.sleep(self.params.seconds)
        if self.params.log:
            with Path(self.params.log).open("a") as out:
                out.write(f"{start} {time.time()} {len(records)}\n")
        return [Kept([record]) for record in records]


class CardParams(Params):
    gigabytes: float = 4.0
    log: str


class Looker(Stage):
    """Writes down, for each batch, which GPUs its process sees and which Ray gave it."""

    name = "synthetic:Looker"
    Params = CardParams
    params: CardParams

    def process(self, records: list[Record]) -> list[Outcome]:  # type: ignore[override]
        import ray

        context = ray.get_runtime_context()
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        given = ",".join(context.get_accelerator_ids()["GPU"])
        with Path(self.params.log).open("a") as out:
            out.write(f"{type(self).__name__} {context.get_node_id()} {seen or '-'} {given or '-'} {os.getpid()}\n")
        time.sleep(0.2)
        return [Kept([record]) for record in records]


class Holder(Looker):
    """Stands for a stage that holds a network."""

    name = "synthetic:Holder"

    def network_memory(self, batch_size: int) -> NetworkMemory:
        size = int(self.params.gigabytes * 1e9)
        return NetworkMemory(size, 10**6)


class OtherHolder(Holder):
    """Another one."""

    name = "synthetic:OtherHolder"
