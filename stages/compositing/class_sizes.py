"""Typical sizes by class: height, width and length in metres, and the scale that they give a cut-out.

Sizes of the ordinary adult or mass-made specimen, from general knowledge, good to some 15 %: enough where a photo's own
metres are unknown, and a check where they are reported. Objects whose size varies freely (a ball, a plant, a toy) are
not in the table.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = tuple[float, float, float]

YAWS = np.arange(0.0, 91, 10)  # degrees; boxes turned the other way have the same outlines

SIZES: Mapping[str, Size] = {
    # label: height, width (across), length (front to back), metres
    "person": (1.70, 0.50, 0.35),
    "man": (1.76, 0.52, 0.36),
    "woman": (1.63, 0.46, 0.33),
    "child": (1.20, 0.36, 0.26),
    "bicycle": (1.05, 0.60, 1.75),
    "motorcycle": (1.15, 0.80, 2.10),
    "scooter": (1.10, 0.70, 1.80),
    "car": (1.50, 1.80, 4.40),
    "taxi": (1.50, 1.80, 4.60),
    "van": (2.10, 1.95, 5.20),
    "bus": (3.10, 2.55, 11.5),
    "truck": (3.00, 2.45, 8.00),
    "tram": (3.50, 2.50, 28.0),
    "dog": (0.60, 0.25, 0.85),
    "cat": (0.28, 0.16, 0.46),
    "bird": (0.20, 0.12, 0.26),
    "horse": (1.75, 0.60, 2.40),
    "sheep": (0.90, 0.42, 1.20),
    "cow": (1.50, 0.70, 2.40),
    "elephant": (3.00, 1.70, 5.50),
    "bear": (1.10, 0.80, 1.80),
    "zebra": (1.50, 0.55, 2.30),
    "giraffe": (4.80, 0.90, 2.60),
    "chair": (0.90, 0.48, 0.52),
    "armchair": (0.95, 0.85, 0.85),
    "couch": (0.85, 2.00, 0.92),
    "bench": (0.82, 1.50, 0.60),
    "stool": (0.62, 0.40, 0.40),
    "bed": (0.60, 1.60, 2.05),
    "table": (0.75, 1.30, 0.80),
    "dining table": (0.75, 1.50, 0.90),
    "desk": (0.74, 1.40, 0.70),
    "tv": (0.65, 1.10, 0.12),
    "refrigerator": (1.75, 0.65, 0.65),
    "oven": (0.88, 0.60, 0.60),
    "microwave": (0.29, 0.48, 0.38),
    "toilet": (0.76, 0.38, 0.68),
    "suitcase": (0.66, 0.45, 0.27),
    "backpack": (0.47, 0.32, 0.20),
    "handbag": (0.30, 0.34, 0.14),
    "umbrella": (0.90, 1.00, 1.00),
    "bottle": (0.27, 0.075, 0.075),
    "wine glass": (0.21, 0.08, 0.08),
    "cup": (0.10, 0.11, 0.085),
    "mug": (0.10, 0.12, 0.085),
    "bowl": (0.08, 0.16, 0.16),
    "laptop": (0.22, 0.33, 0.24),
    "keyboard": (0.025, 0.44, 0.14),
    "book": (0.03, 0.15, 0.22),
    "clock": (0.28, 0.28, 0.06),
    "teddy bear": (0.35, 0.28, 0.22),
    "fire hydrant": (0.75, 0.35, 0.35),
    "stop sign": (2.40, 0.75, 0.08),
    "parking meter": (1.40, 0.26, 0.20),
    "traffic light": (3.30, 0.35, 0.35),
    "traffic cone": (0.60, 0.36, 0.36),
    "trash can": (0.95, 0.50, 0.50),
    "mailbox": (1.20, 0.50, 0.45),
    "barrel": (0.88, 0.60, 0.60),
    "bowling pin": (0.38, 0.12, 0.12),
    "skateboard": (0.12, 0.20, 0.80),
    "surfboard": (2.00, 0.50, 0.10),
    "stroller": (1.05, 0.60, 0.95),
    "wheelchair": (0.92, 0.65, 1.05),
    "shopping cart": (1.02, 0.58, 0.90),
    "office chair": (1.10, 0.65, 0.65),
    "high chair": (1.00, 0.55, 0.60),
    "picnic table": (0.76, 1.50, 1.80),
    "coffee table": (0.45, 0.60, 1.10),
    "nightstand": (0.60, 0.48, 0.42),
    "washing machine": (0.85, 0.60, 0.60),
    "dishwasher": (0.85, 0.60, 0.60),
    "vending machine": (1.83, 0.95, 0.85),
    "piano": (1.22, 1.48, 0.60),
    "door": (2.03, 0.85, 0.05),
    "sink": (0.85, 0.55, 0.48),
    "phone booth": (2.40, 0.90, 0.90),
    "bollard": (0.95, 0.18, 0.18),
    "pallet": (0.145, 0.80, 1.20),
    "bucket": (0.28, 0.30, 0.30),
    "wheelbarrow": (0.65, 0.62, 1.45),
    "lawn mower": (1.00, 0.52, 1.50),
    "golf cart": (1.80, 1.20, 2.40),
    "tractor": (2.70, 2.20, 4.20),
    "train": (3.80, 2.90, 22.0),
    "boat": (1.20, 2.10, 5.50),
    "goat": (0.90, 0.35, 1.10),
    "pig": (0.80, 0.40, 1.30),
    "donkey": (1.40, 0.50, 1.80),
    "deer": (1.40, 0.45, 1.70),
    "camel": (2.10, 0.80, 3.00),
    "chicken": (0.40, 0.20, 0.36),
    "goose": (0.75, 0.28, 0.75),
    "guitar": (1.00, 0.37, 0.11),
    "basketball": (0.24, 0.24, 0.24),
    "football": (0.22, 0.22, 0.22),
    "tennis ball": (0.067, 0.067, 0.067),
    "bowling ball": (0.216, 0.216, 0.216),
}
SYNONYMS: Mapping[str, str] = {
    "people": "person",
    "pedestrian": "person",
    "human": "person",
    "boy": "child",
    "girl": "child",
    "kid": "child",
    "motorbike": "motorcycle",
    "bike": "bicycle",
    "automobile": "car",
    "sedan": "car",
    "suv": "car",
    "minivan": "van",
    "lorry": "truck",
    "sofa": "couch",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "television": "tv",
    "fridge": "refrigerator",
    "rucksack": "backpack",
    "purse": "handbag",
    "puppy": "dog",
    "kitten": "cat",
    "garbage can": "trash can",
    "cone": "traffic cone",
    "wheelie bin": "trash can",
    "dustbin": "trash can",
    "trashcan": "trash can",
    "pram": "stroller",
    "pushchair": "stroller",
    "buggy": "stroller",
    "washer": "washing machine",
    "swivel chair": "office chair",
    "post box": "mailbox",
    "postbox": "mailbox",
    "telephone booth": "phone booth",
    "soccer ball": "football",
    "moped": "scooter",
    "pony": "horse",
    "ox": "cow",
    "bull": "cow",
    "lamb": "sheep",
    "park bench": "bench",
    "stove": "oven",
    "cooker": "oven",
    "hydrant": "fire hydrant",
}


def find_class_name(label: str | None) -> str:
    """Return the name in `SIZES` that a label goes by; itself, in lower case, where it is not there.

    Examples:
        >>> find_class_name("Traffic_Cone"), find_class_name("sofa"), find_class_name(None)
        ('traffic cone', 'couch', '')
    """
    name = " ".join((label or "").strip().lower().replace("_", " ").replace("-", " ").split())
    return name if name in SIZES else SYNONYMS.get(name, name)


def find_class_size(label: str | None, overrides: Mapping[str, Size] | None = None) -> Size | None:
    """Return height, width and length in metres of a label, None where it is unknown.

    `overrides` go before the table.

    Examples:
        >>> find_class_size("sofa"), find_class_size("cloud")
        ((0.85, 2.0, 0.92), None)
    """
    name = " ".join((label or "").strip().lower().replace("_", " ").replace("-", " ").split())
    if overrides and name in overrides:
        return overrides[name]
    return SIZES.get(find_class_name(name))


def compute_silhouette(size: Size, yaw: Any, depression: Any) -> tuple[Array, Array]:
    """Compute width and height, metres, of the outline of a box of this size, seen from far.

    Args:
        size: height, width, length. yaw: degrees that it is turned; at 0 its width is across. depression: degrees that
            it is looked down on. Both are numbers or arrays.

    Examples:
        >>> [round(float(v), 2) for v in compute_silhouette((1.5, 1.8, 4.4), 90, 0)]
        [4.4, 1.5]
    """
    height, width, length = size
    turn, down = np.deg2rad(yaw), np.deg2rad(depression)
    across = np.abs(np.cos(turn)) * width + np.abs(np.sin(turn)) * length
    deep = np.abs(np.sin(turn)) * width + np.abs(np.cos(turn)) * length
    return np.asarray(across), np.asarray(height * np.cos(down) + deep * np.sin(down))


def fit_box_scales(width: float, height: float, size: Size, depression: Array) -> tuple[Array, Array]:
    """Fit the scale of an object of known size whose outline is `width` x `height` px.

    The yaw is the one whose silhouette has the outline's proportions. Then the height decides, not the width: arms and
    open doors change it less.

    Args:
        size: height, width, length in metres. depression: (n,) degrees.

    Returns:
        (n,) pixels per metre, and (n,) how far the proportions are from those of any silhouette, log units.
    """
    across, high = compute_silhouette(size, YAWS[:, None], np.asarray(depression, np.float64)[None])
    off = np.abs(np.log((width / height) * (high / across)))
    best = np.argmin(off, axis=0)[None]
    return height / np.take_along_axis(high, best, axis=0)[0], np.take_along_axis(off, best, axis=0)[0]


def fit_box_scale(width: float, height: float, size: Size, depression: float) -> float:
    """Fit pixels per metre as `fit_box_scales` does, for one depression.

    Examples:
        A person of 1.70 x 0.50 m, 340 px tall.

        >>> fit_box_scale(100, 340, (1.70, 0.50, 0.35), 0.0)
        200.0
    """
    return float(fit_box_scales(width, height, size, np.array([depression]))[0][0])


def matches_proportions(width: float, height: float, size: Size, tolerance: float) -> bool:
    """Return whether an outline has the proportions of some silhouette of the box, within a factor."""
    return bool(fit_box_scales(width, height, size, np.arange(0, 46, 5.0))[1].min() <= np.log(tolerance))


def estimate_min_depression(width: float, height: float, size: Size) -> float:
    """Estimate the least angle, degrees, at which an object was looked down on, from the proportions of its outline.

    A car that is twice as high as wide in the picture was seen from above: turned any way, a flatter view does not
    give that outline (within 10 %). Upright objects give 0.
    """
    for down in range(0, 90, 2):
        across, high = compute_silhouette(size, YAWS, down)
        if (high / across).max() >= 0.9 * height / width:
            return float(down)
    return 0.0  # no view gives it: its label is wrong, or only a part of it is visible
