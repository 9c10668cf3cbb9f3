"""`rasura.torch_dataset`: every row once an epoch, in an order that survives workers, kills and forks; no nulls."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.dataset_runs import WIDE, make_finished_run, make_row

import rasura
from rasura.manifests.errors import InputError, RasuraError
from rasura.manifests.schemas import Kind
from rasura.manifests.storage import Store
from rasura.pipeline.export import export_run

pytestmark = pytest.mark.torch

COLUMNS = {**WIDE, "effects_area": Kind.FLOAT}
COUNT = 13


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Triplets of several sizes, one of another split, and one without a measurement."""
    samples = []
    for n in range(COUNT):
        row = make_row(n, side=24 + 4 * (n % 3), id=f"r{n:02d}", scene_id=f"{n}", split="test" if n == 5 else "train")
        row["label"] = None if n == 3 else row["label"]
        samples.append(row | {"effects_area": None if n == 7 else n / 100, "verdict": None, "score": n / COUNT})
    return samples


@pytest.fixture(scope="module")
def places(rows: Sequence[Mapping[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run, and its dataset elsewhere in several files."""
    folder = tmp_path_factory.mktemp("torch")
    run = make_finished_run(folder / "run", rows, columns=COLUMNS, shard_bytes=10_000)
    export_run(run, Store(folder / "dataset"))
    return [str(folder / "run"), str(folder / "dataset")]


def list_ids(batches: Any) -> list[list[str]]:
    return [batch["id"] for batch in batches]


def test_samples_are_the_rows(places: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Of a run and of its dataset alike, to the bit; other splits are not in it."""
    for place in places:
        dataset = rasura.torch_dataset(place, columns=["foreground_mask", "score"])
        assert len(dataset) == COUNT - 1
        train = [row for row in rows if row["split"] == "train"]
        for row, sample in zip(train, map(dataset.__getitem__, range(len(dataset))), strict=True):
            assert (sample["id"], sample["label"], sample["score"]) == (row["id"], row["label"] or "", row["score"])
            for name in ("source", "target"):
                pixels = np.round(sample[name].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
                assert np.array_equal(pixels, row[name])
            for name in ("mask", "foreground_mask"):
                assert np.array_equal(sample[name].numpy()[0] > 0, row[name])
            assert "{" not in sample["prompt"]
        assert len(rasura.torch_dataset(place, split=None)) == COUNT
        assert len(rasura.torch_dataset(place, split=None, min_score=0.5, where="id < 'r10'")) == 3


def test_an_epoch_has_every_row_once(places: Sequence[str]) -> None:
    """Shuffled by seed and epoch; the same batches with two workers as with none, from a run as from its dataset; all
    pictures have the size; ranks share an epoch."""
    dataset = rasura.torch_dataset(places[0], 16)
    batches = list(dataset.loader(4, seed=3))
    assert [tuple(batch["source"].shape) for batch in batches] == [(4, 3, 16, 16)] * 3
    assert all(batch["mask"].amax(dim=(1, 2, 3)).min() == 1 for batch in batches)
    first = list_ids(batches)
    flat = list(itertools.chain(*first))
    assert sorted(flat) == sorted(set(flat))
    assert len(flat) == COUNT - 1
    assert flat != sorted(flat)
    for place in places:
        loader = rasura.torch_dataset(place, 16).loader(4, seed=3, workers=2)
        assert list_ids(loader) == first
    second = list_ids(loader)
    assert second != first
    assert sorted(itertools.chain(*second)) == sorted(flat)
    assert list_ids(dataset.loader(4, seed=4)) != first
    ranks = [list_ids(dataset.loader(2, seed=3, rank=rank, ranks=3)) for rank in range(3)]
    assert {len(batches) for batches in ranks} == {2}
    assert sorted(itertools.chain(*itertools.chain(*ranks))) == sorted(flat)


def test_torchs_own_loader_takes_the_dataset(places: Sequence[str]) -> None:
    """The map-style dataset and the stream work in a plain `DataLoader`."""
    from torch.utils.data import DataLoader

    dataset = rasura.torch_dataset(places[1], (24, 16), crop="center", transform=lambda sample: sample | {"extra": 1})
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert tuple(batch["target"].shape) == (5, 3, 16, 24)
    assert batch["extra"].tolist() == [1] * 5
    stream = dataset.stream(5, shuffle=False, start=1)
    assert list_ids(DataLoader(stream, batch_size=None)) == [[f"r{n:02d}" for n in (6, 7, 8, 9, 10)], ["r11", "r12"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_training_goes_on(places: Sequence[str], workers: int) -> None:
    """After any batch, a new loader with the state gives exactly the batches that are missing, over epochs, whatever
    workers had read ahead, and with another number of workers."""
    dataset = rasura.torch_dataset(places[1], 16)
    whole = dataset.loader(5, seed=1)
    expected = [list_ids(whole), list_ids(whole)]
    stops = [(0, 1), (0, 3), (1, 2)] if workers else [(epoch, batch) for epoch in (0, 1) for batch in (1, 2, 3)]
    for epoch, batch in stops:
        loader = dataset.loader(5, seed=1, workers=workers)
        if epoch:
            assert list_ids(loader) == expected[0]
        head = list_ids(itertools.islice(loader, batch))
        state = loader.state_dict()
        resumed = dataset.loader(5, seed=1)
        resumed.load_state_dict(state)
        tail = list_ids(resumed) if batch < 3 else []
        assert head + tail == expected[epoch]
        if not epoch:
            assert list_ids(resumed) == expected[1]


def test_a_state_of_something_else_is_refused(places: Sequence[str]) -> None:
    """Another seed, batch size or selection of rows has another order: its position would be a wrong one."""
    dataset = rasura.torch_dataset(places[0], 16)
    state = dataset.loader(4, seed=1).state_dict()
    others = (
        dataset.loader(4, seed=2),
        dataset.loader(3, seed=1),
        rasura.torch_dataset(places[0], split=None).loader(4, seed=1),
    )
    for other in others:
        with pytest.raises(RasuraError, match="the state is of a loader with"):
            other.load_state_dict(state)


def test_nulls_and_unknowns_are_refused(places: Sequence[str], tmp_path: Path) -> None:
    """Before the training starts, with what to do."""
    with pytest.raises(
        RasuraError, match=r"column 'effects_area' is null in 1 of 12 rows.*where=\"effects_area is not"
    ):
        rasura.torch_dataset(places[0], columns=["effects_area"])
    dataset = rasura.torch_dataset(places[0], columns="effects_area", where="effects_area is not null")
    assert len(dataset) == COUNT - 2
    for wrong in (
        {"columns": ["effect_area"]},
        {"where": "x = 1"},
        {"crop": "middle"},
        {"size": "0"},
        {"split": "val"},
    ):
        with pytest.raises(RasuraError):
            rasura.torch_dataset(places[0], **wrong)  # type: ignore[arg-type]
    with pytest.raises(RasuraError):
        rasura.torch_dataset(tmp_path)
    export_run(Store(places[0]), Store(tmp_path / "ober"), "ober")
    with pytest.raises(InputError, match="is an export as 'ober'"):
        rasura.torch_dataset(tmp_path / "ober")
    with pytest.raises(InputError, match="too few for 9 ranks"):
        dataset.loader(8, ranks=9)


def test_an_error_says_what_to_change(places: Sequence[str]) -> None:
    """Which splits there are and why rows are left out, a place beyond the end, a null text, sizes."""
    with pytest.raises(InputError, match=r"fits split='nope' .*its splits: 12 train, 1 test"):
        rasura.torch_dataset(places[0], split="nope")
    with pytest.raises(InputError, match=r"'train', where=\"id = 'x'\" \(12 not true of it.*1 another split"):
        rasura.torch_dataset(places[1], where="id = 'x'")
    with pytest.raises(RasuraError, match=r"column 'label' is null in 1 of 12 rows"):
        rasura.torch_dataset(places[0], columns=["label"])
    dataset = rasura.torch_dataset(places[0])
    assert dataset[-1]["id"] == "r12"
    for index in (12, -13):
        with pytest.raises(IndexError, match=rf"row {index} of a dataset of 12 rows"):
            dataset[index]
    assert len([sample["id"] for sample in dataset]) == 12, "Python's own iteration ends there"
    with pytest.raises(InputError, match=r"32 x 24 and of 36 x 28 px.*size=512"):
        list(dataset.loader(4))
    square = rasura.torch_dataset(places[0], 16)
    ranks = [list_ids(square.stream(5, rank=rank, ranks=2)) for rank in range(2)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[5], [5]], "the last two rows are left over"


def test_what_does_not_fit_is_in_it_all_the_same(tmp_path: Path) -> None:
    """An object larger than the cut, two objects at its ends, and a picture smaller than the size: a mask is never
    empty."""
    rows = []
    for n, spans in enumerate([[(0, 90)], [(0, 6), (84, 90)], [(40, 41)]]):
        row = make_row(n, side=30, id=f"{n}", split="train", verdict=None)
        source = np.random.default_rng(n).integers(0, 256, (30, 90, 3), dtype=np.uint8)
        mask = np.zeros((30, 90), bool)
        for low, high in spans:
            mask[14:15, low:high] = True
        rows.append(row | {"source": source, "target": source, "mask": mask, "foreground_mask": mask, "mask_box": mask})
    run = make_finished_run(tmp_path / "run", rows)
    for size in (8, 64, (40, 10)):
        for crop in ("object", "center", "none"):
            dataset = rasura.torch_dataset(run.uri, size, crop=crop)
            for index in range(3):
                sample = dataset[index]
                assert sample["mask"].shape[1:] == sample["source"].shape[1:]
                assert sample["mask"].any() or crop == "center"
