"""RORem's training folders: what is written is what its loaders take, and what is read is what was written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.dataset_runs import WIDE, make_finished_run, make_row

from rasura.manifests.formats.folder_export import find_faults
from rasura.manifests.formats.registry import FORMATS
from rasura.manifests.formats.rorem import convert_score, get_score
from rasura.manifests.formats.target import ForeignFolder
from rasura.manifests.images import BadImage, encode_image
from rasura.manifests.storage import Store
from rasura.manifests.tables import NoTable
from rasura.pipeline.export import export_run
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.sources.rorem import Rorem
from rasura.stages.stage import Kept, Outcome, Rejected


def outcomes(path: Path, folder: Path, **params: Any) -> list[Outcome]:
    """What becomes of each entry, in order."""
    source = Rorem(Rorem.Params(path=str(path), **params))
    source.setup()
    items = source.items(RunContext(Store(folder), "rorem"))
    assert len({item["id"] for item in items}) == len(items)
    return [source.process([{**item, "content": item["id"]}])[0] for item in items]


def records(found: list[Outcome]) -> list[Mapping[str, Any]]:
    return [record for one in found if isinstance(one, Kept) for record in one.records]


def listed(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "meta.json").read_text())
    return found


def picture(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good entries as RORem publishes them: JPEG source, grey mask, PNG truth."""
    entries = []
    for name in ("000", "001"):
        row = make_row(int(name))
        picture(tmp_path / "data" / "source" / f"{name}.jpg", row["source"])
        picture(tmp_path / "data" / "mask" / f"{name}.png", (row["mask"] * 200 + 27).astype(np.uint8))
        picture(tmp_path / "data" / "GT" / f"{name}.png", row["target"])
        entries.append({"source": f"source/{name}.jpg", "mask": f"mask/{name}.png", "GT": f"GT/{name}.png"})
    (tmp_path / "data" / "meta.json").write_text(json.dumps(entries))
    return tmp_path / "data"


def test_what_was_made_comes_back_bit_by_bit(tmp_path: Path) -> None:
    """Export, import, export: every pixel of source, mask and truth, scenes, splits and licences are the run's own;
    the pictures are PNG, masks grey with 0 and 255; the second export has the same pictures."""
    rows = [make_row(n, score=None, verdict=None) for n in range(7)]
    run = make_finished_run(tmp_path / "run", rows)
    manifest = export_run(run, Store(tmp_path / "out"), "rorem")
    assert (manifest["rows"], manifest["layout"]) == (7, "rorem")
    assert find_faults(Store(tmp_path / "out"), manifest) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("train", "test", "README.md", "croissant.json", "manifest.json")
    }
    truth = {one["source"].tobytes(): one for one in rows}
    records_back = records(outcomes(tmp_path / "out", tmp_path / "listing"))
    assert len(records_back) == 7
    for one in records_back:
        whole = truth[one["source"].tobytes()]
        for name in ("target", "mask", "scene_id", "split", "licence", "kind", "label"):
            assert np.array_equal(one[name], whole[name]), name
        assert (one["score"], one["verdict"]) == (None, None)
    with Image.open(next((tmp_path / "out" / "train" / "mask").iterdir())) as mask:
        assert (mask.format, mask.mode, set(np.unique(np.asarray(mask)))) == ("PNG", "L", {0, 255})
    again = make_finished_run(tmp_path / "run2", [{k: v for k, v in one.items() if k in WIDE} for one in records_back])
    export_run(again, Store(tmp_path / "again"), "rorem")
    pixels = [sorted(path.read_bytes() for path in (tmp_path / place).rglob("*.png")) for place in ("out", "again")]
    assert len(pixels[0]) == 21
    assert pixels[0] == pixels[1]


def test_rorems_own_loaders_find_what_they_ask_for(tmp_path: Path) -> None:
    """As its loaders do: each entry has source, mask and GT, files below the folder of its meta.json; a flow of judged
    candidates has `score` as a number in every entry: people's yes and no as 1 and 0, else the judge's probability;
    triplets that nobody judged have none."""
    judged = [
        make_row(n, scene_id="s", split="train", score=0.25 * n, verdict=("yes", "no", None, None)[n]) for n in range(4)
    ]
    for name, rows, scores in (("judged", judged, [0, 0.5, 0.75, 1]), ("plain", [make_row(0)], None)):
        export_run(make_finished_run(tmp_path / name, rows), Store(tmp_path / f"{name}-out"), "rorem", ["made"])
        root = tmp_path / f"{name}-out" / "train"
        entries = listed(root)
        for entry in entries:
            for part in ("source", "mask", "GT"):
                with Image.open(root / entry[part]) as opened:
                    assert opened.size == (32, 24)
        scores_read = sorted(float(entry["score"]) for entry in entries if "score" in entry)
        assert scores_read == (scores or [])
        assert set(entries[0]) == {"source", "mask", "GT"} | ({"score"} if scores else set())
        assert f"{len(scores_read)} of them have a `score`" in (tmp_path / f"{name}-out" / "README.md").read_text()
    back = records(outcomes(tmp_path / "judged-out", tmp_path / "listing", rejected=True))
    assert {(one["score"], one["verdict"]) for one in back} == {(1.0, "yes"), (0.0, "no"), (0.5, None), (0.75, None)}
    assert [get_score(one) for one in back] == [one["score"] for one in back]
    assert convert_score(None) is None


