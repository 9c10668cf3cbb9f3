"""Every error that a user can mend, as one tree.

The command line prints an error of this tree as one sentence and ends with exit status 1; any other exception is a
fault of Rasura's own and shows its traceback.

    RasuraError
    ├── RecipeError       a recipe, or an option of the command line, is wrong
    ├── InputError        input files are missing, or are not what they should be
    ├── StorageError      a run or a loop cannot be read or written, or is not where it was looked for
    ├── RunError          a run cannot go on; what was committed is complete
    ├── WeightsError      weights are missing, damaged, or of another network
    ├── TrainingError     a training or a calibration cannot be done on this data
    ├── ReviewError       a review cannot be opened, or its votes cannot be used
    └── UnknownNameError  a name that nothing has, with the nearest that exists
"""

from rasura.manifests.safety.text import LINES, escape_controls


class RasuraError(Exception):
    """An error that a user can mend. Its text says what is wrong, with what value, where, and what to do."""

    def __str__(self) -> str:  # it quotes names from data, and is printed by whoever catches it
        return escape_controls(super().__str__(), LINES)


class RecipeError(RasuraError, ValueError):
    """A recipe, or an option of the command line, is wrong: one line a fault, each with its place."""


class InputError(RasuraError, ValueError):
    """Input files are missing, or are not what they should be."""


class StorageError(RasuraError, OSError):
    """A run or a loop cannot be read or written, or is not where it was looked for."""


class RunError(RasuraError, RuntimeError):
    """A run cannot go on. What was committed is complete; the same command goes on from there."""


class WeightsError(RasuraError, ValueError):
    """Weights are missing, damaged, or of another network."""


class TrainingError(RasuraError, ValueError):
    """A training or a calibration cannot be done on this data."""


class ReviewError(RasuraError, ValueError):
    """A review cannot be opened, or its votes cannot be used."""


class UnknownNameError(RasuraError, LookupError):
    """A name that nothing has. The text names the nearest that exists."""
