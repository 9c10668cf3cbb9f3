"""Scenes for a loop at tiny size, as a run of four flows.

The scenes are crops of photographs with an object and its shadow composited into them, and rendered scenes with and
without their objects. `initial` has few photographs, `pool` and `judge` more, `test` others; no photograph and no
rendered scene is in two flows. The scenes follow from the seed; the rendered ones are the same for every seed.

    python -m benchmarks.loop_scenes OUT [--photos FOLDER] [--seed N] [--initial N] [--judge N] [--pool N] [--test N]
"""

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.ids import compute_content_id
from rasura.manifests.run_layout import FlowDescription, RunPlan, table_path, write_plan
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Schema, encode_records
from rasura.manifests.shards import StageCount, commit
from rasura.manifests.storage import Store
from rasura.stages.sources.studio.studio import Studio, StudioParams

Array = npt.NDArray[Any]

SIDE, COMPOSED_SIDE = 64, 128
"""Side of a scene, and side at which it is composed, px."""
COLUMNS: Schema = {**PROVENANCE, **TRIPLET}
SHARD = 100
INITIAL_PHOTOS = 5
"""Photographs of the initial scenes."""
MIN_PHOTOS = 20
"""Fewest photographs that are enough for four flows."""
RENDERED = {"initial": 10, "judge": 30, "pool": 80, "test": 60}
"""Number of rendered scenes of each flow."""
STUDIO_SEED, STUDIO_SIDE = 52000, 96


def load_photographs(folder: Path) -> list[tuple[str, Array]]:
    """Load name and pixels of the photographs under a folder that are larger than `COMPOSED_SIDE`."""
    photos = []
    for path in sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")]):
        picture = cv2.imread(str(path))
        if picture is not None and min(picture.shape[:2]) > COMPOSED_SIDE:
            photos.append((path.stem, np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))))
    return photos


