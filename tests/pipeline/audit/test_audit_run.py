"""`rasura audit` and `rasura masks` as commands: rows in = repaired + untouched + left out, and the copy verifies."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import rasura
from support.pair_scenes import capture, make_floor, make_scene, move_camera

from rasura.manifests.errors import InputError
from rasura.manifests.images import decode_image, decode_mask
from rasura.manifests.storage import Store
from rasura.pipeline.audit.pair_masks import write_masks
from rasura.pipeline.run.verify import verify

HEIGHT, WIDTH = 160, 210


def write_pairs(folder: Path) -> None:
    """A clean pair, an exact, a moved one, one with a foreign mask, one that cannot be read, one without partner."""
    first, second = make_scene(71, HEIGHT, WIDTH), make_scene(72, HEIGHT, WIDTH)
    moved = capture(move_camera(make_floor(HEIGHT, WIDTH, 72), 0.6, 0.2), np.random.default_rng(4), 1)
    exact = np.where(first.foreground_mask[..., None], first.clean, first.source)
    foreign = np.roll(second.object_mask, (70, 90), (0, 1))
    pairs = {
        "clean": (first.source, first.clean, first.object_mask),
        "exact": (first.source, exact, first.object_mask),
        "moved": (second.source, moved, second.object_mask),
        "foreign": (second.source, second.clean, foreign),
    }
    for part in ("input", "gt", "mask"):
        (folder / part).mkdir(parents=True)
    for name, (source, clean, mask) in pairs.items():
        for part, picture in (("input", source), ("gt", clean), ("mask", np.repeat(mask[..., None] * 255, 3, 2))):
            cv2.imwrite(str(folder / part / f"{name}.png"), np.asarray(picture, np.uint8)[..., ::-1])
    (folder / "input" / "=broken.png").write_bytes(b"no picture")
    (folder / "gt" / "=broken.png").write_bytes(b"")
    (folder / "input" / "alone.png").write_bytes((folder / "input" / "clean.png").read_bytes())


@pytest.mark.ray
def test_a_folder_is_audited_and_repaired(tmp_path: Path) -> None:
    """Each input has one line and one fate; the copy passes `rasura verify` and is exact outside of its masks."""
    write_pairs(tmp_path / "pairs")
    done = rasura("audit", "pairs", "--into", "run", "--repair", "copy", "--quiet", cwd=tmp_path)
    with (tmp_path / "run" / "audit.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["origin"]).stem: row for row in csv.DictReader(file)}
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "=broken": "unreadable",
        "alone": "faulty",
        "foreign": "faulty",
        "moved": "faulty",
        "clean": "good",
        "exact": "good",
    }
    fates = {name: row["repair"].partition(":")[0] for name, row in rows.items()}
    assert [name for name, fate in fates.items() if fate == "left out"] == ["=broken", "alone", "foreign"]
    assert fates["moved"] == fates["clean"] == "repaired"
    assert rows["moved"]["repair"] == "repaired: registration, outside"
    assert float(rows["moved"]["inspect_shift"]) == pytest.approx(np.hypot(0.6, 0.2), abs=0.06)
    assert fates["exact"] in ("untouched", "repaired")
    assert "= 6 in" in done.stdout
    assert verify(Store(tmp_path / "copy"))[0] == []
    checked = rasura("audit", "copy", "--into", "run2", "--limit", "inspect_shift=0.2", "--quiet", cwd=tmp_path)
    assert checked.stdout.startswith("3 rows: ")
    assert "faulty" not in checked.stdout, checked.stdout


def test_masks_of_a_pair_are_files(tmp_path: Path) -> None:
    """Masks, layers and sheet of one pair, of its size; a mask of another pair and a text file are one sentence."""
    write_pairs(tmp_path)
    pair = ("input/clean.png", "gt/clean.png")
    rasura("masks", *pair, "--out", "out", cwd=tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(made) == {
        *("object_mask.png", "effect_mask.png", "foreground.png", "light.png", "cutout.png", "target.png", "sheet.png")
    }
    objects, effects = decode_mask(made["object_mask.png"]), decode_mask(made["effect_mask.png"])
    truth = make_scene(71, HEIGHT, WIDTH)
    assert (objects & truth.object_mask).sum() > 0.8 * (objects | truth.object_mask).sum()
    assert not (objects & effects).any()
    outside = ~(objects | effects)
    assert (decode_image(made["target.png"]) == truth.source)[outside].all()
    for paths in (pair, pair[::-1]):
        source, clean = (tmp_path / path for path in paths)
        _, lines = write_masks(source, clean, tmp_path / "swapped", None, ())
        assert any("warning: source and target swapped" in line for line in lines) == (paths != pair), lines
    for paths, mask, settings, text in (
        (pair, "mask/foreign.png", (), "mask explains no change"),
        (("input/=broken.png", pair[1]), None, (), "'.*=broken.png': "),
        (pair, None, ("backen=sam",), "did you mean 'backend'"),
    ):
        source, clean = (tmp_path / path for path in paths)
        with pytest.raises(InputError, match=text):
            write_masks(source, clean, tmp_path / "out", mask and tmp_path / mask, settings)
