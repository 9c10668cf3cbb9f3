"""Run the authors' own classes of BrushNet and PowerPaint at tiny size, and keep what they compute.

    python make_diffusion_runs.py BRUSHNET/src POWERPAINT RASURA/tests OUT

BRUSHNET is TencentARC/BrushNet at 0f9d9e5 (a fork of diffusers 0.27) and POWERPAINT open-mmlab/PowerPaint at 5b4c3d5,
with transformers 4.38.2, huggingface_hub 0.23.5, tokenizers 0.15.2, numpy 1.26.4 and without peft. POWERPAINT's
`app.py` cannot be imported without a GPU: its function `add_task` is copied into a module `app_tasks`. Nothing of them
is part of this project. Weights are a formula of their names (`tests/support/tiny_diffusion.py`).

Each file OUT/<system>-run.safetensors holds the noise of the first latents, the additions and the prediction of the
networks' first call, and the last latents and the picture of the whole run.
"""

import copy
import sys
from pathlib import Path

brushnet_source, powerpaint_source, tests, out = sys.argv[1:5]
sys.path[:0] = [brushnet_source, powerpaint_source, tests]

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    BrushNetModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionBrushNetPipeline,
    StableDiffusionXLBrushNetPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import save_file
from support import tiny_diffusion as tiny
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

torch.set_num_threads(1)
torch.set_grad_enabled(False)
STEPS, SEED, TIME = 4, 7, 601
RUNS = (
    ("object-removal", "street", 1.0, 10.0),
    ("shape-guided", "a cat", 0.7, 7.5),
    ("text-guided", "a cat", 1.0, 7.5),
    ("image-outpainting", "", 1.0, 10.0),
)
folder = Path(out)


def make_parts(family):
    scaling = tiny.SCALING[family]
    vae = tiny.fill(AutoencoderKL(**tiny.VAE, scaling_factor=scaling), f"{family}-vae")
    tokenizers, encoders = [], []
    names = ("text_encoder",) if family == "sd15" else ("text_encoder", "text_encoder_2")
    for name in names:
        width = tiny.WIDTH // len(names)
        cls = CLIPTextModelWithProjection if name.endswith("_2") else CLIPTextModel
        encoders.append(tiny.fill(cls(CLIPTextConfig(**tiny.make_clip_config(width))), f"{family}-{name}"))
        place = folder / "work" / f"{family}-{name}"
        if not place.is_dir():
            tiny.write_tokenizer(place)
        tokenizers.append(CLIPTokenizer.from_pretrained(place))
    return vae, encoders, tokenizers


def make_pictures():
    picture, hole = tiny.make_scene()
    black = Image.fromarray((picture * (1 - hole[..., None])).astype(np.uint8))
    return Image.fromarray(picture), black, Image.fromarray(np.repeat(hole[..., None], 3, 2).astype(np.uint8) * 255)


class Record:
    """Keep the first call of a network."""

    def __init__(self, network):
        self.output = None
        network.register_forward_hook(self.keep, with_kwargs=True)

    def keep(self, module, args, kwargs, output):
        if self.output is None:
            self.output = [list(part) if isinstance(part, list) else part for part in output]  # lists are emptied


def write(name, noise, latents, picture, additions=None, prediction=None):
    tensors = {"noise": torch.from_numpy(noise), "latents": latents, "picture": torch.from_numpy(np.array(picture))}
    if additions is not None:
        down, middle, up = additions
        for k, value in enumerate([*down, middle, *up]):
            tensors[f"addition.{k:02}"] = value[-1:].clone()  # of the prompt, not of the negative one
    if prediction is not None:
        tensors["prediction"] = prediction.clone()
    for value in tensors.values():
        assert value.dtype == torch.uint8 or torch.isfinite(value).all()
    path = folder / f"{name}-run.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    print(name, path.stat().st_size, {key: f"{value.float().std():.3f}" for key, value in tensors.items()})


def run_twice(pipe, networks, noise, **options):
    """Run a pipeline, and return the first outputs of its networks, the last latents and the picture."""
    pipe.set_progress_bar_config(disable=True)
    records = [Record(network) for network in networks]
    sigma = pipe.scheduler.init_noise_sigma
    latents = pipe(latents=torch.from_numpy(noise) / 1, output_type="latent", **options).images
    picture = pipe(latents=torch.from_numpy(noise) / 1, output_type="pil", **options).images[0]
    assert sigma == 1
    return [record.output for record in records], latents, picture


# `from_unet` shares the UNet's first offsets with the BrushNet: it gets a copy, so that filling one changes only that
def brushnet(family):
    vae, encoders, tokenizers = make_parts(family)
    config = tiny.SD15_UNET if family == "sd15" else tiny.SDXL_UNET
    unet = tiny.fill(UNet2DConditionModel(**{**config, "in_channels": 4}), f"{family}-unet")
    branch = tiny.fill(BrushNetModel.from_unet(copy.deepcopy(unet)), f"{family}-brushnet")
    scheduler = DDIMScheduler(**{k: v for k, v in tiny.SCHEDULER.items() if k != "skip_prk_steps"})
    if family == "sd15":
        pipe = StableDiffusionBrushNetPipeline(
            vae,
            encoders[0],
            tokenizers[0],
            unet,
            branch,
            UniPCMultistepScheduler.from_config(scheduler.config),
            None,
            None,
            requires_safety_checker=False,
        )
    else:
        pipe = StableDiffusionXLBrushNetPipeline(
            vae,
            *encoders,
            *tokenizers,
            unet,
            branch,
            DPMSolverMultistepScheduler.from_config(scheduler.config),
            add_watermarker=False,
        )
    noise = tiny.draw_noise(SEED)
    _, black, mask = make_pictures()
    (additions, prediction), latents, picture = run_twice(
        pipe,
        [branch, unet],
        noise,
        prompt="an empty street",
        image=black,
        mask=mask,
        negative_prompt="car",
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        brushnet_conditioning_scale=1.0,
    )
    write("brushnet" if family == "sd15" else "brushnet-xl", noise, latents, picture, additions, prediction[0])


