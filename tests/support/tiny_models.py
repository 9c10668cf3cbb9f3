"""Tiny networks with random weights, in the layout of the published folders."""

import json
from pathlib import Path

from rasura.networks.unet_config import make_tiny_config

UNET = make_tiny_config(channels=4, sample_size=16) | {"attention_head_dim": (2, 4)}
SDXL_UNET = {
    "sample_size": 128,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
"""SDXL-inpainting's own, written down a second time."""


def unet(seed: int = 0):
    """A tiny UNet of SDXL-inpainting's shape."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(**UNET).eval()


def vae(seed: int = 0):
    """A tiny VAE, factor 8, whose distribution has no width: a sample of it is its mode."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    model = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.13025,
    ).eval()
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = -30
    return model


def tokenizer():
    """A tokenizer of single letters."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: k for k, word in enumerate(words)}, merges=[], model_max_length=77)


def text_encoders(seed: int = 0):
    """Two tiny CLIP text encoders, hidden size 32 each."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return CLIPTextModel(config).eval(), CLIPTextModelWithProjection(config).eval()


def pipeline():
    """diffusers' own inpainting pipeline on tiny networks."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLInpaintPipeline

    first, second = text_encoders()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    model = StableDiffusionXLInpaintPipeline(
        vae=vae(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(),
        scheduler=scheduler,
        add_watermarker=False,
    )
    model.set_progress_bar_config(disable=True)
    return model


def sdxl_folder(folder: Path) -> Path:
    """A tiny model in SDXL-inpainting's layout."""
    pipeline().save_pretrained(folder)
    return folder


def objectclear_folder(folder: Path) -> Path:
    """A tiny model in ObjectClear's layout: the above, the fusion module and CLIP's image encoder."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sdxl_folder(folder)
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_prompt_encoder")
    (folder / "postfuse_module").mkdir()
    save_file(postfuse_tensors(24, 64), folder / "postfuse_module" / "model.safetensors")
    return folder


def clip_folder(folder: Path, projection: int = 24) -> Path:
    """A whole tiny CLIP, text and pictures, in the layout of its published folder."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 54, "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    vision = {**sizes, "image_size": 32, "patch_size": 8, "projection_dim": projection}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    CLIPModel(config).save_pretrained(folder)
    return folder


def postfuse_tensors(clip_width: int, width: int):
    """Random tensors of the fusion module, from CLIP's embeddings to text tokens of `width`."""
    import torch

    def dense(name: str, inputs: int) -> dict[str, torch.Tensor]:
        return {
            f"{name}.layernorm.weight": torch.rand(inputs) + 0.5,
            f"{name}.layernorm.bias": torch.randn(inputs),
            f"{name}.fc1.weight": torch.randn(width, inputs) / inputs**0.5,
            f"{name}.fc1.bias": torch.randn(width),
            f"{name}.fc2.weight": torch.randn(width, width) / width**0.5,
            f"{name}.fc2.bias": torch.randn(width),
        }

    norm = {"layer_norm.weight": torch.rand(width) + 0.5, "layer_norm.bias": torch.randn(width)}
    return dense("mlp1", clip_width) | dense("mlp2", width) | norm


def lora_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 5):
    """Random tensors of these names and shapes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def rewrite(path: Path, **keys: object) -> None:
    """Changes keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
