"""The words of a review: verdicts, reasons, what an entry of the log does."""

from enum import StrEnum


class Verdict(StrEnum):
    """What a reviewer says of a candidate."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class Reason(StrEnum):
    """Why a candidate gets a no."""

    OBJECT = "object"
    HALLUCINATED = "hallucinated"
    SEAM = "seam"
    SHADOW = "shadow"
    OUTSIDE = "outside"
    OTHER = "other"


REASON_TEXT = {
    Reason.OBJECT: "object left",
    Reason.HALLUCINATED: "hallucinated object",
    Reason.SEAM: "blur or seam",
    Reason.SHADOW: "shadow or reflection left",
    Reason.OUTSIDE: "changed outside the mask",
    Reason.OTHER: "something else",
}


class Action(StrEnum):
    """What an entry of the log does to its reviewer's verdict on its item."""

    VOTE = "vote"  # gives one
    EDIT = "edit"  # replaces one
    UNDO = "undo"  # takes it back; the item is the reviewer's again
    SKIP = "skip"  # says none, and wants the item no more
    FLAG = "flag"  # leaves the verdict alone; the remark is for the admin


class ItemKind(StrEnum):
    """What an item is for. The page never tells a honeypot from a candidate."""

    CANDIDATE = "candidate"
    HONEYPOT = "honeypot"
    EXAMPLE = "example"


class Variant(StrEnum):
    """Which picture is shown as the result. All but TARGET are known mistakes, made from a row with a true target."""

    TARGET = "target"
    UNTOUCHED = "untouched"
    HALLUCINATED = "hallucinated"
    BLUR = "blur"
    SHADOW = "shadow"
    LEAK = "leak"


MISTAKES = {
    Variant.UNTOUCHED: Reason.OBJECT,
    Variant.HALLUCINATED: Reason.HALLUCINATED,
    Variant.BLUR: Reason.SEAM,
    Variant.SHADOW: Reason.SHADOW,
    Variant.LEAK: Reason.OUTSIDE,
}
"""The reason that each known mistake deserves."""

HISTORY = 20
"""How many of a reviewer's last verdicts the page lists."""
