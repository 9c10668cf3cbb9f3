"""Checks of the markers `ray` and `torch`: a test without the marker that uses the library fails."""

import contextlib
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

UNMARKED_RAY = "a test that starts Ray needs the marker ray"
"""An address that Ray refuses at once, with this sentence in its error; subprocesses inherit it."""
UNMARKED_TORCH = "a test that imports torch needs the marker torch"


class _Refuse(Loader):
    """A loader that refuses to load its module; that the module is installed can still be found out."""

    def exec_module(self, module: ModuleType) -> None:
        raise AssertionError(UNMARKED_TORCH)


class _RefuseTorch(MetaPathFinder):
    """A finder that finds torch and refuses to import it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == "torch" else None
        if spec is not None:
            spec.loader = _Refuse()
        return spec


@contextlib.contextmanager
def forbid_ray() -> Iterator[None]:
    """Let every start of Ray in this process and those it starts fail at once."""
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = UNMARKED_RAY
    try:
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


@contextlib.contextmanager
def forbid_torch() -> Iterator[None]:
    """Let every import of torch in this process fail, also where it was imported before."""
    imported = sys.modules.pop("torch", None)
    finder = _RefuseTorch()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if imported is not None:
            sys.modules["torch"] = imported
