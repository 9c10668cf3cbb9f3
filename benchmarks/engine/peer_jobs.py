"""The job of `benchmarks.peers`, for engines other than Rasura: decode, blur, WebP, Parquet.

It runs in the peers' own environment and imports nothing of this project:

    PYTHON peer_jobs.py ENGINE PHOTOS_FOLDER OUT_FOLDER FAULT BAD_NAME

FAULT is `clean`, `raises` or `segfaults`; the photograph BAD_NAME has it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

WORKERS, ROWS_A_FILE, SIGMA = 2, 64, 2.0


def blur(pixels: Any) -> Any:
    """Blur (h, w, 3) uint8: the work of every engine, Rasura's stage included."""
    import cv2

    cv2.setNumThreads(1)
    return cv2.GaussianBlur(pixels, (0, 0), SIGMA)


def fail(fault: str) -> None:
    """Raise, or end the process as a fault in native code does."""
    if fault == "raises":
        raise ValueError("this row is bad")
    if fault == "segfaults":
        os.kill(os.getpid(), signal.SIGSEGV)


def make_row(path: str) -> dict[str, Any]:
    """Decode a photograph, blur it and encode it without loss, as Rasura stores pictures."""
    import io

    import numpy as np
    from PIL import Image

    start = time.time()
    if Path(path).name == os.environ["PEER_BAD"]:
        fail(os.environ["PEER_FAULT"])
    picture = Image.fromarray(blur(np.asarray(Image.open(path).convert("RGB"))))
    out = io.BytesIO()
    picture.save(out, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return {"origin": path, "image": out.getvalue(), "start": start}


def run_pool(paths: list[str], out: str) -> None:
    """Standard library: a pool of processes, and one writer."""
    from concurrent.futures import ProcessPoolExecutor

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []

    def write(number: int) -> None:
        pq.write_table(pa.Table.from_pylist(rows), f"{out}/{number:05d}.parquet", compression="none")
        rows.clear()

    with ProcessPoolExecutor(WORKERS) as pool:
        for number, row in enumerate(pool.map(make_row, paths, chunksize=8)):
            rows.append(row)
            if len(rows) == ROWS_A_FILE:
                write(number)
        if rows:
            write(len(paths))


def run_ray(paths: list[str], out: str, errored_blocks: int = 0) -> None:
    """Ray Data; -1 errored blocks are as many as there are."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = errored_blocks
    blocks = max(4, len(paths) // ROWS_A_FILE)
    data = ray.data.from_items(paths, override_num_blocks=blocks)
    data.map(lambda row: make_row(row["item"])).write_parquet(out)


def run_daft(paths: list[str], out: str, on_error: str = "raise") -> None:
    """Daft on its own runner, with a pool of processes."""
    import daft

    types = {"origin": daft.DataType.string(), "image": daft.DataType.binary(), "start": daft.DataType.float64()}

    method = daft.method(return_dtype=daft.DataType.struct(types), unnest=True)
    kind = type("Work", (), {"make": method(lambda self, path: make_row(path))})
    work = daft.cls(kind, use_process=True, max_concurrency=WORKERS, on_error=on_error)()
    rows = daft.from_pydict({"path": paths}).into_batches(ROWS_A_FILE // 4)
    rows.select(work.make(daft.col("path"))).write_parquet(out)


def run_datatrove(paths: list[str], out: str) -> None:
    """datatrove on its local executor."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.writers import ParquetWriter

    def read(data: Any, rank: int, world_size: int) -> Any:
        for number, path in list(enumerate(paths))[rank::world_size]:
            yield Document(text=path, id=str(number))

    def work(data: Any, rank: int, world_size: int) -> Any:
        for document in data:
            document.metadata = make_row(document.text)
            yield document

    writer = ParquetWriter(out, adapter=lambda _, document: document.metadata, batch_size=ROWS_A_FILE, compression=None)
    tasks = max(4, len(paths) // ROWS_A_FILE)
    LocalPipelineExecutor([read, work, writer], tasks=tasks, workers=WORKERS, logging_dir=f"{out}-logs").run()


ENGINES = {
    "process pool": run_pool,
    "Ray Data": run_ray,
    "Ray Data, max_errored_blocks=-1": lambda paths, out: run_ray(paths, out, -1),
    "Daft": run_daft,
    "Daft, on_error=ignore": lambda paths, out: run_daft(paths, out, "ignore"),
    "datatrove": run_datatrove,
}
"""The peers with their settings for rows that fail, by the name in the table."""


def read_result(out: Path) -> dict[str, float]:
    """Return how many rows came out, and when the first one was begun and the last file written."""
    import pyarrow.parquet as pq

    rows, starts, ends = 0, [], []
    for file in sorted(out.rglob("*.parquet")):
        try:
            table = pq.read_table(file, columns=["image", "start"])
        except (OSError, ValueError):
            continue  # cut off when its writer died
        whole = table.filter(table["image"].is_valid())
        rows += whole.num_rows
        starts += whole["start"].to_pylist()
        ends.append(file.stat().st_mtime)
    return {"rows": rows, "first": min(starts, default=0.0), "last": max(ends, default=0.0)}


if __name__ == "__main__":
    if sys.argv[1] == "read":
        print(json.dumps(read_result(Path(sys.argv[2]))))
        sys.exit()
    engine, photos, folder, os.environ["PEER_FAULT"], os.environ["PEER_BAD"] = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    ENGINES[engine](sorted(map(str, Path(photos).glob("*.jpg"))), folder)
