"""Stable Diffusion 1.5 and SDXL in one file: the layout of the first releases, in which most models are passed on.

One `.safetensors` holds the UNet (`model.diffusion_model.`), the VAE (`first_stage_model.`) and the text encoders
(`cond_stage_model.` or `conditioner.embedders.`), under other names than in diffusers' folders and without any
configuration, which the shapes of the tensors tell. Nothing is written: each network reads its own tensors.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.networks.memory import read_safetensors_header
from rasura.networks.pretrained import MissingWeights, fill_module, read_config
from rasura.networks.weights import describe_content

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = {
    ("Stable Diffusion 1.5", ""): "cond_stage_model.transformer.",
    ("SDXL", ""): "conditioner.embedders.0.transformer.",
    ("SDXL", "_2"): "conditioner.embedders.1.model.",
}
"""Beginnings of the names of the text encoders' tensors; SDXL's second one has the names of OpenCLIP."""
TEXT_PREFIXES = ("cond_stage_model.", "conditioner.", "model_ema.")
"""Beginnings of the names of what is in memory only while texts are encoded, or never."""
SCALING = {"Stable Diffusion 1.5": 0.18215, "SDXL": 0.13025}
HEADS, HEAD_WIDTH, CLIP_HEAD_WIDTH = 8, 64, 64
"""Heads of Stable Diffusion 1.5's UNet, width of a head of SDXL's, and of CLIP's."""
SCHEDULER: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}
SCHEDULERS = {"Stable Diffusion 1.5": "PNDMScheduler", "SDXL": "EulerDiscreteScheduler"}
"""Those of the published folders."""
OPEN_CLIP = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
)
OPEN_CLIP_OUTER = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


@lru_cache(maxsize=8)
def _read_shapes(path: Path, changed: int) -> Shapes:
    return {name: tuple(entry["shape"]) for name, entry in read_safetensors_header(path).items()}


def read_shapes(path: Path) -> Shapes:
    """Return the names and shapes of a whole model in one file.

    Raises:
        MissingWeights: it is a pickle, cannot be read, or holds no such model.
    """
    if path.suffix != ".safetensors":
        raise MissingWeights(
            f"'{path}' is no folder and no .safetensors file; of a pickle, `rasura convert '{path}' --out "
            f"{path.stem}.safetensors` makes one"
        )
    shapes = _read_shapes(path, path.stat().st_mtime_ns)
    if content := describe_content(path):
        raise MissingWeights(f"'{path}' is no whole model in one file: {content}")
    if not any(name.startswith(UNET) for name in shapes):
        raise MissingWeights(
            f"'{path}' is no whole model in one file: no tensor's name begins with '{UNET}'. A UNet alone is named by "
            "`unet`, beside the `base` that it was made from"
        )
    return shapes


def get_family(shapes: Shapes) -> str:
    """Return the family of a whole model: SDXL's UNet has an embedding of pooled text and sizes."""
    return "SDXL" if f"{UNET}label_emb.0.0.weight" in shapes else "Stable Diffusion 1.5"


def describe_part(path: Path, part: str) -> dict[str, Any]:
    """Return the configuration of a part of a whole model, as diffusers and transformers have it.

    Args:
        path: the file. part: unet, vae, scheduler, text_encoder or text_encoder_2.

    Raises:
        MissingWeights: the file lacks that part, or is of another family.
    """
    shapes = read_shapes(path)
    try:
        if part == "unet":
            return describe_unet(shapes, path)
        if part == "vae":
            return describe_vae(shapes)
        if part == "scheduler":
            marks: dict[str, Any] = {"prediction_type": "v_prediction"} if "v_pred" in shapes else {}
            marks |= {"rescale_betas_zero_snr": True} if "ztsnr" in shapes else {}
            return {"_class_name": SCHEDULERS[get_family(shapes)], **SCHEDULER, **marks}
        return describe_text_encoder(shapes, part.removeprefix("text_encoder"))
    except (KeyError, IndexError) as error:
        raise MissingWeights(f"'{path}' lacks its {part}: it has no tensor {error}") from error


