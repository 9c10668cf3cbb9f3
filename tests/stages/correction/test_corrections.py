"""Rows made anew with the masks that people corrected: found by the source, joined by the stage, right afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row, scene

from rasura.annotator.exchange.corrections_file import SCHEMA
from rasura.manifests.formats.dataset_rows import find_superseded
from rasura.manifests.formats.tables.table_export import export_dataset
from rasura.manifests.images import encode_mask
from rasura.manifests.parquet import encode_parquet
from rasura.manifests.run_layout import CORRECTIONS
from rasura.manifests.schemas import PROVENANCE, Kind
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables
from rasura.stages.capture import Capture, CaptureParams
from rasura.stages.correction.correct import Correct
from rasura.stages.correction.source import BadCorrections, Corrections, CorrectionsParams, read_corrections
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.listing import MissingInput
from rasura.stages.stage import Kept, Params, Record, Rejected

PAIRS = {**PROVENANCE, "kind": Kind.STRING, "input": Kind.RGB, "gt": Kind.RGB, "object_mask": Kind.MASK}
PAIRS |= {"foreground_mask": Kind.MASK}


def write_corrections(run: Run, *rows: Mapping[str, Any]) -> None:
    values = [
        {
            "item": "i",
            "flow": "captured",
            "part": "mask",
            "version": 1,
            "reviewer": "Ann",
            "time": 1.0,
            "steps": 1,
            "height": entry["pixels"].shape[0],
            "width": entry["pixels"].shape[1],
            **{name: value for name, value in entry.items() if name != "pixels"},
            "mask": {"bytes": encode_mask(entry["pixels"]), "path": "m.png"},
        }
        for entry in rows
    ]
    run.store.write(CORRECTIONS, encode_parquet(pa.Table.from_pylist(values, SCHEMA)))


def load(run: Run, of: str) -> list[Record]:
    source = Corrections(CorrectionsParams(of=of))
    context = RunContext(run.store, "corrected")
    source.tables = context.tables
    records = []
    for item in source.items(context):
        outcome = source.process_one(item)
        assert isinstance(outcome, Kept)
        records += outcome.records
    return records


def correct(record: Record) -> Record:
    outcome = Correct(Params()).process_one(record)
    assert isinstance(outcome, Kept)
    return outcome.records[0]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three pairs, the captured triplets of them, and a candidate of each."""
    run = Run(tmp_path / "run")
    pairs, candidates = [], []
    for number in range(3):
        made = scene(number)
        pair = {"input": made["source"], "gt": made["target"], "object_mask": made["mask"]}
        base = {"id": f"c{number:07d}", "scene_id": f"s{number}", "origin": f"{number}.png"}
        pairs.append({**base, "kind": "pair", **pair, "foreground_mask": made["foreground_mask"]})
        candidates.append(row(number, "edited", id=f"e{number:07d}", parents=[f"c{number:07d}"]))
    run.flow("pairs", pairs, PAIRS)
    run.flow("captured", [row(number, "captured") for number in range(3)], CAPTURED)
    run.flow("candidates", candidates, CANDIDATES)
    return run


def test_a_pair_is_made_anew_from_the_corrected_mask(run: Run) -> None:
    """A correction of a captured row, or of a candidate that was made from it, leads to its pair, and `capture` makes
    a triplet whose mask is the corrected one, and whose pictures are equal outside of the new M_fg."""
    truth = scene(1)
    mask = truth["mask"].copy()
    mask[:, mask.any(0).argmax()] = False  # a column less
    write_corrections(
        run,
        {"row_id": "c0000001", "pixels": mask},
        {"row_id": "e0000002", "flow": "candidates", "pixels": np.roll(scene(2)["mask"], 1, 1)},
    )
    records = load(run, "pairs")
    assert [record["id"] for record in records] == ["c0000001", "c0000002"]
    assert records[1]["corrected_row"] == "e0000002"
    record = correct(records[0])
    assert record["id"] != "c0000001"
    assert record["parents"] == ["c0000001"]
    assert "corrected_mask" not in record
    outcome = Capture(CaptureParams(reach=0)).process_one(record)
    assert isinstance(outcome, Kept)
    (triplet,) = outcome.records
    assert (triplet["mask"] == mask).all()
    outside = ~triplet["foreground_mask"]
    assert (triplet["source"][outside] == triplet["target"][outside]).all()
    lost = truth["mask"] & ~mask
    assert not triplet["foreground_mask"][lost].any()  # what is no object any more is no effect either
    assert (triplet["target"][lost] == truth["source"][lost]).all()


