"""The inputs of a flow, cut into shards: units of work whose ids say what is in them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

from rasura.manifests.compacted.listing import Listing
from rasura.manifests.ids import compute_shard_id
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.specs import FlowPlan, Shard
from rasura.stages.sources.files import RunContext
from rasura.stages.sources.scenes import describe_divided_scenes, join_scenes, read_scenes, write_scenes
from rasura.stages.stage import Record, Source

log = logging.getLogger(__name__)


def _sort_key(item: Record) -> tuple[str, int, str, str]:
    in_file = "path" in item and "row" in item
    return item["path"] if in_file else "", item["row"] if in_file else 0, item["id"], item["origin"]


class ListedShards(NamedTuple):
    """The shards of a flow, and what is to be warned of; "" where there is nothing."""

    shards: list[Shard]
    warning: str


def list_shards(flow: FlowPlan, source: Source, run: Store) -> list[Shard]:
    """List a flow's source and cut its items, sorted by id, into shards.

    Items of equal content get ids of their own here (`<id>~1`), and are rejected as duplicates where they are loaded.

    Raises:
        MissingInput: the source's files are not there, or are not what they should be.
    """
    shards, warning = cut_into_shards(flow, source, RunContext(run, flow.name, source.seed))
    if warning:
        log.warning("%s", warning)
    return shards


def cut_into_shards(flow: FlowPlan, source: Source, context: RunContext) -> ListedShards:
    """List a flow's source as `list_shards` does.

    Args:
        context: of the run, which notes what the source passed over, and the scenes of its clean pictures.
    """
    items = source.items(context)
    context.write_passed_over()
    scenes = join_scenes(items, read_scenes(context.run, context.earlier), context.map_jobs)
    if not flow.upstream:
        write_scenes(context.run, flow.name, scenes)
    warning = describe_divided_scenes(items, str(getattr(source.params, "path", flow.name)))
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
    shards = [Shard(compute_shard_id(flow.part, map(_describe_item, part)), part) for part in parts]
    return ListedShards(shards, warning)


def _describe_item(item: Record) -> str:
    """Return what a shard's id says of an item: another text makes it again.

    The origin is in it, since a renamed file is a changed input; so is that a cap now leaves the item out, and the
    scene of nearly equal pictures that it has joined.
    """
    scene = f" scene {item['scene_id']}" if "joined" in item else ""
    return f"{item['id']} {item['origin']}{' over' if 'over' in item else ''}{scene}"


class StoredItems(Sequence[Record]):
    """The items of a shard of a listing on disk, read when they are asked for. Sent elsewhere, they are a list.

    Args:
        listing: that has them.
        shard: its place there.
    """

    __slots__ = ("_listing", "_shard")

    def __init__(self, listing: Listing, shard: int) -> None:
        self._listing, self._shard = listing, shard

    def __len__(self) -> int:
        return self._listing.counts[self._shard]

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._listing.read_items(self._shard)[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._listing.read_items(self._shard))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._listing.read_items(self._shard),)


class StoredShards(Sequence[Shard]):
    """Shards of a listing on disk, whose items are read when they are asked for.

    Args:
        listing: that has them.
        places: which of its shards; all where None.
    """

    def __init__(self, listing: Listing, places: Sequence[int] | None = None) -> None:
        self._listing = listing
        self._places: Sequence[int] = range(len(listing.ids)) if places is None else places

    @property
    def ids(self) -> list[str]:
        """Ids of the shards."""
        return [self._listing.ids[place] for place in self._places]

    @property
    def inputs(self) -> int:
        """The number of their items."""
        return sum(self._listing.counts[place] for place in self._places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredShards": ...
    def __getitem__(self, index: int | slice) -> "Shard | StoredShards":
        if isinstance(index, slice):
            return StoredShards(self._listing, self._places[index])
        place = self._places[index]
        return Shard(self._listing.ids[place], StoredItems(self._listing, place))

    def draw_sample(self, inputs: int) -> "StoredShards":
        """Return shards that together have about so many inputs, evenly spaced; all where there are no more."""
        if self.inputs <= inputs:
            return self
        count = max(1, min(len(self._places), -(-inputs * len(self._places) // self.inputs)))
        chosen = [(2 * index + 1) * len(self._places) // (2 * count) for index in range(count)]
        return StoredShards(self._listing, [self._places[place] for place in chosen])

    def leave_out(self, done: Any) -> "StoredShards":
        """Return the shards whose ids are not in a collection."""
        return StoredShards(self._listing, [place for place in self._places if self._listing.ids[place] not in done])
