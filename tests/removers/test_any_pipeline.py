"""Pipelines of diffusers by their names: white is the hole, the object does not leak, and faults are one sentence."""

import json
import shutil

import numpy as np
import pytest
from support import tiny_diffusion as tiny
from support import tiny_pipelines

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from rasura.manifests.errors import WeightsError
from rasura.removers.base import Remover
from rasura.removers.registry import ModelParams, check_removers, open_remover

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SIZE = 64
PIPELINES = (
    "StableDiffusionInpaintPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusion3InpaintPipeline",
    "FluxFillPipeline",
    "QwenImageInpaintPipeline",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("pipelines")
    return {name: tiny_pipelines.write_pipeline(place / name, name) for name in PIPELINES}


def open_one(folder, pipeline, **values):
    settings = {"size": SIZE, "steps": 2, "device": "cpu", "base": str(folder), "pipeline": pipeline, **values}
    remover = open_remover("mine", {"mine": ModelParams(kind="diffusers", **settings)})
    assert all(path.is_file() for path in remover.weights().values())
    remover.setup()
    return remover


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_hole_is_filled_and_the_object_does_not_leak(folders, pipeline):
    """The mask is white in the hole: all of it is filled and nothing else, at a size that is not the network's. What is
    in the hole changes no bit of the fill, from pure noise and from a part of the steps; a row depends on its own seed
    alone, and torch's own random state does nothing."""
    remover = open_one(folders[pipeline], pipeline)
    assert isinstance(remover, Remover)
    tiny.check_hole_alone_changes(remover)

    scenes = [tiny.make_grainy_scene(k) for k in range(3)]
    pictures, holes = [scene[0] for scene in scenes], [scene[1] for scene in scenes]
    hidden = [
        np.where(hole[..., None], 255 - one, one).astype(np.uint8) for one, hole in zip(pictures, holes, strict=True)
    ]
    torch.manual_seed(1)
    together = remover.fill(pictures, holes, [1, 2, 3])
    torch.manual_seed(2)
    alone = [remover.fill([one], [hole], [seed])[0] for one, hole, seed in zip(hidden, holes, (1, 2, 3), strict=True)]
    assert all(np.array_equal(first, second) for first, second in zip(together, alone, strict=True))
    assert not np.array_equal(remover.fill(pictures[:1], holes[:1], [9])[0], together[0])
    partly = open_one(folders[pipeline], pipeline, strength=0.5, steps=4)
    first, second = (partly.fill([one], holes[:1], [1])[0] for one in (pictures[0], hidden[0]))
    assert np.array_equal(first, second)
    whole = open_one(folders[pipeline], pipeline, strength=0.5, steps=4, source="whole")
    first, second = (whole.fill([one], holes[:1], [1])[0] for one in (pictures[0], hidden[0]))
    assert not np.array_equal(first, second)  # so the comparison above can fail


def test_the_pipeline_gets_white_in_the_hole_and_its_own_options(folders, monkeypatch):
    """What reaches the call: the mask, the picture without the object, the options that its signature has, and a
    generator with the row's seed; its result is what the pipeline alone computes for them."""
    from PIL import Image

    name = "StableDiffusionXLInpaintPipeline"
    remover = open_one(folders[name], name, guidance=3, prompt="abc", negative="d", arguments={"eta": 0.5})
    calls, call = [], type(remover.pipe).__call__

    def keep(pipe, **given):
        calls.append(dict(given))
        return call(pipe, **given)

    monkeypatch.setattr(type(remover.pipe), "__call__", keep)
    picture, hole = tiny.make_grainy_scene()
    fill = remover.fill([picture], [hole], [5])[0]
    (given,) = calls
    assert np.array_equal(np.asarray(given.pop("mask_image")), np.where(hole, 255, 0))
    seen = np.asarray(given.pop("image"))
    assert np.array_equal(seen[~hole], picture[~hole])
    assert given.pop("generator").initial_seed() == 5
    wanted = {"num_inference_steps": 2, "guidance_scale": 3, "prompt": "abc", "negative_prompt": "d", "strength": 1.0}
    assert given.pop("output_type") == "np"  # values, of which one that is no number is refused
    assert given == wanted | {"eta": 0.5, "height": SIZE, "width": SIZE}
    mask = Image.fromarray(np.where(hole, 255, 0).astype(np.uint8))
    theirs = call(remover.pipe, image=Image.fromarray(seen), mask_image=mask, generator=torch.manual_seed(5), **given)
    assert np.array_equal(np.asarray(theirs.images[0]), fill)


def change_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_faults_are_one_sentence_before_anything_is_loaded(folders, tmp_path, monkeypatch):
    """Not installed, unknown (with the nearest), no inpainting, another system, a component too few, code of a hub,
    pickles, a tensor too few, an option that the pipeline does not have or that would do nothing."""
    stable, fill, third = folders[PIPELINES[0]], folders["FluxFillPipeline"], folders["StableDiffusion3InpaintPipeline"]

    def check(match, folder, pipeline, kind=WeightsError, **values):
        with pytest.raises(kind, match=match) as caught:
            open_one(folder, pipeline, **values)
        assert "\n" not in str(caught.value)

    check("no pipeline 'FluxFilPipeline'; did you mean 'FluxFillPipeline'", fill, "FluxFilPipeline")
    check("does not inpaint: its call takes no image and no mask_image", third, "StableDiffusion3Pipeline")
    check("holds a StableDiffusion3Pipeline, which is not of the system", third, "FluxFillPipeline")
    check("holds a FluxFillPipeline, which is not of the system of FluxInpaint", fill, "FluxInpaintPipeline")
    check("has no model_index.json", stable / "unet", PIPELINES[0])
    check("takes no `negative_prompt`; leave `negative` out", fill, "FluxFillPipeline", ValueError, negative="a car")
    check("`arguments: eta` is none of", fill, "FluxFillPipeline", ValueError, arguments={"eta": 1.0})
    reserved = {"num_images_per_prompt": 2}
    check("has a key of its own, or is set", fill, "FluxFillPipeline", ValueError, arguments=reserved)
    with pytest.raises(ValueError, match="diffusers has no `revision`"):
        check_removers(["mine"], {"mine": ModelParams(kind="diffusers", base="a/b", revision="0" * 40, pipeline="X")})
    with pytest.raises(ValueError, match="diffusers needs `pipeline`"):
        check_removers(["mine"], {"mine": ModelParams(kind="diffusers", base="x")})

    def copy(**entries):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        folder = shutil.copytree(stable, tmp_path / "copy")
        change_index(folder, **entries)
        return folder

    check("lacks the component 'text_encoder'", copy(text_encoder=[None, None]), PIPELINES[0])
    check("is my_code.Unet, which is not part of diffusers", copy(unet=["my_code", "Unet"]), PIPELINES[0])
    check("names no pipeline of diffusers", copy(_class_name=["mine", "Pipeline"]), PIPELINES[0])
    folder = copy()
    shutil.rmtree(folder / "vae")
    check("lacks its component 'vae' \\(AutoencoderKL\\): there is no folder", folder, PIPELINES[0])
    folder = copy()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    check("no .safetensors in .*are pickles and not read", folder, PIPELINES[0])
    for part, file in (("unet", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")):
        from safetensors.torch import load_file, save_file

        folder = copy()
        tensors = load_file(folder / part / file)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, folder / part / file, metadata={"format": "pt"})
        check(f"/{part}' is not a (UNet2DConditionModel|CLIPTextModel): it lacks", folder, PIPELINES[0])
    monkeypatch.setattr("rasura.networks.pipeline_folder.can_import", lambda module: False)
    check("'diffusers' is not installed; install the extra", stable, PIPELINES[0])


def test_what_a_safety_checker_blacks_out_is_no_result(folders, tmp_path):
    """A folder's own safety checker stays; a picture that it replaces is a failed row, never a black fill."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    from rasura.removers.diffusion.any_pipeline import BlackedOut

    name = "StableDiffusionInpaintPipeline"
    folder = shutil.copytree(folders[name], tmp_path / "checked")
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=text | {"vocab_size": 99},
        vision_config=text | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    checker = tiny.fill(StableDiffusionSafetyChecker(config), "checker")
    checker.concept_embeds_weights.data[:] = -2  # every picture is above every threshold
    checker.save_pretrained(folder / "safety_checker")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder / "feature_extractor")
    change_index(
        folder,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    remover = open_one(folder, name)
    assert "safety_checker/model.safetensors" in remover.weights()
    picture, hole = tiny.make_grainy_scene()
    with pytest.raises(BlackedOut, match="blacked the result out"):
        remover.fill([picture], [hole], [1])


def test_capability_is_that_of_the_pipeline(folders):
    """Name, steps and licence are the pipeline's; the memory counts all networks, text encoders included."""
    fill = folders["FluxFillPipeline"]
    model = ModelParams(kind="diffusers", base=str(fill), pipeline="FluxFillPipeline", steps=7, size=128)
    capability = open_remover("mine", {"mine": model}).capability
    assert (capability.name, capability.steps, capability.native_size) == ("FluxFillPipeline", 7, 128)
    assert capability.non_commercial
    assert not open_remover(
        "mine", {"mine": model.model_copy(update={"licence": "Apache-2.0"})}
    ).capability.non_commercial
    smaller = json.loads((fill / "model_index.json").read_text())
    assert smaller["text_encoder_2"][1] == "T5EncoderModel"
    hidden = (fill / "text_encoder_2" / "model.safetensors").rename(fill / "away")
    without = open_remover("mine", {"mine": model}).capability.memory
    hidden.rename(fill / "text_encoder_2" / "model.safetensors")
    assert capability.memory.gpu_bytes > without.gpu_bytes
