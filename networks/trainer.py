"""The training loop of every network: processes, checkpoints, learning rate, evaluation, and the log.

A step's loss depends on the step's number alone, so a training that was killed goes on from its last checkpoint to the
same parameters, bit for bit, as one that was not (same machine type, same threads, as many processes).
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rasura.networks.checkpoint import Checkpoint, TrainingFailed
from rasura.networks.tracking import ProgressTracker, create_accelerator

if TYPE_CHECKING:
    import torch

ComputeLoss = Callable[[Any, int, int, int], "torch.Tensor"]
"""(network, step, rank, world) to the mean loss of one process's share of a step."""
OnProgress = Callable[[int, int, str], None]
"""Called now and then, by the first process alone, with the work done, all work, and a note such as 'loss 0.12'."""
REPORT_EVERY_S = 1.0


class OptimizerSettings(Protocol):
    """The settings that every training has.

    steps, batch: of all processes together. rate: learning rate, reached after `warm_up` steps; with `decay` it then
    falls to nothing, in a line or, where it is "cosine", by half a cosine. clip: largest norm of the gradient.
    precision: `no`, `bf16` or `fp16`, as accelerate names them. tracker: `none`, or where the log is shown beside its
    file: `tensorboard`, `wandb` or `mlflow`.
    """

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def warm_up(self) -> int: ...
    @property
    def decay(self) -> bool | str: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def tracker(self) -> str: ...


@dataclass(frozen=True)
class Evaluation:
    """A measurement on held-out data that decides which parameters are best and when to stop.

    measure: returns measurements with the held-out `loss`. every: steps between two of them. patience: evaluations
    without a better loss after which the training ends.
    """

    measure: Callable[[], Mapping[str, float]]
    every: int
    patience: int


@dataclass
class Progress:
    """The progress of a training. best: the lowest held-out loss, at `best_step`, `since_best` evaluations ago."""

    step: int = 0
    loss: float = 0.0
    best: float = math.inf
    best_step: int = 0
    since_best: int = 0


