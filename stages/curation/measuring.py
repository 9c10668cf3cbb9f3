"""Stages `quality`, `fingerprint` and `licence`: what is measured on each photograph, for `select` and `distinct`."""

from rasura.manifests.fingerprints import compute_fingerprint
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.curation.licences import parse_licence
from rasura.stages.curation.quality import measure_quality, score_quality
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Stage, get_picture_column


def check_picture_column(name: str, columns: Schema) -> None:
    """Check that a stage gets a picture: `source`, or a pair's `input`.

    Raises:
        MissingColumns: there is none.
    """
    if not {"input", "source"} & set(columns):
        raise MissingColumns(name, ("source",), tuple(columns))


class MeasureQuality(Stage):
    """Measure blur, exposure, noise, compression, information, colour, borders and text on a photograph.

    Examples:
        - quality
        - select: {keep: {quality_sharpness: {min: -1.4}, quality_side: {min: 480}}}
    """

    name = "quality"
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
        return super().schema(columns)

    def process_one(self, record: Record) -> Outcome:
        measured = measure_quality(record[get_picture_column(record)])
        columns = {f"quality_{name}": value for name, value in measured._asdict().items()}
        return Kept([record | columns | {"quality": score_quality(measured)}])


class Fingerprint(Stage):
    """Compute the perceptual hash by which `distinct` finds near-duplicates, mirrored ones among them.

    Examples:
        - fingerprint
    """

    name = "fingerprint"
    gives = {"fingerprint": Kind.STRING}

    def schema(self, columns: Schema) -> Schema:
        check_picture_column(self.name, columns)
        return super().schema(columns)

    def process_one(self, record: Record) -> Outcome:
        return Kept([record | {"fingerprint": compute_fingerprint(record[get_picture_column(record)]).hex()}])


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
