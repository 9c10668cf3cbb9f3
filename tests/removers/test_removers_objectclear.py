"""ObjectClear: the object's token, the restart of the background, where it looked, and the fusion."""

import shutil

import cv2
import numpy as np
import pytest
from support import tiny_models

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch.nn.functional as F
from safetensors.torch import save_file

from rasura.networks.inpainting.fusion_module import FusionModule, insert_token
from rasura.networks.pretrained import MissingWeights
from rasura.removers.base import Filled, compute_native_shape, remove
from rasura.removers.diffusion import fusion, loop, objectclear
from rasura.removers.diffusion.loop import Options
from rasura.removers.diffusion.objectclear import AttentionRecorder
from rasura.removers.diffusion.remover import Files
from rasura.stages.inpaint import Inpaint, InpaintParams

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
SIZE = 64
OPTIONS = Options(size=SIZE, steps=3, guidance=2.5, prompt=objectclear.PROMPT, start="noise")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.objectclear_folder(tmp_path_factory.mktemp("tiny") / "objectclear")


@pytest.fixture(scope="module")
def remover(folder):
    objectclear_remover = objectclear.objectclear("objectclear", Files(folder), OPTIONS)
    objectclear_remover.setup()
    return objectclear_remover


def scene(seed=0, height=SIZE, width=SIZE):
    """A picture with grain and a hole."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    hole = np.zeros((height, width), bool)
    hole[height // 4 : height // 2, width // 4 : width // 2] = True
    return picture, hole


def test_fusion_is_the_published_one_step_by_step():
    """Threshold above 128, nearest to the picture's size, 21 x 21 ellipse, 9 x 9 blur of sigma 2, larger of the two;
    both pictures black inside; five levels of a binomial blur that is shrunk and stretched by 1, 2, 4, 8, 16; the
    original's details on the result's colours; the result where the weight is: written out here a second time, with
    torch, it is the same to one grey level."""
    rng = np.random.default_rng(0)
    height, width = 64, 96
    original = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    removed = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (5, 5), 1)
    attention = rng.integers(0, 100, (8, 12)).astype(np.uint8)
    attention[3:6, 4:7], attention[0, 0] = 200, 128
    fused, weight = fusion.fuse(original, removed, attention)

    inside = np.zeros((height, width), np.float32)
    inside[24:48, 32:56] = 1  # the 128 in the corner is not above 128
    grown = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)), iterations=1)
    expected_weight = np.clip(np.maximum(inside, cv2.GaussianBlur(grown, (9, 9), sigmaX=2)), 0, 1)
    assert np.array_equal(weight, expected_weight)

    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def low(image, radius):
        padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")
        smooth = F.conv2d(padded, kernel[None, None])
        if radius > 1:
            small = F.interpolate(smooth, scale_factor=1 / radius, mode="bilinear", align_corners=True)
            smooth = F.interpolate(small, scale_factor=radius, mode="bilinear", align_corners=True)
        return smooth[:, 0]

    def parts(image):
        high = torch.zeros_like(image)
        for level in range(5):
            blurred = low(image, 2**level)
            high += image - blurred
            image = blurred
        return high, image

    def planes(image):
        return torch.from_numpy((image * (1 - inside)[..., None] / 255).astype(np.float32)).permute(2, 0, 1)

    wave = (parts(planes(original))[0] + parts(planes(removed))[1]).permute(1, 2, 0).numpy()
    wave = np.clip(wave * 255, 0, 255).astype(np.uint8)
    expected = (wave * (1 - weight[..., None]) + removed * weight[..., None]).astype(np.uint8)
    assert np.abs(fused.astype(int) - expected).max() <= 1
    assert np.array_equal(fused[inside > 0], removed[inside > 0])
    assert (np.abs(fused.astype(int) - expected) > 0).mean() < 0.01  # rounding of a truncated float


def test_odd_sizes_are_fused_too():
    """A picture whose sides are no multiples of 16 is continued by reflection; with the same picture twice and no
    attention nothing changes but the last bit."""
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (50, 71, 3)).astype(np.uint8), (9, 9), 3)
    fused, weight = fusion.fuse(picture, picture, np.zeros((6, 8), np.uint8))
    assert fused.shape == picture.shape
    assert not weight.any()
    assert np.abs(fused.astype(int) - picture).max() <= 1


def test_attention_maps_span_the_whole_range():
    """Token attention at half the latents' size comes out at the latents' size, 0 to 255; an even map is all 0."""
    picture = fusion.attention_to_uint8(np.array([[0.1, 0.2], [0.3, 0.4]]), (4, 4))
    assert picture.shape == (4, 4)
    assert (picture.min(), picture.max()) == (0, 254) or (picture.min(), picture.max()) == (0, 255)
    assert not fusion.attention_to_uint8(np.full((2, 2), 0.3), (4, 4)).any()


def test_the_fusion_module_is_the_published_one():
    """Its tensors have the published names and shapes; what it computes equals the same layers of torch.nn; and only
    token 5 of the prompt is replaced."""
    weights = tiny_models.postfuse_tensors(768, 2048)
    module = FusionModule(768, 2048)
    assert {key: value.shape for key, value in weights.items()} == {
        key: value.shape for key, value in module.state_dict().items()
    }
    assert sum(value.numel() for value in weights.values()) == 14_173_696
    module.load_state_dict(weights)
    embeddings = torch.randn(2, 768, generator=torch.Generator().manual_seed(1))

    def perceptron(name, given):
        layers = torch.nn.Sequential(
            torch.nn.LayerNorm(given), torch.nn.Linear(given, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 2048)
        )
        names = ("layernorm", "fc1", None, "fc2")
        state = {
            f"{k}.{part}": weights[f"{name}.{layer}.{part}"]
            for k, layer in enumerate(names)
            if layer
            for part in ("weight", "bias")
        }
        layers.load_state_dict(state)
        return layers

    last = torch.nn.LayerNorm(2048)
    last.load_state_dict({part: weights[f"layer_norm.{part}"] for part in ("weight", "bias")})
    with torch.no_grad():
        first = perceptron("mlp1", 768)(embeddings)
        expected = last(perceptron("mlp2", 2048)(first) + first)
        token = module(embeddings)
    assert (token - expected).abs().max() < 1e-5
    prompt = torch.randn(1, 77, 2048)
    fused = insert_token(prompt, token, objectclear.OBJECT_TOKEN)
    assert torch.equal(fused[:, 5], token)
    others = [k for k in range(77) if k != 5]
    assert torch.equal(fused[:, others], prompt.expand(2, -1, -1)[:, others])


def test_where_it_looked_is_the_attention_of_the_token(remover):
    """The recorded map equals the probabilities that diffusers' plain attention computes, mean over heads, token 5,
    conditional half; and the layer is left as it was."""
    from diffusers.models.attention_processor import AttnProcessor

    unet = remover.parts.unet
    layer = unet.get_submodule(objectclear.ATTENTION_LAYER)
    noisy = torch.randn(2, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(2, 77, 64, generator=torch.Generator().manual_seed(1))
    extra = {"text_embeds": torch.ones(2, 32), "time_ids": torch.ones(2, 6)}
    recorder = AttentionRecorder(unet, objectclear.ATTENTION_LAYER, 5)
    recorder.start()
    with torch.no_grad():
        unet(noisy, 500, text, added_cond_kwargs=extra)
    recorder.stop()
    assert not layer.to_q._forward_hooks
    recorded = {}
    plain, score = AttnProcessor(), layer.get_attention_scores
    before = layer.processor
    layer.get_attention_scores = lambda *given: recorded.setdefault("probabilities", score(*given))
    layer.set_processor(plain)
    with torch.no_grad():
        unet(noisy, 500, text, added_cond_kwargs=extra)
    layer.set_processor(before)
    del layer.get_attention_scores
    expected = recorded["probabilities"].view(2, layer.heads, 16, 77)[1:, ..., 5].mean(1).view(1, 4, 4)
    assert (recorder.compute_maps((4, 4), 1) - expected).abs().max() < 1e-6


def test_the_background_starts_again_once():
    """After the first step latents outside the hole are the source's with the second timestep's noise, and inside the
    hole what they were."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    latents, known, noise = (torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(3))
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., 1:3, 1:3] = 1
    restarted = objectclear.restart_background(latents, known, noise, hole, scheduler)
    inside = hole.expand_as(restarted) > 0
    assert torch.equal(restarted[inside], latents[inside])
    expected = known + noise * scheduler.sigmas[1]
    assert torch.allclose(restarted[~inside], expected[~inside])


