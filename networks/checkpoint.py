"""Checkpoints of a training: written beside the last one, then put in its place by one rename."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasura.manifests.errors import TrainingError
from rasura.manifests.json_lines import parse_json_lines

if TYPE_CHECKING:
    import torch

LOG = "log.jsonl"


class TrainingFailed(TrainingError, RuntimeError):
    """A training that cannot go on. Its last checkpoint is unchanged."""


class Checkpoint:
    """The state of a training in its folder: `checkpoint.json`, the folder that it names, and `log.jsonl`."""

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        parameters: Mapping[str, "torch.Tensor"],
        optimizer: Any,
        best: str | None = None,
    ) -> None:
        """Prepare the checkpoint of one training; nothing is read or written yet.

        Args:
            out: the training's folder, which exists.
            identity: settings, network and data, as JSON; a checkpoint with another identity is refused.
            parameters: the tensors that are learned, by name.
            optimizer: the torch optimizer of `parameters`.
            best: file of `out` with the best parameters so far. It belongs to the state: kept and restored with it.
        """
        self.out, self.parameters, self.optimizer, self.best = out, parameters, optimizer, best
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.pointer = out / "checkpoint.json"
        self.step = 0

    def load(self, writes: bool = True) -> dict[str, Any]:
        """Restore the last checkpoint.

        Args:
            writes: this process writes to the folder; of several that train together only one does.

        Returns:
            The progress that was saved; empty where there is no checkpoint.

        Raises:
            TrainingFailed: the folder holds a training of other data, settings or another network.
        """
        import torch
        from safetensors.torch import load_file

        if not self.pointer.is_file():
            if writes:
                self._discard_later(None)
            return {}
        record = json.loads(self.pointer.read_text())
        for key, value in self.identity.items():
            if record["made_with"].get(key) != value:
                raise TrainingFailed(
                    f"{self.out} holds a training with other {key}: choose another folder, or remove it"
                )
        folder = self.out / record["folder"]
        tensors = load_file(folder / "weights.safetensors")
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[name])
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
        progress: dict[str, Any] = record["progress"]
        self.step = int(progress["step"])
        if writes:
            self._discard_later(folder)
        return progress

    def _discard_later(self, folder: Path | None) -> None:
        """Remove the log lines of steps after the checkpoint in `folder`, and a best that came later."""
        if self.best:
            (self.out / self.best).unlink(missing_ok=True)
            if folder and (folder / self.best).is_file():
                shutil.copy(folder / self.best, self.out / self.best)
        log = self.out / LOG
        if log.is_file():
            entries = [entry for entry in parse_json_lines(log.read_bytes()) if entry["step"] <= self.step]
            log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def save(self, progress: Mapping[str, Any]) -> None:
        """Write the current state in place of the last one. `progress` is JSON and has a `step`."""
        import torch

        folder, part = self.out / f"checkpoint-{progress['step']}", self.out / "checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        self._write_parameters(part / "weights.safetensors")
        torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
        if self.best and (self.out / self.best).is_file():
            shutil.copy(self.out / self.best, part / self.best)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        pointer_part = self.pointer.with_suffix(".part")
        record = {"folder": folder.name, "progress": dict(progress), "made_with": self.identity}
        pointer_part.write_text(json.dumps(record))
        pointer_part.replace(self.pointer)
        self.step = int(progress["step"])
        for old in self.out.glob("checkpoint-*"):
            if old != folder:
                shutil.rmtree(old)

    def save_best(self) -> None:
        """Write the current parameters as the best so far."""
        assert self.best is not None
        part = self.out / f"{self.best}.part"
        self._write_parameters(part)
        part.replace(self.out / self.best)

    def load_best(self) -> None:
        """Restore the best parameters."""
        from safetensors.torch import load_file

        assert self.best is not None
        tensors = load_file(self.out / self.best)
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[name])

    def _write_parameters(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: value.detach().cpu().contiguous() for name, value in self.parameters.items()}, path)

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line, with its `step`, to `log.jsonl`."""
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")
