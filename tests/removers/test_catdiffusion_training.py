"""The four trainings of CATDiffusion at tiny size: what learns, what stays, and that the result runs as a remover."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import tiny_catdiffusion as cat
from support import tiny_diffusion as tiny
from support.training_triplets import list_items

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file

from rasura.manifests.errors import RecipeError
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.inpainting.catdiffusion import is_adapter, merge_tokens, open_inpainter
from rasura.networks.pretrained import MissingWeights
from rasura.pipeline.training.placement import estimate_remover_training
from rasura.pipeline.training.settings import RemoverSettings, build_training_settings, find_remover_faults
from rasura.removers.diffusion import catdiffusion
from rasura.removers.diffusion.remover import Files
from rasura.removers.registry import ModelParams, open_remover
from rasura.removers.training import catdiffusion as training
from rasura.removers.training.catdiffusion_settings import CatSettings, measure_training

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
QUICK = CatSettings(steps=2, batch=2, size=64, rate=1e-3, unet_rate=1e-4, checkpoint_every=2, seed=2)
UNET, INPAINTER = "unet/diffusion_pytorch_model.safetensors", "semantic_inpainter/model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    base = cat.write_base(tmp_path_factory.mktemp("base") / "sd15", cat.SMALL_VISION)
    return Files(base, image_encoder=base / "image_encoder")


def list_labelled(count):
    labels = ("red box", "cat")
    return [replace(item, label=labels[number % 2]) for number, item in enumerate(list_items(count))]


@pytest.fixture(scope="module")
def chain(files, tmp_path_factory):
    """All four trainings, each from the folder of the last one."""
    place, start = tmp_path_factory.mktemp("chain"), None
    for stage in ("1-inpainter", "1-adapter", "2-inpainter", "2-all"):
        settings = replace(QUICK, stage=stage)
        training.train(files, list_labelled(8), settings, start, place / stage, device="cpu")
        start = place / stage
    return place


def find_changes(first, second, file):
    """Return which tensors of a file differ between two trainings."""
    before, after = load_file(first / file), load_file(second / file)
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_each_training_moves_its_own_networks_alone(files, chain):
    """Stage 1 leaves the other network's file as it is; stage 2 first moves the semantic inpainter with the UNet fixed
    to the bit, then both; the pooled prediction, which the noise does not see, moves in stage 1 alone."""
    assert not (chain / "1-inpainter" / "unet").exists()
    first, adapter, join, last = (chain / stage for stage in ("1-inpainter", "1-adapter", "2-inpainter", "2-all"))
    assert (first / INPAINTER).read_bytes() == (adapter / INPAINTER).read_bytes()
    base = load_file(files.base / UNET)
    trained = load_file(adapter / UNET)
    assert {name for name in trained if is_adapter(name)} == trained.keys() - base.keys()
    assert not torch.equal(base["conv_in.weight"], trained["conv_in.weight"])
    assert find_changes(adapter, join, UNET) == set()
    moved = find_changes(adapter, join, INPAINTER)
    assert "encoder.layers.0.self_attn.q_proj.weight" in moved
    assert not any(name.startswith("post_layernorm") for name in moved)
    assert "conv_in.weight" in find_changes(join, last, UNET)
    assert any(is_adapter(name) for name in find_changes(join, last, UNET))
    assert "label_mlp.fc1.weight" in find_changes(join, last, INPAINTER)


def test_the_adapter_learns_faster_than_the_network_around_it(files, chain, tmp_path):
    """With AdamW a first step moves each parameter by about its learning rate: that of the adapter is ten times that
    of the UNet's own parameters."""
    settings = replace(QUICK, stage="2-all", steps=1, weight_decay=0.0)
    training.train(files, list_labelled(8), settings, chain / "2-inpainter", tmp_path / "out", device="cpu")
    before, after = load_file(chain / "2-inpainter" / UNET), load_file(tmp_path / "out" / UNET)
    steps = {name: float((after[name] - before[name]).abs().max()) for name in before}
    own = [step for name, step in steps.items() if not is_adapter(name)]
    adapter = [step for name, step in steps.items() if is_adapter(name)]
    assert 0.9e-4 < max(own) < 1.1e-4
    assert 0.9e-3 < max(adapter) < 1.1e-3


