"""Thresholds on stored measurements. Nothing is measured here, so changing a threshold costs no network."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from rasura.manifests.schemas import PICTURES, TRIPLET, Kind, Schema
from rasura.manifests.spelling import suggest
from rasura.stages import stage
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage, UnfitParameter

NUMBERS = (Kind.INT, Kind.FLOAT, Kind.BOOL)
COMPARABLE = {"min": NUMBERS, "max": NUMBERS, "any_of": (Kind.STRING,), "none_of": (Kind.STRING,)}
"""Kinds of columns that each condition can be applied to."""


PICTURE_COLUMNS = {"input", "gt", *(name for name, kind in TRIPLET.items() if kind in PICTURES)}
"""Columns that are pictures wherever they are; a flow that only selects does not read them."""


class Rule(stage.Params):
    """Condition on the value of one column; all keys that are set must hold."""

    min: float | None = Field(None, description="smallest value that is kept")
    max: float | None = Field(None, description="largest value that is kept")
    any_of: list[str] | None = Field(None, min_length=1, description="only these values are kept")
    none_of: list[str] | None = Field(None, min_length=1, description="these values are not kept")
    missing: bool = Field(False, description="keep rows where the column is null")

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, rule: Any) -> Any:
        if not isinstance(rule, Mapping | Rule):
            raise ValueError("a rule is a mapping such as {min: 0.5}, with min, max, any_of, none_of or missing")
        return rule

    @field_validator("min", "max", mode="before")
    @classmethod
    def _refuse_text(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().lstrip("+-")[:1].isdigit():
            raise ValueError("expected a number, without quotes")
        return value

    @model_validator(mode="after")
    def _check_condition(self) -> "Rule":
        if self.min is None and self.max is None and self.any_of is None and self.none_of is None:
            raise ValueError("a rule needs min, max, any_of or none_of")
        if both := set(self.any_of or ()) & set(self.none_of or ()):
            raise ValueError(f"'{min(both)}' is in any_of and in none_of: no row could be kept; take it out of one")
        return self


def describe_picture(column: str) -> str:
    """Describe why there is no rule on a column of pictures."""
    return f"'{column}' is a picture, which no rule can compare; select by what was measured on it"


def apply_rule(column: str, value: Any, rule: Rule) -> Rejected | None:
    """Return the rejection with the value where a rule does not hold, else None.

    Examples:
        >>> apply_rule("sharpness", 12.5, Rule(min=100))
        Rejected(reason='sharpness below 100', detail='12.5')
        >>> apply_rule("label", "cat", Rule(any_of=["cat", "dog"])) is None
        True
    """
    if value is None or value != value:  # NaN is no measurement either
        return None if rule.missing else Rejected(f"{column} is missing")
    if rule.min is not None and not value >= rule.min:
        return Rejected(f"{column} below {rule.min:g}", f"{value:.6g}")
    if rule.max is not None and not value <= rule.max:
        return Rejected(f"{column} above {rule.max:g}", f"{value:.6g}")
    if rule.any_of is not None and value not in rule.any_of:
        return Rejected(f"{column} not among those chosen", str(value))
    if rule.none_of is not None and value in rule.none_of:
        return Rejected(f"{column} among those left out", str(value))
    return None


class SelectParams(stage.Params):
    keep: dict[str, Rule] = Field(min_length=1, description="column name to the rule its value must satisfy")


class Select(Stage):
    """Keeps the rows whose measurements satisfy all rules; the first rule that does not hold is the reason.

    Examples:
        - select:
            keep:
              detect_score: {min: 0.5}
              label: {any_of: [car, truck]}
              box_cut: {max: 0.02, missing: true}
    """

    name = "select"
    pictures = False
    Params = SelectParams
    params: SelectParams

    def schema(self, columns: Schema) -> Schema:
        for column, rule in self.params.keep.items():
            if column not in columns and column in PICTURE_COLUMNS:
                raise UnfitParameter(("keep", column), describe_picture(column))
            if column not in columns:
                raise UnfitParameter(("keep", column), f"no column '{column}' ({suggest(column, columns)})")
            for key in rule.model_fields_set - {"missing"}:
                if getattr(rule, key) is not None and columns[column] not in COMPARABLE[key]:
                    if columns[column] in PICTURES:
                        raise UnfitParameter(("keep", column), describe_picture(column))
                    raise UnfitParameter(
                        ("keep", column, key),
                        f"'{column}' has the kind {columns[column]}, which `{key}` cannot compare: min and max are for "
                        "numbers, any_of and none_of for text",
                    )
        return columns

    def list_open_kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        score, verdict, kind = (self.params.keep.get(column) for column in ("score", "verdict", "kind"))
        by_score = score is not None and score.min is not None and not score.missing
        if by_score or (verdict is not None and verdict.any_of == ["yes"] and not verdict.missing):
            return frozenset()
        if kind is not None and kind.any_of is not None and not kind.missing:
            kinds &= frozenset(kind.any_of)
        return kinds - frozenset((kind.none_of if kind is not None else None) or ())

    def process_one(self, record: Record) -> Outcome:
        for column, rule in self.params.keep.items():
            if rejection := apply_rule(column, record.get(column), rule):
                return rejection
        return Kept([record])
