"""A training in this process, or in some workers of Ray Train: nothing else about it differs.

Ray Train places the workers, one GPU each where there are GPUs, and makes them one process group, which accelerate
uses inside the training. Rows are read where they are stored and the training's own checkpoint is the only one, so
every worker must be able to reach the folder.
"""

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from rasura.manifests.remote_files import open_file_system
from rasura.manifests.safety.text import make_text
from rasura.manifests.storage import Store, is_remote
from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.memory import NetworkMemory
from rasura.networks.trainer import OnProgress
from rasura.pipeline.engine.cluster import cluster, is_started
from rasura.pipeline.engine.nodes import CannotPlace
from rasura.pipeline.engine.tasks import TaskPlacement
from rasura.pipeline.recipe.schema import EngineSettings
from rasura.pipeline.training.placement import place_training

SCRATCH = ".ray"
"""Folder below a training's own that Ray Train uses; it is removed at the end."""
PROGRESS_EVERY_S = 0.5


class ProgressFile:
    """A file through which the progress of a training in another process comes to this one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, done: int, total: int, note: str) -> None:
        """Write the progress in place of the last; this is an `OnProgress`."""
        part = self.path.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps([done, total, note]))
        part.replace(self.path)

    @contextlib.contextmanager
    def watch(self, on_progress: OnProgress) -> Iterator[None]:
        """Pass on what is written, until the block ends."""
        is_over = threading.Event()
        last: list[str] = []

        def report() -> None:
            with contextlib.suppress(OSError):  # nothing yet
                text = self.path.read_text()
                if [text] != last:
                    last[:] = [text]
                    on_progress(*json.loads(text))

        def poll() -> None:
            while not is_over.wait(PROGRESS_EVERY_S):
                report()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            report()


def find_rank() -> int:
    """Return the number of this process among those of a training; 0 outside of Ray Train."""
    import ray.train

    try:
        return int(ray.train.get_context().get_world_rank())
    except RuntimeError:
        return 0


def run_training(
    work: Callable[..., object],
    workers: int,
    out: Path | Store,
    memory: NetworkMemory,
    on_progress: OnProgress | None = None,
) -> None:
    """Run a training: in this process where `workers` is 0, else in so many workers at once.

    Args:
        work: a training that continues from its checkpoint in `out`; for workers it must be picklable.
        memory: that each worker needs.
        on_progress: `work` is called with an argument of this name, from which it comes here.

    Raises:
        TrainingFailed: a worker died, or the cluster has no room for so many.
        Exception: what the training itself raises.
    """
    if not workers:
        (partial(work, on_progress=on_progress) if on_progress else work)()
        return
    with contextlib.ExitStack() as stack:
        if not is_started():
            stack.enter_context(cluster(EngineSettings(workers=workers)))
        try:
            placement = place_training(memory, workers)
        except CannotPlace as error:
            raise TrainingFailed(str(error)) from None
        place = out if isinstance(out, Path) else out.local
        if place is None:  # Ray Train's own files go where the training's are
            assert isinstance(out, Store)
            _run_workers(work, workers, out.uri, placement, None)
            return
        _run_workers(work, workers, place.absolute(), placement, on_progress)


def _run_workers(
    work: Callable[..., object],
    workers: int,
    out: Path | str,
    placement: TaskPlacement,
    on_progress: OnProgress | None,
) -> None:
    import logging

    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

    each = {"CPU": placement.cpus, "GPU": placement.gpus, "memory": placement.memory}
    home, file = Path.cwd(), ProgressFile(Path(out) / SCRATCH / "progress.json")
    if on_progress:
        work = partial(work, on_progress=file.write)

    def work_at_home() -> None:
        if home.is_dir():  # Ray Train starts its workers elsewhere; relative paths are the driver's
            os.chdir(home)
        work()

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    scratch = f"{out}/{SCRATCH}"
    if isinstance(out, Path):
        out.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        work_at_home,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker={name: amount for name, amount in each.items() if amount},
        ),
        run_config=RunConfig(name="train", storage_path=scratch),
    )
    try:
        with _interruptible(), file.watch(on_progress) if on_progress else contextlib.nullcontext():
            trainer.fit()
    except WorkerGroupError as error:
        raise _find_cause(error.worker_failures, workers, out) from None
    except ControllerError as error:
        raise TrainingFailed(f"Ray Train could not run {workers} workers: {error.controller_failure}") from None
    except TrainingFailedError as error:
        raise TrainingFailed(make_text(error)) from None
    finally:
        _remove(scratch)


def _remove(folder: str) -> None:
    """Remove the folder of Ray Train's own files, on this machine or in a remote store."""
    if is_remote(folder):
        fs, path = open_file_system(folder)
        with contextlib.suppress(FileNotFoundError):
            fs.rm(path, recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _find_cause(failures: Mapping[int, BaseException], workers: int, out: Path | str) -> BaseException:
    """Return the cause of a training's failure: the error that it raised, or the loss of a worker."""
    raised = dict(sorted(failures.items()))
    # errors of the training are passed on unchanged; errors of Ray mean that the worker is gone
    gone = [rank for rank, error in raised.items() if type(error).__module__.startswith("ray.")]
    # a worker that lost another one raises too: its connection was closed
    causes = [error for rank, error in raised.items() if rank not in gone and not _lost_contact(error)]
    if causes:
        return causes[0]
    which = f"worker {gone[0]} of {workers} died" if gone else f"one of {workers} workers died or cannot be reached"
    return TrainingFailed(f"{which}; the same command goes on from the last checkpoint in {out}")


def _lost_contact(error: BaseException) -> bool:
    import torch

    distributed = isinstance(error, torch.distributed.DistError)
    return distributed or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt: Ray Train's own handler ends the program as if all were well, and remains."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
