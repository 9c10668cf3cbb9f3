"""Training through Ray Train: the number of workers changes nothing but rounding, a worker may die, and what is wrong
is one sentence. All tests share one Ray of two CPUs."""

import json
import threading
import time
from functools import partial

import psutil
import pytest
from support import tiny_models
from support.annotator.runs import CAPTURED, Run, row
from support.loops import build_recipe, run_silently, write_scenes
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file

from rasura.manifests.storage import Store
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.memory import NetworkMemory
from rasura.pipeline.cli import remover as remover_cli
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.state import list_steps
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.training import remover as removers
from rasura.pipeline.training import workers as train_workers
from rasura.pipeline.training.rows import RowReader
from rasura.pipeline.training.settings import (
    FlowRows,
    RemoverSettings,
    build_distillation_settings,
    build_training_settings,
)
from rasura.pipeline.training.workers import run_training

torch.set_num_threads(1)
# Ray Data warns of its own settings, which nobody here touches
pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

QUICK = {"steps": 24, "batch": 4, "checkpoint_every": 4, "log_every": 4}
ROUNDING, MOVED = 1e-5, 1e-2
"""How far two workers' weights may be from one process's, as a share of their size: a gradient is summed in another
order. Measured: 1.7e-7 after 24 steps (at most 2.5e-6 of a weight; the largest is 1.0). Of a distillation's LoRA, what
began at nothing: 1.1e-3 after 3 steps; Adam makes a whole step of a gradient that is only rounding."""
SMALL = NetworkMemory(0, 100_000_000, device="cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def two():
    """Ray with two CPUs."""
    with cluster(EngineSettings(workers=2)):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of twelve captured scenes."""
    scenes = Run(tmp_path_factory.mktemp("scenes") / "run")
    scenes.flow("start", [row(n, "captured", 48) for n in range(12)], CAPTURED)
    return scenes.store.uri


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


def call(*arguments):
    """Runs a command; what it printed. Its errors come through as they are."""
    result = CliRunner().invoke(remover_cli.remover, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def train(run, out, *more, **settings):
    changed = [part for name, value in (QUICK | settings).items() for part in ("--set", f"{name}={value}")]
    return call("train", run, "--flow", "start", "--preset", "tiny", "--out", out, *changed, *more)


def one_after_another(works):
    """Several trainings in the same workers."""
    for work in works:
        work()


def kill_a_worker(when):
    """SIGKILL to a worker of Ray Train as soon as a file is there."""
    deadline = time.monotonic() + 600
    while not when.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process().children(recursive=True)
    victims = [child for child in children if "RayTrainWorker" in child.name() + " ".join(child.cmdline())]
    victims[0].kill()


def apart(ours, theirs, file=UNET, only=""):
    """Size of the difference between two trainings' weights, as a share of the weights'."""
    first, second = load_file(ours / file), load_file(theirs / file)
    assert first.keys() == second.keys()
    names = [name for name in first if only in name]
    gap, size = (
        torch.cat([value.flatten() for value in part]).norm()
        for part in ([first[name] - second[name] for name in names], [second[name] for name in names])
    )
    return float(gap / size)


def test_two_workers_train_as_one_process_and_one_may_die(two, run, base, tmp_path, monkeypatch):
    """A training on two workers ends in one process's weights but for rounding. One whose worker is killed with SIGKILL
    says so in one sentence, leaves its last checkpoint, and when it is told again ends in the weights of the one that
    nothing happened to, bit for bit. A distillation on two workers is one process's too. Nothing of Ray Train's is left
    in their folders; paths may be relative."""
    train(run, tmp_path / "alone")
    monkeypatch.chdir(tmp_path)
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "killed" / "checkpoint.json",), daemon=True)
    killer.start()
    with pytest.raises(TrainingFailed, match=r"died.*goes on from the last checkpoint") as failure:
        train(run, "killed", "--workers", 2)
    killer.join()
    assert "\n" not in str(failure.value)
    assert 4 <= json.loads((tmp_path / "killed" / "checkpoint.json").read_text())["progress"]["step"] < 24
    assert not (tmp_path / "killed" / "remover.json").exists()
    assert not (tmp_path / "killed" / ".ray").exists()

    config = RemoverSettings(preset="tiny", settings=QUICK, workers=2)
    settings = build_training_settings(config, 0, tune=False)
    refs = RowReader(Store(".")).list_rows([FlowRows(run=run, flow="start")], 0)
    items = removers.list_items(Store("."), refs)
    codec = tmp_path / "alone" / removers.CODEC
    works = [
        partial(removers.train_remover, config, settings, items, codec, None, tmp_path / name)
        for name in ("killed", "whole")
    ]
    distillation = {"steps": 3, "settings": {"batch": 2, "size": 64, "rank": 4, "warm_up": 1, "rate": 1e-3}}
    taught = RemoverSettings(base=base, workers=2, distill=distillation)
    distilling = build_distillation_settings(taught, 0)
    teacher = removers.prepare_teacher(taught, base, tmp_path / "lcm")
    distil = [
        partial(removers.distill_remover, taught, distilling, items, teacher, tmp_path / name)
        for name in ("lcm", "lcm 1")
    ]
    run_training(partial(one_after_another, [*works, distil[0]]), 2, tmp_path / "all", SMALL)
    distil[1]()
    assert apart(tmp_path / "killed", tmp_path / "whole") == 0
    assert 0 < apart(tmp_path / "whole", tmp_path / "alone") < ROUNDING
    assert 0 < apart(tmp_path / "lcm", tmp_path / "lcm 1", "lora.safetensors", ".lora_B.") < MOVED
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("killed", "whole")]
    steps = [[(entry["step"], entry["loss"]) for entry in map(json.loads, lines)] for lines in logs]
    assert steps[0] == steps[1]
    assert list((tmp_path / "all").iterdir()) == []


def test_a_loop_trains_on_workers_and_their_number_alone_makes_no_other_loop(two, tmp_path):
    """`remover.workers` takes a loop's training to Ray Train, where an error of the training comes back as it is: here
    a batch that two workers cannot share evenly. Told again with no workers the loop goes on to its end."""
    scenes = write_scenes(tmp_path / "run", 15, 6).store.uri
    changes = {"rounds": [{"kind": "auto", "count": 2}], "keep": "nothing", "removers": ["telea"]}
    remover = {"preset": "tiny", "steps": 2, "settings": {"batch": 3}}
    many, none = (
        LoopRecipe.model_validate(build_recipe(scenes, **changes, remover=remover | {"workers": workers}))
        for workers in (2, 0)
    )
    with pytest.raises(TrainingFailed, match="a batch of 3 cannot be divided evenly among 2 workers"):
        run_silently(many, tmp_path / "loop")
    assert not (tmp_path / "loop" / "steps" / "00-train.json").exists()
    assert list((tmp_path / "loop" / "removers" / "00").glob("*")) == []
    done = run_silently(none, tmp_path / "loop")
    assert len(list(done.list_done_steps())) == len(list_steps(none))


def test_more_workers_than_places_are_refused_at_once(two, tmp_path):
    """On one machine there is no waiting for a third CPU that never comes."""
    with pytest.raises(TrainingFailed, match="3 workers are asked for, and the cluster has room for 2"):
        run_training(partial(one_after_another, []), 3, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_the_cause_of_a_failure_is_raised_and_not_its_echo(tmp_path):
    """Of several workers' errors the one that was raised is passed on as it is; a closed connection is the echo of a
    worker that is gone."""
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    echo = RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")
    cause = TrainingFailed("the loss is nan")
    lost = WorkerHealthCheckFailedError("gone", RayActorError())
    assert train_workers._find_cause({0: echo, 1: cause}, 2, tmp_path) is cause
    assert train_workers._find_cause({0: cause, 1: lost}, 2, tmp_path) is cause
    assert "worker 1 of 2 died" in str(train_workers._find_cause({0: echo, 1: lost}, 2, tmp_path))
    assert "one of 2 workers died" in str(train_workers._find_cause({0: echo}, 2, tmp_path))
