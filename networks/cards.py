"""The GPUs that this process may use, and what can use them.

    python -m rasura.networks.cards torch onnx

prints, as JSON, which of these libraries can use a GPU, and name and memory of the smallest card of the machine.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"
TIME_LIMIT_S = 20.0


def hide_cards() -> None:
    """Hide all GPUs from this process; nothing may have opened one before."""
    os.environ[VISIBLE] = ""


def are_cards_hidden() -> bool:
    """Return True where this process was given no GPU (CUDA_VISIBLE_DEVICES names none)."""
    return os.environ.get(VISIBLE, "0").strip() in ("", "-1", "NoDevFiles")


def list_cards() -> list[tuple[str, int]]:
    """List name and memory, bytes, of the machine's NVIDIA cards; empty where the driver's program reports none."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=True)
        return [parse_card(line) for line in done.stdout.splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def parse_card(line: str) -> tuple[str, int]:
    """Parse a line of `nvidia-smi`: name, and memory in MiB.

    Raises:
        ValueError: it has no memory, as of a card that shares the machine's.

    Examples:
        >>> parse_card("NVIDIA H100 80GB HBM3, 81559")
        ('NVIDIA H100 80GB HBM3', 85520809984)
    """
    name, _, memory = line.rpartition(",")
    return name.strip(), int(memory) * 2**20


def report_cards(libraries: Sequence[str]) -> dict[str, Any]:
    """Report which libraries can use a GPU, and the smallest card: `libraries`, `card`, `bytes`."""
    cards, usable = list_cards(), []
    if "torch" in libraries:
        import torch

        if torch.cuda.is_available():
            usable.append("torch")
            properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
            cards = cards or [(entry.name, int(entry.total_memory)) for entry in properties]
    if "onnx" in libraries:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            usable.append("onnx")
    name, size = min(cards, key=lambda card: card[1], default=("", None))
    return {"libraries": usable, "card": name, "bytes": size}


if __name__ == "__main__":
    print(json.dumps(report_cards(sys.argv[1:])))
