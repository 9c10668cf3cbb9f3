"""Text embeddings of SDXL and Stable Diffusion 1.5, computed once: the encoders are released before a picture is read.

SDXL has two encoders, of which the last but one hidden states stand side by side, and a pooled text; Stable Diffusion
1.5 has one, of which the last hidden state is used, and nothing pooled.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasura.networks.pretrained import (
    TEXT_SPARE,
    MissingWeights,
    get_variant,
    list_diffusers_files,
    open_transformers,
    refuse_others,
)
from rasura.networks.single_file import describe_part, get_family, open_text_part, read_shapes
from rasura.networks.weights import read_tensors

if TYPE_CHECKING:
    import torch


SECOND_PADDING = {"pad_token": "!"}
"""What fills up the texts of SDXL's second encoder, whose id is 0. The vocabulary is that of the first."""
TEXT_KINDS = ("clip_text_model", "clip")
"""The `model_type` of CLIP's text encoder: of it alone, or of a whole CLIP."""
_KEPT: ContextVar[dict[Any, Any] | None] = ContextVar("text encoders that are kept", default=None)


@contextlib.contextmanager
def keep_encoders() -> Iterator[None]:
    """Keep text encoders in memory inside this context, so that many prompts load each of them once."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)
        gc.collect()


def open_kept(key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """Open a text encoder, or return the one that `keep_encoders` kept under this key."""
    kept = _KEPT.get()
    if kept is None:
        return load()
    if key not in kept:
        kept[key] = load()
    return kept[key]


@dataclass(frozen=True)
class Conditioning:
    """Embeddings of a prompt and of a negative prompt.

    tokens: (1, 77, 2048) at SDXL's size, (1, 77, 768) at Stable Diffusion 1.5's.
    pooled: (1, 1280) of SDXL; None of Stable Diffusion 1.5.
    negative_tokens, negative_pooled: those of the negative prompt. Without one, SDXL's are zeros, as it was trained
        (`force_zeros_for_empty_prompt`), and Stable Diffusion 1.5's are those of the empty prompt.
    """

    tokens: "torch.Tensor"
    pooled: "torch.Tensor | None"
    negative_tokens: "torch.Tensor"
    negative_pooled: "torch.Tensor | None"

    def list_tensors(self) -> dict[str, "torch.Tensor"]:
        """Return the embeddings that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def get_pooled(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return SDXL's pooled text of the prompt and of the negative prompt.

        Raises:
            MissingWeights: they are embeddings of Stable Diffusion 1.5, which has none.
        """
        if self.pooled is None or self.negative_pooled is None:
            raise MissingWeights("a model of Stable Diffusion 1.5, without a pooled text, where SDXL is needed")
        return self.pooled, self.negative_pooled

    def to(self, device: Any, dtype: Any) -> "Conditioning":
        """Return a copy on that device, in that dtype."""
        tensors = {name: value.to(device, dtype) for name, value in self.list_tensors().items()}
        return Conditioning(**{name: tensors.get(name) for name in vars(self)})  # type: ignore[arg-type]


def describe_family(config: Mapping[str, Any]) -> Literal["SDXL", "Stable Diffusion 1.5"]:
    """Return the family of a UNet by its configuration: SDXL's takes pooled text and sizes beside the tokens."""
    return "SDXL" if config.get("addition_embed_type") == "text_time" else "Stable Diffusion 1.5"


def check_width(embeddings: Conditioning, config: Mapping[str, Any], name: str, prompts: int = 1) -> None:
    """Check that embeddings are of the encoders that a UNet was trained with.

    Args:
        config: the UNet's.
        name: of the remover, for the error.
        prompts: texts of 77 tokens that stand side by side.

    Raises:
        MissingWeights: they are of another width or length, or only one of the two takes a pooled text.
    """
    width, needed = embeddings.tokens.shape[-1], config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    is_pooled = embeddings.pooled is not None
    if width != needed or is_pooled != (describe_family(config) == "SDXL"):
        raise MissingWeights(
            f"{name}: the text is {width} wide {'with' if is_pooled else 'without'} a pooled one, the UNet takes "
            f"{needed} {'with' if describe_family(config) == 'SDXL' else 'without'} one: encoders or prompts of "
            "another model"
        )
    if embeddings.tokens.shape[1] % prompts or embeddings.tokens.shape != embeddings.negative_tokens.shape:
        raise MissingWeights(f"{name}: {embeddings.tokens.shape[1]} tokens are no {prompts} texts of one length")


def encoder_files(
    folder: Path, is_sdxl: bool = True, tokenizer: Path | None = None, texts: Sequence[str] = ()
) -> dict[str, Path]:
    """Return the files of the text encoders and tokenizers of a model, by name.

    Args:
        folder: the model's, or a whole model in one file, which has no tokenizer.
        is_sdxl: it has two encoders and tokenizers, not one.
        tokenizer: folder of CLIP's tokenizer. texts: that are encoded; empty ones need none.

    Raises:
        MissingWeights
    """
    if folder.is_file():
        if tokenizer is None and any(texts):
            raise MissingWeights(
                f"'{folder}' is one file and has no tokenizer, which the prompt needs: name CLIP's (`tokenizer`, a "
                "folder with vocab.json and merges.txt, as every Stable Diffusion has), or leave the prompt empty"
            )
        own = {f"tokenizer/{path.name}": path for path in list_tokenizer_files(tokenizer)} if tokenizer else {}
        return {"text_encoder": folder, **own}
    files: dict[str, Path] = {}
    for suffix in ("", "_2") if is_sdxl else ("",):
        files |= {
            f"tokenizer{suffix}/{path.name}": path for path in list_tokenizer_files(folder / f"tokenizer{suffix}")
        }
        encoder = list_diffusers_files(folder / f"text_encoder{suffix}")
        files |= {f"text_encoder{suffix}/{name}": path for name, path in encoder.items()}
    return files


def list_tokenizer_files(folder: Path) -> list[Path]:
    """List the files of a tokenizer.

    Raises:
        MissingWeights: there are none.
    """
    paths = [path for path in sorted(folder.glob("*")) if path.is_file()]
    if not paths:
        raise MissingWeights(f"no tokenizer in {folder}")
    return paths


def open_tokenizer(folder: Path, **tokens: Any) -> Any:
    """Open CLIP's tokenizer from its folder; `tokens` take the place of its own special ones.

    Raises:
        MissingWeights: the folder holds none.
    """
    from transformers import CLIPTokenizer

    with refuse_others(folder, "a folder of CLIP's tokenizer"):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, **tokens)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> "torch.Tensor":
    """Return the ids (n, 77) of texts, cut and padded."""
    ids: torch.Tensor = tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def read_ids(folder: Path, suffix: str, texts: Sequence[str], tokenizer: Path | None) -> "torch.Tensor":
    """Return the ids (n, 77) of texts by a model's tokenizer; see `encode`.

    Args:
        suffix: `_2` of SDXL's second encoder.
    """
    import torch

    if not folder.is_file():
        return tokenize(open_tokenizer(folder / f"tokenizer{suffix}"), texts)
    if tokenizer is not None:
        return tokenize(open_tokenizer(tokenizer, **(SECOND_PADDING if suffix else {})), texts)
    config = describe_part(folder, f"text_encoder{suffix}")
    empty = [config["bos_token_id"], config["eos_token_id"]]
    empty += [config["pad_token_id"]] * (config["max_position_embeddings"] - 2)
    return torch.tensor([empty] * len(texts))


