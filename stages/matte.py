"""Stage `matte`: cuts the object with its effects out of a pair, as layers that can be laid over another background.

Eq. 1 of OBER: alpha is 1 on the object, the share of light that is missing on its effects, 0 elsewhere. That layer is
black on the effects, so it can only darken; what brightens (reflections, bounced light) is a second, additive layer.
"""

import numpy as np
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.matting.edges import depth_outside, edge_layers
from rasura.stages.matting.layers import (
    RGBA,
    added_light,
    compose,
    end_weight,
    grain,
    light_energy,
    psnr,
    shadow_alpha,
    stacked,
)
from rasura.stages.pair import box_mean
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage


def layers_from_pair(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, reach: float = 0.025, fade: int = 16
) -> tuple[RGBA, RGB]:
    """The pair's two layers, so that `compose(foreground, light, clean)` is source.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        reach: share of the diagonal around M_o within which hair and blur are looked for.
        fade: px beyond M_fg over which a faint shadow runs out.

    Returns:
        (h, w, 4) uint8, straight alpha: the object, fractional at its edge and free of the background's colour, over
        black with the shadow's α; (h, w, 3) uint8: light that the effects add.
    """
    where = foreground_mask | object_mask
    distance = depth_outside(where)
    calm = distance > max(4, fade)
    around = (distance <= fade) & ~object_mask
    shade = shadow_alpha(source, clean, around, calm)
    weight = end_weight(shade, where, fade)
    noise = grain(box_mean(source.astype(np.float32).mean(2) - clean.mean(2), 5), calm)
    coverage, colour, behind = edge_layers(
        source, clean, object_mask, where, shade, noise, max(3, round(reach * float(np.hypot(*where.shape))))
    )
    foreground = stacked(coverage, colour, np.asarray(behind * weight, np.float32))
    bare = (weight > 0) & (coverage == 0)
    # what rounding α to 8 bits leaves over is light that is there
    alpha = np.asarray(foreground[..., 3] / np.float32(255), np.float32)
    light = added_light(source, clean, alpha, bare, calm) * weight[..., None]
    return foreground, np.clip(np.rint(light), 0, 255).astype(np.uint8)


class MatteParams(Params):
    reach: float = Field(
        0.025,
        ge=0,
        le=0.2,
        description="Share of the diagonal around the object where hair and blur get fractional alpha.",
    )
    fade: int = Field(16, ge=0, description="px beyond foreground_mask over which faint shadow runs out.")


class Matte(Stage):
    """Makes the foreground of a pair: object and effects, cut out."""

    name = "matte"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK, "foreground_mask": Kind.MASK}
    gives = {
        "foreground": Kind.RGBA,
        "foreground_light": Kind.RGB,
        "foreground_object": Kind.MASK,
        "foreground_box": Kind.FLOATS,
        "alpha_psnr": Kind.FLOAT,
        "alpha_psnr_effects": Kind.FLOAT,
        "light_energy": Kind.FLOAT,
        "shadow_alpha": Kind.FLOAT,
    }
    Params = MatteParams
    params: MatteParams

    def process_one(self, record: Record) -> Outcome:
        source, clean, object_mask = record["input"], record["gt"], record["object_mask"]
        where = record["foreground_mask"] | object_mask
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        effects = where & ~object_mask
        whole, light = layers_from_pair(source, clean, object_mask, where, self.params.reach, self.params.fade)
        back = compose(whole, light, clean)
        drawn = (whole[..., 3] > 0) | light.any(2) | object_mask
        rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        measured = {
            "alpha_psnr": psnr(back, source),
            "alpha_psnr_effects": psnr(back[effects], source[effects]) if effects.any() else None,
            "light_energy": light_energy(light, source, clean, effects),
            "shadow_alpha": float(whole[..., 3][effects].mean() / 255) if effects.any() else 0.0,
        }
        cut = {
            "foreground": whole[y0:y1, x0:x1].copy(),
            "foreground_light": light[y0:y1, x0:x1].copy(),
            "foreground_object": object_mask[y0:y1, x0:x1].copy(),
            "foreground_box": [float(v) for v in (x0, y0, x1, y1)],
        }
        return Kept([record | cut | measured])
