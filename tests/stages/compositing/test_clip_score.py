"""CLIP's score of an instance: what transformers computes, null without weights, and one clear error for others."""

import shutil

import numpy as np
import pytest
from support import tiny_diffusion as tiny
from support.paste_scenes import make_foreground

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image

from rasura.manifests.errors import WeightsError
from rasura.stages.compositing.clip_model import ClipModel, crop_for_clip
from rasura.stages.compositing.instance import Instance, InstanceParams
from rasura.stages.stage import Kept

torch.set_num_threads(1)
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP with its tokenizer, in the layout of its published folder."""
    from transformers import CLIPConfig, CLIPModel

    place = tmp_path_factory.mktemp("clip") / "clip"
    tiny.write_tokenizer(place)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tiny.make_clip_config(), **sizes}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    tiny.fill(CLIPModel(config), "clip").save_pretrained(place)
    return place


def make_picture(seed=0, height=50, width=70):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_score_is_the_cosine_that_transformers_computes(folder):
    """By its own processor's resizing, crop and colours, and its own forward; for several pictures and texts."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    clip, model = ClipModel(folder), CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    texts = ["a photo of a cat", "a photo of a bus"]
    for seed, shape in enumerate([(50, 70), (64, 64), (90, 33)]):
        picture = make_picture(seed, *shape)
        ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
        with torch.inference_mode():
            expected = model(input_ids=ids, pixel_values=pixels).logits_per_image[0] / model.logit_scale.exp()
        scores = [clip.score(picture, text) for text in texts]
        assert scores == pytest.approx(expected.tolist(), abs=0.003)  # two libraries' cubic resizing
        assert scores[0] != scores[1]
    assert crop_for_clip(picture, 32).shape == (32, 32, 3)


def test_an_instance_is_scored_on_white_by_its_class(folder):
    """What is around it in its crop does not count, its shadow neither; without a class there is no score."""
    row = make_foreground("a", shadow=True, label="cup")
    stage = Instance(InstanceParams(clip=str(folder)))
    stage.setup()

    def score(entry):
        outcome = stage.process_one(entry)
        assert isinstance(outcome, Kept)
        return outcome.records[0]["clip_score"]

    other = row["foreground"].copy()
    other[~row["foreground_object"]] = (9, 200, 30, 255)
    assert -1 <= score(row) <= 1
    assert score({**row, "foreground": other}) == score(row)
    assert score({**row, "label": "bus"}) != score(row)
    assert score({**row, "label": None}) is None
    assert {name.split("/")[0] for name in stage.weights()} == {"clip"}
    assert stage.network_memory(1) is not None


def test_without_weights_the_score_is_null_and_with_others_the_recipe_is_refused(folder, tmp_path):
    """A folder that is missing, one without a tokenizer, and one of another model."""
    stage = Instance(InstanceParams())
    stage.setup()
    assert stage.process_one(make_foreground("a")).records[0]["clip_score"] is None
    assert not stage.weights()
    assert stage.network_memory(1) is None
    with pytest.raises(WeightsError):
        Instance(InstanceParams(clip=str(tmp_path / "none")))
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "vocab.json").unlink()
    with pytest.raises(WeightsError, match="no tokenizer"):
        Instance(InstanceParams(clip=str(bare)))
    text = tiny.write_base(tmp_path / "sd", "sd15", 4)
    for path in (text / "tokenizer").iterdir():
        shutil.copy(path, text / "text_encoder" / path.name)
    wrong = Instance(InstanceParams(clip=str(text / "text_encoder")))
    with pytest.raises(WeightsError, match="needs a 'clip'"):
        wrong.setup()
