"""Scenes for a loop at tiny size, as a run of four flows: crops of photographs with a thing and its shadow pasted in,
and rendered scenes with and without their objects.

`initial` has few photographs, `pool` and `judge` more, `test` others; no photograph and no rendered scene is in two of
them. Everything follows from the seed; the rendered scenes are the
same for every seed.
  python -m benchmarks.loop_scenes OUT [--photos FOLDER] [--seed N] [--initial N] [--judge N] [--pool N] [--test N]
"""

import argparse
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rasura.manifests.ids import content_id
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Schema, encode_records
from rasura.manifests.shards import StageCount, commit, write_manifest
from rasura.manifests.storage import Store
from rasura.stages.sources.studio.studio import Studio, StudioParams

Array = npt.NDArray[Any]

SIDE, DRAWN = 64, 128
"""Side of a scene, and at which it is put together, px."""
COLUMNS: Schema = {**PROVENANCE, **TRIPLET}
SHARD = 100
FEW = 5
"""Photographs of the initial scenes."""
LEAST = 20
"""Photographs without which the flows would have hardly any each."""
RENDERED = {"initial": 10, "judge": 30, "pool": 80, "test": 60}
"""Rendered scenes of each flow."""
STUDIO_SEED, STUDIO_SIDE = 52000, 96


def photographs(folder: Path) -> list[tuple[str, Array]]:
    """Name and pixels of the photographs under a folder whose sides are at least `DRAWN`."""
    found = []
    for path in sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")]):
        picture = cv2.imread(str(path))
        if picture is not None and min(picture.shape[:2]) > DRAWN:
            found.append((path.stem, np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))))
    return found


def crop(photo: Array, rng: np.random.Generator) -> Array:
    """A square of a photo at `DRAWN` px, mirrored half of the time, float32."""
    height, width = photo.shape[:2]
    side = int(rng.integers(DRAWN, min(341, height, width) + 1))
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    made = cv2.resize(photo[y : y + side, x : x + side], (DRAWN, DRAWN), interpolation=cv2.INTER_AREA)
    return np.asarray(made[:, ::-1] if rng.random() < 0.5 else made, np.float32)


def thing(rng: np.random.Generator) -> Array:
    """Outline of a thing (`DRAWN`, `DRAWN`) float32 in [0, 1]: a blob with bumps, somewhere."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = rng.uniform(10, 28) * (1 + 0.25 * np.sin(angles * rng.integers(2, 6) + rng.uniform(0, 6)))
    stretch = rng.uniform(0.5, 1.6)
    points = np.stack([reach * np.cos(angles) * stretch, reach * np.sin(angles) / stretch], axis=1)
    low, high = points.min(0), points.max(0)
    room = np.maximum(1, DRAWN - (high - low))
    points = points - low + rng.uniform(0, 1, 2) * room
    canvas = np.zeros((DRAWN, DRAWN), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 255, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def scene(photo: Array, other: Array, rng: np.random.Generator) -> dict[str, Array] | None:
    """Source, target, mask (thing and shadow) and M_e; None where the mask's share is not between 3 and 30 %."""
    clean, texture, alpha = crop(photo, rng), crop(other, rng), thing(rng)
    cast = np.zeros_like(alpha)
    if rng.random() < 0.7:  # a shadow: the outline, sheared and squashed about its foot
        foot = float(np.flatnonzero(alpha.any(axis=1))[-1])
        shear, squash = rng.uniform(-1, 1), rng.uniform(0.3, 0.8)
        turn = np.array([[1, shear, -shear * foot], [0, squash, (1 - squash) * foot]], np.float32)
        cast = np.asarray(cv2.GaussianBlur(cv2.warpAffine(alpha, turn, (DRAWN, DRAWN)), (0, 0), 2))
        cast = cast * np.float32(rng.uniform(0.3, 0.6))
    source = (clean * (1 - cast)[..., None]) * (1 - alpha[..., None]) + texture * alpha[..., None]
    return reduced(source, clean, grown(alpha > 0.3, cast > 0.04), 0.3)


def grown(thing: Array, effects: Array) -> Array:
    """Both, two px wider."""
    return np.asarray(cv2.dilate((thing | effects).astype(np.uint8), np.ones((5, 5), np.uint8))) > 0


