"""PowerPaint's prompts: three learned words of ten vectors each, by which a text encoder is told the task.

Source: arXiv 2312.03594, section 3, and its release. `P_ctxt` continues the surroundings, `P_obj` paints an object and
`P_shape` one that fits the mask. Removal is guided towards `P_ctxt` and away from `P_obj`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.pretrained import MissingWeights, list_diffusers_files, read_config
from rasura.networks.single_file import fill_text_encoder, read_part_config
from rasura.networks.weights import read_tensors
from rasura.removers.diffusion.conditioning import Conditioning, open_kept, open_tokenizer
from rasura.removers.diffusion.loop import Task

if TYPE_CHECKING:
    import torch

TOKENS = ("P_ctxt", "P_shape", "P_obj")
"""The learned words, in the order of their ids."""
VECTORS = 10
POOR = ", worst quality, low quality, normal quality, bad quality, blurry "

EMBEDDING = "embeddings.token_embedding"


@dataclass(frozen=True)
class TaskPrompts:
    """The texts of a task: two to be guided to, which the fitting degree mixes, and two to be guided away from."""

    towards: tuple[str, str]
    away: tuple[str, str]

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """All four, in order."""
        return (*self.towards, *self.away)


def write_prompts(task: Task, prompt: str, negative: str) -> TaskPrompts:
    """Write the texts of a task around a prompt and a negative prompt, as the first version's demo does.

    Examples:
        >>> write_prompts("object-removal", "", "").towards[0]
        'empty scene blur  P_ctxt'
        >>> write_prompts("shape-guided", "a cat", "").texts[::2]
        ('a cat P_shape', ', worst quality, low quality, normal quality, bad quality, blurry P_shape')
    """
    if task in ("object-removal", "image-outpainting"):
        towards, away = f"empty scene blur {prompt} P_ctxt", f"{negative} P_obj"
        return TaskPrompts((towards, towards), (away, away))
    first, second = ("P_shape", "P_ctxt") if task == "shape-guided" else ("P_obj", "P_obj")
    away = negative + POOR
    return TaskPrompts((f"{prompt} {first}", f"{prompt} {second}"), (away + first, away + second))


def write_branch_prompts(task: Task) -> TaskPrompts:
    """Write the texts that the second version's BrushNet sees: the task's words alone.

    Examples:
        >>> write_branch_prompts("object-removal").texts
        (' P_ctxt', ' P_ctxt', ' P_obj', ' P_obj')
    """
    if task in ("object-removal", "image-outpainting"):
        return TaskPrompts((" P_ctxt", " P_ctxt"), (" P_obj", " P_obj"))
    first, second = ("P_shape", "P_ctxt") if task == "shape-guided" else ("P_obj", "P_obj")
    return TaskPrompts((f" {first}", f" {second}"), (first, second))


def tokenize(tokenizer: Any, text: str, first_ids: Mapping[str, int]) -> list[int]:
    """Return the 77 ids of a text in which each learned word stands for its ten vectors.

    Args:
        tokenizer: CLIP's.
        first_ids: id of each word's first vector; the others follow it.

    Raises:
        ValueError: the text is so long that a learned word would be cut.
    """
    content: list[int] = []
    end = 0
    for piece in re.split(f"({'|'.join(TOKENS)})", text):
        if piece in first_ids:
            content += range(first_ids[piece], first_ids[piece] + VECTORS)
            end = len(content)
        elif piece.strip():
            content += tokenizer(piece, add_special_tokens=False).input_ids
    most = int(tokenizer.model_max_length) - 2
    if end > most:
        raise ValueError(f"the prompt '{text}' is {end} tokens long up to its task's word, {most} are possible")
    ids = [tokenizer.bos_token_id, *content[:most], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (most + 2 - len(ids))


def read_encoder_tensors(path: Path) -> dict[str, Any]:
    """Read a text encoder's tensors from its folder or file, under the names of a bare text model.

    Read are both layouts of `CLIPTextModel` (with and without `text_model.` before each name).

    Raises:
        MissingWeights, BadWeights
    """
    files = [path]
    if path.is_dir():
        files = [file for name, file in list_diffusers_files(path).items() if name != "config.json"]
    tensors = {name: value for file in files for name, value in read_tensors(file).items()}
    bare = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    return {name: value for name, value in bare.items() if name != "embeddings.position_ids"}


def join_task_vectors(tensors: Mapping[str, Any], tokenizer: Any, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a text encoder's tensors with the learned vectors behind its vocabulary, and each word's first id.

    The release keeps the vectors beside the vocabulary (`….trainable_embeddings.P_ctxt`); converted folders have them
    in it, under the ids of the tokenizer's own `P_ctxt_0`, ….

    Args:
        path: of the tensors, for the error.

    Raises:
        MissingWeights: there are no learned vectors, or not ten of each word.
    """
    import torch

    joined = {name: value for name, value in tensors.items() if not name.startswith(EMBEDDING)}
    vocabulary = tensors.get(f"{EMBEDDING}.wrapped.weight")
    if vocabulary is not None:
        vectors = []
        for token in TOKENS:
            value = tensors.get(f"{EMBEDDING}.trainable_embeddings.{token}")
            if value is None or tuple(value.shape) != (VECTORS, vocabulary.shape[1]):
                shape = "none" if value is None else f"those of shape {tuple(value.shape)}"
                raise MissingWeights(f"'{path}' has no {VECTORS} vectors of {token}, but {shape}")
            vectors.append(value)
        joined[f"{EMBEDDING}.weight"] = torch.cat([vocabulary, *vectors])
        return joined, {token: len(vocabulary) + VECTORS * k for k, token in enumerate(TOKENS)}
    weight = tensors.get(f"{EMBEDDING}.weight")
    if weight is None:
        raise MissingWeights(f"'{path}' is no CLIP text encoder: it has no {EMBEDDING}.weight")
    ids = tokenizer.get_vocab()
    words = {token: [ids.get(f"{token}_{k}", -1) for k in range(VECTORS)] for token in TOKENS}
    for token, numbers in words.items():
        if numbers != list(range(numbers[0], numbers[0] + VECTORS)) or not 0 <= numbers[0] <= len(weight) - VECTORS:
            raise MissingWeights(
                f"'{path}' is a text encoder without PowerPaint's task words, or its tokenizer lacks them "
                f"({token}_0 to {token}_{VECTORS - 1}, in this order): name PowerPaint's (`text_encoder`)"
            )
    joined[f"{EMBEDDING}.weight"] = weight
    return joined, {token: numbers[0] for token, numbers in words.items()}


