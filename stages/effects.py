"""Stage `effects`: what differs between a registered pair: the object and its shadow, reflection and bounced light.

Two methods. `noise` segments what stands out of the pair's own noise and is connected to something that a shadow cannot
explain (the object core); small things that moved by themselves are cut out. A clip's pairs have a noise of each pixel
as well (`clip_noise`: leaves in the wind). `osor` is OSOR's published heat map with its constants, for comparison.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from rasura.manifests.schemas import Kind
from rasura.stages.effect_mask.leftovers import measure_leftovers
from rasura.stages.effect_mask.moved_things import find_moved_things
from rasura.stages.effect_mask.object_core import find_clean_only_blobs
from rasura.stages.effect_mask.osor import segment_foreground_osor
from rasura.stages.effect_mask.segmentation import MIN_EFFECT_LEVEL, find_clean_only_shadows, segment_foreground
from rasura.stages.imaging.components import label_components
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage

NOISE_UNITS = 100  # of `clip_noise`, a grey level


class EffectsParams(Params):
    method: Literal["noise", "osor"] = Field("noise", description="How a change is distinguished from noise.")
    threshold: float = Field(MIN_EFFECT_LEVEL, gt=0, description="Faintest change, grey levels of a 5x5 mean (noise).")
    sigmas: float = Field(3.0, gt=0, description="Faintest change in multiples of pair_noise and clip_noise (noise).")
    reach: float = Field(0.03, ge=0, description="Gap between an object and its effect, share of the diagonal (noise).")


class Effects(Stage):
    """Segment M_fg, the object with its effects, from what differs in a pair."""

    name = "effects"
    version = "6"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "pair_noise": Kind.FLOAT}
    gives = {
        "foreground_mask": Kind.MASK,
        "effects_area": Kind.FLOAT,
        "effects_parts": Kind.FLOAT,
        "effects_stray": Kind.FLOAT,
        "effects_moved": Kind.FLOAT,  # share of the picture that was cut out of M_fg: things that moved by themselves
        "effects_left": Kind.FLOAT,
    }
    drops = frozenset({"clip_noise"})  # it has done its work; datasets have no use for it
    Params = EffectsParams
    params: EffectsParams

    def process_one(self, record: Record) -> Outcome:
        source, clean, params = record["input"], record["gt"], self.params
        spread = None if record.get("clip_noise") is None else record["clip_noise"].astype(np.float32) / NOISE_UNITS
        moved = np.zeros(source.shape[:2], bool)
        if params.method == "osor":
            changed = foreground = segment_foreground_osor(source, clean)
        else:
            changed, foreground = segment_foreground(
                source, clean, record["pair_noise"], params.threshold, params.sigmas, params.reach, spread
            )
            moved = find_moved_things(source, clean, changed, foreground)
            foreground &= ~moved
        if not foreground.any():
            return Rejected("no difference", f"nothing above {params.threshold} levels and {params.sigmas} sigma")
        elsewhere = changed & ~foreground & ~moved
        elsewhere &= ~find_clean_only_shadows(source, clean, elsewhere, foreground)
        elsewhere &= ~find_clean_only_blobs(source, clean, elsewhere)  # the source, hence the target, has no such thing
        measurements = {
            "foreground_mask": foreground,
            "effects_area": float(foreground.mean()),
            "effects_parts": float(label_components(foreground)[0]),
            "effects_stray": float((changed & ~foreground).sum() / max(1, (changed | foreground).sum())),
            "effects_moved": float(moved.mean()),
            "effects_left": measure_leftovers(source, clean, elsewhere, foreground),
        }
        return Kept([{name: value for name, value in record.items() if name not in self.drops} | measurements])
