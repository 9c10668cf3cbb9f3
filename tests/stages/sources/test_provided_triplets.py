"""Triplets that were made elsewhere keep the guarantee of a dataset, or are rejected with the reason."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rasura.manifests.storage import Store
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.ober import Ober
from rasura.stages.sources.rorem import Rorem
from rasura.stages.stage import Kept

PHOTOS = sorted((Path(__file__).parents[2] / "data" / "pictures" / "photos").glob("*.*"))
SIZE = (240, 180)


def _make_scene(number, noise=0.0):
    """A textured ellipse with a shadow in a photograph: source, target, M_o and M_fg."""
    rng = np.random.default_rng(40 + number)
    target = np.asarray(Image.open(PHOTOS[number % len(PHOTOS)]).convert("RGB").resize(SIZE), np.uint8)
    thing = np.asarray(Image.open(PHOTOS[(number + 1) % len(PHOTOS)]).convert("RGB").resize(SIZE), np.float32)
    mask, shadow = np.zeros(SIZE[::-1], np.uint8), np.zeros(SIZE[::-1], np.float32)
    cv2.ellipse(mask, (110, 90), (28, 40), 0, 0, 360, 1, -1)
    cv2.ellipse(shadow, (145, 130), (45, 10), 0, 0, 360, 1, -1)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 2)
    source = target * (1 - 0.5 * shadow[..., None])
    bright = 60 if target[mask > 0].mean() < 128 else -60
    source = np.where(mask[..., None] > 0, np.clip(0.5 * thing + 64 + bright, 0, 255), source)
    mask = mask > 0
    foreground = mask | (shadow > 0)
    source = np.rint(np.where(foreground[..., None], source, target)).astype(np.uint8)
    if noise:
        target = np.clip(np.rint(target + rng.normal(0, noise, target.shape)), 0, 255).astype(np.uint8)
    return source, target, mask, foreground


def _encode(picture, kind="PNG", **options):
    if picture is None:
        return None
    data = io.BytesIO()
    pixels = np.where(picture, 255, 0).astype(np.uint8) if picture.dtype == bool else picture
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def _read(source, folder):
    source.setup()
    items = source.items(RunContext(Store(folder), "flow"))
    return [source.process([{**item, "content": item["id"]}])[0] for item in items]


def _read_ober(tmp_path, rows, give="triplets", **params):
    cells = {
        name: [None if data is None else {"bytes": data, "path": f"{n}_0.png"} for n, data in enumerate(column)]
        for name, column in zip(
            ("input", "gt", "object_mask", "object_effect_mask"),
            zip(*(row[:4] for row in rows), strict=True),
            strict=True,
        )
    }
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {name: pa.array(values, kind) for name, values in cells.items()}
    columns |= {"subset": pa.array([row[4] for row in rows]), "split": pa.array(["train"] * len(rows))}
    (tmp_path / "set").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), tmp_path / "set" / "a.parquet")
    source = Ober(Ober.Params(path=str(tmp_path / "set"), give=give, **params))
    return _read(source, tmp_path / "listing"), source.list_candidate_kinds()


def _make_ober_row(number, subset="real", lossy=False, noise=0.0, **changed):
    source, target, mask, foreground = _make_scene(number, noise)
    pictures = {"input": source, "gt": target, "object_mask": mask, "object_effect_mask": foreground} | changed
    encoded = [
        _encode(picture, "JPEG", quality=85) if lossy and name in ("input", "gt") else _encode(picture)
        for name, picture in pictures.items()
    ]
    return *encoded, subset


def test_kept_triplets_are_equal_outside_of_their_effects(tmp_path):
    """Exact rows keep every pixel; noise and a lossy codec outside of M_fg do not reach the target, at any size."""
    rows = [_make_ober_row(0), _make_ober_row(1, noise=2.0), _make_ober_row(2, lossy=True)]
    for side in (None, 100):
        outcomes, _ = _read_ober(tmp_path, rows, max_side=side)
        records = [outcome.records[0] for outcome in outcomes]
        for record in records:
            outside = ~record["foreground_mask"]
            assert (record["source"] == record["target"]).all(axis=2)[outside].all()
            assert record["foreground_mask"][record["mask"]].all()
            assert record["outside_change"] <= 0.1
            assert 0.3 < outside.mean() < 0.95
        levels = [record["outside_level"] for record in records]
        assert levels[0] == 0 < min(levels[1:])
        if side is None:
            assert (records[0]["target"] == _make_scene(0)[1]).all()
        for row, record in zip(rows, records, strict=True):  # what is behind the object is what the file has
            truth = np.asarray(Image.open(io.BytesIO(row[1])).convert("RGB"))
            truth = cv2.resize(truth, record["mask"].shape[::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(record["target"].astype(int) - truth)[record["mask"]].mean() < 1


def test_triplets_that_break_the_guarantee_are_rejected(tmp_path):
    source, target, mask, foreground = _make_scene(3)
    moved = source.copy()
    moved[5:45, 180:230] = 255 - moved[5:45, 180:230]
    hole = target.copy()
    hole[mask] = 127
    wrong = [
        ({"object_mask": None}, "no mask"),
        ({"object_mask": foreground, "object_effect_mask": mask}, "object outside its effects"),
        ({"object_effect_mask": np.roll(foreground, 20, 0)}, "object outside its effects"),
        ({"object_effect_mask": mask}, "change outside its effects"),
        ({"input": moved}, "change outside its effects"),
        ({"input": target, "gt": source}, "source and target swapped"),
        ({"gt": hole}, "target painted over"),
        ({"gt": np.roll(target, 4, 1)}, "pictures of two scenes"),
    ]
    for changed, reason in wrong:
        (outcome,), _ = _read_ober(tmp_path, [_make_ober_row(3, **changed)])
        assert not isinstance(outcome, Kept), reason
        assert outcome.reason == reason
        assert outcome.detail.endswith("a.parquet#0")
    (outcome,), _ = _read_ober(tmp_path, [_make_ober_row(3, object_mask=None)], "pairs")
    assert outcome.records[0]["given_mask"] is None
    assert outcome.records[0]["mask_change"] is None  # which is of the object's mask, and not of the other one


def test_a_subset_names_its_kind_in_any_case(tmp_path):
    rows = [_make_ober_row(n, subset) for n, subset in enumerate(("Edited", "EDITED ", "Simulated", "real"))]
    for give, column in (("triplets", "kind"), ("pairs", "given_kind")):
        outcomes, kinds = _read_ober(tmp_path, rows, give)
        assert kinds == {"edited"}
        found = [outcome.records[0][column] for outcome in outcomes]
        assert found == ["edited", "edited", "simulated", "captured" if give == "triplets" else None]


@pytest.fixture
def rorem(tmp_path):
    """A function that reads RORem's entries: (score, changed pictures) each."""

    def read(*entries, **params):
        folder, listed = tmp_path / "rorem", []
        for number, (score, changed) in enumerate(entries):
            source, target, mask, _ = _make_scene(changed.get("scene", number))
            pictures = {"source": source, "mask": mask, "GT": target} | changed
            entry = {"score": score} if score is not None else {}
            for part in ("source", "mask", "GT"):
                (folder / part).mkdir(parents=True, exist_ok=True)
                (folder / part / f"{number}.png").write_bytes(_encode(pictures[part]))
                entry[part] = f"{part}/{number}.png"
            listed.append(entry)
        (folder / "meta.json").write_text(json.dumps(listed))
        source = Rorem(Rorem.Params(path=str(folder), **params))
        return _read(source, tmp_path / "listing"), source.list_candidate_kinds()

    return read


