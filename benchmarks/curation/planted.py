"""Pairs with planted faults: rendered scenes, and photographs with a rendered object and a drawn shadow.

Faults are planted before the camera's noise and JPEG, which every picture gets for itself, so that they have to be
distinguished from these; "stored" changes of exposure are planted after, on 8-bit levels, as an editor makes them. Of
each clean pair every fault is planted once, with a size drawn from its range.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.common import ASSETS
from benchmarks.pairs.registration import rotate_picture, shift_picture
from rasura.manifests.images import RGB, Mask, decode_image
from rasura.manifests.storage import Store
from rasura.stages.imaging.morphology import compute_distance_to, dilate
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Studio, StudioParams
from rasura.stages.stage import Kept

STORED = {"stored up": 1.01, "stored down": 0.99}  # the smallest change of exposure that is to be found
FAULTS = ("shift", "zoom", "exposure", "white balance", "outside", "mask", "stored", *STORED)
NOISE, QUALITY = 1.5, (85, 95)  # levels; JPEG
SIDE = 480  # px of a photograph's longer side
APART = 0.08  # of the diagonal: a planted change is at least so far from M_fg


class PlantedPair(NamedTuple):
    """A pair, and what is wrong with it.

    Attributes:
        name: of the scene, equal for all pairs of it.
        fault: one of `FAULTS`, "clean", or "clean exact": with equal pixels away from object and effects.
        size: of the fault: px, share.
        input, gt: (h, w, 3) uint8.
        mask: (h, w) bool, M_o.
    """

    name: str
    fault: str
    size: float
    input: RGB
    gt: RGB
    mask: Mask


class CleanScene(NamedTuple):
    """A scene before any camera: float pictures, M_o and M_fg."""

    name: str
    input: Any
    gt: Any
    mask: Mask
    foreground: Mask


def list_photographs() -> list[Any]:
    """List the photographs' files, in order."""
    return sorted([*(ASSETS / "photos" / "backgrounds").glob("*.png"), *(ASSETS / "photos" / "coco").glob("*.jpg")])


def load_photograph(path: Any, side: int = SIDE) -> RGB:
    """Load a photograph, at most `side` px."""
    picture = decode_image(path.read_bytes())
    scale = min(1.0, side / max(picture.shape[:2]))
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def render_clean(count: int, seed: int) -> list[CleanScene]:
    """Render scenes without a camera's defects, those with an object of at least 200 px."""
    source = Studio(StudioParams(count=count, seed=seed, width=480, height=320))
    source.setup()
    outcomes = [source.process_one(item) for item in source.items(RunContext(Store("/nonexistent"), "scenes", seed))]
    records = [outcome.records[0] for outcome in outcomes if isinstance(outcome, Kept)]
    return [
        CleanScene(
            f"studio{number}",
            record["input"].astype(np.float32),
            record["gt"].astype(np.float32),
            record["true_object_mask"],
            record["true_foreground_mask"],
        )
        for number, record in enumerate(records)
        if record["true_object_mask"].sum() >= 200
    ]


