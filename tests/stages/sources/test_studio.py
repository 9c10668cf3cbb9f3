import hashlib
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from rasura.manifests.schemas import PROVENANCE, encode_records
from rasura.stages.sources.listing import MissingInput
from rasura.stages.sources.studio import develop as studio_develop
from rasura.stages.sources.studio import scene as studio_scene
from rasura.stages.sources.studio.render import render
from rasura.stages.sources.studio.studio import Studio, find_cache_folder, load_render
from rasura.stages.stage import Kept

rendering = pytest.mark.skipif(find_spec("mitsuba") is None, reason="needs rasura[studio]")
TINY = {"width": 96, "height": 64, "spp": 4, "seed": 5}


def studio(cache, **params):
    return Studio(Studio.Params(**(TINY | {"cache": str(cache)} | params)))


def only(stage, item):
    outcome = stage.process_one(item)
    assert isinstance(outcome, Kept)
    (record,) = outcome.records
    return record


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("renders")


@pytest.fixture(scope="module")
def scenes():
    """A scene of each kind of light, and one of which only one object of several is removed."""
    wanted = [studio_scene.describe_scene(2, 0, light=light) for light in ("sun", "lamp", "soft")]
    several = (studio_scene.describe_scene(2, k, light="sun", remove="one") for k in range(100))
    return [*wanted, next(scene for scene in several if len(scene["objects"]) > 1)]


@pytest.fixture(scope="module")
def renders(scenes):
    return [render(scene, 96, 64, 16) for scene in scenes]


def test_a_seed_and_an_index_are_a_scene():
    """The same seed and index give the same description, another index another one; it survives JSON unchanged."""
    first = studio_scene.describe_scene(1, 0)
    assert studio_scene.describe_scene(1, 0) == first
    assert studio_scene.describe_scene(1, 1) != first
    assert json.loads(json.dumps(first)) == first


def test_objects_are_in_the_picture():
    """Every vertex of every object lies inside the margin, whatever the aspect of the picture."""
    for k in range(25):
        aspect = (1.5, 1.0, 0.75)[k % 3]
        scene = studio_scene.describe_scene(9, k, aspect)
        points = np.concatenate([studio_scene.sample_vertices(item) for item in scene["objects"]])
        assert np.abs(studio_scene.project(points, scene["camera"], aspect)).max() < 1 - studio_scene.MARGIN


def test_most_scenes_have_a_shadow_to_see():
    """Of many scenes at least 65 % have a direct light, and none of these lights stands behind the scene's wall."""
    drawn = [studio_scene.describe_scene(3, k) for k in range(80)]
    lit = [scene for scene in drawn if scene["light"]["azimuth"] is not None]
    assert len(lit) / len(drawn) > 0.65
    assert all(math.sin(math.radians(scene["light"]["azimuth"])) < -0.1 for scene in lit if scene["wall"])


@rendering
def test_rendering_is_deterministic(scenes, renders):
    """The same description gives the same bytes a second time."""
    assert same(renders[0], render(scenes[0], 96, 64, 16))


@rendering
def test_truth_is_consistent(renders):
    """The object lies inside the foreground; outside it the pair is equal but for what stays below 2 % of white: in
    the mean below 3 grey levels, 99 % of the pixels below 20 (16 samples a pixel)."""
    for arrays in renders:
        objects, foreground = arrays["object_mask"], arrays["foreground_mask"]
        assert not (objects & ~foreground).any()
        assert 0.01 < objects.mean() < 0.6
        assert foreground.sum() > 1.02 * objects.sum()
        apart = np.abs(arrays["input"].astype(int) - arrays["gt"])[~foreground]
        assert apart.mean() < 3
        assert np.percentile(apart, 99) < 20
        wide = np.abs(cv2.blur(arrays["input"].astype(np.float32) - arrays["gt"], (5, 5))).max(axis=2)
        assert np.percentile(wide[~foreground], 99) <= studio_develop.EFFECT_LEVELS + studio_develop.EVEN_LEVELS


@rendering
def test_pictures_are_well_exposed(renders):
    """Neither picture is dark, burnt out or without contrast."""
    for arrays in renders:
        for name in ("input", "gt"):
            assert 50 < arrays[name].mean() < 200
            assert (arrays[name] >= 254).all(axis=2).mean() < 0.03
            assert (arrays[name] <= 1).all(axis=2).mean() < 0.03


@rendering
def test_depth_of_the_floor_is_the_camera_s_floor(scenes, renders):
    """On floor pixels 1 / depth is the plane z = 0 seen by the described camera, to a millimetre or 0.1 %."""
    for scene, arrays in zip(scenes, renders, strict=True):
        camera, floor = scene["camera"], arrays["floor"]
        pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
        assert floor.mean() > 0.2
        y = ((np.arange(64) + 0.5) / 64 * 2 - 1)[:, None] * half * 64 / 96 + np.zeros((1, 96))
        down = math.sin(pitch) + y * math.cos(pitch)
        expected = 1000 * camera["origin"][2] / down[floor]
        depth = arrays["depth"][floor].astype(float)
        assert (np.abs(depth - expected) < 1 + 0.001 * expected).all()


