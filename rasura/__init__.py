"""Rasura makes and checks the training data of models that erase objects from photographs.

The whole of it from Python:

    run             run a recipe, or go on where it was left
    open_run        open a run: its tables, accounting, checks, report, exports
    check           check a recipe before anything starts
    review          a review: push items, pull votes, watch progress
    effects         masks and layers of a before/after pair, as arrays
    remove          a picture without what a mask covers
    torch_dataset   triplets as tensors, in batches whose order can be resumed

and the classes that an extension derives from: Stage, Source, Params, Kept, Rejected, Kind, Remover, Capability.
Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasura._datasets import torch_dataset
    from rasura._pictures import Effects, effects, remove
    from rasura._reviews import Review, review
    from rasura._runs import Row, Rows, Run, check, open_run, run
    from rasura.manifests.errors import RasuraError
    from rasura.manifests.schemas import Kind
    from rasura.removers.base import Capability, Remover
    from rasura.stages.stage import Kept, Params, Rejected, Resources, Source, Stage

__version__ = "0.2.0"

_HOMES = {
    "torch_dataset": "rasura._datasets",
    "Effects": "rasura._pictures",
    "effects": "rasura._pictures",
    "remove": "rasura._pictures",
    "Row": "rasura._runs",
    "Rows": "rasura._runs",
    "Run": "rasura._runs",
    "check": "rasura._runs",
    "open_run": "rasura._runs",
    "run": "rasura._runs",
    "Review": "rasura._reviews",
    "review": "rasura._reviews",
    "RasuraError": "rasura.manifests.errors",
    "Kind": "rasura.manifests.schemas",
    "Capability": "rasura.removers.base",
    "Remover": "rasura.removers.base",
    "Kept": "rasura.stages.stage",
    "Params": "rasura.stages.stage",
    "Rejected": "rasura.stages.stage",
    "Resources": "rasura.stages.stage",
    "Source": "rasura.stages.stage",
    "Stage": "rasura.stages.stage",
}

__all__ = [
    "Capability",
    "Effects",
    "Kept",
    "Kind",
    "Params",
    "RasuraError",
    "Rejected",
    "Remover",
    "Resources",
    "Review",
    "Row",
    "Rows",
    "Run",
    "Source",
    "Stage",
    "__version__",
    "check",
    "effects",
    "open_run",
    "remove",
    "review",
    "run",
    "torch_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rasura' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
