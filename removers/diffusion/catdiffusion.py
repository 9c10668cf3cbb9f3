"""CATDiffusion: paints what a word says into a hole, guided by a guess of what CLIP would see there.

Source: arXiv 2409.08260 and its release (code MIT). A semantic inpainter predicts CLIP's features of the finished
picture from those of the picture without its hole and from the word; Stable Diffusion 1.5's inpainting network attends
to them by a reference adapter (`networks/inpainting/catdiffusion.py`). It is an inserter and no remover.

Its authors released no weights: it runs with those of one's own training (`removers/training/catdiffusion.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.networks.pretrained import MissingWeights, list_diffusers_files
from rasura.networks.weights import find_single
from rasura.removers.base import Capability, Filled
from rasura.removers.diffusion import conditioning, loop
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.diffusion.loop import Options, Parts
from rasura.removers.diffusion.objectclear import CLIP_MEAN, CLIP_STD
from rasura.removers.diffusion.remover import Files
from rasura.removers.diffusion.sd15 import LICENCE, UNET_PARAMETERS, VAE_PARAMETERS, Sd15

if TYPE_CHECKING:
    import torch

    from rasura.networks.inpainting.catdiffusion import Features, SemanticInpainter

Array = npt.NDArray[Any]

ADAPTER_PARAMETERS = 50_377_280
INPAINTER_PARAMETERS = 324_872_192
VISION_PARAMETERS = 303_179_776
CAPABILITY = Capability(
    "inserter",
    None,
    True,
    f"of its training: none were released (code MIT; its base {LICENCE})",
    name="CATDiffusion",
    needs_weights=True,
    parameters=UNET_PARAMETERS + ADAPTER_PARAMETERS + VAE_PARAMETERS + INPAINTER_PARAMETERS + VISION_PARAMETERS,
)
OPTIONS = Options(size=512, steps=50, guidance=7.5, start="noise", source="black", scheduler="DDIMScheduler")
NO_WEIGHTS = (
    "the authors of CATDiffusion released no weights, so that it is trainable only: "
    "`rasura remover train --preset catdiffusion` makes `unet` and `semantic_inpainter`"
)

TOKENS = 77
"""Of CLIP's text. One more is the pooled text, which is the label."""
GREY = 127
"""Colour of the hole in the picture that CLIP sees."""
MIXED = 0.5
"""Share of a latent's pixels above which it is hole, where the network runs."""


