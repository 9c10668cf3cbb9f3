"""Runs to review, made without an engine: candidates with scores and labels, and captured rows with a true target."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rasura.annotator.store.database import Database
from rasura.annotator.store.reviewers import Reviewer, add_reviewer, sign_in
from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.run_layout import FlowDescription, RunPlan, table_path, write_plan
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, Schema, encode_records
from rasura.manifests.shards import StageCount, commit
from rasura.manifests.storage import Store

CANDIDATES: Schema = {**PROVENANCE, **TRIPLET, "hole_dilation": Kind.INT}
CAPTURED: Schema = {**PROVENANCE, **TRIPLET}
LABELS = ("car", "chair", "dog")


def scene(number: int, side: int = 48) -> dict[str, Any]:
    """A textured wall with a coloured box and its shadow; `target` is the wall alone."""
    random = np.random.default_rng(number)
    target = np.full((side, side * 3 // 2, 3), (140 + number * 7 % 60, 130, 150 - number * 5 % 60), np.uint8)
    target = (target + random.integers(-6, 7, target.shape)).astype(np.uint8)
    mask = np.zeros(target.shape[:2], bool)
    top, left = side // 4 + number % 5, side // 3 + number % 7
    mask[top : top + side // 3, left : left + side // 2] = True
    shadow = np.zeros_like(mask)
    shadow[top + side // 3 : top + side // 2, left : left + side // 2] = True
    source = target.copy()
    source[shadow] = (source[shadow] * 0.6).astype(np.uint8)
    source[mask] = (200, 60 + number * 11 % 90, 40)
    return {"source": source, "target": target, "mask": mask, "foreground_mask": mask | shadow}


def row(number: int, kind: str, side: int = 48, **fields: Any) -> dict[str, Any]:
    """A row of a table; a candidate's target is the truth with noise in the hole."""
    values = scene(number, side)
    if kind == "edited":
        random = np.random.default_rng(number + 1)
        noise = random.integers(-25, 26, values["target"].shape)
        values.pop("foreground_mask")
        hole = cv2.dilate(values["mask"].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        values["target"] = np.where(hole[..., None], np.clip(values["target"] + noise, 0, 255), values["source"])
        values["target"] = values["target"].astype(np.uint8)
        values |= {"remover": "telea", "score": number % 100 / 100, "hole_dilation": 2}
    identity = {"id": f"{kind[0]}{number:07d}", "kind": kind, "scene_id": f"scene {number}", "split": "train"}
    return {**identity, "label": LABELS[number % 3], "licence": "CC BY 4.0", "seed": 0, **values, **fields}


class Run:
    """A run on disk."""

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        self.flows: dict[str, FlowDescription] = {}

    def flow(self, name: str, rows: Sequence[Mapping[str, Any]], columns: Schema, shard_rows: int = 16) -> None:
        """Write a complete flow, in place of an earlier one."""
        table, commits = self.store.sub(table_path(name)), []
        for start in range(0, len(rows), shard_rows):
            part = rows[start : start + shard_rows]
            counts = [StageCount(stage, len(part), len(part), len(part)) for stage in ("made", "write")]
            commits.append(commit(table, f"{name}{start}", "p", len(part), encode_records(part, columns), (), counts))
        write_manifest(table, commits, columns)
        self.flows[name] = FlowDescription("p", stages=["made"])
        write_plan(self.store, RunPlan("review", "0123456789abcdef", self.flows))


def make_run(folder: Path, candidates: int = 12, truth: int = 0, side: int = 48) -> Run:
    """A run with candidates, and captured rows with a true target."""
    run = Run(folder)
    if truth:
        run.flow("captured", [row(500 + n, "captured", side) for n in range(truth)], CAPTURED)
    run.flow("candidates", [row(n, "edited", side) for n in range(candidates)], CANDIDATES)
    return run


def people(database: Database, names: Iterable[str], admin: bool = False) -> list[Reviewer]:
    """Add reviewers, and sign them in."""
    signed_in = []
    for name in names:
        token = database.write(lambda connection, name=name: add_reviewer(connection, name, admin))
        session = database.write(lambda connection, token=token: sign_in(connection, token, 0.0))
        assert session is not None
        signed_in.append(session[0])
    return signed_in