class Trainer:
    """One training of one network, from where the last checkpoint in its folder ends.

    Several processes train together where the program was started so (accelerate, Ray Train): each computes the loss
    of its share of a step, the mean of their gradients moves all of them alike, and the first one alone writes.
    """

    def __init__(
        self,
        network: Any,
        settings: OptimizerSettings,
        out: Path,
        identity: Mapping[str, Any],
        *,
        name: str,
        device: Any,
        dtype: Any,
        smoothing: float = 0.05,
        fused: bool = False,
        best: str | None = None,
        scale_rate: Callable[[str], float] | None = None,
    ) -> None:
        """Prepare the network, the optimizer and the processes, and restore the last checkpoint.

        Args:
            network: its parameters that require gradients are learned, in float32.
            out: folder of checkpoints and log.
            identity: settings, network and data, which distinguish this training from others; see `Checkpoint`.
            name: what is trained: folder of the TensorBoard events under `out`, project or experiment of the others.
            smoothing: share of a step's own loss in the loss that is reported.
            fused: use AdamW's fused kernel.
            best: file of `out` for the best parameters, for a training that is evaluated.
            scale_rate: returns the factor of a parameter's learning rate, by its name; all are 1 without it.

        Raises:
            TrainingFailed: a batch that cannot be divided among the processes, a folder of another training, or a
                tracker that is not installed.
        """
        import torch

        # the parameters that learn, in full precision: half-precision weights lose small steps
        self.settings, self.smoothing, self.name = settings, smoothing, name
        self.parameters = {key: value for key, value in network.named_parameters() if value.requires_grad}
        for value in self.parameters.values():
            value.data = value.data.float()
        groups = group_parameters(self.parameters, scale_rate)
        optimizer = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.weight_decay, fused=fused or None)

        # one process or several, by how the program was started
        precision = "bf16" if dtype == torch.bfloat16 else settings.precision
        self.accelerator = create_accelerator(precision, device, out, settings.tracker)
        self.tracker = ProgressTracker(self.accelerator, settings.tracker, name, out, identity)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.is_first: bool = self.accelerator.is_main_process
        if settings.batch % self.world:
            raise TrainingFailed(f"a batch of {settings.batch} cannot be divided evenly among {self.world} workers")
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)

        # the last checkpoint
        out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = Checkpoint(out, identity, self.parameters, self.optimizer, best)
        self.progress = Progress(**self.checkpoint.load(writes=self.is_first))
        self.started = self.reported = time.monotonic()

    def fit(
        self,
        compute_loss: ComputeLoss,
        evaluation: Evaluation | None = None,
        log_every: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Minimize a loss until the last step, or until evaluations no longer improve; then restore the best.

        Args:
            compute_loss: see `ComputeLoss`. It may depend on nothing but its arguments, or a training that was killed
                would not go on to the same parameters.
            log_every: steps between two lines of the log, beside those of the evaluations.
            on_progress: see `OnProgress`.

        Raises:
            TrainingFailed: a loss that is not a number.
        """
        settings, progress = self.settings, self.progress
        self.tracker.start()
        try:
            while progress.step < settings.steps and not (evaluation and progress.since_best >= evaluation.patience):
                rate = settings.rate * compute_rate_factor(settings, progress.step)
                self._step(compute_loss, rate)
                is_last = progress.step == settings.steps
                if evaluation and (is_last or progress.step % evaluation.every == 0):
                    self._evaluate(evaluation)
                if log_every and (is_last or progress.step % log_every == 0):
                    self._log({"loss": progress.loss, "rate": rate})
                if self.is_first and (is_last or progress.step % settings.checkpoint_every == 0):
                    self.checkpoint.save(self._progress_to_json())
                if on_progress and self.is_first:
                    self._report(on_progress, is_last)
        finally:
            self.tracker.finish()
        self.accelerator.wait_for_everyone()
        if progress.best_step:
            self.checkpoint.load_best()

    def write(self, save: Callable[[], None]) -> None:
        """Let the first process write the result, while the others wait."""
        if self.is_first:
            save()
        self.accelerator.wait_for_everyone()

    def _step(self, compute_loss: ComputeLoss, rate: float) -> None:
        """Move the parameters once.

        Raises:
            TrainingFailed: the loss is not a number.
        """
        settings, progress = self.settings, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)  # checkpoints of before have no scales
        loss = compute_loss(self.network, progress.step, self.rank, self.world)
        mean = self.accelerator.reduce(loss.detach(), "mean").item()  # of all processes, so that they stop together
        if not math.isfinite(mean):
            raise TrainingFailed(
                f"the loss is {mean} at step {progress.step}; the last checkpoint is of step {self.checkpoint.step}. "
                f"A smaller rate than {settings.rate} or another precision than '{settings.precision}' may help"
            )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(list(self.parameters.values()), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        share = self.smoothing if progress.step else 1.0
        progress.loss = (1 - share) * progress.loss + share * mean
        progress.step += 1

    def _evaluate(self, evaluation: Evaluation) -> None:
        """Measure on held-out data, and keep the parameters where they are the best so far."""
        progress = self.progress
        measurements = evaluation.measure()
        if measurements["loss"] < progress.best:
            progress.best, progress.best_step, progress.since_best = measurements["loss"], progress.step, 0
            if self.is_first:
                self.checkpoint.save_best()
        else:
            progress.since_best += 1
        self._log({"train_loss": progress.loss, **measurements})

    def _log(self, values: Mapping[str, float]) -> None:
        """Write values to the log, and show them where the settings say."""
        if not self.is_first:
            return
        seconds = round(time.monotonic() - self.started, 1)
        self.checkpoint.log({"step": self.progress.step, **values, "seconds": seconds})
        self.tracker.log(values, self.progress.step)

    def _report(self, on_progress: OnProgress, is_last: bool) -> None:
        """Report the progress at most once in `REPORT_EVERY_S`, and at the end."""
        now = time.monotonic()
        if is_last or now - self.reported >= REPORT_EVERY_S:
            self.reported = now
            on_progress(self.progress.step, self.settings.steps, f"loss {self.progress.loss:.3g}")

    def _progress_to_json(self) -> dict[str, Any]:
        """Return the progress as checkpoints hold it: a training without evaluations has no best."""
        record = asdict(self.progress)
        return record if self.checkpoint.best else {key: record[key] for key in ("step", "loss")}


def group_parameters(
    parameters: "Mapping[str, torch.Tensor]", scale_rate: Callable[[str], float] | None
) -> list[dict[str, Any]]:
    """Return an optimizer's groups of parameters, each with the `scale` of its learning rate.

    Examples:
        >>> group_parameters({"a": 1, "b": 2, "c": 3}, lambda name: 0.1 if name == "b" else 1.0)
        [{'params': [1, 3], 'scale': 1.0}, {'params': [2], 'scale': 0.1}]
    """
    groups: dict[float, list[Any]] = {}
    for name, value in parameters.items():
        groups.setdefault(scale_rate(name) if scale_rate else 1.0, []).append(value)
    return [{"params": values, "scale": scale} for scale, values in groups.items()]


def compute_rate_factor(settings: OptimizerSettings, step: int) -> float:
    """Return the factor of the learning rate at a step, in (0, 1]: linear warm-up, then constant, linear or cosine.

    The cosine begins where the warm-up ends, as in transformers' `get_cosine_schedule_with_warmup`.

    Examples:
        >>> from types import SimpleNamespace
        >>> settings = SimpleNamespace(steps=10, warm_up=4, decay=True)
        >>> [round(compute_rate_factor(settings, step), 3) for step in (0, 3, 5, 9)]
        [0.25, 0.7, 0.5, 0.1]
    """
    warm_up = min(1.0, (step + 1) / max(1, settings.warm_up))
    if settings.decay == "cosine":
        done = max(0, step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
        return warm_up * (1 + math.cos(math.pi * done)) / 2
    return warm_up * (1 - step / settings.steps if settings.decay else 1.0)
