"""Names from data never become paths: a store keeps to its folder, and a split is a word wherever rows enter."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.dataset_runs import make_finished_run, make_row

from rasura.manifests.formats.dataset_rows import NotTriplets
from rasura.manifests.ids import is_split_name
from rasura.manifests.storage import RunLocked, Store, StoreError
from rasura.pipeline.export import export_run
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.ober import Ober
from rasura.stages.sources.rorem import Rorem
from rasura.stages.stage import Kept, Rejected

OUTSIDE = ("/etc/x", "../x", "data/../../x", "..", "data/..", "a\0b")
SPLITS = ("../../x", "/tmp/x", "a/b", "..", "train\n", "", "a" * 65, "te st")


@pytest.mark.parametrize("uri", ["disk", "memory://names"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_store_accepts_no_name_that_leaves_it(tmp_path: Path, uri: str, name: str) -> None:
    """Every operation refuses it, on a disk and on an object store, and nothing outside is written or deleted."""
    root = tmp_path / "store"
    (root / "data").mkdir(parents=True)
    (tmp_path / "x").write_bytes(b"mine")
    store = Store(root if uri == "disk" else uri)
    operations: list[Any] = [store.read, store.open, store.exists, store.delete, store.files, store.folders, store.sub]
    operations += [lambda place: store.write(place, b"theirs"), lambda place: store.create(place, b"theirs")]
    for operation in operations:
        with pytest.raises(StoreError, match="no name below a store"):
            operation(name)
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_a_store_follows_no_link_out_of_it(tmp_path: Path) -> None:
    """A linked folder or file of a foreign run is not read, written or deleted; a link inside, and to the run itself,
    is as good as what it leads to; a lock that is a link leaves the file behind it alone."""
    outside, root = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    (outside / "x").write_bytes(b"mine")
    (root / "data").mkdir(parents=True)
    (root / "away").symlink_to(outside)
    (root / "data" / "x").symlink_to(outside / "x")
    (root / "near").symlink_to(root / "data")
    store = Store(root)
    for operation in (store.read, store.open, store.exists, store.sub):
        for name in ("away/x", "data/x"):
            with pytest.raises(StoreError, match="leads out of"):
                operation(name)
    with pytest.raises(StoreError, match="leads out of"):
        store.write("away/y", b"theirs")
    with pytest.raises(StoreError, match="leads out of"):
        store.delete("away/x")
    with pytest.raises(StoreError, match="leads out of"):
        store.files("away")
    store.write("data/x", b"ours")  # takes the link's place
    store.write("near/z", b"ours")
    assert (outside / "x").read_bytes() == b"mine"
    assert store.read("data/z") == b"ours"
    (tmp_path / "alias").symlink_to(root)
    assert Store(tmp_path / "alias").read("data/z") == b"ours"
    (root / ".lock").symlink_to(outside / "x")
    with pytest.raises((StoreError, RunLocked)), store.lock():
        pass
    assert (outside / "x").read_bytes() == b"mine"


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_a_word_where_rows_enter_and_where_they_leave(tmp_path: Path, split: str) -> None:
    """OBER's files and RORem's folders with another name lose the row with the reason; an export of a table that has
    such a row writes nothing."""
    assert not is_split_name(split)
    source = _read_ober(tmp_path, split)
    assert isinstance(source, Rejected)
    assert source.reason == "split is no word"
    assert isinstance(_read_ober(tmp_path, split, keep_split=False), Kept)
    if split:
        entry = _read_rorem(tmp_path, split)
        assert isinstance(entry, Rejected)
        assert entry.reason == "split is no word"
    run = make_finished_run(tmp_path / "run", [make_row(0, split="train"), make_row(1, split=split)])
    for format in ("rorem", "ober", "huggingface"):
        with pytest.raises(NotTriplets, match="is no word"):
            export_run(run, Store(tmp_path / "out" / format), format)
        assert not (tmp_path / "out").exists()


def _encode(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _make_pictures() -> dict[str, bytes]:
    clean = np.random.default_rng(70).integers(90, 110, (30, 40, 3), dtype=np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[8:20, 10:25] = True
    return {
        "input": _encode(np.where(mask[..., None], np.uint8(230), clean)),
        "gt": _encode(clean),
        "object_mask": _encode(mask),
    }


def _read_ober(folder: Path, split: str, **params: Any) -> Any:
    cells = {name: pa.array([{"bytes": data, "path": "7_0.png"}]) for name, data in _make_pictures().items()}
    cells |= {"object_effect_mask": cells["object_mask"], "subset": pa.array(["real"]), "split": pa.array([split])}
    pq.write_table(pa.table(cells), folder / "rows.parquet")
    source = Ober(Ober.Params(path=str(folder / "rows.parquet"), **params))
    source.setup()
    (item,) = source.items(RunContext(Store(folder / "listing"), "ober"))
    return source.process_one({**item, "content": item["id"]})


def _read_rorem(folder: Path, split: str) -> Any:
    place = folder / "rorem"
    for part, name in (("source", "input"), ("GT", "gt"), ("mask", "object_mask")):
        (place / part).mkdir(parents=True, exist_ok=True)
        (place / part / "1.png").write_bytes(_make_pictures()[name])
    entry = {part: f"{part}/1.png" for part in ("source", "mask", "GT")}
    (place / "meta.json").write_text(json.dumps([entry]))
    (place / "rows.jsonl").write_text(json.dumps({"name": "1", "split": split, "label": "a\u2028b"}) + "\n")
    source = Rorem(Rorem.Params(path=str(place)))
    source.setup()
    (item,) = source.items(RunContext(Store(folder / "listing"), "rorem"))
    return source.process_one({**item, "content": item["id"]})
