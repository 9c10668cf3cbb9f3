"""What the text encoders of SDXL say, computed once: the encoders are dropped before a picture is looked at."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.diffusers_files import MissingWeights, model_files, variant

if TYPE_CHECKING:
    import torch

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of one prompt: tokens (1, 77, 2048) and pooled (1, 1280) at SDXL's size; and of what is to be avoided.

    The negative ones are zeros where nothing was said, as SDXL was trained (`force_zeros_for_empty_prompt`).
    """

    tokens: "torch.Tensor"
    pooled: "torch.Tensor"
    negative_tokens: "torch.Tensor"
    negative_pooled: "torch.Tensor"

    def to(self, device: Any, dtype: Any) -> "Conditioning":
        """The same elsewhere."""
        return Conditioning(*(one.to(device, dtype) for one in vars(self).values()))


def encoder_files(folder: Path) -> dict[str, Path]:
    """Files of the two text encoders and tokenizers under an SDXL folder.

    Raises:
        MissingWeights
    """
    files: dict[str, Path] = {}
    for part in PARTS:
        if part.startswith("tokenizer"):
            found = {path.name: path for path in sorted((folder / part).glob("*")) if path.is_file()}
            if not found:
                raise MissingWeights(f"no tokenizer in {folder / part}")
        else:
            found = model_files(folder / part)
        files |= {f"{part}/{name}": path for name, path in found.items()}
    return files


def encode(folder: Path, prompt: str, negative: str | None, device: Any, dtype: Any) -> Conditioning:
    """Embeddings by the encoders under an SDXL folder, which are loaded for this and dropped.

    The tokens are the last but one hidden state of both encoders, side by side; pooled is the second one's projection.

    Raises:
        MissingWeights
    """
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    encoder_files(folder)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    texts = [prompt] if negative is None else [prompt, negative]
    states = []
    pooled = torch.empty(0)
    for suffix, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        home = folder / f"text_encoder{suffix}"
        encoder: Any = kind.from_pretrained(home, variant=variant(home), dtype=dtype, local_files_only=True)
        encoder = encoder.to(device).eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}", local_files_only=True)
        ids = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.inference_mode():
            out = encoder(ids.to(device), output_hidden_states=True)
        states.append(out.hidden_states[-2])
        pooled = out.text_embeds if suffix else pooled
        del encoder
    gc.collect()
    tokens = torch.cat(states, dim=-1)
    if negative is None:
        return Conditioning(tokens[:1].clone(), pooled[:1].clone(), torch.zeros_like(tokens), torch.zeros_like(pooled))
    return Conditioning(tokens[:1].clone(), pooled[:1].clone(), tokens[1:].clone(), pooled[1:].clone())


def save(conditioning: Conditioning, path: Path) -> None:
    """Keeps embeddings in a safetensors file, so that a machine needs no encoders at all."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous().cpu() for name, value in vars(conditioning).items()}, path)


def load(path: Path) -> Conditioning:
    """Embeddings from a file of `save`, or from RORem's `empty_prompt_embeds.safetensors`.

    Raises:
        MissingWeights: other tensors than these.
    """
    import torch
    from safetensors.torch import load_file

    found = load_file(path)
    if set(found) == set(Conditioning.__dataclass_fields__):
        return Conditioning(**found)
    # a file with the empty prompt alone: one tensor of tokens, one pooled, under whatever names
    tokens = [value for value in found.values() if value.ndim >= 3 or (value.ndim == 2 and value.shape[0] > 1)]
    pooled = [value for value in found.values() if value.ndim == 1 or (value.ndim == 2 and value.shape[0] == 1)]
    if len(tokens) != 1 or len(pooled) != 1:
        raise MissingWeights(f"{path} holds {', '.join(found)}: not the embeddings of a prompt")
    one, all_of_it = tokens[0].reshape(1, *tokens[0].shape[-2:]), pooled[0].reshape(1, -1)
    return Conditioning(one, all_of_it, torch.zeros_like(one), torch.zeros_like(all_of_it))
