"""Batches of a network: always full, so that rounding does not depend on their number, and halved where memory ends."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from rasura.manifests.safety.text import read_text

Item = TypeVar("Item")
Result = TypeVar("Result")


NO_MEMORY_TEXTS = (
    "CUDA out of memory",  # torch
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "bad allocation",
    "(-4:Insufficient memory)",  # OpenCV
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error for lack of memory: Python's, torch's, OpenCV's, ONNX Runtime's.

    Examples:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
        (True, True)
        >>> is_out_of_memory(ValueError("no picture"))
        False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = read_text(error)
    return any(part in text for part in NO_MEMORY_TEXTS) or (
        "onnxruntime" in type(error).__module__ and "Failed to allocate memory" in text
    )


def free_gpu_memory() -> None:
    """Return the memory of tensors that are gone to the card, where torch uses one."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_in_batches(
    run: Callable[[list[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> tuple[list[Result], int]:
    """Run a network on items in batches of one size; a short batch repeats its last item.

    Where a batch does not fit into the card's memory, the size is halved for what is left.

    Args:
        run: the network, on a full batch.
        items: any number of them.
        size: items a batch.

    Returns:
        The results in order, and the size of the last batch.

    Examples:
        >>> def run(batch):
        ...     if len(batch) > 2:
        ...         raise RuntimeError("CUDA out of memory")
        ...     return [item * 10 for item in batch]
        >>> run_in_batches(run, [1, 2, 3], 8)
        ([10, 20, 30], 2)
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = list(items[len(results) : len(results) + size])
        try:
            output = run(batch + batch[-1:] * (size - len(batch)))
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        else:
            results += output[: len(batch)]
            continue
        free_gpu_memory()  # outside of the handler, whose traceback holds tensors
        size = (size + 1) // 2
    return results, size
