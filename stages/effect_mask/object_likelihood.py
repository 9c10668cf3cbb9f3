"""The likelihood that a pixel of M_fg shows the object, and not its shadow, its reflection or its light.

No single comparison decides this: a grey object on a white wall has the hue of a shadow, and a mirror image has the
hues of the object. So what the tests of `object_core` and `texture` measure, at three scales, above and below each
pixel, is weighed by a small regression (two hidden layers), whose weights were fitted to rendered scenes with exact
truth by `benchmarks.pairs.fit_likelihood`.
"""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.stages.effect_mask.object_core import compute_log_ratio, find_object_core, linearize, measure_log_ratio
from rasura.stages.effect_mask.texture import compare_texture, find_visible_texture, measure_ratio_texture
from rasura.stages.imaging.comparison import compute_difference, compute_range_distance
from rasura.stages.imaging.components import label_components
from rasura.stages.imaging.filters import Floats, blur, box_mean, channel_mean, estimate_gradient

WEIGHTS = Path(__file__).with_name("object_likelihood.npz")
WORK_SIDE = 320  # px of the shorter side at which a pair is measured: the windows below are meant for about that
SIDES = (9, 25, 61)  # px of the windows of the surroundings
COLUMN = (7, 61)  # px, width and height of the windows above and below a pixel
MIN_NOISE = 0.4  # grey levels: rendered and averaged pairs have less, which tells nothing
LEVELS = 255  # steps of the likelihood: a last bit that differs between machines decides nothing


def compute_local_features(source: RGB, clean: RGB, foreground: Mask, noise: float) -> dict[str, Floats]:
    """Compute what is measured at each pixel of a pair, (h, w) float32 each, by name.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        foreground: (h, w) bool, M_fg.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    first, second = linearize(source), linearize(clean)
    red, green, blue = cv2.split(compute_log_ratio(source, clean))
    mean, hue_change = measure_log_ratio(source, clean)
    texture, _ = measure_ratio_texture(source, clean)
    correlation, contrast = compare_texture(source, clean)
    core, tinted, hidden = find_object_core(source, clean, foreground, noise)
    noise = max(noise, MIN_NOISE)
    slopes = [estimate_gradient(np.log(blur(channel_mean(p), 1.0) + 4)) for p in (source, clean)]
    both = slopes[0][0] - slopes[1][0], slopes[0][1] - slopes[1][1]
    edges = [np.log(box_mean(across * across + down * down, 5) + 1e-3) / 2 for across, down in (*slopes, both)]
    details = [light - box_mean(light, 9) for light in map(channel_mean, (first, second))]
    kept = box_mean(details[0] * details[1], 15) / (box_mean(details[1] ** 2, 15) + 1e-6 + (0.3 * noise / 255) ** 2)
    features = {
        "ratio": np.clip(mean, -3, 2),
        "tint": np.clip(hue_change, 0, 1.5),
        "red_green": np.clip(red - green, -1, 1),
        "yellow_blue": np.clip((red + green) / 2 - blue, -1, 1),
        "ratio_texture": np.log(texture + 0.005),
        "correlation": correlation,
        "contrast": np.log(contrast / noise + 0.1),
        "visible_texture": correlation * np.clip(contrast / (0.8 + 1.2 * noise), 0, 2),
        "new": np.log1p(compute_range_distance(source, clean, 2) / (2 * noise)),
        "gone": np.log1p(compute_range_distance(clean, source, 2) / (2 * noise)),
        "change": np.log1p(compute_difference(source, clean) / noise),
        "source_edges": edges[0],
        "clean_edges": edges[1],
        "changed_edges": edges[2],
        "kept_detail": np.clip(kept, -1, 2),  # in linear light a reflection leaves 1 of it
        "source_level": channel_mean(source) / 255,
        "clean_level": channel_mean(clean) / 255,
        "core": core,
        "core_tinted": tinted,
        "core_hidden": hidden,
        "visible": find_visible_texture(source, clean, noise),
    }
    return {name: np.asarray(values, np.float32) for name, values in features.items()}


def _average_in_columns(values: Floats, above: bool) -> Floats:
    """Return the mean over the window of `COLUMN` that ends (above) or begins at each pixel, 0 outside the picture."""
    width, height = COLUMN
    anchor = (width // 2, height - 1 if above else 0)
    return np.asarray(cv2.blur(values, COLUMN, anchor=anchor, borderType=cv2.BORDER_CONSTANT), np.float32)


def _locate_in_component(foreground: Mask) -> Floats:
    """Return how far down each pixel is in its component of M_fg, 0 to 1."""
    count, labels, _ = label_components(foreground)
    rows, columns = np.nonzero(foreground)
    first, last = np.full(count + 1, foreground.shape[0]), np.zeros(count + 1, int)
    np.minimum.at(first, labels[rows, columns], rows)
    np.maximum.at(last, labels[rows, columns], rows)
    place = np.zeros(foreground.shape, np.float32)
    number = labels[rows, columns]
    place[rows, columns] = (rows - first[number]) / np.maximum(1, last[number] - first[number])
    return place


def compute_features(source: RGB, clean: RGB, foreground: Mask, noise: float) -> Floats:
    """Compute the features of the pixels of M_fg, (n, k) float32, n in the order of `np.nonzero(foreground)`.

    Those of each pixel; means over windows of its surroundings in M_fg; means above and below it, since a mirror image
    is below an object; and its place in M_fg. Arguments as in `compute_local_features`.
    """
    local = compute_local_features(source, clean, foreground, noise)
    inside = foreground.astype(np.float32)
    planes = list(local.values())
    for side in SIDES:
        share = box_mean(inside, side) + np.float32(1e-3)
        for name in ("core", "tint", "ratio", "visible_texture", "changed_edges", "new"):
            planes.append(box_mean(local[name] * inside, side) / share)
        planes.append(share)
    shares = [_average_in_columns(inside, above) + np.float32(1e-3) for above in (True, False)]
    for name in ("core", "tint", "ratio"):
        for above, share in zip((True, False), shares, strict=True):
            planes.append(_average_in_columns(local[name] * inside, above) / share)
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), np.float32)[1:-1, 1:-1]
    depth = np.clip(depth / np.sqrt(max(64, int(foreground.sum()))), 0, 0.5)
    planes += [*shares, _locate_in_component(foreground), depth]
    return np.asarray(np.stack([plane[foreground] for plane in planes], axis=-1), np.float32)


@cache
def load_weights() -> dict[str, Floats]:
    """Load the regression's weights: mean and scale (k,) of the features, and a matrix (out, in + 1) a layer."""
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        return {name: np.asarray(stored[name], np.float32) for name in ("mean", "scale", "first", "second", "third")}


