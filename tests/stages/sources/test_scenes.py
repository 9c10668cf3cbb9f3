"""Nearly equal clean pictures are one scene, whatever their names and their encoding, and stay in one split."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rasura.manifests.storage import Store
from rasura.pipeline.recipe.load import parse
from rasura.pipeline.recipe.plan import plan
from rasura.pipeline.recipe.shards import list_shards
from rasura.pipeline.run.listing import list_stored_shards
from rasura.stages.sources.ober import Ober, OberParams

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "pictures" / "photos").glob("*.*"))


def _list_items(tmp_path, source):
    recipe = {"name": "x", "flows": {"f": {"source": source, "stages": []}}}
    resolved = plan(*parse(json.dumps(recipe), "r.yaml"))
    shards = list_shards(resolved.flows["f"], resolved.sources["f"], Store(tmp_path / "run"))
    return {item["origin"]: item for shard in shards for item in shard.items}, [shard.id for shard in shards]


def _save(picture, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


@pytest.fixture
def photos():
    pictures = [Image.open(path).convert("RGB") for path in PHOTOS]
    assert len(pictures) >= 4
    return pictures[:4]


def test_copies_of_a_photo_are_of_its_scene(tmp_path, photos):
    """A byte added, another format, another size, another quality: four files of one photo, three of others."""
    folder = tmp_path / "photos"
    for number, photo in enumerate(photos):
        _save(photo, folder / f"{number}.png")
    data = io.BytesIO()
    photos[0].save(data, "JPEG", quality=60)
    (folder / "copy.jpg").write_bytes(data.getvalue())
    (folder / "longer.jpg").write_bytes(data.getvalue() + b"\0")
    _save(photos[0].resize((photos[0].width // 2, photos[0].height // 2)), folder / "half.webp")
    items, _ = _list_items(tmp_path, {"photos": {"path": str(folder)}})
    scenes = {Path(origin).name: item["scene_id"] for origin, item in items.items()}
    assert len({scenes[name] for name in ("0.png", "copy.jpg", "longer.jpg", "half.webp")}) == 1
    assert len(set(scenes.values())) == 4


def test_shots_over_one_clean_picture_are_one_scene(tmp_path, photos):
    """Twenty shots before one empty scene, each with a clean picture of its own encoding."""
    rng = np.random.default_rng(6)
    empty = np.asarray(photos[1].resize((160, 120)))
    for number in range(20):
        shot = empty.copy()
        shot[20:60, 5 * number : 5 * number + 30] = rng.integers(0, 255, 3)
        noisy = np.clip(empty + rng.normal(0, 2, empty.shape), 0, 255).astype(np.uint8)
        _save(Image.fromarray(shot), tmp_path / "pairs" / "input" / f"{number:02d}.png")
        _save(Image.fromarray(noisy), tmp_path / "pairs" / "gt" / f"{number:02d}.png")
    items, before = _list_items(tmp_path, {"pairs": {"path": str(tmp_path / "pairs")}})
    assert len(items) == 20
    assert len({item["scene_id"] for item in items.values()}) == 1
    assert _list_items(tmp_path, {"pairs": {"path": str(tmp_path / "pairs")}})[1] == before  # from what was remembered


def test_scenes_that_names_state_are_joined(tmp_path, photos):
    """Two scenes by their names, of which each has a copy of the other's picture, are one."""
    folder = tmp_path / "photos"
    for name, photo in (("a_1", 0), ("a_2", 1), ("b_1", 2), ("b_2", 1), ("c_1", 3)):
        _save(photos[photo], folder / f"{name}.jpg", quality=70 + ord(name[0]) - 96)
    items, _ = _list_items(tmp_path, {"photos": {"path": str(folder), "scene": "^(.)_"}})
    assert {Path(origin).stem: item["scene_id"] for origin, item in items.items()} == {
        "a_1": "a",
        "a_2": "a",
        "b_1": "a",
        "b_2": "a",
        "c_1": "c",
    }


def test_a_scene_without_copies_keeps_its_shards(tmp_path, photos):
    """Only the shards of pictures that join a scene are made again."""
    folder = tmp_path / "photos"
    for number, photo in enumerate(photos):
        _save(photo, folder / f"{number}.png")
    source = {"photos": {"path": str(folder)}}
    recipe_shards = _list_items(tmp_path, source)[1]
    _save(photos[2], folder / "copy.jpg")
    assert len(_list_items(tmp_path, source)[1]) == len(recipe_shards)  # all are in one shard of 16
    items, _ = _list_items(tmp_path, source)
    assert sum("joined" in item for item in items.values()) == 1


def test_rows_of_parquet_files_are_joined_too(tmp_path, photos):
    cells = []
    for photo, quality in ((photos[0], 90), (photos[1], 90), (photos[0], 50)):
        data = io.BytesIO()
        photo.save(data, "JPEG", quality=quality)
        cells.append({"bytes": data.getvalue(), "path": None})
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"image": cells}), tmp_path / "set" / "a.parquet")
    items, _ = _list_items(tmp_path, {"photos": {"path": str(tmp_path / "set")}})
    scenes = [item["scene_id"] for _, item in sorted(items.items())]
    assert scenes[0] == scenes[2] != scenes[1]


