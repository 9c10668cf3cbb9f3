"""The trainer: it goes on exactly, keeps the best, stops in time, and reports its progress."""

import importlib.util
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from rasura.networks import trainer as trainers
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.trainer import Evaluation, Trainer, compute_rate_factor

pytestmark = pytest.mark.torch

torch.set_num_threads(1)


@dataclass(frozen=True)
class Settings:
    steps: int = 6
    batch: int = 2
    rate: float = 0.1
    warm_up: int = 2
    decay: bool = True
    weight_decay: float = 0.01
    clip: float = 1.0
    checkpoint_every: int = 2
    precision: str = "no"
    tracker: str = "none"


def make_trainer(out, settings=None, best=None, identity=None):
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    identity = identity or {"data": "numbers"}
    return Trainer(
        network,
        settings or Settings(),
        out,
        identity,
        name="test",
        device=torch.device("cpu"),
        dtype=torch.float32,
        best=best,
    )


def compute_loss(network, step, rank, world):
    """A regression on numbers that follow from the step alone."""
    numbers = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    return (network(numbers) - numbers.sum(1, keepdim=True)).square().mean()


def read_log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def get_weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.parameters.items()}


@pytest.mark.parametrize("killed_at", range(1, 6))
def test_a_killed_training_goes_on_exactly(tmp_path, killed_at):
    """Killed in any step and started again, it ends in the same parameters to the bit, with each log line once."""
    undisturbed = make_trainer(tmp_path / "undisturbed")
    undisturbed.fit(compute_loss, log_every=1)

    def dies(network, step, rank, world):
        if step == killed_at:
            raise KeyboardInterrupt
        return compute_loss(network, step, rank, world)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "killed").fit(dies, log_every=1)
    resumed = make_trainer(tmp_path / "killed")
    assert resumed.progress.step == killed_at // 2 * 2
    resumed.fit(compute_loss, log_every=1)
    for name, value in get_weights(undisturbed).items():
        assert torch.equal(value, get_weights(resumed)[name])
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("undisturbed", "killed")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_the_best_parameters_are_restored_and_patience_ends_a_training(tmp_path):
    """Evaluated after each step, a training ends two evaluations after its best, whose parameters it has at the end;
    one that was killed after its best still knows it."""
    snapshots = []

    def make_measure(trainer, losses):
        def measure():
            snapshots.append(get_weights(trainer))
            return {"loss": losses[trainer.progress.step - 1]}

        return measure

    settings = replace(Settings(), steps=50, checkpoint_every=1)
    trainer = make_trainer(tmp_path, settings, "best.safetensors")
    trainer.fit(compute_loss, Evaluation(make_measure(trainer, [3.0, 1.0, 2.0, 2.5, 9.0]), every=1, patience=2))
    assert (trainer.progress.best_step, trainer.progress.best, trainer.progress.step) == (2, 1.0, 4)
    for name, value in get_weights(trainer).items():
        assert torch.equal(value, snapshots[1][name])
    assert [line["loss"] for line in read_log(tmp_path)] == [3.0, 1.0, 2.0, 2.5]
    again = make_trainer(tmp_path, settings, "best.safetensors")
    again.fit(compute_loss, Evaluation(make_measure(again, []), every=1, patience=2))
    for name, value in get_weights(again).items():
        assert torch.equal(value, snapshots[1][name])


def test_progress_is_reported_by_steps(tmp_path, monkeypatch):
    """With no time between two reports every step is one, with the steps in all and the loss; else the last alone."""
    reports = []
    make_trainer(tmp_path / "slow").fit(compute_loss, on_progress=lambda *report: reports.append(report))
    assert [report[:2] for report in reports] == [(6, 6)]
    monkeypatch.setattr(trainers, "REPORT_EVERY_S", 0.0)
    reports.clear()
    make_trainer(tmp_path / "quick").fit(compute_loss, on_progress=lambda *report: reports.append(report))
    assert [report[:2] for report in reports] == [(step, 6) for step in range(1, 7)]
    assert all(note.startswith("loss ") for *_, note in reports)


def test_a_loss_that_is_no_number_and_a_folder_of_another_training_are_refused(tmp_path):
    """Both are one sentence; the checkpoint before the loss stays."""
    with pytest.raises(TrainingFailed, match="the loss is nan at step 3; the last checkpoint is of step 2"):
        make_trainer(tmp_path).fit(
            lambda network, step, *_: compute_loss(network, step, 0, 1) * (np.nan if step == 3 else 1)
        )
    assert json.loads((tmp_path / "checkpoint.json").read_text())["progress"]["step"] == 2
    with pytest.raises(TrainingFailed, match="holds a training with other data"):
        make_trainer(tmp_path, identity={"data": "others"})


def test_the_rate_rises_and_falls():
    """Up in a line over the warm-up; then down in a line to nothing, or constant, or by transformers' half cosine."""
    from transformers import get_cosine_schedule_with_warmup

    settings = replace(Settings(), steps=10, warm_up=4)
    factors = [compute_rate_factor(settings, step) for step in range(10)]
    assert factors[:2] == pytest.approx([0.25, 0.5 * 0.9])
    assert factors[9] == pytest.approx(0.1)
    assert compute_rate_factor(replace(settings, decay=False), 9) == 1
    cosine = [compute_rate_factor(replace(settings, decay="cosine"), step) for step in range(10)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = get_cosine_schedule_with_warmup(optimizer, 4, 10), []
    for _ in range(10):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert cosine == pytest.approx([0.25, 0.5, 0.75, 1.0, *rates[4:]])


def test_a_tracker_is_chosen_and_ends_no_training(tmp_path, caplog):
    """Without a tracker accelerate has none; one that is not installed is a sentence before anything is trained; one
    that fails on the way is given up, and the training ends as without it."""
    assert make_trainer(tmp_path / "none").accelerator.log_with == []
    missing = next(name for name in ("wandb", "mlflow", "nothing") if importlib.util.find_spec(name) is None)
    with pytest.raises(TrainingFailed, match=f"tracker: {missing} is not installed here: pip install {missing}"):
        make_trainer(tmp_path / "missing", replace(Settings(), tracker=missing))
    assert not (tmp_path / "missing").exists()
    pytest.importorskip("tensorboard")
    plain = make_trainer(tmp_path / "plain")
    tracked = make_trainer(tmp_path / "t", replace(Settings(), tracker="tensorboard"))
    plain.fit(compute_loss, log_every=1)
    tracked.tracker.start()
    tracked.accelerator.trackers[0].writer.close()
    tracked.accelerator.trackers[0].writer = None  # as if its disk were gone
    tracked.tracker.start = lambda: None
    tracked.fit(compute_loss, log_every=1)
    learned = get_weights(tracked)
    assert all(torch.equal(value, learned[name]) for name, value in get_weights(plain).items())
    assert "has failed and is not used further" in caplog.text
    assert len(read_log(tmp_path / "t")) == len(read_log(tmp_path / "plain"))
