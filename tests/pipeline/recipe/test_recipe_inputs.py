"""What a run would end on is reported by `check` and before the start, by one function, with its place."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rasura.manifests.errors import RecipeError
from rasura.pipeline.recipe.describe import describe_plan
from rasura.pipeline.recipe.load import parse
from rasura.pipeline.recipe.plan import plan

OWN = """\
from rasura import Kept, Kind, Source, Stage
class Words(Stage):
    name = "own_stages:Words"
    gives = {"sharpness": "float"}
    def process_one(self, record): return Kept([record])
class Names(Stage):
    name = "own_stages:Names"
    needs = ["source"]
    def process_one(self, record): return Kept([record])
class Empty(Stage):
    name = "own_stages:Empty"
class Nameless(Stage):
    def process_one(self, record): return Kept([record])
class Late(Stage):
    name = "own_stages:Late"
    def schema(self, columns): return {**columns, "sharpness": float}
    def process_one(self, record): return Kept([record])
class Unlisted(Source):
    name = "own_stages:Unlisted"
    def process_one(self, record): return Kept([record])
"""


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with pairs, photos, files of other kinds, and stages of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    out = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(out, "PNG")
    for name in ("pairs/input/1.png", "pairs/input/2.png", "pairs/gt/1.png", "pairs/gt/2.png", "photos/1.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(out.getvalue())
    for name in ("empty", "half/gt", "lonely/input", "lonely/gt"):
        Path(name).mkdir(parents=True)
    Path("lonely/input/1.png").write_bytes(out.getvalue())
    Path("notes.txt").write_text("no picture and no video")
    Path("notes.json").write_text("no picture and no JSON")
    pq.write_table(pa.table({"picture": [b""]}), "rows.parquet")
    pq.write_table(pa.table({"image": ["photos/1.jpg"]}), "texts.parquet")
    Path("own_stages.py").write_text(OWN)
    Path("broken_stages.py").write_text("from rasura import Stage\nx = 1 / 0\n")
    return tmp_path


def find_faults(flows: str, more: str = "") -> str:
    """The faults of a recipe with these flows, as text."""
    with pytest.raises(RecipeError) as caught:
        plan(*parse(f"name: t\n{more}\nflows:\n{flows}", "r.yaml"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("photos: {path: empty}", "photos.path: the folder 'empty' has no file"),
        ("photos: {path: photos, pattern: '*.tif'}", "the folder 'photos' has no file that matches '*.tif'"),
        ("photos: {path: ''}", "photos.path: it is empty"),
        ("photos: {path: ~/no-such-folder}", "photos.path: there is no file or folder '~/no-such-folder'"),
        ("photos: {path: rows.parquet}", "photos.path: 'rows.parquet' has no column image; it has picture"),
        ("photos: {path: rows.parquet, column: picture, masks: {column: mask}}", "has no column mask; it has picture"),
        (
            "photos: {path: texts.parquet}",
            "'texts.parquet': column 'image' holds text ('photos/1.jpg'), of type",
        ),
        ("photos: {path: photos, masks: {column: mask}}", "photos.path: 'photos' holds pictures, for which masks: "),
        ("photos: {path: photos, masks: nothing}", "photos.masks: there is no file at 'nothing'"),
        ("photos: {path: photos, masks: nothing.json}", "photos.masks: there is no file 'nothing.json'"),
        ("photos: {path: photos, masks: notes.json}", "'notes.json' is not JSON"),
        ("photos: {path: 'fog://bucket/x'}", "photos.path: 'fog://bucket/x': no store is called 'fog'"),
        ("photos: {path: 's3:/bucket/x'}", "did you mean 's3://bucket/x'?"),
        (
            "pairs: {path: half}",
            "pairs.path: 'half' has no folder 'input': pictures with the object are in 'half/input'",
        ),
        ("pairs: {path: lonely}", "pairs.path: the folder 'lonely/gt' has no file"),
        ("pairs: {path: notes.txt}", "pairs.path: 'notes.txt' is a file; pairs are in a folder with input/ and gt/"),
        ("pairs: {path: rows.parquet}", "pairs.path: 'rows.parquet' has no column input or gt; it has picture"),
        (
            "pairs: {path: photos, endings: {input: _a, gt: _b}}",
            "pairs.path: 'photos' has no file whose name ends in _a",
        ),
        ("clip: {path: notes.txt}", "clip.path: notes.txt: no video that can be opened"),
        ("clip: {path: photos}", "clip.path: no video at 'photos'"),
        ("clip: {path: 's3://bucket/x.mp4'}", "clip.path: videos are read from this machine only"),
        ("clip: {path: photos, min_area: 0.7}", "clip: min_area is 0.7, which is more than max_area, 0.6"),
        ("rorem: {path: photos}", "rorem.path: the folder 'photos' has no file that matches 'meta*.json'"),
        ("ober: {path: rows.parquet}", "ober.path: 'rows.parquet' has no column input or object_mask"),
    ],
)
def test_inputs_that_a_run_would_end_on(source: str, message: str) -> None:
    """Each is a fault with the place of the parameter that names it."""
    text = find_faults(f"  a: {{source: {{{source}}}}}\n")
    assert message in text
    assert text.startswith("r.yaml:4:")
    assert len(text.splitlines()) == 1


def test_inputs_are_counted_in_their_own_unit() -> None:
    """Pairs are pairs, not files; a path may begin with `file://`; a file of rows is a file."""
    Path("tables").mkdir()
    for name in ("good.parquet", "tables/rows.PARQUET"):
        pq.write_table(pa.table({"input": [b""], "gt": [b""]}), name)
    flows = {"a": "pairs: {path: pairs}", "b": "pairs: {path: good.parquet}", "c": "studio: {count: 1}"}
    flows["d"] = f"photos: {{path: 'file://{Path.cwd()}/photos'}}"
    flows["e"] = "pairs: {path: tables}"
    text = "name: t\nflows:\n" + "".join(f"  {name}: {{source: {{{source}}}}}\n" for name, source in flows.items())
    resolved = plan(*parse(text, "r.yaml"))
    assert resolved.inputs == {"a": 2, "b": 1, "c": 1, "d": 1, "e": 1}
    lines = describe_plan(resolved).splitlines()
    for line in (
        "a: 2 pairs in pairs",
        "b: 1 file in good.parquet",
        "c: 1 scene of source studio",
        "d: 1 file in file://",
        "e: 1 file in tables",
    ):
        assert any(entry.startswith(line) for entry in lines), line


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("width: {min: 5, max: 3}", "keep.width: min is 5, which is more than max, 3"),
        ("licence: {min: 3}", "keep.licence.min: 'licence' has the kind string, which `min` cannot compare"),
        ("width: {any_of: [a]}", "keep.width.any_of: 'width' has the kind int64, which `any_of` cannot compare"),
        ("parents: {none_of: [a]}", "keep.parents.none_of: 'parents' has the kind strings"),
        ("licence: {any_of: [no]}", "keep.licence.any_of.0: expected text in quotes (it is false)"),
        ("width: {min: true}", "keep.width.min: expected a number (it is true)"),
        ("wdth: {min: 3}", "keep.wdth: no column 'wdth' (did you mean 'width'?)"),
        ("qqq: {min: 3}", "keep.qqq: no column 'qqq' (available: "),
    ],
)
def test_rules_that_fit_no_row(rule: str, message: str) -> None:
    """A rule whose limits are in the wrong order, or do not fit the kind of its column."""
    text = find_faults(f"""\
  a: {{source: {{photos: {{path: photos}}}}}}
  b: {{source: {{flow: {{of: a}}}}, stages: [select: {{keep: {{{rule}}}}}]}}
