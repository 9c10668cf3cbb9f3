"""What people have said of a run in a few numbers, for `rasura status` and the report."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rasura.annotator.exchange.verdicts import RowVerdict
from rasura.annotator.store.enums import REASON_TEXT
from rasura.manifests.spelling import format_count


@dataclass(frozen=True)
class ReviewSummary:
    """The verdicts on the rows of a run.

    Attributes:
        verdicts: number of rows by verdict: yes, no, unsure, tie.
        reasons: number of rows with a no by its reason.
        overruled: rows on which an expert overruled the votes.
        corrected: rows with a mask that was corrected.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    overruled: int = 0
    corrected: int = 0

    @property
    def reason_texts(self) -> Counter[str]:
        """The reasons as reviewers read them; those of this review's own wording by their words."""
        texts = {str(reason): text for reason, text in REASON_TEXT.items()}
        return Counter({texts.get(word, word): count for word, count in self.reasons.items()})

    def __str__(self) -> str:
        parts = [f"{self.verdicts[word]} {word}" for word in ("yes", "no", "unsure", "tie") if self.verdicts[word]]
        reasons = [f"{text} {count}" for text, count in self.reason_texts.most_common(3)]
        text = ", ".join(parts) or "none yet"
        if reasons:
            text += f" (no: {', '.join(reasons)})"
        if self.overruled:
            text += f"; {self.overruled} by an expert"
        if self.corrected:
            text += f"; {format_count(self.corrected, 'row')} with a corrected mask"
        return text


def summarize_verdicts(verdicts: Mapping[str, RowVerdict], corrected: int = 0) -> ReviewSummary:
    """Summarize the verdicts on rows.

    Args:
        verdicts: by row (`annotator.exchange.verdicts.read_verdicts`).
        corrected: rows with a corrected mask.

    Examples:
        >>> verdicts = {"a": RowVerdict("yes", None, 1.0, 2), "b": RowVerdict("no", "mask", 1.0, 1)}
        >>> str(summarize_verdicts(verdicts))
        '1 yes, 1 no (no: mask wrong 1)'
    """
    return ReviewSummary(
        Counter(row.verdict or "tie" for row in verdicts.values()),
        Counter(row.reason for row in verdicts.values() if row.verdict == "no" and row.reason),
        sum(row.by_expert for row in verdicts.values()),
        corrected,
    )
