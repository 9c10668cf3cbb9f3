"""Networks in ONNX form: one thread a worker, on the GPU where this worker and ONNX Runtime have one."""

from pathlib import Path

from rasura.networks.cards import are_cards_hidden
from rasura.networks.finite import CheckedSession
from rasura.networks.weights import BadWeights, describe_content

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def open_session(path: Path) -> CheckedSession:
    """Open an inference session of a network; its results do not depend on the number of cores.

    Raises:
        BadWeights: the file is missing, or is no network.
    """
    import onnxruntime

    if fault := describe_content(path):
        raise BadWeights(f"'{path}' cannot be opened as an ONNX network: {fault}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    providers = [name for name in PROVIDERS[are_cards_hidden() :] if name in available]
    try:
        return CheckedSession(onnxruntime.InferenceSession(str(path), options, providers=providers))
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        if type(error).__module__.startswith("onnxruntime"):
            line = " ".join(str(error).split())[:200]
            raise BadWeights(f"'{path}' cannot be opened as an ONNX network: {line}") from error
        raise
