"""Thresholds on stored measurements. Nothing is measured here, so changing a threshold costs no network."""

from typing import Any

from pydantic import Field, model_validator

from rasura.manifests.schemas import Schema
from rasura.stages import stage
from rasura.stages.registry import nearest
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Rejected, Stage


class Rule(stage.Params):
    """What a column's value must satisfy."""

    min: float | None = Field(None, description="smallest value that is kept")
    max: float | None = Field(None, description="largest value that is kept")
    any_of: list[str] | None = Field(None, description="only these values are kept")
    none_of: list[str] | None = Field(None, description="these values are not kept")
    missing: bool = Field(False, description="keep rows where the column is null")

    @model_validator(mode="after")
    def _says_something(self) -> "Rule":
        if self.min is None and self.max is None and self.any_of is None and self.none_of is None:
            raise ValueError("a rule needs min, max, any_of or none_of")
        return self


def judge(column: str, value: Any, rule: Rule) -> Rejected | None:
    """None where the rule holds, else the rejection with the value."""
    if value is None:
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
    keep: dict[str, Rule] = Field(description="column name to the rule its value must satisfy")


class Select(Stage):
    """Keeps the rows whose measurements satisfy all rules; the first rule that does not hold is the reason."""

    name = "select"
    pictures = False
    Params = SelectParams
    params: SelectParams

    def schema(self, given: Schema) -> Schema:
        for column in self.params.keep:
            if column not in given:
                hint = nearest(column, list(given))
                raise MissingColumns(self.name, (f"'{column}' ({hint})",), tuple(given))
        return given

    def process_one(self, record: Record) -> Outcome:
        for column, rule in self.params.keep.items():
            if rejection := judge(column, record.get(column), rule):
                return rejection
        return Kept([record])
