"""The empty scene of a pair as a photo of its own: a background that things can be pasted onto."""

from manifests.ids import child_id
from manifests.schemas import Kind
from stages.stage import Kept, Outcome, Record, Stage

PAIR = frozenset({"input", "gt", "given_mask", "label"})


class Background(Stage):
    """A pair's `gt` becomes a photo's `source`. The scene stays the same, so its rows stay in one split."""

    name = "background"
    needs = {"gt": Kind.RGB}
    gives = {"source": Kind.RGB, "width": Kind.INT, "height": Kind.INT}
    # what a rendered scene knows of its floor stays: depth and floor are those of the empty picture
    drops = PAIR | {"true_object_mask", "true_foreground_mask", "light_azimuth", "light_elevation"}

    def process_one(self, record: Record) -> Outcome:
        height, width = record["gt"].shape[:2]
        made = {"id": child_id(record["id"], "empty"), "source": record["gt"], "width": width, "height": height}
        return Kept([made])
