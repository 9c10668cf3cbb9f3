"""A loop in its folder: the steps of its recipe, and the paths and results of those that are done.

A loop is a folder or a bucket prefix. `loop.json` has its recipe, `steps/<round>-<step>.json` the result of each
finished step:

    loop.json  steps/  log/  codec.safetensors  removers/<round>/  removers/lcm/  judges/<round>/
    rounds/<round>/ (a run, with votes/, scenes.json, decisions.json, scores.json, truth.json and kept.json)
    rounds/<round>/test/ (the run of the test pictures)

What is stored goes through `manifests.storage.Store` alone, so that a loop may be at any URI.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rasura.manifests.errors import RunError, StorageError
from rasura.manifests.json_lines import parse_json
from rasura.manifests.run_layout import LOOP
from rasura.manifests.storage import Store
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.loop.results import DiscriminatorResult, StepResult, VotesResult
from rasura.pipeline.training.rows import LOCAL, RowRef
from rasura.pipeline.training.votes import read_votes_folder

if TYPE_CHECKING:
    from rasura.annotator.exchange.vote_rows import VoteRow

RECIPE = LOOP
SCORES = "scores.json"
"""In a round: the discriminator's probabilities of its candidates, by item."""
SPOT_CHECK = "spot_check.json"
"""In a round: the votes that its spot check has used, and how many of the best candidates they certified."""
DECISIONS = "decisions.json"
"""In a round: what was decided about each of its candidates, by id."""
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
    if recipe.discriminator.pretrain_scenes and recipe.learns_from_votes:
        steps.append(Step("pretrain", 0))
    steps.append(Step("test", 0))
    for number, entry in enumerate(recipe.rounds, 1):
        steps.append(Step("draw", number))
        if not keeps_nothing(recipe, number):
            steps.append(Step("inpaint", number))
            if entry.kind == "human" and recipe.keep != "everything":
                steps += [Step("score", number)] if entry.ask == "best_first" else []
                steps.append(Step("votes", number))
            if recipe.learns_from_votes:
                steps.append(Step("judge" if entry.kind == "human" else "score", number))
        steps += [Step("add", number), Step("tune", number), Step("test", number)]
    if recipe.final:
        steps += [Step("final", recipe.last), Step("test", recipe.last)]
    if recipe.remover.distill:
        steps.append(Step("distill", recipe.last))
    return steps


def keeps_nothing(recipe: LoopRecipe, number: int) -> bool:
    """Return True where no candidate of a round can join the training set, so that none is made.

    The round's scenes are drawn all the same: the next round has the same ones, whatever is kept.
    """
    return recipe.keep == "nothing" or (recipe.keep == "humans" and recipe.rounds[number - 1].kind == "auto")


