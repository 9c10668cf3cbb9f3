"""What stands on which kind of floor, and whether that is indoors or outdoors. From general knowledge, and short: what
is not named here may stand anywhere."""

from collections.abc import Mapping, Sequence

from rasura.stages.compositing.class_sizes import SAME, class_size

KINDS: Mapping[str, frozenset[str]] = {
    # kind: names of classes, as in `floor.classes`
    "road": frozenset({"road", "runway", "parking", "crosswalk", "bike lane"}),
    "path": frozenset({"sidewalk", "pavement", "path", "pedestrian area", "pier"}),
    "land": frozenset({
        "earth", "ground", "soil", "land", "dirt", "dirt track", "terrain", "field", "playingfield", "grass", "gravel",
        "sand", "snow",
    }),
    "floor": frozenset({"floor", "flooring", "rug", "carpet", "stage", "platform"}),
    "top": frozenset({
        "table", "dining table", "coffee table", "pool table", "desk", "counter", "countertop", "kitchen island",
    }),
}  # fmt: skip
OUTSIDE, INSIDE = frozenset(["road", "path", "land"]), frozenset(["floor", "top"])
LOW = 0.5  # m: what is higher is not put on a table

STANDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(["car", "taxi", "van", "bus", "truck", "motorcycle"], frozenset(["road", "land"])),
    "tram": frozenset(["road"]),
    **dict.fromkeys(["horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"], frozenset(["land", "road"])),
    **dict.fromkeys(["fire hydrant", "parking meter", "mailbox"], frozenset(["path"])),
    **dict.fromkeys(["stop sign", "traffic light", "traffic cone"], frozenset(["road", "path"])),
    **dict.fromkeys(["barrel", "shopping cart"], OUTSIDE),
    **dict.fromkeys(["bed", "toilet", "sink", "oven", "refrigerator", "tv", "couch", "armchair", "desk"], INSIDE),
    "dining table": INSIDE,
}
INDOORS = frozenset({
    "bed", "toilet", "sink", "oven", "refrigerator", "microwave", "toaster", "tv", "couch", "dining table", "laptop",
})  # fmt: skip
OUTDOORS = frozenset({
    "car", "bus", "truck", "train", "boat", "airplane", "traffic light", "stop sign", "fire hydrant", "parking meter",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "surfboard", "kite", "snowboard", "skis",
})  # fmt: skip
"""Things that are found only there, or nearly (toilets have been seen in meadows)."""


def floor_kind(floor: str | None) -> str | None:
    """The kind of a floor class, by any of the names that its label goes by; None where it is none of them."""
    names = {part.strip() for part in (floor or "").lower().replace("_", " ").split(",")}
    names |= {name.split("-")[0].strip() for name in names}
    return next((kind for kind, known in KINDS.items() if names & known), None)


def place_of(labels: Sequence[str], floor: str | None) -> str | None:
    """`indoors` or `outdoors`, told by things that belong there and by the floor's class; None where they tell nothing
    or disagree."""
    names = set(labels)
    votes = {"indoors": len(names & INDOORS), "outdoors": len(names & OUTDOORS)}
    kind = floor_kind(floor)
    if kind in ("floor", "top"):
        votes["indoors"] += 1
    elif kind is not None:
        votes["outdoors"] += 1
    told = [place for place, count in votes.items() if count]
    return told[0] if len(told) == 1 else None


def misplaced(label: str | None, floor: str | None, place: str | None) -> str | None:
    """Why a thing does not stand there, None where it may.

    Args:
        floor: the class of the floor, None where no network tells. place: indoors, outdoors, or None.
    """
    name = (label or "").strip().lower().replace("_", " ")
    name = SAME.get(name, name)
    size, kind = class_size(name), floor_kind(floor)
    if kind == "top" and (size is None or size[0] > LOW):
        return f"{name or 'a thing of unknown size'} on a {floor}"
    allowed = STANDS.get(name)
    if allowed is None:
        return None
    if kind is not None:
        return None if kind in allowed else f"{name} on {floor}"
    if place is not None:
        return None if allowed & (INSIDE if place == "indoors" else OUTSIDE) else f"{name} {place}"
    if allowed <= OUTSIDE or allowed <= INSIDE:
        return f"{name} where nobody tells whether it is indoors"
    return None
