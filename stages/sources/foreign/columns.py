"""Sources whose rows have names that a recipe explains: which column, or member, is what here."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, Kind, Schema
from rasura.stages import stage
from rasura.stages.sources.foreign.pictures import list_columns
from rasura.stages.sources.foreign.rows import ACCEPTED, TEXTS, ClassParams, ForeignPairParams, ForeignSource

PARTS = ("source", "target", "mask", "foreground_mask")


class Columns(stage.Params):
    """Names, by what they are here."""

    source: str = Field(min_length=1, description="picture with the object, or the photograph")
    target: str | None = Field(None, description="picture without the object; null: rows are photographs")
    mask: str | None = Field(None, description="mask of the object")
    foreground_mask: str | None = Field(None, description="mask of the object with its effects")
    label: str | None = Field(None, description="class of the object")
    licence: str | None = Field(None, description="licence of the pictures")
    scene: str | None = Field(None, description="name of the scene: rows of one scene stay in one split")
    split: str | None = Field(None, description="split")
    kind: str | None = Field(None, description="captured, simulated, inserted or edited")
    verdict: str | None = Field(None, description="what people said: yes, no or unsure")

    def list_parts(self) -> Mapping[str, str]:
        """List the pictures' names, by part."""
        return {part: name for part in PARTS if (name := getattr(self, part)) is not None}

    def list_texts(self) -> Mapping[str, str]:
        """List the texts' names, by text."""
        return {text: name for text in TEXTS if (name := getattr(self, text)) is not None}


class Choice(NamedTuple):
    """What a file is listed by: names of parts and texts, chosen values, and the part whose likeness counts."""

    parts: Mapping[str, str]
    texts: Mapping[str, str]
    only: Mapping[str, list[str]]
    clean: str


class MappedParams(ForeignPairParams, ClassParams):
    """Parameters of sources with a mapping of names."""

    accepted: bool = ACCEPTED
    kind: Literal["captured", "simulated", "edited"] = Field(
        "edited", description="of rows that do not say it: edited where a model made the target, else captured"
    )
    only: dict[str, list[str]] = Field(
        {}, description="only rows that have one of these values: {edit_type: [remove]}; others are counted"
    )

    @model_validator(mode="after")
    def _check_mask(self) -> "MappedParams":
        columns = getattr(self, "columns", None)
        if columns and self.give == "triplets" and columns.target and not columns.mask:
            raise ValueError("triplets need a mask: name it in `columns`, or `give: pairs`, which finds the object")
        return self


class MappedSource(ForeignSource):
    """A source with a mapping of names, in `params.columns`."""

    gives: ClassVar[Schema] = {**PROVENANCE, **list_columns("pairs"), "verdict": Kind.STRING}
    params: MappedParams

    @property
    def columns_here(self) -> Columns:
        """The mapping."""
        columns: Any = getattr(self.params, "columns", None)
        assert isinstance(columns, Columns)
        return columns

    @property
    def give(self) -> str:
        return "photos" if self.columns_here.target is None else self.params.give

    def list_candidate_kinds(self) -> frozenset[str]:
        """Return the kinds that a model made, where nobody has accepted them: all, where a row may say its own."""
        kinds = super().list_candidate_kinds()
        says_kind = self.columns_here.kind is not None and self.give != "photos"
        return CANDIDATE_KINDS if says_kind and not self.accepts else kinds

    def describe_choice(self) -> Choice:
        """Describe what its files are listed by."""
        columns = self.columns_here
        return Choice(columns.list_parts(), columns.list_texts(), self.params.only, self.clean_part)


def is_chosen(values: Mapping[str, Any], only: Mapping[str, list[str]]) -> bool:
    """Return whether a row has one of the chosen values in each of the named columns; case is ignored.

    Examples:
        >>> is_chosen({"edit_type": "Remove"}, {"edit_type": ["remove", "erase"]}), is_chosen({}, {"edit_type": ["x"]})
        (True, False)
    """
    return all(
        str(values.get(name, "")).strip().casefold() in {value.strip().casefold() for value in chosen}
        for name, chosen in only.items()
    )