class Loop:
    """A loop in its folder, or below its URI."""

    def __init__(self, recipe: LoopRecipe, place: Store | str) -> None:
        self.recipe = recipe
        self.store = place if isinstance(place, Store) else Store(str(place))

    @classmethod
    def open(cls, place: Store | str) -> "Loop":
        """Open a loop that was begun.

        Raises:
            NoLoop: there is none in the folder.
        """
        store = place if isinstance(place, Store) else Store(str(place))
        try:
            document = store.read(RECIPE)
        except (FileNotFoundError, NotADirectoryError):
            message = f"there is no loop in '{store.uri}': it has no {RECIPE}; `rasura loop RECIPE` begins one"
            raise NoLoop(message) from None
        return cls(parse_recipe(document), store)

    def locate(self, path: str) -> str:
        """Return the path or URI of something in the loop, which is the same from every folder."""
        return f"{self.store.location}/{path}"

    def read_result(self, result: type[Result], number: int) -> Result | None:
        """Read the result of a step in a round; None where the step is not done."""
        try:
            document = self.store.read(f"steps/{Step(result.step_name(number), number).file}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return result.from_json(parse_json(document, self.store.uri))

    def has_result(self, step: Step) -> bool:
        """Return True where a step is done: its result is on disk."""
        return self.store.exists(f"steps/{step.file}")

    def list_done_steps(self) -> Iterator[Step]:
        """Yield the steps that are done."""
        return (step for step in list_steps(self.recipe) if self.has_result(step))

    def open_round(self, number: int) -> Store:
        """Open the run of a round; 0 is the discriminator's training before any vote."""
        return self.store.sub(round_path(number))

    def open_test_run(self, number: int) -> Store:
        """Open the run of a round's test pictures."""
        return self.store.sub(f"{round_path(number)}/test")

    def find_discriminator(self, number: int) -> str | None:
        """Return the place in the loop of the newest discriminator up to a round; None where there is none yet."""
        result = self.find_discriminator_result(number)
        return result.folder if result else None

    def find_discriminator_result(self, number: int) -> DiscriminatorResult | None:
        """Find the training of the newest discriminator up to a round."""
        results = (self.read_result(DiscriminatorResult, earlier) for earlier in range(number, -1, -1))
        return next((result for result in results if result is not None and result.folder), None)

    def read_votes(self, number: int) -> "list[VoteRow]":
        """Read a round's votes, of the reviewers that the recipe names and no others."""
        return read_votes_folder(self.open_round(number).sub("votes"), self.recipe.reviewers)

    def count_votes(self, number: int) -> int | None:
        """Count a round's candidates that have been voted on; None where nobody was asked."""
        if result := self.read_result(VotesResult, number):
            return result.voted
        is_checked = self.recipe.rounds[number - 1].spot_check is not None
        votes: int | None = self.read_json(f"{round_path(number)}/{SPOT_CHECK}", {}).get("votes")
        return votes if is_checked else None

    def read_json(self, path: str, default: Any) -> Any:
        """Read a JSON file of the loop; the default where it is not there."""
        try:
            return parse_json(self.store.read(path), path)
        except (FileNotFoundError, NotADirectoryError):
            return default

    def read_rows(self, name: str) -> list[RowRef]:
        """Read a list of rows that an earlier step wrote: `initial`, `pool`, `test`, `rounds/<round>/kept`, …"""
        return [RowRef(**ref) for ref in parse_json(self.store.read(f"{name}.json"), f"{name}.json")]

    def write_rows(self, name: str, refs: Sequence[RowRef]) -> None:
        """Write a list of rows for later steps."""
        self.store.write(f"{name}.json", json.dumps([asdict(ref) for ref in refs]).encode())


def find_refusal(loop: Loop, number: int) -> str | None:
    """Find why the newest discriminator up to a round may not decide what is kept; None where it may."""
    result = loop.find_discriminator_result(number)
    return None if result is None or loop.recipe.discriminator.unchecked else result.refusal


REMEDIES = re.compile(": (?:train it longer|use another|add initial triplets|allow it with)")
"""Beginnings of the advice at the end of a refusal."""


def find_overruled_refusal(loop: Loop, result: DiscriminatorResult) -> str | None:
    """Find why a discriminator failed its check, without advice, where the recipe lets it decide all the same."""
    return REMEDIES.split(result.refusal)[0] if result.refusal and loop.recipe.discriminator.unchecked else None


def explain_missing_discriminator(loop: Loop, number: int) -> str:
    """Explain why there is no discriminator up to a round, as a clause."""
    results = (loop.read_result(DiscriminatorResult, earlier) for earlier in range(number, -1, -1))
    reason = next((result.why for result in results if result is not None and result.why), None)
    return reason or "no discriminator has been trained yet"


def parse_recipe(document: bytes) -> LoopRecipe:
    """Parse the recipe in a loop's `loop.json`, which an older version may have written."""
    return LoopRecipe.model_validate(parse_json(document)["recipe"])


def remover_path(number: int) -> str:
    """Return the path below its loop of the remover after a round.

    Examples:
        >>> remover_path(3)
        'removers/03'
    """
    return f"removers/{number:02d}"


DISTILLED = "removers/lcm"
"""The last remover, distilled to four steps."""


def discriminator_path(number: int) -> str:
    """Return the path below its loop of the discriminator that a round trains."""
    return f"judges/{number:02d}"


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
