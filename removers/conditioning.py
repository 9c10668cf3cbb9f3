"""Text embeddings of SDXL, computed once: the encoders are released before a picture is read."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.pretrained import MissingWeights, get_variant, list_diffusers_files

if TYPE_CHECKING:
    import torch

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of a prompt, tokens (1, 77, 2048) and pooled (1, 1280) at SDXL's size, and of a negative prompt.

    The negative ones are zeros without a negative prompt, as SDXL was trained (`force_zeros_for_empty_prompt`).
    """

    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    negative_tokens: "torch.Tensor"
    negative_pooled: "torch.Tensor"

    def to(self, device: Any, dtype: Any) -> "Conditioning":
        """Return a copy on that device, in that dtype."""
        return Conditioning(*(value.to(device, dtype) for value in vars(self).values()))


def encoder_files(folder: Path) -> dict[str, Path]:
    """Return the files of the two text encoders and tokenizers under an SDXL folder, by name.

    Raises:
        MissingWeights
    """
    files: dict[str, Path] = {}
    for part in PARTS:
        if part.startswith("tokenizer"):
            paths = {path.name: path for path in sorted((folder / part).glob("*")) if path.is_file()}
            if not paths:
                raise MissingWeights(f"no tokenizer in {folder / part}")
        else:
            paths = list_diffusers_files(folder / part)
        files |= {f"{part}/{name}": path for name, path in paths.items()}
    return files


def encode(folder: Path, prompt: str, negative: str | None, device: Any, dtype: Any) -> Conditioning:
    """Encode a prompt by the encoders under an SDXL folder, which are loaded for this and released.

    The tokens are the last but one hidden state of both encoders, side by side; pooled is the second one's projection.

    Args:
        negative: the negative prompt; None for zeros.

    Raises:
        MissingWeights: an encoder or a tokenizer is missing.
    """
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    encoder_files(folder)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    texts = [prompt] if negative is None else [prompt, negative]
    states = []
    pooled = torch.empty(0)
    for suffix, cls in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        encoder_folder = folder / f"text_encoder{suffix}"
        variant = get_variant(encoder_folder)
        encoder: Any = cls.from_pretrained(encoder_folder, variant=variant, dtype=dtype, local_files_only=True)
        encoder = encoder.to(device).eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}", local_files_only=True)
        ids = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            output = encoder(ids.to(device), output_hidden_states=True)
        states.append(output.hidden_states[-2])
        pooled = output.text_embeds if suffix else pooled
        del encoder
    gc.collect()
    tokens = torch.cat(states, dim=-1)
    if negative is None:
        return Conditioning(tokens[:1].clone(), pooled[:1].clone(), torch.zeros_like(tokens), torch.zeros_like(pooled))
    return Conditioning(tokens[:1].clone(), pooled[:1].clone(), tokens[1:].clone(), pooled[1:].clone())


def save(conditioning: Conditioning, path: Path) -> None:
    """Write embeddings to a safetensors file, so that a machine needs no encoders at all."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous().cpu() for name, value in vars(conditioning).items()}, path)


def load(path: Path) -> Conditioning:
    """Read embeddings from a file of `save`, or from RORem's `empty_prompt_embeds.safetensors`.

    Raises:
        MissingWeights: the file holds other tensors.
    """
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    if set(tensors) == set(Conditioning.__dataclass_fields__):
        return Conditioning(**tensors)
    # a file with the empty prompt alone: one tensor of tokens, one pooled, under any names
    values = list(tensors.values())
    sequences = [value for value in values if value.ndim >= 3 or (value.ndim == 2 and value.shape[0] > 1)]
    vectors = [value for value in values if value.ndim == 1 or (value.ndim == 2 and value.shape[0] == 1)]
    if len(sequences) != 1 or len(vectors) != 1:
        raise MissingWeights(f"{path} holds {', '.join(tensors)}: not the embeddings of a prompt")
    tokens, pooled = sequences[0].reshape(1, *sequences[0].shape[-2:]), vectors[0].reshape(1, -1)
    return Conditioning(tokens, pooled, torch.zeros_like(tokens), torch.zeros_like(pooled))