def powerpaint():
    import app_tasks
    from powerpaint.pipelines.pipeline_PowerPaint import StableDiffusionInpaintPipeline
    from powerpaint.utils.utils import TokenizerWrapper, add_tokens

    vae, _, _ = make_parts("sd15")
    unet = tiny.fill(UNet2DConditionModel(**tiny.SD15_UNET), "sd15-unet")
    encoder = CLIPTextModel(CLIPTextConfig(**tiny.make_clip_config()))
    tokenizer = TokenizerWrapper(from_pretrained=str(folder / "work" / "sd15-text_encoder"))
    add_tokens(tokenizer, encoder, ["P_ctxt", "P_shape", "P_obj"], ["a", "a", "a"], 10)
    tiny.fill(encoder, "powerpaint-text")
    scheduler = DDIMScheduler(**{k: v for k, v in tiny.SCHEDULER.items() if k != "skip_prk_steps"})
    pipe = StableDiffusionInpaintPipeline(
        vae, encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    source, _, mask = make_pictures()
    noise = tiny.draw_noise(SEED)
    for task, prompt, fitting, guidance in RUNS:
        texts = app_tasks.add_task(prompt, "car", task, "ppt-v1")
        options = dict(zip(("promptA", "promptB", "negative_promptA", "negative_promptB"), texts, strict=True))
        (prediction,), latents, picture = run_twice(
            pipe,
            [unet],
            noise,
            **options,
            tradoff=fitting,
            tradoff_nag=fitting,
            image=source,
            mask=mask,
            width=192,
            height=128,
            guidance_scale=guidance,
            num_inference_steps=STEPS,
        )
        whole = task in (
            "object-removal",
            "shape-guided",
        )  # of the others the prediction tells whether the texts are right
        write(
            f"powerpaint-{task}", noise, latents, picture if whole else picture.resize((1, 1)), prediction=prediction[0]
        )


def powerpaint_v2():
    import app_tasks
    from powerpaint.models.BrushNet_CA import BrushNetModel as BrushNetWithAttention
    from powerpaint.models.unet_2d_condition import UNet2DConditionModel as PowerPaintUnet
    from powerpaint.pipelines.pipeline_PowerPaint_Brushnet_CA import StableDiffusionPowerPaintBrushNetPipeline
    from powerpaint.utils.utils import TokenizerWrapper, add_tokens

    vae, encoders, _ = make_parts("sd15")
    unet = tiny.fill(PowerPaintUnet(**{**tiny.SD15_UNET, "in_channels": 4}), "sd15-unet")
    branch = tiny.fill(BrushNetWithAttention.from_unet(copy.deepcopy(unet)), "sd15-brushnet-ca")
    encoder = CLIPTextModel(CLIPTextConfig(**tiny.make_clip_config()))
    tokenizer = TokenizerWrapper(from_pretrained=str(folder / "work" / "sd15-text_encoder"))
    add_tokens(tokenizer, encoder, ["P_ctxt", "P_shape", "P_obj"], ["a", "a", "a"], 10)
    tiny.fill(encoder, "powerpaint-text")
    scheduler = DDIMScheduler(**{k: v for k, v in tiny.SCHEDULER.items() if k != "skip_prk_steps"})
    pipe = StableDiffusionPowerPaintBrushNetPipeline(
        vae,
        encoders[0],
        encoder,
        tokenizer,
        unet,
        branch,
        UniPCMultistepScheduler.from_config(scheduler.config),
        None,
        None,
        requires_safety_checker=False,
    )
    _, black, mask = make_pictures()
    noise = tiny.draw_noise(SEED)
    texts = app_tasks.add_task("street empty scene blur", "car", "object-removal", "ppt-v2")
    options = dict(zip(("promptA", "promptB", "negative_promptA", "negative_promptB"), texts, strict=True))
    (additions, prediction), latents, picture = run_twice(
        pipe,
        [branch, unet],
        noise,
        **options,
        promptU="street empty scene blur",
        negative_promptU="car",
        tradoff=1.0,
        tradoff_nag=1.0,
        image=black,
        mask=mask,
        num_inference_steps=STEPS,
        brushnet_conditioning_scale=1.0,
        guidance_scale=10.0,
        width=192,
        height=128,
    )
    write("powerpaint-v2", noise, latents, picture, additions, prediction[0])


for name in sys.argv[5:] or ("brushnet", "brushnet-xl", "powerpaint", "powerpaint-v2"):
    {
        "brushnet": lambda: brushnet("sd15"),
        "brushnet-xl": lambda: brushnet("sdxl"),
        "powerpaint": powerpaint,
        "powerpaint-v2": powerpaint_v2,
    }[name]()