def crop_photo(photo: Array, rng: np.random.Generator) -> Array:
    """Crop a random square at `COMPOSED_SIDE` px, float32; half of the crops are mirrored."""
    height, width = photo.shape[:2]
    side = int(rng.integers(COMPOSED_SIDE, min(341, height, width) + 1))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    part = photo[y : y + side, x : x + side]
    resized = cv2.resize(part, (COMPOSED_SIDE, COMPOSED_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(resized[:, ::-1] if rng.random() < 0.5 else resized, np.float32)


def draw_object(rng: np.random.Generator) -> Array:
    """Draw the alpha of a bumpy blob at a random place, (`COMPOSED_SIDE`, `COMPOSED_SIDE`) float32 in [0, 1]."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = rng.uniform(10, 28) * (1 + 0.25 * np.sin(angles * rng.integers(2, 6) + rng.uniform(0, 6)))
    stretch = rng.uniform(0.5, 1.6)
    points = np.stack([reach * np.cos(angles) * stretch, reach * np.sin(angles) / stretch], axis=1)
    low, high = points.min(0), points.max(0)
    room = np.maximum(1, COMPOSED_SIDE - (high - low))
    points = points - low + rng.uniform(0, 1, 2) * room
    canvas = np.zeros((COMPOSED_SIDE, COMPOSED_SIDE), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 255, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def compose_scene(photo: Array, other: Array, rng: np.random.Generator) -> dict[str, Array] | None:
    """Compose source, target, mask (object and shadow) and M_e; None where the mask's share is not 3 to 30 %."""
    clean, texture, alpha = crop_photo(photo, rng), crop_photo(other, rng), draw_object(rng)
    cast = np.zeros_like(alpha)
    if rng.random() < 0.7:  # a shadow: the outline, sheared and flattened about its foot
        foot = float(np.flatnonzero(alpha.any(axis=1))[-1])
        shear, squash = rng.uniform(-1, 1), rng.uniform(0.3, 0.8)
        turn = np.array([[1, shear, -shear * foot], [0, squash, (1 - squash) * foot]], np.float32)
        cast = np.asarray(cv2.GaussianBlur(cv2.warpAffine(alpha, turn, (COMPOSED_SIDE, COMPOSED_SIDE)), (0, 0), 2))
        cast = cast * np.float32(rng.uniform(0.3, 0.6))
    source = (clean * (1 - cast)[..., None]) * (1 - alpha[..., None]) + texture * alpha[..., None]
    return reduce_scene(source, clean, grow_mask(alpha > 0.3, cast > 0.04), 0.3)


def grow_mask(objects: Array, effects: Array) -> Array:
    """Join the masks of objects and effects, and dilate them by two px."""
    return np.asarray(cv2.dilate((objects | effects).astype(np.uint8), np.ones((5, 5), np.uint8))) > 0


def reduce_scene(source: Array, target: Array, mask: Array, max_share: float) -> dict[str, Array] | None:
    """Reduce a scene to `SIDE` px, unchanged outside of its mask; None if the mask covers under 3 % or over a limit."""

    def resize(picture: Array) -> Array:
        return np.asarray(cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA))

    hole = resize(mask) > 0.25
    if not 0.03 < hole.mean() < max_share:
        return None
    inside, outside = (np.clip(np.rint(resize(picture)), 0, 255).astype(np.uint8) for picture in (source, target))
    reduced = np.where(hole[..., None], inside, outside)
    return {"source": reduced, "target": outside, "mask": hole, "foreground_mask": hole}


def make_rows(photos: Sequence[tuple[str, Array]], count: int, seed: int, name: str) -> list[dict[str, Any]]:
    """Compose scenes of photographs, in turn."""
    rows = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        scene = None
        while scene is None:
            stem, photo = photos[number % len(photos)]
            scene = compose_scene(photo, photos[int(rng.integers(len(photos)))][1], rng)
        id = compute_content_id(f"{name} {seed} {number}".encode())
        rows.append(
            scene
            | {"id": id, "kind": "simulated", "scene_id": f"{name}-{seed}-{number}", "origin": stem, "seed": seed}
            | {"split": "test" if name == "test" else "train", "licence": "of its photographs", "parents": []}
        )
    return rows


def render_rows(counts: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Render the scenes of each flow; scenes whose objects and effects fill too much of the picture are skipped."""
    studio = Studio(StudioParams(count=3 * sum(counts.values()), width=STUDIO_SIDE, height=STUDIO_SIDE), STUDIO_SEED)
    missing = [name for name, count in counts.items() for _ in range(count)]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in counts}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        items = iter(studio.items())
        split = {name: "test" if name == "test" else "train" for name in counts}
        while missing:
            part = list(itertools.islice(items, len(missing)))
            for item, rendering in zip(part, pool.map(studio.load_or_render, part), strict=True):
                mask = grow_mask(rendering["object_mask"], rendering["foreground_mask"])
                scene = reduce_scene(rendering["input"], rendering["gt"], mask, 0.4)
                if scene is not None and missing:
                    name = missing.pop(0)
                    rows[name].append(
                        scene
                        | {"id": compute_content_id(item["id"].encode()), "kind": "captured", "scene_id": item["id"]}
                        | {"origin": item["origin"], "seed": STUDIO_SEED, "split": split[name]}
                        | {"licence": "Apache-2.0", "parents": []}
                    )
    return rows


def write_run(run: Store, flows: dict[str, list[dict[str, Any]]]) -> None:
    """Write the flows as a run."""
    for name, rows in flows.items():
        table = run.sub(table_path(name))
        commits = []
        for start in range(0, len(rows), SHARD):
            part = rows[start : start + SHARD]
            counts = [StageCount("scenes", len(part), len(part), len(part))]
            shard = f"{name}{start:06d}"
            commits.append(commit(table, shard, "", len(part), encode_records(part, COLUMNS), (), counts))
        write_manifest(table, commits, COLUMNS)
    write_plan(run, RunPlan("loop-scenes", "", {name: FlowDescription() for name in flows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--photos", type=Path, default=Path("../shared/assets/photos"))
    for name, default in (("seed", 0), ("initial", 50), ("judge", 1000), ("pool", 2000), ("test", 540)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    photos = load_photographs(arguments.photos)
    if len(photos) < MIN_PHOTOS:
        few = f"{len(photos)} photographs of over {COMPOSED_SIDE} px a side"
        parser.error(f"'{arguments.photos}' has {few}; give a folder with {MIN_PHOTOS} or more")
    divided = divide_photographs(photos)
    rendered = render_rows(RENDERED)
    flows = {
        name: rendered[name] + make_rows(divided[name], getattr(arguments, name), arguments.seed + 1000 * place, name)
        for place, name in enumerate(divided)
    }
    write_run(Store(arguments.out), flows)
    summary = ", ".join(f"{len(flows[name])} {name} (of {len(divided[name])} photographs)" for name in flows)
    print(f"{arguments.out}: {summary}")


def divide_photographs(photos: Sequence[tuple[str, Array]]) -> dict[str, list[tuple[str, Array]]]:
    """Divide photographs among the flows: every fourth is for tests, a few are initial, the rest alternate."""
    rest = [photo for index, photo in enumerate(photos) if index % 4]
    return {
        "initial": rest[:INITIAL_PHOTOS],
        "judge": rest[INITIAL_PHOTOS::2],
        "pool": rest[INITIAL_PHOTOS + 1 :: 2],
        "test": [photo for index, photo in enumerate(photos) if index % 4 == 0],
    }


if __name__ == "__main__":
    main()
