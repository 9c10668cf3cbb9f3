"""What a judge learns from: candidates with what people said, as shares of yes and numbers of reviewers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator import augment as negatives
from rasura.discriminator.augment import Case
from rasura.discriminator.crops import View, flipped, recoloured, turned
from rasura.discriminator.evaluation import OneClass
from rasura.manifests.ids import split_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Example:
    """One candidate and its votes.

    source, target: (h, w, 3) uint8. mask, effects: (h, w) bool; effects (M_e) may be unknown.
    vote: share of yes. weight: how much it counts; the number of reviewers.
    """

    source: Array
    target: Array
    mask: Array
    vote: float
    scene: str
    remover: str = ""
    weight: float = 1.0
    effects: Array | None = None

    def load(self) -> "Example":
        """Itself: its pictures are here."""
        return self


@dataclass(frozen=True)
class Stored:
    """The same with its pictures elsewhere: `read` gives `source`, `target`, `mask`, and `effects` where known."""

    read: Callable[[], Mapping[str, Any]]
    vote: float
    scene: str
    remover: str = ""
    weight: float = 1.0

    def load(self) -> Example:
        """With its pictures, read anew each time: votes are many and pictures large."""
        found = self.read()
        pictures = (found["source"], found["target"], found["mask"])
        return Example(*pictures, self.vote, self.scene, self.remover, self.weight, found.get("effects"))


Voted = Example | Stored


class Opinion(NamedTuple):
    """Share of yes, and how much it counts."""

    vote: float
    weight: float


def opinion(yes: int, no: int, unsure: int = 0) -> Opinion | None:
    """Of all reviewers of one candidate; an unsure one is half a yes. None where nobody said anything."""
    count = yes + no + unsure
    return Opinion((yes + unsure / 2) / count, float(count)) if count else None


def check(examples: Sequence[Voted], what: str) -> None:
    """That something can be learned from them.

    Raises:
        OneClass: no examples, or all of one class.
        ValueError: votes that are no shares, or weights that are not positive.
    """
    votes = np.array([one.vote for one in examples])
    if not len(votes):
        raise OneClass(f"{what}: there are no votes")
    if not ((votes >= 0) & (votes <= 1)).all():
        raise ValueError(f"{what}: votes are shares of yes in [0, 1], not {votes.min()} to {votes.max()}")
    if min(one.weight for one in examples) <= 0:
        raise ValueError(f"{what}: weights are numbers of reviewers, above 0")
    if (votes > 0.5).all() or (votes <= 0.5).all():
        raise OneClass(f"{what}: all {len(votes)} votes are {'yes' if votes[0] > 0.5 else 'no'}")


def by_scene(examples: Sequence[Voted], share: float, seed: int) -> tuple[list[Voted], list[Voted]]:
    """Those to learn from and those held out; a scene is on one side only, by a draw that other scenes do not move."""
    shares = {"held": share, "learn": 1 - share}
    sides = [split_of(f"{seed} {one.scene}", shares) for one in examples]
    learn = [one for one, side in zip(examples, sides, strict=True) if side == "learn"]
    return learn, [one for one, side in zip(examples, sides, strict=True) if side == "held"]


def spoiled(one: Example, other: Array, rng: np.random.Generator) -> Example:
    """A failure made of an accepted candidate; the candidate itself where the failure would not be seen."""
    case = Case(one.source, one.target, one.mask, one.effects, other)
    names = negatives.possible(case)
    made = negatives.make(case, names[int(rng.integers(len(names)))], rng)
    return one if made is None else replace(one, target=made, vote=0.0, weight=1.0)


class Variety(Protocol):
    """How much candidates are varied: `train.Settings`."""

    @property
    def flip(self) -> bool: ...
    @property
    def turn(self) -> bool: ...
    @property
    def recolour(self) -> bool: ...
    @property
    def dilate(self) -> float: ...


def varied(view: View, rng: np.random.Generator, how: Variety) -> View:
    """The same candidate in another guise, which a reviewer would judge alike.

    `flip`: mirrored half of the time. `turn`: turned by a multiple of 90 degrees. `recolour`: red, green and blue in
    another order, and half of the time the negative; what was removed and what it left keep their contrasts.
    `dilate`: half of the time the mask is wider by up to this share of the view's side, for masks of the candidates to
    come are wider or tighter than those voted on.
    """
    if how.flip and rng.random() < 0.5:
        view = flipped(view)
    if how.turn:
        view = turned(view, int(rng.integers(4)))
    if how.recolour:
        view = recoloured(view, rng.permutation(3), negative=bool(rng.random() < 0.5))
    reach = int(rng.integers(0, round(how.dilate * len(view.mask)) + 1)) if rng.random() < 0.5 else 0
    if reach:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        view = view._replace(mask=np.asarray(cv2.dilate(view.mask.astype(np.uint8), kernel)) > 0)
    return view
