"""Noise of a registered pair, measured on what did not change."""

import numpy as np

from rasura.manifests.images import RGB, Mask
from rasura.networks.metrics.psnr import compute_psnr
from rasura.stages.imaging.comparison import find_unchanged_pixels
from rasura.stages.imaging.filters import box_mean, convert_to_grey


def estimate_noise(source: RGB, clean: RGB, where: Mask | None = None) -> float:
    """Return sigma, in grey levels, of the 5 × 5 mean difference of unchanged pixels; the noisiest channel's.

    Taken from box5(Δ) − box15(Δ): a soft shadow over half the picture is no noise, and a plain median of |Δ|
    would count it as such. 1.4826 times the median absolute deviation is sigma of a normal distribution.

    Args:
        source, clean: (h, w, 3) uint8, registered.
        where: (h, w) bool, the pixels that count; None: those that did not change.
    """
    sigma = 0.0
    unchanged = where
    if unchanged is None:
        unchanged = find_unchanged_pixels(convert_to_grey(source), convert_to_grey(clean))
    for channel in range(3):
        delta = source[..., channel].astype(np.float32) - clean[..., channel]
        high = box_mean(delta, 5) - box_mean(delta, 15)
        enough = where is not None or unchanged.mean() > 0.05
        values = high[unchanged] if enough else high.ravel()
        sigma = max(sigma, 1.4826 * float(np.median(np.abs(values - np.median(values)))))
    return sigma


def measure_background_psnr(source: RGB, clean: RGB) -> float:
    """Return the PSNR in dB of the pixels that show the same, of all where none does; at most 99 (identical)."""
    unchanged = find_unchanged_pixels(convert_to_grey(source), convert_to_grey(clean))
    pixels = unchanged if unchanged.any() else np.ones_like(unchanged)
    return compute_psnr(source[pixels], clean[pixels])
