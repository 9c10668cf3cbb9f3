"""The inputs of a flow, listed once and kept on disk: in this process where they are few, on a worker where many."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Any

from rasura.manifests.compacted.listing import Listing, ListingIndex, open_listing, read_listing_index, write_listing
from rasura.manifests.errors import RunError
from rasura.manifests.ids import hash_json
from rasura.manifests.run_layout import scenes_path
from rasura.manifests.storage import Store
from rasura.pipeline.recipe.shards import StoredShards, cut_into_shards
from rasura.pipeline.recipe.specs import FlowPlan
from rasura.pipeline.run.workers import MANY_ITEMS, map_on_workers
from rasura.stages.sources.files import RunContext, map_in_threads
from rasura.stages.sources.listing import SourceFile
from rasura.stages.stage import Source

FORMAT = 1
"""Version of how items are listed and cut into shards: another one lists the inputs of a run anew."""
PART_BYTES = 256 * 2**20
PART_FILES = 1000

log = logging.getLogger(__name__)

RunTask = Callable[..., Any]
"""Calls a function with arguments on a worker, and returns what it returned or raises what it raised."""


def list_stored_shards(
    flow: FlowPlan, source: Source, run: Store, run_task: RunTask, earlier: Sequence[str] = ()
) -> StoredShards:
    """Return the shards of a flow: those of its last listing, unless what they were listed from has changed.

    Args:
        flow: that has them.
        source: of the flow.
        run: its run.
        run_task: has something done on a worker.
        earlier: flows that were listed before: pictures that are nearly equal to theirs belong to their scenes.

    Raises:
        MissingInput: the source's files are not there, or are not what they should be.
        StoreError: the run cannot be read or written.
    """
    identity, count = source.survey_inputs(RunContext(run, flow.name, source.seed))
    scenes = [identify_scenes(run, name) for name in earlier]
    key = hash_json([FORMAT, flow.part, flow.shard_rows, source.seed, identity, *scenes]) if identity else ""
    index = read_listing_index(run, flow.name)
    listing = open_listing(run, index) if index is not None and key and index.key == key else None
    if listing is None or not (flow.upstream or run.exists(scenes_path(flow.name))):
        if count > MANY_ITEMS:
            index = run_task(write_shards, flow, run, key, None, earlier)
        else:
            index = write_shards(flow, run, key, source, earlier)
        listing = Listing(run, index)
    if index is not None and index.warning:
        log.warning("%s", index.warning)
    return StoredShards(listing)


def identify_scenes(run: Store, flow: str) -> str:
    """Return the identity of the scenes of a flow's clean pictures: that of its listing, or of their file."""
    place = scenes_path(flow)
    if not run.exists(place):
        return ""
    index = read_listing_index(run, flow)
    return index.key if index is not None and index.key else hashlib.sha256(run.read(place)).hexdigest()


def map_files_on_workers(
    function: Callable[[str], tuple[str | None, ...]], files: Sequence[SourceFile]
) -> Iterator[tuple[str | None, ...]]:
    """Call a function with the path of each file, on workers, many files at a time.

    Raises:
        Exception: what the function raises.
    """
    jobs = ((function, [file.path for file in part]) for part in cut_by_size(files))
    for texts in map_on_workers(_map_paths, jobs):
        yield from texts


def _map_paths(function: Callable[[str], tuple[str | None, ...]], paths: Sequence[str]) -> list[tuple[str | None, ...]]:
    return [function(path) for path in paths]


def cut_by_size(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Cut files into parts of about `PART_BYTES`, and of `PART_FILES` at most.

    Examples:
        >>> files = [SourceFile(name, PART_BYTES // 2, "") for name in "abcde"]
        >>> ["".join(file.path for file in part) for part in cut_by_size(files)]
        ['ab', 'cd', 'e']
    """
    part: list[SourceFile] = []
    size = 0
    for file in files:
        if part and (size + file.size > PART_BYTES or len(part) == PART_FILES):
            yield part
            part, size = [], 0
        part.append(file)
        size += file.size
    if part:
        yield part


def write_shards(
    flow: FlowPlan, run: Store, key: str, source: Source | None = None, earlier: Sequence[str] = ()
) -> ListingIndex:
    """List a flow's inputs, and write them as shards.

    Args:
        flow: that has them.
        run: its run.
        key: identity of what they are listed from; "" where that is unknown.
        source: of the flow. None where this is called on a worker: it is made from the plan, and others read the files.
        earlier: as of `list_stored_shards`.

    Raises:
        MissingInput: the source's files are not there, or are not what they should be.
        StoreError: the run cannot be written.
        RunError: an item holds a value that JSON does not have.
    """
    is_driver = source is not None
    if source is None:
        made = flow.stages[0].make()
        assert isinstance(made, Source)
        source = made
    map_files, map_jobs = (map_in_threads, starmap) if is_driver else (map_files_on_workers, map_on_workers)
    context = RunContext(run, flow.name, source.seed, map_files=map_files, map_jobs=map_jobs, earlier=earlier)
    shards, warning = cut_into_shards(flow, source, context)
    pairs = ((shard.id, shard.items) for shard in shards)
    try:
        return write_listing(run, flow.name, pairs, "" if context.has_unreadable else key, warning)
    except TypeError as error:
        raise RunError(
            f"source '{source.name}': an item has a value that is not kept ({error}); give text, numbers, lists, dicts"
        ) from error