def test_the_published_form_is_read(folder: Path, tmp_path: Path) -> None:
    """JPEG and PNG, grey masks cut at 127, scenes by the source's name where a pattern says so; rows without more are
    edited, of unknown licence, and get their split from the scene; paths may be written as on Windows or with dots."""
    rows = records(outcomes(folder, tmp_path / "one", scene=r"^(\d)"))
    assert len(rows) == 2
    assert (rows[0]["target"] == make_row(0)["target"]).all()
    assert (rows[0]["mask"] == make_row(0)["mask"]).all()
    assert {one["scene_id"] for one in rows} == {"0"}
    assert {(one["kind"], one["licence"], one["split"], one["label"]) for one in rows} == {
        ("edited", "unknown", None, None)
    }
    odd = [{name: f".\\{path}".replace("/", "\\") for name, path in one.items()} for one in listed(folder)]
    (folder / "meta.json").write_text(json.dumps(odd))
    again = records(outcomes(folder / "meta.json", tmp_path / "two", kind="captured", licence="CC0"))
    assert [one["id"] for one in again] == [one["id"] for one in rows]
    assert {(one["kind"], one["licence"]) for one in again} == {("captured", "CC0")}


def test_what_is_wrong_costs_one_row(folder: Path, tmp_path: Path) -> None:
    """A picture that is not there, of another size, cut short; an entry without GT or that is no entry; a path out of
    the folder; a score that is no number; an empty mask: each is one row with its reason, and the others stand."""
    good, other = listed(folder)
    picture(folder / "GT" / "small.png", np.zeros((4, 4, 3), np.uint8))
    picture(folder / "mask" / "empty.png", np.full((24, 32), 127, np.uint8))
    wrong = [
        ({**good, "GT": "GT/gone.png"}, "missing picture", "gone.png"),
        ({**good, "GT": "GT/small.png"}, "pictures of two sizes", "(4, 4)"),
        ({"source": good["source"], "mask": good["mask"]}, "no partner", "it has no GT"),
        ("source/000.jpg", "no entry", "it is a str"),
        ({**good, "source": "../secret.png"}, "path outside the folder", "../secret.png"),
        ({**good, "mask": "/etc/secret.png"}, "path outside the folder", "/etc"),
        ({**good, "score": "good"}, "score is no number", '"good"'),
        ({**good, "score": True}, "score is no number", "true"),
        ({**good, "mask": "mask/empty.png"}, "empty mask", "values 127"),
    ]
    (folder / "meta.json").write_text(json.dumps([good, *(one for one, *_ in wrong), other]))
    first, *rejected, last = outcomes(folder, tmp_path / "one")
    assert isinstance(first, Kept)
    assert isinstance(last, Kept)
    for found, (_, reason, detail) in zip(rejected, wrong, strict=True):
        assert isinstance(found, Rejected)
        assert found.reason == reason
        assert detail in found.detail
        assert "meta.json#" in found.detail
    cut = folder / "GT" / "001.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (folder / "meta.json").write_text(json.dumps([other]))
    with pytest.raises(BadImage):
        outcomes(folder, tmp_path / "two")


def test_a_test_set_without_truth_may_be_read(folder: Path, tmp_path: Path) -> None:
    """RORem's own test set has no GT: with `truth: false` its rows have no target, and are no fault."""
    (folder / "meta.json").write_text(
        json.dumps([{k: v for k, v in one.items() if k != "GT"} for one in listed(folder)])
    )
    assert all(isinstance(one, Rejected) for one in outcomes(folder, tmp_path / "one"))
    rows = records(outcomes(folder, tmp_path / "two", truth=False))
    assert [one["target"] for one in rows] == [None, None]


def test_lists_that_are_none_are_said(folder: Path, tmp_path: Path) -> None:
    """A folder without meta.json, one that is not JSON, one that is not a list: the run does not begin."""
    for text, said in (("{", "not JSON"), ("{}", "holds a dict")):
        (folder / "meta.json").write_text(text)
        with pytest.raises(MissingInput, match=said):
            outcomes(folder, tmp_path / "listing")
    (folder / "meta.json").unlink()
    with pytest.raises(MissingInput, match="has no file that matches"):
        outcomes(folder, tmp_path / "listing")


def test_an_export_touches_nothing_of_others_and_leaves_nothing_old(folder: Path, tmp_path: Path) -> None:
    """A folder of RORem's own is not written into; a second export of fewer rows leaves no picture of the first; what
    is changed, gone or unknown afterwards is named."""
    (tmp_path / "theirs").mkdir()
    folder.rename(tmp_path / "theirs" / "train")
    with pytest.raises(ForeignFolder, match=r"train/meta\.json"):
        export_run(make_finished_run(tmp_path / "run", [make_row(0)]), Store(tmp_path / "theirs"), "rorem")
    assert len(listed(tmp_path / "theirs" / "train")) == 2
    out = Store(tmp_path / "out")
    for count in (6, 1):
        manifest = export_run(
            make_finished_run(tmp_path / f"run{count}", [make_row(n) for n in range(count)]), out, "rorem"
        )
    assert len(list((tmp_path / "out" / "train").rglob("*.png"))) == 3
    kept = next((tmp_path / "out" / "train" / "GT").iterdir())
    kept.write_bytes(encode_image(np.zeros((24, 32, 3), np.uint8)))
    assert ["was changed" in fault for fault in find_faults(out, manifest)] == [True]
    kept.unlink()
    assert ["is gone" in fault for fault in find_faults(out, manifest)] == [True]
    assert "rorem" in FORMATS
    with pytest.raises(NoTable, match="no flow 'other'; it has made"):
        export_run(make_finished_run(tmp_path / "last", [make_row(0)]), out, "rorem", ["other"])
