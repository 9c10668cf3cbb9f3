"""A training in this process, or in as many workers of Ray Train as are asked for: nothing else about it differs.

Ray Train places the workers, one GPU each where there are GPUs, and makes them one process group; accelerate inside the
training finds it. Rows are read where they lie and the training's own checkpoint is the only one there is, so the
folder has to be one that every worker sees.
"""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rasura.networks.checkpoint import TrainingFailed
from rasura.pipeline.engine.cluster import cluster
from rasura.pipeline.recipe.load import Engine


def carry_out(work: Callable[[], object], workers: int, out: Path, gpus: bool) -> None:
    """Does some training: here where `workers` is 0, else in so many workers at once.

    Args:
        work: a training that goes on from its checkpoint in `out`; for workers it has to be picklable.
        gpus: it can use one.

    Raises:
        TrainingFailed: a worker died, or there are fewer places than workers. What the training itself raises.
    """
    if not workers:
        work()
        return
    import ray

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(cluster(Engine(workers=workers)))
        _fit(work, workers, out.absolute(), gpus and ray.cluster_resources().get("GPU", 0) > 0)


def _fit(work: Callable[[], object], workers: int, out: Path, use_gpu: bool) -> None:
    import logging

    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

    have, what = ray.cluster_resources(), "GPU" if use_gpu else "CPU"
    if "RAY_ADDRESS" not in os.environ and have.get(what, 0) < workers:  # a cluster may grow, one machine does not
        raise TrainingFailed(f"{workers} workers need {workers} {what}s, this machine has {have.get(what, 0):.0f}")
    home = Path.cwd()

    def each() -> None:
        if home.is_dir():  # Ray Train puts its workers elsewhere; relative paths are the driver's
            os.chdir(home)
        work()

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    scratch = out / ".ray"
    trainer = TorchTrainer(
        each,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(name="train", storage_path=str(scratch)),
    )
    try:
        with _interruptible():
            trainer.fit()
    except WorkerGroupError as error:
        raise _cause(error.worker_failures, workers, out) from None
    except ControllerError as error:
        raise TrainingFailed(f"Ray Train could not run {workers} workers: {error.controller_failure}") from None
    except TrainingFailedError as error:
        raise TrainingFailed(" ".join(str(error).split())) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cause(failures: Mapping[int, BaseException], workers: int, out: Path) -> BaseException:
    """What a training's failure comes from: what it raised, or that a worker is gone."""
    raised = dict(sorted(failures.items()))
    # what the training raised comes as it is; what Ray raised says that the worker is gone
    gone = [rank for rank, error in raised.items() if type(error).__module__.startswith("ray.")]
    # a worker that lost another one raises as well, of a connection that was closed
    told = [error for rank, error in raised.items() if rank not in gone and not _lost_contact(error)]
    if told:
        return told[0]
    which = f"worker {gone[0]} of {workers} died" if gone else f"one of {workers} workers died or cannot be reached"
    return TrainingFailed(f"{which}; the same command goes on from the last checkpoint in {out}")


def _lost_contact(error: BaseException) -> bool:
    import torch

    distributed = isinstance(error, torch.distributed.DistError)
    return distributed or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt: Ray Train's own handler ends the program as if all were well, and stays."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
