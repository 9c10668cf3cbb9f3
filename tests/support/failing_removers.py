"""Removers of one's own that fail: on some pictures, on all, or by what surrounds them."""

import errno
import os
from pathlib import Path

from benchmarks.loop_removers import SyntheticRemover, fill_telea

REPAIRED = "RASURA_TEST_REPAIRED"
"""Environment variable with the path of a file that repairs `Exits`."""


class Odd(SyntheticRemover):
    """Remover that cannot fill every other picture."""

    name = "odd"

    def fill_one(self, picture, hole, rng):
        if int(picture[0, 0, 0]) % 2:
            raise ValueError("odd picture\n\x1b[2J")
        return fill_telea(picture, hole)


class Broken(SyntheticRemover):
    """Remover that fills nothing."""

    name = "broken"

    def fill_one(self, picture, hole, rng):
        raise KeyError("no such layer")


class Exits(SyntheticRemover):
    """Remover that ends its process, and the fill of a picture by all removers with it, until it is repaired."""

    name = "exits"

    def fill_one(self, picture, hole, rng):
        if not Path(os.environ[REPAIRED]).exists():
            raise SystemExit("no licence")
        return fill_telea(picture, hole)


class NoDisk(SyntheticRemover):
    """Remover whose disk fails."""

    name = "no-disk"

    def fill_one(self, picture, hole, rng):
        raise OSError(errno.EIO, "Input/output error")


class Short(SyntheticRemover):
    """Remover for which the machine has not enough memory."""

    name = "short"

    def fill_one(self, picture, hole, rng):
        raise MemoryError