def reduced(source: Array, target: Array, mask: Array, most: float) -> dict[str, Array] | None:
    """A scene at `SIDE` px, all that differs inside its mask; None where that is under 3 % of it or over `most`."""

    def down(picture: Array) -> Array:
        return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA))

    small = down(mask.astype(np.float32)) > 0.25
    if not 0.03 < small.mean() < most:
        return None
    made, true = (np.clip(np.rint(down(one.astype(np.float32))), 0, 255).astype(np.uint8) for one in (source, target))
    return {"source": np.where(small[..., None], made, true), "target": true, "mask": small, "foreground_mask": small}


def rows(photos: Sequence[tuple[str, Array]], count: int, seed: int, name: str) -> list[dict[str, Any]]:
    """Scenes of some photographs, in turn."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        made = None
        while made is None:
            stem, photo = photos[number % len(photos)]
            made = scene(photo, photos[int(rng.integers(len(photos)))][1], rng)
        id = content_id(f"{name} {seed} {number}".encode())
        found.append(
            made
            | {"id": id, "kind": "simulated", "scene_id": f"{name}-{seed}-{number}", "origin": stem, "seed": seed}
            | {"split": "test" if name == "test" else "train", "licence": "of its photographs", "parents": []}
        )
    return found


def rendered(counts: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Rendered scenes of each flow; those whose objects and effects fill too much of the picture are passed over."""
    studio = Studio(StudioParams(count=3 * sum(counts.values()), width=STUDIO_SIDE, height=STUDIO_SIDE), STUDIO_SEED)
    wanted = [name for name, count in counts.items() for _ in range(count)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in counts}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        items = iter(studio.items())
        split = {name: "test" if name == "test" else "train" for name in counts}
        while wanted:
            part = list(itertools.islice(items, len(wanted)))
            for item, made in zip(part, pool.map(studio.rendered, part), strict=True):
                mask = grown(made["object_mask"], made["foreground_mask"])
                small = reduced(made["input"], made["gt"], mask, 0.4)
                if small is not None and wanted:
                    name = wanted.pop(0)
                    found[name].append(
                        small
                        | {"id": content_id(item["id"].encode()), "kind": "captured", "scene_id": item["id"]}
                        | {"origin": item["origin"], "seed": STUDIO_SEED, "split": split[name]}
                        | {"licence": "Apache-2.0", "parents": []}
                    )
    return found


def write(run: Store, flows: dict[str, list[dict[str, Any]]]) -> None:
    """The flows as a run."""
    told = {}
    for name, made in flows.items():
        table = run.sub(f"tables/{name}")
        lines = []
        for start in range(0, len(made), SHARD):
            part = made[start : start + SHARD]
            counts = [StageCount("scenes", len(part), len(part), len(part))]
            lines.append(commit(table, f"{name}{start:06d}", "", len(part), encode_records(part, COLUMNS), (), counts))
        write_manifest(table, lines, COLUMNS)
        told[name] = {"part": "", "upstream": [], "stages": [], "columns": {}}
    plan = {"name": "loop-scenes", "recipe": "", "flows": told, "dataset": None}
    run.write("plan.json", (json.dumps(plan, indent=1) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--photos", type=Path, default=Path("../shared/assets/photos"))
    for name, default in (("seed", 0), ("initial", 50), ("judge", 1000), ("pool", 2000), ("test", 540)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    photos = photographs(given.photos)
    if len(photos) < LEAST:
        parser.error(f"{given.photos} has {len(photos)} photographs of over {DRAWN} px a side; it takes {LEAST}")
    shared = divided(photos)
    made = rendered(RENDERED)
    flows = {
        name: made[name] + rows(shared[name], getattr(given, name), given.seed + 1000 * place, name)
        for place, name in enumerate(shared)
    }
    write(Store(given.out), flows)
    told = ", ".join(f"{len(flows[name])} {name} (of {len(shared[name])} photographs)" for name in flows)
    print(f"{given.out}: {told}")


def divided(photos: Sequence[tuple[str, Array]]) -> dict[str, list[tuple[str, Array]]]:
    """Photographs by the flow that they are for: every fourth to test on, a few to start from, then by turns."""
    rest = [one for index, one in enumerate(photos) if index % 4]
    return {
        "initial": rest[:FEW],
        "judge": rest[FEW::2],
        "pool": rest[FEW + 1 :: 2],
        "test": [one for index, one in enumerate(photos) if index % 4 == 0],
    }


if __name__ == "__main__":
    main()
