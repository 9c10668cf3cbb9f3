"""PixelHacker: its recurrence, its network and its guidance are the authors', at tiny and at full size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rasura.manifests.errors import WeightsError

pytestmark = pytest.mark.torch
RUN = Path(__file__).parents[1] / "data" / "network_runs" / "pixelhacker-run.safetensors"
"""One run of the authors' classes with random weights, the recurrence token by token, made on a CPU in float32 outside
of this project: one pass with the last ten embeddings (`x`, time 500 -> `one`), and four steps of their pipeline's
guidance 4.5."""
CONFIG = {
    "sample_size": 8,
    "in_channels": 9,
    "out_channels": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "encoder_hid_dim": 24,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "norm_num_groups": 4,
}


def load_run():
    from safetensors.torch import load_file

    run = load_file(RUN)
    weights = {name.removeprefix("weights."): run.pop(name) for name in list(run) if name.startswith("weights.")}
    return run, weights


def write_model(folder, form="safetensors"):
    """Write a tiny model as published, with a configuration beside it since it is tiny."""
    import torch
    from safetensors.torch import save_file

    from tests.support.tiny_models import vae

    _, weights = load_run()
    (folder / "pretrained").mkdir(parents=True)
    if form == "safetensors":
        save_file(weights, folder / "pretrained" / "diffusion_pytorch_model.safetensors")
    else:
        torch.save(weights, folder / "pretrained" / "diffusion_pytorch_model.bin")
    (folder / "pretrained" / "config.json").write_text(json.dumps(CONFIG))
    vae().save_pretrained(folder / "vae")
    return folder


def open_model(folder, **options):
    from rasura.removers.diffusion.pixelhacker import OPTIONS, pixelhacker
    from rasura.removers.diffusion.remover import Files

    remover = pixelhacker("pixelhacker", Files(folder), replace(OPTIONS, device="cpu", **options))
    assert all(path.is_file() for path in remover.weights().values())
    remover.setup()
    return remover


@pytest.mark.parametrize("strength", [1, 30])
@pytest.mark.parametrize("tokens", [1, 16, 50, 4096])
def test_chunks_give_what_the_recurrence_gives_token_by_token(tokens, strength):
    import torch

    from rasura.networks.inpainting.gated_linear_attention import attend_with_gates

    generator = torch.Generator().manual_seed(tokens)
    queries, keys, gates = (torch.randn(1, 2, tokens, 6, generator=generator) for _ in range(3))
    values = torch.randn(1, 2, tokens, 10, generator=generator)
    log_gates = torch.nn.functional.logsigmoid(gates * strength) / 16
    state = torch.zeros(1, 2, 6, 10, dtype=torch.double)
    expected = []
    for t in range(tokens):
        state = log_gates[:, :, t].double().exp()[..., None] * state
        state = state + (keys[:, :, t, :, None] * values[:, :, t, None]).double()
        expected.append(torch.einsum("nhk,nhkv->nhv", queries[:, :, t].double() / 6**0.5, state))
    expected = torch.stack(expected, 2)
    result = attend_with_gates(queries, keys, values, log_gates)
    assert float((result - expected).norm() / expected.norm()) <= 1e-6


def test_the_network_has_the_published_tensors_at_full_size():
    from rasura.removers.diffusion.pixelhacker import UNET, build_unet

    unet = build_unet(UNET)
    shapes = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    block = "down_blocks.{}.attentions.0.transformer_blocks.0.attn1."
    assert len(shapes) + 1 == 753  # with the embeddings
    assert sum(parameter.numel() for parameter in unet.parameters()) + 20 * 3072 == 862_251_708
    assert shapes["conv_in.weight"] == (320, 9, 3, 3)
    assert shapes["encoder_hid_proj.weight"] == (768, 3072)
    for level, (width, values) in enumerate([(320, 40), (640, 80), (1280, 160)]):
        names = {
            "q_proj.weight": (width // 2, width),
            "k_proj.weight": (width // 2, width),
            "v_proj.weight": (width, width),
            "g_proj.weight": (width, width),
            "gk_proj.0.weight": (16, width),
            "gk_proj.1.weight": (width // 2, 16),
            "gk_proj.1.bias": (width // 2,),
            "o_proj.weight": (width, width),
            "g_norm_swish_gate.weight": (values,),
        }
        prefix = block.format(level)
        assert {name.removeprefix(prefix): shapes[name] for name in shapes if name.startswith(prefix)} == names


def test_one_pass_and_four_guided_steps_are_those_of_the_authors(tmp_path):
    import torch

    from rasura.removers.diffusion.loop import denoise

    run, weights = load_run()
    remover = open_model(write_model(tmp_path), guidance=4.5, steps=4)
    with torch.inference_mode():
        hidden = weights["embedding_layer.weight"][10:][None].repeat(2, 1, 1)
        one = remover.parts.unet(run["x"], torch.tensor(500), encoder_hidden_states=hidden, return_dict=False)[0]
        assert float((one - run["one"]).abs().max()) <= 1e-4
        remover.parts.scheduler.set_timesteps(4)
        latents = denoise(remover.parts, remover.options, run["noise"], run["hole"], run["source"], [])
    assert float((latents - run["denoised"]).abs().max()) <= 1e-4


def test_guidance_leads_towards_the_background(tmp_path):
    """At guidance 1 the foreground's embeddings do nothing at all; above, exchanging the two changes the fill."""
    import torch

    folder = write_model(tmp_path)
    fills = {}
    for guidance in (1.0, 4.5):
        for change in ("none", "foreground", "background"):
            remover = open_model(folder, guidance=guidance, steps=2, size=64)
            tokens = remover.parts.conditioning
            changed = {"foreground": "negative_tokens", "background": "tokens"}.get(change)
            if changed:
                tokens = replace(tokens, **{changed: torch.zeros_like(getattr(tokens, changed))})
            remover.conditionings[remover.texts[0]] = tokens
            rng = np.random.default_rng(1)
            hole = np.zeros((64, 64), bool)
            hole[20:40, 16:44] = True
            picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
            fills[guidance, change] = remover.fill([picture], [hole], [3])[0]
    assert (fills[1.0, "none"] == fills[1.0, "foreground"]).all()
    assert (fills[1.0, "none"] != fills[1.0, "background"]).any()
    assert (fills[4.5, "none"] != fills[4.5, "foreground"]).any()


