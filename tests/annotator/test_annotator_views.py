"""Pictures as the page shows them: decoded once, in bounded memory, kept on disk, and whatever their shape."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from support.annotator.runs import CANDIDATES, Run, make_run, row

from rasura.annotator.server import views as views_module
from rasura.annotator.server.decoding import compute_view_scale, decode_scaled, decode_scaled_mask
from rasura.annotator.server.images import PictureReader
from rasura.annotator.server.variants import render_result
from rasura.annotator.server.views import ViewFiles, ViewMaker
from rasura.annotator.store.database import Database, items
from rasura.annotator.store.enums import Variant
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.manifests.images import decode_image, encode_image, encode_mask


def load_items(run: Run, where: Path) -> list[Any]:
    """The items of a run."""
    database = Database(where)
    load_queue(run.store, database, Policy(honeypots=0.2))
    with database.read() as connection:
        rows = list(connection.execute(select(items).order_by(items.c.id)))
    database.close()
    return rows


@pytest.fixture
def maker(tmp_path: Path) -> tuple[ViewMaker, list[Any]]:
    run = make_run(tmp_path / "run", 6, truth=8)
    (tmp_path / "views").mkdir()
    made = ViewMaker(PictureReader(run.store), ViewFiles(tmp_path / "views"), "secret")
    return made, load_items(run, tmp_path / "r.sqlite")


def test_twelve_requests_for_one_picture_decode_it_once(
    maker: tuple[ViewMaker, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests for the pictures of one item wait for one making, of many items at most two are made at once; later ones
    read the disk, also of a server that starts again; what differs are the items and the sizes."""
    views, rows = maker
    running, most, made = [0], [0], []
    lock, make = threading.Lock(), ViewMaker._make_views

    def watch(self: ViewMaker, item: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            made.append(item.id)
        try:
            return make(self, item)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(ViewMaker, "_make_views", watch)
    wanted = [(item, role) for item in rows[:5] for role in ("source", "result", "mask")] * 4
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda want: views.get(*want, "view"), wanted))
    assert sorted(made) == sorted(item.id for item in rows[:5])
    assert most[0] <= views_module.DECODERS
    again = ViewMaker(views.pictures, ViewFiles(views.files.folder), "secret")
    assert [again.get(*want, "view").data for want in wanted] == [view.data for view in found]
    assert len(made) == 5
    assert (found[0].width, found[0].height) == (72, 48)


def test_the_disk_is_bounded_and_may_be_full(maker: tuple[ViewMaker, list[Any]]) -> None:
    """The least recently used pictures are removed; where nothing can be written, pictures are sent all the same; a
    file that was removed by hand is made again."""
    views, rows = maker
    small = ViewMaker(views.pictures, ViewFiles(views.files.folder, limit=20_000), "secret")
    for item in rows:
        small.get(item, "result", "view")
        assert sum(path.stat().st_size for path in views.files.folder.iterdir()) <= 20_000 + 15_000
    for path in views.files.folder.iterdir():
        path.unlink()
    assert small.get(rows[0], "source", "view").data
    lost = ViewMaker(views.pictures, ViewFiles(views.files.folder), "secret")
    lost.files.folder = Path("/dev/null/nowhere")
    assert decode_image(lost.get(rows[1], "result", "view").data).shape == (48, 72, 3)


def test_large_photographs_and_panoramas(tmp_path: Path) -> None:
    """A large photograph and strips of 1:10, lying and standing, are shrunk to what a screen shows, masks with them; as
    they are stored they come on demand."""
    assert compute_view_scale(6000, 4000) == pytest.approx(1600 / 6000)
    shapes = {"lying": (400, 4000), "standing": (4000, 400), "plain": (700, 1700)}
    run, rows = Run(tmp_path / "run"), []
    for number, shape in enumerate(shapes.values()):
        values = row(number, "edited", 48)
        for name in ("source", "target"):
            values[name] = cv2.resize(values[name], shape[::-1], interpolation=cv2.INTER_LINEAR)
        values["mask"] = cv2.resize(values["mask"].astype(np.uint8), shape[::-1]) > 0
        rows.append(values)
    run.flow("candidates", rows, CANDIDATES)
    (tmp_path / "views").mkdir()
    views = ViewMaker(PictureReader(run.store), ViewFiles(tmp_path / "views"), "secret")
    for item in load_items(run, tmp_path / "r.sqlite"):
        number = int(item.row_id[1:])
        height, width = list(shapes.values())[number]
        scale = compute_view_scale(width, height)
        for role, picture in (("source", rows[number]["source"]), ("result", rows[number]["target"])):
            view = views.get(item, role, "view")  # type: ignore[arg-type]
            small = decode_image(view.data)
            assert small.shape == (round(height * scale), round(width * scale), 3)
            assert (view.width, view.height) == (width, height)
            expected = cv2.resize(picture, small.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(small.astype(int) - expected).mean() < 3
            assert decode_image(views.get(item, role, "native").data).shape == picture.shape  # type: ignore[arg-type]
        assert Image.open(io.BytesIO(views.get(item, "mask", "view").data)).size == small.shape[1::-1]


def test_pictures_decode_at_a_size() -> None:
    """JPEG with a draft, turned by its tags, WebP and PNG give the same picture; a thin line stays in a mask."""
    picture = cv2.resize(row(1, "captured", 48)["source"], (1200, 800), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(picture, (300, 200), interpolation=cv2.INTER_AREA).astype(int)
    for turned in (False, True):
        out, tags = io.BytesIO(), Image.Exif()
        tags[0x0112] = 6 if turned else 1
        Image.fromarray(np.rot90(picture) if turned else picture).save(out, "JPEG", quality=95, exif=tags)
        decoded = decode_scaled(out.getvalue(), 0.25)
        assert decoded.shape == (200, 300, 3)
        assert np.abs(decoded - expected).mean() < 2
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    for data in (encode_image(picture), out.getvalue()):
        assert np.abs(decode_scaled(data, 0.25) - expected).max() <= 1
    line = np.zeros((800, 1200), bool)
    line[400:402] = True
    small = decode_scaled_mask(encode_mask(line), 0.25)
    assert small.any(axis=0).all()
    assert small.sum() <= 2 * 300


def test_a_mistake_that_changes_nothing_is_not_told_by_its_bytes() -> None:
    """The picture in which the object was left differs from the one before by one level, in the hole alone."""
    made = row(2, "captured", 48)
    left = render_result(Variant.UNTOUCHED, made["source"], made["target"], made["mask"]).astype(int)
    differs = (left != made["source"]).any(axis=2)
    assert differs.any()
    assert not (differs & ~made["mask"]).any()
    assert np.abs(left - made["source"]).max() == 1
