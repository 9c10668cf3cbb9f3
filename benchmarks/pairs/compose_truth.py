"""The layers of a pair against truth: rendered scenes that no test uses, made-up edges, and the real pairs.

On the scenes (those of `studio_truth`), with the masks of the real chain and with the true ones: PSNR of the layers
over gt against input, whole and inside M_e; the shadow's alpha against the least-squares alpha of the noise-free
renders, off the object's edge; the additive layer's energy where the noise-free pair only darkens. `bound` is the PSNR
of gt with the exact input inside M_fg: the noise of two shots outside it, which no layer can undo.

On the edges (strands, motion, lens blur drawn over photographs and floors, coverage known): mean error of alpha where
it is mixed, and error in grey levels when laid on black, white and green, beside that of the plain mask.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, say
from benchmarks.pairs_real import chain
from benchmarks.studio_truth import DEGRADED, scenes
from rasura.manifests.images import decode_image
from rasura.stages.matte import Matte, MatteParams, layers_from_pair
from rasura.stages.matting.layers import compose, psnr
from rasura.stages.pair import dilate
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept, Record

EDGE_SEED, EDGE_CASES, EDGE_SIZE = 40_000, 10, (400, 320)


def masked(stages: list[Any], start: Record) -> Record | None:
    """The record after the stages that find its masks; None if it was rejected."""
    record = start
    for stage in stages:
        outcome = stage.process_one(record)
        if not isinstance(outcome, Kept):
            return None
        record = record | dict(outcome.records[0])
    return record


def whole(record: Record) -> tuple[Any, Any]:
    """The record's two layers on the picture's whole frame."""
    shape = record["input"].shape[:2]
    layer, light = np.zeros((*shape, 4), np.uint8), np.zeros((*shape, 3), np.uint8)
    x0, y0, x1, y1 = (int(v) for v in record["foreground_box"])
    layer[y0:y1, x0:x1], light[y0:y1, x0:x1] = record["foreground"], record["foreground_light"]
    return layer, light


def true_alpha(source: Any, clean: Any) -> Any:
    """Least-squares alpha of a noise-free pair, written out here so as not to check a function by itself."""
    base = clean.astype(np.float64)
    return np.clip((base * (base - source)).sum(2) / np.maximum((base * base).sum(2), 1), 0, 1)


def row(record: Record, truth: Record | None) -> dict[str, float]:
    """Figures of one record that went through `matte`."""
    mask = record["object_mask"]
    where = record["foreground_mask"] | mask
    layer, light = whole(record)
    back = compose(layer, light, record["gt"])
    exact: Any = np.where(where[..., None], record["input"], record["gt"])
    figures = {
        "psnr": psnr(back, record["input"]),
        "psnr_effects": record["alpha_psnr_effects"] or 99.0,
        "bound": psnr(exact, record["input"]),
    }
    if truth is not None:
        change = cv2.blur(truth["input"].astype(np.float64) - truth["gt"], (5, 5))
        away = ~dilate(mask | record["true_object_mask"], 3)
        effects = where & away
        dark = effects & (change.max(2) < 0)
        error = np.abs(layer[..., 3] / 255 - true_alpha(truth["input"], truth["gt"]))
        figures["alpha_error"] = float(error[effects].mean()) if effects.any() else 0.0
        figures["light_in_dark"] = float((light[dark].astype(float) ** 2).sum() / max(1.0, (change[dark] ** 2).sum()))
    return figures


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure, and the worst."""
    worst = {name: (max if name in ("alpha_error", "light_in_dark") else min) for name in rows[0]}
    out: dict[str, float] = {"pairs": len(rows)}
    for name in rows[0]:
        values = [one[name] for one in rows]
        out |= {name: round(float(np.median(values)), 4), f"{name}_worst": round(worst[name](values), 4)}
    return out


def photographs() -> list[Any]:
    """Pictures bright enough to be lit, resized to fill the frame of an edge case; none without the assets."""
    width, height = EDGE_SIZE
    found = []
    for path in sorted((ASSETS / "photos").glob("*/*.jpg"))[:60]:
        picture = decode_image(path.read_bytes())
        scale = max(width / picture.shape[1], height / picture.shape[0])
        size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[:height, :width]
        if np.median(small) > 70:
            found.append(small.astype(np.float32))
    return found


