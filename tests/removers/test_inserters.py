"""Networks that paint by a text, at tiny size: each text is encoded once, and counts for its own picture alone."""

from collections import Counter

import numpy as np
import pytest
from support import tiny_diffusion as tiny

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file

from rasura.networks.inpainting.brushnet import BrushNet
from rasura.removers.diffusion import conditioning, task_tokens
from rasura.removers.inserters import INSERTING, check_inserters, open_inserter
from rasura.removers.registry import NETWORKS, ModelParams
from rasura.stages.insertion.insert import Insert, InsertParams
from rasura.stages.stage import Kept

torch.set_num_threads(1)
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
KINDS = ("powerpaint", "powerpaint-v2", "brushnet-xl", "sdxl-inpaint")
TEXTS = ("a photo of a dog", "a photo of a chair")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases, BrushNets and PowerPaint's text encoder, in the layouts of the published files."""
    place = tmp_path_factory.mktemp("inserters")
    for name, family, channels in (("sd15", "sd15", 4), ("sd15-inpainting", "sd15", 9), ("sdxl", "sdxl", 4)):
        tiny.write_base(place / name, family, channels)
    tiny.write_base(place / "sdxl-inpainting", "sdxl", 9)
    for name, unet, attention in (
        ("brushnet", tiny.SD15_UNET, False),
        ("brushnet-xl", tiny.SDXL_UNET, False),
        ("powerpaint-v2", tiny.SD15_UNET, True),
    ):
        save_file(tiny.fill(BrushNet(unet, attention), "c").state_dict(), place / f"{name}.safetensors")
    weights = tiny.make_weights(tiny.task_encoder_shapes(), "inserter-text")
    save_file({name: torch.from_numpy(value) for name, value in weights.items()}, place / "text.safetensors")
    return place


def make_model(folder, kind, **values):
    bases = {"sd15": "sd15-inpainting", "powerpaint": "sd15-inpainting", "brushnet-xl": "sdxl"}
    files = {"base": folder / {**bases, "sdxl-inpaint": "sdxl-inpainting"}.get(kind, "sd15")}
    if kind.startswith("powerpaint"):
        files["text_encoder"] = folder / "text.safetensors"
    if "brushnet" in NETWORKS[kind].needs:
        files["brushnet"] = folder / f"{kind}.safetensors"
    return ModelParams(kind=kind, **{"size": 64, "steps": 1, "device": "cpu", **files, **values})


def open_one(folder, kind, texts=TEXTS, **values):
    inserter = open_inserter("mine", {"mine": make_model(folder, kind, **values)}, texts)
    inserter.weights()
    inserter.setup()
    return inserter


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_is_painted_by_its_own_text(folder, kind):
    """The text changes what is painted, and a picture's result is the same alone and beside others of other texts."""
    inserter = open_one(folder, kind, batch=2)
    assert inserter.capability.role == "inserter"
    picture, hole = tiny.make_grainy_scene(5)
    other, _ = tiny.make_grainy_scene(6)
    dog, chair = TEXTS
    together = inserter.paint([picture, other, picture], [hole] * 3, [1, 2, 1], [dog, chair, chair])
    alone = [inserter.paint([picture], [hole], [1], [text])[0] for text in TEXTS]
    assert np.array_equal(together[0], alone[0])
    assert np.array_equal(together[2], alone[1])
    assert not np.array_equal(alone[0][hole], alone[1][hole])


def test_text_encoders_are_opened_once_for_all_texts_and_then_released(folder, monkeypatch):
    """Five texts of PowerPaint's two encoders: each file is read once; nothing is kept afterwards."""
    opened = Counter()
    load, open_tasks = conditioning._load_encoder, task_tokens.open_task_encoder

    def count_load(*values):
        opened["base"] += 1
        return load(*values)

    def count_tasks(*values):
        opened["tasks"] += 1
        return open_tasks(*values)

    monkeypatch.setattr(conditioning, "_load_encoder", count_load)
    monkeypatch.setattr(task_tokens, "open_task_encoder", count_tasks)
    inserter = open_one(folder, "powerpaint-v2", [f"a photo of {n} cats" for n in range(5)])
    assert opened == {"base": 1, "tasks": 1}
    assert len(inserter.conditionings) == 5
    conditioning.encode(folder / "sd15", "a cat", None, torch.device("cpu"), torch.float32)
    assert opened["base"] == 2


def test_defaults_are_those_of_painting_and_removal_is_refused(folder):
    """PowerPaint's task is text-guided unless the recipe says otherwise; a removing task is no insertion."""
    inserter = open_one(folder, "powerpaint")
    assert (inserter.options.task, inserter.options.guidance) == ("text-guided", 7.5)
    assert open_one(folder, "powerpaint", task="shape-guided", guidance=5).options.guidance == 5
    with pytest.raises(ValueError, match="removes with these options"):
        open_one(folder, "powerpaint", task="object-removal")
    assert open_one(folder, "sdxl-inpaint").options.start == "noise"
    assert set(INSERTING) <= set(NETWORKS)
    for kind in set(NETWORKS) - set(INSERTING):
        with pytest.raises(ValueError, match="paints nothing by a text"):
            check_inserters(["mine"], {"mine": ModelParams(kind=kind, base="x")})


def test_embeddings_of_one_prompt_are_no_texts(folder, tmp_path):
    """A file of `prompts` holds one text; painting classes needs the encoders."""
    save_file({"tokens": torch.zeros(1, 77, 16)}, tmp_path / "prompt.safetensors")
    with pytest.raises(ValueError, match="leave out `prompts`"):
        open_one(folder, "sd15", prompts=tmp_path / "prompt.safetensors")


@pytest.mark.parametrize("kind", ["powerpaint", "brushnet"])
def test_the_stage_paints_with_a_network_and_changes_nothing_outside(folder, kind):
    """Through `insert`: outside of the faded region the photograph to the bit, inside something else."""
    params = InsertParams(
        inserters=("mine",), models={"mine": make_model(folder, kind)}, classes=("dog", "chair"), min_height=0.2
    )
    stage = Insert(params)
    stage.setup()
    picture, _ = tiny.make_scene()
    (outcome,) = stage.process([{"id": "p", "source": picture, "licence": "CC0"}])
    assert isinstance(outcome, Kept)
    (row,) = outcome.records
    x0, y0, x1, y1 = (int(value) for value in row["insert_box"])
    outside = np.ones(picture.shape[:2], bool)
    outside[max(0, y0 - 8) : y1 + 8, max(0, x0 - 8) : x1 + 8] = False
    assert np.array_equal(row["input"][outside], picture[outside])
    assert (row["input"][y0:y1, x0:x1] != picture[y0:y1, x0:x1]).any()
    # random weights give back nothing of what they see; BrushNet's own blending hides that
    assert (row["insert_outside"] > 0) == (kind == "powerpaint")
