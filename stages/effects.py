"""Stage `effects`: what differs between a registered pair: the object and its shadow, reflection and bounced light.

Two methods. `noise` asks what stands out of the pair's own noise and hangs together with something a shadow cannot
explain (the object core). `osor` is OSOR's published heat map with its constants, for comparison.
"""

from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from rasura.manifests.images import RGB, Mask
from rasura.manifests.schemas import Kind
from rasura.stages.pair import blur, box_mean, channel_max, channel_mean, dilate, disc, range_distance
from rasura.stages.stage import Kept, Outcome, Params, Record, Rejected, Stage

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

WHITE_SHARE = 5.1  # grey levels, 2 % of white: the faintest effect that counts, however clean the pair is
EVEN = 4.0  # grey levels by which means of two widths may differ in a slow falloff
LINEAR_FLOOR = 0.01  # of white, added before the logarithm: near black, ratios are noise
TINT_OF_SHADOW = 0.22  # how far a channel of a shadow's log ratio may lie from their mean, as a share of that mean
BLACK = -3.0  # log of the linear ratio below which nothing in the open is in shadow: 5 % of the light
CORE_SHARE = 0.0008  # of the picture: smaller core blobs are dropped


def components(mask: Mask) -> tuple[int, Labels, npt.NDArray[np.int64]]:
    """8-connected components: count (without the ground), (h, w) labels from 1, and areas in px, one a component."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32), np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int64)


def keep_components(labels: Labels, wanted: npt.NDArray[np.bool_]) -> Mask:
    """(h, w) True where the label's flag is set; `wanted[i]` is component i + 1."""
    return np.concatenate([[False], wanted])[labels].astype(bool)


def fill_holes(mask: Mask, largest: int | None = None) -> Mask:
    """Background regions that do not touch the border become foreground, if at most `largest` px (None: any)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    height, width = mask.shape
    left, top, wide, high, area = (stats[1:, k] for k in range(5))
    inner = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    if largest is not None:
        inner &= area <= largest
    return mask | keep_components(np.asarray(labels, np.int32), inner)


def fill_small(mask: Mask, share: float = 0.03) -> Mask:
    """Holes of at most `share` of the whole mask become part of it."""
    return fill_holes(mask, max(4, int(share * mask.sum())))


def morph(mask: Mask, operation: int, side: int) -> Mask:
    """Opening or closing with an ellipse of `side` px, as if the picture went on beyond its border."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), side, side, side, side, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.morphologyEx(padded, operation, kernel), np.uint8)[side:-side, side:-side] > 0


def difference(source: RGB, clean: RGB, side: int = 5) -> Floats:
    """(h, w) float32, grey levels: largest over channels of the |side × side mean of source − clean|."""
    return channel_max(np.abs(box_mean(source.astype(np.float32) - clean, side)))


def steady_difference(source: RGB, clean: RGB, noise: float) -> Floats:
    """`difference` as it bears a low bar: (h, w) float32, grey levels.

    Where the 5 × 5 and the 11 × 11 mean of the difference say nearly the same (`EVEN`, or thrice the noise) a shadow
    is falling off slowly, and the wide mean, which has half the noise, speaks; at a rim it is the narrow one. Zero
    where the narrow one is below 1 % of white: a wide mean must not carry an effect across its own rim.
    """
    delta = source.astype(np.float32) - clean
    narrow, wide = box_mean(delta, 5), box_mean(delta, 11)
    both = channel_max(np.abs(np.where(np.abs(narrow - wide) < max(EVEN, 3 * noise), wide, narrow)))
    return np.asarray(np.where(channel_max(np.abs(narrow)) > WHITE_SHARE / 2, both, 0), np.float32)


def _linear(picture: RGB) -> Floats:
    return np.asarray((blur(picture, 1.0) / 255) ** 2.2, np.float32)


def floor_shows(source: RGB, clean: RGB, noise: float, alike: float = 0.7, side: int = 11) -> Mask:
    """(h, w) True where the background's own grain is still seen: whatever changed there, it is light, no object.

    Correlation over side × side of the two high-passed log pictures, where clean's grain stands out of the noise.
    Tells coloured shadows and reflections on wood or carpet from objects; says nothing on plain floors.
    """
    grey = [np.log(blur(channel_mean(p), 1.0) + 4) for p in (source, clean)]
    first, second = (g - box_mean(g, side) for g in grey)
    power = box_mean(first * first, side), box_mean(second * second, side)
    match = box_mean(first * second, side) / np.sqrt(np.maximum(power[0] * power[1], 1e-12))
    grain = np.sqrt(np.maximum(power[1], 0)) * np.exp(grey[1])  # grey levels
    return np.asarray((match > alike) & (grain > max(1.5, 2 * noise)))


