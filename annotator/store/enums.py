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
    MASK = "mask"
    EFFECTS = "effects"
    STANDS = "stands"
    OTHER = "other"


REASON_TEXT = {
    Reason.OBJECT: "object left",
    Reason.HALLUCINATED: "hallucinated object",
    Reason.SEAM: "blur or seam",
    Reason.SHADOW: "shadow or reflection left",
    Reason.OUTSIDE: "changed outside the mask",
    Reason.MASK: "mask wrong",
    Reason.EFFECTS: "effects missing",
    Reason.STANDS: "stands wrong",
    Reason.OTHER: "something else",
}


class Task(StrEnum):
    """What is asked about an item."""

    REMOVAL = "removal"  # did a remover erase the object without a trace?
    PAIR = "pair"  # is a triplet from two photographs right?
    COMPOSITE = "composite"  # is a triplet with an object that was put into the picture right?


TASK_OF_KIND = {
    "edited": Task.REMOVAL,
    "captured": Task.PAIR,
    "simulated": Task.COMPOSITE,
    "inserted": Task.COMPOSITE,
}
"""Kind of a row -> what is asked about it."""

REASONS = {
    Task.REMOVAL: (
        *(Reason.OBJECT, Reason.HALLUCINATED, Reason.SEAM, Reason.SHADOW),
        Reason.OUTSIDE,
        Reason.OTHER,
        Reason.MASK,
    ),
    Task.PAIR: (Reason.MASK, Reason.EFFECTS, Reason.SEAM, Reason.OBJECT, Reason.OUTSIDE, Reason.OTHER),
    Task.COMPOSITE: (Reason.MASK, Reason.EFFECTS, Reason.SEAM, Reason.STANDS, Reason.OTHER),
}
"""The reasons of a no on each task, in the order of their keys."""


class Action(StrEnum):
    """The effect of a log entry on its reviewer's verdict on its item."""

    VOTE = "vote"  # adds one
    EDIT = "edit"  # replaces one
    UNDO = "undo"  # withdraws it; the item is leased to the reviewer again
    SKIP = "skip"  # adds none, and the item is not dealt to this reviewer again
    FLAG = "flag"  # does not change it; the remark is for the admin
    CORRECT = "correct"  # does not change it; the item has another mask now
    OVERRULE = "overrule"  # an expert's verdict, in place of all votes on the item; without one, the votes count again
    ASIDE = "aside"  # an admin sets it aside; the item is dealt again
    RESTORE = "restore"  # an admin brings it back


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
