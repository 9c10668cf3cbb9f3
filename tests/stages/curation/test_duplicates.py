"""Near-duplicates: what goes is near to what stays, what stays is near to nothing that stays, and splits are apart."""

import cv2
import numpy as np
import pytest
from support.pair_scenes import make_floor
from support.run_tables import write_table

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.curation.crops import compute_windows, find_crops
from rasura.stages.curation.distinct import Distinct, DistinctParams, find_near_rows
from rasura.stages.curation.duplicates import (
    choose_kept,
    find_near_embeddings,
    find_near_fingerprints,
    find_split_leaks,
)
from rasura.stages.sources.files import RunContext
from rasura.stages.stage import InvalidValues, MissingColumns, Rejected


def test_kept_rows_are_apart_and_the_best() -> None:
    """On random graphs of near pairs, whatever the order of the pairs."""
    rng = np.random.default_rng(12)
    for _ in range(20):
        count = 30
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count) if rng.random() < 0.08]
        quality = [None if rng.random() < 0.1 else float(value) for value in rng.integers(0, 5, count)]
        names = [f"{k:02d}" for k in rng.permutation(count)]
        gone = choose_kept(pairs, quality, names)
        assert gone == choose_kept(pairs[::-1], quality, names)
        near = {frozenset(pair) for pair in pairs}
        kept = set(range(count)) - set(gone)
        assert all(frozenset((row, other)) in near and other in kept for row, other in gone.items())
        assert not any(frozenset((i, j)) in near for i in kept for j in kept)
        for row, other in gone.items():
            assert (quality[other] if quality[other] is not None else -1) >= (
                quality[row] if quality[row] is not None else -1
            )


def test_no_pair_crosses_splits_any_more() -> None:
    """The rarer split keeps its rows, whatever it is called."""
    rng = np.random.default_rng(3)
    splits = ["a"] * 20 + ["b"] * 6
    pairs = [(i, j) for i in range(26) for j in range(i + 1, 26) if rng.random() < 0.1]
    leaks = find_split_leaks(pairs, splits, [str(k) for k in range(26)])
    gone = {leak.row for leak in leaks}
    assert gone
    assert all(splits[leak.row] == "a" and splits[leak.kept] == "b" for leak in leaks)
    assert not any(splits[i] != splits[j] and i not in gone and j not in gone for i, j in pairs)


