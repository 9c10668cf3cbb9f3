"""An estimate is the sample, scaled: by hand it comes to the same, and the command takes no more than the sample."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import rasura, write_recipe

from rasura.manifests.images import encode_image
from rasura.pipeline.recipe.shards import StoredShards
from rasura.pipeline.run.accounting import FlowAccounting, StageAccounting
from rasura.pipeline.run.comparison.estimate import FlowSample, NothingToScale, scale


def make_sample(
    name: str,
    counts: list[tuple[str, int, int, float]],
    listed: int,
    upstream: tuple[str, ...] = (),
    takes_all: bool = False,
    workers: dict[str, tuple[int, float]] | None = None,
) -> FlowSample:
    """A flow whose stages had these (name, inputs, kept, seconds)."""
    stages = [
        StageAccounting(stage, inputs, kept, kept, Counter({"no": inputs - kept}) if inputs > kept else Counter())
        for stage, inputs, kept, _ in counts
    ]
    for stage, (_, inputs, _, seconds) in zip(stages, counts, strict=True):
        stage.seconds, stage.timed_rows = seconds, inputs
    accounting = FlowAccounting(name, True, 1, counts[-1][2], stages)
    return FlowSample(accounting, listed, upstream, takes_all, 1000, 100 * counts[-1][2], workers or {})


def test_a_chain_of_flows_is_scaled_by_what_survives() -> None:
    """1,000 photographs, of which the sample of 20 kept 10, then 4: a dataset of 50 rows takes a quarter of them."""
    samples = {
        "photos": make_sample("photos", [("photos", 20, 20, 2.0), ("audit", 20, 10, 40.0)], 1000),
        "removed": make_sample(
            "removed",
            [("flow", 10, 10, 0.0), ("inpaint", 10, 4, 90.0)],
            10,
            ("photos",),
            takes_all=True,
            workers={"flow": (2, 0.0), "inpaint": (1, 0.5)},
        ),
    }
    found = scale(samples, ["removed"], 50)
    assert found.inputs == {"photos": (250.0, 1000)}
    seconds = {(stage.flow, stage.stage): stage.hours * 3600 for stage in found.stages}
    assert seconds["photos", "audit"] == pytest.approx(250 * 2.0)
    assert seconds["removed", "inpaint"] == pytest.approx(125 * 9.0)
    assert found.gpu_hours * 3600 == pytest.approx(125 * 9.0 * 0.5)
    assert found.dataset_bytes == pytest.approx(50 * 100)
    assert found.run_bytes == pytest.approx(50 * 100 + 1000 * 250 / 20 + 1000 * 125 / 10)
    low, high = found.interval
    assert low < 1 < high
    text = "\n".join(found.describe())
    assert "there are 1,000" in text
    assert "18 min 45 s" in text, "of `inpaint`: short times are no hours with zeros"
    assert "9 min 22 s of a GPU" in text
    assert "5 kB of dataset" in text
    assert "0.00" not in text
    assert scale(samples, ["removed"], 100).hours == pytest.approx(2 * found.hours)
    assert "there are only 1,000" in "\n".join(scale(samples, ["removed"], 500).describe())


def test_what_draws_choose_from_is_made_once() -> None:
    samples = {
        "objects": make_sample("objects", [("pairs", 8, 4, 8.0)], 80),
        "pasted": make_sample("pasted", [("draws", 8, 8, 1.0), ("composite", 8, 8, 16.0)], 40, ("objects",)),
    }
    found = scale(samples, ["pasted"], 4000)
    assert {stage.stage: stage.inputs for stage in found.stages} == {"pairs": 80, "draws": 4000, "composite": 4000}
    assert found.factor == 100


def test_a_sample_without_rows_says_why() -> None:
    samples = {"photos": make_sample("photos", [("photos", 20, 20, 2.0), ("audit", 20, 0, 40.0)], 1000)}
    with pytest.raises(NothingToScale, match="photos audit: 20 no"):
        scale(samples, ["photos"], 50)


def test_a_sample_of_few_rows_has_no_bound_from_above() -> None:
    """One row of 40 after two stages: nothing of the 95 % interval excludes that none is ever kept."""
    counts = [("photos", 40, 40, 0.0), ("audit", 40, 5, 40.0), ("matte", 5, 1, 1.0), ("select", 40, 12, 1.0)]
    found = scale({"photos": make_sample("photos", counts, 1000)}, ["photos"], 50)
    assert found.interval[1] == float("inf")
    text = "\n".join(found.describe())
    assert "of a worker (at least " in text
    assert not re.search(r"\b(inf|nan)\b", text)
    values = json.loads(json.dumps(found.to_json_values(), allow_nan=False))
    assert values["interval"] == [pytest.approx(found.interval[0]), None]


class Listed:
    """A listing of shards of these sizes."""

    def __init__(self, counts: list[int]) -> None:
        self.counts, self.ids = counts, [f"{index:02d}" for index in range(len(counts))]


@pytest.mark.parametrize(("shards", "inputs"), [(1, 8), (10, 8), (10, 30), (97, 32), (1000, 1), (3, 100)])
def test_a_sample_is_drawn_from_all_over(shards: int, inputs: int) -> None:
    """About as many inputs as were asked for, each shard once, not all from one end."""
    drawn = StoredShards(Listed([4] * shards)).draw_sample(inputs)  # type: ignore[arg-type]
    assert len(set(drawn.ids)) == len(drawn)
    assert min(inputs, 4 * shards) <= drawn.inputs < inputs + 4 or drawn.inputs == 4 * shards
    if 4 * shards > 2 * inputs and len(drawn) > 1:
        assert drawn.ids[0] < f"{shards // 2:02d}" <= drawn.ids[-1]


@pytest.mark.ray
def test_the_command_runs_a_sample_and_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(77)
    (tmp_path / "photos").mkdir()
    for number in range(30):
        picture = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode_image(picture))
    flows = {"photos": {"source": {"photos": {"path": str(tmp_path / "photos")}}, "shard_rows": 30}}
    recipe = write_recipe(tmp_path, flows=flows)
    before = sorted(path for path in tmp_path.rglob("*"))
    done = rasura("estimate", recipe, "--count", "120", "--sample", "8", "--json")
    values = json.loads(done.stdout)
    assert values["inputs"] == {"photos": [120.0, 30]}
    assert values["factor"] == 4
    (source, *_) = values["stages"]
    assert source["sample"] == 8
    assert source["hours"] > 0
    assert values["run_bytes"] > 0
    assert sorted(path for path in tmp_path.rglob("*")) == before