def read_part_config(base: Path, part: str) -> dict[str, Any]:
    """Return the configuration of a part of a base: from diffusers' folder, or told by the shapes of a whole model.

    Raises:
        MissingWeights
    """
    return describe_part(base, part) if base.is_file() else read_config(base / part)


def count_children(shapes: Shapes, prefix: str) -> int:
    """Return how many different names follow a prefix, up to the next dot.

    Examples:
        >>> count_children({"a.0.x": (1,), "a.0.y": (1,), "a.1.x": (1,), "b.0": (1,)}, "a.")
        2
    """
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def describe_unet(shapes: Shapes, path: Path) -> dict[str, Any]:
    """Return the configuration of a UNet by its shapes.

    Raises:
        MissingWeights: it is neither Stable Diffusion 1.5's nor SDXL's.
    """
    names = {name.removeprefix(UNET): shape for name, shape in shapes.items() if name.startswith(UNET)}
    blocks = count_children(names, "input_blocks.")
    downs = [k for k in range(blocks) if f"input_blocks.{k}.0.op.weight" in names]
    layers = downs[0] - 1
    firsts = [1 + level * (layers + 1) for level in range(len(downs) + 1)]
    widths = [names[f"input_blocks.{k}.0.out_layers.3.weight"][0] for k in firsts]
    depths = [count_children(names, f"input_blocks.{k}.1.transformer_blocks.") for k in firsts]
    texts = {shape[1] for name, shape in names.items() if name.endswith("attn2.to_k.weight")}
    is_xl = get_family(shapes) == "SDXL"
    is_linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in names.items())
    config = {
        "sample_size": 128 if is_xl else 64,
        "in_channels": names["input_blocks.0.0.weight"][1],
        "out_channels": names["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "attention_head_dim": [width // HEAD_WIDTH for width in widths] if is_xl else HEADS,
        "cross_attention_dim": texts.pop() if len(texts) == 1 else None,
        "use_linear_projection": is_linear,
    }
    if not is_xl:
        if is_linear:
            raise MissingWeights(f"'{path}' is of Stable Diffusion 2, which nothing here runs")
        return config
    second = f"{TEXT['SDXL', '_2']}text_projection"
    if f"{TEXT['SDXL', '']}text_model.final_layer_norm.weight" not in shapes or second not in shapes:
        raise MissingWeights(
            f"'{path}' has not SDXL's two text encoders: it is its refiner, or a UNet with its VAE alone"
        )
    sizes = names["label_emb.0.0.weight"][1]
    return config | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (sizes - shapes[second][1]) // 6,
        "projection_class_embeddings_input_dim": sizes,
    }


def describe_vae(shapes: Shapes) -> dict[str, Any]:
    """Return the configuration of a VAE by its shapes."""
    names = {name.removeprefix(VAE): shape for name, shape in shapes.items() if name.startswith(VAE)}
    levels = count_children(names, "encoder.down.")
    return {
        "block_out_channels": [names[f"encoder.down.{k}.block.0.conv2.weight"][0] for k in range(levels)],
        "layers_per_block": count_children(names, "encoder.down.0.block."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": names["decoder.conv_in.weight"][1],
        "scaling_factor": SCALING[get_family(shapes)],
        "force_upcast": True,
    }


def describe_text_encoder(shapes: Shapes, suffix: str) -> dict[str, Any]:
    """Return the configuration of a text encoder by its shapes; `suffix` is _2 of SDXL's second one."""
    prefix = TEXT[get_family(shapes), suffix]
    tokens, positions, first, layers = (
        (
            "token_embedding.weight",
            "positional_embedding",
            "transformer.resblocks.0.mlp.c_fc.weight",
            "transformer.resblocks.",
        )
        if suffix
        else (
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            "text_model.encoder.layers.0.mlp.fc1.weight",
            "text_model.encoder.layers.",
        )
    )
    vocabulary, width = shapes[prefix + tokens]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[prefix + first][0],
        "num_hidden_layers": count_children(shapes, prefix + layers),
        "num_attention_heads": width // CLIP_HEAD_WIDTH,
        "max_position_embeddings": shapes[prefix + positions][0],
        "hidden_act": "gelu" if suffix else "quick_gelu",
        "projection_dim": shapes[f"{prefix}text_projection"][1] if suffix else width,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0 if suffix else vocabulary - 1,
    }


