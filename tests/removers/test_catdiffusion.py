"""CATDiffusion against its authors' classes, whose run at tiny size is kept as data; and as a remover like the others.

The data were written by `tests/data/network_runs/make_catdiffusion_run.py`, outside this project; the weights are a
formula of their names.
"""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny_catdiffusion as cat
from support import tiny_diffusion as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file, save_file

from rasura.manifests.errors import WeightsError
from rasura.networks.inpainting import catdiffusion as networks
from rasura.removers.base import Inserter
from rasura.removers.diffusion import catdiffusion, conditioning, loop
from rasura.removers.diffusion.remover import Files
from rasura.removers.inserters import open_inserter
from rasura.removers.registry import NETWORKS, ModelParams, check_removers, open_remover
from rasura.removers.training import catdiffusion as training
from rasura.removers.training.catdiffusion_settings import CatSettings
from rasura.removers.training.train import Triplet

torch.set_num_threads(1)
# diffusers' own schedulers against numpy 2
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
DATA = Path(__file__).parents[1] / "data" / "network_runs"
SIZE, STEPS = 64, 2
NETWORK, GREY = 1e-4, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks for pictures of 512 px (`large`), as the authors' were, and of 64 px."""
    place = tmp_path_factory.mktemp("catdiffusion")
    cat.write_base(place / "large")
    cat.write_trained(place / "large" / "trained")
    cat.write_base(place / "base", cat.SMALL_VISION)
    cat.write_trained(place / "trained", places=16)
    return place


@pytest.fixture(scope="module")
def run():
    return load_file(DATA / "catdiffusion-run.safetensors")


def make_params(folder, **values):
    files = {
        "base": folder / "base",
        "unet": folder / "trained" / "unet",
        "image_encoder": folder / "base/image_encoder",
    }
    files["semantic_inpainter"] = folder / "trained" / "semantic_inpainter"
    settings = {"size": SIZE, "steps": STEPS, "device": "cpu", "prompt": "a cat", **files, **values}
    return ModelParams(kind="catdiffusion", **settings)


def open_one(folder, **values):
    remover = open_remover("mine", {"mine": make_params(folder, **values)})
    remover.weights()
    remover.setup()
    return remover


def find_first_names():
    """Map diffusers' names of the UNet's tensors to those of the authors' checkpoints."""
    shapes = json.loads(gzip.decompress((DATA / "catdiffusion-shapes.json.gz").read_bytes()))
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return convert_ldm_unet_checkpoint({name: name for name in shapes}, {"layers_per_block": 2})


def test_it_is_its_authors_to_one_grey_level(folder, run, monkeypatch):
    """Pictures and masks as CLIP, the semantic inpainter and the UNet get them, the features in the hole merged with
    CLIP's own and pooled, the adapter between self-attention and text, guidance away from the empty text and from
    zeros, and DDIM: the reference, the first prediction, the last latents and the picture are the authors'."""
    large = folder / "large"
    files = Files(
        large,
        unet=large / "trained/unet",
        semantic_inpainter=large / "trained/semantic_inpainter",
        image_encoder=large / "image_encoder",
    )
    options = replace(catdiffusion.OPTIONS, steps=STEPS, prompt="a cat", device="cpu")
    remover = catdiffusion.catdiffusion("cat", files, options)
    remover.weights()
    remover.setup()
    noise = torch.from_numpy(tiny.draw_noise(7, cat.SIDE, cat.SIDE))
    calls, latents, decode = [], [], loop.decode_latents
    monkeypatch.setattr(loop, "draw_noise", lambda seeds, shape: (noise, [torch.Generator()]))
    monkeypatch.setattr(loop, "decode_latents", lambda vae, values: decode(vae, latents.append(values) or values))

    def keep(module, arguments, keywords, output):
        calls.append((keywords["cross_attention_kwargs"]["reference"], output[0]))

    remover.parts.unet.register_forward_hook(keep, with_kwargs=True)
    picture, hole = cat.make_picture()
    (result,) = remover.fill([picture], [hole], [0])
    (reference, prediction) = calls[0]
    assert len(calls) == STEPS
    assert not reference[0].any()
    assert (reference[1:] - run["reference"]).abs().max() <= NETWORK
    assert run["prediction"].std() > 0.1
    assert (prediction[1:] - run["prediction"]).abs().max() <= NETWORK
    assert (latents[0] - run["latents"]).abs().max() <= 1e-4 * run["latents"].abs().max()
    assert run["picture"].float().std() > 20
    assert np.abs(result[::4, ::4].astype(int) - run["picture"].numpy()).max() <= GREY


