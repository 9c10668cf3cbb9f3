"""The inputs of a flow are listed once, kept as Parquet, and listed again exactly when they have changed."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import digest, environment, write_recipe
from support.run_tables import write_table

from rasura.manifests.compacted.listing import GROUP_SHARDS, Listing, read_listing_index, write_listing
from rasura.manifests.errors import RunError
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.shards import DamagedFile
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.pipeline.recipe.load import load
from rasura.pipeline.recipe.plan import Plan, plan
from rasura.pipeline.recipe.shards import StoredShards, list_shards
from rasura.pipeline.run import listing
from rasura.pipeline.run.listing import list_stored_shards
from rasura.stages.sources import scenes
from rasura.stages.sources.files import RunContext, read_file
from rasura.stages.sources.flow import Flow, FlowParams


def refuse_task(function: Callable[..., Any], *arguments: Any) -> Any:
    raise AssertionError(f"{function} was sent to a worker")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine different pictures, of which two have the same bytes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (24, 32, 3), np.uint8))
    shutil.copy(folder / "3.png", folder / "copy.png")
    return folder


def make_plan(folder: Path, photos: Path, **params: Any) -> Plan:
    source = {"photos": {"path": str(photos), "licence": "CC0-1.0", **params}}
    return plan(*load(write_recipe(folder, flows={"f": {"source": source}}, engine={"shard_rows": 2})))


def list_now(resolved: Plan, run: Store) -> StoredShards:
    return list_stored_shards(resolved.flows["f"], resolved.sources["f"], run, refuse_task)


def test_a_stored_listing_is_what_the_source_lists(photos: Path, tmp_path: Path) -> None:
    """Ids and items are those of a listing in memory; of the items, the list arrives where a shard is sent."""
    import pickle

    resolved, run = make_plan(tmp_path, photos), Store(tmp_path / "run")
    stored = list_now(resolved, run)
    fresh = list_shards(resolved.flows["f"], resolved.sources["f"], Store(tmp_path / "other"))
    assert stored.ids == [shard.id for shard in fresh]
    assert [list(shard.items) for shard in stored] == [list(shard.items) for shard in fresh]
    assert stored.inputs == 9
    assert sum(len(shard.items) for shard in stored) == 9
    sent = pickle.loads(pickle.dumps(stored[1].items))
    assert type(sent) is list
    assert sent == fresh[1].items
    done = {stored.ids[0], stored.ids[3]}
    assert [shard.id for shard in stored.leave_out(done)] == [id for id in stored.ids if id not in done]


def test_inputs_are_listed_again_when_they_have_changed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged folder is not listed again. A new, changed or renamed file, another parameter, and a damaged or
    missing file of the listing are."""
    run, counts = Store(tmp_path / "run"), {"listed": 0}
    original = listing.cut_into_shards

    def count(*arguments: Any) -> Any:
        counts["listed"] += 1
        return original(*arguments)

    monkeypatch.setattr(listing, "cut_into_shards", count)

    def is_listed(resolved: Plan) -> bool:
        before = counts["listed"]
        stored = list_now(resolved, run)
        fresh = list_shards(resolved.flows["f"], resolved.sources["f"], Store(tmp_path / "fresh"))
        assert stored.ids == [shard.id for shard in fresh]
        return counts["listed"] > before

    resolved = make_plan(tmp_path, photos)
    assert is_listed(resolved)
    assert not is_listed(resolved)
    assert not is_listed(make_plan(tmp_path, photos))
    cv2.imwrite(str(photos / "new.png"), np.full((24, 32, 3), 9, np.uint8))
    assert is_listed(resolved)
    (photos / "new.png").rename(photos / "renamed.png")
    assert is_listed(resolved)
    cv2.imwrite(str(photos / "renamed.png"), np.full((24, 33, 3), 9, np.uint8))
    assert is_listed(resolved)
    assert not is_listed(resolved)
    assert is_listed(make_plan(tmp_path, photos, licence="CC-BY-4.0"))
    assert is_listed(resolved)
    for name in ("index.json", next(name for name in run.files("listings/f") if name != "index.json")):
        path = tmp_path / "run" / "listings" / "f" / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert is_listed(resolved), name
        path.unlink()
        assert is_listed(resolved), name


def test_items_that_cannot_be_kept_are_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, run = make_plan(tmp_path, photos), Store(tmp_path / "run")
    items = [{"id": "a", "origin": "a", "scene_id": None, "level": np.int64(3)}]
    monkeypatch.setattr(resolved.sources["f"], "items", lambda run: items)
    with pytest.raises(RunError, match=r"source 'photos': an item has a value that is not kept .*int64"):
        list_now(resolved, run)
    assert read_listing_index(run, "f") is None


