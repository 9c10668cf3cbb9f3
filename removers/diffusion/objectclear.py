"""ObjectClear: removes the object together with its shadow and reflection.

The family's network with three differences (arXiv 2505.22636 and its release): it gets the whole source; one word of
its prompt is replaced by CLIP's embedding of the object; and the attention to that word locates the effects.

The published weights are under the NTU S-Lab License 1.0: not for commercial use. They are not part of this project and
are read from a local folder. A folder that was trained here has the same layout and a record of its training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from rasura.networks.pca_codec import decode_latents, encode_pixels
from rasura.networks.pretrained import (
    MissingWeights,
    get_variant,
    list_diffusers_files,
    open_transformers,
    prefer_half,
    read_settings,
)
from rasura.removers.base import Capability, Filled
from rasura.removers.diffusion import fusion, loop
from rasura.removers.diffusion.loop import Options, Parts
from rasura.removers.diffusion.remover import FUSION, DiffusionRemover, Files

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

PROMPT = "remove the instance of object"
OBJECT_TOKEN = 5  # "object", counted from the start token
ATTENTION_LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
"""The cross-attention whose map of the object token is used."""

CAPABILITY = Capability(
    "remover",
    None,
    False,
    "NTU S-Lab License 1.0 (non-commercial)",
    non_commercial=True,
    effects=True,
    name="ObjectClear",
    needs_weights=True,
    parameters=2_567_478_084 + 83_653_863 + 303_966_208 + 14_173_696,  # UNet, VAE, CLIP ViT-L/14, fusion module
)
OPTIONS = Options(size=512, steps=20, guidance=2.5, prompt=PROMPT, start="noise", source="whole")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGE_ENCODER = "image_prompt_encoder"
"""Folder of CLIP's image encoder."""
RECORD = "training.json"
"""The record of a training, in a folder that was trained here."""
IMAGE_ENCODER_SPARE = ("text_model.", "text_projection.", "logit_scale")
"""Beginnings of names of a whole CLIP's tensors that are not the image encoder's."""

Background = Literal["black", "grey"]


