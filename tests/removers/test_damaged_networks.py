"""Networks that are not what they should be: refused by name when they are opened, and never half used; and what is in
a hole, which no network sees a trace of."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import all_removers
from support.remover_server import Server

from rasura.manifests.errors import InputError, WeightsError
from rasura.networks.finite import NotFinite, check_finite, to_uint8
from rasura.networks.weights import BadWeights
from rasura.removers.base import make_hole, remove, resize_crop
from rasura.removers.registry import ModelParams, open_remover

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = all_removers.SIZE
SEEING = ("objectclear",)
"""Kinds that get the object, because they remove what belongs to it too."""
UNET = "unet/diffusion_pytorch_model.safetensors"
WITH_ENCODERS = ("sdxl-inpaint", "objectclear", "sd15", "powerpaint-v2", "brushnet", "brushnet-xl", "catdiffusion")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    server = Server()
    yield all_removers.write_models(tmp_path_factory.mktemp("models"), server.url)
    server.close()


@pytest.fixture(scope="module")
def hiding(models):
    """Removers of every kind that does not get the object, set up."""
    opened = {kind: set_up(models, kind) for kind in models if kind not in SEEING}
    return {**opened, **{kind: open_remover(kind, {}) for kind in ("telea", "ns")}}


def open_kind(models, kind, **changes):
    entry = {"kind": kind, **models[kind], **changes}
    entry = {key: str(value) if isinstance(value, Path) else value for key, value in entry.items()}
    return open_remover("mine", {"mine": ModelParams(**entry)})


def set_up(models, kind, **changes):
    remover = open_kind(models, kind, **changes)
    remover.weights()
    remover.setup()
    return remover


def copy_base(models, kind, tmp_path):
    return shutil.copytree(models[kind]["base"], tmp_path / kind)


def change_tensors(path, change):
    save_file({name: value.contiguous() for name, value in change(load_file(path)).items()}, path, {"format": "pt"})


def make_scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 2, width // 3 : width // 2] = True
    return picture, mask


def drop_half(tensors):
    return {name: value for index, (name, value) in enumerate(sorted(tensors.items())) if index % 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: {f"zz.{name}": value for name, value in tensors.items()}, "lacks"),
        (drop_half, "lacks"),
        (lambda tensors: {**tensors, "foo.lora_A.weight": torch.zeros(4, 4)}, r"has, unused, 'foo.lora_A.weight'"),
    ],
    ids=["renamed", "half of it", "more than it"],
)
def test_a_text_encoder_that_is_not_whole_is_refused_by_every_kind(models, tmp_path, change, reason):
    """Its gaps would be filled with random values, and the prompt would be noise. Of SDXL both encoders."""
    for kind in WITH_ENCODERS:
        for part in ("text_encoder", "text_encoder_2"):
            folder = copy_base(models, kind, tmp_path)
            if (folder / part).is_dir():
                change_tensors(folder / part / "model.safetensors", change)
                with pytest.raises(BadWeights, match=rf"{part}' is not a CLIPTextModel\w*: it .*{reason}"):
                    set_up(models, kind, base=folder)
            shutil.rmtree(folder)


def test_harmless_tensors_of_a_text_encoder_are_no_fault(models, tmp_path):
    """Positions, which old files have, and the projection of a whole CLIP."""
    folder = copy_base(models, "sd15", tmp_path)
    file = folder / "text_encoder" / "model.safetensors"
    prefix = "text_model." if any(name.startswith("text_model.") for name in load_file(file)) else ""
    more = {f"{prefix}embeddings.position_ids": torch.arange(77)[None], "text_projection.weight": torch.ones(2, 2)}
    change_tensors(file, lambda tensors: {**tensors, **more})
    set_up(models, "sd15", base=folder)


def test_a_unet_of_another_model_is_refused_and_none_of_its_tensors_dropped(models, tmp_path):
    """CATDiffusion's has all tensors of Stable Diffusion's, and a reference adapter beside them."""
    with pytest.raises(BadWeights, match=r"is not a UNet2DConditionModel: it has, unused, '.*attn3.* more"):
        set_up(models, "sd15", unet=models["catdiffusion"]["unet"])
    for kind in ("sd15", "sdxl-inpaint", "objectclear", "brushnet"):
        folder = copy_base(models, kind, tmp_path)
        change_tensors(folder / UNET, lambda tensors: {**tensors, "foo.lora_A.weight": torch.zeros(4, 4)})
        with pytest.raises(BadWeights, match=r"it has, unused, 'foo.lora_A.weight'"):
            set_up(models, kind, base=folder)
        shutil.rmtree(folder)


def spoil(tensors):
    name = sorted(name for name in tensors if name.endswith("weight"))[0]
    return {**tensors, name: torch.full_like(tensors[name], float("nan"))}


def test_weights_that_are_no_numbers_are_refused_by_every_kind(models, tmp_path):
    """Of a folder's UNet, VAE and text encoder, of a file of tensors, and of what comes beside."""
    files = {"lama": "base", "migan": "base", "brushnet": "brushnet", "powerpaint": "text_encoder", "rorem-lcm": "lora"}
    for kind, key in files.items():
        path = Path(shutil.copy(models[kind][key], tmp_path / f"{kind}.safetensors"))
        change_tensors(path, spoil)
        with pytest.raises(BadWeights, match=rf"{kind}.safetensors' holds values that are not finite"):
            set_up(models, kind, **{key: path})
    for part in ("unet", "vae", "text_encoder"):
        folder = copy_base(models, "sd15", tmp_path)
        (path,) = (folder / part).glob("*.safetensors")
        change_tensors(path, spoil)
        with pytest.raises(BadWeights, match=rf"{part}' holds values that are not finite"):
            set_up(models, "sd15", base=folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["sd15", "pixelhacker", "objectclear", "diffusers", "lama", "migan", "tiny"])