@pytest.mark.parametrize(("kind", "real"), [("captured", "source"), ("edited", "source"), ("simulated", "target")])
def test_a_triplet_keeps_its_photograph(run: Run, kind: str, real: str) -> None:
    """Where M_fg shrinks, the picture that is a photograph keeps its pixels, and the other one gets them."""
    write_corrections(run, {"row_id": "c0000000", "part": "foreground_mask", "pixels": scene(0)["mask"]})
    (record,) = load(run, "captured")
    before = {name: record[name].copy() for name in ("source", "target")}
    after = correct({**record, "kind": kind})
    assert (after[real] == before[real]).all()
    outside = ~after["foreground_mask"]
    assert (after["source"][outside] == after["target"][outside]).all()
    assert (after["foreground_mask"] == scene(0)["mask"]).all()


def test_a_correction_that_explains_nothing_is_rejected(run: Run) -> None:
    """A mask of all, one of a patch that has not changed, and one of effects that are everywhere are rejected with
    their measures, of a pair and of a triplet; a right one is kept with them."""
    truth = scene(0)
    everywhere, elsewhere = np.ones_like(truth["mask"]), np.zeros_like(truth["mask"])
    far = np.argwhere(~truth["foreground_mask"])[0]
    elsewhere[far[0] : far[0] + 4, far[1] : far[1] + 4] = True
    elsewhere &= ~truth["foreground_mask"]
    wrong = [("mask", everywhere), ("mask", elsewhere), ("foreground_mask", everywhere)]
    for of in ("captured", "pairs"):
        for part, pixels in wrong:
            write_corrections(run, {"row_id": "c0000000", "part": part, "pixels": pixels})
            (record,) = load(run, of)
            outcome = Correct(Params()).process_one(record)
            assert isinstance(outcome, Rejected), (of, part)
            assert outcome.reason == "correction explains no change"
            assert "of the change is in it" in outcome.detail
        write_corrections(run, {"row_id": "c0000000", "pixels": truth["mask"]})
        (record,) = load(run, of)
        kept = correct(record)
        assert kept["mask_changed"] > 0.6
        assert 0.05 < kept["mask_change"] <= 1


def test_a_corrected_row_takes_the_place_of_the_wrong_one(run: Run, tmp_path: Path) -> None:
    """The dataset has the corrected row, and not the one that it corrects, though nobody gave a verdict; the account
    and the list of what is left out say so. Another flow without it has the row as it is."""
    write_corrections(run, {"row_id": "e0000002", "flow": "candidates", "pixels": scene(2)["mask"]})
    (record,) = load(run, "captured")
    made = correct(record)
    run.flow("corrected", [{**row(2, "captured"), **made}], Correct(Params()).schema({**CAPTURED, **Correct.needs}))
    tables = Tables(run.store)
    flows = ["captured", "candidates", "corrected"]
    superseded = find_superseded([tables.table(flow) for flow in flows])
    assert superseded == dict.fromkeys(("c0000002", "e0000002"), f"corrected by {made['id']}")
    assert find_superseded([tables.table("captured")]) == {}
    out = Store(tmp_path / "out")
    manifest = export_dataset(tables, flows, out, "n", "h", [], 10**6, excluded=superseded)
    assert manifest["rows"] == 5
    assert manifest["left_out"] == {"corrected by another row": 2}
    assert f'{{"id": "c0000002", "reason": "corrected by {made["id"]}"}}' in out.read("left_out.jsonl").decode()
    assert out.local is not None
    ids = {id for path in out.local.glob("data/*") for id in pq.read_table(path)["id"].to_pylist()}
    assert made["id"] in ids
    assert not {"c0000002", "e0000002"} & ids


def test_what_does_not_fit_is_said(run: Run) -> None:
    """No file, a file that is none, a mask of another size and corrections of other rows are told apart; nothing is
    made of them in silence."""
    with pytest.raises(MissingInput, match="rasura review"):
        load(run, "captured")
    run.store.write(CORRECTIONS, b"PAR1")
    with pytest.raises(BadCorrections, match="cannot be read"):
        read_corrections(run.store)
    write_corrections(run, {"row_id": "x", "pixels": np.ones((4, 4), bool)})
    with pytest.raises(MissingInput, match="row x of flow 'captured'"):
        load(run, "captured")
    write_corrections(run, {"row_id": "c0000000", "part": "alpha", "pixels": np.ones((4, 4), bool)})
    with pytest.raises(BadCorrections, match="row 1: part is 'alpha'"):
        load(run, "captured")
    write_corrections(run, {"row_id": "c0000000", "pixels": np.ones((4, 4), bool)})
    (record,) = load(run, "captured")
    outcome = Correct(Params()).process_one(record)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "correction of another size"


def test_a_changed_correction_is_another_input(run: Run) -> None:
    """The identity of what a flow was listed from changes with the file, and an item with its mask."""
    mask = scene(0)["mask"]
    source, context = Corrections(CorrectionsParams(of="captured")), RunContext(run.store, "corrected")
    seen = set()
    for pixels in (mask, ~mask):
        write_corrections(run, {"row_id": "c0000000", "pixels": pixels})
        seen.add((source.survey_inputs(context)[0], str(source.items(context))))
    assert len({identity for identity, _ in seen}) == len({items for _, items in seen}) == 2
