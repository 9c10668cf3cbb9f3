"""A loop that trains an ObjectClear: every round's remover is a folder of its own, which the next one goes on from."""

import json

import pytest
from support import tiny_models
from support.loops import build_recipe, share_ray, write_scenes

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from rasura.manifests.errors import RecipeError
from rasura.pipeline.loop.check import check_loop
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.rounds import describe_current_remover
from rasura.pipeline.loop.runner import run_loop
from rasura.pipeline.recipe.load import validate
from rasura.pipeline.recipe.positions import Positions
from rasura.removers.registry import ModelParams, open_remover

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def test_a_loop_trains_an_objectclear(tmp_path):
    """From SDXL-inpainting and CLIP: trained, run on the pool and the test set, trained further from its own folder;
    the remover after the round is described so that it opens. Without the image encoder the check says so."""
    scenes = write_scenes(tmp_path / "scenes", count=12, initial=6).store.uri
    base, clip = tiny_models.sdxl_folder(tmp_path / "sdxl"), tiny_models.clip_folder(tmp_path / "clip")
    settings = {"size": 64, "batch": 2, "warm_up": 1, "rate": 0.001, "checkpoint_every": 1}
    remover = {"preset": "objectclear", "base": str(base), "image_encoder": str(clip), "steps": 1, "tune_steps": 1}
    remover |= {"settings": settings}
    values = build_recipe(scenes, remover=remover, rounds=[{"kind": "human", "count": 3}], removers=["telea"])
    recipe = validate(values, Positions("loop"), LoopRecipe)
    check_loop(recipe, Positions("loop"))
    without = validate({**values, "remover": {**remover, "image_encoder": None}}, Positions("loop"), LoopRecipe)
    with pytest.raises(RecipeError, match="name the folder of CLIP ViT-L/14"):
        check_loop(without, Positions("loop"))
    with share_ray():
        loop = run_loop(recipe, str(tmp_path / "loop"), lambda step: None)
    folders = [tmp_path / "loop" / "removers" / f"{number:02d}" for number in (0, 1)]
    first, second = (json.loads((folder / "training.json").read_text()) for folder in folders)
    assert (first["base"], first["fusion"]) == (str(base), "fresh 3")
    assert second["fusion"] == str(folders[0] / "postfuse_module")
    remover = open_remover("current", {"current": ModelParams(**describe_current_remover(loop, 1))})
    assert remover.weights()["unet/config.json"].is_relative_to(folders[1])
    assert remover.options.size == 64