def weigh_features(features: Floats, weights: dict[str, Floats]) -> Floats:
    """Return the likelihood, 0 to 1, of (n, k) features: a perceptron of two hidden layers of rectified units."""
    values = ((features - weights["mean"]) / weights["scale"])[:, None]
    for name in ("first", "second", "third"):  # `cv2.transform` sums in one order, whatever the number of threads
        values = np.asarray(cv2.transform(values, weights[name]), np.float32)
        values = values if name == "third" else np.maximum(values, 0)
    return np.asarray(np.rint(LEVELS / (1 + np.exp(-values.ravel()))) / LEVELS, np.float32)


def shrink_pair(source: RGB, clean: RGB, foreground: Mask) -> tuple[RGB, RGB, Mask]:
    """Return a pair and its M_fg, shrunk to `WORK_SIDE` px of the shorter side where it has more."""
    height, width = foreground.shape
    scale = WORK_SIDE / min(height, width)
    if scale >= 1:
        return source, clean, foreground
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = [np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in (source, clean)]
    return small[0], small[1], cv2.resize(foreground.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def estimate_object_likelihood(source: RGB, clean: RGB, foreground: Mask, noise: float) -> Floats:
    """Estimate the likelihood that pixels of M_fg show the object, (h, w) float32 from 0 to 1; 0 outside of M_fg.

    Larger pairs are measured at `WORK_SIDE` px of the shorter side. Arguments as in `compute_local_features`.
    """
    small_source, small_clean, small = shrink_pair(source, clean, foreground)
    likelihood = np.zeros(small.shape, np.float32)
    if small.any():
        likelihood[small] = weigh_features(compute_features(small_source, small_clean, small, noise), load_weights())
    # Neighbours are of one thing, mostly: the logarithm of the odds is smoothed.
    odds = blur(np.log((likelihood + 1e-3) / (1 - likelihood + 1e-3)), 1.0)
    likelihood = np.asarray(np.rint(LEVELS / (1 + np.exp(-odds))) / LEVELS, np.float32)
    if small.shape != foreground.shape:
        size = foreground.shape[1::-1]
        likelihood = np.asarray(cv2.resize(likelihood, size, interpolation=cv2.INTER_LINEAR), np.float32)
    return likelihood * foreground
