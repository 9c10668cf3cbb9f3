"""Stage `pair`: registers `gt` to `input`'s pixel grid and exposure, and measures how well the two fit.

`input` is never changed: it becomes the triplet's source. The measurements (shift, residual motion, gain, noise, PSNR)
are only stored; whether a camera counts as fixed is decided later, by thresholds on those columns.
"""

import numpy as np
from pydantic import Field

from rasura.manifests.schemas import Kind
from rasura.stages.imaging.detail import measure_pair_detail
from rasura.stages.registration.exposure import IDENTITY, apply_tone, compute_gain_factor
from rasura.stages.registration.motion import Registration, estimate_registration, measure_residual_motion
from rasura.stages.registration.noise import estimate_noise, measure_background_psnr
from rasura.stages.registration.resampling import translate_and_fill
from rasura.stages.registration.tone_curve import estimate_tone
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage


class PairParams(Params):
    register_pictures: bool = Field(True, description="Move gt onto input's pixel grid (translation).")
    match_exposure: bool = Field(True, description="Scale gt's channels to input's exposure.")
    match_tone: bool = Field(True, description="Add a tone curve to that, where the two were developed differently.")
    dead_zone: float = Field(0.0035, ge=0, description="Gains closer to 1 than this are left at 1.")


class Pair(Stage):
    """Register gt to input and match its exposure."""

    name = "pair"
    version = "4"
    needs = {"input": Kind.RGB, "gt": Kind.RGB}
    gives = {
        "gt": Kind.RGB,
        "pair_shift_x": Kind.FLOAT,
        "pair_shift_y": Kind.FLOAT,
        "pair_motion": Kind.FLOAT,
        "pair_gain": Kind.FLOATS,
        "pair_gain_max": Kind.FLOAT,  # the strongest of these, up or down, as a factor of at least 1
        "pair_tone": Kind.FLOAT,  # grey levels, the most that the tone curve adds or takes
        "pair_noise": Kind.FLOAT,
        "pair_psnr": Kind.FLOAT,
        "pair_sharpness": Kind.FLOAT,  # log2 of gt's contrast over input's, of the strongest details
        "pair_grain": Kind.FLOAT,  # the same at a typical pixel
        "pair_blocks": Kind.FLOAT,  # how much more gt shows a grid of 8 px, as compression leaves one
    }
    Params = PairParams
    params: PairParams

    def process_one(self, record: Record) -> Outcome:
        source, clean = record["input"], record["gt"]
        if source.shape != clean.shape:
            sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (source, clean)]
            return Rejected("frames do not match", f"input {sizes[0]}, gt {sizes[1]}")
        registration = Registration(0.0, 0.0, "identity")
        if self.params.register_pictures:
            registration = estimate_registration(source, clean)
        dx, dy = registration.dx, registration.dy
        gains, curve = IDENTITY, np.zeros((256, 3), np.float32)
        if self.params.match_exposure:
            shifted = translate_and_fill(clean, dx, dy, source)
            gains, curve = estimate_tone(source, shifted, self.params.dead_zone, self.params.match_tone)
        # Toned before it is moved, so that what is filled in from input keeps input's own exposure.
        toned = apply_tone(clean, gains, curve)
        registered = translate_and_fill(toned, dx, dy, source)
        detail = measure_pair_detail(source, toned, dx, dy)
        measurements = {
            "gt": registered,
            "pair_shift_x": dx,
            "pair_shift_y": dy,
            "pair_motion": measure_residual_motion(source, registered),
            "pair_gain": list(gains),
            "pair_gain_max": compute_gain_factor(gains),
            "pair_tone": float(np.abs(curve).max()),
            "pair_noise": estimate_noise(source, registered),
            "pair_psnr": measure_background_psnr(source, registered),
            "pair_sharpness": detail.sharpness,
            "pair_grain": detail.grain,
            "pair_blocks": detail.blocks,
        }
        return Kept([record | measurements])
