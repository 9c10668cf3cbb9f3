"""Known-answer items and guidelines of a round of a loop, whose rows refer to another run: what is shown is theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from support.annotator.runs import CANDIDATES, CAPTURED, Run, row

from rasura.annotator.server.images import NoPicture, PictureReader
from rasura.annotator.server.variants import render_result
from rasura.annotator.store.database import Database, items
from rasura.annotator.store.enums import ItemKind, Variant
from rasura.annotator.store.items import load_queue
from rasura.annotator.store.policy import Policy
from rasura.manifests.compacted.manifest import read_manifest, write_manifest
from rasura.manifests.images import decode_image, decode_mask
from rasura.manifests.run_layout import table_path
from rasura.manifests.tables import Tables
from rasura.stages.sources.drawn import Drawn, DrawnParams
from rasura.stages.sources.files import RunContext


def make_round(folder: Path, count: int = 12) -> tuple[Run, dict[str, dict]]:
    """A round whose scenes are drawn from another run, and the rows of that by their ids."""
    origin, rows = Run(folder / "origin"), [row(300 + n, "captured") for n in range(count)]
    origin.flow("captured", rows, CAPTURED, shard_rows=5)
    run = Run(folder / "round")
    light = Tables(origin.store).table("captured").read_light(("id",)).to_pylist()
    place = {"run": str(folder / "origin"), "table": "captured"}
    run.store.write("scenes.json", json.dumps([entry | place for entry in light]).encode())
    source = Drawn(DrawnParams(round=1))
    columns = {"id": CAPTURED["id"], "scene_id": CAPTURED["scene_id"]} | source.schema({})
    source.tables, source.columns = Tables(run.store), tuple(columns)
    listed = source.items(RunContext(run.store, "drawn", 0, source.tables))
    records = [record for item in listed for record in source.process_one(item).records]
    run.flow("drawn", records, columns, shard_rows=4)
    table = run.store.sub(table_path("drawn"))
    write_manifest(table, read_manifest(table)[0], columns, columns | source.referenced_columns())
    run.flow("candidates", [row(n, "edited") for n in range(3)], CANDIDATES)
    return run, {record["id"]: record for record in rows}


def test_every_control_item_of_a_round_shows_its_row(tmp_path: Path) -> None:
    """All pictures of all known-answer items and examples are those of the rows that they refer to, or made of them."""
    run, rows = make_round(tmp_path)
    database = Database(str(tmp_path / "review.sqlite"))
    load_queue(run.store, database, Policy(honeypots=0.5))
    with database.read() as connection:
        controls = connection.execute(select(items).where(items.c.kind != ItemKind.CANDIDATE)).all()
    database.close()
    assert {item.kind for item in controls} == {ItemKind.HONEYPOT, ItemKind.EXAMPLE}
    assert len({item.row_id for item in controls}) == len(rows)
    reader = PictureReader(run.store)
    for item in controls:
        record = rows[item.row_id]
        source, target, mask = (record[name] for name in ("source", "target", "mask"))
        assert np.array_equal(decode_image(reader.get(item, "source")[0]), source)
        assert np.array_equal(decode_mask(reader.get(item, "mask")[0]), mask)
        result = source if item.variant == Variant.UNTOUCHED else render_result(item.variant, source, target, mask)
        shown = decode_image(reader.get(item, "result")[0]).astype(int)
        assert np.abs(shown - result).max() <= 1  # what was left untouched has noise of one level


def test_a_run_that_was_moved_is_named(tmp_path: Path) -> None:
    """A reference that leads nowhere is a picture that cannot be shown, with the place where it was looked for."""
    run, _ = make_round(tmp_path, 1)
    (item,) = Tables(run.store).table("drawn").read_light(("id",)).to_pylist()
    (tmp_path / "origin").rename(tmp_path / "elsewhere")
    place = {"place_table": "drawn", "place_shard": item["shard"], "place_row": item["row"]}
    shown = type("Item", (), {**place, "variant": Variant.TARGET, "row_id": item["id"]})
    with pytest.raises(NoPicture, match=f"the source of row {item['id']} cannot be read: .*origin"):
        PictureReader(run.store).get(shown, "source")
