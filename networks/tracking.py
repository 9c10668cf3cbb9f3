"""Where a training shows its progress beside its own log: TensorBoard, Weights & Biases or MLflow, through accelerate.

Nothing of them is imported unless the settings choose it.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from rasura.networks.checkpoint import TrainingFailed

log = logging.getLogger(__name__)

Tracker = Literal["none", "tensorboard", "wandb", "mlflow"]
"""Where a training shows its loss beside `log.jsonl`, as accelerate names it."""
WITHOUT_EFFECT = ("tracker",)
"""Settings that change nothing of what a training learns: it may go on with other ones."""


def list_effective(settings: Any, added_later: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings of a training that decide what it learns, by name.

    Args:
        settings: a dataclass.
        added_later: settings that are left out at their defaults, since stored trainings do not have them.
    """
    defaults = {entry.name: entry.default for entry in fields(settings) if entry.name in added_later}
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in WITHOUT_EFFECT and (name, value) not in defaults.items()
    }


def create_accelerator(precision: str, device: Any, out: Path, tracker: str = "none") -> Any:
    """Create accelerate's `Accelerator`, which finds the other processes of the training.

    Args:
        tracker: `none`, `tensorboard`, `wandb` or `mlflow`. out: folder of TensorBoard's events.

    Raises:
        TrainingFailed: the tracker is not installed.
    """
    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise TrainingFailed(
            f"tracker: {tracker} is not installed here: pip install {tracker}, or choose `tracker: none`; the loss is "
            "in log.jsonl in any case"
        )
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
    log_with = None if tracker == "none" else tracker
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu", log_with=log_with, project_dir=out)


class ProgressTracker:
    """The tracker of one training. One that fails while the training runs is given up, and the training goes on."""

    def __init__(self, accelerator: Any, tracker: str, name: str, out: Path, identity: Mapping[str, Any]) -> None:
        """Prepare the tracker; nothing is started yet.

        Args:
            accelerator: by `create_accelerator`, with the same tracker.
            name: of what is trained.
            out: folder of the training, whose name is the run's.
            identity: of the training: one that goes on after it was killed is the same run of Weights & Biases.
        """
        self.accelerator, self.tracker, self.name, self.out = accelerator, tracker, name, out
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.is_on = tracker != "none"

    def start(self) -> None:
        """Start the tracker.

        Raises:
            TrainingFailed: it cannot be started, as without an account or a server.
        """
        if not self.is_on:
            return
        values = self.identity.get("settings") or {}
        config = {key: value for key, value in values.items() if isinstance(value, int | float | str)}
        text = json.dumps([self.identity, str(self.out.absolute())], sort_keys=True)
        options = {
            "wandb": {
                "dir": str(self.out),
                "name": self.out.name,
                "id": hashlib.sha256(text.encode()).hexdigest()[:16],
                "resume": "allow",
            },
            "mlflow": {"run_name": self.out.name},
        }
        project = self.name if self.tracker == "tensorboard" else f"rasura-{self.name}"
        try:
            # TensorBoard's own page for settings is a second file of events: they are in the checkpoint
            settings = None if self.tracker == "tensorboard" else config
            self.accelerator.init_trackers(project, settings, {self.tracker: options.get(self.tracker, {})})
        except Exception as error:  # what a tracker raises is its own
            raise TrainingFailed(
                f"the tracker {self.tracker} cannot be started ({error}); see its documentation, or choose "
                "`tracker: none`"
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show values of a step."""
        if not self.is_on:
            return
        try:
            self.accelerator.log(dict(values), step=step)
        except Exception as error:  # as a network that is down for a while: days of training are worth more
            self.is_on = False
            log.warning("the tracker %s has failed and is not used further: %s", self.tracker, error)

    def finish(self) -> None:
        """End what was started; the process group, which `end_training` would end too, is not ours."""
        for tracker in self.accelerator.trackers:
            with contextlib.suppress(Exception):
                tracker.finish()
