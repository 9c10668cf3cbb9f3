"""A promptable SAM in two ONNX files: the encoder runs once a picture, the decoder takes about 0.1 s a prompt.

Works with every export in the form of SAM's own ONNX decoder (SAM, MobileSAM), with one mask a prompt or with four.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rasura.manifests.images import RGB
from rasura.networks.onnx import open_session
from rasura.networks.weights import BadWeights
from rasura.stages.segmenters.sam import PADDING, Embedding, Floats, Region, crop_region

SIDE = 1024  # the encoder's square input; the picture's longer side fills it
GRID = 256  # side of the decoder's masks
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
DECODER = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")


def prepare_input(picture: RGB) -> Floats:
    """Return the input (1, 3, 1024, 1024) of (h, w, 3) uint8: longer side 1024, normalized, zeros right and below."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=method)
    out = np.zeros((1, 3, SIDE, SIDE), np.float32)
    out[0, :, : size[1], : size[0]] = ((small - MEAN) / STD).transpose(2, 0, 1)
    return out


def enlarge_logits(low: Floats, scale: float, width: int, height: int) -> Floats:
    """Enlarge the decoder's logits (256, 256) to the picture's (height, width).

    Half-pixel centres: the picture covers scale · width / 4 of the 256 columns, a part of a column included.
    The decoder's own method enlarges to 1024 × 1024 first.

    Args:
        low: the logits of an input that is `scale` times the picture.
        scale: input px per picture px.
        width: of the picture, px.
        height: of the picture, px.
    """
    step = SIDE / GRID / scale
    matrix = np.array([[step, 0, 0.5 * step - 0.5], [0, step, 0.5 * step - 0.5]], np.float64)
    method = cv2.INTER_CUBIC if step > 1 else cv2.INTER_LINEAR
    full = cv2.warpAffine(low, matrix, (width, height), flags=method, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(full, np.float32)


class SamOnnx:
    """A SAM from an encoder and a decoder in ONNX form, on one thread each."""

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self.encoder: Any = open_session(encoder)
        self.decoder: Any = open_session(decoder)
        first = self.encoder.get_inputs()[0]
        self.encoder_input = first.name
        if list(first.shape[1:]) != [3, SIDE, SIDE]:
            raise BadWeights(f"'{encoder}': input {first.shape} is not (n, 3, {SIDE}, {SIDE}): not SAM's encoder")
        if missing := set(DECODER) - {entry.name for entry in self.decoder.get_inputs()}:
            raise BadWeights(f"'{decoder}' has no input {', '.join(sorted(missing))}: not SAM's decoder")

    def encode(self, picture: RGB, region: Region | None = None) -> Embedding:
        part, (left, top, right, bottom) = crop_region(picture, region)
        (features,) = self.encoder.run(None, {self.encoder_input: prepare_input(part)})
        return Embedding(features, right - left, bottom - top, left, top)

    def _predict(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats, float]:
        """Return the decoder's logits (k, 256, 256) and predicted IoU (k,), and the input px per picture px."""
        scale = SIDE / max(embedding.width, embedding.height)
        moved = (points - np.array([embedding.left, embedding.top], np.float32)) * scale
        moved[labels == PADDING] = 0
        quality, low = self.decoder.run(
            ["iou_predictions", "low_res_masks"],
            {
                "image_embeddings": embedding.features,
                "point_coords": moved[None].astype(np.float32),
                "point_labels": labels[None],
                "mask_input": np.zeros((1, 1, GRID, GRID), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array([64, 64], np.float32),
            },
        )
        return np.asarray(low[0], np.float32), np.asarray(quality, np.float32).ravel(), scale

    def prompt(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, float]:
        low, quality, scale = self._predict(embedding, points, labels)
        return enlarge_logits(low[0], scale, embedding.width, embedding.height), float(quality[0])

    def prompt_all(self, embedding: Embedding, points: Floats, labels: Floats) -> tuple[Floats, Floats]:
        low, quality, scale = self._predict(embedding, points, labels)
        first = 1 if len(low) > 1 else 0  # of several, the first is meant for prompts that are not ambiguous
        masks = [enlarge_logits(logits, scale, embedding.width, embedding.height) for logits in low[first:]]
        return np.stack(masks), quality[first:]