def crop_object(
    pixels: "torch.Tensor", mask: "torch.Tensor", side: int, background: Background = "grey"
) -> "torch.Tensor":
    """Return CLIP's input (n, 3, side, side) of the object alone.

    Args:
        pixels: (n, 3, h, w) in [-1, 1]. mask: (n, 1, h, w).
        background: the released inference puts 0 of [-1, 1] around the object, which made the published results; the
            released training converts to [0, 1] first, so that 0 is black.
    """
    import torch
    import torch.nn.functional as F

    values = pixels.float() / 2 + 0.5 if background == "black" else pixels.float()
    alone = F.interpolate(values * (mask > 0.5), (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value, device=alone.device).view(1, 3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    return (alone - mean) / std


def open_image_encoder(folder: Path) -> Any:
    """Open CLIP's image encoder, of its own folder or of a whole CLIP's, in float32 on the CPU.

    Raises:
        BadWeights: there is none, or one that is not whole.
    """
    from transformers import CLIPVisionModelWithProjection

    kinds = ("clip_vision_model", "clip")
    return open_transformers(
        CLIPVisionModelWithProjection, folder, kinds, IMAGE_ENCODER_SPARE, device="cpu", variant=get_variant(folder)
    )


def open_fusion(base: Path, embedding: int, token: int) -> Any:
    """Open the fusion module under a model's folder; see `fusion_module.open_fusion_module`.

    Raises:
        MissingWeights
    """
    from rasura.networks.inpainting.fusion_module import open_fusion_module

    (file,) = _find_safetensors(base / FUSION).values()
    return open_fusion_module(file, embedding, token)


def read_record(base: Path) -> dict[str, Any]:
    """Read the record of a training here; empty for the published folder."""
    path = base / RECORD
    return read_settings(path) if path.is_file() else {}


def restart_background(
    latents: "torch.Tensor", source: "torch.Tensor", noise: "torch.Tensor", hole: "torch.Tensor", scheduler: Any
) -> "torch.Tensor":
    """Start the background again from the source's own latents, after the first step: spatially varying strength.

    (1 - m) * add_noise(source, noise, t_1) + m * latents: outside the hole as with strength 0.99, inside as with 1.
    """
    noisy: torch.Tensor = scheduler.add_noise(source, noise, scheduler.timesteps[1:2].expand(len(noise)))
    return (1 - hole) * noisy + hole * latents


class AttentionRecorder:
    """Records the attention to one token in one cross-attention, between `start` and `stop`.

    It listens to the layer's queries and keys, so the attention itself runs as fast as without.
    """

    def __init__(self, unet: Any, layer: str, token: int) -> None:
        self.attention = unet.get_submodule(layer)
        self.token = token
        self.outputs: dict[str, torch.Tensor] = {}
        self.handles: list[Any] = []

    def start(self) -> None:
        def listen(name: str) -> Any:
            return lambda module, inputs, output: self.outputs.__setitem__(name, output)

        self.handles = [getattr(self.attention, name).register_forward_hook(listen(name)) for name in ("to_q", "to_k")]

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def compute_maps(self, shape: tuple[int, int], count: int) -> "torch.Tensor":
        """Return (count, h, w), the mean over the heads of softmax(q k / sqrt d) at the token.

        The last `count` rows of a guided batch are those with the prompt.
        """
        import torch

        heads = self.attention.heads
        query, key = (
            values[-count:].reshape(count, values.shape[1], heads, -1).transpose(1, 2).float()
            for values in (self.outputs["to_q"], self.outputs["to_k"])
        )
        attention = torch.softmax(query @ key.transpose(-1, -2) * self.attention.scale, dim=-1)
        return attention[..., self.token].mean(1).reshape(count, *shape)


def describe_capability(record: Mapping[str, Any]) -> Capability:
    """Return the capability of a folder by the record of its training: what was trained here has its own licence."""
    if "licence" not in record:
        return CAPABILITY
    return replace(CAPABILITY, licence=record["licence"], non_commercial=record["non_commercial"])


class ObjectClear(DiffusionRemover):
    """`files.base` is its folder: unet, vae, scheduler, text encoders, `postfuse_module`, `image_prompt_encoder`."""

    is_objectclear = True
    fusion: Any
    vision: Any

    def __init__(self, name: str, files: Files, options: Options = OPTIONS) -> None:
        if options.steps < 2:
            raise ValueError(
                f"remover '{name}': {options.steps} step is too few, the background starts again after one"
            )
        self.record = read_record(files.base)
        super().__init__(name, describe_capability(self.record), files, replace(options, source="whole"))

    def weights(self) -> Mapping[str, Path]:
        base = self.files.base
        parts = {FUSION: _find_safetensors(base / FUSION), IMAGE_ENCODER: list_diffusers_files(base / IMAGE_ENCODER)}
        own = {f"{part}/{name}": path for part, files in parts.items() for name, path in files.items()}
        return {**super().weights(), **own, **({RECORD: base / RECORD} if self.record else {})}

    def open_parts(self) -> None:
        super().open_parts()
        assert self.parts is not None
        vision = open_image_encoder(self.files.base / IMAGE_ENCODER)
        width = self.parts.conditioning.tokens.shape[-1]
        fusion = open_fusion(self.files.base, vision.config.projection_dim, width)
        self.vision, self.fusion = vision.to(self.parts.device), fusion.to(self.parts.device)

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """One batch: the object's token, all steps with one restart of the background, and the fusion."""
        import torch

        from rasura.networks.inpainting.fusion_module import insert_token

        options = self.options
        with torch.inference_mode():
            pixels = loop.to_tensor(pictures, parts.device, parts.dtype)
            mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
            source = encode_pixels(parts.vae, pixels).to(parts.dtype)
            hole = loop.resize_hole(mask, source.shape[2:])
            background = self.record.get("object_background", "grey")
            objects = self.vision(crop_object(pixels, mask, self.vision.config.image_size, background)).image_embeds
            tokens = insert_token(parts.conditioning.tokens, self.fusion(objects), OBJECT_TOKEN)
            noise, generators = loop.draw_noise(seeds, source.shape[1:])
            noise = noise.to(parts.device, parts.dtype)
            parts.scheduler.set_timesteps(options.steps, device=parts.device)
            start = noise * parts.scheduler.init_noise_sigma
            recorder = AttentionRecorder(parts.unet, ATTENTION_LAYER, OBJECT_TOKEN)

            def before(step: int) -> None:
                if step == options.steps - 1:
                    recorder.start()

            def after(step: int, latents: "torch.Tensor") -> "torch.Tensor":
                return restart_background(latents, source, noise, hole, parts.scheduler) if step == 0 else latents

            try:
                latents = loop.denoise(parts, options, start, hole, source, generators, tokens, after, before)
            finally:
                recorder.stop()
            height, width = source.shape[2:]
            maps = recorder.compute_maps((height // 2, width // 2), len(pictures)).cpu().numpy()
            results = loop.to_pictures(decode_latents(parts.vae, latents))
        shape = (height, width)
        return [
            Filled(*fusion.fuse(picture, result, fusion.attention_to_uint8(attention, shape)))
            for picture, result, attention in zip(pictures, results, maps, strict=True)
        ]


def _find_safetensors(folder: Path) -> dict[str, Path]:
    """Return the one safetensors file of a folder, the half-precision one where there are two.

    Raises:
        MissingWeights
    """
    paths = prefer_half(sorted(folder.glob("*.safetensors")))
    if len(paths) != 1:
        raise MissingWeights(f"{len(paths)} .safetensors in {folder}, one is needed (pickles are not read)")
    return {paths[0].name: paths[0]}


def objectclear(name: str, files: Files, options: Options = OPTIONS) -> ObjectClear:
    """Create an ObjectClear remover. Non-commercial: its results may not be used commercially either."""
    return ObjectClear(name, files, options)
