"""ObjectClear: takes the object away together with its shadow and reflection.

The family's network with three differences (arXiv 2505.22636 and its release): it sees the whole source; one word of
its prompt is replaced by what CLIP sees of the object; and where it looked for that word says where the effects are.

Its weights are under the NTU S-Lab License 1.0: not for commercial use. They are not part of this project and are
read from a folder of one's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasura.networks.diffusers_files import MissingWeights, model_files, variant
from rasura.removers import fusion, sdxl
from rasura.removers.base import Capability, Filled
from rasura.removers.sdxl import Files, Options, Parts, Sdxl

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

PROMPT = "remove the instance of object"
OBJECT_TOKEN = 5  # "object", counted from the start token
LOOKS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
"""The cross-attention whose map of the object token is used."""

CAPABILITY = Capability(
    "remover", None, False, "NTU S-Lab License 1.0 (non-commercial)", non_commercial=True, effects=True
)
OPTIONS = Options(size=512, steps=20, guidance=2.5, prompt=PROMPT, start="noise", source="whole")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
POSTFUSE_SHAPES = {
    "mlp1.layernorm.weight": (768,), "mlp1.layernorm.bias": (768,),
    "mlp1.fc1.weight": (2048, 768), "mlp1.fc1.bias": (2048,),
    "mlp1.fc2.weight": (2048, 2048), "mlp1.fc2.bias": (2048,),
    "mlp2.layernorm.weight": (2048,), "mlp2.layernorm.bias": (2048,),
    "mlp2.fc1.weight": (2048, 2048), "mlp2.fc1.bias": (2048,),
    "mlp2.fc2.weight": (2048, 2048), "mlp2.fc2.bias": (2048,),
    "layer_norm.weight": (2048,), "layer_norm.bias": (2048,),
}  # fmt: skip
"""The published fusion module, tensor by tensor."""


def postfuse(weights: Mapping[str, "torch.Tensor"], seen: "torch.Tensor") -> "torch.Tensor":
    """Text token (n, d) of what CLIP saw (n, e): two perceptrons, the second around a shortcut, and a norm."""
    import torch.nn.functional as F

    def norm(values: "torch.Tensor", name: str) -> "torch.Tensor":
        return F.layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def perceptron(values: "torch.Tensor", name: str) -> "torch.Tensor":
        hidden = F.linear(norm(values, f"{name}.layernorm"), weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"])
        return F.linear(F.gelu(hidden), weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])

    first = perceptron(seen, "mlp1")
    return norm(perceptron(first, "mlp2") + first, "layer_norm")


def with_object(tokens: "torch.Tensor", objects: "torch.Tensor") -> "torch.Tensor":
    """Prompts (n, 77, d) in which the object's token is what was seen of it; `tokens` (1, 77, d), `objects` (n, d)."""
    made = tokens.expand(len(objects), -1, -1).clone()
    made[:, OBJECT_TOKEN] = objects.to(made.dtype)
    return made


def object_view(pixels: "torch.Tensor", mask: "torch.Tensor", side: int) -> "torch.Tensor":
    """CLIP's input (n, 3, side, side) of the object alone; pixels in [-1, 1], so that the rest is mid-grey.

    Training used [0, 1] and black; inference is what is followed, because the released results are made by it.
    """
    import torch
    import torch.nn.functional as F

    alone = F.interpolate(pixels.float() * (mask > 0.5), (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value, device=alone.device).view(1, 3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))
    return (alone - mean) / std


def restarted(
    latents: "torch.Tensor", known: "torch.Tensor", noise: "torch.Tensor", hole: "torch.Tensor", scheduler: Any
) -> "torch.Tensor":
    """Spatially varying strength: after the first step the background starts again from the source's own latents.

    (1 - m) * add_noise(source, noise, t_1) + m * latents: outside the hole as with strength .99, inside as with 1.
    """
    noisy: torch.Tensor = scheduler.add_noise(known, noise, scheduler.timesteps[1:2].expand(len(noise)))
    return (1 - hole) * noisy + hole * latents


class Gaze:
    """Records what the network looks at for one token, in one cross-attention, while it is open.

    It listens to the layer's queries and keys, so the attention itself runs as fast as without.
    """

    def __init__(self, unet: Any, layer: str, token: int) -> None:
        self.attention = unet.get_submodule(layer)
        self.token = token
        self.heard: dict[str, torch.Tensor] = {}
        self.handles: list[Any] = []

    def open(self) -> None:
        def listen(name: str) -> Any:
            return lambda module, given, out: self.heard.__setitem__(name, out)

        self.handles = [getattr(self.attention, name).register_forward_hook(listen(name)) for name in ("to_q", "to_k")]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def maps(self, shape: tuple[int, int], count: int) -> "torch.Tensor":
        """(count, h, w) mean over the heads of softmax(q k / sqrt d) at the token; the last `count` rows of a guided
        batch are those with the prompt."""
        import torch

        heads = self.attention.heads
        query, key = (
            one[-count:].reshape(count, one.shape[1], heads, -1).transpose(1, 2).float()
            for one in (self.heard["to_q"], self.heard["to_k"])
        )
        looked = torch.softmax(query @ key.transpose(-1, -2) * self.attention.scale, dim=-1)
        return looked[..., self.token].mean(1).reshape(count, *shape)