@rendering
def test_the_shadow_falls_away_from_the_light():
    """On the ground, the darkened floor lies from the object towards azimuth + 180, within 40 degrees."""
    chosen = []
    for k in range(200):
        scene = studio_scene.describe_scene(4, k, light="sun")
        aside = abs(math.cos(math.radians(scene["light"]["azimuth"]))) > 0.5  # the shadow is not behind the object
        if aside and scene["wall"] is None and scene["floor"]["finish"] == "matt" and len(scene["objects"]) == 1:
            chosen.append(scene)
        if len(chosen) == 4:
            break
    for scene in chosen:
        arrays = render(scene, 96, 64, 4)
        camera = scene["camera"]
        pitch, half = math.radians(camera["pitch"]), math.tan(math.radians(camera["fov"]) / 2)
        difference = arrays["input"].astype(np.float32) - arrays["gt"]
        dark = cv2.blur(difference, (3, 3)).max(axis=2) < -25
        dark &= cv2.dilate(arrays["object_mask"].astype(np.uint8), np.ones((5, 5))) == 0
        rows, columns = np.nonzero(dark)
        x = ((columns + 0.5) / 96 * 2 - 1) * half
        y = ((rows + 0.5) / 64 * 2 - 1) * half * 64 / 96
        far = camera["origin"][2] / (math.sin(pitch) + y * math.cos(pitch))
        ground = np.stack([x * far, (math.cos(pitch) - y * math.sin(pitch)) * far], 1) + camera["origin"][:2]
        fallen = np.average(ground - scene["objects"][0]["position"], axis=0, weights=far**3)
        angle = math.degrees(math.atan2(fallen[1], fallen[0]))
        error = (angle - scene["light"]["azimuth"] - 180 + 180) % 360 - 180
        assert abs(error) < 40, (scene["index"], error)


@rendering
def test_records_are_what_the_source_declares(cache):
    """A record has exactly the declared columns, in the types that the tables take; soft light has no direction."""
    stage = studio(cache, count=1, light="soft")
    (item,) = stage.items(None)
    record = only(stage, item)
    assert set(record) == set(Studio.gives)
    assert set(item) == set(Studio.item_columns)
    assert (record["light_azimuth"], record["light_elevation"], record["given_mask"]) == (None, None, None)
    assert record["true_depth"].dtype == np.uint16
    assert encode_records([record], {**PROVENANCE, **Studio.gives}).num_rows == 1


@rendering
def test_a_render_is_made_once(cache):
    """Another process that asks for the same pair takes it from the cache: the file is neither written nor touched."""
    stage = studio(cache, count=1)
    (item,) = stage.items(None)
    record = only(stage, item)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.iterdir()}
    params = json.dumps([TINY | {"cache": str(cache), "count": 1}])
    code = (
        "import json, sys, hashlib; from rasura.stages.sources.studio.studio import Studio;"
        f"s = Studio(Studio.Params(**json.loads({params!r})[0])); r = s.process_one(s.items(None)[0]).records[0];"
        "assert 'mitsuba' not in sys.modules; print(r['id'], hashlib.sha256(r['input'].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert other.stdout.split() == [record["id"], hashlib.sha256(record["input"].tobytes()).hexdigest()]
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in cache.iterdir()}


@rendering
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_render_is_made_again(tmp_path, damage):
    """A cache file that was cut short, emptied or altered is found out, and the record is the same as before."""
    stage = studio(tmp_path, count=1, width=48, height=32)
    (item,) = stage.items(None)
    record = only(stage, item)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
    path.write_bytes({"truncated": good[:middle], "empty": b"", "flipped": flipped}[damage])
    assert load_render(path) is None
    again = only(stage, item)
    assert np.array_equal(again["gt"], record["gt"])
    assert path.read_bytes() == good


@rendering
def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path):
    """Where the cache folder cannot be made, the pair is rendered and given all the same."""
    (tmp_path / "file").write_text("in the way")
    stage = studio(tmp_path / "file" / "cache", count=1, width=32, height=24)
    assert only(stage, stage.items(None)[0])["input"].shape == (24, 32, 3)