def count_patches(vision: Any) -> tuple[int, int]:
    """Return the side of the picture that CLIP's vision model takes, px, and the patches along it."""
    return int(vision.config.image_size), int(vision.config.image_size // vision.config.patch_size)


def shrink_mask(hole: Array, shape: tuple[int, int]) -> Array:
    """Return the share of hole, (h', w') uint8, of a mask (h, w) bool at a smaller size, as the release shrinks it."""
    from PIL import Image

    return np.asarray(Image.fromarray(hole.astype(np.uint8) * 255).resize(shape[::-1], Image.Resampling.BICUBIC))


def shrink_picture(picture: Array, hole: Array | None, side: int) -> Array:
    """Return a picture as CLIP sees it, (side, side, 3) uint8, its hole grey where there is one.

    The release shrinks first and hides the hole then, so that the object shows along the rim. Here it is hidden before
    and after.
    """
    from PIL import Image

    hidden = picture if hole is None else np.where(hole[..., None], np.uint8(GREY), picture)
    small = np.asarray(Image.fromarray(hidden).resize((side, side), Image.Resampling.BICUBIC))
    if hole is None:
        return small
    share = shrink_mask(hole, (side, side))[..., None] / 255
    return (small * (1 - share) + GREY * share).astype(np.uint8)


def mark_patches(hole: Array, side: int, count: int) -> Array:
    """Return which of CLIP's patches touch the hole, (count²,) bool.

    Args:
        hole: (h, w) bool. side: of the picture that CLIP takes, px; count patches along it.

    Examples:
        >>> hole = np.zeros((8, 8), bool)
        >>> hole[0, 5] = True
        >>> mark_patches(hole, side=8, count=2).tolist()
        [False, True, False, False]
    """
    touched = shrink_mask(hole, (side, side)) > GREY
    cell = side // count
    return np.asarray(touched.reshape(count, cell, count, cell).any(axis=(1, 3)).reshape(-1))


def shrink_holes(holes: "torch.Tensor", shape: Sequence[int], above: float = MIXED) -> "torch.Tensor":
    """Return the hole of the latents (n, 1, h', w'), 1 where more than `above` of it is hole; `holes` (n, 1, h, w)."""
    import torch

    masks = holes[:, 0].float().cpu().numpy() > 0.5
    small = np.stack([shrink_mask(mask, (shape[0], shape[1])) / 255 > above for mask in masks])
    return torch.from_numpy(small[:, None]).to(holes.device, holes.dtype)


def look(
    vision: Any, pictures: Sequence[Array], holes: Sequence[Array], device: Any, dtype: Any, whole: bool = False
) -> "Features":
    """Return what CLIP sees in pictures with their holes hidden.

    Args:
        pictures: (h, w, 3) uint8. holes: (h, w) bool.
        whole: hide nothing: what a trained semantic inpainter is to predict.
    """
    import torch

    from rasura.networks.inpainting.catdiffusion import Features

    side, count = count_patches(vision)
    small = [
        shrink_picture(picture, None if whole else hole, side) for picture, hole in zip(pictures, holes, strict=True)
    ]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    pixels = (torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2)).float() / 255 - mean) / std
    cells = np.stack([mark_patches(hole, side, count) for hole in holes])
    with torch.no_grad():
        output = vision(pixels.to(device, dtype))
    tokens, pooled = output.last_hidden_state[:, 1:], output.pooler_output[:, None]
    return Features(tokens.to(dtype), pooled.to(dtype), torch.from_numpy(cells).to(device))


def append_pooled(tokens: "torch.Tensor", ids: "torch.Tensor") -> "torch.Tensor":
    """Return texts (n, 78, d): their tokens (n, 77, d), and after them CLIP's pooled text.

    That is the token at the first end, whose id is the largest of all.

    Args:
        ids: (n, 77).
    """
    import torch

    before = ((ids == ids.max(dim=1, keepdim=True).values).cumsum(1) == 0).sum(1)
    return torch.cat([tokens, tokens[torch.arange(len(ids)), before][:, None]], dim=1)


def encode_text(files: Files, prompt: str, negative: str | None, device: Any, dtype: Any) -> Conditioning:
    """Encode a prompt and a negative prompt, (1, 78, d) each; see `append_pooled`.

    Raises:
        MissingWeights: the text encoder or its tokenizer is missing.
    """
    text = conditioning.encode(files.base, prompt, negative, device, dtype, files.tokenizer)
    ids = conditioning.read_ids(files.base, "", [prompt, negative or ""], files.tokenizer)
    tokens, negative_tokens = append_pooled(text.tokens, ids[:1]), append_pooled(text.negative_tokens, ids[1:])
    return Conditioning(tokens, None, negative_tokens, None)


def open_vision(folder: Path, device: Any, dtype: Any) -> Any:
    """Open CLIP's vision model from a folder of it alone, or of both models.

    Raises:
        BadWeights: the folder holds another model.
    """
    from transformers import CLIPVisionModel

    from rasura.networks.pretrained import open_transformers

    spare = ("text_model.", "logit_scale", "text_projection.", "visual_projection.")
    network = open_transformers(CLIPVisionModel, folder, ("clip_vision_model", "clip"), spare)
    return network.to(device, dtype).eval().requires_grad_(False)


