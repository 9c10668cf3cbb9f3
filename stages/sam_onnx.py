"""A promptable SAM in two ONNX files: the encoder sees a picture once, the decoder answers each prompt in ~0.1 s.

Works with every export in the form of SAM's own ONNX decoder (SAM, MobileSAM).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.images import RGB
from stages.onnx import network

Floats = npt.NDArray[np.float32]

SIDE = 1024  # the encoder's square input; the picture's longer side fills it
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
POSITIVE, NEGATIVE, BOX_START, BOX_END, PADDING = 1, 0, 2, 3, -1


@dataclass(frozen=True)
class Embedding:
    """What the encoder made of a picture, or of a part of it that starts at (left, top)."""

    features: Floats  # (1, 256, 64, 64)
    width: int
    height: int
    left: int = 0
    top: int = 0

    @property
    def scale(self) -> float:
        """Encoder pixels a picture pixel."""
        return SIDE / max(self.width, self.height)


def points_prompt(
    positive: npt.ArrayLike = (), negative: npt.ArrayLike = (), box: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """A prompt as the decoder takes it: (n, 2) x, y in px of the picture, and (n,) labels.

    A box [x0, y0, x1, y1] is two points of their own labels; without one, SAM wants a padding point.
    """
    good, bad = (np.asarray(p, np.float32).reshape(-1, 2) for p in (positive, negative))
    corners = np.zeros((1, 2), np.float32) if box is None else np.asarray(box, np.float32).reshape(2, 2)
    labels = [POSITIVE] * len(good) + [NEGATIVE] * len(bad) + ([PADDING] if box is None else [BOX_START, BOX_END])
    return np.concatenate([good, bad, corners]), np.asarray(labels, np.float32)


def prepared(picture: RGB) -> Floats:
    """(h, w, 3) uint8 to (1, 3, 1024, 1024): longer side 1024, SAM's mean and deviation, zeros right and below."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=method)
    out = np.zeros((1, 3, SIDE, SIDE), np.float32)
    out[0, :, : size[1], : size[0]] = ((small - MEAN) / STD).transpose(2, 0, 1)
    return out


class SamOnnx:
    """Both sessions of one model, on one thread each."""

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self.encoder: Any = network(encoder)
        self.decoder: Any = network(decoder)
        self.encoder_input = self.encoder.get_inputs()[0].name

    def embed(self, picture: RGB, region: tuple[int, int, int, int] | None = None) -> Embedding:
        """Runs the encoder on a picture, or on its region [x0, y0, x1, y1): small objects get more of its pixels."""
        height, width = picture.shape[:2]
        left, top, right, bottom = region or (0, 0, width, height)
        part = picture[top:bottom, left:right]
        (features,) = self.encoder.run(None, {self.encoder_input: prepared(part)})
        return Embedding(features, right - left, bottom - top, left, top)

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        """Mask logits (h, w) of the embedded picture or region (object above 0), and SAM's own guess of the IoU.

        The decoder's 256 × 256 logits are resized here: its own way blows them up to 1024 × 1024 first.
        """
        moved = (points - np.array([embedding.left, embedding.top], np.float32)) * embedding.scale
        moved[labels == PADDING] = 0
        answers = self.decoder.run(
            ["iou_predictions", "low_res_masks"],
            {
                "image_embeddings": embedding.features,
                "point_coords": moved[None].astype(np.float32),
                "point_labels": labels[None],
                "mask_input": np.zeros((1, 1, 256, 256), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array([64, 64], np.float32),
            },
        )
        quality, low = answers
        low = np.asarray(low[0, 0], np.float32)
        # Half-pixel centres: the picture covers scale · width / 4 of the 256 columns, a part of a column included.
        step = 4 / embedding.scale
        matrix = np.array([[step, 0, 0.5 * step - 0.5], [0, step, 0.5 * step - 0.5]], np.float64)
        size = (embedding.width, embedding.height)
        method = cv2.INTER_CUBIC if step > 1 else cv2.INTER_LINEAR
        full = cv2.warpAffine(low, matrix, size, flags=method, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(full, np.float32), float(quality.ravel()[0])