def test_what_is_no_number_becomes_no_picture(models, kind):
    """A network whose values overflow while it runs fails its picture; it was a black hole that was kept."""
    remover = set_up(models, kind)
    if kind in ("lama", "migan"):
        net = remover.net
        remover.net = lambda *inputs: net(*inputs) * np.float32(np.nan)
    else:
        owner = {"diffusers": "pipe", "tiny": "learner"}.get(kind, "parts")
        part = getattr(remover, owner)
        module = next(value for name in ("unet", "transformer") if (value := getattr(part, name, None)) is not None)
        module.register_forward_hook(lambda module, inputs, output: _overflow(output))
    picture, mask = make_scene(90, 90)
    with pytest.raises(NotFinite, match=r"no finite numbers for .* of (the picture|its attention)") as caught:
        remove(remover, [picture], [mask], [3], 4)
    assert isinstance(caught.value, InputError)  # it costs the row


def _overflow(output):
    if isinstance(output, tuple):
        return tuple(_overflow(value) for value in output)
    if isinstance(output, torch.Tensor):
        return (output.half() * 1e6 * 0).to(output.dtype)
    output.sample = _overflow(output.sample)
    return output


def test_infinity_is_no_grey_level_either():
    with pytest.raises(NotFinite, match=r"25.00% of the picture"):
        to_uint8(np.array([0, 1, np.inf, 0.5], np.float32))
    check_finite(np.ones(3), "the picture")


@pytest.mark.parametrize(("height", "width", "dilation"), [(40, 40, 0), (50, 131, 4), (SIZE, SIZE, 0), (300, 210, 4)])
def test_the_fill_is_the_same_whatever_is_in_the_hole(hiding, height, width, dilation):
    """To the bit, where the crop is enlarged, stretched, native and shrunk, for every kind that does not get the
    object; outside the hole the picture stays as it was."""
    picture, mask = make_scene(height, width)
    hole = make_hole(mask, dilation)
    other = picture.copy()
    other[hole] = np.random.default_rng(5).integers(0, 256, (hole.sum(), 3))
    for kind, remover in hiding.items():
        first, second = (remove(remover, [seen], [mask], [3], dilation)[0] for seen in (picture, other))
        assert np.array_equal(first[mask], second[mask]), kind
        assert np.array_equal(first[~hole], picture[~hole]), kind


@pytest.mark.parametrize("shape", [(128, 128), (90, 200), (33, 200), (20, 25), (64, 64)])
def test_a_crop_shows_nothing_of_the_hole_outside_of_it(shape):
    """For holes within, at the edge and of single pixels."""
    rng = np.random.default_rng(8)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    for region in (np.s_[20:31, 22:40], np.s_[:9, :], np.s_[50:, 50:], np.s_[33, 33]):
        hole = np.zeros((64, 64), bool)
        hole[region] = True
        other = picture.copy()
        other[hole] = 255 - picture[hole]
        (first, area), (second, _) = (resize_crop(seen, hole, shape) for seen in (picture, other))
        assert area.any()
        assert np.array_equal(first[~area], second[~area])
        assert not np.array_equal(first[area], second[area])


