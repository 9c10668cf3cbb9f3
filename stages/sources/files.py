"""Files of sources: listing, content ids that are computed once, reading with a check."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field

from rasura.manifests.checks.sealed_json import parse_sealed, seal
from rasura.manifests.errors import RunError
from rasura.manifests.ids import compute_content_id, compute_file_content_id, hash_json
from rasura.manifests.parallel.jobs import MapJobs
from rasura.manifests.remote_files import open_to_read
from rasura.manifests.run_layout import LISTINGS, passed_over_path
from rasura.manifests.storage import Store, is_remote
from rasura.manifests.tables import Tables
from rasura.stages.sources.listing import MissingInput, SourceFile, describe_counts, find_files


class ChangedInput(RunError):
    """A file is no longer what it was when the run listed it. The same command lists it anew."""


Texts = Callable[[str], tuple[str, ...]]
"""Computes some texts, such as a content id, of the file at a path."""
MapFiles = Callable[[Callable[[str], tuple[str | None, ...]], Sequence[SourceFile]], Iterable[tuple[str | None, ...]]]
"""Calls a function with the path of each file, many at once, and returns what it returned in their order."""


def map_in_threads(
    function: Callable[[str], tuple[str | None, ...]], files: Sequence[SourceFile]
) -> list[tuple[str | None, ...]]:
    """Call a function with the path of each file, some at once in threads of this process."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(function, [file.path for file in files]))


@dataclass
class RunContext:
    """The run and flow for which a source lists its items.

    Attributes:
        run: its folder or prefix.
        flow: name of the flow.
        seed: of the recipe.
        tables: of the run.
        passed_over: files that lie where the source looked and are no items, by the reason.
        has_unreadable: a file could not be read: it may be readable the next time.
        map_files: has files read and hashed.
        map_jobs: has other work done in parts.
        earlier: flows of the run that were listed before, whose scenes this flow's pictures may belong to.
    """

    run: Store
    flow: str
    seed: int = 0
    tables: Tables = field(init=False)
    passed_over: Counter[str] = field(default_factory=Counter)
    has_unreadable: bool = False
    map_files: MapFiles = map_in_threads
    map_jobs: MapJobs = starmap
    earlier: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.tables = Tables(self.run)

    def write_passed_over(self) -> None:
        """Write what was passed over, for `rasura status`, unless it is there."""
        place = passed_over_path(self.flow)
        if self.passed_over or self.run.exists(place):
            data = json.dumps(dict(sorted(self.passed_over.items())), ensure_ascii=True).encode()
            if not self.run.exists(place) or self.run.read(place) != data:
                self.run.write(place, data)


