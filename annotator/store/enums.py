"""The vocabulary of a review: verdicts, reasons, actions of the log, kinds and variants of items."""

from enum import StrEnum


class Verdict(StrEnum):
    """A reviewer's answer on a candidate."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class Reason(StrEnum):
    """The reason for a no."""

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
    """The effect of a log entry on its reviewer's verdict on its item."""

    VOTE = "vote"  # adds one
    EDIT = "edit"  # replaces one
    UNDO = "undo"  # withdraws it; the item is leased to the reviewer again
    SKIP = "skip"  # adds none, and the item is not dealt to this reviewer again
    FLAG = "flag"  # does not change it; the remark is for the admin


class ItemKind(StrEnum):
    """The purpose of an item. On the page a honeypot looks like a candidate."""

    CANDIDATE = "candidate"
    HONEYPOT = "honeypot"
    EXAMPLE = "example"


class Variant(StrEnum):
    """The picture that is shown as the result. All but TARGET are deliberate mistakes, made from a true target."""

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
"""Deliberate mistake -> the reason for which it deserves a no."""

HISTORY = 20
"""Number of a reviewer's last verdicts that the page lists."""
