"""Run the authors' own classes of CATDiffusion at tiny size, and keep what they compute.

    python make_catdiffusion_run.py CATDIFFUSION RASURA/tests OUT

CATDIFFUSION is Nnn-s/CATdiffusion at 1cadce5, with einops 0.8, omegaconf 2.4 and patchify 0.2, and torch, diffusers and
transformers of this project. Nothing of it is part of this project. Weights are a formula of their names
(`tests/support/tiny_catdiffusion.py`).

As it was published the code does not run: `stage` is read and never set, its sampler needs a GPU, its paths are those
of one machine. Set or replaced here: `stage`; the sampler's device; the two CLIP models, opened from their own classes
in place of a path; the autoencoder, which is diffusers' (its mode, not a sample); Lightning's module, which is torch's;
libraries that are imported and not used. Pictures have a hole that is grey: the authors shrink the picture before they
hide its hole, we hide it first, so that nothing of the object shows.

OUT/catdiffusion-run.safetensors holds the semantic inpainter's predictions, the reference, the UNet's first prediction,
the last latents and every fourth pixel of the picture of one run of two steps; and losses and gradients of the three
trainings on two pictures. OUT/catdiffusion-shapes.json.gz holds names and shapes of both networks at full size.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

source, tests, out = sys.argv[1:4]
sys.path[:0] = [source, tests]

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from PIL import Image
from safetensors.torch import save_file
from support import tiny_catdiffusion as cat
from support import tiny_diffusion as tiny
from torch import nn
from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionModel

assert all((UNet2DConditionModel, CLIPVisionModel))  # loaded before libraries are replaced below
torch.set_num_threads(1)


class LightningModule(nn.Module):
    device, dtype = torch.device("cpu"), torch.float32


def stub(name, **values):
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(values)


stub("pytorch_lightning", LightningModule=LightningModule)
stub("pytorch_lightning.utilities")
stub("pytorch_lightning.utilities.distributed", rank_zero_only=lambda function: function)
stub("clip")
stub("kornia")
stub("taming")
stub("taming.modules")
stub("taming.modules.vqvae")
stub("taming.modules.vqvae.quantize", VectorQuantizer2=None)

import mldm.ddim
from ldm.models.diffusion.ddpm import DDPM
from ldm.modules.encoders.modules import FrozenCLIPEmbedder, FrozenCLIPVisionEncoder
from mldm import mldm as both
from mldm import mldm_unet_only as unet_only
from mldm.util import masking, patchify_mask
from mldm.vision_fusion.mldm_attention import VisionFusionTransformer
from omegaconf import OmegaConf

STEPS, SEED, SCALE, TIMES = 2, 7, 7.5, (601, 37)
folder = Path(out)
mldm.ddim.DDIMSampler.register_buffer = lambda self, name, value: setattr(self, name, value)


def make_unet(width, multipliers, heads, text, reference):
    return both.MaskUnetModel(
        image_size=32,
        in_channels=9,
        out_channels=4,
        model_channels=width,
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        channel_mult=multipliers,
        num_heads=heads,
        use_spatial_transformer=True,
        transformer_depth=1,
        context_dim=text,
        use_checkpoint=False,
        legacy=False,
        fusion_dim=reference,
    )


def make_fusion(width, layers, heads, hidden, places, label, label_hidden):
    part = {"hidden_act": "quick_gelu", "hidden_size": width, "intermediate_size": hidden}
    config = {
        "use_fp16": False,
        "layer_norm_eps": 1e-5,
        "output_attentions": False,
        "output_hidden_states": False,
        "use_return_dict": False,
        "num_channels": 1,
        **part,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "patch_size": 14,
        "image_size": 14 * round(places**0.5),
        "attention_dropout": 0.0,
        "label_mlp": {
            "hidden_act": "quick_gelu",
            "in_channels": label,
            "intermediate_size": label_hidden,
            "out_channels": width,
        },
        "spatial_mlp": part,
        "global_mlp": part,
    }
    return VisionFusionTransformer(OmegaConf.create(config))


def list_shapes(network):
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def rename(unet):
    """Map the authors' names of a UNet's tensors to diffusers'."""
    names = {f"model.diffusion_model.{name}": name for name in unet.state_dict()}
    return {old: new for new, old in convert_ldm_unet_checkpoint(names, {"layers_per_block": 2}).items()}


