"""Stage `background`: the empty scene of a pair or a triplet as a photo, onto which objects can be composited."""

from rasura.manifests.ids import make_child_id
from rasura.manifests.schemas import Kind, Schema
from rasura.stages.stage import Kept, MissingColumns, Outcome, Record, Stage

PAIR = frozenset({"input", "gt", "given_mask", "label"})
TRIPLET = frozenset(
    {"kind", "target", "mask", "foreground_mask", "foreground_visible"}
    | {"foreground", "foreground_light", "foreground_object"}
)


class Background(Stage):
    """Turns a pair's `gt`, or a triplet's `target`, into a photo's `source`.

    The scene stays the same, so its rows stay in one split. The ground plane that was measured stays valid, also where
    it was estimated from the object that is no longer visible.
    """

    name = "background"
    gives = {"source": Kind.RGB, "width": Kind.INT, "height": Kind.INT}
    # the depth and ground plane of a rendered scene stay: they are those of the empty picture
    drops = PAIR | TRIPLET | {"true_object_mask", "true_foreground_mask", "light_azimuth", "light_elevation"}

    def schema(self, columns: Schema) -> Schema:
        if "gt" not in columns and "target" not in columns:
            raise MissingColumns(self.name, ("gt",), tuple(columns))
        return super().schema(columns)

    def process_one(self, record: Record) -> Outcome:
        empty = record["gt"] if "gt" in record else record["target"]
        height, width = empty.shape[:2]
        photo = {"id": make_child_id(record["id"], "empty"), "source": empty, "width": width, "height": height}
        return Kept([photo])
