"""The arrangement of a triplet's objects, and the measurements on it that its row keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasura.stages.compositing.cutouts import Cutout
from rasura.stages.compositing.placement import Placement
from rasura.stages.compositing.projection import View
from rasura.stages.compositing.rendering import Layer, compute_visibility

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RenderedObject:
    """A layer with the direction of its shadow."""

    layer: Layer
    shadow_azimuth: float | None  # degrees, on the background
    shadow_rotation: float  # degrees by which the shadow was rotated for it


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Objects of a triplet, far to near, and which of them is removed."""

    objects: Sequence[RenderedObject]
    shadow_difference: float | None  # degrees, the largest between two shadows; None: fewer than two
    removed: int
    visible_shares: Sequence[float]

    @property
    def layers(self) -> list[Layer]:
        return [rendered.layer for rendered in self.objects]


def transfer_azimuth(cutout: Cutout, placement: Placement, view: View | None) -> float | None:
    """Return the direction, degrees, of a cut-out's shadow on the background; None where it is unknown."""
    azimuth = cutout.shadow_azimuth
    if azimuth is None or view is None or cutout.view is None:
        return azimuth
    x, y = placement.contact_point
    # it keeps its angle to the line of sight, which has another bearing here
    return azimuth + (cutout.view.bearing(*cutout.photo_contact_point) - view.bearing(x + 0.5, y + 1.0))


def measure_visible_share(layers: Sequence[Layer], index: int) -> float:
    """Measure the share of a layer's object that is inside the frame and not hidden by nearer ones."""
    layer = layers[index]
    visible = layer.object_mask & (compute_visibility(layers, index, layer.window) > 0.5)
    return float(visible.sum()) / max(1, layer.object_pixels)


def measure_shadow_support(layer: Layer, ground: Array | None) -> float | None:
    """Measure the share of a layer's shadow, weighted by its darkness, on the ground mask: the rest is on walls."""
    x0, y0, x1, y1 = layer.shadow_window
    total = float(layer.shadow.sum(dtype=np.float64))
    if ground is None or total < 1:
        return None
    return float(layer.shadow[ground[y0:y1, x0:x1]].sum(dtype=np.float64)) / total


def describe_placements(arrangement: Arrangement, quality: int | None) -> dict[str, Any]:
    """Return the column `placement`: which object was removed, and of each, far to near, where it is and how."""
    objects = []
    for rendered in arrangement.objects:
        layer, azimuth = rendered.layer, rendered.shadow_azimuth
        cutout, placement = layer.cutout, layer.placement
        scale, difference = cutout.pixels_per_metre, placement.pitch_difference
        objects.append(
            {
                "id": cutout.id,
                "label": cutout.label,
                "foot": placement.contact_point,
                "scale": round(placement.scale, 6),
                "box": layer.box,
                "rule": cutout.size_rule,
                "metres": None if scale is None else round(cutout.object_size[1] / scale, 3),  # its outline's height
                "pitch": None if difference is None else round(difference, 2),
                "flipped": cutout.is_mirrored,
                **({"rotated": round(cutout.rotation, 2)} if cutout.rotation else {}),
                "shadow": None if azimuth is None else round(azimuth, 1),
                "turned": round(rendered.shadow_rotation, 1),
            }
        )
    order = [layer.cutout.id for layer in arrangement.layers]
    return {"removed": order[arrangement.removed], "order": order, "objects": objects, "jpeg": quality}