class CatDiffusion(Sd15):
    """`files.base` is Stable Diffusion 1.5 inpainting, `files.unet` and `files.semantic_inpainter` are trained, and
    `files.image_encoder` is CLIP ViT-L/14's folder."""

    inpainter: "SemanticInpainter"
    vision: Any

    def __init__(self, name: str, files: Files, options: Options = OPTIONS) -> None:
        for part in ("unet", "semantic_inpainter", "image_encoder"):
            if getattr(files, part) is None:
                raise ValueError(f"remover '{name}' needs `{part}`: {NO_WEIGHTS}")
        if files.lora is not None:
            raise ValueError(f"remover '{name}' is CATDiffusion, which has no lora")
        super().__init__(name, CAPABILITY, files, options)

    def weights(self) -> Mapping[str, Path]:
        assert self.files.semantic_inpainter is not None
        assert self.files.image_encoder is not None
        encoder = list_diffusers_files(self.files.image_encoder)
        return {
            **super().weights(),
            "semantic_inpainter": find_single(self.files.semantic_inpainter),
            **{f"image_encoder/{name}": path for name, path in encoder.items()},
        }

    def open_parts(self) -> None:
        from rasura.networks.inpainting.catdiffusion import open_inpainter

        super().open_parts()
        parts, files = self.parts, self.files
        assert parts is not None
        assert files.semantic_inpainter is not None
        assert files.image_encoder is not None
        text = parts.conditioning.tokens
        if text.shape[1] != TOKENS + 1:
            raise MissingWeights(
                f"{self.name}: {files.prompts} holds {text.shape[1]} tokens of a text, not {TOKENS} and the pooled text"
            )
        self.inpainter = open_inpainter(files.semantic_inpainter, parts.dtype).to(parts.device)
        self.vision = open_vision(files.image_encoder, parts.device, parts.dtype)
        check_fit(self.name, self.inpainter, self.vision, text.shape[-1], parts.unet)

    def encode_prompts(self, device: Any, dtype: Any) -> Conditioning:
        """Encode the prompts: 77 tokens each, and as the last one the pooled text, which is one of them."""
        return encode_text(self.files, self.options.prompt, self.options.negative, device, dtype)

    def open_unet(self, dtype: Any) -> Any:
        from rasura.networks.inpainting.catdiffusion import open_adapted_unet

        return open_adapted_unet(self.folder("unet"), self.read_unet_config(), dtype)

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """Fill one full batch of pictures of one size: CLIP's features of what will be there, and then all steps."""
        import torch

        from rasura.networks.inpainting.catdiffusion import merge_tokens, pool_tokens

        text = parts.conditioning
        label = text.tokens[:, TOKENS:].expand(len(pictures), -1, -1)
        own = replace(
            parts, conditioning=Conditioning(text.tokens[:, :TOKENS], None, text.negative_tokens[:, :TOKENS], None)
        )
        with torch.inference_mode():
            features = look(self.vision, pictures, holes, parts.device, parts.dtype)
            predicted, _ = self.inpainter(features, label)
            reference = pool_tokens(merge_tokens(predicted, features))
        return loop.fill(own, self.options, pictures, holes, seeds, shrink_holes, reference)


def check_fit(name: str, inpainter: Any, vision: Any, label: int, unet: Any) -> None:
    """Check that the parts of CATDiffusion are of one model.

    Args:
        inpainter, unet: None where it is not there.
        label: width of CLIP's pooled text.

    Raises:
        MissingWeights: a width or the number of patches differs.
    """
    width, places = vision.config.hidden_size, count_patches(vision)[1] ** 2
    pairs = []
    if inpainter is not None:
        patches = inpainter.embeddings.position_embedding.num_embeddings
        pairs += [
            (
                inpainter.post_layernorm.normalized_shape[0],
                width,
                "width of the semantic inpainter's and CLIP's tokens",
            ),
            (patches, places, "number of the semantic inpainter's and CLIP's patches"),
            (inpainter.label_mlp.fc1.in_features, label, "width of the semantic inpainter's label and CLIP's text"),
        ]
    if unet is not None:
        adapter = next(module for key, module in unet.named_modules() if key.endswith(".attn3.to_k"))
        pairs.append((adapter.in_features, width, "width of the reference adapter's and CLIP's tokens"))
    for ours, theirs, what in pairs:
        if ours != theirs:
            raise MissingWeights(f"{name}: the {what} differ, {ours} and {theirs}: parts of another model")


def catdiffusion(name: str, files: Files, options: Options = OPTIONS) -> CatDiffusion:
    """Create CATDiffusion.

    Raises:
        ValueError: `files` names no trained part, or a LoRA.
    """
    return CatDiffusion(name, files, options)
