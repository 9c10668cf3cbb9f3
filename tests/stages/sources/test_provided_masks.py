"""Masks that come with pictures are checked against what changed; photographs with masks; columns without pictures."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.pair_scenes import compute_iou, make_scene

from rasura.manifests.images import MAX_PIXELS, encode_mask
from rasura.manifests.storage import Store
from rasura.stages.imaging.mask_change import choose_polarity, find_change, measure_mask_change, score_mask
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.sources.pairs import Pairs
from rasura.stages.sources.photos import Photos
from rasura.stages.sources.provided_masks import load_mask
from rasura.stages.stage import Kept, Rejected

cv2.setNumThreads(1)


def encode(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return out.getvalue()


def run_source(source: Any, folder: Path) -> dict[str, Any]:
    """Outcomes by the name of their origin."""
    source.setup()
    items = source.items(RunContext(Store(folder), "rows"))
    assert len({item["id"] for item in items}) == len(items)
    return {f"{Path(i['origin']).name} {i['id']}": source.process_one({**i, "content": i["id"]}) for i in items}


@pytest.mark.parametrize("noise", [0, 5])
@pytest.mark.parametrize("seed", [810, 811, 812])
def test_the_change_tells_the_polarity_and_what_a_mask_is_worth(seed: int, noise: int) -> None:
    """The object's mask and its inverse give the same mask, each with its polarity; a part of it and its box are kept
    with a score; where nothing changed, or under the other polarity, it is rejected with the values."""
    pair = make_scene(seed, noise=noise)
    mask, rows = pair.object_mask, np.flatnonzero(pair.object_mask.any(axis=1))
    for file, polarity in ((mask, "white"), (~mask, "black")):
        for asked in ("auto", polarity):
            outcome = load_mask(encode(file), pair.source, pair.clean, asked, MAX_PIXELS)
            assert not isinstance(outcome, Rejected)
            assert (outcome[0] == mask).all()
            assert outcome[1]["mask_polarity"] == polarity
            assert outcome[1]["mask_changed"] > 0.9
        other = load_mask(
            encode(file), pair.source, pair.clean, {"white": "black", "black": "white"}[polarity], MAX_PIXELS
        )
        assert isinstance(other, Rejected)
        assert other.reason == "mask explains no change"
        assert "of the mask changed" in other.detail
    change = find_change(pair.source, pair.clean)
    half = mask & (np.arange(len(mask))[:, None] < rows.mean())
    box = np.zeros_like(mask)
    box[rows[0] : rows[-1] + 1, np.flatnonzero(mask.any(axis=0))] = True
    assert score_mask(measure_mask_change(half, change)) > 0.8
    assert choose_polarity(box, [~box], change).polarity == "white"
    still = load_mask(encode(mask), pair.clean, pair.clean, "auto", MAX_PIXELS)
    assert isinstance(still, Rejected)
    far = np.zeros_like(mask)
    far[:12, :12] = True
    assert isinstance(load_mask(encode(far), pair.source, pair.clean, "auto", MAX_PIXELS), Rejected)


def test_a_mask_without_a_change_to_tell_is_not_guessed() -> None:
    """On a photograph alone, a mask of most of the picture is rejected until its polarity is said."""
    photo = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[5:20, 5:30] = True
    kept = load_mask(encode(mask), photo, None, "auto", MAX_PIXELS)
    assert not isinstance(kept, Rejected)
    assert kept[1]["mask_change"] is None
    unclear = load_mask(encode(~mask), photo, None, "auto", MAX_PIXELS)
    assert isinstance(unclear, Rejected)
    assert "mask_polarity" in unclear.detail
    said = load_mask(encode(~mask), photo, None, "black", MAX_PIXELS)
    assert not isinstance(said, Rejected)
    assert (said[0] == mask).all()
    for file, reason in ((np.zeros_like(mask), "empty mask"), (mask[:30], "mask of another size")):
        rejected = load_mask(encode(file), photo, None, "auto", MAX_PIXELS)
        assert isinstance(rejected, Rejected)
        assert rejected.reason == reason


def test_pairs_check_their_masks_at_the_size_that_is_asked_for(tmp_path: Path) -> None:
    """A pair keeps a small mask at `max_side`, and one that explains nothing is rejected instead of segmented."""
    pair = make_scene(813)
    for folder, pixels in (("input", pair.source), ("gt", pair.clean)):
        (tmp_path / folder).mkdir()
        for name in ("good", "other"):
            (tmp_path / folder / f"{name}.png").write_bytes(encode(pixels))
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask" / "GOOD.PNG").write_bytes(encode(pair.object_mask.astype(np.uint8)))
    far = np.zeros_like(pair.object_mask)
    far[:10, :10] = True
    (tmp_path / "mask" / "other.png").write_bytes(encode(far))
    outcomes = run_source(Pairs(Pairs.Params(path=str(tmp_path), max_side=160)), tmp_path / "run")
    good, other = (next(o for name, o in outcomes.items() if name.startswith(start)) for start in ("good", "other"))
    assert isinstance(good, Kept)
    record = good.records[0]
    assert record["given_mask"].shape == record["input"].shape[:2]
    assert max(record["given_mask"].shape) == 160
    assert record["mask_values"] == "L, grey, values 0, 1"
    assert isinstance(other, Rejected)
    assert other.reason == "mask explains no change"


def make_photos(folder: Path) -> tuple[Path, np.ndarray]:
    """Two photographs, one with a mask beside it and in a folder, and annotations of both."""
    mask = np.zeros((40, 60), bool)
    mask[10:20, 20:40] = True
    photos = folder / "photos"
    (photos / "sub").mkdir(parents=True)
    (folder / "masks" / "sub").mkdir(parents=True)
    for number, name in enumerate(("cat.jpg", "sub/dog.jpg")):
        Image.fromarray(np.full((40, 60, 3), 40 + number, np.uint8)).save(photos / name, "JPEG")
    for place in (photos / "sub" / "dog_mask.png", folder / "masks" / "sub" / "Dog.png"):
        place.write_bytes(encode(mask))
    (folder / "masks" / "spare.png").write_bytes(encode(mask))
    runs = [10 + 20 * 40, *[10, 30] * 19, 10, 20 + 20 * 40]
    polygon = [20, 10, 40, 10, 40, 20, 20, 20]
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [polygon]},
        {"id": 2, "image_id": 7, "category_id": 4, "segmentation": {"size": [40, 60], "counts": runs}},
        {"id": 3, "image_id": 7, "category_id": 4, "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": runs}},
        {"id": 4, "image_id": 7, "category_id": 4, "segmentation": []},
        {"id": 5, "image_id": 7, "category_id": 4, "segmentation": {"size": [60, 40], "counts": runs}},
    ]
    coco = {
        "images": [{"id": 7, "file_name": "sub/dog.jpg", "width": 60, "height": 40}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "ball"}],
    }
    (photos / "instances.json").write_text(json.dumps(coco))
    return photos, mask


@pytest.mark.parametrize("masks", [{"ending": "_mask"}, "masks", "photos/instances.json"])
def test_photographs_come_with_their_masks(tmp_path: Path, masks: Any) -> None:
    """Files beside them, a folder, or COCO's polygons and run lengths give the object's mask; a photograph without one,
    and an annotation that is none, are rejected with the reason."""
    photos, mask = make_photos(tmp_path)
    if isinstance(masks, str):
        masks = str(tmp_path / masks)
    source = Photos(
        Photos.Params.model_validate(
            {"path": str(photos), "masks": masks, "pattern": "*.*g" if isinstance(masks, dict) else "*.jpg"}
        )
    )
    outcomes = list(run_source(source, tmp_path / "run").values())
    kept = [outcome.records[0] for outcome in outcomes if isinstance(outcome, Kept)]
    assert all((record["object_mask"] == mask).all() for record in kept)
    assert set(source.schema({})) == set(kept[0]) | {"split", "seed", "stages", "weights", "bytes"}
    reasons = sorted(outcome.reason for outcome in outcomes if isinstance(outcome, Rejected))
    if isinstance(masks, str) and masks.endswith(".json"):
        assert sorted(record["label"] for record in kept) == ["ball", "dog"]
        assert len({record["scene_id"] for record in kept}) == 1
        assert reasons == ["group of objects", "no mask", "no mask in its file", "no mask in its file"]
    else:
        assert (len(kept), reasons) == (1, ["no mask"])


def test_masks_of_no_photograph_are_counted(tmp_path: Path) -> None:
    """A mask whose photograph is not there is passed over with that reason."""
    photos, _ = make_photos(tmp_path)
    context = RunContext(Store(tmp_path / "run"), "photos")
    params = {"path": str(photos), "pattern": "*.jpg", "masks": str(tmp_path / "masks")}
    Photos(Photos.Params.model_validate(params)).items(context)
    assert context.passed_over["mask of no photo"] == 1


PICTURE = encode(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array(["photos/1.jpg"]), "holds text ('photos/1.jpg')"),
        (pa.array([base64.b64encode(PICTURE).decode()]), "holds base64 text"),
        (pa.array([base64.b64encode(PICTURE)]), "holds base64 text as bytes"),
        (pa.array([b"photos/1.jpg"]), "holds text as bytes ('photos/1.jpg')"),
        (pa.array([[1, 2, 3]]), "holds a list ([1, 2, 3])"),
        (
            pa.array([{"bytes": None, "path": "1.jpg"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "no bytes",
        ),
        (pa.array([{"path": "1.jpg"}]), "a path and no bytes ('1.jpg')"),
    ],
)
def test_a_column_without_pictures_ends_the_run_with_what_it_holds(tmp_path: Path, column: Any, text: str) -> None:
    """One error before the start names the column and what is in it."""
    pq.write_table(pa.table({"image": column}), tmp_path / "rows.parquet")
    with pytest.raises(MissingInput) as error:
        Photos(Photos.Params(path=str(tmp_path))).items(RunContext(Store(tmp_path / "run"), "photos"))
    assert text in str(error.value)
    assert "column 'image'" in str(error.value)


def test_rows_are_read_in_batches_whatever_the_row_group(tmp_path: Path) -> None:
    """All rows of one large row group are listed and read with a few in memory; masks in a column are used."""
    rng = np.random.default_rng(5)
    mask = np.zeros((100, 300), bool)
    mask[20:40, 30:80] = True
    pictures = [encode(rng.integers(0, 256, (100, 300, 3), dtype=np.uint8)) for _ in range(90)]
    table = pa.table({"image": pa.array(pictures), "mask": pa.array([encode(mask)] * 89 + [None])})
    pq.write_table(table, tmp_path / "rows.parquet", compression="none", use_dictionary=False, write_batch_size=2)
    del table
    source = Photos(Photos.Params.model_validate({"path": str(tmp_path / "rows.parquet"), "masks": {"column": "mask"}}))
    source.setup()
    before, most, outcomes = pa.total_allocated_bytes(), 0, []
    for item in source.items(RunContext(Store(tmp_path / "run"), "photos")):
        outcomes.append(source.process_one({**item, "content": item["id"]}))
        most = max(most, pa.total_allocated_bytes() - before)
    assert [type(outcome) for outcome in outcomes] == [Kept] * 89 + [Rejected]
    assert compute_iou(outcomes[7].records[0]["object_mask"], mask) == 1
    assert most < sum(map(len, pictures)) / 2


@pytest.mark.parametrize("seed", [5, 6])
def test_a_mask_explains_nothing_where_all_of_the_picture_changed(seed: int) -> None:
    """All of the mask changed, but so did the rest: the clean picture is of another place, or moved by 40 px."""
    rng = np.random.default_rng(seed)
    clean = np.clip(cv2.resize(rng.normal(130, 60, (24, 32, 3)).astype(np.float32), (320, 240)), 20, 235)
    mask = np.zeros((240, 320), bool)
    mask[90:150, 120:200] = True
    source = np.where(mask[..., None], 5, clean * np.linspace(0.75, 1.0, 320)[None, :, None]).astype(np.uint8)
    clean = clean.astype(np.uint8)
    data = encode_mask(mask)
    assert not isinstance(load_mask(data, source, clean, "auto", MAX_PIXELS), Rejected), "a broad shadow beside it"
    for wrong in (np.roll(clean, 40, 0), np.ascontiguousarray(clean[:, ::-1])):
        outcome = load_mask(data, source, wrong, "auto", MAX_PIXELS)
        assert isinstance(outcome, Rejected)
        assert outcome.reason == "mask explains no change"
