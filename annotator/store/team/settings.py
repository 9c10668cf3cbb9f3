"""What an admin can word for a review: its guidelines, the reasons of a no, the labels of the verdicts; in versions."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Connection, func, insert, select

from rasura.annotator.store.enums import REASON_TEXT, REASONS, Task, Verdict
from rasura.annotator.store.reviewers import Reviewer
from rasura.annotator.store.team.tables import has_team_tables, settings
from rasura.annotator.store.vote_log import VoteError
from rasura.manifests.ids import hash_json

MOST_REASONS = 9
"""Reasons of a task, each with a digit as its key."""
EXAMPLE = re.compile(r"\bitem:([0-9a-f]{32})\b")
"""How guidelines name an item whose result is shown as an example."""


class NewerVersion(VoteError):
    """Somebody else has saved the settings meanwhile."""


def _check_line(text: str) -> str:
    text = text.strip()
    if not text or not text.isprintable():
        raise ValueError("a label is one line of printable characters")
    return text


Label = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_check_line)]
ReasonKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,15}$")]


class ReviewSettings(BaseModel):
    """The wording of a review; what is left out is the page's own, in the language of the browser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guidelines: str | None = Field(
        None, max_length=20_000, description="Markdown; `![caption](item:ID)` shows the result of an item"
    )
    reasons: Mapping[Task, Mapping[ReasonKey, Label]] = Field(
        {}, description="reasons of a no for each task: the word that votes carry, and the label"
    )
    labels: Mapping[Verdict, Label] = Field({}, description="labels of the verdicts")

    @field_validator("reasons")
    @classmethod
    def _check_count(cls, value: Mapping[Task, Mapping[str, str]]) -> Mapping[Task, Mapping[str, str]]:
        for task, reasons in value.items():
            if not 1 <= len(reasons) <= MOST_REASONS:
                raise ValueError(f"{task} has {len(reasons)} reasons; it can have 1 to {MOST_REASONS}")
        return value

    def list_reasons(self, task: Task) -> dict[str, str]:
        """Return the reasons of a no on a task with their labels, in the order of their keys."""
        if task in self.reasons:
            return dict(self.reasons[task])
        return {str(reason): REASON_TEXT[reason] for reason in REASONS[task]}

    def find_examples(self) -> set[str]:
        """Find the items that the guidelines show."""
        return set(EXAMPLE.findall(self.guidelines or ""))

    def compute_hash(self) -> str:
        """Compute a hash of what reviewers read, which votes carry."""
        return str(hash_json(self.model_dump(mode="json")))[:12]


def read_settings(connection: Connection) -> tuple[int, ReviewSettings]:
    """Read the number and the contents of the newest version; 0 and the page's own where nobody has saved any."""
    if not has_team_tables(connection):
        return 0, ReviewSettings()
    row = connection.execute(select(settings).order_by(settings.c.version.desc()).limit(1)).first()
    return (row.version, ReviewSettings.model_validate_json(row.value)) if row else (0, ReviewSettings())


def save_settings(connection: Connection, author: Reviewer, value: ReviewSettings, based_on: int, now: float) -> int:
    """Save a version, and return its number.

    Args:
        based_on: number of the version that the author has seen.

    Raises:
        NewerVersion: there is a newer one.
    """
    newest = connection.execute(select(func.max(settings.c.version))).scalar() or 0
    if newest != based_on:
        raise NewerVersion(f"somebody has saved version {newest} meanwhile; load it, and change that")
    text = json.dumps(value.model_dump(mode="json"), ensure_ascii=False)
    connection.execute(insert(settings).values(version=newest + 1, time=now, author=author.id, value=text))
    return int(newest) + 1


def list_versions(connection: Connection) -> list[Mapping[str, Any]]:
    """List the versions, the newest first, with their contents."""
    return [
        {**row._mapping, "value": json.loads(row.value)}
        for row in connection.execute(select(settings).order_by(settings.c.version.desc()))
    ]
