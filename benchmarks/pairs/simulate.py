"""Simulated triplets per second on one core at 512 px, against the cost of decoding and encoding their pictures.

Backgrounds are photographs cropped to 512 x 512 (without assets: synthetic ones), foregrounds are ellipses with shadow
and reflection and with ground planes, so that shadows are warped. Decoded are the background with its ground mask, and
each foreground with its light and mask; encoded are source, target and both masks. All in one process on one thread,
with the codec of `manifests.images`, in CPU seconds, so that other processes do not count. Goal: at most 2.5 times the
codec's time.

    python -m benchmarks simulate
"""

import time
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from rasura.manifests.images import decode_image, decode_mask, decode_rgba, encode_image, encode_mask
from rasura.stages.composite import Composite, CompositeParams
from rasura.stages.stage import Kept, Record

SIDE = 512
TRIPLETS = 120
PLANE = [0.0, 0.94, 0.342, 1.6]  # a camera 1.6 m above the ground, pitched down by 20 degrees


def load_backgrounds() -> list[Any]:
    """Load the backgrounds, (512, 512, 3) uint8 each."""
    paths = sorted((ASSETS / "photos" / "backgrounds").glob("*.png"))
    if not paths:
        rng = np.random.default_rng(0)
        noise = [rng.normal(128, 40, (64, 64, 3)).astype(np.float32) for _ in range(6)]
        return [np.clip(cv2.resize(grid, (SIDE, SIDE)), 0, 255).astype(np.uint8) for grid in noise]
    pictures = [decode_image(path.read_bytes()) for path in paths]
    starts = [((p.shape[0] - SIDE) // 2, (p.shape[1] - SIDE) // 2) for p in pictures]
    return [np.ascontiguousarray(p[y : y + SIDE, x : x + SIDE]) for p, (y, x) in zip(pictures, starts, strict=True)]


def make_foreground(number: int, height: int, rng: np.random.Generator) -> Record:
    """Make the encoded foreground of an ellipse with grain, a shadow beside it and a reflection below."""
    width = int(height * rng.uniform(0.4, 1.2))
    full = (int(1.3 * height), 2 * width)
    ys, xs = np.mgrid[: full[0], : full[1]].astype(np.float32)
    solid = ((xs - width / 2) / (width / 2)) ** 2 + ((ys - height / 2) / (height / 2)) ** 2 < 1
    shade = 120 * np.exp(-(((xs - 1.2 * width) / (0.5 * width)) ** 2) - ((ys - height) / (0.15 * height)) ** 2)
    rgba = np.zeros((*full, 4), np.uint8)
    rgba[..., :3] = np.where(solid[..., None], rng.integers(60, 200, 3) + rng.normal(0, 4, (*full, 3)), 0).clip(0, 255)
    rgba[..., 3] = np.where(solid, 255, shade)
    light = np.where((ys > height)[..., None] & ~solid[..., None], 12 * (rgba[..., 3:] > 20), 0)
    light = np.repeat(light, 3, axis=2).astype(np.uint8)
    x0, y0 = 100, 440 - height
    return {
        "id": str(number),
        "label": "object",
        "foreground": encode_image(rgba),
        "foreground_light": encode_image(light),
        "foreground_object": encode_mask(solid),
        "foreground_box": [x0, y0, x0 + full[1], y0 + full[0]],
        "source_size": [SIDE, SIDE],
        "shadow_azimuth": 20.0,
        "shadow_confidence": 1.0,
        "ground_plane": PLANE,
        "ground_focal": 443.0,
        "ground_metric": True,
        "ground_view_error": 1.0,
        "ground_size_error": 0.05,
    }


def main() -> None:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(7)
    backgrounds = [encode_image(picture) for picture in load_backgrounds()]
    ground = np.zeros((SIDE, SIDE), bool)
    ground[SIDE * 2 // 5 :] = True
    ground_bytes = encode_mask(ground)
    foregrounds = [make_foreground(k, int(rng.integers(90, 240)), rng) for k in range(24)]
    stage = Composite(CompositeParams(), seed=1)
    spent = {"decode": 0.0, "compose": 0.0, "encode": 0.0}
    triplets = objects = 0
    for number in range(TRIPLETS):
        drawn = [foregrounds[int(k)] for k in rng.choice(len(foregrounds), int(rng.integers(1, 4)), replace=False)]
        start = time.process_time()
        decoded_foregrounds = [
            foreground
            | {"foreground": decode_rgba(foreground["foreground"])}
            | {"foreground_light": decode_image(foreground["foreground_light"])}
            | {"foreground_object": decode_mask(foreground["foreground_object"])}
            for foreground in drawn
        ]
        record: Record = {"id": str(number), "foregrounds": decoded_foregrounds, "ground_scale": [0.0, 0.6, -60.0]}
        record |= {
            "background": decode_image(backgrounds[number % len(backgrounds)]),
            "ground_mask": decode_mask(ground_bytes),
        }
        record |= {"ground_plane": PLANE, "ground_focal": 443.0, "ground_metric": True}
        record |= {"ground_view_error": 1.0, "ground_size_error": 0.05}
        decoded = time.process_time()
        outcome = stage.process_one(record)
        composed = time.process_time()
        if not isinstance(outcome, Kept):
            continue
        (out,) = outcome.records
        _ = [encode_image(out[name]) for name in ("source", "target")]
        _ = [encode_mask(out[name]) for name in ("mask", "foreground_mask")]
        spent["decode"] += decoded - start
        spent["compose"] += composed - decoded
        spent["encode"] += time.process_time() - composed
        triplets += 1
        objects += out["objects"]
    milliseconds = {f"{name}_ms": round(1000 * value / triplets, 1) for name, value in spent.items()}
    codec = spent["decode"] + spent["encode"]
    ratio = round((codec + spent["compose"]) / codec, 2)
    rate = round(triplets / sum(spent.values()), 1)
    print_result(
        "simulate",
        triplets=triplets,
        objects=round(objects / triplets, 2),
        **milliseconds,
        per_second=rate,
        times_codec=ratio,
    )


if __name__ == "__main__":
    main()
