"""Ray, started quietly on this machine, or joined where there is a cluster."""

import contextlib
import io
import os
import secrets
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import rasura
from rasura.manifests.errors import RunError
from rasura.manifests.safety.text import make_text
from rasura.networks.cards import are_cards_hidden
from rasura.pipeline.engine.nodes import GPU, Node
from rasura.pipeline.engine.placement import place_flow
from rasura.pipeline.engine.ray_processes import RayProcesses, leave_out_needless_processes
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.recipe.specs import FlowPlan

GPU_DEVICES = ("/dev/nvidia0", "/proc/driver/nvidia/gpus", "/dev/dxg", "/dev/kfd")
"""Files that a machine with GPUs has: of NVIDIA, of Windows' subsystem for Linux, of AMD."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray lowers its workers' priority to 15 by default; ours are the job itself, not background work
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
    # the driver reads the errors of all tasks; Ray shows a stack for each second result of a task that failed
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_task_events_report_interval_ms": "0",
    # a worker that asked for no GPU sees none; where a cluster's nodes do not set this, workers see to it themselves
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # one worker a core, one thread each: else one "CPU" uses two
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # the process's `print` stays Python's own
    "RAY_TQDM_PATCH_PRINT": "0",
}
"""What is set in the environment of every Ray, and of what joins one, where the user has not set it."""

OWN = {
    # nobody looks at its metrics here, and on two cores collecting them is felt
    "RAY_enable_metrics_collection": "0",
    # its ports are open to whoever reaches them: a random token keeps them out; a mode that the user has set stays
    "RAY_AUTH_MODE": "token",
    # and its servers listen to this machine alone: Ray's switch for systems where it starts no clusters
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's processes that outlive it give up after this time, and not after a minute
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    # a driver waits this long for its node, which on a busy machine takes longer to start than Ray expects
    "RAY_raylet_start_wait_time_s": "120",
    # a worker that has imported torch waits this long for its next task, where Ray's default is one second; a task that
    # holds a card ends its worker (`training.tasks`)
    "RAY_idle_worker_killing_time_threshold_ms": "30000",
}
"""What is set for a Ray on this machine besides, with a random RAY_AUTH_TOKEN."""

_started: list[RayProcesses] = []
"""The processes of the Ray that this process has started, if any."""

LONGEST_RAY_FOLDER = 43
"""Bytes: the path of a socket has at most 107, of which Ray adds 64."""
SHORT_FOLDERS = ("/tmp", "/var/tmp")
LONGEST_REASON = 300


class _WithoutRaylet(io.TextIOBase):
    """Standard output less the notices of the raylet, which Ray prints there whatever it is told."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._skipping = threading.local()  # what another thread writes between a notice and its end is no notice

    def write(self, text: str) -> int:
        if "(raylet" in text or getattr(self._skipping, "on", False):
            self._skipping.on = not text.endswith("\n")
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
    """Ray while the context lasts: the cluster at RAY_ADDRESS (set inside `ray job submit`), else this machine.

    Afterwards the process's environment is what it was before, so that it may start or join another Ray by itself.
    """
    with _set_environment(), _keep_sigterm_handler() as take_back:
        import ray

        with contextlib.redirect_stdout(_WithoutRaylet(sys.stdout)):  # notices come until Ray has ended
            try:
                start_ray(engine, ray)
                take_back()
                yield
            finally:
                # Ray waits for a server that has ended, and may end this process meanwhile
                if _started and _started[-1].find_ended_server():
                    _started[-1].kill()
                with contextlib.suppress(Exception):  # what ended the run is not hidden by an end that fails
                    ray.shutdown()
                while _started:
                    _started.pop().kill()


@contextlib.contextmanager
def _set_environment() -> Iterator[None]:
    """Set what Ray reads from the environment, but for what the user has set, while the context lasts."""
    is_own = find_address() is None
    wanted = {**QUIET, **(OWN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if is_own else {})}
    changed = {name: value for name, value in wanted.items() if name not in os.environ}
    changed["PYTHONPATH"] = os.pathsep.join(list_import_paths())
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        if is_own:
            _read_environment_again()
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if is_own:
            with contextlib.suppress(ImportError, AttributeError):  # a Ray that has them not; the work is done
                _read_environment_again()


def _read_environment_again() -> None:
    """Have a Ray that was imported read what it reads from the environment when it is imported."""
    if "ray" not in sys.modules:
        return
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(switch, not ray_constants.IS_WINDOWS_OR_OSX)
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def start_ray(engine: EngineSettings, ray: Any) -> None:
    """Start Ray on this machine, or join the cluster at RAY_ADDRESS; what fails is tried three times.

    Raises:
        RunError: it cannot be started or joined.
    """
    address = find_address()
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        custom = parse_resources(os.environ.get("RASURA_RESOURCES", ""))
        gpus = custom.pop(GPU, None)
        settings |= {
            "address": "local",
            # Ray would have workers import from the working folder before all others, where a file may hide a package;
            # they import from it last, as this process does (PYTHONPATH)
            "job_config": ray.job_config.JobConfig(_client_job=True),
            "num_cpus": engine.workers or os.cpu_count() or 1,
            "num_gpus": None if gpus is None else int(gpus),
            "resources": custom,
            "object_store_memory": engine.object_store_mb * 2**20,
            "include_dashboard": False,
            "_temp_dir": make_ray_folder(),
        }
    for is_last in (False, False, True):
        processes = RayProcesses()
        if address is None:
            _started.append(processes)
        try:
            with processes.mark_children(), leave_out_needless_processes():
                ray.init(**settings)
            return
        except Exception as error:
            ray.shutdown()
            processes.kill()
            if is_last:
                raise RunError(_describe_failed_start(address, error)) from error