def test_what_was_trained_runs_as_the_remover(files, chain):
    """The folder of the last training is what a recipe names; the fill depends on the label, and on both networks."""

    def fill(place, prompt="red box", part="semantic_inpainter"):
        params = ModelParams(
            kind="catdiffusion",
            base=files.base,
            unet=(place if part == "unet" else chain / "2-all") / "unet",
            semantic_inpainter=(place if part == "semantic_inpainter" else chain / "2-all") / "semantic_inpainter",
            image_encoder=files.image_encoder,
            size=64,
            steps=2,
            device="cpu",
            prompt=prompt,
        )
        remover = open_remover("mine", {"mine": params})
        remover.weights()
        remover.setup()
        picture, hole = tiny.make_grainy_scene()
        return remover.fill([picture], [hole], [1])[0]

    last = fill(chain / "2-all")
    assert last.std() > 5
    assert not np.array_equal(last, fill(chain / "2-all", prompt="cat"))
    assert not np.array_equal(last, fill(chain / "1-adapter"))
    assert not np.array_equal(last, fill(chain / "1-adapter", part="unet"))
    assert "to run it:" in training.describe_next(chain / "2-all", files)
    assert "--set stage=1-adapter" in training.describe_next(chain / "1-inpainter", files)


def test_the_semantic_inpainter_learns_what_clip_sees_in_the_hole(files, tmp_path):
    """After some hundred steps its guess of the hidden patches is nearer to CLIP's view of the whole picture than what
    CLIP sees of the grey hole, on pictures that it has not learned from."""
    settings = replace(QUICK, steps=300, batch=8, rate=5e-3, box=0.0, dilate=0, checkpoint_every=300, save_memory=False)
    items = [replace(item, label="red box") for item in list_items(64)]
    training.train(files, items, settings, None, tmp_path / "out", device="cpu")
    learner, vision = training.open_learner(files, settings, tmp_path / "out", device="cpu")
    crops = [item.read()._replace(label="red box") for item in list_items(6, first=100)]
    encode = training.create_label_encoder(files, learner.device, learner.dtype)
    text = training.encode_labels(encode, [crop.label for crop in crops])
    hidden, whole = training.look(vision, learner, crops), training.look(vision, learner, crops, whole=True)
    inpainter = open_inpainter(tmp_path / "out" / "semantic_inpainter", torch.float32)
    with torch.no_grad():
        tokens, _ = inpainter(hidden, text[:-1, 77:])
    merged, inside = merge_tokens(tokens, hidden), hidden.cells
    assert torch.equal(merged[~inside], hidden.tokens[~inside])
    error, grey = ((part[inside] - whole.tokens[inside]).square().mean() for part in (merged, hidden.tokens))
    assert error < 0.75 * grey


def test_a_training_that_is_killed_goes_on_to_the_same_weights(files, chain, tmp_path, monkeypatch):
    """Stopped after a checkpoint and started again, stage 2 ends with the same bytes."""
    settings = replace(QUICK, stage="2-all", steps=3, batch=2, checkpoint_every=2)
    items = list_labelled(8)
    training.train(files, items, settings, chain / "1-adapter", tmp_path / "whole", device="cpu")

    compute, calls = training.compute_noise_loss, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(training, "compute_noise_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        training.train(files, items, settings, chain / "1-adapter", tmp_path / "parts", device="cpu")
    training.train(files, items, settings, chain / "1-adapter", tmp_path / "parts", device="cpu")
    for file in (UNET, INPAINTER):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_text_and_reference_are_left_out_together(files, chain, monkeypatch):
    """Of the share that the settings say the UNet gets the empty text and zeros for a reference; masks are boxes in
    their share; the same position draws the same."""
    settings = replace(QUICK, stage="2-all", drop=0.5, box=0.5)
    learner, vision = training.open_learner(files, settings, chain / "1-adapter", device="cpu")
    encode = training.create_label_encoder(files, learner.device, learner.dtype)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, inputs, times, text, cross_attention_kwargs, return_dict):
            seen.append((text, cross_attention_kwargs["reference"]))
            return (inputs[:, :4],)

    learner.unet.unet = Spy()
    crops = [item.read()._replace(label="cat") for item in list_items(8)]
    text = training.encode_labels(encode, ["cat"] * 8)
    for _ in range(2):
        training.compute_noise_loss(learner.unet, vision, learner, crops, text, settings, list(range(20, 28)))
    (tokens, reference), again = seen
    dropped = ~reference.flatten(1).any(dim=1)
    assert 0 < dropped.sum() < 8
    assert torch.equal(tokens[dropped], text[-1:, :77].expand(int(dropped.sum()), -1, -1))
    assert torch.equal(tokens[~dropped], text[:1, :77].expand(int((~dropped).sum()), -1, -1))
    assert torch.equal(reference, again[1])
    round_mask = crops[0].mask.copy()
    round_mask[np.argwhere(round_mask)[0][0]] = False
    round_mask[np.argwhere(round_mask)[0][0], np.argwhere(round_mask)[0][1]] = False
    boxes = [training.draw_box(crops[0]._replace(mask=round_mask), settings, k).mask.sum() for k in range(40)]
    assert set(boxes) == {round_mask.sum(), round_mask.sum() + 1}
    assert 8 < boxes.count(round_mask.sum()) < 32


