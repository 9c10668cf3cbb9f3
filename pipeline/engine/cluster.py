"""Ray, started quietly on this machine, or joined where there is a cluster."""

import contextlib
import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import rasura
from rasura.pipeline.recipe.schema import EngineSettings

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray lowers its workers' priority to 15 by default; ours are the job itself, not background work
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
    # nobody looks at its metrics here, and on two cores collecting them is felt
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # one worker a core, one thread each: else one "CPU" uses two
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class _WithoutRaylet(io.TextIOBase):
    """Standard output less the notices of the raylet, which Ray prints there whatever it is told."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._skipping = False

    def write(self, text: str) -> int:
        if "(raylet" in text:
            self._skipping = not text.endswith("\n")
            return len(text)
        if self._skipping:
            self._skipping = "\n" not in text
            return len(text)
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()


def list_import_paths() -> list[str]:
    """List the folders that workers import from: the driver's own, so that they find the same stages.

    A checkout that is not installed comes first: workers run the code that their driver runs.
    """
    paths = [str(Path(entry or ".").absolute()) for entry in sys.path if not entry.endswith(".zip")]
    home = Path(rasura.__file__).absolute().parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        paths.insert(0, str(home))
    return list(dict.fromkeys(paths))


@contextlib.contextmanager
def cluster(engine: EngineSettings) -> Iterator[None]:
    """Ray while the context lasts: the cluster at RAY_ADDRESS (set inside `ray job submit`), else this machine."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    os.environ["PYTHONPATH"] = os.pathsep.join(list_import_paths())
    import ray

    address = os.environ.get("RAY_ADDRESS")
    try:
        with _keep_sigterm_handler():
            if address and address != "local":
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            else:
                ray.init(
                    address="local",
                    num_cpus=engine.workers or os.cpu_count() or 1,
                    resources=_custom_resources(),
                    object_store_memory=engine.object_store_mb * 2**20,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=os.environ.get("RASURA_RAY_TMP") or str(Path(tempfile.gettempdir()) / "rasura-ray"),
                )
        with contextlib.redirect_stdout(_WithoutRaylet(sys.stdout)):
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Keep the process's handler of SIGTERM, where it has one: Ray sets its own, which ends without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    is_ours = callable(handler) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not is_ours:
            raise
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, handler)


def _custom_resources() -> dict[str, float]:
    """Custom resources of this machine, from RASURA_RESOURCES (`name=amount,…`), for stages that ask for them."""
    text = os.environ.get("RASURA_RESOURCES", "")
    return {name: float(amount) for name, _, amount in (part.partition("=") for part in text.split(",")) if name}
