"""Candidates of every remover in one run, with tiny networks; and one whose weights are missing."""

import numpy as np
import pytest
from conftest import rasura, write_recipe
from PIL import Image
from support import all_removers
from support.remover_server import Server

from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.removers.registry import NETWORKS, REMOVERS

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.slow]
SIDE = 160


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory, server):
    """A tiny network of each kind."""
    entries = all_removers.write_models(tmp_path_factory.mktemp("models"), server.url)
    assert entries.keys() == NETWORKS.keys()  # a new kind has to be among them
    return entries


@pytest.fixture(scope="module")
def photos(assets, tmp_path_factory):
    """Three photographs with a mask each."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "masks").mkdir()
    paths = sorted((assets / "photos" / "backgrounds").glob("*"))[:3]
    for number, path in enumerate(paths):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((SIDE, SIDE))
        picture.save(folder / f"{number}.png")
        mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[30:60, 40 + 10 * number : 80 + 10 * number] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def write(folder, photos, models):
    source = {"photos": {"path": str(photos), "pattern": "*.png", "masks": str(photos / "masks")}}
    stages = [{"inpaint": {"removers": [*REMOVERS, *models], "models": models, "dilation": 4}}]
    return write_recipe(folder, flows={"made": {"source": source, "stages": stages}})


def test_every_remover_makes_its_candidates_of_three_photographs(tmp_path, photos, models):
    """Each photograph has a candidate of each remover, changed in the hole and nowhere else; effects' removers change
    what they choose. Non-commercial weights are in the licence."""
    rasura("run", write(tmp_path, photos, models), "--into", tmp_path / "run")
    rasura("verify", tmp_path / "run")
    rows = list(Tables(Store(tmp_path / "run")).table("made").iterate_records())
    names = {*REMOVERS, *models}
    assert sorted((row["remover"], row["scene_id"]) for row in rows) == sorted(
        (name, scene) for name in names for scene in {row["scene_id"] for row in rows}
    )
    assert len(rows) == 3 * len(names)
    for row in rows:
        source, target = row["source"], row["target"]
        hole = row["mask"]
        assert (target != source)[hole].mean() > 0.5, row["remover"]
        if row["remover"] != "objectclear":
            around = np.zeros_like(hole)
            around[22:68, 30:112] = True
            assert np.array_equal(target[~around], source[~around]), row["remover"]
        assert ("non-commercial" in row["licence"]) == (row["remover"] == "objectclear")


def test_one_whose_weights_are_missing_is_one_line_before_the_start(tmp_path, photos, models):
    """The run does not start: its one line names the remover's file, and nothing is written."""
    broken = models | {"moebius": models["moebius"] | {"base": str(tmp_path / "nowhere")}}
    done = rasura("run", write(tmp_path, photos, broken), "--into", tmp_path / "run", check=False)
    assert done.returncode != 0
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert "nowhere" in line
    assert "moebius" in line
    assert not (tmp_path / "run" / "tables").exists()