def survey_files(*paths: str) -> tuple[str, int]:
    """Survey what is listed from all files below some paths, by their names, sizes and stamps.

    Args:
        paths: folders, files or globs, local or URIs.

    Returns:
        As `Source.survey_inputs`; the identity is empty where files have no stamp, or a path has no files.
    """
    digest, count, is_known = hashlib.sha256(), 0, True
    passed_over = Counter[str]()
    for path in paths:
        try:
            files = find_files(path, passed_over=passed_over)
        except MissingInput:
            return "", count
        for file in files:
            digest.update(f"{file.path!r} {file.size} {file.stamp}\n".encode(errors="surrogateescape"))
            is_known = is_known and bool(file.stamp)
            count += max(_count_rows(file), file.size // ITEM_BYTES)
    digest.update(describe_counts(passed_over).encode())
    return digest.hexdigest() if is_known else "", count


def _count_rows(file: SourceFile) -> int:
    """Return how many items a file may give: the rows of Parquet; those of a remote one by its size, unread."""
    if not file.path.lower().endswith(".parquet"):
        return 1
    if is_remote(file.path):
        return 1 + file.size // ROW_BYTES
    try:
        return int(pq.read_metadata(file.path).num_rows)
    except (OSError, pa.ArrowException):
        return 1


ROW_BYTES = 10_000  # of a row with small pictures
ITEM_BYTES = 2**20  # so much to hash counts as an item


def survey_tables(run: RunContext, names: Sequence[str]) -> tuple[str, int]:
    """Survey what is listed from the rows of some tables of the run; returned as by `Source.survey_inputs`."""
    tables = [run.tables.table(name) for name in names]
    identity = hash_json([[table.name, table.identity] for table in tables])
    return identity, sum(table.rows for table in tables)


def read_file(path: str) -> bytes:
    """Return the bytes of a local or remote file."""
    if is_remote(path):
        with open_to_read(path) as source:
            return source.read()
    return Path(path).read_bytes()


def read_and_verify(path: str, expected: str) -> bytes:
    """Return the bytes of a file that was listed with the content id `expected`.

    Raises:
        ChangedInput: it has other bytes by now.
    """
    data = read_file(path)
    if (actual := compute_content_id(data)) != expected:
        raise ChangedInput(f"'{path}' was listed with content {expected[:12]} and now has {actual[:12]}; run again")
    return data


def compute_content_ids(
    files: Sequence[SourceFile], context: RunContext, compute_id: Callable[[str], str] | None = None
) -> dict[str, str]:
    """Return the content id of each file, by path. A file whose size and stamp the run has listed is not read again.

    Args:
        files: to list.
        context: the run, which remembers them.
        compute_id: of a path (a list of ids as JSON, for a file of many rows); by default, the id of its bytes. A file
            that cannot be read gets the id of its path: the fault will name its row when it is loaded.
    """
    compute = compute_id or _compute_file_id
    (ids,) = remember(files, context, lambda path: (compute(path),), ("",))
    return {path: id or make_unreadable_id(path) for path, id in ids.items()}


def _compute_file_id(path: str) -> str:
    return compute_content_id(read_file(path)) if is_remote(path) else compute_file_content_id(Path(path))


def remember(
    files: Sequence[SourceFile],
    context: RunContext,
    compute: Texts,
    listing_suffixes: Sequence[str],
) -> list[dict[str, str | None]]:
    """Return some texts for each file, by path. A file whose size and stamp the run has listed is not read again.

    Args:
        files: to list.
        context: the run, which remembers the texts.
        compute: the texts of a path, as many as there are listings: each file is read once.
        listing_suffixes: of the names of the listings.

    Returns:
        A mapping a listing. None for a file that cannot be read; that is not remembered, since it may be readable the
        next time.
    """
    places = [f"{LISTINGS}/{context.flow}{suffix}.json" for suffix in listing_suffixes]
    listings: list[Mapping[str, Sequence[str]]] = [
        _parse_listing(context.run.read(place)) if context.run.exists(place) else {} for place in places
    ]

    def look_up(file: SourceFile) -> tuple[str | None, ...] | None:
        entries = [listing.get(file.path) for listing in listings]
        stamps = {file.stamp, file.stamp.partition(" ")[0]}  # earlier versions remembered the mtime alone
        if file.stamp and all(entry and entry[0] == str(file.size) and entry[1] in stamps for entry in entries):
            return tuple(entry[2] for entry in entries if entry)
        return None

    remembered = [look_up(file) for file in files]
    new = [file for file, row in zip(files, remembered, strict=True) if row is None]
    computed = iter(context.map_files(partial(_compute_texts, compute, len(places)), new))
    texts = [next(computed) if row is None else row for row in remembered]
    context.has_unreadable |= any(None in row for row in texts)
    for place, listing, column in zip(places, listings, zip(*texts, strict=True), strict=False):
        entries = {
            file.path: [str(file.size), file.stamp, text] for file, text in zip(files, column, strict=True) if text
        }
        merged = {**listing, **entries}
        if merged != listing:
            context.run.write(place, json.dumps(seal(merged), ensure_ascii=True).encode())
    return [{file.path: row[k] for file, row in zip(files, texts, strict=True)} for k in range(len(places))]


def _compute_texts(compute: Texts, count: int, path: str) -> tuple[str | None, ...]:
    """Return the texts of a file; None for each where it cannot be read."""
    try:
        return compute(path)
    except (OSError, pa.ArrowException):
        return (None,) * count


def _parse_listing(data: bytes) -> dict[str, list[str]]:
    """Parse a listing; what is damaged in it counts as absent."""
    try:
        entries = parse_sealed(data)
    except ValueError:
        return {}
    return {
        path: entry
        for path, entry in entries.items()
        if isinstance(entry, list) and len(entry) == 3 and all(isinstance(text, str) for text in entry)
    }


def make_unreadable_id(path: str) -> str:
    """Return the id of a file that cannot be read: its row will fail with the reason where it is loaded."""
    return compute_content_id(b"unreadable", os.fsencode(path))


def format_origin(path: str) -> str:
    """Return a path as text that can be written anywhere: bytes that are no UTF-8 are spelt out.

    Examples:
        >>> format_origin("photos/caf\\udce9.jpg")
        'photos/caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_pattern(pattern: str | None) -> str | None:
    """Return a pattern if it is a regular expression that compiles; for parameters.

    Raises:
        ValueError: it does not.
    """
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(check_pattern)]
InputPath = Annotated[str, Field(min_length=1)]


def extract_scene_id(name: str, pattern: str | None, fallback: str) -> str:
    """Return the scene id: `pattern`'s first group (or complete match) in the file's name, else `fallback`.

    Examples:
        >>> extract_scene_id("in/kitchen_003.jpg", r"(.+)_\\d+", "fallback")
        'kitchen'
    """
    if pattern and (match := re.search(pattern, Path(name).name)):
        return match.group(1) if match.groups() else match.group(0)
    return fallback