class Vae:
    """Diffusers' autoencoder, called as the authors call theirs."""

    def __init__(self):
        self.network = tiny.fill(AutoencoderKL(**tiny.VAE, scaling_factor=0.18215), "sd15-vae")

    def encode(self, pixels):
        return self.network.encode(pixels).latent_dist.mode()

    def decode(self, latents):
        return self.network.decode(latents).sample


def make_text_encoder():
    place = folder / "work" / "sd15-text_encoder"
    if not place.is_dir():
        tiny.write_tokenizer(place)
    encoder = FrozenCLIPEmbedder.__new__(FrozenCLIPEmbedder)
    nn.Module.__init__(encoder)
    encoder.tokenizer = CLIPTokenizer.from_pretrained(place)
    encoder.transformer = tiny.fill(CLIPTextModel(CLIPTextConfig(**tiny.make_clip_config())), "sd15-text_encoder")
    encoder.device, encoder.max_length, encoder.layer, encoder.layer_idx = "cpu", 77, "last", None
    return encoder


def make_vision_encoder():
    encoder = FrozenCLIPVisionEncoder.__new__(FrozenCLIPVisionEncoder)
    nn.Module.__init__(encoder)
    processor = CLIPImageProcessor()  # `padding` is an argument of older ones, and does nothing at one size
    encoder.processor = lambda images, return_tensors, padding: processor(images, return_tensors=return_tensors)
    encoder.encoder = cat.fill_vision()
    encoder.device, encoder.layer, encoder.layer_idx = "cpu", "last_and_pool", None
    return encoder


class Model(both.MaskLDM):
    def __init__(self):
        nn.Module.__init__(self)
        self.parameterization, self.loss_type, self.v_posterior = "eps", "l2", 0.0
        self.l_simple_weight, self.original_elbo_weight, self.learn_logvar = 1.0, 0.0, False
        DDPM.register_schedule(self, linear_start=0.00085, linear_end=0.012)
        self.logvar = torch.zeros(1000)
        self.first_stage_key, self.cond_stage_key, self.scale_factor = "jpg", "txt", 0.18215
        self.cond_stage_trainable, self.cond_stage_forward, self.use_positional_encodings = False, None, False
        unet = make_unet(32, [1, 1, 2, 2], 2, tiny.WIDTH, cat.WIDTH)
        names = rename(unet)
        weights = tiny.make_weights({names[n]: s for n, s in list_shapes(unet).items()}, "adapted-unet")
        unet.load_state_dict({name: torch.from_numpy(weights[new].copy()) for name, new in names.items()})
        for module in unet.modules():  # their checkpointing does not give single gradients
            if hasattr(module, "checkpoint"):
                module.checkpoint = False
        self.model = nn.Module()
        self.model.diffusion_model, self.model.conditioning_key = unet, "crossattn"
        self.fusion_model = tiny.fill(make_fusion(**cat.INPAINTER), "semantic-inpainter")
        self.first_stage_model = Vae()
        self.cond_stage_model, self.cond_stage_model2 = make_text_encoder(), make_vision_encoder()
        self.batch_size, self.eta, self.scale, self.ddim_steps = 1, 0.0, SCALE, STEPS
        self.set_stage(2)

    def set_stage(self, stage):
        self.stage = self.fusion_model.stage = stage


def make_batch(numbers, training):
    """Prepare pictures as the authors' dataset does, for inference or for training."""
    rows = []
    for number in numbers:
        picture, hole = cat.make_picture(number)
        image, mask = Image.fromarray(picture), Image.fromarray(hole.astype(np.uint8) * 255)
        small, small_mask = image.resize((224, 224)), mask.resize((224, 224))
        mask_64 = np.array(mask.resize((64, 64))) / 255.0
        if training:
            mask_64[mask_64 > 0.0] = 1.0
        else:
            mask_64[mask_64 > 0.5] = 1.0
            mask_64[mask_64 < 0.5] = 0.0
        rows.append(
            {
                "jpg": np.array(image) / 127.5 - 1.0,
                "mask_64": mask_64,
                "image_crop_224": np.array(small),
                "masked_image_512": masking(image, mask, return_pil=False) / 127.5 - 1.0,
                "masked_image_224": np.array(masking(small, small_mask)),
                "mask_aug16": patchify_mask(np.array(small_mask)),
            }
        )
    batch = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}
    labels = ["a cat", "dog"][: len(rows)]
    return {**batch, "txt": labels, "mask_filename": [f"{k}.png" for k in range(len(rows))]}


