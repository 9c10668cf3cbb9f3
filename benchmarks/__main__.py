"""`python -m benchmarks [NAME …]`: runs the measurements, all of them by default."""

import importlib
import pkgutil
import sys

import benchmarks

# What takes a folder and hours is run by itself: `python -m benchmarks.loop_arms FOLDER`.
NOT_MEASUREMENTS = {
    "__main__",
    "common",
    "judge_kinds",
    "judge_tiny",
    "loop_arms",
    "loop_removers",
    "loop_scenes",
    "loop_start",
}


def main() -> None:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    for name in sys.argv[1:] or [name for name in names if name not in NOT_MEASUREMENTS]:
        sys.argv = [name]  # a measurement's own options come from its environment here
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
