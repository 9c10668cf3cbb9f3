"""Errors of `pair` in sub-pixel shift and gain, and in telling a static camera from a moving one, on exact transforms.

`gt` of real pairs and studio scenes is shifted by up to 3 px (in the Fourier domain, which shifts exactly), its light
changed by up to 5 % and each channel by up to 2 % more; then both pictures get a camera's noise and JPEG q85. The cars'
camera shook, so their `input` is first replaced by `gt` outside of objects and effects: otherwise the true shift would
be unavailable. Goals: p90 of the shift's error at most 0.06 px, and no wrong decision.

    python -m benchmarks registration
"""

import math
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ASSETS, print_result
from benchmarks.pairs.studio_truth import render_scenes
from rasura.manifests.images import decode_image, decode_mask
from rasura.stages.imaging.morphology import dilate
from rasura.stages.pair import Pair, PairParams
from rasura.stages.sources.studio.studio import Degrade
from rasura.stages.stage import Kept

MAX_STATIC_MOTION = 0.4  # px of pair_motion up to which a camera counts as static
SHIFTS = 3  # per pair
BORDER = 32


def shift_picture(picture: Any, dx: float, dy: float) -> Any:
    """Return (h, w, 3) float32 shifted right by dx and down by dy, by a phase ramp on the mirrored picture."""
    wide = cv2.copyMakeBorder(picture.astype(np.float32), BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REFLECT_101)
    down, right = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])[None, :]
    ramp = np.exp(-2j * math.pi * (down * dy + right * dx))[..., None]
    moved = np.fft.irfft2(np.fft.rfft2(wide, axes=(0, 1)) * ramp, wide.shape[:2], axes=(0, 1))
    return moved[BORDER:-BORDER, BORDER:-BORDER].astype(np.float32)


def rotate_picture(picture: Any, degrees: float, zoom: float) -> Any:
    """Return (h, w, 3) float32 from a camera that rotated about its axis and zoomed."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom)
    flags, border = cv2.INTER_LANCZOS4, cv2.BORDER_REFLECT_101
    return cv2.warpAffine(picture.astype(np.float32), matrix, (width, height), flags=flags, borderMode=border)


def add_camera_noise(picture: Any, rng: np.random.Generator, noise: float = 2.0) -> Any:
    """Return (h, w, 3) uint8 with noise of `noise` levels and the artefacts of JPEG q85."""
    noisy = np.clip(np.rint(picture + rng.normal(0, noise, picture.shape)), 0, 255).astype(np.uint8)
    code = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def load_static_pairs() -> list[tuple[str, Any, Any]]:
    """Load name, input and gt of pairs without any motion."""
    pairs = []
    for kind in ("cars", "person"):
        for path in sorted((ASSETS / "pairs" / kind).glob("*_input.png")):
            name = path.name.removesuffix("_input.png")
            source, clean = (decode_image((path.parent / f"{name}_{p}.png").read_bytes()) for p in ("input", "clean"))
            if kind == "cars":
                masks = [decode_mask((path.parent / f"{name}_{p}.png").read_bytes()) for p in ("mask", "effect")]
                source = np.where(dilate(masks[0] | masks[1], 12)[..., None], source, clean)
            pairs.append((name, source, clean))
    return pairs + [(f"studio {k}", r["input"], r["gt"]) for k, r in enumerate(render_scenes(Degrade()))]


def measure(pairs: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Return errors and decisions over all pairs."""
    stage = Pair(PairParams())
    errors, gains, wrong_decisions, static_motions, moving_motions = [], [], [], [], []
    for index, (name, source, clean) in enumerate(pairs):
        rng = np.random.default_rng([7, index])
        for attempt in range(SHIFTS + 2):
            dx, dy = rng.uniform(-3, 3, 2)
            light = (1 + rng.uniform(-0.05, 0.05)) * (1 + rng.uniform(-0.02, 0.02, 3))
            moved_picture = shift_picture(clean, dx, dy)
            if attempt >= SHIFTS:
                moved_picture = rotate_picture(moved_picture, *((0.3, 1.0) if attempt == SHIFTS else (0.0, 1.01)))
            pair = {
                "id": name,
                "input": add_camera_noise(source, rng),
                "gt": add_camera_noise(moved_picture * light, rng),
            }
            outcome = stage.process_one(pair)
            assert isinstance(outcome, Kept)
            record = outcome.records[0]
            motion = record["pair_motion"]
            if (motion <= MAX_STATIC_MOTION) != (attempt < SHIFTS):
                wrong_decisions.append(
                    f"{name} {('shift', 'turn', 'zoom')[max(0, attempt - SHIFTS + 1)]}: {motion:.2f} px"
                )
            if attempt < SHIFTS:
                errors.append(math.hypot(record["pair_shift_x"] + dx, record["pair_shift_y"] + dy))
                gains.append(float(np.abs(np.array(record["pair_gain"]) * light - 1).max()))
                static_motions.append(motion)
            else:
                moving_motions.append(motion)
    return {
        "pairs": len(pairs),
        "shift_error_median_px": round(float(np.median(errors)), 3),
        "shift_error_p90_px": round(float(np.quantile(errors, 0.9)), 3),
        "shift_error_max_px": round(max(errors), 3),
        "gain_error_median_percent": round(100 * float(np.median(gains)), 2),
        "gain_error_p90_percent": round(100 * float(np.quantile(gains, 0.9)), 2),
        "motion_of_shifts_max_px": round(max(static_motions), 2),
        "motion_of_turns_and_zooms_min_px": round(min(moving_motions), 2),
        "wrong_decisions": wrong_decisions,
    }


def main() -> None:
    cv2.setNumThreads(1)
    pairs = load_static_pairs()
    print_result("registration", all=measure(pairs))


if __name__ == "__main__":
    main()