def test_embeddings_are_compared_by_direction() -> None:
    """Length does not matter; zeros, infinities and NaN are near to nothing; blocks change nothing; two networks are
    refused."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(1300, 8)).astype(np.float32)
    vectors[1200] = vectors[3] * 40
    vectors[7], vectors[8], vectors[9] = 0, np.inf, np.nan
    pairs = list(find_near_embeddings(vectors, 0.9999))
    assert (3, 1200) in pairs
    assert not {7, 8, 9} & {index for pair in pairs for index in pair}
    assert find_near_rows([None, [1.0, 0.0], None, [0.99, 0.01]]) == [(1, 3)]
    with pytest.raises(ValueError, match=r"embeddings of 2 and of 3 numbers"):
        find_near_rows([[1.0, 0.0], [1.0, 0.0, 0.0]])


def test_equal_fingerprints_are_all_near() -> None:
    """Those of one picture, mirrored or not; none is near to a row without one."""
    rng = np.random.default_rng(8)
    first, second = (rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(20, 0).repeat(20, 1) for _ in range(2))
    prints = [compute_fingerprint(p).hex() for p in (first, second, first, first[:, ::-1], first)]
    pairs = find_near_fingerprints([*prints, None])
    groups = {frozenset(pair) for pair in pairs}
    assert frozenset((0, 3)) in groups
    assert frozenset((0, 2)) in groups
    assert frozenset((2, 4)) in groups
    assert not any({1, 5} & group for group in groups)


def test_crops_are_near_to_what_they_were_cut_from() -> None:
    """Wherever they were cut, at another size, mirrored, compressed: each by its picture, and by no other one."""
    rng = np.random.default_rng(21)
    pictures = [make_picture(seed) for seed in range(6)]
    crops = []
    for picture in pictures:
        part = rng.uniform(0.8, 0.97)
        high, wide = (round(side * part) for side in picture.shape[:2])
        top, left = (int(rng.integers(0, side + 1)) for side in (picture.shape[0] - high, picture.shape[1] - wide))
        crop = cv2.resize(picture[top : top + high, left : left + wide], (160, 120), interpolation=cv2.INTER_AREA)
        crop = crop[:, ::-1] if len(crops) % 2 else crop
        crops.append(np.asarray(cv2.imdecode(cv2.imencode(".jpg", crop)[1], cv2.IMREAD_COLOR), np.uint8))
    both = [*pictures, *crops]
    prints = [compute_fingerprint(picture).hex() for picture in both]
    windows = [compute_windows(picture).hex() for picture in both]
    pairs = set(find_crops(prints, windows))
    assert {(i, i + 6) for i in range(6)} <= pairs
    assert all(j - i == 6 for i, j in pairs)
    assert not pairs <= set(find_near_fingerprints(prints)), "windows find what fingerprints do not"
    assert list(find_crops([None, *prints[:2]], [windows[0], None, windows[1]])) == []
    assert list(find_crops([], [])) == []
    plain = [np.full((60, 80, 3), colour, np.uint8) for colour in ((0, 0, 0), (255, 255, 255), (200, 30, 30))]
    flat = [compute_fingerprint(picture).hex() for picture in plain]
    assert list(find_crops(flat, [compute_windows(picture).hex() for picture in plain])) == []


def make_picture(seed: int) -> np.ndarray:
    """A picture of rectangles on a floor."""
    rng = np.random.default_rng(700 + seed)
    picture = make_floor(180, 240, 700 + seed)
    for _ in range(25):
        x, y, wide, high = (int(value) for value in rng.integers(0, (200, 150, 90, 70)))
        picture[y : y + high, x : x + wide] = rng.uniform(0, 255, 3)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def test_distinct_rows_of_tables(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Of two tables the best of each cluster stays; every other row says which one, and nothing is lost."""
    store = Store(tmp_path)
    columns = {"id": Kind.STRING, "origin": Kind.STRING, "split": Kind.STRING, "embedding": Kind.FLOATS}
    columns |= {"quality": Kind.FLOAT}
    rows = [
        ("a", "train", [1.0, 0.0], 1.0),
        ("b", "train", [1.0, 0.001], 2.0),
        ("c", "test", [1.0, 0.002], 0.5),
        ("d", "test", [0.0, 1.0], 0.1),
        ("e", "train", None, 0.1),
    ]
    records = [
        dict(zip(columns, (id, f"{id}.png", split, embedding, quality), strict=True))
        for id, split, embedding, quality in rows
    ]
    write_table(store, "first", records[:3], columns, 2)
    write_table(store, "second", records[3:], columns, 2)

    def run(**params: object) -> dict[str, str]:
        source = Distinct(DistinctParams(of=("first", "second"), by="embedding", pictures=False, **params))  # type: ignore[arg-type]
        source.tables = Tables(store)
        items = source.items(RunContext(store, "distinct", 0))
        outcomes = {item["id"]: source.process_one(item) for item in items}
        assert sorted(outcomes) == list("abcde")
        return {id: outcome.detail for id, outcome in outcomes.items() if isinstance(outcome, Rejected)}

    assert run(best="quality") == {"a": "of b (b.png)", "c": "of b (b.png)"}
    assert run(across="split") == {"a": "of c (c.png) in split 'test'", "b": "of c (c.png) in split 'test'"}
    with pytest.raises(MissingColumns, match="embedding"):
        Distinct(DistinctParams(of="first", by="embedding")).schema({"id": Kind.STRING})
    with pytest.raises(MissingColumns, match="fingerprint_windows"):
        Distinct(DistinctParams(of="first", crops=True)).schema({"id": Kind.STRING, "fingerprint": Kind.STRING})
    with pytest.raises(InvalidValues, match="by fingerprints, not by 'embedding'"):
        DistinctParams(of="first", by="embedding", crops=True)
