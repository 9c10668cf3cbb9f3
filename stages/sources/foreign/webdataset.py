"""WebDataset tars: the members of one name before the first dot are a row (`12.source.png`, `12.mask.png`, `12.json`).

Nothing is unpacked. A tar is listed once, on workers where there are many, and its members are read as byte ranges.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import IO, Any

from pydantic import Field

from rasura.manifests.foreign.tars import DamagedTar, Member, iterate_members
from rasura.manifests.ids import compute_content_id, hash_json
from rasura.manifests.json_lines import parse_json
from rasura.manifests.remote_files import open_to_read
from rasura.stages.sources.files import ChangedInput, RunContext, remember
from rasura.stages.sources.foreign.columns import Choice, Columns, MappedParams, MappedSource, is_chosen
from rasura.stages.sources.foreign.rows import Fault, ForeignRow, find_split, locate, read_range, read_texts
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.sources.scenes import read_fingerprint
from rasura.stages.stage import Record

LARGEST_MEMBER = 256 * 2**20
LARGEST_JSON = 2**20
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


class Members(Columns):
    """Members of a row by their names from the first dot on, with or without the last suffix; texts in the JSON."""

    source: str = Field("source", min_length=1, description="picture with the object, or the photograph")
    target: str | None = Field("target", description="picture without the object; null: rows are photographs")
    mask: str | None = Field("mask", description="mask of the object")
    foreground_mask: str | None = Field("foreground_mask", description="mask of the object with its effects")
    label: str | None = Field("label", description="class of the object")
    licence: str | None = Field("licence", description="licence of the pictures")
    scene: str | None = Field("scene_id", description="name of the scene: rows of one scene stay in one split")
    split: str | None = Field("split", description="split")


class WebDatasetParams(MappedParams):
    path: str = Field(min_length=1, description="folder, glob, file or URI of .tar files")
    columns: Members = Field(
        default_factory=Members, description="{source: jpg, target: edited, mask: null, label: category}: what is what"
    )


class WebDataset(MappedSource):
    """Samples of WebDataset's tars.

    Examples:
        - webdataset: {path: shards, columns: {source: input.jpg, target: output.jpg}, kind: captured}
    """

    name = "webdataset"
    version = "1"
    input_noun = "tar"
    Params = WebDatasetParams
    params: WebDatasetParams

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the tars.

        Raises:
            MissingInput: there are none.
        """
        tars = [file for file in find_files(self.params.path) if file.path.lower().endswith(".tar")]
        if not tars:
            raise MissingInput(
                f"'{self.params.path}' has no .tar file; members of compressed tars cannot be read one by one: "
                "decompress those first (gunzip)"
            )
        return tars

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        tars, root = self.list_inputs(), expand_path(self.params.path)
        for file in find_files(self.params.path, passed_over=run.passed_over):
            name = file.path.lower()
            if not name.endswith(".tar"):
                run.passed_over["compressed tar" if name.endswith(COMPRESSED) else "no tar"] += 1
        choice = self.describe_choice()
        listings = remember(tars, run, partial(_list_tar, choice), (f".{hash_json(choice)[:8]}",))[0]
        for tar in tars:
            text = listings[tar.path]
            if text is None:
                yield ForeignRow(tar.path, {}, {}, fault=("tar cannot be read", "opening it failed"))
                continue
            listing = json.loads(text)
            run.passed_over.update(listing["passed_over"])
            for key, members, texts, fault, fingerprint in listing["rows"]:
                places = {part: place[:2] for part, place in members.items()}
                contents = {part: place[2] for part, place in members.items()}
                details: Record = {"split": find_split(tar.path, root), **texts, "tar": tar.path, "places": places}
                yield ForeignRow(locate(tar.path, key), {}, details, "", fault, contents, fingerprint)

    def read_part(self, item: Record, part: str) -> bytes | None:
        place = item["details"]["places"].get(part)
        if place is None:
            return None
        data = read_range(item["details"]["tar"], *place)
        if compute_content_id(data) != item["contents"][part]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        return data


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into the row's key and the rest from the first dot of its last part on, in lower case.

    Examples:
        >>> split_name("a.b/0012.source.PNG"), split_name("readme")
        (('a.b/0012', 'source.png'), ('readme', ''))
    """
    folder, mark, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return f"{folder}{mark}{key}", rest.lower()


def find_part(rest: str, parts: Mapping[str, str]) -> str | None:
    """Find the part that a member is, by the rest of its name, with or without its last suffix.

    Examples:
        >>> parts = {"source": "jpg", "target": "edited"}
        >>> find_part("jpg", parts), find_part("edited.png", parts), find_part("txt", parts)
        ('source', 'target', None)
    """
    names = (rest, rest.rpartition(".")[0])
    return next((part for part, name in parts.items() if name.lower() in names), None)


def _list_tar(choice: Choice, path: str) -> tuple[str]:
    """Return the rows of a tar and the counts of its other members, as JSON."""
    passed_over: Counter[str] = Counter()
    rows: list[Any] = []
    with open_to_read(path) as source:
        members = iterate_members(source)
        damage: list[str] = []
        for key, group in groupby(_until_damage(members, damage), key=lambda member: split_name(member.name)[0]):
            row = _list_row(source, key, list(group), choice, passed_over)
            if row is not None:
                rows.append(row)
    if damage:
        rows.append(["the rest", {}, {}, ("damaged tar", damage[0]), None])
    return (json.dumps({"rows": rows, "passed_over": +passed_over}),)


def _until_damage(members: Iterator[Member], damage: list[str]) -> Iterator[Member]:
    """Yield the members of a tar up to where it is damaged, and note why."""
    try:
        yield from members
    except DamagedTar as error:
        damage.append(str(error))


def _list_row(
    source: IO[bytes], key: str, members: Sequence[Member], choice: Choice, passed_over: Counter[str]
) -> list[Any] | None:
    """Return a row of a tar: its key, places and contents by part, texts, fault and fingerprint; None of no row."""
    places: dict[str, list[Any]] = {}
    values: Mapping[str, Any] = {}
    fault: Fault | None = None
    fingerprint, unused, seen = None, 0, set[str]()
    for member in members:
        rest = split_name(member.name)[1]
        part = "json" if rest == "json" else find_part(rest, choice.parts)
        if part is None:
            unused += 1
            continue
        fault = fault or _find_member_fault(member, part, part in seen)
        seen.add(part)
        if fault:
            continue
        source.seek(member.start)
        data = source.read(member.end - member.start)
        if part == "json":
            outcome = _parse_values(data)
            if isinstance(outcome, tuple):
                fault = outcome
            else:
                values = outcome
            continue
        places[part] = [member.start, member.end, compute_content_id(data)]
        fingerprint = read_fingerprint(data) if part == choice.clean else fingerprint
    if not places and fault is None:
        unused = len(members)
    passed_over["member that is no part of a row"] += unused
    if fault is None and (not places or not is_chosen(values, choice.only)):
        passed_over["not chosen by `only`"] += bool(places)
        return None
    texts = read_texts(values, choice.texts)
    if not isinstance(texts, dict):
        fault, texts = fault or texts, {}
    return [key, places, texts, fault, fingerprint]


def _find_member_fault(member: Member, part: str, is_second: bool) -> Fault | None:
    """Find why a member cannot be the part of its row."""
    size = member.end - member.start
    limit = LARGEST_JSON if part == "json" else LARGEST_MEMBER
    if member.fault:
        return "member cut off" if member.end > member.start else "no plain file", f"{part}: {member.fault}"
    if size > limit:
        return "member too large", f"{part} has {size} bytes, limit {limit}"
    return ("ambiguous members", f"two are {part}") if is_second else None


def _parse_values(data: bytes) -> Mapping[str, Any] | Fault:
    """Parse a row's JSON object."""
    try:
        values = parse_json(data)
    except ValueError as error:
        return "no JSON", str(error)
    return values if isinstance(values, dict) else ("no JSON", "it is no object")