@pytest.mark.parametrize("kind", ["sdxl-inpaint", "rorem", "rorem-lcm", "brushnet-xl", "diffusers"])
def test_an_objectclear_is_run_by_its_own_kind_alone(models, kind):
    """Its UNet has SDXL-inpainting's shapes; by another kind its licence would be lost."""
    owned = models["objectclear"]["base"]
    changes = {"unet": f"{owned}/unet"} if kind in ("rorem", "rorem-lcm", "brushnet-xl") else {"base": owned}
    with pytest.raises(BadWeights, match=r"objectclear' is an ObjectClear .* kind `objectclear`"):
        open_kind(models, kind, **changes).weights()
    assert open_kind(models, "objectclear").weights()


def test_what_is_no_such_model_is_one_sentence_with_the_file(models, tmp_path):
    """Another model's folder, settings that are no JSON or none of diffusers, a file that was cut off, no scale."""

    def check(match, kind, **changes):
        with pytest.raises(WeightsError, match=match) as caught:
            set_up(models, kind, **changes)
        assert "\n" not in str(caught.value)

    check("moebius.*' is not a PixelHacker", "pixelhacker", base=models["moebius"]["base"])
    check("pixelhacker.*' is not a Moebius|is not this", "moebius", base=models["pixelhacker"]["base"])
    folder = copy_base(models, "sd15", tmp_path)

    def check_settings(name, text, match):
        before = (folder / name).read_text()
        (folder / name).write_text(text if isinstance(text, str) else json.dumps({**json.loads(before), **text}))
        check(match, "sd15", base=folder)
        (folder / name).write_text(before)

    for name in ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"):
        check_settings(name, "{", f"{name}' cannot be read as a model's settings")
    check_settings("scheduler/scheduler_config.json", {"_class_name": "NoSuch"}, "has no scheduler 'NoSuch'")
    check_settings("vae/config.json", {"scaling_factor": None}, "vae/config.json' has `scaling_factor` None")
    check_settings("unet/config.json", {"norm_num_groups": 0}, "unet' is not a UNet2DConditionModel")
    whole = Path(models["rorem"]["base"])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-1000])
    check("cut.safetensors' is not the base of", "rorem", base=cut)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "git lfs pull"),
    ],
    ids=["empty", "page", "pointer"],
)
def test_a_download_that_went_wrong_is_told_as_what_it_is(models, tmp_path, content, reason):
    for kind, key, suffix in (
        ("lama", "base", ".pt"),
        ("lama", "base", ".safetensors"),
        ("lama", "base", ".onnx"),
        ("rorem", "base", ".safetensors"),
        ("rorem-lcm", "lora", ".safetensors"),
        ("brushnet", "brushnet", ".safetensors"),
        ("powerpaint", "text_encoder", ".bin"),
    ):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        with pytest.raises(BadWeights, match=rf"file{suffix}' .*{reason}"):
            set_up(models, kind, **{key: path})
    folder = copy_base(models, "sd15", tmp_path)
    (folder / UNET).write_bytes(content)
    with pytest.raises(BadWeights, match=rf"unet' is not a .*{reason}"):
        set_up(models, "sd15", base=folder)


class Running:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_in_place_of_a_generator_is_named_and_not_run(models, tmp_path):
    mark = tmp_path / "ran"
    torch.save({"a": torch.zeros(2), "x": Running(mark)}, tmp_path / "evil.pt")
    for kind in ("lama", "migan"):
        with pytest.raises(BadWeights, match=r"evil.pt' .*it holds code \((posix|nt).mkdir\), which was not run"):
            set_up(models, kind, base=tmp_path / "evil.pt")
    assert not mark.exists()


def test_a_lora_of_another_base_is_named(models, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"unet.foo.lora_A.weight": torch.zeros(2, 4), "unet.foo.lora_B.weight": torch.zeros(4, 2)}, path)
    with pytest.raises(BadWeights, match=r"mine.safetensors': the LoRA changes 'foo'"):
        set_up(models, "rorem-lcm", lora=path)