""")
    assert f"flows.b.stages.0.select.{message}" in text
    assert text.startswith("r.yaml:5:")


def test_columns_that_are_missing_do_not_drown() -> None:
    """The nearest columns come first, then a number of others; all flows that `draws` reads are checked."""
    text = find_faults("""\
  p: {source: {pairs: {path: pairs}}, stages: [pair, effects, segment: {backend: grabcut}, matte, capture]}
  x: {source: {flow: {of: p}}, stages: [select: {keep: {qqq: {min: 3}}}]}
  d: {source: {draws: {foregrounds: p, backgrounds: p, count: 3}}, stages: [composite]}
""")
    assert text.count(",") < 30
    assert "more" in text
    assert "r.yaml:6:" in text
    assert "stage 'draws of flow p' needs picture_width, picture_height, ground_mask, ground_scale, but" in text


def test_rows_that_would_be_in_the_dataset_twice() -> None:
    """A flow that only selects rows of another one; a flow that is named twice; a circle is one fault."""
    flows = """\
  p: {source: {pairs: {path: pairs}}, stages: [pair, effects, segment: {backend: grabcut}, matte, capture]}
  c: {source: {flow: {of: p}}, stages: [select: {keep: {pair_motion: {max: 1}}}]}
  s: {source: {flow: {of: c}}, stages: [select: {keep: {pair_motion: {max: 1}}}]}