def read_prefixed(path: Path, *prefixes: str) -> "dict[str, Tensor]":
    """Read the tensors of a safetensors file whose names begin with one of the prefixes, under their whole names."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118


def convert_vae(tensors: "Mapping[str, Tensor]", config: Mapping[str, Any]) -> "dict[str, Tensor]":
    """Return a VAE's tensors by diffusers' names."""
    from diffusers.loaders import single_file_utils

    convert: Any = single_file_utils.convert_ldm_vae_checkpoint
    converted: dict[str, Tensor] = convert(dict(tensors), config)
    return converted


def convert_text_encoder(tensors: "Mapping[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    """Return a text encoder's tensors by transformers' names, without `text_model.` before those of the model itself.

    OpenCLIP keeps queries, keys and values in one matrix, and its projection the other way round.
    """
    import torch

    converted: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = name.removeprefix(prefix)
        if short.startswith("text_model."):
            converted[short.removeprefix("text_model.")] = value
        elif short in OPEN_CLIP_OUTER:
            converted[OPEN_CLIP_OUTER[short]] = value
        elif short == "text_projection":
            converted["text_projection.weight"] = value.T.contiguous()
        elif short.startswith("transformer.resblocks."):
            number, _, rest = short.removeprefix("transformer.resblocks.").partition(".")
            layer = f"encoder.layers.{number}."
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for part, piece in zip("qkv", torch.chunk(value, 3), strict=True):
                    converted[f"{layer}self_attn.{part}_proj.{kind}"] = piece.contiguous()
                continue
            for theirs, ours in OPEN_CLIP:
                rest = ours + rest.removeprefix(theirs) if rest.startswith(theirs) else rest
            converted[layer + rest] = value
    converted.pop("embeddings.position_ids", None)
    return converted


def open_vae_part(path: Path, dtype: Any) -> Any:
    """Open the VAE of a whole model, on the CPU.

    Raises:
        MissingWeights: it has none, or another one.
    """
    import torch
    from diffusers import AutoencoderKL

    config = describe_part(path, "vae")
    cls: Any = AutoencoderKL
    with torch.device("meta"):
        vae = cls.from_config(config)
    return fill_module(vae, convert_vae(read_prefixed(path, VAE), config), path, dtype)


def open_text_part(path: Path, cls: Any, suffix: str, dtype: Any) -> Any:
    """Open a text encoder of a whole model, on the CPU.

    Args:
        cls: of transformers. suffix: `_2` of SDXL's second one.

    Raises:
        MissingWeights: it has none, or another one.
    """
    import torch
    from transformers import CLIPTextConfig

    make_config: Any = CLIPTextConfig
    with torch.device("meta"):
        encoder = cls(make_config(**describe_part(path, f"text_encoder{suffix}")))
    prefix = TEXT[get_family(read_shapes(path)), suffix]
    return fill_text_encoder(encoder, convert_text_encoder(read_prefixed(path, prefix), prefix), path, dtype)


def fill_text_encoder(encoder: Any, tensors: "Mapping[str, Tensor]", path: Path, dtype: Any) -> Any:
    """Fill a text encoder of transformers, which is on the meta device.

    Args:
        tensors: by the names of a bare text model, and its projection; some versions put `text_model.` before the
            former.

    Raises:
        MissingWeights: a tensor is missing, left over, or of another shape.
    """
    import torch

    prefix = "text_model." if any(name.startswith("text_model.") for name in encoder.state_dict()) else ""
    named = {
        name if name.startswith("text_projection") else f"{prefix}{name}": value for name, value in tensors.items()
    }
    opened = fill_module(encoder, named, path, dtype)
    for module in opened.modules():  # not among the tensors, and left on the meta device
        if (positions := getattr(module, "position_ids", None)) is not None:
            module.position_ids = torch.arange(positions.shape[-1]).expand(1, -1)
    return opened
