"""Tiny Stable Diffusion 1.5 and SDXL with weights that are a formula of their names, so that no file has to hold them.

Beside the standard library only numpy is imported at the top: the authors' code runs in an environment of its own.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 16
"""Of texts: one encoder's of Stable Diffusion 1.5; SDXL's two are as wide together."""
SD15_UNET = {
    "sample_size": 16,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 2,
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 4,
}
"""Its four levels, two layers each."""
SDXL_UNET = {
    "sample_size": 16,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": WIDTH,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH // 2,
    "use_linear_projection": True,
    "norm_num_groups": 4,
}
VAE = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
SCALING = {"sd15": 0.18215, "sdxl": 0.13025}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
START, END = "<|startoftext|>", "<|endoftext|>"


def make_clip_config(width: int = WIDTH) -> dict[str, object]:
    """Return the configuration of a tiny text encoder."""
    return {
        "vocab_size": 514,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "projection_dim": width,
        "max_position_embeddings": 77,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
    }


def make_weight(name: str, shape: tuple[int, ...], seed: str) -> np.ndarray:
    """Return a tensor that depends on its name alone: even in ±√3 / √inputs, norms around 1, offsets small."""
    count = int(np.prod(shape))
    digest = hashlib.shake_256(f"{seed}/{name}".encode()).digest(2 * count)
    even = np.frombuffer(digest, "<u2").astype(np.float32) / np.float32(32768) - np.float32(1)
    if name.endswith("bias"):
        values = even * np.float32(0.125)
    elif len(shape) == 1:
        values = np.float32(1) + even * np.float32(0.125)
    elif "embed" in name and "time" not in name and "add_" not in name:
        values = even * np.float32(0.5)
    else:
        values = even * np.float32((3 / np.prod(shape[1:])) ** 0.5)
    if name in ("quant_conv.weight", "quant_conv.bias"):  # no width, so that a sample is the mode
        values[count // 2 :] = -30 if name.endswith("bias") else 0
    return values.reshape(shape)


def make_weights(shapes: Mapping[str, tuple[int, ...]], seed: str) -> dict[str, np.ndarray]:
    """Return the tensors of a network; a text model's have no `text_model.` in the names that they depend on."""
    return {name: make_weight(name.removeprefix("text_model."), tuple(shape), seed) for name, shape in shapes.items()}


def fill(network, seed: str):
    """Fill a torch network, and return it in evaluation mode."""
    import torch

    state = {name: value for name, value in network.state_dict().items() if not name.endswith("position_ids")}
    weights = make_weights({name: tuple(value.shape) for name, value in state.items()}, seed)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    return network.eval()


def write_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of single bytes, in the published layout: `vocab.json` and `merges.txt`."""
    folder.mkdir(parents=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [code for code in range(256) if code not in printable]
    letters = [chr(code) for code in printable] + [chr(256 + k) for k in range(len(others))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokens = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    return folder


def write_base(folder: Path, family: str, channels: int, scheduler: str = "DDIMScheduler") -> Path:
    """Write a tiny base in diffusers' layout.

    Args:
        family: sd15 or sdxl. channels: of its UNet.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = SD15_UNET if family == "sd15" else SDXL_UNET
    fill(UNet2DConditionModel(**{**unet, "in_channels": channels}), f"{family}-unet").save_pretrained(folder / "unet")
    fill(AutoencoderKL(**VAE, scaling_factor=SCALING[family]), f"{family}-vae").save_pretrained(folder / "vae")
    if family == "sd15":
        encoders = {"text_encoder": (CLIPTextModel, WIDTH)}
    else:
        half = WIDTH // 2
        encoders = {"text_encoder": (CLIPTextModel, half), "text_encoder_2": (CLIPTextModelWithProjection, half)}
    for name, (cls, width) in encoders.items():
        fill(cls(CLIPTextConfig(**make_clip_config(width))), f"{family}-{name}").save_pretrained(folder / name)
        write_tokenizer(folder / name.replace("text_encoder", "tokenizer"))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": scheduler, **SCHEDULER}))
    return folder


def task_encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tiny text encoder in the layout of PowerPaint's release."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        encoder = CLIPTextModel(CLIPTextConfig(**make_clip_config()))
    shapes = {name.removeprefix("text_model."): tuple(value.shape) for name, value in encoder.state_dict().items()}
    vocabulary = shapes.pop("embeddings.token_embedding.weight")
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("position_ids")}
    shapes["embeddings.token_embedding.wrapped.weight"] = vocabulary
    for token in ("P_ctxt", "P_shape", "P_obj"):
        shapes[f"embeddings.token_embedding.trainable_embeddings.{token}"] = (10, vocabulary[1])
    return {f"text_model.{name}": shape for name, shape in shapes.items()}


def make_scene(height: int = 128, width: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with structure and a hole in it."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 9 + columns / (7 + 4 * k)) for k in range(3)], axis=-1)
    picture = np.rint(127.5 + 90 * waves + 30 * ((rows // 16 + columns // 16) % 2)[..., None] - 15)
    hole = np.zeros((height, width), bool)
    hole[40:88, 60:130] = True
    return picture.clip(0, 255).astype(np.uint8), hole


def draw_noise(seed: int, height: int = 128, width: int = 192) -> np.ndarray:
    """Return the first latents (1, 4, h/8, w/8) of the runs, approximately normal: sums of twelve even numbers."""
    shape = (1, 4, height // 8, width // 8)
    count = int(np.prod(shape))
    digest = hashlib.shake_256(f"noise/{seed}".encode()).digest(24 * count)
    even = np.frombuffer(digest, "<u2").astype(np.float64).reshape(12, *shape) / 65536
    return (even.sum(axis=0) - 6).astype(np.float32)


def make_grainy_scene(seed=0, size=64):
    """A picture with grain and a hole mask."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    hole = np.zeros((size, size), bool)
    hole[size // 4 : size // 2, size // 4 : 3 * size // 4] = True
    return picture, hole


def check_hole_alone_changes(remover: Any) -> None:
    """Check that of a half-black picture nearly all of the hole changes, and nothing else."""
    from rasura.removers.base import remove

    picture = np.full((100, 90, 3), 180, np.uint8)
    picture[:, :45] = 0
    mask = np.zeros((100, 90), bool)
    mask[40:60, 30:60] = True
    (out,) = remove(remover, [picture], [mask], [0], dilation=0)
    assert np.array_equal(out[~mask], picture[~mask])
    assert (out[mask] != picture[mask]).any(axis=-1).mean() > 0.9
