"""The inputs of a flow, cut into shards: units of work whose ids say what is in them."""

from rasura.manifests.ids import compute_shard_id
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.specs import FlowPlan, Shard
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.scenes import join_scenes, warn_of_divided_scenes
from rasura.stages.stage import Record, Source


def _sort_key(item: Record) -> tuple[str, int, str, str]:
    in_file = "path" in item and "row" in item
    return item["path"] if in_file else "", item["row"] if in_file else 0, item["id"], item["origin"]


def list_shards(flow: FlowPlan, source: Source, run: Store) -> list[Shard]:
    """List a flow's source and cut its items, sorted by id, into shards.

    Items of equal content get ids of their own here (`<id>~1`), and are rejected as duplicates where they are loaded.

    Raises:
        MissingInput: the source's files are not there, or are not what they should be.
    """
    context = RunContext(run, flow.name, source.seed)
    items = source.items(context)
    context.write_passed_over()
    join_scenes(items)
    warn_of_divided_scenes(items, str(getattr(source.params, "path", flow.name)))
    # by id; rows of a Parquet file in their order, so that a shard's rows are together there
    items.sort(key=_sort_key)
    repeats: dict[str, int] = {}
    first: dict[str, str] = {}
    for item in items:
        content = item["id"]
        item["content"] = content
        count = repeats[content] = repeats.get(content, -1) + 1
        if count:
            item["id"] = f"{content}~{count}"
            item["duplicate_of"] = first[content]
        else:
            first[content] = item["origin"]
    rows = flow.shard_rows
    parts = [items[start : start + rows] for start in range(0, len(items), rows)]
    marks = [[_describe_item(item) for item in part] for part in parts]
    return [Shard(compute_shard_id(flow.part, mark), part) for mark, part in zip(marks, parts, strict=True)]


def _describe_item(item: Record) -> str:
    """Return what a shard's id says of an item: another text makes it again.

    The origin is in it, since a renamed file is a changed input; so is that a cap now leaves the item out, and the
    scene of nearly equal pictures that it has joined.
    """
    scene = f" scene {item['scene_id']}" if "joined" in item else ""
    return f"{item['id']} {item['origin']}{' over' if 'over' in item else ''}{scene}"
