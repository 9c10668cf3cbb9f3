"""What goes over the wire: requests and answers of the server."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rasura.annotator.store.enums import Reason, Verdict
from rasura.annotator.store.leases import HELD


def _plain(text: str) -> str:
    if any((ord(letter) < 32 and letter not in "\n\t") or letter == "\x7f" for letter in text):
        raise ValueError("control characters are not allowed")
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise ValueError("half a letter: a surrogate without its other half")
    return text


ItemId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Nonce = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="The sender's own; sent again, it is one.")]
Words = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]


class Body(BaseModel):
    """A request: nothing in it is unknown."""

    model_config = ConfigDict(extra="forbid")


class Login(Body):
    token: str = Field(min_length=1, max_length=200)


class Next(Body):
    want: int = Field(6, ge=1, le=HELD)


class Vote(Body):
    item: ItemId
    nonce: Nonce
    verdict: Verdict | Literal["skip"]
    reason: Reason | None = None
    seconds: float | None = Field(None, ge=0, le=1e6, allow_inf_nan=False, description="from the picture to the key")
    guidelines: str | None = Field(None, pattern=r"^[0-9a-f]{1,16}$")


class Undo(Body):
    nonce: Nonce
    item: ItemId | None = None


class Flag(Body):
    item: ItemId
    nonce: Nonce
    remark: Words


class Problem(BaseModel):
    detail: str


class Me(BaseModel):
    name: str
    admin: bool
    run: str
    feedback: bool
    lease_minutes: float
    guidelines: str
    reasons: dict[str, str]


class Item(BaseModel):
    id: str
    label: str | None
    dilation: int


class Items(BaseModel):
    items: list[Item]


class Known(BaseModel):
    expected: Verdict
    right: bool


class Voted(BaseModel):
    """What may be told once the vote is in."""

    score: float | None = None
    others: dict[str, int] = {}
    known: Known | None = None


class Past(Item):
    verdict: Verdict | None
    reason: str | None
    time: float


class History(BaseModel):
    items: list[Past]


class Mine(BaseModel):
    votes: int
    per_hour: float | None
    median_seconds: float | None


class Round(BaseModel):
    candidates: int
    voted: int
    leased: int
    waiting: int


class Progress(BaseModel):
    mine: Mine
    round: Round


class Example(Item):
    variant: str
    verdict: Verdict
    reason: str | None


class Examples(BaseModel):
    items: list[Example]


class Ok(BaseModel):
    ok: bool = True
