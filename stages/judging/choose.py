"""Stage `choose`: keeps the rows that a list of decisions keeps. Nothing is measured or compared here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rasura.manifests.schemas import Kind, Schema
from rasura.networks.weights import Reference, resolve
from rasura.stages import stage
from rasura.stages.stage import Kept, Outcome, Record, Rejected, Stage


class ChooseParams(stage.Params):
    decisions: Reference = Field(
        description="JSON file: a row's id to {kept, reason, detail, verdict}; every row of the flow must be in it."
    )


class Choose(Stage):
    """Keeps the rows that a list of decisions keeps, and rejects the others with the list's reasons.

    Examples:
        - choose: {decisions: rounds/01/decisions.json}
    """

    name = "choose"
    gives: ClassVar[Schema] = {"verdict": Kind.STRING}
    pictures = False
    Params = ChooseParams

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.file = resolve(params.decisions)

    def list_open_kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        return frozenset()  # the candidates that it keeps are accepted

    def weights(self) -> Mapping[str, Path]:
        return {"decisions": self.file}

    def setup(self) -> None:
        self.decisions: Mapping[str, Mapping[str, Any]] = json.loads(self.file.read_text())

    def process_one(self, record: Record) -> Outcome:
        decision = self.decisions.get(record["id"])
        if decision is None:
            raise KeyError(f"'{self.file.name}' has no decision on {record['id']}")
        if decision["kept"]:
            return Kept([{**record, "verdict": decision.get("verdict")}])
        return Rejected(decision["reason"], decision.get("detail") or "")
