"""Rules by class: the kinds of ground that a class stands on, and whether it is found indoors or outdoors.

From general knowledge, and short: a class that is not named here may stand anywhere.
"""

from collections.abc import Mapping, Sequence

from rasura.stages.compositing.class_sizes import SYNONYMS, find_class_size


def _parse_names(names: str) -> frozenset[str]:
    return frozenset(name.strip() for name in names.split(","))


GROUND_KINDS: Mapping[str, frozenset[str]] = {
    # kind: names of classes, as in `ground_plane.classes`
    "road": _parse_names("road, runway, parking, crosswalk, bike lane"),
    "path": _parse_names("sidewalk, pavement, path, pedestrian area, pier"),
    "land": _parse_names(
        "earth, ground, soil, land, dirt, dirt track, terrain, field, playingfield, grass, gravel, sand, snow"
    ),
    "floor": _parse_names("floor, flooring, rug, carpet, stage, platform"),
    "top": _parse_names("table, dining table, coffee table, pool table, desk, counter, countertop, kitchen island"),
}
OUTDOOR_KINDS, INDOOR_KINDS = frozenset(["road", "path", "land"]), frozenset(["floor", "top"])
MAX_TABLETOP_HEIGHT = 0.5  # m: what is higher is not put on a table

ALLOWED_GROUNDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(["car", "taxi", "van", "bus", "truck", "motorcycle"], frozenset(["road", "land"])),
    "tram": frozenset(["road"]),
    **dict.fromkeys(["horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"], frozenset(["land", "road"])),
    **dict.fromkeys(["fire hydrant", "parking meter", "mailbox"], frozenset(["path"])),
    **dict.fromkeys(["stop sign", "traffic light", "traffic cone"], frozenset(["road", "path"])),
    **dict.fromkeys(["barrel", "shopping cart"], OUTDOOR_KINDS),
    **dict.fromkeys(["bed", "toilet", "sink", "oven", "refrigerator", "tv", "couch", "armchair", "desk"], INDOOR_KINDS),
    "dining table": INDOOR_KINDS,
}
INDOOR_CLASSES = _parse_names(
    "bed, toilet, sink, oven, refrigerator, microwave, toaster, tv, couch, dining table, laptop"
)
OUTDOOR_CLASSES = _parse_names(
    "car, bus, truck, train, boat, airplane, traffic light, stop sign, fire hydrant, parking meter, horse, sheep, cow, "
    "elephant, bear, zebra, giraffe, surfboard, kite, snowboard, skis"
)
"""Objects that are found only there, or nearly (toilets have been seen in meadows)."""


def classify_ground(label: str | None) -> str | None:
    """Return the kind of a ground class, by any of the names that its label goes by; None where it is none of them.

    Examples:
        >>> classify_ground("floor-wood"), classify_ground("Crosswalk - Plain"), classify_ground("water")
        ('floor', 'road', None)
    """
    names = {part.strip() for part in (label or "").lower().replace("_", " ").split(",")}
    names |= {name.split("-")[0].strip() for name in names}
    return next((kind for kind, members in GROUND_KINDS.items() if names & members), None)


def classify_scene(labels: Sequence[str], ground_class: str | None) -> str | None:
    """Return `indoors` or `outdoors`, by objects that are found only there and by the class of the ground plane.

    None where there is no evidence, or evidence for both.

    Examples:
        >>> classify_scene(["car", "person"], None), classify_scene(["car"], "carpet")
        ('outdoors', None)
    """
    names = set(labels)
    votes = {"indoors": len(names & INDOOR_CLASSES), "outdoors": len(names & OUTDOOR_CLASSES)}
    kind = classify_ground(ground_class)
    if kind in INDOOR_KINDS:
        votes["indoors"] += 1
    elif kind is not None:
        votes["outdoors"] += 1
    candidates = [scene for scene, count in votes.items() if count]
    return candidates[0] if len(candidates) == 1 else None


def explain_misplacement(label: str | None, ground_class: str | None, scene: str | None) -> str | None:
    """Return why an object does not stand there, None where it may.

    Args:
        label: of the object. ground_class: None where no network reports it. scene: indoors, outdoors, or None.

    Examples:
        >>> explain_misplacement("car", "floor", "indoors")
        'car on floor'
        >>> explain_misplacement("chair", "floor", "indoors") is None
        True
    """
    name = (label or "").strip().lower().replace("_", " ")
    name = SYNONYMS.get(name, name)
    size, kind = find_class_size(name), classify_ground(ground_class)
    if kind == "top" and (size is None or size[0] > MAX_TABLETOP_HEIGHT):
        return f"{name or 'a thing of unknown size'} on a {ground_class}"
    allowed = ALLOWED_GROUNDS.get(name)
    if allowed is None:
        return None
    if kind is not None:
        return None if kind in allowed else f"{name} on {ground_class}"
    if scene is not None:
        return None if allowed & (INDOOR_KINDS if scene == "indoors" else OUTDOOR_KINDS) else f"{name} {scene}"
    if allowed <= OUTDOOR_KINDS or allowed <= INDOOR_KINDS:
        return f"{name} where nobody tells whether it is indoors"
    return None