def edge_case(kind: str, index: int, photos: list[Any]) -> dict[str, Any]:
    """A pair whose coverage is known: an oval with strands, with motion along x, or with lens blur."""
    from support.pair_scenes import camera, floor

    rng = np.random.default_rng([EDGE_SEED, index])
    (width, height), scale = EDGE_SIZE, 4
    drawn = np.zeros((height * scale, width * scale), np.uint8)
    centre, axes = np.array([0.4 * width, 0.5 * height]), np.array([55.0, 75.0])
    cv2.ellipse(drawn, (centre * scale).astype(int).tolist(), (axes * scale).astype(int).tolist(), 0, 0, 360, 255, -1)
    for angle in rng.uniform(np.pi, 2 * np.pi, 160) if kind == "strands" else ():
        turn, bend = angle + rng.normal(0, 0.5), 3 * rng.normal(0, 0.04)
        line = [centre + 0.95 * axes * (np.cos(angle), np.sin(angle))]
        step = rng.uniform(8, 26) / 12
        for _ in range(12):
            line.append(line[-1] + step * np.array([np.cos(turn), np.sin(turn)]))
            turn += bend
        points = np.rint(np.array(line) * scale * 16).astype(np.int32)
        cv2.polylines(drawn, [points], False, 255, int(rng.integers(2, 6)), cv2.LINE_AA, 4)
    covered: Any = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    tones = [(60, 40, 25), (200, 45, 50), (35, 35, 40), (225, 215, 200)]
    plain = floor(height, width, index, colour=(140, 140, 140)) + np.array(tones[index % 4], np.float32) - 140
    colour = photos[(7 * index + 3) % len(photos)] if photos and index % 2 else np.clip(plain, 0, 255)
    background = photos[(5 * index + 1) % len(photos)] if photos and index % 3 else floor(height, width, index)
    light: Any = colour * covered[..., None]
    if kind == "motion":
        kernel = np.full((1, int(rng.integers(9, 19))), 1, np.float32)
        covered, light = (cv2.filter2D(part, -1, kernel / kernel.size) for part in (covered, light))
    else:
        sigma = 0.5 if kind == "strands" else rng.uniform(0.6, 1.6)
        covered, light = (cv2.GaussianBlur(part, (0, 0), sigma) for part in (covered, light))
    seen = light + (1 - covered[..., None]) * background
    mask = cv2.morphologyEx((covered > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    where = mask | (cv2.blur(np.abs(seen - background), (5, 5)).max(2) > 5.1)
    return {
        "source": camera(seen, rng, 1.5),
        "clean": camera(background, rng, 1.5),
        "mask": mask,
        "where": where,
        "covered": covered,
        "light": light,
    }


def edges(kind: str, photos: list[Any]) -> dict[str, float]:
    """Mean figures of a kind of edge."""
    rows = []
    for index in range(EDGE_CASES):
        case = edge_case(kind, index, photos)
        covered, mask = case["covered"], case["mask"]
        layer, light = layers_from_pair(case["source"], case["clean"], mask, case["where"])
        band = (covered > 0.02) & (covered < 0.98)
        hard = np.dstack([case["source"], 255 * mask.astype(np.uint8)])
        one = {
            "alpha_error": np.abs(layer[..., 3] / 255 - covered)[band].mean(),
            "mask_error": np.abs(mask - covered)[band].mean(),
        }
        for name, value in (("black", (0, 0, 0)), ("white", (255, 255, 255)), ("green", (0, 180, 0))):
            other = np.broadcast_to(np.array(value, np.uint8), case["clean"].shape)
            truth = case["light"] + (1 - covered[..., None]) * other
            one[f"on_{name}"] = np.sqrt(((compose(layer, light, other) - truth)[band] ** 2).mean())
            one[f"mask_on_{name}"] = np.sqrt(((compose(hard, None, other) - truth)[band] ** 2).mean())
        rows.append(one)
    return {name: round(float(np.mean([one[name] for one in rows])), 4) for name in rows[0]}


def main() -> None:
    cv2.setNumThreads(1)
    weights: Path = ASSETS / "weights"
    backend = "sam-onnx" if weights.is_dir() else "grabcut"
    finders = [stage for stage in chain(backend, weights) if stage.name in ("pair", "effects", "segment")]
    matte = Matte(MatteParams())

    def cut(record: Record) -> Record:
        outcome = matte.process_one(record)
        assert isinstance(outcome, Kept)
        return record | dict(outcome.records[0])

    clean = scenes(Degrade())
    for name, records in (("clean", clean), ("degraded", scenes(DEGRADED))):
        for masks in ("chain", "true"):
            rows = []
            for record, truth in zip(records, clean, strict=True):
                found = masked(finders if masks == "chain" else finders[:1], record)
                if found is None:
                    continue
                if masks == "true":
                    found |= {"object_mask": record["true_object_mask"]}
                    found |= {"foreground_mask": record["true_foreground_mask"]}
                rows.append(row(cut(found), truth))
            say("compose_truth", set=name, masks=masks, backend=backend, **summary(rows))
    for folder in (ASSETS / "pairs" / kind for kind in ("cars", "person")):
        rows = []
        for path in sorted(folder.glob("*_input.png")):
            stem = path.name.removesuffix("_input.png")
            pair = {name: (folder / f"{stem}_{part}.png") for name, part in (("input", "input"), ("gt", "clean"))}
            found = masked(finders, {"id": stem} | {name: decode_image(p.read_bytes()) for name, p in pair.items()})
            if found is not None:
                rows.append(row(cut(found), None))
        if rows:
            say("compose_truth", set=folder.name, masks="chain", backend=backend, **summary(rows))
    photos = photographs()
    for kind in ("strands", "motion", "lens"):
        say("compose_truth", edges=kind, photographs=len(photos), **edges(kind, photos))


if __name__ == "__main__":
    main()
