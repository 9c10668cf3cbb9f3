"""A training's checkpoint on disk: written beside the last one, then put in its place by one rename."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TrainingFailed(RuntimeError):
    """A training that cannot go on. The last checkpoint is as it was."""


class State:
    """Where a training stands, in its folder."""

    def __init__(self, out: Path, made_with: Mapping[str, Any]) -> None:
        """`made_with`: settings, network and data, so that no other training goes on with this one's checkpoint."""
        self.out = out
        self.made_with = json.loads(json.dumps(made_with))
        self.pointer = out / "checkpoint.json"
        self.saved = 0

    def load(self, parameters: Mapping[str, Any], names: Sequence[str], optimizer: Any) -> int:
        """Puts the last checkpoint back; the number of steps that were done.

        Raises:
            TrainingFailed: the folder holds a training of other data, settings or another network.
        """
        import torch
        from safetensors.torch import load_file

        if not self.pointer.is_file():
            return 0
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
        self.saved = int(record["step"])
        log = self.out / "log.jsonl"
        if log.is_file():  # lines of steps that were lost
            lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.saved]
            log.write_text("".join(line + "\n" for line in lines))
        return self.saved

    def save(self, parameters: Mapping[str, Any], names: Sequence[str], optimizer: Any, step: int) -> None:
        import torch
        from safetensors.torch import save_file

        folder, part = self.out / f"checkpoint-{step}", self.out / "checkpoint.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        save_file({name: parameters[name].detach().cpu().contiguous() for name in names}, part / "weights.safetensors")
        torch.save(optimizer.state_dict(), part / "optimizer.pt")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        fresh = self.pointer.with_suffix(".part")
        fresh.write_text(json.dumps({"folder": folder.name, "step": step, "made_with": self.made_with}))
        fresh.replace(self.pointer)
        self.saved = step
        for old in self.out.glob("checkpoint-*"):
            if old != folder:
                shutil.rmtree(old)

    def log(self, line: Mapping[str, Any]) -> None:
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(dict(line)) + "\n")
