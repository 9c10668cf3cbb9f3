"""The results of a loop's steps, as they are kept in `steps/<round>-<step>.json`.

A file's keys are fixed, in this order; a field's name may be plainer than its key. A key that an older version did not
write yet has the field's default; a key that is unknown here is ignored.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self


def json_field(key: str = "", *, optional: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """Declare a dataclass field that is kept as JSON.

    Args:
        key: in the file; the field's name where empty.
        optional: the key is left out where the value is None.
        default: for files that lack the key.
    """
    return field(default=None if optional else default, metadata={"key": key, "optional": optional})


class JsonRecord:
    """A dataclass that is kept as a JSON object, one key a field.

    Examples:
        >>> result = DrawResult(scenes=3, requested=5)
        >>> result.to_json()
        {'scenes': 3, 'wanted': 5}
        >>> DrawResult.from_json({'scenes': 3, 'wanted': 5}) == result
        True
    """

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        document = {}
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if value is not None or not entry.metadata.get("optional"):
                document[entry.metadata.get("key") or entry.name] = _encode(value)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the record of a JSON object.

        Raises:
            TypeError: a key without a default is missing.
        """
        keys = {entry.metadata.get("key") or entry.name: entry.name for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{keys[key]: value for key, value in document.items() if key in keys})


def _encode(value: Any) -> Any:
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return value


class StepResult(JsonRecord):
    """The result of one step."""

    step: ClassVar[str]
    """Name of the step."""
    first_step: ClassVar[str] = ""
    """Name of the step with this result before the first round, where it has another name."""

    @classmethod
    def step_name(cls, number: int) -> str:
        """Return the name of the step that has this result in a round; round 0 is before the first.

        Examples:
            >>> TrainingResult.step_name(0), TrainingResult.step_name(2)
            ('train', 'tune')
        """
        return cls.first_step if cls.first_step and number == 0 else cls.step


@dataclass(frozen=True)
class InitialResult(StepResult):
    """Triplets to start from, scenes to draw from, and test triplets."""

    step: ClassVar[str] = "initial"

    initial: int
    pool: int
    test: int


@dataclass(frozen=True)
class TrainingResult(StepResult):
    """A training of the remover: triplets that it learned from, and its steps."""

    step: ClassVar[str] = "tune"
    first_step: ClassVar[str] = "train"

    triplets: int
    steps: int


@dataclass(frozen=True)
class FinalResult(StepResult):
    """The last training of the remover: triplets that it learned from, and its steps."""

    step: ClassVar[str] = "final"

    triplets: int
    steps: int


@dataclass(frozen=True)
class DistillationResult(StepResult):
    """The distillation of the last remover into a folder of the loop."""

    step: ClassVar[str] = "distill"

    triplets: int
    steps: int
    remover: str


@dataclass(frozen=True)
class DrawResult(StepResult):
    """Scenes that a round drew, and the number that the recipe asks for."""

    step: ClassVar[str] = "draw"

    scenes: int
    requested: int = json_field("wanted")


@dataclass(frozen=True)
class InpaintResult(StepResult):
    """Scenes of a round, candidates made of them, scenes whose mask cannot be filled, and those that failed.

    failed_candidates: how many candidates of the other scenes each remover failed to make, where it did.
    """

    step: ClassVar[str] = "inpaint"

    scenes: int = json_field("drawn")
    candidates: int = json_field()
    unfillable: int = json_field()
    failed: int | None = json_field(optional=True)
    failed_candidates: Mapping[str, int] | None = json_field(optional=True)


@dataclass(frozen=True)
class VotesResult(StepResult):
    """Candidates of a human round, how many have enough votes and how many a yes, and who voted.

    rate: estimated share of yes among all candidates, where not all were asked.
    unasked: candidates that were voted on though they were not to be: nothing is learned from their votes.
    """

    step: ClassVar[str] = "votes"

    candidates: int
    voted: int
    yes: int
    reviewers: str
    rate: float | None = json_field(optional=True)
    unasked: int | None = json_field(optional=True)


