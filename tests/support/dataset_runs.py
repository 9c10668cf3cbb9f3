"""Runs with a dataset of triplets, for formats to export."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.report_pages import triplet
from support.run_tables import write_table

from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind
from rasura.manifests.storage import Store

WIDE = {**PROVENANCE, **TRIPLET, "mask_box": Kind.MASK, "mask_box_fit": Kind.FLOAT}


def make_noise(number: int, side: int = 24) -> Any:
    return np.random.default_rng(number).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)


def make_row(number: int, side: int = 24, **fields: Any) -> dict[str, Any]:
    """A triplet of noise; every third scene has several rows, some names are awkward."""
    scene = ("plain", "with_underscore_7", "a/b c%", "日本", "x.y")[number % 5]
    split = "test" if number % 5 == 1 else "train"
    source = make_noise(number, side)
    mask = np.zeros(source.shape[:2], bool)
    mask[4:12, 5:15] = True
    target = source.copy()
    target[mask] = make_noise(number + 10_000, side)[mask]
    whole = {"source": source, "target": target, "mask": mask, "foreground_mask": mask, "mask_box": mask}
    row = triplet(number) | whole | {"scene_id": scene, "split": split, "kind": "captured", "mask_box_fit": 0.5}
    return {name: value for name, value in (row | fields).items() if name in WIDE}


def read_files(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_finished_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    shard_bytes: int = 10**6,
    flow: str = "made",
    columns: Mapping[str, Kind] = WIDE,
    shard_rows: int = 3,
) -> Store:
    """A run that ended with these triplets, in one flow."""
    run = Store(folder)
    write_table(run, flow, rows, columns, shard_rows)
    names = [name.removesuffix(".json") for name in run.files(f"tables/{flow}/lines")]
    run.write(f"tables/{flow}/work.json", json.dumps(names).encode())
    flows = {flow: {"part": "p", "upstream": [], "stages": [], "columns": {n: str(k) for n, k in columns.items()}}}
    plan = {"name": "cars", "recipe": "0123", "flows": flows, "dataset": [flow]}
    run.write("plan.json", json.dumps(plan).encode())
    recipe = {
        "name": "cars",
        "flows": {flow: {"source": {"studio": {"count": 1}}}},
        "splits": {"test": 0.1, "train": 0.9},
        "dataset": {"flows": [flow], "shard_bytes": shard_bytes},
    }
    run.write("recipe.yaml", json.dumps(recipe).encode())
    return run
