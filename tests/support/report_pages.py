"""Runs of grey pictures to report on, made without an engine, and the parsed page of a report."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from rasura.manifests.compacted.manifest import write_manifest
from rasura.manifests.run_layout import FlowDescription, RunPlan, write_plan
from rasura.manifests.schemas import PROVENANCE, TRIPLET, Kind, encode_records
from rasura.manifests.shards import RejectedRow, StageCount, commit
from rasura.manifests.storage import Store
from rasura.pipeline.report.pictures import PictureFiles
from rasura.pipeline.report.run_page import render

TRIPLETS = {**PROVENANCE, **TRIPLET, "alpha_psnr": Kind.FLOAT, "foreground": Kind.RGBA}
PHOTOS = {**PROVENANCE, "source": Kind.RGB, "ground_mask": Kind.MASK, "box": Kind.FLOATS, "label": Kind.STRING}
VOID = {"meta", "img", "br", "col", "input", "link"}


def triplet(number: int, **fields: Any) -> dict[str, Any]:
    """A grey picture with a bright square and its shadow."""
    target = np.full((60, 90, 3), 100 + number % 50, np.uint8)
    mask = np.zeros((60, 90), bool)
    mask[10:30, 20:50] = True
    foreground_mask = mask.copy()
    foreground_mask[30:40, 20:50] = True
    source = target.copy()
    source[foreground_mask] -= 30
    source[mask] = (250, 200, 10)
    return {
        "id": f"{number:08x}" * 4,
        "kind": "captured",
        "scene_id": f"scene {number}",
        "split": "train",
        "label": "car",
        "origin": f"in/{number}.png",
        "licence": "CC BY 4.0",
        "stages": {"matte": "1"},
        "weights": {"sam": "ab" * 32},
        "source": source,
        "target": target,
        "mask": mask,
        "foreground_mask": foreground_mask,
        "alpha_psnr": 41.5,
        "foreground": np.dstack([source, foreground_mask * np.uint8(255)])[10:40, 20:50],
    } | fields


class ReportRun:
    """A run on disk, made without an engine."""

    def __init__(self, uri: str | Path) -> None:
        self.store = Store(uri)
        self.flows: dict[str, FlowDescription] = {}
        self.describe()

    def describe(self, dataset: Sequence[str] | None = None) -> None:
        write_plan(self.store, RunPlan("cars", "0123456789abcdef", self.flows, dataset))

    def flow(
        self,
        name: str,
        records: Sequence[Mapping[str, Any]],
        columns: Mapping[str, Kind],
        rejected: Sequence[RejectedRow] = (),
        upstream: Sequence[str] = (),
        complete: bool = True,
        lost: int = 0,
        stage: str = "load",
    ) -> None:
        """Write a flow with two stages, of which the first rejects some rows, and `matte`, in shards of two rows."""
        table = self.store.sub(f"tables/{name}")
        commits = []
        for start in range(0, max(len(records), 1), 2):
            rows = records[start : start + 2]
            lost_rows = rejected if start == 0 else ()
            first = StageCount(stage, len(rows) + len(lost_rows), len(rows), len(rows))
            for row in lost_rows:
                tally = first.rejected if row.outcome == "rejected" else first.failed
                tally[row.reason] = tally.get(row.reason, 0) + 1
            counts = [first, *(StageCount(name, len(rows), len(rows), len(rows)) for name in ("matte", "write"))]
            inputs = len(rows) + len(lost_rows)
            record = commit(table, f"{name}{start}", "p", inputs, encode_records(rows, columns), lost_rows, counts)
            if lost:  # which no commit of today lets pass
                more = replace(first, inputs=first.inputs + lost, kept=first.kept + lost, out=first.out + lost)
                record = replace(record, inputs=inputs + lost, stages=[more, *counts[1:]])
            commits.append(record)
        table.write("work.json", json.dumps([record.shard for record in commits]).encode())
        if complete:
            write_manifest(table, commits, columns)
        self.plan(name, columns, upstream, stage)

    def plan(self, name: str, columns: Mapping[str, Kind], upstream: Sequence[str] = (), stage: str = "load") -> None:
        kinds = {column: str(kind) for column, kind in columns.items()}
        self.flows[name] = FlowDescription("p", upstream, [stage, "matte"], kinds)
        self.describe()

    def page(self, rows: int = 12) -> "Page":
        return Page(render(self.store, rows, PictureFiles()))


class Page(HTMLParser):
    """A parsed page: its tags must nest; its text, its attributes and its JSON are collected."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.open, self.words = html, [""], ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, Any] = {}
        self.feed(html)
        assert self.open == [""], f"tags left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "script" and self.tags[-1][1].get("type") == "application/json":
            self.json[self.tags[-1][1]["id"] or ""] = json.loads(data)
        elif self.open[-1] not in ("script", "style"):
            self.words += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        candidates = [attrs for name, attrs in self.tags if name == tag]
        return [attrs for attrs in candidates if all(attrs.get(key) == value for key, value in attributes.items())]

    def gallery(self, title: str) -> dict[str, Any]:
        """Return a table of the page by its title, with its columns."""
        gallery = next(gallery for gallery in self.json["galleries"] if gallery["title"] == title)
        return {**gallery, "columns": self.json[f"columns-{gallery['id']}"]}

    def column(self, title: str, name: str) -> list[Any]:
        """Return the values of a column of a table, as the page's script reads them."""
        gallery = self.gallery(title)
        raw = gallery["columns"].get(name, {"all": None})
        if "all" in raw:
            return [raw["all"]] * gallery["count"]
        if "codes" in raw:
            return [None if code < 0 else raw["words"][code] for code in raw["codes"]]
        return list(raw.get("numbers", raw.get("texts")))

    def pictures(self, title: str) -> dict[int, dict[str, Any]]:
        """Return the pictures of a table's rows, by the number of the row."""
        entries = self.json.get(f"pictures-{self.gallery(title)['id']}", {})
        return {int(row): entry for row, entry in entries.items()}


def count_panels(page: Page, name: str) -> int:
    """Count the pictures of a name in all tables of a page."""
    rows = [row for id, entry in page.json.items() if id.startswith("pictures-") for row in entry.values()]
    return sum(panel["name"] == name for row in rows for panel in row["panels"])


@contextmanager
def serve_report(run: Store) -> Iterator[str]:
    """Serve the page of a run from a thread, and yield the link that signs in."""
    import uvicorn

    from rasura.annotator.server.address import bind_socket
    from rasura.pipeline.report.server import ServedReport, create_report_app

    report, bound = ServedReport(run), bind_socket("127.0.0.1", 0)
    config = uvicorn.Config(create_report_app(report, ("127.0.0.1",)), log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/#token={report.token}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
