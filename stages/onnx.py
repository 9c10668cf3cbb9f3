"""Networks in ONNX form: one thread a worker, on the GPU where ONNX Runtime has one."""

from pathlib import Path
from typing import Any

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def network(path: Path) -> Any:
    """An inference session of a network; its results do not depend on how many cores there are."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    providers = [name for name in PROVIDERS if name in available]
    return onnxruntime.InferenceSession(str(path), options, providers=providers)
