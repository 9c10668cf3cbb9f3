"""Which GPUs workers see, on clusters of several nodes whose GPUs are numbers that Ray is told."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import environment, rasura, write_recipe

pytestmark = pytest.mark.ray

TASKS = """
import os
from dataclasses import replace
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.training.tasks import NOWHERE, run_task
with cluster(EngineSettings(workers=1)):
    card = replace(NOWHERE, gpus=1)
    print(*(run_task(os.getpid, place) for place in (NOWHERE, NOWHERE, card, card)))
"""


class Look(NamedTuple):
    """What one worker saw: the stage, its node, the GPUs that it sees and those that Ray gave it."""

    stage: str
    node: str
    seen: str
    given: str
    pid: str


def read_looks(log: Path) -> set[Look]:
    return {Look(*line.split()) for line in log.read_text().splitlines()}


def make_flow(log: Path, *stages: dict[str, Any], count: int = 36) -> dict[str, Any]:
    return {"made": {"source": {"synthetic:Numbers": {"count": count}}, "stages": list(stages)}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Three nodes: one without GPUs, one with two, one with one. None of them sets a variable of ours."""
    from ray.cluster_utils import Cluster

    ours = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith(("RAY_ACCEL", "RASURA_", "CUDA_"))}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # the nodes' workers have to find the tests' stages
    nodes = Cluster()
    options = {"object_store_memory": 100_000_000, "include_dashboard": False}
    nodes.add_node(num_cpus=2, num_gpus=0, **options)
    nodes.add_node(num_cpus=3, num_gpus=2, **options)
    nodes.add_node(num_cpus=2, num_gpus=1, **options)
    os.environ.update(ours, PYTHONPATH=before or "")
    yield str(nodes.address)
    nodes.shutdown()


def test_workers_see_the_cards_of_their_plan_and_no_others(cluster: str, tmp_path: Path) -> None:
    """Two networks that fit onto a card together have one worker each on every card of the mixed cluster, with half of
    it; a stage without a network sees no card; the plan is printed; all rows are there."""
    log = tmp_path / "looks.txt"
    stages = [{name: {"log": str(log)}} for name in ("synthetic:Looker", "synthetic:Holder", "synthetic:OtherHolder")]
    engine = {"shard_rows": 1, "gpu_memory_gb": 10}
    recipe = write_recipe(tmp_path, flows=make_flow(log, *stages), engine=engine)
    done = rasura("run", recipe, "--into", tmp_path / "run", env=environment(RAY_ADDRESS=cluster))
    assert "synthetic:Holder: 3 workers, 0.5 of one of 3 GPUs each, 4.0 GB\n" in done.stderr
    assert "made: 36 rows from 36 inputs" in done.stdout
    looks = read_looks(log)
    assert {look.seen for look in looks if look.stage == "Looker"} == {"-"}
    assert all(look.seen == look.given for look in looks)
    for stage in ("Holder", "OtherHolder"):
        cards = Counter((look.node, look.seen) for look in looks if look.stage == stage)
        assert set(cards.values()) == {1}  # never two of them on one card
        assert len(cards) == 3
    assert len({look.node for look in looks if look.stage == "Holder"}) == 2


def test_networks_that_need_a_whole_card_never_share_one(cluster: str, tmp_path: Path) -> None:
    """Two networks that do not fit together divide the cards between them; what a recipe's `resources` say is obeyed
    beside them."""
    log = tmp_path / "looks.txt"
    stages = [{"synthetic:Holder": {"log": str(log), "gigabytes": 9}}, {"synthetic:OtherHolder": {"log": str(log)}}]
    written = {"synthetic:Looker": {"log": str(log), "resources": {"gpus": 0.5, "cpus": 0}}}
    engine = {"shard_rows": 1, "gpu_memory_gb": 12}
    recipe = write_recipe(tmp_path, flows=make_flow(log, written, *stages), engine=engine)
    rasura("run", recipe, "--into", tmp_path / "run", env=environment(RAY_ADDRESS=cluster))
    looks = read_looks(log)
    users = {
        stage: {(look.node, look.seen) for look in looks if look.stage == stage} for stage in ("Holder", "OtherHolder")
    }
    written_cards = {(look.node, look.seen) for look in looks if look.stage == "Looker"}
    assert all(users.values())
    assert not users["Holder"] & (users["OtherHolder"] | written_cards)
    assert all("," not in seen for _, seen in written_cards)


def test_what_no_card_can_hold_is_refused_before_the_start(cluster: str, tmp_path: Path) -> None:
    """A flow whose network is larger than every card ends the run with a sentence before any flow is begun."""
    log = tmp_path / "looks.txt"
    flows = make_flow(log) | {
        "next": {
            "source": {"flow": {"of": "made"}},
            "stages": [{"synthetic:Holder": {"log": str(log), "gigabytes": 30}}],
        }
    }
    recipe = write_recipe(tmp_path, flows=flows, engine={"gpu_memory_gb": 24})
    done = rasura("run", recipe, "--into", tmp_path / "run", env=environment(RAY_ADDRESS=cluster), check=False)
    assert done.returncode == 1
    assert "flow 'next', synthetic:Holder: its network needs 30.0 GB of a GPU; the largest has 24.0 GB" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("tables/*/lines/*"))


def test_a_local_run_keeps_to_the_visible_cards(tmp_path: Path) -> None:
    """With CUDA_VISIBLE_DEVICES set, workers get the cards that it names, one each; the others see none."""
    log = tmp_path / "looks.txt"
    stages = [{"synthetic:Looker": {"log": str(log)}}, {"synthetic:Holder": {"log": str(log)}}]
    recipe = write_recipe(tmp_path, flows=make_flow(log, *stages, count=16), engine={"shard_rows": 1, "workers": 2})
    env = environment(CUDA_VISIBLE_DEVICES="2,3", RASURA_RESOURCES="GPU=2")
    done = rasura("run", recipe, "--into", tmp_path / "run", env=env)
    assert "synthetic:Holder: 2 workers, 1 of 2 GPUs each, 4.0 GB\n" in done.stderr
    looks = read_looks(log)
    assert {look.seen for look in looks if look.stage == "Looker"} == {"-"}
    assert {look.seen for look in looks if look.stage == "Holder"} == {"2", "3"}


def test_a_task_with_a_card_leaves_no_process_on_it() -> None:
    """What torch holds of a card ends with its process: each task with one has its own. Tasks without share one, which
    has imported torch."""
    env = environment(RASURA_RESOURCES="GPU=1")
    done = subprocess.run([sys.executable, "-c", TASKS], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, second, *with_card = done.stdout.split()
    assert first == second
    assert len({first, *with_card}) == 3
