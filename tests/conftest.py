"""What the tests share: where real pictures are, how a run is started, what a run left on disk."""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from support.markers import forbid_ray, forbid_torch

pytest_plugins = ["support.annotator.browser", "support.annotator.databases"]

ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent
DATA = TESTS / "data"

ASSETS = Path(os.environ.get("RASURA_ASSETS", ROOT.parent / "shared" / "assets"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which every command of README and docs is run."""
    parser.addoption("--run-docs", action="store_true", help="run every command of README and docs (minutes)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the files with the most tests that start Ray first, of which one with torch counts three times: a file stays
    in one process, and the longest should not be begun when all others have ended."""
    starts: Counter[Path] = Counter()
    for item in items:
        if item.get_closest_marker("ray"):
            starts[item.path] += 3 if item.get_closest_marker("torch") else 1
    items.sort(key=lambda item: -starts[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test, with its fixtures, fail that starts Ray or imports torch without the marker that says so."""
    with contextlib.ExitStack() as stack:
        for marker, forbid in (("ray", forbid_ray), ("torch", forbid_torch)):
            if item.get_closest_marker(marker) is None:
                stack.enter_context(forbid())
        return (yield)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real photographs, pairs, a clip and small networks; tests that need them skip where they are absent."""
    if not ASSETS.is_dir():
        pytest.skip(f"no assets at {ASSETS} (set RASURA_ASSETS)")
    return ASSETS


def write_recipe(folder: Path, **keys: object) -> Path:
    """A recipe file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "test", **keys}, sort_keys=False))
    return path


def environment(**more: str) -> dict[str, str]:
    """The environment of a `rasura` process that can import the tests' own stages."""
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200", **more}


def rasura(
    *arguments: object, check: bool = True, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "rasura", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(env or environment()), cwd=cwd, timeout=1200
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def digest(folder: Path, parts: Sequence[str] = ("tables", "dataset")) -> dict[str, str]:
    """sha256 of every file of a run that must not depend on what happened to it."""
    files = [path for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
