"""The layers of a pair against ground truth: rendered scenes that no test uses, synthetic edges, and the real pairs.

On the scenes (those of `studio_truth`), with the masks of the stages and with the true ones: PSNR of the layers over gt
against input, everywhere and inside M_e; the shadow's alpha against the least-squares alpha of the noise-free renders,
away from the object's edge; the additive layer's energy where the noise-free pair only darkens. `bound` is the PSNR of
gt with the exact input inside M_fg: the noise of two shots outside of it, which no layer can remove.

On the edges (strands, motion, lens blur, drawn over photographs and synthetic ground, with exact coverage): mean error
of alpha where it is fractional, and error in grey levels when composited on black, white and green, beside those of the
binary mask.

    python -m benchmarks compose_truth
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.pairs_real import make_stages
from benchmarks.pairs.studio_truth import DEGRADED, render_scenes
from rasura.manifests.images import decode_image
from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.imaging.morphology import dilate
from rasura.stages.matte import Matte, MatteParams, extract_layers
from rasura.stages.matting.layers import compose
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept, Record

EDGE_SEED, EDGE_CASES, EDGE_SIZE = 40_000, 10, (400, 320)


def run_stages(stages: list[Any], start: Record) -> Record | None:
    """Run a record through stages; return None if it is rejected or fails."""
    record = start
    for stage in stages:
        outcome = stage.process_one(record)
        if not isinstance(outcome, Kept):
            return None
        record = record | dict(outcome.records[0])
    return record


def expand_layers(record: Record) -> tuple[Any, Any]:
    """Return the foreground (h, w, 4) and the light (h, w, 3) of a record in the frame of its picture."""
    shape = record["input"].shape[:2]
    layer, light = np.zeros((*shape, 4), np.uint8), np.zeros((*shape, 3), np.uint8)
    x0, y0, x1, y1 = (int(v) for v in record["foreground_box"])
    layer[y0:y1, x0:x1], light[y0:y1, x0:x1] = record["foreground"], record["foreground_light"]
    return layer, light


def compute_true_alpha(source: Any, clean: Any) -> Any:
    """Compute the least-squares alpha of a noise-free pair, independently of the function under test."""
    base = clean.astype(np.float64)
    return np.clip((base * (base - source)).sum(2) / np.maximum((base * base).sum(2), 1), 0, 1)


def measure_record(record: Record, truth: Record | None) -> dict[str, float]:
    """Return the figures of one record after `matte`."""
    mask = record["object_mask"]
    foreground = record["foreground_mask"] | mask
    layer, light = expand_layers(record)
    composed = compose(layer, light, record["gt"])
    exact: Any = np.where(foreground[..., None], record["input"], record["gt"])
    figures = {
        "psnr": compute_psnr(composed, record["input"]),
        "psnr_effects": record["alpha_psnr_effects"] or 99.0,
        "bound": compute_psnr(exact, record["input"]),
    }
    if truth is not None:
        change = cv2.blur(truth["input"].astype(np.float64) - truth["gt"], (5, 5))
        away = ~dilate(mask | record["true_object_mask"], 3)
        effects = foreground & away
        dark = effects & (change.max(2) < 0)
        error = np.abs(layer[..., 3] / 255 - compute_true_alpha(truth["input"], truth["gt"]))
        figures["alpha_error"] = float(error[effects].mean()) if effects.any() else 0.0
        figures["light_in_dark"] = float((light[dark].astype(float) ** 2).sum() / max(1.0, (change[dark] ** 2).sum()))
    return figures


def summarize(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median and the worst of each figure."""
    worst = {name: (max if name in ("alpha_error", "light_in_dark") else min) for name in rows[0]}
    figures: dict[str, float] = {"pairs": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        figures |= {name: round(float(np.median(values)), 4), f"{name}_worst": round(worst[name](values), 4)}
    return figures


def load_photographs() -> list[Any]:
    """Load bright enough photographs, resized to fill the frame of an edge case; none without the assets."""
    width, height = EDGE_SIZE
    pictures = []
    for path in sorted((ASSETS / "photos").glob("*/*.jpg"))[:60]:
        picture = decode_image(path.read_bytes())
        scale = max(width / picture.shape[1], height / picture.shape[0])
        size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[:height, :width]
        if np.median(small) > 70:
            pictures.append(small.astype(np.float32))
    return pictures


def draw_edge_case(kind: str, index: int, photos: list[Any]) -> dict[str, Any]:
    """Draw a pair with exact coverage: an ellipse with strands, with motion along x, or with lens blur."""
    from support.pair_scenes import capture, make_floor

    rng = np.random.default_rng([EDGE_SEED, index])
    (width, height), scale = EDGE_SIZE, 4
    canvas = np.zeros((height * scale, width * scale), np.uint8)
    centre, axes = np.array([0.4 * width, 0.5 * height]), np.array([55.0, 75.0])
    cv2.ellipse(canvas, (centre * scale).astype(int).tolist(), (axes * scale).astype(int).tolist(), 0, 0, 360, 255, -1)
    for angle in rng.uniform(np.pi, 2 * np.pi, 160) if kind == "strands" else ():
        turn, bend = angle + rng.normal(0, 0.5), 3 * rng.normal(0, 0.04)
        strand = [centre + 0.95 * axes * (np.cos(angle), np.sin(angle))]
        step = rng.uniform(8, 26) / 12
        for _ in range(12):
            strand.append(strand[-1] + step * np.array([np.cos(turn), np.sin(turn)]))
            turn += bend
        points = np.rint(np.array(strand) * scale * 16).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, int(rng.integers(2, 6)), cv2.LINE_AA, 4)
    coverage: Any = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    tones = [(60, 40, 25), (200, 45, 50), (35, 35, 40), (225, 215, 200)]
    plain = make_floor(height, width, index, colour=(140, 140, 140)) + np.array(tones[index % 4], np.float32) - 140
    colour = photos[(7 * index + 3) % len(photos)] if photos and index % 2 else np.clip(plain, 0, 255)
    background = photos[(5 * index + 1) % len(photos)] if photos and index % 3 else make_floor(height, width, index)
    light: Any = colour * coverage[..., None]
    if kind == "motion":
        kernel = np.full((1, int(rng.integers(9, 19))), 1, np.float32)
        coverage, light = (cv2.filter2D(part, -1, kernel / kernel.size) for part in (coverage, light))
    else:
        sigma = 0.5 if kind == "strands" else rng.uniform(0.6, 1.6)
        coverage, light = (cv2.GaussianBlur(part, (0, 0), sigma) for part in (coverage, light))
    mixed = light + (1 - coverage[..., None]) * background
    mask = cv2.morphologyEx((coverage > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    foreground = mask | (cv2.blur(np.abs(mixed - background), (5, 5)).max(2) > 5.1)
    return {
        "source": capture(mixed, rng, 1.5),
        "clean": capture(background, rng, 1.5),
        "mask": mask,
        "foreground": foreground,
        "coverage": coverage,
        "light": light,
    }


def measure_edges(kind: str, photos: list[Any]) -> dict[str, float]:
    """Return the mean figures of a kind of edge."""
    rows = []
    for index in range(EDGE_CASES):
        case = draw_edge_case(kind, index, photos)
        coverage, mask = case["coverage"], case["mask"]
        layer, light = extract_layers(case["source"], case["clean"], mask, case["foreground"])
        band = (coverage > 0.02) & (coverage < 0.98)
        mask_layer = np.dstack([case["source"], 255 * mask.astype(np.uint8)])
        figures = {
            "alpha_error": np.abs(layer[..., 3] / 255 - coverage)[band].mean(),
            "mask_error": np.abs(mask - coverage)[band].mean(),
        }
        for name, value in (("black", (0, 0, 0)), ("white", (255, 255, 255)), ("green", (0, 180, 0))):
            background = np.broadcast_to(np.array(value, np.uint8), case["clean"].shape)
            truth = case["light"] + (1 - coverage[..., None]) * background
            figures[f"on_{name}"] = np.sqrt(((compose(layer, light, background) - truth)[band] ** 2).mean())
            figures[f"mask_on_{name}"] = np.sqrt(((compose(mask_layer, None, background) - truth)[band] ** 2).mean())
        rows.append(figures)
    return {name: round(float(np.mean([figures[name] for figures in rows])), 4) for name in rows[0]}


def main() -> None:
    cv2.setNumThreads(1)
    weights: Path = ASSETS / "weights"
    backend = "sam-onnx" if weights.is_dir() else "grabcut"
    mask_stages = [stage for stage in make_stages(backend, weights) if stage.name in ("pair", "effects", "segment")]
    matte = Matte(MatteParams())

    def extract(record: Record) -> Record:
        outcome = matte.process_one(record)
        assert isinstance(outcome, Kept)
        return record | dict(outcome.records[0])

    clean = render_scenes(Degrade())
    for name, records in (("clean", clean), ("degraded", render_scenes(DEGRADED))):
        for masks in ("chain", "true"):
            rows = []
            for record, truth in zip(records, clean, strict=True):
                masked = run_stages(mask_stages if masks == "chain" else mask_stages[:1], record)
                if masked is None:
                    continue
                if masks == "true":
                    masked |= {"object_mask": record["true_object_mask"]}
                    masked |= {"foreground_mask": record["true_foreground_mask"]}
                rows.append(measure_record(extract(masked), truth))
            print_result("compose_truth", set=name, masks=masks, backend=backend, **summarize(rows))
    for folder in (ASSETS / "pairs" / kind for kind in ("cars", "person")):
        rows = []
        for path in sorted(folder.glob("*_input.png")):
            stem = path.name.removesuffix("_input.png")
            files = {name: (folder / f"{stem}_{part}.png") for name, part in (("input", "input"), ("gt", "clean"))}
            pair = {name: decode_image(file.read_bytes()) for name, file in files.items()}
            masked = run_stages(mask_stages, {"id": stem} | pair)
            if masked is not None:
                rows.append(measure_record(extract(masked), None))
        if rows:
            print_result("compose_truth", set=folder.name, masks="chain", backend=backend, **summarize(rows))
    photos = load_photographs()
    for kind in ("strands", "motion", "lens"):
        print_result("compose_truth", edges=kind, photographs=len(photos), **measure_edges(kind, photos))


if __name__ == "__main__":
    main()
