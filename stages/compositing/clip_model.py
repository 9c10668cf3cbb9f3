"""CLIP's score of a picture and a text: the cosine of their embeddings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rasura.manifests.images import RGB, Mask
from rasura.networks.pretrained import MissingWeights, list_diffusers_files, open_transformers
from rasura.removers.diffusion.conditioning import list_tokenizer_files, open_tokenizer, tokenize
from rasura.removers.diffusion.objectclear import CLIP_MEAN, CLIP_STD

WHITE = 255


def paint_on_white(colour: RGB, mask: Mask) -> RGB:
    """Return a picture (h, w, 3) uint8 that is white outside of a mask (h, w) bool."""
    return np.where(mask[..., None], colour, np.uint8(WHITE))


def crop_for_clip(picture: RGB, side: int) -> RGB:
    """Return the middle of a picture as CLIP takes it: shorter side at `side` px, cubic, (side, side, 3) uint8.

    Examples:
        >>> crop_for_clip(np.zeros((20, 60, 3), np.uint8), 10).shape
        (10, 10, 3)
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    size = (side * width // shorter, side * height // shorter)
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    x, y = (size[0] - side) // 2, (size[1] - side) // 2
    return resized[y : y + side, x : x + side]


class ClipModel:
    """A CLIP of transformers, from its folder: model and tokenizer."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel

        self.model = open_transformers(CLIPModel, folder, ("clip",))
        self.tokenizer = open_tokenizer(folder)
        self.device = next(self.model.parameters()).device
        self.texts: dict[str, npt.NDArray[np.float32]] = {}

    def score(self, picture: RGB, text: str) -> float:
        """Return the cosine of the embeddings of a picture (h, w, 3) uint8 and a text."""
        if text not in self.texts:
            self.texts[text] = self._embed_text(text)
        return float(self._embed_picture(picture) @ self.texts[text])

    def _embed_text(self, text: str) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            pooled = self.model.text_model(input_ids=tokenize(self.tokenizer, [text]).to(self.device)).pooler_output
            return _normalize(self.model.text_projection(pooled))

    def _embed_picture(self, picture: RGB) -> npt.NDArray[np.float32]:
        import torch

        side = int(self.model.config.vision_config.image_size)
        mean, std = np.array(CLIP_MEAN, np.float32), np.array(CLIP_STD, np.float32)
        pixels = (crop_for_clip(picture, side).astype(np.float32) / 255 - mean) / std
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])).to(self.device)
        with torch.inference_mode():
            pooled = self.model.vision_model(pixel_values=batch).pooler_output
            return _normalize(self.model.visual_projection(pooled))


def _normalize(embedding: Any) -> npt.NDArray[np.float32]:
    vector = embedding[0].float().cpu().numpy()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)


def list_clip_files(folder: Path) -> Mapping[str, Path]:
    """Return the files of a CLIP in transformers' layout, by name.

    Raises:
        MissingWeights: the folder lacks the model or its tokenizer.
    """
    files = {f"clip/{name}": path for name, path in list_diffusers_files(folder).items()}
    names = {path.name: path for path in list_tokenizer_files(folder)}
    tokenizer = [
        name for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json") if name in names
    ]
    if "tokenizer.json" not in tokenizer and not {"vocab.json", "merges.txt"} <= set(tokenizer):
        raise MissingWeights(f"no tokenizer in {folder}: vocab.json and merges.txt, or tokenizer.json")
    return files | {f"clip/{name}": names[name] for name in tokenizer}
