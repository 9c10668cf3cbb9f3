"""The empty scene of a pair or a triplet as a photo of its own: a background that things can be pasted onto."""

from rasura.manifests.ids import child_id
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Stage

PAIR = frozenset({"input", "gt", "given_mask", "label"})
TRIPLET = frozenset(
    {"kind", "target", "mask", "foreground_mask", "foreground", "foreground_light", "foreground_object"}
)


class Background(Stage):
    """A pair's `gt`, or a triplet's `target`, becomes a photo's `source`. The scene stays the same, so its rows stay in
    one split. What `ground` measured stays true: the object that is gone told the floor it stood on."""

    name = "background"
    gives = {"source": Kind.RGB, "width": Kind.INT, "height": Kind.INT}
    # what a rendered scene knows of its floor stays: depth and floor are those of the empty picture
    drops = PAIR | TRIPLET | {"true_object_mask", "true_foreground_mask", "light_azimuth", "light_elevation"}

    def schema(self, given: Schema) -> Schema:
        if "gt" not in given and "target" not in given:
            raise MissingColumns(self.name, ("gt",), tuple(given))
        return super().schema(given)

    def process_one(self, record: Record) -> Outcome:
        empty = record["gt"] if "gt" in record else record["target"]
        height, width = empty.shape[:2]
        made = {"id": child_id(record["id"], "empty"), "source": empty, "width": width, "height": height}
        return Kept([made])