"""
    text = find_faults(flows, "dataset: {flows: [s, p, p]}")
    assert "r.yaml:2:19: dataset.flows.0: the rows of flow 's' are rows of 'p', and would be there twice" in text
    assert "r.yaml:2:25: dataset.flows.2: flow 'p' is there twice" in text
    circle = "  a: {source: {flow: {of: b}}}\n  b: {source: {flow: {of: a}}}\n  c: {source: {flow: {of: a}}}\n"
    assert find_faults(circle, "dataset: {flows: [a, b]}").splitlines() == [
        "r.yaml:5:7: flows.b.source: flows run in a circle: a -> b -> a"
    ]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("own_stages:Words", "Words.gives maps 'sharpness' to 'float', which is no Kind; did you mean Kind.FLOAT?"),
        ("own_stages:Names", "Names.needs is ['source']; it has to map names of columns to kinds"),
        ("own_stages:Empty", "Empty defines neither process nor process_one"),
        ("own_stages:Nameless", "Nameless has no name; set `name`"),
        (
            "own_stages:Late",
            "what its method schema returns maps 'sharpness' to <class 'float'>, which is no Kind; did",
        ),
        ("own_stages:Wordz", "own_stages.py has no 'Wordz'; did you mean 'Words'?"),
        ("own_stage:Words", "there is no module 'own_stage' in the working folder "),
        ("broken_stages:Words", "broken_stages.py:2: ZeroDivisionError: division by zero"),
        ("own_stages:", "expected a name such as my_module:MyClass"),
        ("pathlib:Path", "pathlib:Path is no stage: it does not derive from rasura.Stage"),
        ("photos", "'photos' is a source: it belongs under `source` of a flow, before its stages"),
    ],
)
def test_classes_that_are_no_stage(stage: str, message: str) -> None:
    """What a stage of one's own lacks, and why it cannot be loaded, is said where the recipe names it."""
    text = find_faults(f"  a:\n    source: {{photos: {{path: photos}}}}\n    stages: ['{stage}']\n")
    assert text.startswith("r.yaml:6:14: flows.a.stages.0: ")
    assert message in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("matte", "unknown source 'matte': it is a stage, and belongs into the list `stages` of its flow"),
        ("own_stages:Unlisted", "Unlisted defines no items, which lists what the source loads"),
    ],
)
def test_classes_that_are_no_source(source: str, message: str) -> None:
    """A stage in the place of a source, and a source that lists nothing."""
    assert find_faults(f"  a: {{source: '{source}'}}\n").startswith("r.yaml:4:7: flows.a.source: ")
    assert message in find_faults(f"  a: {{source: '{source}'}}\n")
