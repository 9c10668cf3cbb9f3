"""Composition of foregrounds with a background: a triplet with an exact answer (OBER's simulated part).

Of one to three foregrounds one is removed; the others stay in the target with their own shadows. They stand on the
background's ground plane, as large as they would be there, and their shadows fall on it (`compositing.placement`,
`compositing.projection`, `compositing.rendering`).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from rasura.manifests.schemas import Kind, Schema
from rasura.stages.compositing.arrangement import (
    Arrangement,
    RenderedObject,
    describe_placements,
    measure_shadow_support,
    measure_visible_share,
    transfer_azimuth,
)
from rasura.stages.compositing.class_places import explain_misplacement
from rasura.stages.compositing.cutouts import (
    Cutout,
    align_shadow_sides,
    find_cut_sides,
    make_cutout,
    mirror_cutout,
    wrap_degrees,
)
from rasura.stages.compositing.degrade import degrade_triplet
from rasura.stages.compositing.harmonize import ColorStatistics
from rasura.stages.compositing.params import CompositeParams as CompositeParams
from rasura.stages.compositing.placement import (
    Placement,
    PlacementLimits,
    collide,
    compute_footprint,
    draw_gaussian_placement,
    find_placements,
    measure_overlap,
    read_boxes,
)
from rasura.stages.compositing.projection import View, read_view
from rasura.stages.compositing.rendering import HarmonizeSettings, compose_triplet, render_foreground
from rasura.stages.compositing.rotation import rotate_cutout
from rasura.stages.compositing.thin_objects import find_upright_lines
from rasura.stages.compositing.trimap_blend import blend_by_trimap
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]
MAX_ARRANGEMENTS = 4  # arrangements of a draw that are tried where an object is hidden too much


class Composite(Stage):
    """Render drawn foregrounds onto a background and give the triplet in which one of them is removed."""

    name = "composite"
    version = "5"
    needs: ClassVar[Schema] = {"background": Kind.RGB, "ground_mask": Kind.MASK, "ground_scale": Kind.FLOATS}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "label": Kind.STRING,
        "placement": Kind.STRING,  # JSON: every object, and how it was placed
        "placement_rule": Kind.STRING,  # origin of the removed object's size; see `cutouts.resolve_scale`
        "placement_pitch": Kind.FLOAT,  # degrees, largest difference of view of its objects; null: unknown
        "placement_shadow": Kind.FLOAT,  # degrees between the directions of its shadows; null: fewer than two
        "placement_floor": Kind.FLOAT,  # share of the removed object's shadow that is on ground; null: it has none
        "placement_visible": Kind.FLOAT,  # share of the removed object that is visible
        "shadow_azimuth": Kind.FLOAT,  # of the removed object, on the background
        "objects": Kind.INT,
    }
    drops: ClassVar[frozenset[str]] = frozenset(
        {
            *("background", "foregrounds", "ground_mask", "ground_rule", "ground_area", "ground_residual"),
            *("ground_scale", "ground_plane", "ground_focal", "ground_metric", "ground_class", "ground_water"),
            *("ground_view_error", "ground_size_error", "ground_seen", "ground_things", "ground_place"),
            *("ground_horizon", "ground_horizon_error", "ground_conflict", "ground_upright", "ground_foot"),
        }
    )
    Params = CompositeParams
    params: CompositeParams

    def process_one(self, record: Record) -> Outcome:
        if not record["foregrounds"]:
            raise ValueError(f"record {record['id']} has no foregrounds to place")
        if (rejection := self.check_background(record)) is not None:
            return rejection
        rng = self.rng(record)
        cutouts = self.prepare_cutouts(record["foregrounds"], rng)
        faults = {cutout.id: fault for cutout in cutouts if (fault := self.check_cutout(cutout, record)) is not None}
        usable = [cutout for cutout in cutouts if cutout.id not in faults]
        if not usable or (faults and not self.params.skip_unplaceable):
            reason, _ = Counter(reason for reason, _ in faults.values()).most_common(1)[0]
            return Rejected(reason, "; ".join(f"{id}: {detail}" for id, (_, detail) in faults.items()))
        arrangement = self.arrange(usable, record, rng)
        if isinstance(arrangement, Rejected):
            return arrangement
        return Kept([self.compose(arrangement, cutouts, record, rng)])

    def check_background(self, record: Record) -> Rejected | None:
        """Return why nothing can stand on a background, None where its ground plane is good enough."""
        if self.params.placement != "ground":
            return None
        if record["ground_mask"] is None or not record["ground_mask"].any():
            return Rejected("no place", "the ground mask is empty")
        if record["ground_scale"] is None:
            return Rejected("no place", "the ground has no scale")
        for quantity, limit in (("view", self.params.max_view_error), ("size", self.params.max_size_error)):
            error = record.get(f"ground_{quantity}_error")
            if limit is not None and (error is None or error > limit):
                text = "unknown" if error is None else f"off by {error:.2g}, more than {limit:g}"
                return Rejected("floor is a guess", f"{record.get('ground_rule')}: its {quantity} is {text}")
        return None

    def prepare_cutouts(self, foregrounds: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> list[Cutout]:
        """Make cut-outs of the foregrounds, mirrored as the draw's `mirror` demands, else as `flip` does."""
        p = self.params
        cutouts = [make_cutout(foreground, p.camera_height, p.size_trust, p.sizes) for foreground in foregrounds]
        mirror = [foreground.get("mirror") for foreground in foregrounds]
        if any(value is not None for value in mirror):
            return [mirror_cutout(cutout) if flip else cutout for cutout, flip in zip(cutouts, mirror, strict=True)]
        if p.flip == "random" and rng.random() < 0.5:
            cutouts = [mirror_cutout(cutout) for cutout in cutouts]
        return cutouts if p.flip == "never" else align_shadow_sides(cutouts)

    def check_cutout(self, cutout: Cutout, record: Record) -> tuple[str, str] | None:
        """Return why a cut-out can stand nowhere on a background, as a reason and a detail; None where it can."""
        p = self.params
        sides = find_cut_sides(cutout.object_mask, cutout.crop_origin, cutout.photo_size)
        if sides and (not p.allow_cut or {"left", "right"} <= sides or {"top", "bottom"} <= sides):
            return "cut object", f"the frame of its own photo cuts it at the {', '.join(sorted(sides))}"
        if p.placement == "gaussian":
            return None
        if p.max_view_error is not None and (cutout.view_error is None or cutout.view_error > p.max_view_error):
            text = "unknown" if cutout.view_error is None else f"off by {cutout.view_error:.2g} degrees"
            return "view of the object is a guess", text
        if p.max_size_error is not None:
            object_error = np.inf if cutout.size_error is None else cutout.size_error
            error = float(np.hypot(object_error, record.get("ground_size_error") or 0.0))
            if error > p.max_size_error:
                return "size of the object is a guess", f"off by {error:.2g}, told by {cutout.size_rule}"
        if p.check_scene_type:
            why = explain_misplacement(cutout.label, record.get("ground_class"), record.get("ground_place"))
            if why is not None:
                return "out of place", why
        return None

    def arrange(self, cutouts: Sequence[Cutout], record: Record, rng: np.random.Generator) -> Arrangement | Rejected:
        """Place and render the cut-outs, again where an object is hidden, and draw which one is removed."""
        p = self.params
        height, width = record["background"].shape[:2]
        view = read_view(record, (width, height))
        if view is not None and not view.metric:
            view = view.rescale(p.camera_height / view.height, metric=False)
        for _ in range(MAX_ARRANGEMENTS):
            placed, rejected = self.place_cutouts(cutouts, record, view, rng)
            if not placed or (len(placed) < len(cutouts) and not p.skip_unplaceable):
                why = ", ".join(f"{count} {name}" for name, count in rejected.most_common())
                steep = rejected["pitch"] > 0.9 * p.tries
                return Rejected("seen from another height" if steep else "no place", f"positions refused: {why}")
            objects, difference = self.render_objects(placed, record, view, rng)
            if len(objects) < len(cutouts) and not p.skip_unplaceable:
                return Rejected("shadows disagree", f"more than {p.max_shadow} degrees apart")
            if not objects:
                continue
            removed = int(rng.integers(len(objects)))
            layers = [rendered.layer for rendered in objects]
            shares = [measure_visible_share(layers, index) for index in range(len(layers))]
            if min(shares) >= p.min_visible:
                return Arrangement(objects, difference, removed, shares)
        return Rejected("no place", "an object stays hidden behind another")

    def place_cutouts(
        self, cutouts: Sequence[Cutout], record: Record, view: View | None, rng: np.random.Generator
    ) -> tuple[list[tuple[Cutout, Placement]], Counter[str]]:
        """Find a placement for each cut-out.

        Returns:
            the cut-outs that have a placement, with it; and, for the others, why positions were rejected.
        """
        p = self.params
        limits = PlacementLimits(
            tries=p.tries,
            min_support=p.on_ground,
            min_height=p.min_height,
            max_height=p.max_height,
            max_upscale=p.max_upscale,
            max_outside=p.max_outside,
            max_pitch_difference=p.max_pitch,
            max_overlap=p.overlap,
            scale_jitter=p.scale_jitter,
        )
        ground, objects, scale = record["ground_mask"], record.get("ground_things") or [], record["ground_scale"]
        size = (record["background"].shape[1], record["background"].shape[0])
        placed: list[tuple[Cutout, Placement]] = []
        rejected: Counter[str] = Counter()
        lines = find_upright_lines(record["background"]) if p.check_thin_objects and p.placement == "ground" else None
        for cutout in cutouts:
            boxes = [placement.box for _, placement in placed]
            if p.placement == "gaussian":
                occupied = [*boxes, *read_boxes(objects)]
                areas = p.areas.get(cutout.label or "", cutout.class_area or self.estimate_areas(cutout))
                rotated = rotate_cutout(cutout, rng.uniform(-p.rotation, p.rotation)) if p.rotation else cutout
                placed.append((rotated, draw_gaussian_placement(rotated, size, occupied, areas, limits, rng)))
                continue
            sides = find_cut_sides(cutout.object_mask, cutout.crop_origin, cutout.photo_size)
            candidates, reasons = find_placements(cutout, sides, ground, view, scale, objects, limits, rng, lines)
            footprints = [None if view is None else compute_footprint(*pair, view) for pair in placed]
            for placement in candidates:
                footprint = None if view is None else compute_footprint(cutout, placement, view)
                if all(
                    max(measure_overlap(placement.box, box), measure_overlap(box, placement.box)) <= p.overlap
                    and not collide(footprint, other)
                    for box, other in zip(boxes, footprints, strict=True)
                ):
                    placed.append((cutout, placement))
                    break
            else:
                rejected += reasons + Counter({"beside the others": len(candidates)} if candidates else {})
        return placed, rejected

    def estimate_areas(self, cutout: Cutout) -> tuple[float, float]:
        """Estimate mean and deviation of the share of a picture that objects like a cut-out cover, by its own."""
        share = float(cutout.object_mask.sum()) / (cutout.photo_size[0] * cutout.photo_size[1])
        return share, self.params.area_spread * share

    def render_objects(
        self,
        placed: Sequence[tuple[Cutout, Placement]],
        record: Record,
        view: View | None,
        rng: np.random.Generator,
    ) -> tuple[list[RenderedObject], float | None]:
        """Render the placed cut-outs, far to near, with their shadows rotated towards the most confident one.

        An object whose shadow still falls another way is left out. The second value is the largest angle that is left
        between two shadows, degrees; None where there are fewer than two.
        """
        p = self.params
        azimuths = [transfer_azimuth(cutout, placement, view) for cutout, placement in placed]
        candidates = [
            (cutout.shadow_confidence, azimuth)
            for (cutout, _), azimuth in zip(placed, azimuths, strict=True)
            if azimuth is not None
        ]
        reference = max(candidates, key=lambda pair: pair[0])[1] if candidates else None
        statistics = ColorStatistics.measure(record["background"])
        settings = HarmonizeSettings(statistics, p.colour, p.max_exposure, p.max_balance, p.max_grain)
        objects: list[RenderedObject] = []
        for (cutout, placement), azimuth in zip(placed, azimuths, strict=True):
            rotation = 0.0
            ground_view = view if p.placement == "ground" else None
            if azimuth is not None and reference is not None:
                off = wrap_degrees(reference - azimuth)
                if ground_view is not None and cutout.view is not None:
                    rotation = float(np.clip(off, -p.max_shadow_rotation, p.max_shadow_rotation))
                if p.placement == "ground" and abs(off - rotation) > p.max_shadow:
                    continue
            layer = render_foreground(cutout, placement, record["background"], ground_view, rotation, settings, rng)
            if layer is not None:
                if p.blend == "trimap":
                    layer = blend_by_trimap(layer, record["background"])
                final_azimuth = None if azimuth is None else (azimuth + rotation) % 360
                objects.append(RenderedObject(layer, final_azimuth, rotation))
        if p.placement == "ground":  # stable: equal contact points keep the drawn order
            objects.sort(key=lambda rendered: rendered.layer.placement.contact_point[1])
        final = [rendered.shadow_azimuth for rendered in objects if rendered.shadow_azimuth is not None]
        angles = [abs(wrap_degrees(a - b)) for k, a in enumerate(final) for b in final[:k]]
        return objects, max(angles, default=None)

    def compose(
        self, arrangement: Arrangement, cutouts: Sequence[Cutout], record: Record, rng: np.random.Generator
    ) -> Record:
        """Compose the triplet of an arrangement and its measurements."""
        p = self.params
        layers = arrangement.layers
        source, target, mask, foreground_mask = compose_triplet(record["background"], layers, arrangement.removed)
        quality = None if p.jpeg is None else int(rng.integers(p.jpeg[0], p.jpeg[1] + 1))
        noise = float(rng.uniform(*p.noise))
        source, target = degrade_triplet(source, target, foreground_mask, noise, quality, rng)
        removed = layers[arrangement.removed]
        differences = [layer.placement.pitch_difference for layer in layers]
        out = {name: value for name, value in record.items() if name not in self.drops}
        if "parents" in out:
            absent = {cutout.id for cutout in cutouts} - {layer.cutout.id for layer in layers}
            out["parents"] = [parent for parent in out["parents"] or [] if parent not in absent]
        out |= {"kind": "simulated", "source": source, "target": target, "mask": mask}
        out |= {"foreground_mask": foreground_mask, "label": removed.cutout.label, "objects": len(layers)}
        out |= {
            "placement": json.dumps(describe_placements(arrangement, quality)),
            "placement_rule": "gaussian" if p.placement == "gaussian" else removed.cutout.size_rule,
            "placement_pitch": max((abs(value) for value in differences if value is not None), default=None),
            "placement_shadow": arrangement.shadow_difference,
            "placement_floor": measure_shadow_support(removed, record["ground_mask"]),
            "placement_visible": arrangement.visible_shares[arrangement.removed],
            "shadow_azimuth": arrangement.objects[arrangement.removed].shadow_azimuth,
        }
        return out
