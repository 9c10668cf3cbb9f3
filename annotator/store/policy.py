"""Which item comes next, and how many votes it needs: pure arithmetic, no database."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rasura.annotator.store.enums import Verdict


class Policy(BaseModel):
    """How a review is held; `review:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    votes: int = Field(1, ge=1, le=99, description="votes an item gets")
    near_votes: int = Field(2, ge=1, le=99, description="votes where the score is near the threshold")
    most_votes: int = Field(3, ge=1, le=99, description="votes at most, where they disagree or are unsure")
    threshold: float = Field(0.9, ge=0, le=1, description="score above which candidates are kept")
    near: float = Field(0.05, ge=0, le=1, description="how near to the threshold is near")
    order: Literal["uncertainty", "balance", "random"] = Field("uncertainty", description="which items come first")
    honeypots: float = Field(0.05, ge=0, le=0.5, description="share of items whose answer is known")
    feedback: bool = Field(False, description="tell the known answer after a vote on such an item")
    lease_minutes: float = Field(10.0, gt=0, le=1440, description="how long an item is kept for who has it open")
    seed: int = Field(0, ge=0, description="of the random order")

    @model_validator(mode="after")
    def _ordered(self) -> "Policy":
        if self.most_votes < max(self.votes, self.near_votes):
            least = max(self.votes, self.near_votes)
            raise ValueError(f"most_votes is {self.most_votes}; it must be at least votes and near_votes, {least}")
        return self


def leader(verdicts: Sequence[str]) -> str | None:
    """The verdict that more than half of the votes give; None where there is none."""
    if not verdicts:
        return None
    verdict, count = Counter(verdicts).most_common(1)[0]
    return verdict if 2 * count > len(verdicts) else None


def needed(policy: Policy, verdicts: Sequence[str], score: float | None) -> int:
    """Votes that an item needs, given those that it has.

    `near_votes` where |score - threshold| <= near, else `votes`; then one more at a time, up to `most_votes`, while no
    verdict has more than half of the votes or that verdict is "unsure".
    """
    base = policy.votes
    if score is not None and abs(score - policy.threshold) <= policy.near + 1e-9:
        base = max(base, policy.near_votes)
    if len(verdicts) < base:
        return base
    if leader(verdicts) in (Verdict.YES, Verdict.NO):
        return max(base, len(verdicts))
    return max(len(verdicts), min(policy.most_votes, len(verdicts) + 1))


def draw(seed: int, *words: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *words))).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def priority(policy: Policy, item: str, score: float | None, rank: int) -> float:
    """Place of an item in the queue; the smallest comes first.

    uncertainty: |score - threshold|, items without a score after those that have one, in random order.
    balance: the item's rank within its class, so that one of each class comes, then a second of each.
    random: a hash of the item.

    Args:
        rank: how many items of the same class come before it.
    """
    match policy.order:
        case "uncertainty":
            return 2.0 + draw(policy.seed, item) if score is None else abs(score - policy.threshold)
        case "balance":
            return rank + draw(policy.seed, item)
        case "random":
            return draw(policy.seed, item)


def is_honeypot_turn(policy: Policy, reviewer: int, turn: int) -> bool:
    """Whether a reviewer's item number `turn` (from 0) has a known answer.

    In every stretch of 1/share turns exactly one has, at a place that nobody can count off.
    """
    if policy.honeypots <= 0:
        return False
    stretch = max(2, round(1 / policy.honeypots))
    block, place = divmod(turn, stretch)
    return place == int(draw(policy.seed, "honeypot", reviewer, block) * stretch)
