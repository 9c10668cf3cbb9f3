"""Requests and answers of the API."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rasura.annotator.store.enums import Task, Verdict
from rasura.annotator.store.leases import MAX_OPEN_ITEMS


def _check_text(text: str) -> str:
    if any((ord(letter) < 32 and letter not in "\n\t") or letter == "\x7f" for letter in text):
        raise ValueError("control characters are not allowed")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise ValueError("a surrogate without its other half is not allowed")
    return text


ItemId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Nonce = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-]{8,64}$",
        description="The sender's own id of the request; the same one sent twice counts once.",
    ),
]
Text = Annotated[str, Field(max_length=2000), AfterValidator(_check_text)]


class RequestBody(BaseModel):
    """A request; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class LoginRequest(RequestBody):
    token: str = Field(min_length=1, max_length=200)


class NextRequest(RequestBody):
    want: int = Field(6, ge=1, le=MAX_OPEN_ITEMS)


class VoteRequest(RequestBody):
    item: ItemId
    nonce: Nonce
    verdict: Verdict | Literal["skip"]
    reason: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]{0,15}$", description="a word of the item's reasons")
    seconds: float | None = Field(None, ge=0, le=1e6, allow_inf_nan=False, description="from the picture to the key")
    guidelines: str | None = Field(None, pattern=r"^[0-9a-f]{1,16}$")
    age: float | None = Field(
        None, ge=0, le=30 * 86_400, allow_inf_nan=False, description="seconds for which it waited to be sent"
    )


class UndoRequest(RequestBody):
    nonce: Nonce
    item: ItemId | None = None


class FlagRequest(RequestBody):
    item: ItemId
    nonce: Nonce
    remark: Text


class Problem(BaseModel):
    detail: str
    code: str | None = Field(None, description="of a vote that cannot count: the kind of the problem")


class SessionInfo(BaseModel):
    review: str = Field(description="id of the review")
    reviewer: int = Field(description="id of the reviewer in it")
    name: str
    admin: bool
    run: str
    feedback: bool
    lease_minutes: float
    guidelines: str
    reasons: dict[str, str]
    expert: bool = False
    wording: "Wording"


class TaskWording(BaseModel):
    """What is asked about an item, in the words of an admin; null where the page's own are used."""

    reasons: list[str]
    labels: dict[str, str] | None = None


class Wording(BaseModel):
    """The wording of the review: of each task, of the verdicts, and the guidelines as a tree of elements."""

    version: int
    tasks: dict[str, TaskWording]
    labels: dict[str, str]
    guidelines: list[Any] | None


class Item(BaseModel):
    id: str
    label: str | None
    dilation: int
    task: Task = Task.REMOVAL


class UndoResult(Item):
    open: bool = Field(description="false: the item needs no vote any more, and was not opened again")


class Items(BaseModel):
    items: list[Item]


class Feedback(BaseModel):
    expected: Verdict
    right: bool


class VoteResult(BaseModel):
    """Facts that the page may show after the vote."""

    score: float | None = None
    others: dict[str, int] = {}
    feedback: Feedback | None = Field(None, serialization_alias="known")


class HistoryItem(Item):
    verdict: Verdict | None
    reason: str | None
    time: float


class History(BaseModel):
    items: list[HistoryItem]


class ReviewerProgress(BaseModel):
    votes: int
    per_hour: float | None
    median_seconds: float | None


class TeamProgress(BaseModel):
    """Nothing here tells items with a known answer from others."""

    verdicts: int = Field(description="by everybody")
    total: int = Field(description="verdicts in all, an estimate")
    is_limit: bool = Field(description="true: fewer may do")
    finished: bool = Field(description="every candidate has the votes that it needs")
    alone: bool = Field(description="nobody else can sign in")


class Progress(BaseModel):
    mine: ReviewerProgress
    team: TeamProgress


class Example(Item):
    variant: str
    verdict: Verdict
    reason: str | None


class Examples(BaseModel):
    items: list[Example]


class Done(BaseModel):
    ok: bool = True