def run(model, tensors):
    calls = []
    noise = torch.from_numpy(tiny.draw_noise(SEED, cat.SIDE, cat.SIDE))
    original = torch.randn
    fusion = model.fusion_model.register_forward_hook(lambda m, i, output: tensors.update(reference=output[0]))
    unet = model.model.diffusion_model.register_forward_hook(lambda m, i, output: calls.append(output))
    decode = model.decode_first_stage
    model.decode_first_stage = lambda latents: (tensors.update(latents=latents), decode(latents))[1]
    torch.randn = lambda *shape, **options: noise.clone() if 4 in tuple(*shape) else original(*shape, **options)
    model.eval()
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        model.root_dir = place
        for name in ("image", "text"):
            (Path(place) / name).mkdir()
        (picture,) = model.test_step(make_batch([0], training=False), 0)
        assert np.array_equal(cv2.imread(f"{place}/image/0.png")[..., ::-1], picture)
    torch.randn = original
    fusion.remove()
    unet.remove()
    del model.decode_first_stage
    assert len(calls) == 2 * STEPS
    tensors |= {"prediction": calls[0], "picture": torch.from_numpy(picture[::4, ::4].copy())}


def train(model, tensors):
    batch = make_batch([0, 1], training=True)
    times = torch.tensor(TIMES)
    noise = torch.cat([torch.from_numpy(tiny.draw_noise(seed, cat.SIDE, cat.SIDE)) for seed in (11, 12)])
    inpainter = "embeddings.mask_embedding.weight", model.fusion_model.embeddings.mask_embedding.weight
    middle = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    adapter = "adapter", middle.attn3.to_k.weight

    def keep(name, loss, *parameters):
        tensors[f"{name}.loss"] = loss.detach()
        for label, parameter in parameters:
            (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True)
            assert gradient.abs().max() > 0
            tensors[f"{name}.{label}"] = gradient

    model.set_stage(1)
    _, condition = both.MaskLDM.get_input(model, batch, "jpg")
    record = model.fusion_model.register_forward_hook(
        lambda m, i, output: tensors.update(predicted=output[0][:1], pooled=output[1])
    )
    loss, parts = both.MaskLDM.p_losses(model, None, condition, None)
    record.remove()
    tensors |= {"1-inpainter.spatial": parts["val/spatial_loss"].detach()}
    keep("1-inpainter", loss, inpainter)

    model.set_stage(2)
    with torch.no_grad():
        latents, condition = both.MaskLDM.get_input(model, batch, "jpg")
    loss, _ = unet_only.MaskLDM.p_losses(model, latents, {**condition, "fusion_out": [None]}, times, noise)
    keep("1-adapter", loss, adapter)
    loss, _ = both.MaskLDM.p_losses(model, latents, {**condition, "fusion_out": [None]}, times, noise)
    keep("2-all", loss, inpainter, adapter)
    with torch.no_grad():
        empty = model.get_learned_conditioning([""] * 2)
    dropped = {"fusion_out": [(torch.zeros(2, 64, cat.WIDTH),)], "cond_prompt": [empty]}
    loss, _ = both.MaskLDM.p_losses(model, latents, {**condition, **dropped}, times, noise)
    keep("dropped", loss)


model, tensors = Model(), {}
run(model, tensors)
train(model, tensors)
for name, value in tensors.items():
    assert value.dtype == torch.uint8 or torch.isfinite(value).all()
    print(name, tuple(value.shape), f"{value.float().mean():.4f} {value.float().std():.4f}")
path = folder / "catdiffusion-run.safetensors"
save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, path)

with torch.device("meta"):
    networks = SimpleNamespace(
        unet=make_unet(320, [1, 2, 4, 4], 8, 768, 1024), fusion=make_fusion(1024, 24, 16, 4096, 256, 768, 3072)
    )
shapes = {f"model.diffusion_model.{name}": shape for name, shape in list_shapes(networks.unet).items()}
shapes |= {f"fusion_model.{name}": shape for name, shape in list_shapes(networks.fusion).items()}
data = json.dumps(shapes, separators=(",", ":"), sort_keys=True).encode()
(folder / "catdiffusion-shapes.json.gz").write_bytes(gzip.compress(data, mtime=0))
print(path.stat().st_size, (folder / "catdiffusion-shapes.json.gz").stat().st_size, len(shapes))
