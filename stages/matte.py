"""Stage `matte`: cuts the object with its effects out of a pair, as layers to be composed over another background.

Eq. 1 of OBER: alpha is 1 on the object, the share of light that is missing on its effects, 0 elsewhere. That layer is
black on the effects, so it can only darken; what brightens (reflections, bounced light) is a second, additive layer.
"""

import numpy as np
from pydantic import Field

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.imaging.filters import box_mean
from rasura.stages.imaging.morphology import compute_distance_to
from rasura.stages.matting.edges import estimate_edge_layers
from rasura.stages.matting.layers import (
    RGBA,
    compose,
    compute_tail_weight,
    estimate_added_light,
    estimate_grain,
    estimate_shadow_alpha,
    measure_light_energy,
    merge_layers,
)
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage


def extract_layers(
    source: RGB, clean: RGB, object_mask: Mask, foreground_mask: Mask, reach: float = 0.025, fade: int = 16
) -> tuple[RGBA, RGB]:
    """Extract the pair's two layers, so that `compose(foreground, light, clean)` is source.

    Args:
        source, clean: (h, w, 3) uint8, registered and of one exposure.
        object_mask, foreground_mask: (h, w) bool, M_o and M_fg.
        reach: share of the diagonal around M_o within which hair and blur are detected.
        fade: px beyond M_fg over which a faint shadow runs out.

    Returns:
        (h, w, 4) uint8, straight alpha: the object, fractional at its edge and free of the background's colour, over
        black with the shadow's alpha; (h, w, 3) uint8: light that the effects add.
    """
    area = foreground_mask | object_mask
    distance = compute_distance_to(area)
    unchanged = distance > max(4, fade)
    around = (distance <= fade) & ~object_mask
    shade = estimate_shadow_alpha(source, clean, around, unchanged)
    weight = compute_tail_weight(shade, area, fade)
    noise = estimate_grain(box_mean(source.astype(np.float32).mean(2) - clean.mean(2), 5), unchanged)
    edge_reach = max(3, round(reach * float(np.hypot(*area.shape))))
    coverage, colour, behind = estimate_edge_layers(source, clean, object_mask, area, shade, noise, edge_reach)
    foreground = merge_layers(coverage, colour, np.asarray(behind * weight, np.float32))
    bare = (weight > 0) & (coverage == 0)
    # what rounding alpha to 8 bits leaves over is light that is there
    alpha = np.asarray(foreground[..., 3] / np.float32(255), np.float32)
    light = estimate_added_light(source, clean, alpha, bare, unchanged) * weight[..., None]
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
    """Cut the foreground out of a pair: object and effects."""

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
        area = record["foreground_mask"] | object_mask
        if not object_mask.any():
            return Rejected("no object found", "object_mask is empty")
        effects = area & ~object_mask
        layer, light = extract_layers(source, clean, object_mask, area, self.params.reach, self.params.fade)
        composed = compose(layer, light, clean)
        x0, y0, x1, y1 = compute_bounds((layer[..., 3] > 0) | light.any(2) | object_mask)
        measurements = {
            "alpha_psnr": compute_psnr(composed, source),
            "alpha_psnr_effects": compute_psnr(composed[effects], source[effects]) if effects.any() else None,
            "light_energy": measure_light_energy(light, source, clean, effects),
            "shadow_alpha": float(layer[..., 3][effects].mean() / 255) if effects.any() else 0.0,
        }
        crop = {
            "foreground": layer[y0:y1, x0:x1].copy(),
            "foreground_light": light[y0:y1, x0:x1].copy(),
            "foreground_object": object_mask[y0:y1, x0:x1].copy(),
            "foreground_box": [float(v) for v in (x0, y0, x1, y1)],
        }
        return Kept([record | crop | measurements])
