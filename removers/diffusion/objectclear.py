"""ObjectClear: removes the object together with its shadow and reflection.

The family's network with three differences (arXiv 2505.22636 and its release): it gets the whole source; one word of
its prompt is replaced by CLIP's embedding of the object; and the attention to that word locates the effects.

Its weights are under the NTU S-Lab License 1.0: not for commercial use. They are not part of this project and are
read from a local folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.networks.pca_codec import decode_latents, encode_pixels
from rasura.networks.pretrained import MissingWeights, get_variant, list_diffusers_files, prefer_half
from rasura.removers.base import Capability, Filled
from rasura.removers.diffusion import fusion, loop
from rasura.removers.diffusion.loop import Options, Parts
from rasura.removers.diffusion.remover import DiffusionRemover, Files

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
POSTFUSE_SHAPES = {
    f"{mlp}.{name}": shape
    for mlp, width in (("mlp1", 768), ("mlp2", 2048))
    for name, shape in (
        *(("layernorm.weight", (width,)), ("layernorm.bias", (width,))),
        *(("fc1.weight", (2048, width)), ("fc1.bias", (2048,))),
        *(("fc2.weight", (2048, 2048)), ("fc2.bias", (2048,))),
    )
} | {"layer_norm.weight": (2048,), "layer_norm.bias": (2048,)}
"""The published fusion module, tensor by tensor."""


def postfuse(weights: Mapping[str, "torch.Tensor"], embedding: "torch.Tensor") -> "torch.Tensor":
    """Map CLIP embeddings (n, e) to text tokens (n, d): two perceptrons, the second with a shortcut, and a norm."""
    import torch.nn.functional as F

    def norm(values: "torch.Tensor", name: str) -> "torch.Tensor":
        return F.layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def perceptron(values: "torch.Tensor", name: str) -> "torch.Tensor":
        hidden = F.linear(norm(values, f"{name}.layernorm"), weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"])
        return F.linear(F.gelu(hidden), weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])

    first = perceptron(embedding, "mlp1")
    return norm(perceptron(first, "mlp2") + first, "layer_norm")


def insert_object(tokens: "torch.Tensor", objects: "torch.Tensor") -> "torch.Tensor":
    """Return prompts (n, 77, d) with the object's token replaced; `tokens` (1, 77, d), `objects` (n, d)."""
    prompts = tokens.expand(len(objects), -1, -1).clone()
    prompts[:, OBJECT_TOKEN] = objects.to(prompts.dtype)
    return prompts


def crop_object(pixels: "torch.Tensor", mask: "torch.Tensor", side: int) -> "torch.Tensor":
    """Return CLIP's input (n, 3, side, side) of the object alone; pixels in [-1, 1], so that the rest is mid-grey.

    Training used [0, 1] and black; this follows inference, which made the released results.
    """
    import torch
    import torch.nn.functional as F

    alone = F.interpolate(pixels.float() * (mask > 0.5), (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value, device=alone.device).view(1, 3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    return (alone - mean) / std


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


class ObjectClear(DiffusionRemover):
    """`files.base` is its folder: unet, vae, scheduler, text encoders, `postfuse_module`, `image_prompt_encoder`."""

    postfuse: Mapping[str, "torch.Tensor"]
    vision: Any

    def __init__(self, name: str, files: Files, options: Options = OPTIONS) -> None:
        if options.steps < 2:
            raise ValueError(
                f"remover '{name}': {options.steps} step is too few, the background starts again after one"
            )
        super().__init__(name, CAPABILITY, files, replace(options, source="whole"))

    def weights(self) -> Mapping[str, Path]:
        postfuse_files = _find_safetensors(self.files.base / "postfuse_module")
        encoder_files = list_diffusers_files(self.files.base / "image_prompt_encoder")
        return {
            **super().weights(),
            **{f"postfuse_module/{name}": path for name, path in postfuse_files.items()},
            **{f"image_prompt_encoder/{name}": path for name, path in encoder_files.items()},
        }

    def setup(self) -> None:
        from safetensors.torch import load_file
        from transformers import CLIPVisionModelWithProjection

        super().setup()
        assert self.parts is not None
        (file,) = _find_safetensors(self.files.base / "postfuse_module").values()
        tensors = load_file(file)
        if set(tensors) != set(POSTFUSE_SHAPES):
            raise MissingWeights(f"{file} is no fusion module: it holds {', '.join(sorted(tensors)[:4])}, …")
        width = self.parts.conditioning.tokens.shape[-1]
        if len(tensors["layer_norm.weight"]) != width:
            raise MissingWeights(
                f"{file} makes tokens of {len(tensors['layer_norm.weight'])}, the text encoders of {width}"
            )
        self.postfuse = {key: value.to(self.parts.device).float() for key, value in tensors.items()}
        folder = self.files.base / "image_prompt_encoder"
        cls: Any = CLIPVisionModelWithProjection
        vision = cls.from_pretrained(folder, variant=get_variant(folder), local_files_only=True)
        self.vision = vision.to(self.parts.device).float().eval()

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """One batch: the object's token, all steps with one restart of the background, and the fusion."""
        import torch

        options = self.options
        with torch.inference_mode():
            pixels = loop.to_tensor(pictures, parts.device, parts.dtype)
            mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
            source = encode_pixels(parts.vae, pixels).to(parts.dtype)
            hole = loop.resize_hole(mask, source.shape[2:])
            embedding = self.vision(crop_object(pixels, mask, self.vision.config.image_size)).image_embeds
            tokens = insert_object(parts.conditioning.tokens, postfuse(self.postfuse, embedding))
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
