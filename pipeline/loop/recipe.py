"""The recipe of a loop: where its triplets come from, what is trained, which rounds follow each other."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from rasura.manifests.spelling import suggest
from rasura.pipeline.loop.measures import Measures
from rasura.pipeline.recipe import load as recipes
from rasura.pipeline.recipe.former_names import dump_former_names
from rasura.pipeline.recipe.overrides import Overrides
from rasura.pipeline.recipe.positions import KeyPath
from rasura.pipeline.recipe.schema import EngineSettings, RecipeModel, RootModel
from rasura.pipeline.training.settings import (
    DiscriminatorSettings,
    FinalSettings,
    FlowRows,
    RemoverSettings,
    find_discriminator_faults,
    find_final_faults,
    find_remover_faults,
)
from rasura.removers.registry import NETWORKS, REMOVERS, ModelParams, check_entries, check_removers


class RoundSettings(RecipeModel):
    """A round: people vote on its candidates, or the discriminator decides."""

    kind: Literal["human", "auto"]
    count: int = Field(ge=1, description="Scenes whose candidates are made.")
    spot_check: int | None = Field(
        None,
        ge=10,
        description="Of an automatic round: people's votes, at most, on a sample of what would be kept; they certify "
        "how many of the best candidates are. Null: the calibrated threshold decides.",
    )
    ask: Literal["all", "best_first"] = Field(
        "all",
        description="Of a human round: the candidates that people vote on. best_first: of each scene in the order of "
        "the discriminator's scores, until one is accepted.",
    )
    floor: float = Field(0.01, ge=0, lt=1, description="best_first: candidates with a lower score are not asked.")
    complete_scenes: float = Field(
        0.05, gt=0, le=1, description="best_first: share of scenes that are asked completely, for unbiased rates."
    )


class LoopRecipe(RootModel):
    """The recipe of a loop."""

    distinctive_key: ClassVar[str] = "rounds"
    command: ClassVar[str] = "rasura loop"
    former_names: ClassVar[Mapping[str, str]] = {"discriminator": "judge"}
    former_values: ClassVar[Mapping[str, Mapping[str, str]]] = {"keep": {"precision_target": "promise"}}

    initial: list[FlowRows] = Field(min_length=1, description="Triplets to start from.")
    pool: list[FlowRows] = Field(
        min_length=1, description="Photos with an object mask, or triplets, to draw scenes from."
    )
    test: list[FlowRows] = Field(min_length=1, description="Triplets with a true target that no round uses.")
    removers: list[str] = Field(
        default_factory=list,
        description="Removers beside the trained one, by name: telea, ns, of `models`, or module:Class.",
    )
    models: dict[str, ModelParams] = Field(
        default_factory=dict,
        description="Networks and servers among them: name to files and options, as {lama: {base: big-lama.pt}}.",
    )
    remover: RemoverSettings
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    rounds: list[RoundSettings] = Field(min_length=1)
    final: FinalSettings | None = Field(None, description="A last training after all rounds.")
    keep: Literal["precision_target", "everything", "humans", "nothing"] = Field(
        "precision_target",
        description="What joins the training set: what people accept, and what the discriminator accepts at the "
        "precision target; a candidate of every scene; what people accept; nothing. The last three are controls: "
        "their training steps are the same.",
    )
    reviewers: Literal["people", "oracle"] = "people"
    measures: Measures = Measures()
    votes: int = Field(1, ge=1, description="Votes that a candidate of a human round needs.")
    enough: float = Field(1.0, gt=0, le=1, description="Share of a human round's candidates that must have them.")
    cap: int = Field(500, ge=1, description="Scenes of one label in a round.")
    exclude: list[str] = Field(default_factory=list, description="Labels that are never drawn.")
    dilation: int = Field(8, ge=0, le=256, description="Px by which masks grow before they are filled.")
    context: float = Field(0.75, ge=0, le=10)
    shard_scenes: int = Field(16, ge=1, description="Scenes whose candidates are committed together.")
    engine: EngineSettings = EngineSettings()

    def find_faults(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the faults that concern more than one value, each with its place."""
        for index, name in enumerate(self.removers):
            if fault := self._find_remover_fault(name):
                yield ("removers", index), fault
            if name in self.removers[:index]:
                yield ("removers", index), f"'{name}' is there twice: its candidates would be the same"
        if self.remover.preset == "catdiffusion":
            yield ("remover", "preset"), "catdiffusion inserts, and a loop trains what removes: `rasura remover train`"
        yield from self._find_backend_faults()
        if (self.discriminator.backend, self.discriminator.preset) == (
            "network",
            "sdxl",
        ) and not self.discriminator.base:
            yield ("discriminator",), "the preset sdxl builds on SDXL-inpainting: name its folder under `base`"
        automatic = self.rounds[0].kind == "auto" and self.keep == "precision_target"
        if automatic and not self.discriminator.pretrain_scenes:
            message = "the first round is automatic, and nobody has voted yet: begin with a human round"
            yield ("rounds", 0, "kind"), message
        for index, entry in enumerate(self.rounds):
            if entry.spot_check and entry.kind == "human":
                yield ("rounds", index, "spot_check"), "people vote on all of a human round: leave it out"
            if entry.ask == "best_first" and (fault := self._find_order_fault(index)):
                yield ("rounds", index, "ask"), fault
        shares = self.discriminator.shares
        if set(shares) != {"calibrate", "learn"}:
            yield ("discriminator", "shares"), f"the shares are calibrate and learn, not {', '.join(shares) or 'none'}"
        elif min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
            message = f"both shares must be above 0 and sum to 1, they are {shares['calibrate']:g} and"
            yield ("discriminator", "shares"), f"{message} {shares['learn']:g}"
        final = find_final_faults(self.remover, self.final, self.seed) if self.final else ()
        for part, faults in (
            ("remover", find_remover_faults(self.remover, self.seed)),
            ("discriminator", find_discriminator_faults(self.discriminator, self.seed)),
            ("final", final),
        ):
            for path, message in faults:
                yield (part, *path), message

    def _find_remover_fault(self, name: str) -> str | None:
        """Return why a remover cannot be named so; None where it can."""
        names = [*REMOVERS, *self.models]
        if ":" not in name and name not in (*names, *NETWORKS):
            return f"no remover called '{name}'; {suggest(name, names)} (or module:Class)"
        try:
            check_removers([name], {key: model for key, model in self.models.items() if key == name})
        except ValueError as error:
            return str(error)
        return None

    @field_validator("removers", mode="before")
    @classmethod
    def _check_entries(cls, value: Any) -> Any:
        return check_entries(value)

    def _find_order_fault(self, index: int) -> str | None:
        """Return why a round cannot ask best first; None where it can."""
        if self.rounds[index].kind == "auto":
            return "nobody is asked in an automatic round but by its `spot_check`: leave it out"
        config = self.discriminator
        if config.start or config.pretrain_scenes or any(entry.kind == "human" for entry in self.rounds[:index]):
            return None
        remedy = "ask for all in the first human round, or name a discriminator under `discriminator.start`"
        return f"no discriminator is there yet that gives an order: {remedy}"

    @property
    def learns_from_votes(self) -> bool:
        """Whether human rounds train the discriminator: to decide in automatic ones, or to give an order to others."""
        orders = self.keep == "humans" and any(entry.ask == "best_first" for entry in self.rounds)
        return self.keep == "precision_target" or orders

    def _find_backend_faults(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield the faults of a discriminator that is not trained."""
        config = self.discriminator
        required = {"vlm": ("url", "model"), "remove": ("weights",), "rc_s": ("weights",)}.get(config.backend, ())
        for name in required:
            if not getattr(config, name):
                yield ("discriminator", name), f"the backend {config.backend} needs a value here"
        if config.backend != "network" and config.pretrain_scenes:
            yield ("discriminator", "pretrain_scenes"), f"the backend {config.backend} is not trained: leave it out"

    def identify(self) -> dict[str, Any]:
        """Return what makes it this loop and no other: all but how the work is done."""
        return self.model_dump(mode="json", exclude={"remover": {"workers"}, "vars": True, "engine": True})

    @property
    def last(self) -> int:
        """Number of the last remover: of the last round, or one more where there is a last training."""
        return len(self.rounds) + (self.final is not None)

    def dump_former(self) -> dict[str, Any]:
        """Return the recipe with the names that its keys had first, for `loop.json` and for hashes."""
        return dump_former_names(self, exclude={"vars": True, "engine": True})


def load(file: str | Path, overrides: Overrides = ()) -> LoopRecipe:
    """Load a loop's recipe from a YAML file, without checking the files that it names.

    Raises:
        RecipeError: it is not there, or something in it is wrong.
    """
    return recipes.load(file, overrides, LoopRecipe)[0]
