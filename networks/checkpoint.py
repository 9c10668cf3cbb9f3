"""A training's checkpoint on disk: written beside the last one, then put in its place by one rename."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TrainingFailed(RuntimeError):
    """A training that cannot go on. The last checkpoint is as it was."""


class Checkpoint:
    """Where a training stands, in its folder: `checkpoint.json`, the folder that it names, and `log.jsonl`."""

    def __init__(self, out: Path, made_with: Mapping[str, Any], beside: Sequence[str] = ()) -> None:
        """
        Args:
            made_with: settings, network and data, so that no other training goes on with this one's checkpoint.
            beside: files of `out` that belong to a state (the best weights so far): kept with it, put back with it.
        """
        self.out, self.beside = out, beside
        self.made_with = json.loads(json.dumps(made_with))
        self.pointer = out / "checkpoint.json"
        self.saved = 0

    def load(
        self, parameters: Mapping[str, Any], names: Sequence[str], optimizer: Any, writes: bool = True
    ) -> dict[str, Any]:
        """Puts the last checkpoint back; what was saved as its progress, nothing where there is none.

        Args:
            writes: this process is the one that writes to the folder; of several that train together it is one.

        Raises:
            TrainingFailed: the folder holds a training of other data, settings or another network.
        """
        import torch
        from safetensors.torch import load_file

        if not self.pointer.is_file():
            return {}
        record = json.loads(self.pointer.read_text())
        for key, value in self.made_with.items():
            if record["made_with"].get(key) != value:
                raise TrainingFailed(
                    f"{self.out} holds a training with other {key}: choose another folder, or remove it"
                )
        folder = self.out / record["folder"]
        tensors = load_file(folder / "weights.safetensors")
        for name in names:
            parameters[name].data.copy_(tensors[name])
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
        progress: dict[str, Any] = record["progress"]
        self.saved = int(progress["step"])
        if writes:
            self._forget(folder)
        return progress

    def _forget(self, folder: Path) -> None:
        """What came after the checkpoint: lines of steps that were lost, files that a later state left."""
        for name in self.beside:
            (self.out / name).unlink(missing_ok=True)
            if (folder / name).is_file():
                shutil.copy(folder / name, self.out / name)
        log = self.out / "log.jsonl"
        if log.is_file():
            lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.saved]
            log.write_text("".join(line + "\n" for line in lines))

    def save(
        self, parameters: Mapping[str, Any], names: Sequence[str], optimizer: Any, progress: Mapping[str, Any]
    ) -> None:
        """Keeps this state in place of the last one. `progress` is JSON and has a `step`."""
        import torch
        from safetensors.torch import save_file

        folder, part = self.out / f"checkpoint-{progress['step']}", self.out / "checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        save_file({name: parameters[name].detach().cpu().contiguous() for name in names}, part / "weights.safetensors")
        torch.save(optimizer.state_dict(), part / "optimizer.pt")
        for name in self.beside:
            if (self.out / name).is_file():
                shutil.copy(self.out / name, part / name)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        fresh = self.pointer.with_suffix(".part")
        fresh.write_text(json.dumps({"folder": folder.name, "progress": dict(progress), "made_with": self.made_with}))
        fresh.replace(self.pointer)
        self.saved = int(progress["step"])
        for old in self.out.glob("checkpoint-*"):
            if old != folder:
                shutil.rmtree(old)

    def log(self, line: Mapping[str, Any]) -> None:
        """Adds a line, with its `step`, to `log.jsonl`."""
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")
