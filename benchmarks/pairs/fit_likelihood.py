"""Fit the weights of `effect_mask/object_likelihood.py` to rendered scenes with exact truth.

The scenes are of seeds that neither tests nor other benchmarks use: ordinary ones and traps, with defects of a camera,
on procedural surfaces and on photographs; and crops of them that cut objects at the border, larger, overexposed,
smoothed and compressed, as photographs and clips are. Each runs through `pair` and `effects`; of each as many pixels of
M_fg are drawn. Needs torch (`rasura[models]`) and mitsuba, and hours where nothing is in the studio's cache. Without
`--write` the repository's weights stay as they are: every fifth scene is left out of the fit, and the IoU of likelihood
> 0.5 with M_o is printed for both.

    python -m benchmarks fit_likelihood [--write]
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.studio_truth import DEGRADED
from benchmarks.pairs.traps import COMBINED
from rasura.manifests.images import Mask
from rasura.manifests.storage import Store
from rasura.stages.effect_mask.object_likelihood import WEIGHTS, compute_features, shrink_pair, weigh_features
from rasura.stages.effects import Effects
from rasura.stages.imaging.filters import Floats
from rasura.stages.pair import Pair
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.studio.studio import Degrade, Studio, StudioParams
from rasura.stages.sources.studio.traps import Trap
from rasura.stages.stage import Kept, Record

CAMERA = Degrade(noise=1.0, shift=0.6, flicker=0.02)  # of `recipes/demo.yaml`
TRAP_SEEDS, TRAP_SCENES = (7_000, 60_000, 83_000, 91_000), 4
PHOTO_SEEDS = range(111_000, 112_200, 100)  # one scene a trap, every other on photographs
HIDDEN_UNITS = 32
STEPS, SCENES_A_STEP, PIXELS_A_SCENE = 5000, 32, 256
NOISE = 0.1  # of the normalized features, added in the fit
MIN_OBJECT = 30  # px

Scene = tuple[Floats, npt.NDArray[np.bool_], int]  # features and truth of the pixels of M_fg; px of M_o outside of it


def list_scenes() -> Iterator[StudioParams]:
    """List the scenes to fit to."""
    for degrade in (Degrade(), DEGRADED):
        yield StudioParams(count=24, seed=52_000, width=480, height=320, spp=16, degrade=degrade)
    sets: list[tuple[Trap, ...]] = [*((name,) for name in get_args(Trap)), *COMBINED]
    photos = ASSETS / "photos" / "backgrounds"
    for number, traps in enumerate(sets):
        for seed in TRAP_SEEDS:
            yield StudioParams(count=TRAP_SCENES, seed=seed + number, traps=list(traps), degrade=CAMERA)
        for turn, seed in enumerate(PHOTO_SEEDS):
            textures = str(photos) if photos.is_dir() and (turn + number) % 2 else None
            degrade = DEGRADED if turn % 3 == 0 else CAMERA
            yield StudioParams(count=1, seed=seed + number, traps=list(traps), textures=textures, degrade=degrade)


def crop_pair(record: Record, rng: np.random.Generator) -> Record:
    """Crop a rendered pair through its object, enlarge it, and give it the defects of a photograph or a clip."""
    source, clean, objects = record["input"], record["gt"], record["true_object_mask"]
    height, width = objects.shape
    high, wide = int(height * rng.uniform(0.55, 0.95)), int(width * rng.uniform(0.55, 0.95))
    rows, columns = np.nonzero(objects)
    pick = int(rng.integers(len(rows)))
    top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
    match int(rng.integers(6)):  # a point of the object is at one of the borders, or anywhere
        case 0:
            top = int(rows[pick])
        case 1:
            top = int(rows[pick]) - high
        case 2:
            left = int(columns[pick])
        case 3:
            left = int(columns[pick]) - wide
    top, left = int(np.clip(top, 0, height - high)), int(np.clip(left, 0, width - wide))
    window = np.s_[top : top + high, left : left + wide]
    scale = max(1.0, min(rng.uniform(1.0, 2.2), 420 / min(high, wide)))
    size = round(wide * scale), round(high * scale)
    gain, noise = rng.uniform(0.8, 1.7), rng.uniform(0, 2)
    smoothing, quality = float(rng.uniform(0, 28)), int(rng.integers(35, 96))
    pictures = []
    for picture in (source, clean):
        larger = cv2.resize(np.ascontiguousarray(picture[window]), size, interpolation=cv2.INTER_CUBIC)
        noisy = larger.astype(np.float32) * gain + rng.normal(0, noise, larger.shape)
        smooth = cv2.bilateralFilter(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), 7, smoothing, 2.0)
        _, encoded = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pictures.append(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8))
    larger_mask = cv2.resize(objects[window].astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return {"id": record["id"], "input": pictures[0], "gt": pictures[1], "true_object_mask": larger_mask}


def run_stages(record: Record) -> Record | None:
    """Run a pair through `pair` and `effects`; None where they reject it, or next to nothing of the object is left."""
    for stage in (Pair(Pair.Params()), Effects(Effects.Params())):
        outcome = stage.process_one(record)
        if not isinstance(outcome, Kept):
            return None
        record = dict(outcome.records[0])
    return record if record["true_object_mask"].sum() >= MIN_OBJECT else None


def render(params: StudioParams) -> Iterator[Record]:
    """Render scenes that have an object, and run each and a crop of it through `pair` and `effects`."""
    source = Studio(params)
    source.setup()
    for number, item in enumerate(source.items(RunContext(Store("/nonexistent"), "scenes", 1))):
        outcome = source.process_one(item)
        if not isinstance(outcome, Kept) or outcome.records[0]["true_object_mask"].sum() < MIN_OBJECT:
            continue
        record = dict(outcome.records[0])
        cropped = crop_pair(record, np.random.default_rng([params.seed or 0, number]))
        yield from (pair for pair in map(run_stages, (record, cropped)) if pair is not None)


def measure(record: Record) -> Scene:
    """Measure the features of a pair that went through `effects`."""
    source, clean, foreground = shrink_pair(record["input"], record["gt"], record["foreground_mask"])
    size = foreground.shape[1::-1]
    objects = cv2.resize(record["true_object_mask"].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    features = compute_features(source, clean, foreground, record["pair_noise"])
    return features, objects[foreground], int((objects & ~foreground).sum())


def fit(scenes: list[Scene], seed: int = 0, steps: int = STEPS) -> dict[str, Floats]:
    """Fit the regression to scenes; return its weights as `weigh_features` takes them."""
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    sample = np.concatenate([features[::7] for features, _, _ in scenes])
    mean, scale = sample.mean(0), sample.std(0) + np.float32(1e-3)
    sizes = [sample.shape[1], HIDDEN_UNITS, HIDDEN_UNITS, 1]
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(steps):
        features, labels = [], []
        for number in rng.integers(0, len(scenes), SCENES_A_STEP):
            draws = rng.integers(0, len(scenes[number][1]), PIXELS_A_SCENE)
            features.append(scenes[number][0][draws])
            labels.append(scenes[number][1][draws])
        batch = torch.from_numpy((np.concatenate(features) - mean) / scale)
        batch = batch + NOISE * torch.randn_like(batch)
        truth = torch.from_numpy(np.concatenate(labels).astype(np.float32))
        loss: Any = torch.nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    matrices = [torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().numpy() for layer in layers]
    return {"mean": mean, "scale": scale, **dict(zip(("first", "second", "third"), matrices, strict=True))}


def compute_iou(scene: Scene, weights: dict[str, Floats]) -> float:
    """Return the IoU of likelihood > 0.5 with the true M_o."""
    features, truth, outside = scene
    predicted: Mask = weigh_features(features, weights) > 0.5
    return float((predicted & truth).sum() / ((predicted | truth).sum() + outside))


def summarize(scenes: list[Scene], weights: dict[str, Floats]) -> dict[str, Any]:
    """Return mean and lowest decile of the scenes' IoU."""
    values = np.array([compute_iou(scene, weights) for scene in scenes])
    return {
        "scenes": len(scenes),
        "iou": round(float(values.mean()), 3),
        "p10": round(float(np.percentile(values, 10)), 3),
    }


def main() -> None:
    cv2.setNumThreads(1)
    write = "--write" in sys.argv[1:]
    scenes = [measure(record) for params in list_scenes() for record in render(params)]
    fitted = scenes if write else [scene for k, scene in enumerate(scenes) if k % 5]
    weights = fit(fitted)
    print_result("fit_likelihood", scenes="fitted", **summarize(fitted, weights))
    if write:
        np.savez(WEIGHTS, **weights)  # type: ignore[arg-type]
    else:
        print_result("fit_likelihood", scenes="left out", **summarize(scenes[::5], weights))


if __name__ == "__main__":
    main()
