"""Run the authors' own classes of Moebius at tiny size, and keep what they compute.

    python make_moebius_run.py MOEBIUS RASURA/tests OUT

MOEBIUS is hustvl/Moebius at 390735d, with diffusers, timm and einops. Nothing of it is part of this project. Weights
are a formula of their names (`tests/support/tiny_diffusion.py`); everything is computed on a CPU in float32.

OUT/moebius-run.safetensors holds one pass with the last ten embeddings (`x` at time 500 -> `one`), and four steps of
their guidance 2.5 from pure noise (`noise`, `hole`, `source` -> `denoised`). Its metadata hold the sha256 of the names
and shapes of the published network (`config/model_cfg/moebius.yaml`), a line each, in the order of the names.

`model_lib/__init__.py` and `removal/v1_2/__init__.py` were emptied: they import a library that needs a GPU.
"""

import hashlib
import sys
from pathlib import Path

source, tests, out = sys.argv[1:4]
sys.path[:0] = [source, tests]

import torch
from diffusers import DDIMScheduler
from model_lib.nets.unet_lambda_prune_lite import UNet2DLambdaDWConvMixFFNConditionModel_prune_down_mid_up_block_8x8
from removal.v1_2.removal_model import RemovalModel
from safetensors.torch import save_file
from support import tiny_diffusion as tiny
from utils_infer import predict_noise

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def build(side, widths, heads, cross, hidden, groups):
    network = UNet2DLambdaDWConvMixFFNConditionModel_prune_down_mid_up_block_8x8(
        sample_size=side,
        in_channels=9,
        out_channels=4,
        attention_head_dim=heads,
        cross_attention_dim=cross,
        encoder_hid_dim=hidden,
        encoder_hid_dim_type="text_proj",
        projection_class_embeddings_input_dim=2560,
        use_lambda_cross_attn=True,
        use_local_self_attn=True,
        down_block_types=("DWMixTFDownBlock2D",) * 3,
        mid_block_type=None,
        up_block_types=("DWMixTFUpBlock2D",) * 3,
        block_out_channels=widths,
        norm_num_groups=groups,
        num_embeddings=20,
        mix_mlp_ratio=2.5,
    )
    return RemovalModel(network, 20, hidden)


with torch.device("meta"):
    full = build(64, (320, 640, 1280), 8, 768, 3072, 32)
lines = sorted(f"{name} {tuple(value.shape)}" for name, value in full.state_dict().items())
digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
model = tiny.fill(build(8, (8, 16, 16), 2, 16, 24, 4), "moebius")
generator = torch.Generator().manual_seed(11)
x = torch.randn(2, 9, 8, 8, generator=generator)
noise = torch.randn(1, 4, 8, 8, generator=generator)
picture = torch.randn(1, 4, 8, 8, generator=generator)
hole = torch.zeros(1, 1, 8, 8)
hole[..., 2:6, 1:5] = 1
foreground = torch.arange(10, 20)[None].repeat(2, 1)
one = model(x, torch.tensor(500), foreground).sample
scheduler = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False
)
scheduler.set_timesteps(4)
ids = torch.stack([torch.arange(10, 20), torch.arange(10)])
latents = noise
for time in scheduler.timesteps:
    predicted = predict_noise(model, latents, hole, picture, time[None], ids, 2.5)
    latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
tensors = {"x": x, "one": one, "noise": noise, "hole": hole, "source": picture, "denoised": latents}
assert all(torch.isfinite(value).all() for value in tensors.values())
path = Path(out) / "moebius-run.safetensors"
save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"full size": digest})
print(path.stat().st_size, {name: f"{value.std():.3f}" for name, value in tensors.items()}, len(lines))