def floor_hidden(source: RGB, clean: RGB, noise: float) -> Mask:
    """(h, w) True where the background's own grain should be seen, shaded or not, and is not: an object covers it.

    Correlation over 15 × 15 of the two high-passed log pictures, below 0.4, where clean's grain, as dark as source is
    there, stands out of the noise. Source's own edges are cut at 2.5 of clean's deviations, so that a shadow's rim does
    not drown the floor it crosses; what is left of the rims is thinner than an opening of 21 px.
    """
    small = min(source.shape[:2]) < 256
    side, window, opening = (7, 9, 13) if small else (11, 15, 21)
    logs = [np.log(blur(channel_mean(p), 1.0) + 4) for p in (source, clean)]
    first, second = (g - box_mean(g, side) for g in logs)
    usual = 2.5 * np.sqrt(np.maximum(box_mean(second * second, 2 * window + 1), 1e-9))
    first = np.clip(first, -usual, usual)
    power = box_mean(first * first, window), box_mean(second * second, window)
    match = box_mean(first * second, window) / np.sqrt(np.maximum(power[0] * power[1], 1e-12))
    grain = np.sqrt(np.maximum(power[1], 0)) * np.exp(box_mean(np.minimum(*logs), window))  # grey levels
    return morph((match < 0.4) & (grain > max(1.5, 2.5 * noise)), cv2.MORPH_OPEN, opening)


class Core(NamedTuple):
    """The certain part of the objects, (h, w) bool each."""

    mask: Mask
    tinted: Mask  # of it, what hue, brightness or the missing floor speak for: a shadow's steep rim has texture too
    hidden: Mask  # of it, where the floor's grain should be seen and is not


