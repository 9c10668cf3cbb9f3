"""Which instances are good enough to be composited: Syn4Removal's filter by CLIP score, area and class.

Source: Syn4Removal (arXiv 2501.08279) and its release. There the score is stored as 100 times the cosine and compared
with limits of a cosine, so that no instance is ever below; here both are cosines.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from rasura.stages.stage import Params, Record


class InstanceFilter(Params):
    """Limits of the instances that are drawn."""

    min_score: float = Field(
        0.2,
        ge=-1,
        le=1,
        description="CLIP score (`clip_score`, a cosine) below which an instance is left out,"
        " unless no better one of its class is there; rows without a score pass.",
    )
    tolerance: float = Field(
        0.02, ge=0, description="By how much an instance may be below the best score of its class in any case."
    )
    min_area: float = Field(0.05, ge=0, le=1, description="Smallest share of its own picture that an instance covers.")
    max_area: float = Field(0.95, ge=0, le=1, description="Largest share of its own picture that an instance covers.")
    min_count: int = Field(6, ge=1, description="Instances that a class must have left, or all of it is left out.")


def select_instances(rows: Sequence[Record], limits: InstanceFilter) -> list[Record]:
    """Select instances as Syn4Removal does, in their order.

    Kept are those with score ≥ min(`min_score`, best score of the class − `tolerance`) and an area within its limits,
    of classes of which at least `min_count` are kept.

    Args:
        rows: with `label`, `clip_score` and `foreground_area`; what is None counts as unknown, and passes.

    Examples:
        >>> rows = [{"label": "cup", "clip_score": score, "foreground_area": 0.1} for score in (0.25, 0.21, 0.1)]
        >>> [row["clip_score"] for row in select_instances(rows, InstanceFilter(min_count=2))]
        [0.25, 0.21]
        >>> select_instances(rows, InstanceFilter(min_count=3))
        []
    """
    best: dict[str, float] = {}
    for row in rows:
        if (score := row.get("clip_score")) is not None:
            label = row.get("label") or ""
            best[label] = max(score, best.get(label, score))
    kept = []
    for row in rows:
        score, area = row.get("clip_score"), row.get("foreground_area")
        if score is not None and score < min(limits.min_score, best[row.get("label") or ""] - limits.tolerance):
            continue
        if area is not None and not limits.min_area <= area <= limits.max_area:
            continue
        kept.append(row)
    counts = Counter(row.get("label") or "" for row in kept)
    return [row for row in kept if counts[row.get("label") or ""] >= limits.min_count]
