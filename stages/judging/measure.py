"""Stage `measure`: how close a candidate is to the truth, and what networks say of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.metrics import remove_score
from rasura.networks.metrics.encoders import load_encoder
from rasura.networks.metrics.psnr import compute_psnr
from rasura.networks.metrics.rc_s import compute_rc_s
from rasura.networks.weights import Reference, resolve
from rasura.stages import stage
from rasura.stages.judging.truth import VERSION, grow_hole, review_candidate
from rasura.stages.stage import Kept, Outcome, Record, Stage

MOST_PSNR = 60.0
"""PSNR of a perfect picture, dB, so that a mean is finite."""


class MeasureParams(stage.Params):
    lpips: Reference | None = Field(
        None, description="torchvision's AlexNet or VGG-16, .pth or .safetensors: LPIPS, where there is a true target."
    )
    remove: Reference | None = Field(None, description="SAM's image encoder, .onnx: ReMOVE, which needs no truth.")
    rc_s: Reference | None = Field(None, description="DINOv2, .onnx: RC-S, which needs no truth.")


class Measure(Stage):
    """Measures candidates: the ground-truth reviewer's verdict, PSNR in the hole and around it, LPIPS, ReMOVE, RC-S.

    What cannot be measured is null: without a truth the verdict, PSNR and LPIPS; without their networks the last three.

    Examples:
        - measure: {lpips: weights/alexnet.pth}
    """

    name = "measure"
    version = VERSION
    needs: ClassVar[Schema] = {"source": Kind.RGB, "target": Kind.RGB, "mask": Kind.MASK, "truth": Kind.RGB}
    gives: ClassVar[Schema] = {
        "truth_verdict": Kind.STRING,
        "truth_reason": Kind.STRING,
        "psnr": Kind.FLOAT,
        "psnr_background": Kind.FLOAT,
        "lpips": Kind.FLOAT,
        "remove_score": Kind.FLOAT,
        "rc_s": Kind.FLOAT,
    }
    drops: ClassVar[frozenset[str]] = frozenset({"truth", "truth_effects"})
    time_limit_s = 300.0
    Params = MeasureParams

    def weights(self) -> Mapping[str, Path]:
        files = {name: getattr(self.params, name) for name in ("lpips", "remove", "rc_s")}
        return {name: resolve(file) for name, file in files.items() if file}

    def required_modules(self) -> Sequence[str]:
        return ["onnxruntime"] if self.params.remove or self.params.rc_s else []

    def setup(self) -> None:
        files = self.weights()
        self.lpips: Any = None
        if "lpips" in files:
            from rasura.networks.metrics.lpips import Lpips

            self.lpips = Lpips(files["lpips"])
        self.features, self.encoder = (
            load_encoder(files[name]) if name in files else None for name in ("remove", "rc_s")
        )

    def process_one(self, record: Record) -> Outcome:
        target, truth, hole = record["target"], record["truth"], grow_hole(record["mask"], record["hole_dilation"] or 0)
        values: dict[str, Any] = dict.fromkeys(self.gives)
        if truth is not None:
            opinion = review_candidate(target, truth, record["source"], hole, record["truth_effects"])
            values |= {"truth_verdict": opinion.verdict, "truth_reason": opinion.reason}
            values["psnr"] = compute_psnr(target, truth, hole, MOST_PSNR)
            values["psnr_background"] = compute_psnr(target, truth, ~hole, MOST_PSNR)
            if self.lpips is not None:
                values["lpips"] = float(self.lpips.compute_distances([target], [truth])[0])
        if self.features is not None:
            values["remove_score"] = float(remove_score.compute_score(target, hole, self.features))
        if self.encoder is not None:
            values["rc_s"] = compute_rc_s(target, hole, self.encoder)
        return Kept([{name: value for name, value in record.items() if name not in self.drops} | values])