def make_learner(folder, stage):
    large = folder / "large"
    files = Files(large, image_encoder=large / "image_encoder")
    settings = CatSettings(stage=stage, size=cat.SIDE, seed=1)
    learner, vision = training.open_learner(files, settings, large / "trained", device="cpu")
    encode = training.create_label_encoder(files, learner.device, learner.dtype)
    pairs = [cat.make_picture(number) for number in (0, 1)]
    crops = [
        Triplet(picture, picture, hole, None, label)
        for (picture, hole), label in zip(pairs, ("a cat", "dog"), strict=True)
    ]
    return learner, vision, crops, training.encode_labels(encode, [crop.label for crop in crops])


def compare(tensors, name, loss, **parameters):
    """Assert that a loss and its gradients are the authors'."""
    assert (loss - tensors[f"{name}.loss"]).abs() <= NETWORK * tensors[f"{name}.loss"]
    for key, parameter in parameters.items():
        theirs = tensors[f"{name}.{key}"]
        (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        assert theirs.abs().max() > 0
        assert (gradient - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_stage_one_teaches_the_semantic_inpainter_as_its_authors_do(folder, run):
    """Loss, predictions and gradient of the distillation of CLIP's features, on two pictures, are the authors'."""
    learner, vision, crops, text = make_learner(folder, "1-inpainter")
    network = learner.unet
    assert network.unet is None
    hidden = training.look(vision, learner, crops)
    with torch.no_grad():
        tokens, pooled = network(hidden, text[:-1, catdiffusion.TOKENS :])
    assert (tokens[:1] - run["predicted"]).abs().max() <= NETWORK
    assert (pooled - run["pooled"]).abs().max() <= NETWORK
    loss = training.compute_feature_loss(network, vision, learner, crops, text)
    table = {"embeddings.mask_embedding.weight": network.inpainter.embeddings.mask_embedding.weight}
    compare(run, "1-inpainter", loss, **table)


@pytest.mark.parametrize(("stage", "kept"), [("1-adapter", True), ("2-all", True), ("2-all", False)])
def test_the_noise_is_learned_as_its_authors_do(folder, run, stage, kept):
    """The UNet with the whole picture's features, both networks together, and pictures without text and reference: for
    the same noise and timesteps the loss and the gradients are the authors'."""
    learner, vision, crops, text = make_learner(folder, stage)
    network = learner.unet
    noise = torch.cat([torch.from_numpy(tiny.draw_noise(seed, cat.SIDE, cat.SIDE)) for seed in (11, 12)])
    keep = torch.full((2,), kept)
    parameters = {}
    if kept and stage == "2-all":  # gradients of the others would take time and show nothing more
        parameters["adapter"] = network.unet.mid_block.attentions[0].transformer_blocks[0].attn3.to_k.weight
        parameters["embeddings.mask_embedding.weight"] = network.inpainter.embeddings.mask_embedding.weight
    with torch.set_grad_enabled(bool(parameters)):
        loss = training.compare_noise(
            network, vision, learner, crops, text, stage, noise, torch.tensor([601, 37]), keep
        )
    compare(run, stage if kept else "dropped", loss, **parameters)


def test_all_tensors_fit_at_full_size():
    """At full size, without memory: the authors' checkpoints, which hold both networks under their names, fit; the
    numbers of parameters are those that `rasura removers` counts with."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModel

    shapes = json.loads(gzip.decompress((DATA / "catdiffusion-shapes.json.gz").read_bytes()))
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        inner = {name.removeprefix("fusion_model."): value for name, value in tensors.items() if name[0] == "f"}
        inpainter = networks.SemanticInpainter(**networks.measure_inpainter(inner), heads=16)
        default = networks.SemanticInpainter()
        unet = networks.add_adapters(UNet2DConditionModel(**cat.FULL_UNET), 1024)
        vit = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        vision = CLIPVisionModel(CLIPVisionConfig(**vit, image_size=224, patch_size=14))

    def list_shapes(values):
        return {name: tuple(value.shape) for name, value in values.items()}

    assert list_shapes(inpainter.state_dict()) == list_shapes(inner) == list_shapes(default.state_dict())
    converted = {name: tensors[first] for name, first in find_first_names().items()}
    assert list_shapes(unet.state_dict()) == list_shapes(converted)
    numbers = [sum(value.numel() for value in network.parameters()) for network in (unet, inpainter, vision)]
    assert numbers == [859_535_364 + 50_377_280, 324_872_192, 303_179_776]
    assert (len(unet.state_dict()), len(inpainter.state_dict())) == (798, 400)
    adapter = sum(value.numel() for name, value in unet.named_parameters() if networks.is_adapter(name))
    assert adapter == catdiffusion.ADAPTER_PARAMETERS
    assert NETWORKS["catdiffusion"].capability.parameters == sum(numbers) + 83_653_863


def test_a_checkpoint_of_the_authors_is_both_networks(folder, tmp_path):
    """One pickle of tensors in Stable Diffusion's first naming, as their training writes it, gives the same fill as the
    folders: `unet` and `semantic_inpainter` find their own in it."""
    unet = load_file(folder / "trained" / "unet" / "diffusion_pytorch_model.safetensors")
    state = {first: unet[name] for name, first in find_first_names().items() if name in unet}
    assert len(state) == len(unet)
    inpainter = load_file(folder / "trained" / "semantic_inpainter" / "model.safetensors")
    state |= {f"fusion_model.{name}": value for name, value in inpainter.items()}
    torch.save({"state_dict": {**state, "betas": torch.ones(3)}}, tmp_path / "last.ckpt")
    ours = open_one(folder)
    theirs = open_one(folder, unet=tmp_path / "last.ckpt")
    assert theirs.weights()["unet"] == tmp_path / "last.ckpt"
    picture, hole = tiny.make_grainy_scene()
    fills = [remover.fill([picture], [hole], [1])[0].astype(int) for remover in (ours, theirs)]
    assert np.abs(fills[0] - fills[1]).max() <= 1  # where weights lie in memory changes rounding on some processors
    opened = networks.open_inpainter(tmp_path / "last.ckpt", torch.float32)
    assert all(torch.equal(value, inpainter[name]) for name, value in opened.state_dict().items())
    assert opened.heads == 1  # a bare file does not tell: heads are 64 wide, as in the release


@pytest.mark.parametrize("start", ["noise", "prefill"])
def test_the_object_does_not_leak(folder, start):
    """Whatever stands in the hole, the fill is the same to the bit; CLIP sees nothing of it along the rim either."""
    remover = open_one(folder, start=start)
    picture, hole = tiny.make_grainy_scene(3)
    hole[17:19, 40:51] = True  # patches are not aligned with the hole
    other = picture.copy()
    other[hole] = 255 - other[hole]
    assert (other != picture)[hole].all()
    first, second = (remover.fill([one], [hole], [1])[0] for one in (picture, other))
    assert np.array_equal(first, second)


def test_the_hole_changes_and_nothing_else(folder):
    """Of a half-black picture the hole is painted and every other pixel stays; the UNet gets the hole as 1, and a
    picture whose hole is black; CLIP one whose hole is grey, and the patches that touch it are marked."""
    remover = open_one(folder)
    assert isinstance(remover, Inserter)
    tiny.check_hole_alone_changes(remover)

    inputs = []
    remover.parts.unet.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    scene, hole = tiny.make_grainy_scene()
    hole[16:19] = True  # less than half a latent
    remover.fill([scene], [hole], [1])
    small = hole.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    assert np.array_equal(inputs[0][0, 4].numpy() > 0, small > 0.5)
    pixels = loop.to_tensor([np.where(hole[..., None], 0, scene).astype(np.uint8)], "cpu", torch.float32)
    assert (inputs[0][0, 5:9] - loop.encode_pixels(remover.parts.vae, pixels)[0]).abs().max() < 1e-5
    seen = catdiffusion.shrink_picture(scene, hole, 28)
    assert (seen[12, 10] == catdiffusion.GREY).all()
    assert np.array_equal(seen[25:], catdiffusion.shrink_picture(scene, None, 28)[25:])
    marked = catdiffusion.mark_patches(hole, 28, 4).reshape(4, 4)
    assert marked[1].all()
    assert not marked[3].any()


def test_each_picture_has_its_own_seed_and_text(folder):
    """The same seed and text give the same picture whatever else is in the batch; another text paints another thing."""
    params = make_params(folder, batch=3, prompt=None)
    inserter = open_inserter("mine", {"mine": params}, ["a cat", "dog"])
    inserter.weights()
    inserter.setup()
    scenes = [tiny.make_grainy_scene(k) for k in range(4)]
    pictures, holes = [scene[0] for scene in scenes], [scene[1] for scene in scenes]
    texts = ["a cat", "dog", "a cat", "dog"]
    together = inserter.paint(pictures, holes, [10, 11, 12, 13], texts)
    for k in range(4):
        (alone,) = inserter.paint([pictures[k]], [holes[k]], [10 + k], [texts[k]])
        assert np.array_equal(alone, together[k])
    assert not np.array_equal(inserter.paint(pictures[:1], holes[:1], [10], ["dog"])[0], together[0])
    assert not np.array_equal(inserter.paint(pictures[:1], holes[:1], [99], ["a cat"])[0], together[0])


def test_a_file_of_embeddings_takes_the_place_of_the_text_encoder(folder, tmp_path):
    """It has the pooled text behind the 77 tokens; one without it is refused, since its last token is another one."""
    usual = open_one(folder)
    conditioning.save(usual.encode_prompts("cpu", torch.float32), tmp_path / "prompts.safetensors")
    lean = open_one(folder, prompts=tmp_path / "prompts.safetensors", prompt=None)
    assert not any("text_encoder" in name or "tokenizer" in name for name in lean.weights())
    picture, hole = tiny.make_grainy_scene()
    assert np.array_equal(lean.fill([picture], [hole], [1])[0], usual.fill([picture], [hole], [1])[0])
    short = conditioning.encode(folder / "base", "a cat", None, "cpu", torch.float32)
    conditioning.save(short, tmp_path / "short.safetensors")
    with pytest.raises(WeightsError, match="holds 77 tokens of a text, not 77 and the pooled text"):
        open_one(folder, prompts=tmp_path / "short.safetensors", prompt=None)


def test_the_recipe_reader_says_that_there_are_no_weights():
    """Without its files, or with some of them missing, the message says that none were released and what makes them."""
    trainable = "released no weights, so that it is trainable only: `rasura remover train --preset catdiffusion`"
    with pytest.raises(ValueError, match=f"'catdiffusion' needs weights: add .*{trainable}"):
        check_removers(["catdiffusion"], {})
    with pytest.raises(ValueError, match=f"catdiffusion needs `unet`: .*{trainable}"):
        check_removers(["catdiffusion"], {"catdiffusion": ModelParams(base="sd15")})


def test_missing_wrong_and_foreign_weights_are_one_clear_error(folder, tmp_path):
    """Each fault is one sentence with the path: no adapter, no semantic inpainter, one of another size, other CLIPs, a
    tensor too few."""

    def check(match, **values):
        with pytest.raises(WeightsError, match=match) as caught:
            open_one(folder, **values)
        assert "\n" not in str(caught.value)

    check("there is no file or folder", unet=tmp_path / "nowhere")
    check("has no reference adapter .* released no weights", unet=folder / "base" / "unet")
    check("is no semantic inpainter of CATDiffusion", semantic_inpainter=folder / "base" / "unet")
    check("patches differ, 256 and 16", semantic_inpainter=folder / "large" / "trained" / "semantic_inpainter")
    check("holds a 'clip_text_model'", image_encoder=folder / "base" / "text_encoder")
    inpainter = load_file(folder / "trained" / "semantic_inpainter" / "model.safetensors")
    inpainter.pop("post_layernorm.bias")
    save_file(inpainter, tmp_path / "few.safetensors")
    check("lacks 'post_layernorm.bias'", semantic_inpainter=tmp_path / "few.safetensors")
    other = shutil.copytree(folder / "base", tmp_path / "other")
    cat.fill_vision({**cat.SMALL_VISION, "hidden_size": 16}).save_pretrained(other / "image_encoder")
    check(
        "width of the semantic inpainter's and CLIP's tokens differ, 32 and 16", image_encoder=other / "image_encoder"
    )
    with pytest.raises(ValueError, match="CATDiffusion, which has no lora"):
        open_one(folder, lora=tmp_path / "few.safetensors")


def test_it_declares_what_it_needs(folder):
    """Its memory counts all networks; its role, defaults and licence are those of its release."""
    capability, defaults = NETWORKS["catdiffusion"].capability, NETWORKS["catdiffusion"].defaults
    assert (capability.role, capability.needs_prompt, capability.non_commercial) == ("inserter", True, False)
    assert "none were released" in capability.licence
    expected = {"size": 512, "steps": 50, "guidance": 7.5, "source": "black", "start": "noise"}
    assert {name: defaults[name] for name in expected} == expected
    memory = open_remover("mine", {"mine": make_params(folder)}).capability.memory
    bare = make_params(folder, image_encoder=folder / "base" / "tokenizer")
    assert memory.cpu_bytes > open_remover("mine", {"mine": bare}).capability.memory.cpu_bytes