@rendering
def test_degradation_leaves_the_truth_in_the_grid_of_input(cache):
    """Shift and flicker change gt alone; masks, depth and input stay those of the clean render, and the measured
    shift is not above the promised one. The same item is degraded in the same way each time."""
    clean, moving = studio(cache, count=1), studio(cache, count=1, degrade={"shift": 3.0, "flicker": 0.05})
    (item,), (moved,) = clean.items(None), moving.items(None)
    assert item["id"] != moved["id"]
    a, b = only(clean, item), only(moving, moved)
    assert all(np.array_equal(a[name], b[name]) for name in a if name.startswith("true_") or name == "input")
    assert not np.array_equal(a["gt"], b["gt"])
    grey = [cv2.cvtColor(x["gt"], cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (a, b)]
    (dx, dy), _ = cv2.phaseCorrelate(grey[0], grey[1])
    assert math.hypot(dx, dy) < 3.3
    assert same({"gt": b["gt"]}, {"gt": only(moving, moved)["gt"]})


def test_noise_is_as_large_as_asked():
    """Sensor noise has the asked standard deviation at mid grey, and is another one in each picture of the pair."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    source, clean = studio_develop.degrade_pair(grey, grey, np.random.default_rng(0), noise=3.0)
    assert abs(source.astype(float).std() - 3) < 0.15
    assert abs((source.astype(float) - clean).std() - 3 * math.sqrt(2)) < 0.2


def test_an_effect_mask_has_no_specks():
    """A soft edge keeps its place, single noisy pixels are no effect, and pinholes are closed."""
    clean = np.full((100, 100, 3), 120, np.uint8)
    source = clean.copy()
    source[30:70, 30:70] = 90
    source[50, 50] = 120
    source[5, 5] = 200
    mask = studio_develop.compute_effect_mask(source, clean)
    assert mask[30:70, 30:70].all()
    assert not mask[:26].any()
    assert not mask[:, 75:].any()


@rendering
def test_photographs_are_known_by_content(tmp_path, cache):
    """Textures change the scene's id, the place of their folder does not; a scene with photographs renders."""
    rng = np.random.default_rng(0)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    for k in range(2):
        picture = cv2.resize(rng.integers(0, 255, (8, 12, 3), np.uint8), (120, 80), interpolation=cv2.INTER_CUBIC)
        for folder in ("here", "there"):
            Image.fromarray(picture).save(tmp_path / folder / f"{folder}{k}.png")
    here, there = (studio(cache, count=2, textures=str(tmp_path / folder)) for folder in ("here", "there"))
    ids = [[item["id"] for item in stage.items(None)] for stage in (here, there, studio(cache, count=2))]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
    assert only(here, here.items(None)[0])["input"].std() > 5
    with pytest.raises(MissingInput, match="no photographs"):
        studio(cache, textures=str(tmp_path / "nowhere")).items(None)


@rendering
def test_ids_follow_the_settings(cache):
    """Ids are distinct, come from the recipe's seed where no other is given, and change with the settings: to remove
    one object is another pair exactly where there are several."""
    listed = studio(cache, count=5).items(None)
    assert len({item["id"] for item in listed}) == 5
    assert listed[:2] == studio(cache, count=2).items(None)
    recipe = Studio(Studio.Params(**(TINY | {"seed": None, "count": 2})), seed=5)
    assert [item["id"] for item in recipe.items(None)] == [item["id"] for item in listed[:2]]
    alone = [len(json.loads(item["scene"])["scene"]["objects"]) == 1 for item in listed]
    one = studio(cache, count=5, remove="one").items(None)
    assert [a["id"] == b["id"] for a, b in zip(one, listed, strict=True)] == alone
    for change in ({"width": 97}, {"spp": 16}, {"seed": 6}, {"degrade": {"noise": 1.0}}):
        assert not {i["id"] for i in studio(cache, count=5, **change).items(None)} & {i["id"] for i in listed}


def test_without_mitsuba_the_way_out_is_said(monkeypatch):
    """Where mitsuba is missing, listing the scenes fails at once and names the extra to install."""
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(ImportError, match=r"rasura\[studio\]"):
        Studio(Studio.Params()).items(None)


def test_the_cache_is_where_the_user_s_caches_are(monkeypatch):
    """A given folder wins, then XDG_CACHE_HOME, then ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert find_cache_folder(None) == Path("/x/rasura/studio")
    assert find_cache_folder("/y") == Path("/y")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_cache_folder(None) == Path.home() / ".cache" / "rasura" / "studio"


def test_every_prop_is_a_closed_thing_on_the_floor():
    """Every prop of the catalogue stands on z = 0 (to 5 % of its unit), has unit normals and finite vertices."""
    from rasura.stages.sources.studio.meshes import make_object_meshes
    from rasura.stages.sources.studio.objects import PROPS

    for name, (parts, _, _) in PROPS.items():
        for seed in range(3):
            prop_parts = parts(np.random.default_rng(seed))
            meshes = make_object_meshes(
                {"parts": prop_parts, "yaw": 30.0, "scale": 1.0, "position": [0.0, 0.0]}
            ).values()
            vertices = np.concatenate([mesh.vertices for mesh in meshes])
            normals = np.concatenate([mesh.normals for mesh in meshes])
            assert np.isfinite(vertices).all(), name
            assert -0.05 <= vertices[:, 2].min() <= 0.05, name
            assert np.allclose(np.linalg.norm(normals, axis=1), 1), name
            assert 0.2 < vertices[:, 2].max() < 1.3, name
