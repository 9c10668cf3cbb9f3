"""The Python API: what a notebook user would guess works, on real pictures, and errors say what to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, environment
from PIL import Image

import rasura

OLD = DATA / "written_by_0_1_0"
PAIRS = DATA / "pictures" / "pairs"


@pytest.fixture
def run(tmp_path: Path) -> rasura.Run:
    """A finished run of two real pairs."""
    shutil.copytree(OLD / "pairs_run", tmp_path / "run")
    return rasura.open_run(tmp_path / "run")


def test_import_is_quick_and_light() -> None:
    """`import rasura` loads no numpy, no Ray, no model library; the names come when they are asked for."""
    code = (
        "import sys, rasura; heavy = {'numpy', 'ray', 'torch', 'cv2', 'pyarrow', 'pydantic'} & set(sys.modules);"
        "print(sorted(heavy), 'run' in dir(rasura), rasura.__version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True, timeout=600
    )
    assert done.stdout.strip() == f"[] True {rasura.__version__}"


def test_every_public_name_is_there() -> None:
    """All names of `__all__` can be had, and a wrong one is an AttributeError."""
    for name in rasura.__all__:
        assert getattr(rasura, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        rasura.runn  # noqa: B018


def test_rows_decode_pictures_on_access(run: rasura.Run) -> None:
    """A listing reads no picture; a row's picture is decoded when it is asked for, also through a selection."""
    rows = run.table("captured")
    assert len(rows) == rows.to_arrow().num_rows == len(rows.to_pandas()) > 0
    assert "source" not in rows.to_arrow().column_names
    assert "shard" not in rows.to_arrow().column_names
    row = rows[-1]
    assert row["source"].shape == row["target"].shape
    assert row["mask"].dtype == np.bool_
    outside = ~row["foreground_mask"]
    assert (row["source"][outside] == row["target"][outside]).all()
    assert [entry["id"] for entry in rows[:2]] == sorted(entry["id"] for entry in rows[:2])
    with pytest.raises(KeyError):
        row["sourse"]
    with pytest.raises(rasura.RasuraError, match="no complete table 'captures'"):
        run.table("captures")


def test_a_spoiled_run_is_found_out(run: rasura.Run) -> None:
    """`verify` returns the fault of a byte that was changed, and nothing before."""
    assert run.verify() == []
    shard = next(Path(run.uri).glob("tables/captured/shards/*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    faults = run.verify()
    assert faults
    assert shard.name in faults[0]


def test_check_names_every_fault(tmp_path: Path) -> None:
    """A wrong recipe is one error with a line for each fault, its place, and the nearest word."""
    (tmp_path / "r.yaml").write_text("name: r\nflows:\n  a:\n    source: {pairs: {path: x}}\n    stages: [effcts]\n")
    with pytest.raises(rasura.RasuraError, match=r"r.yaml:5:14: .*did you mean 'effects'"):
        rasura.check(tmp_path / "r.yaml")


def test_effects_of_a_real_pair() -> None:
    """Of a real pair the object is found, the target equals the source outside M_fg, and layers rebuild the input."""
    source = Image.open(PAIRS / "cars" / "cardet_0200_input.png")
    clean = Image.open(PAIRS / "cars" / "cardet_0200_clean.png")
    result = rasura.effects(source, clean)
    assert 0 < result.object_mask.mean() < 0.5
    outside = ~result.foreground_mask
    assert (result.target[outside] == result.source[outside]).all()
    assert not (result.effect_mask & result.object_mask).any()
    alpha = result.foreground[..., 3:].astype(np.float64) / 255
    rebuilt = result.foreground[..., :3] * alpha + result.clean * (1 - alpha) + result.light
    error = np.abs(rebuilt - result.source)[result.object_mask].mean()
    assert error < 3
    assert result.measurements["pair_motion"] < 1  # this camera sways a little


@pytest.mark.parametrize(
    ("input", "gt", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), "must be equal"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), "uint8 RGB"),
        (np.zeros((8, 8, 3)), np.zeros((8, 8, 3)), "float64"),
        (np.full((64, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8), "rejected"),
    ],
)
def test_effects_refuse_what_is_no_pair(input: np.ndarray, gt: np.ndarray, message: str) -> None:
    """Sizes that differ, wrong types, and pictures in which nothing differs are errors with the reason."""
    with pytest.raises(rasura.RasuraError, match=message):
        rasura.effects(input, gt)


def test_remove_takes_masks_of_two_values_only() -> None:
    """A mask of grey levels is refused: which of them is the object is not known."""
    image = np.full((64, 64, 3), 120, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:30] = 255
    removed = rasura.remove(Image.fromarray(image), Image.fromarray(mask))
    for filled in (removed, rasura.remove(image, mask // 255, "ns", seed=3)):
        assert np.abs(filled.astype(int) - 120).max() <= 4
        assert (filled[:8] == 120).all()
    mask[0, 0] = 7
    for wrong, message in ((mask, "7"), (mask[:-1], "expected"), (np.zeros((64, 64), bool), "empty")):
        with pytest.raises(rasura.RasuraError, match=message):
            rasura.remove(image, wrong)
    with pytest.raises(rasura.RasuraError, match="did you mean 'telea'"):
        rasura.remove(image, mask > 8, remover="tela")
