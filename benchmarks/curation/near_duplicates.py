"""Near-duplicates: 45 photographs and 12 copies of each, found by their fingerprints and by embeddings.

A pair is right where both pictures come from one photograph. Recall is that of the copies by their photograph, and by
any picture of it; precision is that of all pairs that are near. `kept` is what `distinct` leaves of the 585 pictures
with `best: quality`: pictures of a photograph beyond the first are missed duplicates. RASURA_EMBEDDING has the
parameters of `embed` as JSON ({"network": "dinov2.onnx"}), whose embeddings are measured, too, from RASURA_COSINE on.

    python -m benchmarks near_duplicates
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from benchmarks.common import print_result
from benchmarks.curation.planted import list_photographs
from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.images import RGB, decode_image
from rasura.stages.curation.crops import compute_windows, find_crops
from rasura.stages.curation.duplicates import MIN_COSINE, choose_kept, find_near_embeddings, find_near_fingerprints
from rasura.stages.curation.quality import measure_quality, score_quality


def compress(picture: RGB, quality: int) -> RGB:
    """Return the picture after JPEG."""
    code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def resize(picture: RGB, factor: float) -> RGB:
    """Return the picture at another size."""
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def crop(picture: RGB, share: float) -> RGB:
    """Return the picture less a share of both sides, cut off unevenly: a third at the left and top."""
    high, wide = (round(length * (1 - share)) for length in picture.shape[:2])
    top, left = (picture.shape[0] - high) // 3, (picture.shape[1] - wide) // 3
    return np.ascontiguousarray(picture[top : top + high, left : left + wide])


def change_colours(picture: RGB) -> RGB:
    """Return the picture with stronger and warmer colours."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = np.minimum(hsv[..., 1] * 1.4, 255)
    warm = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32) * (1.08, 1.0, 0.9)
    return np.asarray(np.clip(warm, 0, 255), np.uint8)


def brighten(picture: RGB) -> RGB:
    """Return the picture a quarter brighter, clipped."""
    return np.asarray(np.clip(picture.astype(np.float32) * 1.25, 0, 255), np.uint8)


def write_text(picture: RGB) -> RGB:
    """Return the picture with a caption across its lower part."""
    written = picture.copy()
    scale = picture.shape[1] / 400
    place = (int(0.04 * picture.shape[1]), int(0.9 * picture.shape[0]))
    thickness = max(1, round(2 * scale))
    cv2.putText(written, "(c) sample stock photo", place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,) * 3, thickness, 16)
    return written


COPIES: Mapping[str, Callable[[RGB], RGB]] = {
    "JPEG 30": lambda picture: compress(picture, 30),
    "JPEG 10": lambda picture: compress(picture, 10),
    "half the size": lambda picture: resize(picture, 0.5),
    "a quarter of the size": lambda picture: resize(picture, 0.25),
    "twice the size": lambda picture: resize(picture, 2),
    "5 % cut off": lambda picture: crop(picture, 0.05),
    "10 % cut off": lambda picture: crop(picture, 0.1),
    "20 % cut off": lambda picture: crop(picture, 0.2),
    "mirrored": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "other colours": change_colours,
    "a quarter brighter": brighten,
    "text on it": write_text,
}


def make_copies() -> list[tuple[str, str, RGB]]:
    """Return photograph, name of the copy ("" for itself), and pixels, of all pictures."""
    pictures = []
    for path in list_photographs():
        picture = decode_image(path.read_bytes())
        pictures.append((path.stem, "", picture))
        pictures += [(path.stem, name, change(picture)) for name, change in COPIES.items()]
    return pictures


def score_pairs(pairs: list[tuple[int, int]], pictures: list[tuple[str, str, RGB]]) -> dict[str, Any]:
    """Score near pairs by the photographs that their pictures come from."""
    photographs = [photograph for photograph, _, _ in pictures]
    right = [(i, j) for i, j in pairs if photographs[i] == photographs[j]]
    by_itself: dict[str, set[str]] = {name: set() for name in COPIES}
    by_any: set[int] = set()
    for i, j in right:
        by_any |= {i, j}
        names = {pictures[i][1], pictures[j][1]}
        if "" in names:
            by_itself[(names - {""}).pop()].add(photographs[i])
    count = len(set(photographs))
    return {
        "recall": {name: round(len(found) / count, 3) for name, found in by_itself.items()},
        "recall_all": round(sum(map(len, by_itself.values())) / (count * len(COPIES)), 3),
        "recall_by_any": round(sum(1 for index in by_any if pictures[index][1]) / (count * len(COPIES)), 3),
        "precision": round(len(right) / max(1, len(pairs)), 4),
        "pairs": len(pairs),
    }


def find_highest(vectors: Any, pictures: list[tuple[str, str, RGB]]) -> float:
    """Find the highest cosine of the embeddings of two different photographs, or of their copies."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    photographs = np.array([photograph for photograph, _, _ in pictures])
    differ = photographs[:, None] != photographs[None, :]
    return round(float((units @ units.T)[differ].max()), 4)


def main() -> None:
    """Measure fingerprints, and embeddings where a network is named."""
    pictures = make_copies()
    names = [f"{photograph} {copy}" for photograph, copy, _ in pictures]
    prints = [compute_fingerprint(picture).hex() for _, _, picture in pictures]
    quality = [score_quality(measure_quality(picture)) for _, _, picture in pictures]
    windows = [compute_windows(picture).hex() for _, _, picture in pictures]
    near = find_near_fingerprints(prints)
    measured = {"fingerprint": near, "fingerprint with crops": sorted({*near, *find_crops(prints, windows)})}
    if params := os.environ.get("RASURA_EMBEDDING"):
        from rasura.stages.curation.networks import Embed, EmbedParams

        stage = Embed(EmbedParams.model_validate_json(params))
        stage.setup()
        vectors = np.stack([stage.compute({"id": "a", "source": picture}) for _, _, picture in pictures])
        cosine = float(os.environ.get("RASURA_COSINE", MIN_COSINE))
        measured["embedding"] = list(find_near_embeddings(vectors, cosine))
        print_result("embedding", cosine=cosine, highest_of_two_photographs=find_highest(vectors, pictures))
    for method, pairs in measured.items():
        gone = choose_kept(pairs, quality, names)
        kept = [index for index in range(len(pictures)) if index not in gone]
        originals = sum(pictures[index][1] in ("", "mirrored") for index in kept)
        print_result(
            f"near-duplicates by {method}",
            **score_pairs(pairs, pictures),
            kept=len(kept),
            photographs=len({photograph for photograph, _, _ in pictures}),
            kept_uncut=originals,
        )


if __name__ == "__main__":
    main()