def encode(
    folder: Path, prompt: str, negative: str | None, device: Any, dtype: Any, tokenizer: Path | None = None
) -> Conditioning:
    """Encode a prompt by the encoders of a model, which are loaded for this and released.

    Of SDXL (`text_encoder_2` is there) the tokens are the last but one hidden state of both encoders, side by side, and
    pooled is the second one's projection. Of Stable Diffusion 1.5 they are the last hidden state of the only one.

    Args:
        folder: the model's, or a whole model in one file.
        negative: the negative prompt; None for zeros (SDXL) or the empty prompt (Stable Diffusion 1.5).
        tokenizer: folder of CLIP's tokenizer, for texts that are not empty by a model in one file.

    Raises:
        MissingWeights: an encoder or a tokenizer is missing.
    """
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    is_sdxl = get_family(read_shapes(folder)) == "SDXL" if folder.is_file() else (folder / "text_encoder_2").is_dir()
    encoder_files(folder, is_sdxl, tokenizer, [prompt, negative or ""])
    texts = [prompt] if negative is None and is_sdxl else [prompt, negative or ""]
    states = []
    pooled = None
    for suffix, cls in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))[: 1 + is_sdxl]:
        load = partial(_load_encoder, cls, folder, suffix, device, dtype)
        encoder: Any = open_kept((cls, folder, suffix, device, dtype), load)
        ids = read_ids(folder, suffix, texts, tokenizer)
        with torch.inference_mode():
            output = encoder(ids.to(device), output_hidden_states=True)
        states.append(output.hidden_states[-2] if is_sdxl else output.last_hidden_state)
        pooled = output.text_embeds if suffix else pooled
        del encoder
    if _KEPT.get() is None:
        gc.collect()
    tokens = torch.cat(states, dim=-1)
    if len(texts) == 1:
        assert pooled is not None
        return Conditioning(tokens.clone(), pooled.clone(), torch.zeros_like(tokens), torch.zeros_like(pooled))
    first, second = (None, None) if pooled is None else (pooled[:1].clone(), pooled[1:].clone())
    return Conditioning(tokens[:1].clone(), first, tokens[1:].clone(), second)


def _load_encoder(cls: Any, base: Path, suffix: str, device: Any, dtype: Any) -> Any:
    if base.is_file():
        return open_text_part(base, cls, suffix, dtype).to(device)
    folder = base / f"text_encoder{suffix}"
    spare = () if suffix else TEXT_SPARE  # the second one has a projection
    return open_transformers(cls, folder, TEXT_KINDS, spare, dtype, device, get_variant(folder))


def save(conditioning: Conditioning, path: Path) -> None:
    """Write embeddings to a safetensors file, so that a machine needs no encoders at all."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous().cpu() for name, value in conditioning.list_tensors().items()}, path)


def load(path: Path) -> Conditioning:
    """Read embeddings from a file of `save`, or from RORem's `empty_prompt_embeds.safetensors`.

    Raises:
        BadWeights: the file cannot be read, or holds other tensors.
    """
    import torch

    tensors = read_tensors(path)
    names = set(Conditioning.__dataclass_fields__)
    if set(tensors) in (names, {"tokens", "negative_tokens"}):
        return Conditioning(**{name: tensors.get(name) for name in names})  # type: ignore[arg-type]
    # a file with the empty prompt alone: one tensor of tokens, one pooled, under any names
    values = list(tensors.values())
    sequences = [value for value in values if value.ndim >= 3 or (value.ndim == 2 and value.shape[0] > 1)]
    vectors = [value for value in values if value.ndim == 1 or (value.ndim == 2 and value.shape[0] == 1)]
    if len(sequences) != 1 or len(vectors) != 1:
        raise MissingWeights(f"{path} holds {', '.join(tensors)}: not the embeddings of a prompt")
    tokens, pooled = sequences[0].reshape(1, *sequences[0].shape[-2:]), vectors[0].reshape(1, -1)
    return Conditioning(tokens, pooled, torch.zeros_like(tokens), torch.zeros_like(pooled))