def _describe_failed_start(address: str | None, error: Exception) -> str:
    reason = make_text(error)[:LONGEST_REASON]
    if address is not None:
        return (
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined: {type(error).__name__}: {reason}. Is it up, "
            "and is its token in RAY_AUTH_TOKEN or ~/.ray/auth_token?"
        )
    return (
        f"Ray could not be started on this machine, in three tries: {type(error).__name__}: {reason}. A busy machine "
        "may need another one; its own logs are in the folder that RASURA_RAY_TMP names, or rasura-<user id>/ray below "
        "the temporary folder"
    )


def make_ray_folder() -> str:
    """Make the folder of a Ray on this machine, which nobody else may open: Ray opens its own to everybody.

    Raises:
        RunError: its path is too long for Ray's sockets, or it is somebody else's.
    """
    if named := os.environ.get("RASURA_RAY_TMP"):
        if len(os.fsencode(named)) > LONGEST_RAY_FOLDER:
            raise RunError(f"Ray's folder '{named}' (RASURA_RAY_TMP) has more than {LONGEST_RAY_FOLDER} bytes")
        return named
    faults = []
    for parent in dict.fromkeys([tempfile.gettempdir(), *SHORT_FOLDERS]):
        folder = Path(parent) / f"rasura-{os.getuid()}"
        if len(os.fsencode(folder / "ray")) > LONGEST_RAY_FOLDER:
            faults.append(f"'{folder}' is too long")
            continue
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
                faults.append(f"'{folder}' is somebody else's")
                continue
            folder.chmod(0o700)
        except OSError as error:
            faults.append(f"'{folder}': {error.strerror}")
            continue
        return str(folder / "ray")
    raise RunError(
        f"there is no place for Ray's files: {'; '.join(faults)}. Name a folder of your own, of at most "
        f"{LONGEST_RAY_FOLDER} bytes, in RASURA_RAY_TMP"
    )


def check_servers() -> None:
    """Check that the servers of a Ray on this machine live: without them its calls wait for a minute, or for ever.

    Raises:
        RunError: one has ended.
    """
    if _started and (name := _started[-1].find_ended_server()):
        raise RunError(
            f"Ray's {name} on this machine has ended (killed, or short of memory?). What was committed is whole, no "
            "row was lost; the same command goes on from there"
        )


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[Callable[[], None]]:
    """Keep the process's way to end by SIGTERM: Ray sets its own, which prints a stack and may end in an abort.

    Yields:
        A function that takes the signal back from Ray, once that is started. By default, what cleans up is then run.
    """
    before = signal.getsignal(signal.SIGTERM)
    is_ours = before is not None and threading.current_thread() is threading.main_thread()
    handler = _exit_in_order if before == signal.SIG_DFL else before

    def take_back() -> None:
        if is_ours:
            signal.signal(signal.SIGTERM, handler)

    try:
        yield take_back
    except SystemExit:
        if is_ours and signal.getsignal(signal.SIGTERM) != handler:  # it is Ray's own that ended it, at the start
            take_back()
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, before)


def _exit_in_order(number: int, frame: object) -> None:
    sys.exit(128 + number)


def is_started() -> bool:
    """Return True where this process is connected to a Ray. Ray is not imported for it: it reads `QUIET` then."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def find_address() -> str | None:
    """Return the address of the cluster to join; None where Ray is started on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    return address if address and address != "local" else None


def read_resources() -> dict[str, float]:
    """Read what the cluster has, by Ray's names, for the log of a run; with the number of its nodes."""
    import ray

    totals = ray.cluster_resources()
    result = {
        name: value
        for name, value in totals.items()
        if name in ("CPU", "GPU", "memory") or name.startswith("accelerator_type:")
    }
    return {**result, "nodes": sum(name.startswith("node:") and name != "node:__internal_head__" for name in totals)}


def describe_machine(engine: EngineSettings) -> Node | None:
    """Describe this machine as a Ray that is started on it will see it; None where its GPUs cannot be counted."""
    custom = parse_resources(os.environ.get("RASURA_RESOURCES", ""))
    gpus = custom.pop(GPU, None)
    if gpus is None:
        gpus = None if any(Path(path).exists() for path in GPU_DEVICES) and not are_cards_hidden() else 0
    if gpus is None:
        return None
    return Node(cpus=engine.workers or os.cpu_count() or 1, gpus=gpus, custom=custom)


def check_machine(flows: Iterable[FlowPlan], engine: EngineSettings) -> None:
    """Check before Ray is started that this machine has what the flows ask for, as far as that is known by now.

    Raises:
        CannotPlace: a stage asks for more; the text names its place in the recipe.
    """
    if is_started() or find_address() is not None or (machine := describe_machine(engine)) is None:
        return
    for flow in flows:
        place_flow(flow, [machine], engine.workers)


def parse_resources(text: str) -> dict[str, float]:
    """Parse the resources of this machine that RASURA_RESOURCES adds, for stages that ask for them.

    `GPU` replaces the number of GPUs that Ray finds.

    Examples:
        >>> parse_resources("device=1,GPU=2")
        {'device': 1.0, 'GPU': 2.0}
    """
    return {name: float(amount) for name, _, amount in (part.partition("=") for part in text.split(",")) if name}