def open_task_encoder(path: Path, base: Path, tokenizer: Any, dtype: Any) -> tuple[Any, dict[str, int]]:
    """Open PowerPaint's text encoder, on the CPU, and return it with the first id of each learned word.

    Args:
        path: folder in diffusers' layout, or file of tensors.
        base: the model whose text encoder has the configuration that a file of tensors lacks.

    Raises:
        MissingWeights, BadWeights: missing, or of another network.
    """
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    tensors, first_ids = join_task_vectors(read_encoder_tensors(path), tokenizer, path)
    values = read_config(path) if path.is_dir() else read_part_config(base, "text_encoder")
    make_config: Any = CLIPTextConfig
    config = make_config(**{**values, "vocab_size": len(tensors[f"{EMBEDDING}.weight"])})
    with torch.device("meta"):
        encoder = CLIPTextModel(config)
    return fill_text_encoder(encoder, tensors, path, dtype), first_ids


def encode_texts(
    encoder: Any, tokenizer: Any, first_ids: Mapping[str, int], texts: Sequence[str], device: Any
) -> "torch.Tensor":
    """Return the last hidden states (n, 77, d) of texts with learned words."""
    import torch

    ids = torch.tensor([tokenize(tokenizer, text, first_ids) for text in texts], device=device)
    with torch.inference_mode():
        states: torch.Tensor = encoder(ids).last_hidden_state
    return states.clone()


def encode_tasks(
    path: Path,
    base: Path,
    tokenizer: Path | None,
    prompts: TaskPrompts,
    fitting: float,
    device: Any,
    dtype: Any,
) -> Conditioning:
    """Encode a task's texts by PowerPaint's text encoder, which is loaded for this and released.

    Args:
        path: of the text encoder. base: folder with `tokenizer` and `text_encoder`, or a whole model in one file.
        tokenizer: folder of CLIP's, where it is not the base's.
        fitting: share of the first of two texts, in what is guided to and away from alike.

    Raises:
        MissingWeights, BadWeights
    """
    opened = open_tokenizer(tokenizer or base / "tokenizer")
    load = partial(open_task_encoder, path, base, opened, dtype)
    encoder, first_ids = open_kept((path, base, device, dtype), load)
    states = encode_texts(encoder.to(device), opened, first_ids, prompts.texts, device)
    towards, away = (fitting * states[k : k + 1] + (1 - fitting) * states[k + 1 : k + 2] for k in (0, 2))
    return Conditioning(towards, None, away, None)
