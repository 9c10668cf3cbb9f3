"""Near-duplicates of a run's page: among all rows with stored fingerprints, and what is shown of them has pictures."""

from pathlib import Path

import cv2
import numpy as np
from support.report_pages import PHOTOS, Page, ReportRun

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.schemas import Kind
from rasura.pipeline.report import run_tables
from rasura.pipeline.report.run_page import write

COLUMNS = {**PHOTOS, "scene_id": Kind.STRING, "split": Kind.STRING, "fingerprint": Kind.STRING}
ROWS = 30


def test_all_rows_with_stored_fingerprints_are_compared(tmp_path: Path) -> None:
    """One row of 30 has pictures, and the pairs are among the others: they get pictures, those in two splits first."""
    run = ReportRun(tmp_path / "run")
    noise = np.random.default_rng(5).integers(0, 256, (ROWS, 8, 12, 3), np.uint8)
    pictures = [cv2.resize(picture, (90, 60)) for picture in noise]
    pictures[21], pictures[25], pictures[28] = pictures[7], pictures[11], pictures[13]
    rows = [
        {
            "id": f"{row:02d}",
            "source": picture,
            "scene_id": "13" if row == 28 else str(row),
            "split": "test" if row == 25 else "train",
            "fingerprint": None if row == 3 else compute_fingerprint(picture).hex(),
        }
        for row, picture in enumerate(pictures)
    ]
    run.flow("photos", rows, COLUMNS)
    out = tmp_path / "report.html"
    page = Page(Path(write(run.store, out, rows=1)).read_text())
    leak = {"rows": [["flow-0", 11], ["flow-0", 25]], "note": "in two splits: train and test"}
    near = {"rows": [["flow-0", 7], ["flow-0", 21]], "note": ""}
    assert page.json["near-duplicates"] == [leak, near], "13 and 28 are of one scene and split"
    assert {7, 11, 21, 25} <= {int(row) for row in page.pictures("photos")}
    assert len(page.pictures("photos")) <= 5
    assert "Among all rows" in page.words
    assert not Page(Path(write(run.store, out, rows=0)).read_text()).json["near-duplicates"]


def test_texts_that_are_no_fingerprints_are_not_compared(tmp_path: Path) -> None:
    """A dataset may have a column of that name, of its own kind: the rows with pictures are compared instead."""
    run = ReportRun(tmp_path / "run")
    picture = np.random.default_rng(6).integers(0, 256, (60, 90, 3), np.uint8)
    texts = ("phash:1", "0123456789abcdef", "0123456789abcdef", "")
    rows = [
        {"id": str(row), "source": picture, "scene_id": str(row), "fingerprint": text} for row, text in enumerate(texts)
    ]
    run.flow("photos", rows, COLUMNS)
    page = Page(Path(write(run.store, tmp_path / "report.html", rows=2)).read_text())
    assert len(page.pictures("photos")) == 2
    assert len(page.json["near-duplicates"]) == 1


def test_a_scene_of_many_rows_is_compared_by_some_of_them(tmp_path: Path) -> None:
    """Frames of one clip are all near each other: they are no pairs, and cost no comparison of each with each."""
    table = run_tables.PageTable(
        run_tables.Gallery("flow-0", "frames", 400, {"id": [], "scene_id": ["a"] * 200 + ["b"] * 200})
    )
    one = compute_fingerprint(np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8))
    table.stored = dict.fromkeys(range(400), one)
    run_tables.compare_stored_fingerprints([table])
    assert table.near is not None
    assert len(table.near) == run_tables.MOST_OF_SCENE**2
    assert len(table.first) <= 2 * run_tables.MOST_PAIRS
