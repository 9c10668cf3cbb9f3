"""Foregrounds onto a background: a triplet with an exact answer (OBER's simulated part).

Of one to three foregrounds one is removed; the others stay in the target with their own shadows. They stand on the
background's floor, as large as they would be there, and their shadows lie on it (`placing`, `projection`, `laying`).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from rasura.manifests.schemas import Kind, Schema
from rasura.stages import stage
from rasura.stages.compositing.class_places import misplaced
from rasura.stages.compositing.cutouts import Cutout, cut_sides, cutout, facing, mirrored, turned_by
from rasura.stages.compositing.degrade import degraded
from rasura.stages.compositing.harmonize import Mood
from rasura.stages.compositing.placement import Limits, Spot, collide, floor_disc, gaussian, overlap, standing
from rasura.stages.compositing.projection import View, view_of
from rasura.stages.compositing.rendering import Layer, Matching, lay, triplet, visible
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage

Array = npt.NDArray[Any]
Sizes = dict[str, tuple[float, float, float]]

ATTEMPTS = 4  # times that a draw is laid out anew when an object is hidden beyond use


class CompositeParams(stage.Params):
    placement: Literal["ground", "gaussian"] = Field(
        "ground", description="Objects stand on the floor; or, as a baseline, lie where Syn4Removal would put them."
    )
    tries: int = Field(300, ge=1, description="Positions that are drawn for each foreground.")
    leave_out: bool = Field(True, description="An object that fits nowhere is left out if others do.")
    overlap: float = Field(0.5, ge=0, le=1, description="Share of another object's box that an object may cover.")
    on_ground: float = Field(
        0.8, ge=0, le=1, description="Share of the floor under and before an object that must be ground."
    )
    min_visible: float = Field(0.4, gt=0, le=1, description="Share of each object that must be seen.")
    min_height: float = Field(0.07, gt=0, le=1, description="Smallest object, share of the background's height.")
    max_height: float = Field(0.75, gt=0, description="Largest object, share of the background's height.")
    max_upscale: float = Field(1.3, gt=0, description="Enlargement above which an object would be blurred.")
    max_outside: float = Field(0.0, ge=0, lt=1, description="Share of an object's box that may lie beyond the frame.")
    max_pitch: float = Field(
        15.0, gt=0, le=90, description="Degrees between how steeply an object is looked down on here and in its photo."
    )
    max_view_error: float | None = Field(
        8.0, gt=0, description="Degrees by which the view of an object or of a floor may be unsure; null: guesses too."
    )
    max_size_error: float | None = Field(
        0.3, gt=0, description="Relative error that a pasted object's size may have; null: guesses too."
    )
    places: bool = Field(True, description="Things stand where their class can: no car in a kitchen.")
    allow_cut: bool = Field(False, description="Place objects that their photo's frame cut, at the same side again.")
    eye: float = Field(1.6, gt=0, description="Height in metres of a camera of which nothing better is known.")
    size_trust: float = Field(
        1.6, ge=1, description="Factor off its class's size above which a photo's own metres are not believed."
    )
    sizes: Sizes = Field({}, description="Label to height, width, length in metres, before the built-in table.")
    scale_jitter: float = Field(
        0.05, ge=0, description="Spread of the size, log units, where one of the floors has no metres of its own."
    )
    areas: dict[str, tuple[float, float]] = Field(
        {}, description="gaussian: label to mean and deviation of the object's share of a picture; else its own share."
    )
    area_spread: float = Field(0.3, ge=0, description="gaussian: relative deviation of a label that `areas` lacks.")
    flip: Literal["never", "compatible", "random"] = Field(
        "compatible",
        description="Objects are mirrored, where the draw does not say it: never; where shadows then agree; by chance.",
    )
    turn_shadows: float = Field(
        20.0, ge=0, le=180, description="Degrees by which a shadow may be turned so that all fall one way."
    )
    max_shadow: float = Field(
        45.0, ge=0, le=180, description="Degrees between two shadows above which an object is left out (or the draw)."
    )
    colour: float = Field(0.4, ge=0, le=1, description="How far light and white go towards the background's, 0: not.")
    max_exposure: float = Field(0.2, ge=0, le=1, description="Most that an object is made brighter or darker.")
    max_balance: float = Field(0.05, ge=0, le=1, description="Most that a channel is changed by white balance.")
    max_grain: float = Field(3.0, ge=0, description="Most noise that is added or taken, levels; 0: left as it is.")
    noise: tuple[float, float] = Field((0, 0), description="Sensor noise of the finished pictures, levels, from, to.")
    jpeg: tuple[int, int] | None = Field(None, description="Quality of a JPEG they go through, from, to; null: none.")

    @field_validator("noise", "jpeg")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] <= value[1] <= 100:
            raise ValueError(f"from and to have to be ordered and within 0 to 100, not {list(value)}")
        return value


class Composite(Stage):
    """Lays drawn foregrounds over a background and gives the triplet in which one of them is removed."""

    name = "composite"
    version = "3"
    needs: ClassVar[Schema] = {"background": Kind.RGB, "ground_mask": Kind.MASK, "ground_scale": Kind.FLOATS}
    gives: ClassVar[Schema] = {
        "kind": Kind.STRING,
        "source": Kind.RGB,
        "target": Kind.RGB,
        "mask": Kind.MASK,
        "foreground_mask": Kind.MASK,
        "label": Kind.STRING,
        "placement": Kind.STRING,  # JSON: every object, and how it was placed
        "placement_rule": Kind.STRING,  # what told the removed object's size; see `cutouts.measured`
        "placement_pitch": Kind.FLOAT,  # degrees, largest difference of view of its objects; null: unknown
        "placement_shadow": Kind.FLOAT,  # degrees between the directions of its shadows; null: fewer than two known
        "placement_floor": Kind.FLOAT,  # share of the removed object's shadow that lies on ground; null: it has none
        "placement_visible": Kind.FLOAT,  # share of the removed object that is seen
        "shadow_azimuth": Kind.FLOAT,  # of the removed object, on the background
        "objects": Kind.INT,
    }
    drops: ClassVar[frozenset[str]] = frozenset(
        {
            *("background", "foregrounds", "ground_mask", "ground_rule", "ground_area", "ground_residual"),
            *("ground_scale", "ground_plane", "ground_focal", "ground_metric", "ground_class", "ground_water"),
            *("ground_view_error", "ground_size_error", "ground_seen", "ground_things", "ground_place"),
        }
    )
    Params = CompositeParams
    params: CompositeParams

    def limits(self) -> Limits:
        p = self.params
        return Limits(
            tries=p.tries,
            on_ground=p.on_ground,
            min_height=p.min_height,
            max_height=p.max_height,
            max_upscale=p.max_upscale,
            max_outside=p.max_outside,
            pitch=p.max_pitch,
            overlap=p.overlap,
            jitter=p.scale_jitter,
        )

    def ready(self, foregrounds: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> list[Cutout]:
        """The foregrounds as cut-outs, mirrored as the draw says in `mirror`, else as `flip` says."""
        p = self.params
        made = [cutout(one, p.eye, p.size_trust, p.sizes) for one in foregrounds]
        told = [one.get("mirror") for one in foregrounds]
        if any(value is not None for value in told):
            return [mirrored(one) if flip else one for one, flip in zip(made, told, strict=True)]
        if p.flip == "random" and rng.random() < 0.5:
            made = [mirrored(one) for one in made]
        return made if p.flip == "never" else facing(made)

    def arranged(
        self, cutouts: Sequence[Cutout], record: Record, view: View | None, rng: np.random.Generator
    ) -> tuple[list[tuple[Cutout, Spot]], Counter[str]]:
        """Cut-outs with a place each, and why the positions of those that found none were refused."""
        p, limits = self.params, self.limits()
        ground, things = record["ground_mask"], record.get("ground_things") or []
        size = (record["background"].shape[1], record["background"].shape[0])
        placed: list[tuple[Cutout, Spot]] = []
        refused: Counter[str] = Counter()
        for one in cutouts:
            if p.placement == "gaussian":
                share = float(one.solid.sum()) / (one.size[0] * one.size[1])
                areas = p.areas.get(one.label or "", (share, p.area_spread * share))
                placed.append((one, gaussian(one, size, [spot.box for _, spot in placed], areas, limits, rng)))
                continue
            sides = cut_sides(one.solid, one.corner, one.size)
            spots, lost = standing(one, sides, ground, view, record["ground_scale"], things, limits, rng)
            taken = [(spot.box, None if view is None else floor_disc(who, spot, view)) for who, spot in placed]
            for spot in spots:
                disc = None if view is None else floor_disc(one, spot, view)
                if all(
                    max(overlap(spot.box, box), overlap(box, spot.box)) <= p.overlap and not collide(disc, other)
                    for box, other in taken
                ):
                    placed.append((one, spot))
                    break
            else:
                refused += lost + Counter({"beside the others": len(spots)} if spots else {})
        return placed, refused

    def laid(
        self, placed: Sequence[tuple[Cutout, Spot]], record: Record, view: View | None, rng: np.random.Generator
    ) -> tuple[list[tuple[Layer, float | None, float]], float | None]:
        """Layers, far to near, each with where its shadow falls on the background (degrees) and how far that was
        turned; and the largest angle that is left between two shadows."""
        p = self.params
        falls: list[float | None] = []
        for one, spot in placed:
            fall = one.azimuth
            if fall is not None and view is not None and one.view is not None:
                # it keeps its angle to the line of sight, which has another bearing here
                fall += one.view.bearing(*one.stand) - view.bearing(spot.foot[0] + 0.5, spot.foot[1] + 1.0)
            falls.append(fall)
        sure = [(one.confidence, fall) for (one, _), fall in zip(placed, falls, strict=True) if fall is not None]
        agreed = max(sure, key=lambda pair: pair[0])[1] if sure else None
        how = Matching(Mood.of(record["background"]), p.colour, p.max_exposure, p.max_balance, p.max_grain)
        layers: list[tuple[Layer, float | None, float]] = []
        for (one, spot), fall in zip(placed, falls, strict=True):
            turn = 0.0
            floors = view if p.placement == "ground" else None
            if fall is not None and agreed is not None:
                off = turned_by(agreed - fall)
                if floors is not None and one.view is not None:
                    turn = float(np.clip(off, -p.turn_shadows, p.turn_shadows))
                if p.placement == "ground" and abs(off - turn) > p.max_shadow:
                    continue
            layer = lay(one, spot, record["background"], floors, turn, how, rng)
            if layer is not None:
                layers.append((layer, None if fall is None else (fall + turn) % 360, turn))
        if p.placement == "ground":  # stable: equal feet keep the drawn order
            layers.sort(key=lambda entry: entry[0].spot.foot[1])
        left = [fall for _, fall, _ in layers if fall is not None]
        angles = [abs(turned_by(a - b)) for k, a in enumerate(left) for b in left[:k]]
        return layers, max(angles, default=None)

    def process_one(self, record: Record) -> Outcome:
        p = self.params
        if not record["foregrounds"]:
            raise ValueError(f"record {record['id']} has no foregrounds to place")
        if p.placement == "ground":
            if record["ground_mask"] is None or not record["ground_mask"].any():
                return Rejected("no place", "the ground mask is empty")
            if record["ground_scale"] is None:
                return Rejected("no place", "the ground has no scale")
            if (why := self.guessed(record)) is not None:
                return Rejected("floor is a guess", why)
        rng = self.rng(record)
        cutouts = self.ready(record["foregrounds"], rng)
        faults = {one.id: fault for one in cutouts if (fault := self.fault(one, record)) is not None}
        fit = [one for one in cutouts if one.id not in faults]
        if not fit or (faults and not p.leave_out):
            reason, _ = Counter(reason for reason, _ in faults.values()).most_common(1)[0]
            return Rejected(reason, "; ".join(f"{id}: {detail}" for id, (_, detail) in faults.items()))
        height, width = record["background"].shape[:2]
        view = view_of(record, (width, height))
        if view is not None and not view.metric:
            view = view.scaled(p.eye / view.d, metric=False)
        for _ in range(ATTEMPTS):
            placed, refused = self.arranged(fit, record, view, rng)
            if not placed or (len(placed) < len(fit) and not p.leave_out):
                why = ", ".join(f"{count} {name}" for name, count in refused.most_common())
                steep = refused["pitch"] > 0.9 * p.tries
                return Rejected("seen from another height" if steep else "no place", f"positions refused: {why}")
            layers, apart = self.laid(placed, record, view, rng)
            if len(layers) < len(fit) and not p.leave_out:
                return Rejected("shadows disagree", f"more than {p.max_shadow} degrees apart")
            goes = int(rng.integers(len(layers))) if layers else 0
            order = [layer for layer, _, _ in layers]
            shown = [seen_share(order, k) for k in range(len(order))]
            if layers and min(shown) >= p.min_visible:
                break
        else:
            return Rejected("no place", "an object stays hidden behind another")
        source, target, mask, foreground_mask = triplet(record["background"], order, goes)
        quality = None if p.jpeg is None else int(rng.integers(p.jpeg[0], p.jpeg[1] + 1))
        source, target = degraded(source, target, foreground_mask, float(rng.uniform(*p.noise)), quality, rng)
        gone = order[goes]
        pitches = [abs(layer.spot.pitch) for layer in order if layer.spot.pitch is not None]
        out = {name: value for name, value in record.items() if name not in self.drops}
        if "parents" in out:
            absent = {one.id for one in cutouts} - {layer.cutout.id for layer in order}
            out["parents"] = [parent for parent in out["parents"] or [] if parent not in absent]
        out |= {"kind": "simulated", "source": source, "target": target, "mask": mask}
        out |= {"foreground_mask": foreground_mask, "label": gone.cutout.label, "objects": len(order)}
        out |= {
            "placement": json.dumps(described(layers, goes, quality)),
            "placement_rule": "gaussian" if p.placement == "gaussian" else gone.cutout.rule,
            "placement_pitch": max(pitches, default=None),
            "placement_shadow": apart,
            "placement_floor": on_ground(gone, record["ground_mask"]),
            "placement_visible": shown[goes],
            "shadow_azimuth": layers[goes][1],
        }
        return Kept([out])

    def guessed(self, record: Record) -> str | None:
        """Why a background's floor is not known well enough, None where it is."""
        for what, limit in (("view", self.params.max_view_error), ("size", self.params.max_size_error)):
            error = record.get(f"ground_{what}_error")
            if limit is not None and (error is None or error > limit):
                how = "unknown" if error is None else f"off by {error:.2g}, more than {limit:g}"
                return f"{record.get('ground_rule')}: its {what} is {how}"
        return None

    def fault(self, one: Cutout, record: Record) -> tuple[str, str] | None:
        """Why a cut-out can stand nowhere on a background, as a reason and a detail; None where it can."""
        p = self.params
        sides = cut_sides(one.solid, one.corner, one.size)
        if sides and (not p.allow_cut or {"left", "right"} <= sides or {"top", "bottom"} <= sides):
            return "cut object", f"the frame of its own photo cuts it at the {', '.join(sorted(sides))}"
        if p.placement == "gaussian":
            return None
        if p.max_view_error is not None and (one.view_error is None or one.view_error > p.max_view_error):
            off = "unknown" if one.view_error is None else f"off by {one.view_error:.2g} degrees"
            return "view of the object is a guess", off
        if p.max_size_error is not None:
            own = np.inf if one.size_error is None else one.size_error
            error = float(np.hypot(own, record.get("ground_size_error") or 0.0))
            if error > p.max_size_error:
                return "size of the object is a guess", f"off by {error:.2g}, told by {one.rule}"
        if p.places:
            why = misplaced(one.label, record.get("ground_class"), record.get("ground_place"))
            if why is not None:
                return "out of place", why
        return None


