"""Stages `score` and `keep`: a discriminator's score, and a threshold on it. Changing the threshold runs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from rasura.discriminator import model
from rasura.discriminator.calibration import Rule, read_rule
from rasura.discriminator.judges import folder as judges
from rasura.discriminator.judges.battery import check_battery
from rasura.manifests.schemas import Kind, Schema
from rasura.networks.memory import NetworkMemory
from rasura.networks.weights import Reference, Revision, resolve
from rasura.stages import stage
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage


class ScoreParams(stage.Params):
    former_names = {"discriminator": "judge"}

    discriminator: Reference = Field(description="Folder of a discriminator that was trained and calibrated.")
    base: Reference | None = Field(None, description="Folder of SDXL-inpainting that the discriminator's LoRA is for.")
    revision: Revision | None = Field(None, description="Commit of `base` on the hub.")
    batch: int | None = Field(
        None, ge=1, le=512, description="Candidates in one run of the network; 1 on a CPU, 32 on a GPU."
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Device: auto, cpu or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision; auto is bfloat16 on a GPU, float32 on a CPU."
    )


class NoAnswer(ValueError):
    """A candidate about which a judge gave no usable answer. It costs that row alone."""


class Score(Stage):
    """Adds a discriminator's calibrated probability that a person would accept a candidate.

    Examples:
        - score: {discriminator: models/discriminator}
        - keep: {discriminator: models/discriminator}
    """

    name = "score"
    version = "2"
    needs: ClassVar[Schema] = {"source": Kind.RGB, "target": Kind.RGB, "mask": Kind.MASK}
    gives: ClassVar[Schema] = {"score": Kind.FLOAT, "score_logit": Kind.FLOAT}
    batch_size = 32
    time_limit_s = 300.0
    Params = ScoreParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.folder = resolve(params.discriminator)
        patterns = ("unet/*.safetensors", "vae/*.safetensors", "*.json")
        self.base = resolve(params.base, params.revision, patterns) if params.base else None
        self.rule = read_rule(self.folder)
        self.weights()  # what is missing is reported when the recipe is read

    def weights(self) -> Mapping[str, Path]:
        return judges.list_files(self.folder, self.base)

    def network_memory(self, batch_size: int) -> NetworkMemory | None:
        if judges.read_backend(self.folder) != "network":
            return None
        return model.estimate_memory(self.folder, self.base, self.params.device, self.params.dtype, self.params.batch)

    def setup(self) -> None:
        params: ScoreParams = self.params
        self.judge = judges.open_judge(self.folder, self.base, params.device, params.dtype, params.batch)

    def process(self, records: Sequence[Record]) -> list[Outcome]:
        crops = [self.judge.preprocess(record["source"], record["target"], record["mask"]) for record in records]
        logits = self.judge.compute_logits(crops)
        if not np.isfinite(logits).all():  # of a batch the engine then takes each row alone: it is that one's fault
            raise NoAnswer(f"the judge in {self.folder} gave no usable answer about this candidate")
        probabilities = self.rule.calibration(logits, [record.get("remover") for record in records])
        return [
            Kept([{**record, "score": float(probability), "score_logit": float(logit)}])
            for record, probability, logit in zip(records, probabilities, logits, strict=True)
        ]


class KeepParams(stage.Params):
    former_names = {"discriminator": "judge"}

    discriminator: Reference = Field(description="Folder of the discriminator of the scores; its thresholds are used.")
    unchecked: bool = Field(
        False, description="Keep by a discriminator that has failed its battery, or by a judge that was not checked."
    )


class Keep(Stage):
    """Keeps candidates above the calibrated threshold, which holds the precision target for their remover."""

    name = "keep"
    needs: ClassVar[Schema] = {"score": Kind.FLOAT, "remover": Kind.STRING}
    pictures = False
    Params = KeepParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        folder = resolve(params.discriminator)
        self.rule: Rule = read_rule(folder)
        if not params.unchecked:
            check_battery(folder, judges.needs_check(folder))

    def list_open_kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        return frozenset()  # the candidates that it keeps are accepted

    def weights(self) -> Mapping[str, Path]:
        return {"calibration.json": resolve(self.params.discriminator) / "calibration.json"}

    def process_one(self, record: Record) -> Outcome:
        score, remover = record["score"], record["remover"]
        if score is None or not np.isfinite(score):
            raise NoAnswer(f"the score is {score}: a candidate without a score is neither kept nor rejected by it")
        match self.rule.decide(score, remover):
            case "keep":
                return Kept([record])
            case "people":
                return Rejected("left to people", f"too few votes on '{remover}' for a calibrated threshold")
            case _:
                threshold = self.rule.removers[remover].threshold
                limit = f"at most {threshold:.3f}" if threshold is not None else f"no threshold for '{remover}' holds"
                return Rejected("score too low", f"{score:.3f}: {limit}")