def paste_object(picture: RGB, scene: CleanScene, rng: np.random.Generator, name: str) -> CleanScene:
    """Paste a rendered object into a photograph, at a random place, with a soft shadow beside it."""
    height, width = picture.shape[:2]
    rows, columns = np.nonzero(scene.mask)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = rng.uniform(0.15, 0.4) * min(height, width) / max(np.ptp(rows) + 1, np.ptp(columns) + 1)
    size = (max(8, round((np.ptp(columns) + 1) * side)), max(8, round((np.ptp(rows) + 1) * side)))
    colours = cv2.resize(np.clip(scene.input[box], 0, 255), size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(scene.mask[box].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    left = int(rng.integers(0, max(1, width - size[0])))
    top = int(rng.integers(0, max(1, height - size[1])))
    matte = np.zeros((height, width), np.float32)
    layer = np.zeros((height, width, 3), np.float32)
    matte[top : top + size[1], left : left + size[0]] = alpha
    layer[top : top + size[1], left : left + size[0]] = colours
    shadow: Any = np.zeros((height, width), np.float32)
    centre = (int(left + size[0] * rng.uniform(0.3, 0.9)), int(top + size[1] * 0.97))
    cv2.ellipse(
        shadow, centre, (max(4, size[0] // 2), max(3, size[1] // 7)), 0, 0, 360, float(rng.uniform(0.3, 0.6)), -1
    )
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(1.5, size[0] / 25))
    clean = picture.astype(np.float32)
    lit = clean * (1 - shadow[..., None])
    source = matte[..., None] * layer + (1 - matte[..., None]) * lit
    foreground = (np.abs(source - clean).max(axis=2) > 4) | (matte > 0)
    return CleanScene(name, source, clean, matte > 0.5, foreground)


def photograph(picture: Any, rng: np.random.Generator) -> RGB:
    """Return a float picture as a camera stores it: with noise, rounded, and through JPEG."""
    noisy = np.clip(np.rint(picture + rng.normal(0, NOISE, picture.shape)), 0, 255).astype(np.uint8)
    quality = int(rng.integers(*QUALITY))
    code = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def change_elsewhere(picture: Any, scene: CleanScene, other: Any, share: float, rng: np.random.Generator) -> Any | None:
    """Return a picture with an ellipse of another one far from M_fg; None where there is no room.

    Args:
        share: of the picture that the ellipse covers.
    """
    height, width = picture.shape[:2]
    radius = np.sqrt(share * height * width / np.pi)
    wide, high = radius * 1.2, radius / 1.2
    room = compute_distance_to(scene.foreground) > APART * np.hypot(height, width) + wide
    edge = int(wide) + 2
    room[:edge], room[-edge:], room[:, :edge], room[:, -edge:] = False, False, False, False
    if not room.any():
        return None
    rows, columns = np.nonzero(room)
    place = int(rng.integers(len(rows)))
    weight = np.zeros((height, width), np.float32)
    cv2.ellipse(weight, (int(columns[place]), int(rows[place])), (round(wide), round(high)), 0, 0, 360, 1.0, -1)
    weight = cv2.GaussianBlur(weight, (0, 0), 1.0)[..., None]
    foreign = cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA)
    changed = np.where(weight > 0.5, np.abs(foreign - picture), 0)
    if changed.max(axis=2)[weight[..., 0] > 0.5].mean() < 25:
        foreign = 255 - foreign  # the other one happens to look the same there
    return weight * foreign + (1 - weight) * picture


def plant(scene: CleanScene, others: Sequence[CleanScene], rng: np.random.Generator) -> Iterator[PlantedPair]:
    """Yield the scene as a clean pair, and once with each fault."""
    other = others[int(rng.integers(len(others)))]
    drawn = rng.uniform
    turn = drawn(0, 2 * np.pi)
    shift, zoom = drawn(0.2, 1.0), drawn(0.003, 0.01)
    gain, share = drawn(0.01, 0.04), drawn(0.005, 0.02)
    sign = float(rng.choice([-1, 1]))
    tint = np.ones(3)
    tint[int(rng.integers(3))] += sign * gain
    moved = shift_picture(scene.gt, shift * np.cos(turn), shift * np.sin(turn))
    pictures = {
        "clean": (scene.input, scene.gt, 0.0),
        "shift": (scene.input, moved, shift),
        "zoom": (scene.input, rotate_picture(scene.gt, 0.0, 1 + sign * zoom), zoom),
        "exposure": (scene.input, scene.gt * (1 + sign * gain), gain),
        "white balance": (scene.input, scene.gt * tint, gain),
    }
    in_input = bool(rng.integers(2))
    altered = change_elsewhere(scene.input if in_input else scene.gt, scene, other.gt, share, rng)
    if altered is not None:
        pictures["outside"] = (altered, scene.gt, share) if in_input else (scene.input, altered, share)
    for fault, (source, clean, size) in pictures.items():
        yield PlantedPair(scene.name, fault, size, photograph(source, rng), photograph(clean, rng), scene.mask)
    source, clean = photograph(scene.input, rng), photograph(scene.gt, rng)
    wide = dilate(scene.foreground, 6)[..., None]  # equal beyond the effects, as triplets are
    yield PlantedPair(scene.name, "clean exact", 0.0, source, np.where(wide, clean, source), scene.mask)
    height, width = scene.mask.shape
    swapped = cv2.resize(other.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    if (swapped & dilate(scene.mask, 2)).sum() < 0.3 * swapped.sum():  # else it marks the object after all
        yield PlantedPair(scene.name, "mask", 0.0, photograph(scene.input, rng), photograph(scene.gt, rng), swapped)
    for fault, factor in {"stored": 1 + sign * gain, **STORED}.items():
        source, clean = photograph(scene.input, rng), photograph(scene.gt, rng)
        changed = np.clip(np.rint(clean * factor), 0, 255).astype(np.uint8)
        yield PlantedPair(scene.name, fault, abs(factor - 1), source, changed, scene.mask)


def make_scenes(rendered: int, photographs: int, seed: int) -> list[CleanScene]:
    """Make rendered scenes and photographs with an object each."""
    scenes = render_clean(rendered, seed)
    files = list_photographs()[:photographs]
    pasted = []
    for number, path in enumerate(files):
        rng = np.random.default_rng([seed, number])
        pasted.append(paste_object(load_photograph(path), scenes[number % len(scenes)], rng, f"photo{path.stem}"))
    return scenes + pasted


def plant_all(scenes: Sequence[CleanScene], seed: int) -> Iterator[PlantedPair]:
    """Yield all pairs of all scenes."""
    for number, scene in enumerate(scenes):
        others = [other for other in scenes if other.name != scene.name]
        yield from plant(scene, others, np.random.default_rng([seed, 1, number]))