def test_a_pickle_gives_the_same_and_nothing_of_the_hole_shows(tmp_path):
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(3)]
    hole = np.zeros((64, 64), bool)
    hole[8:40, 16:44] = True
    changed = [np.where(hole[..., None], 255 - picture, picture).astype(np.uint8) for picture in pictures]
    first = open_model(write_model(tmp_path / "a"), steps=2, size=64, batch=2)
    second = open_model(write_model(tmp_path / "b", "pickle"), steps=2, size=64, batch=2)
    fills = first.fill(pictures, [hole] * 3, [1, 2, 3])
    assert all((a == b).all() for a, b in zip(fills, second.fill(changed, [hole] * 3, [1, 2, 3]), strict=True))
    assert (first.fill([pictures[2]], [hole], [3])[0] == fills[2]).all()


def test_other_files_and_parts_are_refused(tmp_path):
    import torch
    from safetensors.torch import save_file

    from rasura.removers.diffusion.pixelhacker import pixelhacker
    from rasura.removers.diffusion.remover import Files

    folder = write_model(tmp_path)
    with pytest.raises(ValueError, match="PixelHacker, which has no lora"):
        pixelhacker("mine", Files(folder, lora=folder))
    file = folder / "pretrained" / "diffusion_pytorch_model.safetensors"
    save_file({"diff_model.conv_in.weight": torch.zeros(2)}, file)
    with pytest.raises(WeightsError, match="no PixelHacker"):
        open_model(folder)
    file.unlink()
    with pytest.raises(WeightsError, match="one file of weights"):
        open_model(folder)
