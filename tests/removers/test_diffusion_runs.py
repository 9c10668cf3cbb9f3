"""BrushNet and PowerPaint against their authors' own classes, whose runs at tiny size are kept as data.

The data were written by `tests/data/network_runs/make_diffusion_runs.py`, outside this project; the weights are a
formula of their names.
"""

from pathlib import Path

import numpy as np
import pytest
from support import tiny_diffusion as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file

from rasura.networks.pca_codec import decode_latents, encode_pixels
from rasura.removers.diffusion import brushnet, loop, powerpaint
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.remover import Files

torch.set_num_threads(1)
# diffusers' own schedulers against numpy 2
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
RUNS = Path(__file__).parents[1] / "data" / "network_runs"
STEPS = 4
GREY = 1.0
NETWORK = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases and weights in the layouts of the published files."""
    place = tmp_path_factory.mktemp("diffusion")
    tiny.write_base(place / "sd15-inpainting", "sd15", 9)
    tiny.write_base(place / "sd15", "sd15", 4)
    tiny.write_base(place / "sdxl", "sdxl", 4)
    for name, config, has_attention in (
        ("sd15-brushnet", tiny.SD15_UNET, False),
        ("sdxl-brushnet", tiny.SDXL_UNET, False),
        ("sd15-brushnet-ca", tiny.SD15_UNET, True),
    ):
        from rasura.networks.inpainting.brushnet import BrushNet

        tensors = tiny.fill(BrushNet(config, has_attention), name).state_dict()
        save_file(tensors, place / f"{name}.safetensors")
    weights = tiny.make_weights(tiny.task_encoder_shapes(), "powerpaint-text")
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, place / "pytorch_model.bin")
    return place


def run_all(remover, noise):
    """Run a remover from these first latents; return the first prediction, the last latents and the picture."""
    parts, options = remover.parts, remover.options
    picture, hole = tiny.make_scene()
    predictions = []
    handle = parts.unet.register_forward_hook(lambda module, inputs, output: predictions.append(output[0]))
    with torch.inference_mode():
        pixels = loop.to_tensor([picture], parts.device, parts.dtype)
        mask = torch.from_numpy(hole[None, None]).float()
        source = encode_pixels(parts.vae, loop.hide_hole(pixels, mask, pixels, options.source))
        parts.scheduler.set_timesteps(options.steps)
        latents = loop.denoise(parts, options, noise, loop.resize_hole(mask, source.shape[2:]), source, [])
        (result,) = loop.to_pictures(decode_latents(parts.vae, latents))
    handle.remove()
    return predictions[0], latents, result


def check_run(remover, name):
    """Assert that a remover computes what is kept of the authors' run; return their file."""
    remover.weights()
    remover.setup()
    run = load_file(RUNS / f"{name}-run.safetensors")
    prediction, latents, picture = run_all(remover, run["noise"])
    assert prediction.shape == run["prediction"].shape
    assert run["prediction"].std() > 0.1
    assert (prediction - run["prediction"]).abs().max() <= NETWORK
    assert (latents - run["latents"]).abs().max() <= 1e-3 * run["latents"].abs().max()
    if run["picture"].shape[0] > 1:
        difference = np.abs(picture.astype(int) - run["picture"].numpy())
        assert run["picture"].float().std() > 20
        assert difference.max() <= GREY
    return run


def check_additions(remover, run, count):
    """Assert that each addition of the first step is the authors', for the prompt's row."""
    parts = remover.parts
    picture, hole = tiny.make_scene()
    with torch.inference_mode():
        pixels, mask = loop.to_tensor([picture], "cpu", torch.float32), torch.from_numpy(hole[None, None]).float()
        source = encode_pixels(parts.vae, loop.hide_hole(pixels, mask, pixels, "black"))
        parts.scheduler.set_timesteps(STEPS)
        inputs = torch.cat([run["noise"], source, 1 - loop.resize_hole(mask, source.shape[2:])], dim=1)
        arguments = loop.condition_unet(parts, parts.conditioning.tokens, False, source.shape[2:])
        text = arguments["encoder_hidden_states"].chunk(2, dim=1)[1]
        additions = parts.unet.brushnet(inputs, parts.scheduler.timesteps[0], text, arguments.get("added_cond_kwargs"))
    assert len(additions) == count
    for k, addition in enumerate(additions):
        theirs = run[f"addition.{k:02}"]
        assert addition.shape == theirs.shape
        assert theirs.abs().max() > 0.1
        assert (addition - theirs).abs().max() <= NETWORK


@pytest.mark.parametrize(("family", "count"), [("sd15", 28), ("sdxl", 21)])
def test_brushnet_is_its_authors(folder, family, count):
    """Each of the 28 (Stable Diffusion 1.5) or 21 (SDXL) additions, the prediction with them, the last latents and the
    picture are those of the authors' `BrushNetModel` and pipeline with the same scheduler."""
    create, defaults, name = (
        (brushnet.brushnet, brushnet.OPTIONS, "brushnet")
        if family == "sd15"
        else (brushnet.brushnet_xl, brushnet.XL_OPTIONS, "brushnet-xl")
    )
    options = Options(**{**vars(defaults), "size": 128, "steps": STEPS, "prompt": "an empty street", "negative": "car"})
    remover = create(name, Files(folder / family, brushnet=folder / f"{family}-brushnet.safetensors"), options)
    run = check_run(remover, name)
    check_additions(remover, run, count)


@pytest.mark.parametrize(
    ("task", "prompt", "fitting", "guidance"),
    [
        ("object-removal", "street", 1.0, 10.0),
        ("image-outpainting", "", 1.0, 10.0),
        ("shape-guided", "a cat", 0.7, 7.5),
        ("text-guided", "a cat", 1.0, 7.5),
    ],
)
def test_powerpaint_is_its_authors(folder, task, prompt, fitting, guidance):
    """For each task the texts, the learned words, the fitting degree and the guidance give the authors' prediction and
    latents, and for two of them the picture; the text encoder is read as released, from a pickle of tensors."""
    options = Options(
        **{**vars(powerpaint.OPTIONS), "size": 128, "steps": STEPS, "task": task, "prompt": prompt, "negative": "car"}
        | {"fitting": fitting, "guidance": guidance}
    )
    files = Files(folder / "sd15-inpainting", text_encoder=folder / "pytorch_model.bin")
    check_run(powerpaint.powerpaint("powerpaint", files, options), f"powerpaint-{task}")


def test_the_second_powerpaint_is_its_authors(folder):
    """The BrushNet with attentions reads the task's words by its own encoder while the base reads the prompt: each of
    the 28 additions, the prediction, the last latents and the picture are the authors'."""
    options = Options(
        **{**vars(powerpaint.SECOND_OPTIONS), "size": 128, "steps": STEPS, "prompt": "street", "negative": "car"}
    )
    files = Files(
        folder / "sd15",
        brushnet=folder / "sd15-brushnet-ca.safetensors",
        text_encoder=folder / "pytorch_model.bin",
    )
    remover = powerpaint.powerpaint_v2("powerpaint-v2", files, options)
    run = check_run(remover, "powerpaint-v2")
    check_additions(remover, run, 28)