def test_it_sees_the_object_and_says_where_it_changed(remover):
    """The whole source goes in (another object gives another fill), each result comes with a weight, and batches and
    single pictures are the same."""
    scenes = [scene(k) for k in range(2)]
    pictures, holes = [s[0] for s in scenes], [s[1] for s in scenes]
    together = remover.fill(pictures, holes, [1, 2])
    assert all(isinstance(one, Filled) for one in together)
    assert together[0].weight.shape == (SIZE, SIZE)
    alone = remover.fill(pictures[1:], holes[1:], [2])[0]
    assert np.array_equal(alone.picture, together[1].picture)
    other = pictures[0].copy()
    other[holes[0]] = 255 - other[holes[0]]
    assert not np.array_equal(remover.fill([other], holes[:1], [1])[0].picture, together[0].picture)
    assert len(set(map(id, remover.parts.unet.get_submodule(objectclear.ATTENTION_LAYER).to_q._forward_hooks))) == 0


def test_through_the_wrapper_it_works_on_the_whole_picture(remover, monkeypatch):
    """The whole picture goes in, its short side at the native size and both multiples of 16; what it took away outside
    the mask comes back, and where neither mask nor weight is, every pixel is the input's."""
    assert compute_native_shape((300, 500), objectclear.CAPABILITY) == (300, 500)
    assert compute_native_shape((300, 500), remover.capability) == (64, 112)
    recorded = {}

    def run(parts, pictures, holes, seeds):
        recorded["shape"] = pictures[0].shape
        weight = np.zeros(pictures[0].shape[:2], np.float32)
        weight[-16:, -16:] = 1
        return [Filled(np.full_like(pictures[0], 7), weight)]

    monkeypatch.setattr(remover, "run", run)
    picture, mask = scene(height=128, width=200)
    (out,) = remove(remover, [picture], [mask], [0], dilation=0)
    assert recorded["shape"] == (64, 112, 3)
    assert (out[mask] == 7).all()
    assert (out[-20:, -20:] == 7).all()
    untouched = ~mask
    untouched[-40:, -40:] = False
    assert np.array_equal(out[untouched], picture[untouched])


