"""Moebius: its network and its guidance are the authors', at tiny and at full size."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny_diffusion as tiny
from support.all_removers import write_moebius

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rasura.manifests.errors import WeightsError
from rasura.removers.diffusion import moebius
from rasura.removers.diffusion.loop import denoise
from rasura.removers.diffusion.remover import Files

torch.set_num_threads(1)
pytestmark = pytest.mark.torch
RUN = Path(__file__).parents[1] / "data" / "network_runs" / "moebius-run.safetensors"
"""One run of the authors' classes; `make_moebius_run.py` beside it says how."""


def open_model(folder, **options):
    settings = {"device": "cpu", "size": 64, "steps": 4, **options}
    remover = moebius.moebius("moebius", Files(folder), replace(moebius.OPTIONS, **settings))
    assert all(path.is_file() for path in remover.weights().values())
    remover.setup()
    return remover


def test_one_pass_and_four_guided_steps_are_those_of_the_authors(tmp_path):
    run = load_file(RUN)
    remover = open_model(write_moebius(tmp_path), guidance=2.5)
    parts = remover.parts
    with torch.inference_mode():
        foreground = parts.conditioning.negative_tokens.expand(2, -1, -1)
        one = parts.unet(run["x"], torch.tensor(500), encoder_hidden_states=foreground, return_dict=False)[0]
        assert (one - run["one"]).abs().max() <= 1e-5
        parts.scheduler.set_timesteps(4)
        latents = denoise(parts, remover.options, run["noise"], run["hole"], run["source"], [])
    assert (latents - run["denoised"]).abs().max() <= 1e-4


def test_the_published_network_fits_at_full_size():
    """Names and shapes are those of the authors' class at full size, 226 million parameters."""
    unet = moebius.build_unet(moebius.UNET)
    shapes = {f"diff_model.{name}": tuple(value.shape) for name, value in unet.state_dict().items()}
    shapes["embedding_layer.weight"] = (20, 3072)
    lines = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    with safe_open(RUN, "pt") as file:
        assert hashlib.sha256(lines.encode()).hexdigest() == file.metadata()["full size"]
    parameters = sum(value.numel() for value in unet.parameters()) + 20 * 3072
    assert (len(shapes), parameters) == (1203, 226_041_531)
    assert moebius.CAPABILITY.parameters == parameters + 83_653_863


def test_the_hole_is_filled_without_the_object(tmp_path):
    """What is in the hole changes no bit of the fill, which depends on its own seed and on what guides it alone."""
    folder = write_moebius(tmp_path)
    remover = open_model(folder, batch=2)
    scenes = [tiny.make_grainy_scene(k) for k in range(3)]
    pictures, holes = [scene[0] for scene in scenes], [scene[1] for scene in scenes]
    changed = [
        np.where(hole[..., None], 255 - picture, picture).astype(np.uint8)
        for picture, hole in zip(pictures, holes, strict=True)
    ]
    fills = remover.fill(pictures, holes, [1, 2, 3])
    assert all(np.array_equal(a, b) for a, b in zip(fills, remover.fill(changed, holes, [1, 2, 3]), strict=True))
    assert np.array_equal(remover.fill([pictures[2]], [holes[2]], [3])[0], fills[2])
    assert (fills[0] != pictures[0])[holes[0]].mean() > 0.9
    assert not np.array_equal(open_model(folder, batch=2, guidance=1.0).fill(pictures, holes, [1, 2, 3])[0], fills[0])


def test_other_files_sizes_and_parts_are_refused(tmp_path):
    folder = write_moebius(tmp_path)
    with pytest.raises(WeightsError, match="works at 64 px alone, not 128"):
        open_model(folder, size=128)
    with pytest.raises(ValueError, match="is Moebius, which has no lora"):
        moebius.moebius("mine", Files(folder, lora=folder))
    file = folder / "pretrained" / "diffusion_pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    file.unlink()
    save_file(weights, file.with_suffix(".safetensors"))
    open_model(folder)
    weights.pop("diff_model.conv_in.bn1.running_var")
    save_file(weights, file.with_suffix(".safetensors"))
    with pytest.raises(WeightsError, match=r"lacks 'conv_in\.bn1\.running_var'"):
        open_model(folder)
    save_file({"diff_model.conv_in.weight": torch.zeros(2)}, file.with_suffix(".safetensors"))
    with pytest.raises(WeightsError, match="is no Moebius: it lacks"):
        open_model(folder)