def test_a_file_that_cannot_be_read_is_tried_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its listing is not taken for that of a file that can be: neither its size nor its time need change."""
    resolved, run = make_plan(tmp_path, photos), Store(tmp_path / "run")

    def refuse(path: str) -> bytes:
        if path.endswith("/0.png"):
            raise PermissionError(path)
        return read_file(path)

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "read_file", refuse)
        closed = list_now(resolved, run)
        assert closed.ids == list_now(resolved, run).ids
    fresh = list_shards(resolved.flows["f"], resolved.sources["f"], Store(tmp_path / "fresh"))
    assert list_now(resolved, run).ids == [shard.id for shard in fresh] != closed.ids


def test_listing_the_rows_of_a_table_opens_no_shard(tmp_path: Path) -> None:
    """Ids and origins are in the manifest. A manifest of an earlier version has none: then the shards are read."""
    run = Store(tmp_path / "run")
    columns = {**PROVENANCE, "number": Kind.INT}
    rows = [{"id": f"{n * 7 % 20:02d}", "origin": f"photos/{n}.jpg", "number": n} for n in range(20)]
    for start in range(0, 20, 5):
        rows[start : start + 5] = sorted(rows[start : start + 5], key=lambda row: str(row["id"]))
    write_table(run, "made", rows, columns, 5)
    source = Flow(FlowParams(of="made"), 0)
    items = source.items(RunContext(run, "f"))
    light = Tables(run).table("made").read_light(["id", "origin"]).to_pylist()
    assert [{**item} for item in items] == light
    for path in (tmp_path / "run/tables/made/shards").iterdir():
        path.write_bytes(b"")
    assert source.items(RunContext(run, "f")) == items
    import pyarrow.parquet as pq

    manifest = tmp_path / "run/tables/made/manifest.parquet"
    table = pq.read_table(manifest)
    kept = table.select(["shard", "rows", "line"])
    metadata = {key: table.schema.metadata[key] for key in (b"columns", b"whole")}
    pq.write_table(kept.replace_schema_metadata(metadata), manifest)
    with pytest.raises(DamagedFile, match="shards/"):
        source.items(RunContext(run, "f"))


def test_a_shard_is_read_from_any_part_of_a_long_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part and row group it is in; a shorter listing in its place leaves no file of the longer one."""
    import rasura.manifests.compacted.listing as module

    monkeypatch.setattr(module, "PART_SHARDS", 2 * GROUP_SHARDS)
    run, count = Store(tmp_path), 5 * GROUP_SHARDS + 3
    shards = [
        (f"shard{n}", [{"id": f"{n}.{k}", "path": "\udce9", "area": 0.1} for k in range(n % 3)]) for n in range(count)
    ]
    stored = Listing(run, write_listing(run, "f", shards, "key"))
    assert stored.ids == [id for id, _ in shards]
    for place in [*range(0, count, 97), count - 1, 0]:
        assert stored.read_items(place) == shards[place][1]
    assert len(stored.index.parts) == 3
    write_listing(run, "f", shards[:1], "key")
    assert len(run.files("listings/f")) == 2
    index = read_listing_index(run, "f")
    assert index is not None
    assert Listing(run, index).ids == ["shard0"]


DRIVER = """
import sys
from rasura.pipeline.run import flow_tables, listing, run, starter
flow_tables.MANY_ITEMS = listing.MANY_ITEMS = starter.MANY_ROWS = int(sys.argv[3])
run.run(sys.argv[1], sys.argv[2], quiet=True)
"""


@pytest.mark.ray
def test_many_inputs_are_listed_and_exported_by_workers(tmp_path: Path) -> None:
    """The tables, what lists their inputs, and the dataset have the same bytes as where the driver does it."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for level in range(9):
        cv2.imwrite(str(photos / f"{level}.png"), np.full((16, 16, 3), 20 * level, np.uint8))
    flows = {
        "made": {"source": {"photos": {"path": str(photos)}}},
        "numbers": {"source": {"synthetic:Numbers": {"count": 12, "side": 256}}, "stages": ["synthetic:Triplet"]},
        "chosen": {"source": {"flow": {"of": "numbers"}}, "stages": [{"select": {"keep": {"number": {"min": 1}}}}]},
    }
    dataset = {"flows": ["chosen"], "shard_bytes": 10**6}
    recipe = write_recipe(tmp_path, flows=flows, engine={"shard_rows": 4}, dataset=dataset)
    for name, many in (("here", 10**6), ("worker", 8)):
        command = [sys.executable, "-c", DRIVER, str(recipe), str(tmp_path / name), str(many)]
        subprocess.run(command, env=environment(), check=True, timeout=600)
    parts = ["tables", "listings", "dataset"]
    files = digest(tmp_path / "here", parts)
    assert sum(name.startswith("dataset/data/train") for name in files) > 2
    assert files == digest(tmp_path / "worker", parts)
