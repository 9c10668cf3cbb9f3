"""Triplets as tensors: `rasura.torch_dataset`, with batches in an order that can be resumed."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from rasura.manifests.boxes import compute_bounds
from rasura.manifests.checks.rows import DIFFERENT_SIZES
from rasura.manifests.errors import InputError
from rasura.manifests.formats.dataset_rows import DatasetRow, find_superseded, list_rows, read_raw_row, read_raw_rows
from rasura.manifests.formats.filters.crops import Crop, find_box, measure_coverage, scale_picture, scale_size
from rasura.manifests.formats.filters.rows import Check, explain_first, replace_verdicts
from rasura.manifests.formats.trainers.instructions import render_instruction
from rasura.manifests.ids import compute_seed, hash_json
from rasura.manifests.images import decode_image, decode_mask, read_size
from rasura.manifests.json_lines import parse_json
from rasura.manifests.parquet import read_parquet
from rasura.manifests.run_layout import DATASET_MANIFEST
from rasura.manifests.schemas import PICTURES, Kind, Schema, read_schema
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables

Sample = dict[str, Any]
"""`source`, `target`: float32 (3, h, w) from 0 to 1; masks: float32 (1, h, w), 1 is the object; texts and numbers."""
PICTURES_OF_TRIPLET = ("source", "target", "mask")
READ_AHEAD = 256
_TEXTS = ("id", "kind", "label")


class BadState(InputError):
    """The state of a loader that had another dataset, or another order."""


class NullColumn(InputError):
    """A column that some row does not have."""


class Rows(Protocol):
    """The rows of a run or of a dataset, which are opened anew in each process."""

    schema: Schema

    def __len__(self) -> int: ...

    def read(self, index: int, columns: Sequence[str]) -> Mapping[str, Any]:
        """Read a row as it is encoded; columns that it lacks are None."""

    def read_many(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Read these columns of all rows."""


