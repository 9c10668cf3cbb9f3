"""What the Python API is given wrongly is one sentence of a RasuraError: what, with which value, what to do."""

import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATA, write_recipe

import rasura
from rasura.pipeline.run import run as runs
from rasura.pipeline.run.run import RunResult

OLD = DATA / "written_by_0_1_0"
CLEAN = np.full((48, 64, 3), 100, np.uint8)
SCENE = CLEAN.copy()
SCENE[20:40, 20:40] = 200
MASK = (SCENE != CLEAN).any(axis=2)


class NoRemover:
    """Has a name, and nothing else of a remover."""

    name = "none"


@pytest.fixture
def run(tmp_path: Path) -> rasura.Run:
    """A finished run of two real pairs."""
    shutil.copytree(OLD / "pairs_run", tmp_path / "run")
    return rasura.open_run(tmp_path / "run")


def catch(call: Callable[[], object], kind: type[Exception] = Exception) -> str:
    """The sentence of the error that a call raises."""
    with pytest.raises(rasura.RasuraError) as raised:
        call()
    assert isinstance(raised.value, kind)
    text = str(raised.value)
    assert "\n" not in text
    assert "pydantic" not in text
    return text


@pytest.mark.parametrize(
    ("pictures", "kind", "message"),
    [
        (("a.png", CLEAN), TypeError, "input is 'a.png' (str), not a picture; open it with PIL.Image.open('a.png')"),
        ((SCENE, Path("b.png")), TypeError, "gt is PosixPath('b.png') (PosixPath), not a picture; open it with"),
        ((None, CLEAN), TypeError, "input is None; give a numpy array or a PIL image"),
        (([[1], [1, 2]], CLEAN), TypeError, "give a numpy array or a PIL image"),
        ((SCENE[:0], CLEAN), ValueError, "input has no pixels"),
        ((SCENE[:-1], CLEAN), ValueError, "input is (47, 64) and gt (48, 64)"),
        ((SCENE / 255, CLEAN), ValueError, "input is (48, 64, 3) float64; expected (height, width, 3) uint8"),
    ],
)
def test_what_is_no_picture(pictures: tuple[Any, Any], kind: type[Exception], message: str) -> None:
    """Paths, other values, and arrays of another shape or type are named, with what to give."""
    assert message in catch(lambda: rasura.effects(*pictures), kind)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("mask.png", "PIL.Image.open('mask.png')"),
        (None, "mask is None"),
        (np.zeros_like(MASK), "mask is empty"),
        (MASK[:-1], "mask is (47, 64); expected (48, 64)"),
    ],
)
def test_what_is_no_mask(mask: Any, message: str) -> None:
    """`remove` and `effects` refuse the same masks; `effects` draws one itself if there is none."""
    assert message in catch(lambda: rasura.remove(SCENE, mask))
    if mask is not None:
        assert message in catch(lambda: rasura.effects(SCENE, CLEAN, mask=mask))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backen": "sam"}, "effects(backen=…): unknown key 'backen'; did you mean 'backend'?"),
        ({"backend": "sm"}, "effects(backend=…): expected sam-onnx, sam, sam2, sam-hf or grabcut (it is 'sm')"),
        ({"backend": "sam"}, "stage 'segment' with backend 'sam' needs the parameter weights"),
        ({"backend": "sam", "weights": "nowhere.pth"}, "there is no file or folder 'nowhere.pth'"),
    ],
)
def test_wrong_options_of_effects(options: dict[str, Any], message: str) -> None:
    """Options of the segmenter are checked as in a recipe."""
    assert catch(lambda: rasura.effects(SCENE, CLEAN, **options)).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": -1}, "remove(dilation=…): expected 0 or more (it is -1)"),
        ({"dilation": "wide"}, "remove(dilation=…): expected a whole number (it is 'wide')"),
        ({"dilation": 10**9}, "remove(dilation=…): expected 256 or less (it is 1000000000)"),
        ({"context": float("nan")}, "remove(context=…): expected a finite number (it is nan)"),
        ({"seed": "a"}, "seed is 'a' (str); give a whole number"),
        ({"dilaton": 3}, "remove has no option 'dilaton'; did you mean 'dilation'?"),
        ({"remover": None}, "remover is None; give a name (telea, ns, sdxl-inpaint, rorem"),
        ({"remover": NoRemover}, "(type); give a name"),
        ({"remover": NoRemover()}, "(NoRemover); give a name"),
        ({"remover": "roren"}, "no remover called 'roren'; did you mean 'rorem'?"),
        ({"remover": "rorem"}, "remover 'rorem' needs weights: give base='FOLDER'"),
        ({"remover": "rorem", "base": "nowhere", "unet": "nowhere"}, "there is no file or folder 'nowhere'"),
        ({"remover": "rorem", "base": "x", "steps": 0}, "remove(steps=…): expected 1 or more (it is 0)"),
        ({"remover": "telea", "base": "x"}, "remover 'telea' takes no options, but was given base"),
        ({"remover": "json:dumps"}, "remover 'json:dumps' cannot be imported"),
        ({"remover": "json:JSONDecoder"}, "'json:JSONDecoder' is no remover: it lacks name, capability"),
        ({"remover": ":x"}, "remover ':x' cannot be imported"),
    ],
)
def test_wrong_options_of_remove(options: dict[str, Any], message: str) -> None:
    """Numbers have the bounds of a recipe; a remover is a name or an object, and networks need weights."""
    assert message in catch(lambda: rasura.remove(SCENE, MASK, **options))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda run: run.table("captures"), OSError, "no complete table 'captures'; did you mean 'captured'?"),
        (lambda run: run.table(None), TypeError, "Run.table(name) is None; give the name of a table: captured, pairs"),
        (lambda run: run.table("pairs")[99], IndexError, "table 'pairs' has 3 rows; there is no row 99"),
        (lambda run: run.table("pairs")[-99], IndexError, "there is no row -99"),
        (lambda run: run.table("pairs")["a"], TypeError, "the index is 'a' (str); Run.show describes"),
        (lambda run: run.table("pairs")[0]["sorce"], KeyError, "table 'pairs' has no column 'sorce'; did you mean"),
        (lambda run: run.show(None), TypeError, "Run.show(id) is None; give a row's id or its first letters"),
        (lambda run: run.export(None), TypeError, "Run.export(out) is None; give a path or a URI"),
        (lambda run: run.report(3), TypeError, "Run.report(out) is 3 (int); give a path or a URI"),
        (lambda run: rasura.open_run(None), TypeError, "open_run(uri) is None; give a path or a URI"),
        (lambda run: rasura.open_run("nowhere"), OSError, "'nowhere' is no run"),
        (lambda run: rasura.check(None), TypeError, "check(recipe) is None; give a path"),
        (lambda run: rasura.check("x.yaml", set=["a=1"]), TypeError, "give values by dotted key, for example {'eng"),
        (lambda run: rasura.run("x.yaml", only=3), TypeError, "run(only) is 3 (int); give a flow or a stage"),
    ],
)
def test_wrong_names_places_and_indices(
    run: rasura.Run, call: Callable[[rasura.Run], object], kind: type[Exception], message: str
) -> None:
    """Each is also the kind of error that Python users expect."""
    assert message in catch(lambda: call(run), kind)