def object_core(source: RGB, clean: RGB, foreground: Mask, noise: float) -> Core:
    """Where no shadow explains the change: the certain part of the objects.

    A shadow divides all channels by nearly one factor that changes slowly. With r = log of the linear ratio
    source / clean, a pixel is core if r differs between channels, rises, has texture, or is darker than any shadow,
    and if source is unlike everything that clean shows next to it; or if the background's grain is gone.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        foreground: (h, w) bool, where the pair differs.
        noise: sigma of the 5 × 5 mean difference, grey levels.
    """
    first, second = _linear(source), _linear(clean)
    ratio = np.log((first + LINEAR_FLOOR) / (second + LINEAR_FLOOR)).astype(np.float32)
    mean = channel_mean(ratio)
    chroma = channel_max(np.abs(ratio - mean[..., None]))
    slope = cv2.Sobel(mean, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(mean, cv2.CV_32F, 0, 1) ** 2
    texture = np.sqrt(np.maximum(box_mean(slope / 64, 7), 0))  # running sums may fall just below 0
    # The same tests on noise alone: sigma of log ratio of a pixel that was blurred by 1 px.
    level = np.maximum(channel_mean(second), 0.004)
    sigma = 2.2 * (noise * 1.6 / 255) / np.maximum(level ** (1 / 2.2), 0.05) * level / (level + LINEAR_FLOOR)
    found = chroma > np.maximum(0.12 + TINT_OF_SHADOW * np.abs(np.minimum(mean, 0)), 3 * sigma)
    found |= mean > np.maximum(0.12, 3 * sigma)
    found |= mean < BLACK
    tinted = found.copy()
    # One edge makes a band of texture 9 px wide: a hard shadow's rim. Only what is wider is a textured object.
    rough = texture > np.maximum(0.10, 2 * sigma)
    found |= morph(rough, cv2.MORPH_OPEN, 13 if min(source.shape[:2]) >= 256 else 7)
    reach = 2 if min(source.shape[:2]) >= 128 else 1
    found &= ~floor_shows(source, clean, noise)
    found &= range_distance(source, clean, reach) > max(8.0, 4 * noise)
    hidden = floor_hidden(source, clean, noise)
    found = foreground & (found | hidden)
    side = min(1.0, min(source.shape[:2]) / 300)
    found = morph(found, cv2.MORPH_OPEN, 5 if side == 1 else 3)
    # Holes that show the background unchanged stay open: between the slats of a chair is floor.
    found = fill_small(morph(found, cv2.MORPH_CLOSE, 9 if side == 1 else 5)) & (foreground | found)
    _, labels, areas = components(found)
    coloured = np.bincount(labels[tinted], minlength=len(areas) + 1)[1:] > 0.05 * areas
    # The shadow of what stands outside the picture, smeared by a codec: only a missing grain speaks for it.
    core = keep_components(
        labels, (areas >= max(9, CORE_SHARE * found.size)) & (coloured | ~_cut_off(labels, len(areas)))
    )
    return Core(core, core & (tinted | hidden), core & hidden)


def _cut_off(labels: Labels, count: int) -> npt.NDArray[np.bool_]:
    """One flag a component: does it touch the border of the picture?"""
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.bincount(rim, minlength=count + 1)[1:] > 0


def hysteresis(values: Floats, low: float) -> Mask:
    """(h, w) True in components above `low` that somewhere pass twice `low`."""
    _, labels, areas = components(values > low)
    strong = np.bincount(labels[values > 2 * low], minlength=len(areas) + 1)[1:] > 0
    return keep_components(labels, strong)


def near(mask: Mask, anchor: Mask, reach: float) -> npt.NDArray[np.bool_]:
    """One flag a component of `mask`: does it come within `reach` px of `anchor`?"""
    _, labels, areas = components(mask)
    if not anchor.any():
        return np.zeros(len(areas), bool)
    distance = np.asarray(cv2.distanceTransform((~anchor).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    return np.bincount(labels[distance <= reach], minlength=len(areas) + 1)[1:] > 0


def drift(values: Floats, core: Mask) -> float:
    """Grey levels by which the picture changes far from any object: the camera's own exposure control.

    The median of `values` (|5 × 5 mean difference|) on pixels at least a sixth of the diagonal from the core. A
    pattern that the whole room shows is no shadow; noise and a shadow near its object leave it low.
    """
    if not core.any():
        return 0.0
    distance = np.asarray(cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    far = distance > np.hypot(*values.shape) / 6
    return float(np.median(values[far])) if far.mean() > 0.05 else 0.0


def clean_only(source: RGB, clean: RGB, changed: Mask, core: Mask) -> Mask:
    """(h, w) True on brighter parts of `changed` that are no effect of the object but a shadow in `clean`.

    Somebody beside the camera darkens the clean picture: the target would get a smudge that the source never had.
    With r = log source − log clean, the rim of a part lies in the picture whose own slope follows that of r:
    an effect has ⟨∇r, ∇ log source⟩ > ⟨∇r, −∇ log clean⟩. In logarithms the floor's texture is the same in both.
    """
    logs = [np.log(blur(channel_mean(p), 2.0) + 4) for p in (source, clean)]
    slopes = [(cv2.Sobel(p, cv2.CV_32F, 1, 0), cv2.Sobel(p, cv2.CV_32F, 0, 1)) for p in logs]
    steps = [a - b for a, b in zip(*slopes, strict=True)]
    votes = sum((a + b) * step for a, b, step in zip(*slopes, steps, strict=True))  # effect's less clean's own
    apart = ~dilate(core, 6)
    _, labels, areas = components(changed & apart & (logs[0] > logs[1]))
    wide = np.asarray(cv2.dilate(labels.astype(np.float32), disc(6)), np.float32).astype(np.int64)
    total = np.bincount(wide[apart], weights=np.asarray(votes, np.float64)[apart], minlength=len(areas) + 1)[1:]
    return keep_components(labels, (total < 0) & (areas >= 64))


def noise_mask(
    source: RGB, clean: RGB, noise: float, threshold: float = WHITE_SHARE, sigmas: float = 3.0, reach: float = 0.03
) -> tuple[Mask, Mask]:
    """What changed, and the part of it that hangs together with an object.

    `steady_difference` above max(threshold, sigmas · noise), hysteresis × 2, within `reach` (of the diagonal) of the
    object core; where nothing is unlike a shadow, the strongest half of the change stands in for the core.

    Returns:
        (h, w) bool twice: all that changed; M_fg.
    """
    values = steady_difference(source, clean, noise)
    low = max(threshold, sigmas * noise)
    changed = hysteresis(values, low)
    if not changed.any():
        return changed, changed
    core = object_core(source, clean, changed, noise).mask
    # Exposure drift raises the bar for effects, never below the core itself.
    wandering = drift(values, core)
    if 3 * wandering > low:
        low = 3 * wandering
        changed = hysteresis(values, low) | core
    core &= _strong(core, values)
    if not core.any():
        core = changed & (values > 0.5 * float(values[changed].max()))
    px = max(2.0, reach * float(np.hypot(*changed.shape)))
    kept = keep_components(components(changed)[1], near(changed, core, px)) | core
    kept &= ~clean_only(source, clean, kept, core)
    # A median takes off the frayed rim and the threads that noise and codec draw along a soft shadow's end.
    side = min(15, max(3, min(kept.shape) // 45 | 1))
    smooth = np.asarray(cv2.medianBlur(kept.astype(np.uint8), side), np.uint8) > 0
    kept = smooth | core | (kept & (values > 2 * low))
    _, labels, areas = components(kept)
    kept = keep_components(labels, near(kept, core, px) & (areas >= max(16, kept.size // 2000))) | core
    return changed | core, fill_holes(kept, max(16, kept.size // 1000))


def _strong(core: Mask, values: Floats, share: float = 0.3) -> Mask:
    """Core blobs whose change is not faint beside the strongest one: p70 > share · p80 of the core, and > 25 levels."""
    count, labels, _ = components(core)
    if count < 2:
        return core
    whole = float(np.percentile(values[core], 80))
    wanted = np.array([np.percentile(values[labels == k], 70) > min(share * whole, 25.0) for k in range(1, count + 1)])
    return keep_components(labels, wanted)


def osor_mask(source: RGB, clean: RGB) -> Mask:
    """(h, w) bool: OSOR's SAVP heat map H = 0.6 dL + 0.3 dab + 0.1 dTex > 0.07, cleaned up.

    Pictures are raised to 2.2 and taken to 8-bit Lab; dL is the log ratio of L, dab the distance of the colours,
    dTex the difference of Sobel magnitudes of grey; each over its 99th percentile. Areas are OSOR's for 1024 × 1024,
    scaled to the picture.
    """
    labs = [
        cv2.cvtColor((255 * (p / np.float32(255)) ** 2.2).astype(np.uint8), cv2.COLOR_RGB2Lab).astype(np.float32)
        for p in (source, clean)
    ]
    light = [lab[..., 0] * (100 / 255) for lab in labs]
    edges = []
    for picture in (source, clean):
        grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        edges.append(cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))
    parts: list[npt.NDArray[Any]] = [
        np.abs(np.log(light[1] + 1e-3) - np.log(light[0] + 1e-3)),
        np.linalg.norm(labs[0][..., 1:] - labs[1][..., 1:], axis=2),
        np.abs(edges[0] - edges[1]),
    ]
    heat = np.zeros(source.shape[:2], np.float32)
    for weight, part in zip((0.6, 0.3, 0.1), parts, strict=True):
        positive = part[part > 0]
        if positive.size:
            heat += weight * np.minimum(part / float(np.percentile(positive, 99)), 1)
    scale = heat.size / 1024**2
    mask = morph(morph(heat > 0.07, cv2.MORPH_OPEN, 7), cv2.MORPH_CLOSE, 7)
    _, labels, areas = components(mask)
    return fill_holes(keep_components(labels, areas >= 2000 * scale), max(1, int(500 * scale)))


class EffectsParams(Params):
    method: Literal["noise", "osor"] = Field("noise", description="How a change is told from noise.")
    threshold: float = Field(WHITE_SHARE, gt=0, description="Faintest change, grey levels of a 5x5 mean (noise).")
    sigmas: float = Field(3.0, gt=0, description="Faintest change in multiples of pair_noise (noise).")
    reach: float = Field(0.03, ge=0, description="Gap between an object and its effect, share of the diagonal (noise).")


class Effects(Stage):
    """Finds M_fg, the object with its effects, from what differs."""

    name = "effects"
    version = "2"
    needs = {"input": Kind.RGB, "gt": Kind.RGB, "pair_noise": Kind.FLOAT}
    gives = {
        "foreground_mask": Kind.MASK,
        "effects_area": Kind.FLOAT,
        "effects_parts": Kind.FLOAT,
        "effects_stray": Kind.FLOAT,
    }
    Params = EffectsParams

    def process_one(self, record: Record) -> Outcome:
        source, clean, params = record["input"], record["gt"], self.params
        if params.method == "osor":
            changed = kept = osor_mask(source, clean)
        else:
            changed, kept = noise_mask(
                source, clean, record["pair_noise"], params.threshold, params.sigmas, params.reach
            )
        if not kept.any():
            return Rejected("no difference", f"nothing above {params.threshold} levels and {params.sigmas} sigma")
        measured = {
            "foreground_mask": kept,
            "effects_area": float(kept.mean()),
            "effects_parts": float(components(kept)[0]),
            "effects_stray": float((changed & ~kept).sum() / max(1, (changed | kept).sum())),
        }
        return Kept([record | measured])
