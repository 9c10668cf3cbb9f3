"""RORem's loop as a durable sequence of steps: killed anywhere it continues, and no step is done twice.

A loop is a folder. `loop.json` holds its recipe, `steps/<n>-<name>.json` what each finished step found: written once,
by create-if-absent, after everything else of the step is on disk. A step that has its file is never entered again; one
that was killed goes on from what it committed (shards of candidates, checkpoints of a training).

    loop.json  steps/  codec.safetensors  removers/<n>/  removers/lcm/  judges/<n>/  rounds/<n>/ (a run, with votes/
    and kept.json)
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasura.manifests.storage import Store
from rasura.pipeline.loop.recipe import LoopRecipe


class OtherLoop(ValueError):
    """The folder holds a loop of another recipe."""


class Waiting(Exception):
    """A human round has not enough votes yet; nothing is wrong. The same command goes on when they are in."""


class NoLoop(FileNotFoundError):
    """There is no loop in a folder."""


@dataclass(frozen=True)
class Step:
    """One step: its name, and the round it belongs to (0 before the first)."""

    name: str
    round: int

    @property
    def file(self) -> str:
        return f"{self.round:02d}-{self.name}.json"


def steps_of(recipe: LoopRecipe) -> list[Step]:
    """All steps in their order."""
    found = [Step("initial", 0), Step("train", 0)]
    if recipe.judge.pretrain_scenes and recipe.keep == "promise":
        found.append(Step("pretrain", 0))
    found.append(Step("test", 0))
    for number, one in enumerate(recipe.rounds, 1):
        found.append(Step("draw", number))
        if not idle(recipe, number):
            found.append(Step("inpaint", number))
            if one.kind == "human" and recipe.keep != "everything":
                found.append(Step("votes", number))
            if recipe.keep == "promise":
                found.append(Step("judge" if one.kind == "human" else "score", number))
        found += [Step("add", number), Step("tune", number), Step("test", number)]
    if recipe.remover.distill:
        found.append(Step("distill", len(recipe.rounds)))
    return found


def idle(recipe: LoopRecipe, number: int) -> bool:
    """Whether nothing of a round is kept: its scenes are drawn, so that the next round has the same ones whatever is
    kept, and no candidates are made of them."""
    return recipe.keep == "nothing" or (recipe.keep == "humans" and recipe.rounds[number - 1].kind == "auto")


class Loop:
    """A loop in its folder."""

    def __init__(self, recipe: LoopRecipe, folder: Path) -> None:
        self.recipe, self.folder, self.store = recipe, folder, Store(folder)

    @classmethod
    def open(cls, folder: Path) -> "Loop":
        """A loop that was begun.

        Raises:
            NoLoop
        """
        if not (folder / "loop.json").is_file():
            raise NoLoop(f"there is no loop in {folder}: it has no loop.json; rasura loop RECIPE begins one")
        return cls(LoopRecipe.model_validate(json.loads((folder / "loop.json").read_text())["recipe"]), folder)

    def result(self, name: str, number: int) -> dict[str, Any] | None:
        """What a finished step found; None where it is not finished."""
        path = self.folder / "steps" / Step(name, number).file
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def remover(self, number: int) -> Path:
        """Folder of the remover after a round."""
        return self.folder / "removers" / f"{number:02d}"

    @property
    def distilled(self) -> Path:
        """Folder of the last remover in four steps."""
        return self.folder / "removers" / "lcm"

    def round(self, number: int) -> Store:
        """The run of a round; 0 is the judge's training before any vote."""
        return self.store.sub(f"rounds/{number:02d}")

    def votes(self, number: int) -> Path:
        """Folder of the votes of a round."""
        return self.folder / "rounds" / f"{number:02d}" / "votes"

    def judge(self, number: int) -> Path | None:
        """Folder of the newest judge up to a round; None where there is none yet."""
        for at in range(number, -1, -1):
            told = self.result("judge" if at else "pretrain", at)
            if told is not None and told.get("judge"):
                return self.folder / str(told["judge"])
        return None

    def finished(self) -> Iterator[Step]:
        """Steps that are done."""
        return (one for one in steps_of(self.recipe) if self.result(one.name, one.round) is not None)


def run(recipe: LoopRecipe, folder: Path, say: Callable[[str], None] = print) -> Loop:
    """Runs a loop, or goes on where it was left.

    Raises:
        OtherLoop: the folder holds a loop of another recipe.
        Waiting: a human round waits for votes.
        RunLocked: another process owns the loop.
    """
    from rasura.pipeline.loop import steps as loop_steps

    loop = Loop(recipe, folder)
    told = recipe.model_dump(mode="json")
    with loop.store.lock():
        loop.store.clear_temporary(["steps", "rounds"])
        if not loop.store.create("loop.json", (json.dumps({"recipe": told}, indent=1) + "\n").encode()):
            # read by today's schema: a loop that an older version began goes on if what was added since is as it was
            there = LoopRecipe.model_validate(json.loads(loop.store.read("loop.json"))["recipe"])
            if there.what() != recipe.what():
                known, asked = there.what(), recipe.what()
                differ = sorted(key for key in asked if known[key] != asked[key])
                raise OtherLoop(
                    f"{folder} holds a loop of another recipe (it differs in {', '.join(differ)}): "
                    "choose another folder with --into, or remove it"
                )
        for step in steps_of(recipe):
            if loop.result(step.name, step.round) is not None:
                continue
            say(f"round {step.round}: {step.name}")
            with (folder / "begun.log").open("a") as log:
                log.write(f"{step.file}\n")
            found = loop_steps.STEPS[step.name](loop, step.round)
            loop.store.create(f"steps/{step.file}", (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    return loop