def test_pictures_that_cannot_be_read_are_scenes_of_their_own(tmp_path, photos):
    folder = tmp_path / "photos"
    _save(photos[0], folder / "good.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (folder / "empty.png").write_bytes(b"")
    items, _ = _list_items(tmp_path, {"photos": {"path": str(folder)}})
    assert len({item["scene_id"] for item in items.values()}) == 3


def _make_cell(picture, name, quality=90):
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return {"bytes": data.getvalue(), "path": name}


def _write_ober(folder, photos, splits):
    """Write three rows in OBER's layout, of which the first and the last have one clean picture."""
    mask = Image.fromarray(np.pad(np.full((40, 60), 255, np.uint8), ((20, 60), (20, 80))))
    rows = []
    for number, (photo, quality) in enumerate(((0, 90), (1, 90), (0, 50))):
        clean = photos[photo].resize((160, 120))
        shot = np.asarray(clean).copy()
        shot[20:60, 20:80] = (250, 20 * number, 5)
        rows.append(
            {
                "input": _make_cell(Image.fromarray(shot), f"place{number}_0.jpg"),
                "gt": _make_cell(clean, f"place{number}_0.jpg", quality),
                "object_mask": _make_cell(mask, f"place{number}_0.jpg"),
                "object_effect_mask": None,
                "subset": "captured",
                "split": splits[number],
            }
        )
    folder.mkdir()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    cell = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"subset": pa.string(), "split": pa.string()}
    table = pa.table({name: pa.array(values, kinds.get(name, cell)) for name, values in columns.items()})
    pq.write_table(table, folder / "a.parquet")


def test_rows_in_obers_layout_are_joined_too(tmp_path, photos):
    """Two names over one clean picture are one scene, of which the rows then say so; a third keeps its own."""
    _write_ober(tmp_path / "set", photos, (None, None, None))
    items, before = _list_items(tmp_path, {"ober": {"path": str(tmp_path / "set")}})
    listed = [item for _, item in sorted(items.items())]
    assert [item["scene_id"] for item in listed] == ["place0", "place1", "place0"]
    assert _list_items(tmp_path, {"ober": {"path": str(tmp_path / "set")}})[1] == before  # from what was remembered
    source = Ober(OberParams(path=str(tmp_path / "set")))
    source.setup()
    assert [source.process_one(item).records[0]["scene_id"] for item in listed] == ["place0", "place1", "place0"]


def test_flows_of_a_run_share_scenes(tmp_path, photos):
    """Copies in a later flow join the scenes of the earlier one, which keeps its own; a change there is followed."""
    for number, photo in enumerate(photos[:3]):
        _save(photo, tmp_path / "a" / "gt" / f"{number}.png")
        _save(photo, tmp_path / "a" / "input" / f"{number}.png")
        _save(photo, tmp_path / "b" / f"{number}.jpg", quality=60)
    _save(photos[3], tmp_path / "b" / "3.jpg")
    flows = {
        "a": {"source": {"pairs": {"path": str(tmp_path / "a")}}, "stages": []},
        "b": {"source": {"photos": {"path": str(tmp_path / "b")}}, "stages": []},
    }
    resolved = plan(*parse(json.dumps({"name": "x", "flows": flows}), "r.yaml"))
    run = Store(tmp_path / "run")

    def list_scenes(flow, *earlier):
        shards = list_stored_shards(resolved.flows[flow], resolved.sources[flow], run, None, earlier)
        return {Path(item["origin"]).stem: item["scene_id"] for shard in shards for item in shard.items}, shards.ids

    (first, ids), (alone, _) = list_scenes("a"), list_scenes("b")
    assert not set(first.values()) & set(alone.values())
    second, joined_ids = list_scenes("b", "a")
    assert {name: second[name] for name in first} == first
    assert second["3"] == alone["3"]
    assert list_scenes("a") == (first, ids)
    assert list_scenes("b", "a") == (second, joined_ids)
    _save(photos[3], tmp_path / "a" / "gt" / "3.png")
    _save(photos[3], tmp_path / "a" / "input" / "3.png")
    again, _ = list_scenes("a")
    assert {name: again[name] for name in first} == first
    third, _ = list_scenes("b", "a")
    assert third == again


@pytest.mark.parametrize("kind", ["photos", "pairs"])
def test_listing_reads_each_file_once(tmp_path, photos, monkeypatch, kind):
    """Ids and fingerprints come from one reading; a second listing reads nothing."""
    folder = tmp_path / "set"
    for number, photo in enumerate(photos):
        for part in ("input", "gt") if kind == "pairs" else ("",):
            _save(photo, folder / part / f"{number}.png")
    reads = Counter()
    plain = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *rest, **how: (reads.update([path.name]), plain(path, *rest, **how))[1]
    )
    source = {kind: {"path": str(folder)}}
    _list_items(tmp_path, source)
    pictures = {name: count for name, count in reads.items() if name.endswith(".png")}
    assert set(pictures) == {f"{number}.png" for number in range(len(photos))}
    assert set(pictures.values()) == {2 if kind == "pairs" else 1}  # of a pair, one in either folder
    reads.clear()
    _list_items(tmp_path, source)
    assert not any(name.endswith(".png") for name in reads)


def test_a_clean_picture_in_two_published_splits_is_told(tmp_path, photos, caplog):
    """Published splits are kept, and the run says where they share pictures; splits of other pictures are no fault."""
    for name, splits, divided in (
        ("good", ("train", "test", "train"), False),
        ("bad", ("train", "train", "test"), True),
    ):
        _write_ober(tmp_path / name, photos, splits)
        path = str(tmp_path / name)
        caplog.clear()
        _list_items(tmp_path, {"ober": {"path": path}})
        assert ("in several splits, equal or nearly: 1 (" in caplog.text) == divided
        caplog.clear()
        _list_items(tmp_path, {"ober": {"path": path, "keep_split": False}})
        assert not caplog.text
