"""Tiny pipelines of diffusers with random weights, in the folders that `save_pretrained` writes."""

import json
from pathlib import Path

from support import tiny_diffusion as tiny

STABLE = {"StableDiffusionInpaintPipeline": "sd15", "StableDiffusionXLInpaintPipeline": "sdxl"}
FLOW = {"shift": 3.0, "use_dynamic_shifting": False}


def write_pipeline(folder: Path, name: str) -> Path:
    """Write the tiny pipeline of that class."""
    if name in STABLE:
        return _write_stable_diffusion(folder, name)
    write = {"FluxFillPipeline": _write_flux_fill, "QwenImageInpaintPipeline": _write_qwen}.get(name, _write_sd3)
    return write(folder)


def _write_stable_diffusion(folder: Path, name: str) -> Path:
    family = STABLE[name]
    tiny.write_base(folder, family, 9)
    index = {
        "_class_name": name,
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if family == "sdxl":
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def make_vae(channels: int):
    """Make a tiny VAE of the flow models: 16 channels, an offset of the latents, no 1 x 1 convolutions."""
    from diffusers import AutoencoderKL

    config = {**tiny.VAE, "latent_channels": channels, "use_quant_conv": False, "use_post_quant_conv": False}
    return tiny.fill(AutoencoderKL(**config, scaling_factor=1.5, shift_factor=0.06), "flow-vae")


def make_t5(folder: Path):
    """Make a tiny T5 encoder, and write its tokenizer of single letters to a folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(code), -2.0) for code in range(32, 127))]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(Unigram(words, unk_id=2)),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    tokenizer.save_pretrained(folder)
    config = T5Config(vocab_size=98, d_model=tiny.WIDTH, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    return tiny.fill(T5EncoderModel(config), "t5")


def write_index(folder: Path, name: str, parts: dict[str, object], tokenizers: tuple[str, ...]) -> None:
    """Save parts under their names, and write the pipeline's table."""
    index: dict[str, object] = {"_class_name": name, "_diffusers_version": "0.35.0"}
    for part, network in parts.items():
        network.save_pretrained(folder / part)
        index[part] = [type(network).__module__.partition(".")[0], type(network).__name__]
    for part, cls in zip(("tokenizer", "tokenizer_2", "tokenizer_3"), tokenizers, strict=False):
        index[part] = ["transformers", cls]
    (folder / "model_index.json").write_text(json.dumps(index))


def _write_flux_fill(folder: Path) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel

    channels = 4
    latents = 4 * channels
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=2 * latents + 256,  # the masked picture's latents, and its mask's 8 x 8 pixels, of 2 x 2 places
        out_channels=latents,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=tiny.WIDTH,
        pooled_projection_dim=tiny.WIDTH,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    tiny.write_tokenizer(folder / "tokenizer")
    parts = {
        "transformer": tiny.fill(transformer, "flux"),
        "vae": make_vae(channels),
        "scheduler": FlowMatchEulerDiscreteScheduler(**FLOW),
        "text_encoder": tiny.fill(CLIPTextModel(CLIPTextConfig(**tiny.make_clip_config())), "flux-clip"),
        "text_encoder_2": make_t5(folder / "tokenizer_2"),
    }
    write_index(folder, "FluxFillPipeline", parts, ("CLIPTokenizer", "PreTrainedTokenizerFast"))
    return folder


def _write_sd3(folder: Path) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=tiny.WIDTH * 2,
        pooled_projection_dim=tiny.WIDTH * 2,
        pos_embed_max_size=64,
    )
    config = CLIPTextConfig(**tiny.make_clip_config())
    parts = {
        "transformer": tiny.fill(transformer, "sd3"),
        "vae": make_vae(16),
        "scheduler": FlowMatchEulerDiscreteScheduler(**FLOW),
        "text_encoder": tiny.fill(CLIPTextModelWithProjection(config), "sd3-a"),
        "text_encoder_2": tiny.fill(CLIPTextModelWithProjection(config), "sd3-b"),
    }
    for part in ("tokenizer", "tokenizer_2"):
        tiny.write_tokenizer(folder / part)
    write_index(folder, "StableDiffusion3Pipeline", parts, ("CLIPTokenizer", "CLIPTokenizer"))
    path = folder / "model_index.json"
    without = {part: [None, None] for part in ("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor")}
    path.write_text(json.dumps(json.loads(path.read_text()) | without))
    return folder


def _write_qwen(folder: Path) -> Path:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    channels = 4
    vae = AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=channels,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    small = {"hidden_size": 16, "intermediate_size": 16}
    text = {**small, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 600}
    text |= {"bos_token_id": 256, "eos_token_id": 257}
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_scaling": rope, "rope_parameters": rope},
        vision_config={**small, "depth": 2, "num_heads": 2, "out_hidden_size": 16},
    )
    words = json.loads((tiny.write_tokenizer(folder / "words") / "vocab.json").read_text())
    for path in [*(folder / "words").iterdir()]:
        path.unlink()
    (folder / "words").rmdir()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {word: k for k, word in enumerate([*(word for word in words if "</w>" not in word), *special[1:]])}
    Qwen2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder / "tokenizer")
    parts = {
        "transformer": tiny.fill(transformer, "qwen"),
        "vae": tiny.fill(vae, "qwen-vae"),
        "scheduler": FlowMatchEulerDiscreteScheduler(**FLOW),
        "text_encoder": tiny.fill(Qwen2_5_VLForConditionalGeneration(config), "qwen-text"),
    }
    write_index(folder, "QwenImagePipeline", parts, ("Qwen2Tokenizer",))
    return folder