def test_what_cannot_be_trained_is_one_clear_error(files, tmp_path):
    """No label, no stage 1, another base, no CLIP, a setting of another training: told before the first step."""
    with pytest.raises(TrainingFailed, match="1 of 2 pictures have no label, 't001' for one"):
        training.train(files, [*list_labelled(1), list_items(2)[1]], QUICK, None, tmp_path / "out")
    with pytest.raises(
        TrainingFailed, match="2-all goes on from both trainings of stage 1, and 'None' has no unet and"
    ):
        training.train(files, list_labelled(2), replace(QUICK, stage="2-all"), None, tmp_path / "out")
    with pytest.raises(MissingWeights, match=r"no training of CATDiffusion in '.*nowhere': it has neither unet nor"):
        training.train(files, list_labelled(2), replace(QUICK, stage="1-adapter"), tmp_path / "nowhere", tmp_path / "o")
    other = Files(tiny.write_base(tmp_path / "sd15", "sd15", 4), image_encoder=files.image_encoder)
    with pytest.raises(MissingWeights, match="takes 4 channels"):
        training.train(other, list_labelled(2), QUICK, None, tmp_path / "out")
    with pytest.raises(MissingWeights, match="name its folder"):
        training.train(Files(files.base), list_labelled(2), QUICK, None, tmp_path / "out")
    with pytest.raises(ValueError, match="needs CLIP ViT-L/14: name its folder under `image_encoder`"):
        RemoverSettings(preset="catdiffusion", base=files.base)
    values = {"preset": "catdiffusion", "base": files.base, "image_encoder": files.image_encoder}
    config = RemoverSettings(**values, settings={"stage": "2-all", "steps": 7})
    assert build_training_settings(config, 1, tune=False) == CatSettings(stage="2-all", steps=7, seed=1)
    with pytest.raises(RecipeError, match="no such setting: leave it at 'epsilon'"):
        build_training_settings(RemoverSettings(**values, settings={"objective": "x0"}), 1, tune=False)
    (path, message), *_ = find_remover_faults(RemoverSettings(**values, settings={"stage": "3"}), 1)
    assert path == ("settings", "stage")
    assert "1-inpainter" in message


def test_the_memory_of_a_training_counts_what_it_loads_and_learns(tmp_path):
    """At full size, by the headers of files alone: all networks of each training, and those of them that learn."""
    sizes = {"unet": 859_535_364, "vae": 83_653_863, "text_encoder": 123_060_480, "image_encoder": 303_179_776}
    for name, count in sizes.items():
        header = json.dumps({"weight": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        (tmp_path / name / "config.json").write_text("{}")
    unet, inpainter = sizes["unet"] + catdiffusion.ADAPTER_PARAMETERS, catdiffusion.INPAINTER_PARAMETERS
    text, vision = sizes["text_encoder"], sizes["image_encoder"]
    expected = {
        "1-inpainter": (text + vision + inpainter, inpainter),
        "1-adapter": (sum(sizes.values()) + unet - sizes["unet"], unet),
        "2-inpainter": (sum(sizes.values()) + unet - sizes["unet"] + inpainter, inpainter),
        "2-all": (sum(sizes.values()) + unet - sizes["unet"] + inpainter, unet + inpainter),
    }
    for stage, numbers in expected.items():
        measured = measure_training(tmp_path, tmp_path / "image_encoder", stage, 600)
        assert measured[:2] == pytest.approx(numbers, rel=0.01)
        assert measured[2] == (100 if stage == "1-inpainter" else 600)
    config = RemoverSettings(preset="catdiffusion", base=tmp_path, image_encoder=tmp_path / "image_encoder")
    memory = estimate_remover_training(config, CatSettings(stage="2-all", batch=4))
    assert 16 * (unet + inpainter) < memory.gpu_bytes < 40e9


def test_settings_have_the_releases_defaults():
    """Eight processes of sixteen, 1e-4 and 1e-5, no warm-up or decay, a tenth without text, half of the masks boxes."""
    settings = CatSettings()
    assert (settings.batch, settings.rate, settings.unet_rate, settings.weight_decay) == (128, 1e-4, 1e-5, 1e-2)
    assert (settings.drop, settings.box, settings.flip, settings.warm_up, settings.decay) == (0.1, 0.5, False, 0, False)
