"""The order of the queue, and the number of votes that an item needs: pure arithmetic, no database."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rasura.annotator.store.enums import Verdict


class Policy(BaseModel):
    """The settings of a review; `review:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    votes: int = Field(1, ge=1, le=99, description="reviewers who judge an item")
    near_votes: int = Field(2, ge=1, le=99, description="the same where the score is near the threshold")
    most_votes: int = Field(3, ge=1, le=99, description="votes at most, where reviewers disagree or are unsure")
    threshold: float = Field(0.9, ge=0, le=1, description="score above which candidates are kept")
    near: float = Field(0.05, ge=0, le=1, description="distance from the threshold that counts as near")
    order: Literal["uncertainty", "balance", "random", "best_first"] = Field(
        "uncertainty",
        description="items that come first; best_first asks a scene's candidates by falling score, until one is "
        "accepted",
    )
    complete_scenes: float = Field(
        0.05, gt=0, le=1, description="best_first: share of scenes that are asked completely, for unbiased rates"
    )
    floor: float = Field(0.01, ge=0, lt=1, description="best_first: candidates with a lower score are not asked")
    honeypots: float = Field(0.05, ge=0, le=0.5, description="share of items with a known answer")
    feedback: bool = Field(False, description="show the known answer after a vote on such an item")
    lease_minutes: float = Field(10.0, gt=0, le=1440, description="minutes for which an open item is reserved")
    seed: int = Field(0, ge=0, description="of the random order of the candidates")

    @model_validator(mode="after")
    def _check_votes(self) -> "Policy":
        if self.most_votes < max(self.votes, self.near_votes):
            least = max(self.votes, self.near_votes)
            raise ValueError(f"most_votes is {self.most_votes}; it must be at least votes and near_votes, {least}")
        return self


def find_majority(verdicts: Sequence[str]) -> str | None:
    """Find the verdict of more than half of the votes; None where there is none.

    Examples:
        >>> find_majority(["yes", "no", "yes"]), find_majority(["yes", "no"])
        ('yes', None)
    """
    if not verdicts:
        return None
    verdict, count = Counter(verdicts).most_common(1)[0]
    return verdict if 2 * count > len(verdicts) else None


def count_needed_votes(policy: Policy, verdicts: Sequence[str], score: float | None) -> int:
    """Count the votes that an item needs in all.

    They are `near_votes` where |score - threshold| <= near, else `votes`; then one more at a time, up to `most_votes`,
    while no verdict has more than half of the votes or that verdict is "unsure".

    Args:
        policy: of the review.
        verdicts: that the item has.
        score: that a discriminator gave it, where it has one.

    Examples:
        >>> count_needed_votes(Policy(votes=2), ["yes", "no"], None)
        3
    """
    base = policy.votes
    if score is not None and abs(score - policy.threshold) <= policy.near + 1e-9:
        base = max(base, policy.near_votes)
    if len(verdicts) < base:
        return base
    if find_majority(verdicts) in (Verdict.YES, Verdict.NO):
        return max(base, len(verdicts))
    return max(len(verdicts), min(policy.most_votes, len(verdicts) + 1))


def draw_uniform(seed: int | str, *words: object) -> float:
    """Draw a number in [0, 1) that depends on nothing but the arguments."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *words))).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def compute_priority(policy: Policy, item: str, score: float | None, rank: int) -> float:
    """Compute the priority of an item in the queue; the smallest comes first.

    uncertainty: |score - threshold|, items without a score after those that have one, in random order.
    balance: the item's rank within its class, so that one of each class comes, then a second of each.
    random: a hash of the item; so is best_first, which asks the next candidate of one scene or another.

    Args:
        policy: of the review.
        item: its id.
        score: that a discriminator gave it, where it has one.
        rank: number of items of the same class that come before it.
    """
    match policy.order:
        case "uncertainty":
            return 2.0 + draw_uniform(policy.seed, item) if score is None else abs(score - policy.threshold)
        case "balance":
            return rank + draw_uniform(policy.seed, item)
        case "random" | "best_first":
            return draw_uniform(policy.seed, item)