@pytest.mark.parametrize("kind", ["captured", "edited"])
def test_entries_with_wrong_pictures_are_rejected(rorem, kind):
    source, target, mask, _ = _make_scene(3)
    hole = source.copy()
    hole[mask] = 128
    wrong = [
        ({"GT": np.roll(target, 4, 1)}, "pictures of two scenes"),
        ({"GT": np.roll(_make_scene(4)[1], 30, 1), "scene": 4}, "pictures of two scenes"),
        ({"mask": np.roll(mask, 30, 1)}, "mask explains no change"),
        ({"mask": np.roll(mask, 90, 1)}, "mask explains no change"),
        ({"GT": hole}, "target painted over"),
        ({"source": target, "GT": source}, "source and target swapped"),
    ]
    outcomes, _ = rorem(*((1, {"scene": 3} | changed) for changed, _ in wrong), kind=kind)
    assert [getattr(outcome, "reason", "kept") for outcome in outcomes] == [reason for _, reason in wrong]
    outcomes, _ = rorem(*((1, {}) for _ in range(4)), kind=kind)
    assert all(isinstance(outcome, Kept) for outcome in outcomes)


def test_no_reaches_no_dataset(rorem):
    """A verdict no is rejected, or makes its flow one of candidates; scores beyond 0 and 1 are no scores."""
    outcomes, kinds = rorem((1, {}), (0, {}), (2.0, {}), (-1, {}), kind="captured")
    reasons = [getattr(outcome, "reason", "kept") for outcome in outcomes]
    assert reasons == ["kept", "verdict no", "score out of range", "score out of range"]
    assert kinds == frozenset()
    outcomes, kinds = rorem((1, {}), (0, {}), kind="captured", rejected=True)
    assert [outcome.records[0]["verdict"] for outcome in outcomes] == ["yes", "no"]
    assert kinds == {"captured"}


def test_contradicting_scores_are_rejected(rorem):
    outcomes, _ = rorem((1, {"scene": 2}), (0, {"scene": 2}), (1, {"scene": 3}), (None, {"scene": 2}))
    reasons = [getattr(outcome, "reason", "kept") for outcome in outcomes]
    assert reasons == ["scores contradict", "scores contradict", "kept", "scores contradict"]
    assert "no score, score 0, score 1" in outcomes[0].detail