class ObjectClear(Sdxl):
    """`files.base` is its folder: unet, vae, scheduler, text encoders, `postfuse_module`, `image_prompt_encoder`."""

    postfuse: Mapping[str, "torch.Tensor"]
    vision: Any

    def __init__(self, name: str, files: Files, options: Options = OPTIONS) -> None:
        if options.steps < 2:
            raise ValueError(f"remover '{name}': {options.steps} step is too few, the background starts anew after one")
        super().__init__(name, CAPABILITY, files, replace(options, source="whole"))

    def weights(self) -> Mapping[str, Path]:
        fusing = _safetensors(self.files.base / "postfuse_module")
        seeing = model_files(self.files.base / "image_prompt_encoder")
        return {
            **super().weights(),
            **{f"postfuse_module/{name}": path for name, path in fusing.items()},
            **{f"image_prompt_encoder/{name}": path for name, path in seeing.items()},
        }

    def setup(self) -> None:
        from safetensors.torch import load_file
        from transformers import CLIPVisionModelWithProjection

        super().setup()
        assert self.parts is not None
        (fuse_file,) = _safetensors(self.files.base / "postfuse_module").values()
        fusing = load_file(fuse_file)
        if set(fusing) != set(POSTFUSE_SHAPES):
            raise MissingWeights(f"{fuse_file} is no fusion module: it holds {', '.join(sorted(fusing)[:4])}, …")
        width = self.parts.conditioning.tokens.shape[-1]
        if len(fusing["layer_norm.weight"]) != width:
            raise MissingWeights(
                f"{fuse_file} makes tokens of {len(fusing['layer_norm.weight'])}, the text encoders of {width}"
            )
        self.postfuse = {key: value.to(self.parts.device).float() for key, value in fusing.items()}
        home = self.files.base / "image_prompt_encoder"
        vision: Any = CLIPVisionModelWithProjection.from_pretrained(home, variant=variant(home), local_files_only=True)
        self.vision = vision.to(self.parts.device).float().eval()

    def run(
        self, parts: Parts, pictures: Sequence[Array], holes: Sequence[Array], seeds: Sequence[int]
    ) -> Sequence[Array | Filled]:
        """One batch: the object's token, all steps with one restart of the background, and the fusion."""
        import torch

        options = self.options
        with torch.inference_mode():
            pixels = sdxl.to_tensor(pictures, parts.device, parts.dtype)
            mask = torch.from_numpy(np.stack(holes)[:, None]).to(parts.device, parts.dtype)
            known = sdxl.encode(parts.vae, pixels).to(parts.dtype)
            hole = sdxl.latent_hole(mask, known.shape[2:])
            seen = self.vision(object_view(pixels, mask, self.vision.config.image_size)).image_embeds
            tokens = with_object(parts.conditioning.tokens, postfuse(self.postfuse, seen))
            noise, generators = sdxl.noise_for(seeds, known.shape[1:])
            noise = noise.to(parts.device, parts.dtype)
            parts.scheduler.set_timesteps(options.steps, device=parts.device)
            gaze = Gaze(parts.unet, LOOKS, OBJECT_TOKEN)

            def before(step: int) -> None:
                if step == options.steps - 1:
                    gaze.open()

            def after(step: int, latents: "torch.Tensor") -> "torch.Tensor":
                return restarted(latents, known, noise, hole, parts.scheduler) if step == 0 else latents

            try:
                latents = sdxl.denoise(
                    parts, options, noise * parts.scheduler.init_noise_sigma, hole, known, generators, tokens,
                    after, before,
                )  # fmt: skip
            finally:
                gaze.close()
            height, width = known.shape[2:]
            maps = gaze.maps((height // 2, width // 2), len(pictures)).cpu().numpy()
            removed = sdxl.to_pictures(sdxl.decode(parts.vae, latents))
        shape = (height, width)
        made = [
            fusion.fuse(picture, one, fusion.attention_to_uint8(seen_at, shape))
            for picture, one, seen_at in zip(pictures, removed, maps, strict=True)
        ]
        return [Filled(picture, weight) for picture, weight in made]


def _safetensors(folder: Path) -> dict[str, Path]:
    """The one safetensors file of a folder, the half-precision one where there are two.

    Raises:
        MissingWeights
    """
    found = sorted(folder.glob("*.safetensors"))
    found = [path for path in found if ".fp16." in path.name] or found
    if len(found) != 1:
        raise MissingWeights(f"{len(found)} .safetensors in {folder}, one is needed (pickles are not read)")
    return {found[0].name: found[0]}


def objectclear(name: str, files: Files, options: Options = OPTIONS) -> ObjectClear:
    """ObjectClear. Non-commercial: what it makes may not be used commercially either."""
    return ObjectClear(name, files, options)
