"""The photographs of a run on which a floor can be drawn: pictures with a measured ground that are no triplets."""

from dataclasses import dataclass

from rasura.manifests.run_layout import read_plan
from rasura.manifests.schemas import PICTURES
from rasura.manifests.storage import Store
from rasura.manifests.tables import Tables


@dataclass(frozen=True)
class Photo:
    """A photograph: id and place of its row, and where it came from."""

    id: str
    place: tuple[str, str, int]
    origin: str


def list_photos(run: Store) -> list[Photo]:
    """List the rows that have a picture and a ground and are no triplets; of each photograph the first.

    Raises:
        NoRun: it is no run.
    """
    tables, photos = Tables(run), dict[str, Photo]()
    plan = read_plan(run)
    for name in (name for name in tables.names() if name in plan.main_flows):
        table = tables.table(name)
        is_photo = table.schema.get("source") in PICTURES and "ground_mask" in table.schema
        if not is_photo or "target" in table.schema:
            continue
        for row in table.read_names().select(["id", "origin", "shard", "row"]).to_pylist():
            if row["origin"]:
                photos.setdefault(row["origin"], Photo(row["id"], (name, row["shard"], row["row"]), row["origin"]))
    return sorted(photos.values(), key=lambda photo: photo.origin)