class TableRows:
    """Rows of a run or of a loop.

    Args:
        open_tables: opens the tables.
        flows: whose rows; all where none is named.
        verdicts: of the run's review, by flow and id.
    """

    def __init__(
        self,
        open_tables: Callable[[], Tables],
        flows: Sequence[str] = (),
        verdicts: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._open, self._pid, self._tables = open_tables, os.getpid(), open_tables()
        self._change = replace_verdicts(verdicts or {})
        parts = [self._tables.table(flow) for flow in flows or self._tables.names()]
        superseded = find_superseded(parts)
        self._rows: Sequence[DatasetRow] = [row for row in list_rows(parts) if row.id not in superseded]
        self.schema: Schema = {
            "verdict": Kind.STRING,
            "score": Kind.FLOAT,
            **{name: kind for part in parts for name, kind in part.full_schema.items()},
        }

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None, "_pid": 0}

    def _get_tables(self) -> Tables:
        if self._pid != os.getpid():  # a connection to a bucket does not outlive a fork
            self._pid, self._tables = os.getpid(), self._open()
        return self._tables

    def read(self, index: int, columns: Sequence[str]) -> Mapping[str, Any]:
        row = self._rows[index]
        return self._change(row, read_raw_row(self._get_tables(), row, columns))

    def read_many(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        for start in range(0, len(self), READ_AHEAD):
            part = self._rows[start : start + READ_AHEAD]
            yield from map(self._change, part, read_raw_rows(self._get_tables(), part, columns))


class FileRows:
    """Rows of a dataset of Parquet files in Rasura's own layout.

    Args:
        location: its folder or URI.
    """

    def __init__(self, location: str) -> None:
        self._store, self._location, self._pid = Store(location), location, os.getpid()
        manifest = parse_json(self._store.read(DATASET_MANIFEST), DATASET_MANIFEST)
        if layout := manifest.get("layout"):
            raise InputError(
                f"'{location}' is an export as '{layout}', which its own readers open; export the run as 'huggingface'"
            )
        self._footers: dict[str, pq.FileMetaData] = {}
        self._groups: list[tuple[str, int]] = []
        self._places: list[tuple[int, int]] = []
        self._cached: tuple[tuple[Any, ...], list[dict[str, Any]]] | None = None
        schema: dict[str, Kind] = {}
        for file in manifest["files"]:
            with self._store.open(file["name"]) as source:
                metadata = self._footers[file["name"]] = pq.read_metadata(source)
            schema |= read_schema(metadata.schema.to_arrow_schema())
            for group in range(metadata.num_row_groups):
                self._places += [(len(self._groups), row) for row in range(metadata.row_group(group).num_rows)]
                self._groups.append((file["name"], group))
        self.schema: Schema = schema

    def __len__(self) -> int:
        return len(self._places)

    def _read_group(self, group: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        if self._pid != os.getpid():
            self._pid, self._store = os.getpid(), Store(self._location)
        key = (group, *columns)
        if self._cached is None or self._cached[0] != key:
            file, number = self._groups[group]
            names = [name for name in columns if name in self.schema]
            with self._store.open(file) as source:
                table = read_parquet(source, names, number, self._footers[file])
            self._cached = key, [{name: row.get(name) for name in columns} for row in table.to_pylist()]
        return self._cached[1]

    def read(self, index: int, columns: Sequence[str]) -> Mapping[str, Any]:
        group, row = self._places[index]
        return self._read_group(group, columns)[row]

    def read_many(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        for group in range(len(self._groups)):
            yield from self._read_group(group, columns)


class TripletDataset(Dataset[Sample]):
    """Triplets of a run or a dataset as tensors, a map-style dataset of torch. `rasura.torch_dataset` opens one.

    A row is a dict: `source`, `target` (float32, (3, h, w), 0 to 1), `mask` (float32, (1, h, w), 1 is the object),
    `id`, `kind`, `label` ("" where there is none, unless it was asked for as a column), `prompt` (the instruction to
    remove it), and the columns that were asked for. No value is null, and all pictures have one size where a size is
    given, so that torch's own functions collate them.
    """

    def __init__(
        self,
        rows: Rows,
        checks: Sequence[Check] = (),
        size: Crop | None = None,
        columns: Sequence[str] = (),
        language: str = "en",
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self._rows, self._crop, self._language, self._transform = rows, size, language, transform
        self._extra = [name for name in dict.fromkeys(columns) if name not in (*PICTURES_OF_TRIPLET, *_TEXTS)]
        light = [name for name in self._extra if rows.schema[name] not in PICTURES]
        if lists := [name for name in light if rows.schema[name] in (Kind.STRINGS, Kind.FLOATS, Kind.VERSIONS)]:
            raise InputError(f"columns with lists of several lengths cannot be collated: {', '.join(lists)}")
        without_nulls = [*light, *(name for name in _TEXTS if name in columns)]
        needed = list(dict.fromkeys(("id", *without_nulls, *(name for check in checks for name in check.columns))))
        self._indices, ids, absent = list[int](), list[str](), dict[str, int]()
        for index, raw in enumerate(rows.read_many(needed)):
            if explain_first(checks, raw):
                continue
            self._indices.append(index)
            ids.append(raw["id"])
            for name in without_nulls:
                absent[name] = absent.get(name, 0) + (raw.get(name) is None)
        for name, count in absent.items():
            if count:
                raise NullColumn(
                    f"column '{name}' is null in {count} of {len(ids)} rows, and nulls cannot be collated; leave them "
                    f'out with where="{name} is not null"'
                )
        self.identity = hash_json(ids)
        """Hash of the ids of its rows, in their order."""

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a dataset of {len(self)} rows")
        columns = [*PICTURES_OF_TRIPLET, *_TEXTS, "instruction", *self._extra]
        raw = self._rows.read(self._indices[index], columns)
        sample = self._convert(raw)
        return self._transform(sample) if self._transform else sample

    def _convert(self, raw: Mapping[str, Any]) -> Sample:
        pictures = [*PICTURES_OF_TRIPLET, *(name for name in self._extra if self._rows.schema[name] in PICTURES)]
        if absent := [name for name in pictures if raw.get(name) is None]:
            raise NullColumn(
                f'row {raw["id"]} has no {", ".join(absent)}; leave such rows out with where="{absent[0]} is not null"'
            )
        mask = decode_mask(raw["mask"]["bytes"])
        if len({read_size(raw[name]["bytes"]) for name in pictures}) > 1:
            raise InputError(f"row {raw['id']}: {DIFFERENT_SIZES}; `rasura verify` lists such rows")
        box, size = self._find_cut(mask)
        sample: Sample = {name: raw.get(name) or "" for name in _TEXTS}
        sample["prompt"] = render_instruction(raw, mask, "removal", self._language)
        for name in pictures:
            if self._rows.schema[name] is Kind.MASK:
                share = measure_coverage(mask if name == "mask" else decode_mask(raw[name]["bytes"]), box, size)
                # of a small object something stays
                covered = (share >= 0.5) if (share >= 0.5).any() else share > 0
                sample[name] = torch.from_numpy(covered.astype(np.float32))[None]
            else:
                pixels = scale_picture(decode_image(raw[name]["bytes"]), box, size)
                sample[name] = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
        return sample | {name: raw[name] for name in self._extra if name not in pictures}

    def _find_cut(self, mask: Any) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        """Find the part of a picture that is taken, and its size: part of an object that is too large for it."""
        height, width = mask.shape
        if self._crop is None:
            return (0, 0, width, height), (width, height)
        box = find_box(self._crop, mask.shape, compute_bounds(mask) if mask.any() else None, strict=False)
        assert not isinstance(box, str)
        if mask.any() and not mask[box[1] : box[3], box[0] : box[2]].any():  # of two objects, the cut has neither
            y, x = (int(places[len(places) // 2]) for places in np.nonzero(mask))
            box = find_box(self._crop, mask.shape, (x, y, x + 1, y + 1), strict=False)
            assert not isinstance(box, str)
        return box, scale_size(self._crop, box)

    def stream(self, batch_size: int, **settings: Any) -> "TripletStream":
        """Return an iterable dataset of batches: of `TripletStream`, with its settings."""
        return TripletStream(self, batch_size, **settings)

    def loader(self, batch_size: int, *, workers: int = 0, **settings: Any) -> "TripletLoader":
        """Return a loader of batches whose order can be resumed: a `TripletLoader`, with its settings."""
        return TripletLoader(self, batch_size, workers=workers, **settings)


class TripletStream(IterableDataset[Sample]):
    """The batches of one epoch, collated, for a `DataLoader` with `batch_size=None`.

    The order is a shuffle by seed and epoch. Workers take turns, so that their number changes no batch; so do ranks,
    which have equal numbers of batches: those that are left over are dropped from this epoch.

    Args:
        dataset: the triplets.
        batch_size: rows in a batch; the last one of an epoch may have fewer.
        seed: of the order.
        epoch: of the order.
        start: batches of this rank that are skipped, because they were trained on.
        shuffle: False for the order of the dataset.
        rank: of the process that trains.
        ranks: number of processes that train.
    """

    def __init__(
        self,
        dataset: TripletDataset,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < ranks:
            raise InputError(
                f"batch_size {batch_size}, rank {rank} of {ranks}: give at least 1, and a rank below ranks"
            )
        order = np.arange(len(dataset))
        if shuffle:
            order = np.random.default_rng(compute_seed(seed, "order", str(epoch))).permutation(len(dataset))
        batches = [order[first : first + batch_size].tolist() for first in range(0, len(order), batch_size)]
        if len(batches) < ranks:
            raise InputError(
                f"{len(dataset)} rows are {len(batches)} batches of {batch_size}: too few for {ranks} ranks"
            )
        self._dataset, self._start = dataset, start
        self._batches = batches[rank : len(batches) // ranks * ranks : ranks]

    def __len__(self) -> int:
        return max(0, len(self._batches) - self._start)

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for batch in self._batches[self._start + first :: step]:
            yield _collate([self._dataset[index] for index in batch])


def _collate(samples: list[Sample]) -> Sample:
    """Collate samples.

    Raises:
        InputError: their pictures have several sizes.
    """
    sizes = {tuple(value.shape[1:]) for sample in samples if torch.is_tensor(value := sample.get("source"))}
    if len(sizes) > 1:
        first, second = (f"{width} x {height}" for height, width in sorted(sizes)[:2])
        raise InputError(
            f"a batch has pictures of {first} and of {second} px, which cannot be stacked; give torch_dataset a size "
            "(size=512), or take batches of one row"
        )
    return dict(default_collate(samples))


class TripletLoader:
    """Batches of triplets, epoch after epoch, in an order that can be resumed.

    Each `for batch in loader` is one epoch, or what is left of it. `state_dict()` says which batches were handed out,
    whatever workers have read ahead; a loader that loads it goes on with the next one.

    Args:
        dataset: the triplets.
        batch_size: rows in a batch.
        workers: processes that read and decode.
        seed: of the order.
        shuffle: False for the order of the dataset.
        rank: of the process that trains.
        ranks: number of processes that train.
        options: of torch's `DataLoader`, such as `pin_memory`.
    """

    def __init__(
        self,
        dataset: TripletDataset,
        batch_size: int,
        *,
        workers: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        ranks: int = 1,
        **options: Any,
    ) -> None:
        self._dataset, self._workers, self._options = dataset, workers, options
        self._settings: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle, "ranks": ranks}
        self._rank, self._epoch, self._batch = rank, 0, 0
        self._stream()

    def _stream(self) -> TripletStream:
        return TripletStream(self._dataset, **self._settings, rank=self._rank, epoch=self._epoch, start=self._batch)

    def __len__(self) -> int:
        return len(self._stream())

    def __iter__(self) -> Iterator[Sample]:
        loader = DataLoader(self._stream(), batch_size=None, num_workers=self._workers, **self._options)
        for batch in loader:
            self._batch += 1
            yield batch
        self._epoch, self._batch = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what the order depends on, and how far it got."""
        is_done = self._batch and not len(self._stream())
        place = {"epoch": self._epoch + 1, "batch": 0} if is_done else {"epoch": self._epoch, "batch": self._batch}
        return {**self._settings, "rows": self._dataset.identity, **place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader of the same dataset was.

        Raises:
            BadState: it had other rows or settings, so that its position means nothing here.
        """
        own = {**self._settings, "rows": self._dataset.identity}
        if wrong := [name for name, value in own.items() if state.get(name) != value]:
            differences = ", ".join(f"{name} {state.get(name)!r} and not {own[name]!r}" for name in wrong)
            raise BadState(f"the state is of a loader with {differences}")
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])
