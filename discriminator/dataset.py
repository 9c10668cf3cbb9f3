"""The data of a discriminator: candidates with people's votes, as shares of yes and numbers of reviewers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from rasura.discriminator.augment import Case, list_failures, make_failure
from rasura.discriminator.crops import Crop, flip, recolour, rotate
from rasura.discriminator.evaluation import SingleClassVotes
from rasura.manifests.ids import assign_split

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Example:
    """One candidate and its votes.

    source, target: (h, w, 3) uint8. mask, effects: (h, w) bool; effects (M_e) may be missing.
    vote: share of yes. weight: how much it counts; the number of reviewers, over the inclusion probability.
    complete: its scene's other candidates were asked whatever the votes were.
    """

    source: Array
    target: Array
    mask: Array
    vote: float
    scene: str
    remover: str = ""
    weight: float = 1.0
    effects: Array | None = None
    complete: bool = True

    def load(self) -> "Example":
        """Return the example itself: its pictures are in memory."""
        return self


@dataclass(frozen=True)
class StoredExample:
    """An example whose pictures are read when needed: `source`, `target`, `mask`, and `effects` where available."""

    read: Callable[[], Mapping[str, Any]]
    vote: float
    scene: str
    remover: str = ""
    weight: float = 1.0
    complete: bool = True

    def load(self) -> Example:
        """Return the example with its pictures, read again each time: votes are many and pictures large."""
        row = self.read()
        pictures = (row["source"], row["target"], row["mask"])
        return Example(*pictures, self.vote, self.scene, self.remover, self.weight, row.get("effects"), self.complete)


AnyExample = Example | StoredExample


class Opinion(NamedTuple):
    """The verdict of all reviewers on a candidate: the share of yes, and its weight."""

    vote: float
    weight: float


def compute_opinion(yes: int, no: int, unsure: int = 0) -> Opinion | None:
    """Return the opinion of all reviewers of one candidate; an unsure one is half a yes. None without votes.

    Examples:
        >>> compute_opinion(yes=1, no=0, unsure=1)
        Opinion(vote=0.75, weight=2.0)
    """
    count = yes + no + unsure
    return Opinion((yes + unsure / 2) / count, float(count)) if count else None


def check_examples(examples: Sequence[AnyExample], what: str) -> None:
    """Check that something can be learned from examples.

    Args:
        what: their purpose, for the error.

    Raises:
        SingleClassVotes: no examples, or all of one class.
        ValueError: votes that are no shares, or weights that are not positive.
    """
    votes = np.array([example.vote for example in examples])
    if not len(votes):
        raise SingleClassVotes(f"{what}: there are no votes")
    if not ((votes >= 0) & (votes <= 1)).all():
        raise ValueError(f"{what}: votes are shares of yes in [0, 1], not {votes.min()} to {votes.max()}")
    if min(example.weight for example in examples) <= 0:
        raise ValueError(f"{what}: weights are numbers of reviewers, above 0")
    if (votes > 0.5).all() or (votes <= 0.5).all():
        raise SingleClassVotes(f"{what}: all {len(votes)} votes are {'yes' if votes[0] > 0.5 else 'no'}")


def split_by_scene(
    examples: Sequence[AnyExample], share: float, seed: int
) -> tuple[list[AnyExample], list[AnyExample]]:
    """Split examples into those to learn from and those held out.

    A scene is on one side only, by a draw that does not depend on the other scenes.

    Args:
        share: of the scenes, held out.
    """
    shares = {"held": share, "learn": 1 - share}
    sides = [assign_split(f"{seed} {example.scene}", shares) for example in examples]
    pairs = list(zip(examples, sides, strict=True))
    learned = [example for example, side in pairs if side == "learn"]
    held_out = [example for example, side in pairs if side == "held"]
    return learned, held_out


def spoil(example: Example, other: Array, rng: np.random.Generator) -> Example:
    """Return a failure made of an accepted candidate; the candidate itself where the failure would not be visible.

    Args:
        other: (h, w, 3) uint8, another picture of any size.
    """
    case = Case(example.source, example.target, example.mask, example.effects, other)
    names = list_failures(case)
    failure = make_failure(case, names[int(rng.integers(len(names)))], rng)
    return example if failure is None else replace(example, target=failure, vote=0.0, weight=1.0)


class Variety(Protocol):
    """The variation of candidates; see `vary` and `train.Settings`."""

    @property
    def flip(self) -> bool: ...
    @property
    def turn(self) -> bool: ...
    @property
    def recolour(self) -> bool: ...
    @property
    def dilate(self) -> float: ...


def vary(crop: Crop, rng: np.random.Generator, settings: Variety) -> Crop:
    """Return a variation of a candidate that a reviewer would judge alike.

    `flip`: mirrored half of the time. `turn`: rotated by a multiple of 90 degrees. `recolour`: red, green and blue in
    another order, and half of the time the negative; the contrasts of the object and its remains stay. `dilate`: half
    of the time the mask is wider by up to this share of the crop's side, because masks of later candidates are wider
    or tighter than those voted on.
    """
    if settings.flip and rng.random() < 0.5:
        crop = flip(crop)
    if settings.turn:
        crop = rotate(crop, int(rng.integers(4)))
    if settings.recolour:
        crop = recolour(crop, rng.permutation(3), negative=bool(rng.random() < 0.5))
    reach = int(rng.integers(0, round(settings.dilate * len(crop.mask)) + 1)) if rng.random() < 0.5 else 0
    if reach:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        crop = crop._replace(mask=np.asarray(cv2.dilate(crop.mask.astype(np.uint8), kernel)) > 0)
    return crop
