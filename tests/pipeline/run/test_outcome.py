"""The closing lines of a run: causes in order with an example, a warning for what is empty, an error if all failed."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rasura.manifests.schemas import Kind, encode_records
from rasura.manifests.shards import RejectedRow, StageCount, commit
from rasura.manifests.storage import Store
from rasura.pipeline.run.accounting import FlowAccounting, StageAccounting, count_flow
from rasura.pipeline.run.outcome import AllInputsFailed, FlowOutcome, check_flows, list_warnings, summarize_flow

COLUMNS = {"id": Kind.STRING}


def make_outcome(
    folder: Path, kept: int, dropped: Mapping[tuple[str, str], int], upstream: tuple[str, ...] = ()
) -> FlowOutcome:
    """The outcome of a flow `pairs` with one stage `effects`, in shards of one input, written to disk."""
    store = Store(folder)
    ends: list[Any] = [None] * kept + [pair for pair, count in dropped.items() for _ in range(count)]
    records = []
    for number, end in enumerate(ends):
        count = StageCount("effects", 1, kept=end is None, out=end is None)
        rows = []
        if end is not None:
            outcome, reason = end
            getattr(count, outcome)[reason] = 1
            rows = [RejectedRow(f"id{number}", None, "effects", outcome, reason, f"detail {number}", f"id{number}")]
        write = StageCount("write", int(end is None), int(end is None), int(end is None))
        table = encode_records([{"id": f"id{number}"}] if end is None else [], COLUMNS)
        records.append(commit(store.sub("tables/pairs"), f"s{number}", "p", 1, table, rows, [count, write]))
    return summarize_flow(store, count_flow("pairs", ["effects"], records), records, upstream)


def test_causes_are_listed_commonest_first_with_an_example(tmp_path: Path) -> None:
    """What was rejected and what failed is counted by cause; the example is one of the commonest error."""
    dropped = {("rejected", "small"): 2, ("failed", "KeyError"): 1, ("failed", "NotAnImage"): 3}
    outcome = make_outcome(tmp_path, 1, dropped)
    assert list(outcome.describe()) == [
        "pairs: 1 row from 7 inputs",
        "  rejected 2: 2 × small (effects)",
        "  failed 4: 3 × NotAnImage (effects), 1 × KeyError (effects); for example id4",
    ]
    assert list_warnings("runs/x", {"pairs": outcome}, None, 0) == []
    check_flows("runs/x", {"pairs": outcome})


@pytest.mark.parametrize(
    ("dropped", "upstream", "expected"),
    [
        ({("rejected", "small"): 2}, (), "in stage 'effects', 2 of 2 were rejected: small (detail 0), for example id0"),
        (
            {("rejected", "small"): 2, ("failed", "KeyError"): 1},
            (),
            "1 of 3 failed with KeyError (detail 2), for example id2",
        ),
        ({}, ("photos",), "flow 'pairs' has no rows: it had no inputs (it reads 'photos')"),
    ],
)
def test_what_is_empty_is_warned_of(
    tmp_path: Path, dropped: dict[tuple[str, str], int], upstream: tuple[str, ...], expected: str
) -> None:
    """A flow without rows has a warning with the commonest cause; the last one says where to read on."""
    outcome = make_outcome(tmp_path, 0, dropped, upstream)
    flow, dataset = list_warnings("runs/x", {"pairs": outcome}, "runs/x/dataset", 0)
    assert expected in flow
    assert dataset.startswith("the dataset runs/x/dataset is empty; `rasura status runs/x`")
    check_flows("runs/x", {"pairs": outcome})


def test_a_flow_whose_inputs_all_failed_is_an_error(tmp_path: Path) -> None:
    """Duplicates of the failed inputs change nothing; the error says what failed and how to try again."""
    outcome = make_outcome(tmp_path, 0, {("failed", "NotAnImage"): 2, ("rejected", "duplicate"): 1})
    assert outcome.has_only_failures
    assert list_warnings("runs/x", {"pairs": outcome}, None, 0) == []
    with pytest.raises(
        AllInputsFailed, match=r"all inputs of flow 'pairs' failed: .*2 of 3 failed with NotAnImage"
    ) as raised:
        check_flows("runs/x", {"pairs": outcome})
    assert "by the same with --retry-failed" in str(raised.value)


def test_a_stage_that_makes_nothing_of_an_input_has_not_failed() -> None:
    """An input of which a stage makes no record is kept by that stage: not all inputs failed."""
    stages = [StageAccounting("detect", inputs=4, kept=1, out=0, failed=Counter({"KeyError": 3}))]
    assert not FlowOutcome(FlowAccounting("pairs", True, 1, 0, stages), 4).has_only_failures
    stages = [StageAccounting("detect", inputs=4, kept=4, out=0)]
    outcome = FlowOutcome(FlowAccounting("pairs", True, 1, 0, stages), 4)
    assert outcome.explain_emptiness() == "stage 'detect' made no rows of its inputs"


def test_many_causes_are_cut(tmp_path: Path) -> None:
    """The commonest five are listed, and how many more there are."""
    causes = {("rejected", f"cause {number}"): number for number in range(1, 8)}
    line = list(make_outcome(tmp_path, 1, causes).describe())[1]
    assert line.startswith("  rejected 28: 7 × cause 7 (effects), 6 × cause 6")
    assert "cause 2" not in line
    assert line.endswith("2 other reasons; for example id22")
    assert Counter(line)["×"] == 5
