"""A loop in its folder: the steps of its recipe, and the paths and results of those that are done.

A loop is a folder. `loop.json` has its recipe, `steps/<round>-<step>.json` the result of each finished step:

    loop.json  steps/  codec.safetensors  removers/<round>/  removers/lcm/  judges/<round>/
    rounds/<round>/ (a run, with votes/, scenes.json, scores.json, truth.json and kept.json)
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from rasura.manifests.errors import RunError, StorageError
from rasura.manifests.run_layout import LOOP
from rasura.manifests.storage import Store
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import DiscriminatorResult, StepResult
from rasura.pipeline.training.rows import LOCAL, RowRef

RECIPE = LOOP
SCORES = "scores.json"
"""In a round: the discriminator's probabilities of its candidates, by item."""
TITLES = {"judge": "discriminator"}
"""Names of steps as they are shown, where they have others on disk."""
TRUTH = "truth.json"
"""In a round: the oracle's verdicts on its candidates, by item. They are reported; nothing is learned from them."""

Result = TypeVar("Result", bound=StepResult)


class OtherLoop(RunError):
    """The folder has a loop of another recipe."""


class NoLoop(StorageError):
    """There is no loop in a folder."""


class Waiting(Exception):
    """A human round has not enough votes yet. This is no error: the same command continues when they are there."""


@dataclass(frozen=True)
class Step:
    """One step: its name, and the round that it belongs to (0 before the first).

    Examples:
        >>> Step("tune", 1).file, str(Step("tune", 1))
        ('01-tune.json', 'round 1: tune')
        >>> Step("judge", 1).file, str(Step("judge", 1))
        ('01-judge.json', 'round 1: discriminator')
    """

    name: str
    round: int

    @property
    def file(self) -> str:
        """Name of the file that has its result."""
        return f"{self.round:02d}-{self.name}.json"

    @property
    def title(self) -> str:
        """The step's name as it is shown: the name on disk may be a former one."""
        return TITLES.get(self.name, self.name)

    def __str__(self) -> str:
        return f"round {self.round}: {self.title}"


def list_steps(recipe: LoopRecipe) -> list[Step]:
    """List all steps of a loop in their order."""
    steps = [Step("initial", 0), Step("train", 0)]
    if recipe.discriminator.pretrain_scenes and recipe.keep == "precision_target":
        steps.append(Step("pretrain", 0))
    steps.append(Step("test", 0))
    for number, entry in enumerate(recipe.rounds, 1):
        steps.append(Step("draw", number))
        if not keeps_nothing(recipe, number):
            steps.append(Step("inpaint", number))
            if entry.kind == "human" and recipe.keep != "everything":
                steps.append(Step("votes", number))
            if recipe.keep == "precision_target":
                steps.append(Step("judge" if entry.kind == "human" else "score", number))
        steps += [Step("add", number), Step("tune", number), Step("test", number)]
    if recipe.remover.distill:
        steps.append(Step("distill", len(recipe.rounds)))
    return steps


def keeps_nothing(recipe: LoopRecipe, number: int) -> bool:
    """Return True where no candidate of a round can join the training set, so that none is made.

    The round's scenes are drawn all the same: the next round has the same ones, whatever is kept.
    """
    return recipe.keep == "nothing" or (recipe.keep == "humans" and recipe.rounds[number - 1].kind == "auto")


class Loop:
    """A loop in its folder."""

    def __init__(self, recipe: LoopRecipe, folder: Path) -> None:
        self.recipe, self.folder, self.store = recipe, folder, Store(folder)

    @classmethod
    def open(cls, folder: Path) -> "Loop":
        """Open a loop that was begun.

        Raises:
            NoLoop: there is none in the folder.
        """
        if not (folder / RECIPE).is_file():
            raise NoLoop(f"there is no loop in '{folder}': it has no {RECIPE}; `rasura loop RECIPE` begins one")
        return cls(parse_recipe((folder / RECIPE).read_bytes()), folder)

    def read_result(self, result: type[Result], number: int) -> Result | None:
        """Read the result of a step in a round; None where the step is not done."""
        path = self.folder / "steps" / Step(result.step_name(number), number).file
        return result.from_json(json.loads(path.read_text())) if path.is_file() else None

    def has_result(self, step: Step) -> bool:
        """Return True where a step is done: its result is on disk."""
        return (self.folder / "steps" / step.file).is_file()

    def list_done_steps(self) -> Iterator[Step]:
        """Yield the steps that are done."""
        return (step for step in list_steps(self.recipe) if self.has_result(step))

    def remover_folder(self, number: int) -> Path:
        """Return the folder of the remover after a round."""
        return self.folder / "removers" / f"{number:02d}"

    @property
    def distilled_folder(self) -> Path:
        """Folder of the last remover, distilled to four steps."""
        return self.folder / "removers" / "lcm"

    def open_round(self, number: int) -> Store:
        """Open the run of a round; 0 is the discriminator's training before any vote."""
        return self.store.sub(f"rounds/{number:02d}")

    def votes_folder(self, number: int) -> Path:
        """Return the folder of the votes of a round."""
        return self.folder / "rounds" / f"{number:02d}" / "votes"

    def discriminator_folder(self, number: int) -> Path:
        """Return the folder of the discriminator that a round trains."""
        return self.folder / "judges" / f"{number:02d}"

    def find_discriminator(self, number: int) -> Path | None:
        """Return the folder of the newest discriminator up to a round; None where there is none yet."""
        for earlier in range(number, -1, -1):
            result = self.read_result(DiscriminatorResult, earlier)
            if result is not None and result.folder:
                return self.folder / result.folder
        return None

    def read_rows(self, name: str) -> list[RowRef]:
        """Read a list of rows that an earlier step wrote: `initial`, `pool`, `test`, `rounds/<round>/kept`, …"""
        return [RowRef(**ref) for ref in json.loads(self.store.read(f"{name}.json"))]

    def write_rows(self, name: str, refs: Sequence[RowRef]) -> None:
        """Write a list of rows for later steps."""
        self.store.write(f"{name}.json", json.dumps([asdict(ref) for ref in refs]).encode())


def parse_recipe(document: bytes) -> LoopRecipe:
    """Parse the recipe in a loop's `loop.json`, which an older version may have written."""
    return LoopRecipe.model_validate(json.loads(document)["recipe"])


def round_path(number: int) -> str:
    """Return the path of a round below its loop.

    Examples:
        >>> round_path(3)
        'rounds/03'
    """
    return f"rounds/{number:02d}"


def local_run(number: int) -> str:
    """Return the name of a round's run in `RowRef.run`.

    Examples:
        >>> local_run(3)
        './rounds/03'
    """
    return f"{LOCAL}{round_path(number)}"
