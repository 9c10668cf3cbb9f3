"""`python -m benchmarks [NAME …]`: runs the measurements, all of them by default."""

import importlib
import pkgutil
import sys

import benchmarks

NOT_MEASUREMENTS = {"__main__", "common"}


def main() -> None:
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    for name in sys.argv[1:] or [name for name in names if name not in NOT_MEASUREMENTS]:
        sys.argv = [name]  # a measurement's own options come from its environment here
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