def test_candidates_carry_the_licence_and_what_was_changed(remover):
    """A candidate made with non-commercial weights says so in its own licence, and its foreground mask is the object
    and everything else that was changed."""
    stage = Inpaint(InpaintParams(dilation=2))
    stage.removers = [remover]
    picture, mask = scene()
    (outcome,) = stage.process([{"id": "p", "source": picture, "object_mask": mask, "licence": "CC0"}])
    (child,) = outcome.records
    assert child["licence"] == "CC0; made with objectclear: NTU S-Lab License 1.0 (non-commercial)"
    outside = ~child["foreground_mask"]
    assert child["foreground_mask"][mask].all()
    assert np.array_equal(child["target"][outside], picture[outside])


def test_it_says_what_it_is_and_what_is_missing(folder, tmp_path):
    """Non-commercial is part of what it declares; a missing fusion module, a wrong one, or a single step is told."""
    assert objectclear.CAPABILITY.non_commercial
    assert "non-commercial" in objectclear.CAPABILITY.licence
    copied = shutil.copytree(folder, tmp_path / "copied")
    tensors = tiny_models.postfuse_tensors(24, 64)
    tensors.pop("layer_norm.bias")
    save_file(tensors, copied / "postfuse_module" / "model.safetensors")
    broken = objectclear.objectclear("x", Files(copied), Options(size=SIZE, steps=2))
    with pytest.raises(MissingWeights, match="is no fusion module"):
        broken.setup()
    with pytest.raises(MissingWeights, match="one is needed"):
        objectclear.objectclear("x", Files(tmp_path)).weights()
    with pytest.raises(ValueError, match="too few"):
        objectclear.objectclear("x", Files(folder), Options(steps=1))
    assert loop.Options().source == "masked"
    assert objectclear.objectclear("x", Files(folder)).options.source == "whole"