def seen_share(layers: Sequence[Layer], number: int) -> float:
    """Share of a layer's object that is inside the frame and not hidden by nearer ones."""
    layer = layers[number]
    return float((layer.solid & (visible(layers, number, layer.window) > 0.5)).sum()) / max(1, layer.pixels)


def on_ground(layer: Layer, ground: Array | None) -> float | None:
    """Share of a layer's shadow, weighted by its darkness, on the ground mask: the rest would climb walls."""
    x0, y0, x1, y1 = layer.shade_window
    whole = float(layer.shade.sum(dtype=np.float64))
    if ground is None or whole < 1:
        return None
    return float(layer.shade[ground[y0:y1, x0:x1]].sum(dtype=np.float64)) / whole


def described(layers: Sequence[tuple[Layer, float | None, float]], goes: int, quality: int | None) -> dict[str, Any]:
    """What `placement` says: who was removed, and of each object, far to near, where and how it was laid."""
    objects = []
    for layer, fall, turn in layers:
        one, spot = layer.cutout, layer.spot
        metres = None if one.density is None else round(one.extent[1] / one.density, 3)
        objects.append(
            {
                "id": one.id,
                "label": one.label,
                "foot": spot.foot,
                "scale": round(spot.scale, 6),
                "box": layer.box,
                "rule": one.rule,
                "metres": metres,  # its outline's height over the pixels a metre at its foot
                "pitch": None if spot.pitch is None else round(spot.pitch, 2),
                "flipped": one.flipped,
                "shadow": None if fall is None else round(fall, 1),
                "turned": round(turn, 1),
            }
        )
    names = [layer.cutout.id for layer, _, _ in layers]
    return {"removed": names[goes], "order": names, "objects": objects, "jpeg": quality}