@dataclass(frozen=True)
class ThresholdResult(JsonRecord):
    """A threshold of a discriminator: votes above it, those of them that are yes, and the lower bound of their share.

    threshold: None where no threshold reaches the precision target, for the reason `why`.
    """

    threshold: float | None
    yes: int
    count: int
    low: float
    why: str


@dataclass(frozen=True)
class DiscriminatorResult(StepResult):
    """A training and calibration of the discriminator.

    folder: in the loop; None where the votes could train none, for the reason `why`.
    learned, calibrated: votes for either. thresholds: by remover, and `overall`. oracle_votes: before any vote.
    refusal: why it may not decide what is kept: it failed its battery.
    """

    step: ClassVar[str] = "judge"
    first_step: ClassVar[str] = "pretrain"

    folder: str | None = json_field("judge")
    why: str | None = json_field(optional=True)
    learned: int | None = json_field(optional=True)
    calibrated: int | None = json_field(optional=True)
    thresholds: Mapping[str, ThresholdResult] | None = json_field("keep", optional=True)
    oracle_votes: int | None = json_field(optional=True)
    refusal: str | None = json_field(optional=True)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the record of a JSON object."""
        result = super().from_json(document)
        if result.thresholds is None:
            return result
        thresholds: Mapping[str, Any] = result.thresholds
        parsed = {name: ThresholdResult.from_json(threshold) for name, threshold in thresholds.items()}
        return dataclasses.replace(result, thresholds=parsed)


@dataclass(frozen=True)
class ScoreResult(StepResult):
    """The discriminator that scored a round's candidates (None where there is none, for the reason `why`)."""

    step: ClassVar[str] = "score"

    discriminator: str | None = json_field("judge")
    why: str | None = json_field(optional=True)
    scored: int | None = json_field(optional=True)


@dataclass(frozen=True)
class AddResult(StepResult):
    """Candidates of a round, and those of them that joined the training set, one a scene.

    left_to_people: candidates that the discriminator did not decide on.
    true_yes, with_truth: of what joined, the candidates that the oracle accepts, and those that have a true target.
    all_true_yes, all_with_truth: the same of all candidates of the round.
    """

    step: ClassVar[str] = "add"

    kind: str
    candidates: int
    scenes: int
    kept: int
    left_to_people: int
    true_yes: int = json_field("truly_yes")
    with_truth: int = json_field("truth_known")
    all_true_yes: int = json_field("base_yes", default=0)
    all_with_truth: int = json_field("base_known", default=0)


@dataclass(frozen=True)
class TestResult(StepResult):
    """A remover on the test set, each measure with its standard error; None where it was not measured.

    count: rows of the test set.
    success: percent by the oracle, of rows with a true target. psnr, psnr_background: dB in the hole and around it.
    lpips: of the whole picture. remove_score: ReMOVE. rc_s: RC-S.
    discriminator: the newest one's name. mean_probability: percent by it. accepted: percent above its threshold.
    weights: sha256 of the files of the measures' networks. reasons: of measures that are None.
    yes: the oracle's verdict on each row; None without a true target.
    """

    step: ClassVar[str] = "test"
    __test__: ClassVar[bool] = False  # no test of pytest's

    count: int | None = None
    success: float | None = None
    success_error: float | None = None
    psnr: float | None = None
    psnr_error: float | None = None
    psnr_background: float | None = None
    psnr_background_error: float | None = None
    lpips: float | None = None
    lpips_error: float | None = None
    remove_score: float | None = json_field("remove", default=None)
    remove_score_error: float | None = json_field("remove_error", default=None)
    rc_s: float | None = None
    rc_s_error: float | None = None
    discriminator: str | None = json_field("judge", default=None)
    mean_probability: float | None = json_field("judged", default=None)
    mean_probability_error: float | None = json_field("judged_error", default=None)
    accepted: float | None = json_field("judged_kept", default=None)
    accepted_error: float | None = json_field("judged_kept_error", default=None)
    weights: Mapping[str, str] | None = None
    reasons: Mapping[str, str] | None = json_field("absent", default=None)
    yes: Sequence[bool | None] | None = None
