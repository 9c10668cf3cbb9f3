"""The origin of a row, in a run whose flows were made one by one."""

import json
from pathlib import Path

import pytest
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row

from rasura.annotator.store.rows import list_rows
from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.run_layout import PLAN, read_plan
from rasura.pipeline.run.lineage import describe_row

UPSTREAM = {"pairs": [], "captured": ["pairs"], "backgrounds": [], "candidates": ["captured", "backgrounds"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of four flows, whose plan has them as `rasura run --only` may have added them, one up to a stage."""
    tables = Run(tmp_path / "run")
    origin = row(1, "captured")
    for name in ("pairs.matte", "captured", "pairs"):
        tables.flow(name, [origin], CAPTURED)
    tables.flow("backgrounds", [row(2, "captured")], CAPTURED)
    tables.flow("candidates", [row(3, "edited", parents=[origin["id"]])], CANDIDATES)
    tables.flow("candidates.inpaint", [row(n, "edited", parents=[origin["id"]]) for n in (3, 4)], CANDIDATES)
    plan = parse_sealed(tables.store.read(PLAN))
    for name, flow in plan["flows"].items():
        flow["upstream"] = UPSTREAM[name.partition(".")[0]]
    order = ("candidates", "captured", "backgrounds", "pairs", "candidates.inpaint", "pairs.matte")
    flows = {name: plan["flows"][name] for name in order}
    tables.store.write(PLAN, json.dumps(seal({**plan, "flows": flows})).encode())
    return tables


def test_flows_come_after_those_that_they_read(run: Run) -> None:
    """The order of a plan follows from what each flow reads; a flow up to a stage comes before the complete one."""
    order = ["pairs.matte", "pairs", "captured", "backgrounds", "candidates.inpaint", "candidates"]
    assert list(read_plan(run.store).flows) == order


def test_a_row_comes_from_flows_that_its_flow_reads(run: Run) -> None:
    """The parents of a row are in the flows that its own was made from, whenever those were made."""
    lines = describe_row([run.store], row(3, "edited")["id"]).splitlines()
    flows = [line.rpartition("  flow ")[0::2] for line in lines if "  flow " in line]
    depths = [((len(id) - len(id.lstrip())) // 2, name) for id, name in flows]
    assert depths == [(0, "candidates"), (1, "captured"), (2, "pairs")]


def test_rows_up_to_a_stage_are_not_reviewed_beside_the_complete_flow(run: Run) -> None:
    """A flow that was also made up to a stage is reviewed as it is now; that stage's rows only when they are named."""
    assert [entry.flow for entry in list_rows(run.store) if entry.kind == "edited"] == ["candidates"]
    assert len(list_rows(run.store, ["candidates.inpaint"])) == 2