def test_pictures_of_a_row_need_a_folder(run: rasura.Run) -> None:
    """A file in the place of the folder is named."""
    file = Path(run.uri) / "plan.json"
    message = catch(lambda: run.show(run.table("captured")[0]["id"], pictures=file), OSError)
    assert message == f"cannot write pictures into {file}: File exists"


def test_rows_are_ordinary_sequences_and_mappings(run: rasura.Run) -> None:
    """Loops end, `in` and `get` answer, and numpy's numbers are indices."""
    rows = run.table("captured")
    assert len(list(rows)) == len(rows) == 2
    assert "sorce" not in rows[0]
    assert rows[0].get("sorce", "none") == "none"
    assert rows[np.int64(1)]["id"] == rows[-1]["id"]


def test_a_missing_package_is_named(run: rasura.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas `to_pandas` says what to install, and so does a segmenter without its extra."""
    for name in ("pandas", "segment_anything", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert catch(run.table("pairs").to_pandas, ImportError) == (
        "'pandas' is not installed; install it with pip install pandas"
    )
    assert "pip install 'rasura[models]'" in catch(
        lambda: rasura.effects(SCENE, CLEAN, backend="sam", weights=str(OLD / "pairs.yaml")), ImportError
    )


def test_results_have_short_names(run: rasura.Run) -> None:
    """`repr` of a result, a row, a table and a run is one short line."""
    result = rasura.effects(SCENE, CLEAN)
    assert repr(result).startswith("Effects(64 × 48 px: object ")
    row = run.table("captured")[0]
    assert repr(row) == f"Row('{row['id']}' of table 'captured' from '{row['origin']}')"
    assert repr(run) == f"Run({run.uri!r}: pairs 3 rows, captured 2 rows)"
    assert "\n" not in repr(result)


def test_a_run_without_rows_warns_and_one_that_failed_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`rasura.run` gives the same warnings as the command line, and raises where that exits with 1."""
    (tmp_path / "run").mkdir()

    class Result(RunResult):
        def list_warnings(self) -> list[str]:
            return ["flow 'pairs' has no rows"]

        def check(self) -> None:
            if self.dataset_rows:
                raise rasura.RasuraError("all inputs of flow 'pairs' failed")

    recipe = write_recipe(tmp_path)
    monkeypatch.setattr(runs, "run", lambda *arguments: Result(str(tmp_path / "run"), {}, None, 0))
    with pytest.warns(UserWarning, match="flow 'pairs' has no rows") as caught:
        rasura.run(recipe)
    assert caught[0].filename == __file__
    monkeypatch.setattr(runs, "run", lambda *arguments: Result(str(tmp_path / "run"), {}, None, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "all inputs" in catch(lambda: rasura.run(recipe))
