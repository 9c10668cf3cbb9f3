"""Stages `quality`, `fingerprint` and `licence`: what is measured on each photograph, for `select` and `distinct`."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.curation.brisque import Brisque, read_brisque, score_brisque
from rasura.stages.curation.crops import COUNT, compute_windows
from rasura.stages.curation.licences import parse_licence
from rasura.stages.curation.quality import measure_quality, score_quality
from rasura.stages.stage import Kept, MissingColumns, Outcome, Params, Record, Stage, get_picture_column


def check_picture_column(name: str, columns: Schema) -> None:
    """Check that a stage gets a picture: `source`, or a pair's `input`.

    Raises:
        MissingColumns: there is none.
    """
    if not {"input", "source"} & set(columns):
        raise MissingColumns(name, ("source",), tuple(columns))


class QualityParams(Params):
    brisque_model: str | None = Field(
        None,
        min_length=1,
        description="file of a BRISQUE model, of OpenCV (brisque_model_live.yml) or libsvm; adds "
        "the column quality_brisque, 0 (best) to 100",
    )
    brisque_range: str | None = Field(
        None, min_length=1, description="file of its features' ranges (brisque_range_live.yml, or of svm-scale)"
    )

    @model_validator(mode="after")
    def _check_both(self) -> "QualityParams":
        if (self.brisque_model is None) != (self.brisque_range is None):
            raise ValueError("brisque_model and brisque_range belong together: name both, or neither")
        return self


class MeasureQuality(Stage):
    """Measure blur, exposure, noise, compression, information, colour, borders and text on a photograph.

    Examples:
        - quality
        - select: {keep: {quality_sharpness: {min: -1.4}, quality_side: {min: 480}}}
    """

    name = "quality"
    Params = QualityParams
    params: QualityParams
    brisque: Brisque | None = None
    gives = dict.fromkeys(
        (
            *("quality_sharpness", "quality_brightness", "quality_clipped", "quality_contrast", "quality_noise"),
            *("quality_blocks", "quality_information", "quality_flat", "quality_colour", "quality_aspect"),
            *("quality_side", "quality_border", "quality_overlay", "quality"),
        ),
        Kind.FLOAT,
    )

    def schema(self, columns: Schema) -> Schema:
        check_picture_column(self.name, columns)
        added: Schema = {"quality_brisque": Kind.FLOAT} if self.params.brisque_model else {}
        return {**super().schema(columns), **added}

    def weights(self) -> Mapping[str, Path]:
        files = {"brisque_model": self.params.brisque_model, "brisque_range": self.params.brisque_range}
        return {name: Path(file).expanduser() for name, file in files.items() if file is not None}

    def setup(self) -> None:
        if files := self.weights():
            self.brisque = read_brisque(files["brisque_model"], files["brisque_range"])

    def process_one(self, record: Record) -> Outcome:
        picture = record[get_picture_column(record)]
        measured = measure_quality(picture)
        columns: Record = {f"quality_{name}": value for name, value in measured._asdict().items()}
        if self.brisque is not None:
            columns["quality_brisque"] = score_brisque(picture, self.brisque)
        return Kept([record | columns | {"quality": score_quality(measured)}])


class FingerprintParams(Params):
    crops: bool = Field(
        False,
        description=f"also the hashes of {COUNT} windows, 7 kB a row, by which `distinct` with crops: true finds "
        "crops of up to a fifth of both sides",
    )


class Fingerprint(Stage):
    """Compute the perceptual hash by which `distinct` finds near-duplicates, mirrored ones among them.

    Examples:
        - fingerprint: {crops: true}
    """

    name = "fingerprint"
    gives = {"fingerprint": Kind.STRING}
    Params = FingerprintParams
    params: FingerprintParams

    def schema(self, columns: Schema) -> Schema:
        check_picture_column(self.name, columns)
        added: Schema = {"fingerprint_windows": Kind.STRING} if self.params.crops else {}
        return {**super().schema(columns), **added}

    def process_one(self, record: Record) -> Outcome:
        picture = record[get_picture_column(record)]
        columns = {"fingerprint": compute_fingerprint(picture).hex()}
        if self.params.crops:
            columns["fingerprint_windows"] = compute_windows(picture).hex()
        return Kept([record | columns])


class ReadLicence(Stage):
    """Read the licence of each row as an SPDX identifier, and what it allows; null where it is not understood.

    Examples:
        - licence
        - select: {keep: {licence_id: {any_of: [CC0-1.0, CC-BY-2.0, CC-BY-4.0]}}}
    """

    name = "licence"
    pictures = False
    needs = {"licence": Kind.STRING}
    gives = {
        "licence_id": Kind.STRING,
        "licence_commercial": Kind.BOOL,
        "licence_changes": Kind.BOOL,
        "licence_share_alike": Kind.BOOL,
    }

    def process_one(self, record: Record) -> Outcome:
        licence = parse_licence(record.get("licence"))
        values = (licence.id, licence.commercial, licence.changes, licence.share_alike)
        return Kept([record | dict(zip(self.gives, values, strict=True))])
