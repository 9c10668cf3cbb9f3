"""Datasets whose parts are folders with files of equal names, such as SmartEraser's."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from rasura.manifests.formats.rorem import ABOUT
from rasura.manifests.formats.smarteraser import FOLDERS, RESULT
from rasura.manifests.json_lines import parse_json
from rasura.manifests.schemas import CANDIDATE_KINDS, PROVENANCE, Kind, Schema
from rasura.stages.sources.files import RunContext, format_origin, read_file
from rasura.stages.sources.foreign.pictures import GIVE_PAIR, list_columns
from rasura.stages.sources.foreign.rows import (
    ClassParams,
    ForeignPairParams,
    ForeignRow,
    ForeignSource,
    find_split,
    read_texts,
)
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files, normalize_name
from rasura.stages.sources.rorem import read_row_details
from rasura.stages.stage import Params, Record

EXPORTED = {"label": "label", "licence": "licence", "scene": "scene_id", "split": "split", "kind": "kind"}
"""Texts of a row -> what they are in `rows.jsonl`, which Rasura's exports have."""
Group = dict[str, list[SourceFile]]
"""The files of a row, by part."""
Groups = dict[tuple[str, str], Group]
"""By the folder that has the parts' folders, and the files' normalized name there without suffix."""


class FolderRows(ForeignSource):
    """Rows whose parts are in folders of their own, below any others, with equal names."""

    gives: ClassVar[Schema] = {**PROVENANCE, **list_columns("pairs"), "verdict": Kind.STRING}
    Params: ClassVar[type[Params]] = ForeignPairParams
    params: ForeignPairParams
    folders: ClassVar[Mapping[str, str]] = {}
    """Names of folders -> parts."""
    needed: ClassVar[tuple[str, str]] = ("source", "target")
    or_else: ClassVar[str] = ""
    """What else a row without a partner could have, for its message."""
    list_file: ClassVar[str | None] = None
    """Name of a JSON file beside the folders with the rows' details."""
    list_form: ClassVar[str] = ""
    """Form of its entries, for messages."""

    def list_inputs(self) -> list[Group]:
        """List the rows.

        Raises:
            MissingInput: there are no such folders.
        """
        self.input_noun = "row"
        return list(self._group_files(Counter()).values())

    def match_parts(self, groups: Groups, passed_over: Counter[str]) -> Groups:
        """Match files of other names, where a layout has such; what is left over is added to `passed_over`."""
        return groups

    def _group_files(self, passed_over: Counter[str]) -> Groups:
        """Group the files by the folder that holds the parts' folders, and their name there without suffix."""
        root = expand_path(self.params.path).rstrip("/")
        groups: Groups = {}
        above = len(root.split("/"))
        for file in find_files(root, passed_over=passed_over):
            parts = file.path.split("/")
            places = range(len(parts) - 2, above - 1, -1)  # the innermost folder first, none above the path
            place = next((k for k in places if normalize_name(parts[k]) in self.folders), None)
            if place is None:
                if parts[-1] not in (self.list_file, ABOUT):
                    passed_over[f"outside {'/, '.join(self.folders)}/"] += 1
                continue
            name = "/".join(parts[place + 1 :])
            key = "/".join(parts[:place]), normalize_name(name.rpartition(".")[0] or name)
            groups.setdefault(key, {}).setdefault(self.folders[normalize_name(parts[place])], []).append(file)
        groups = self.match_parts(groups, passed_over)
        lacking = [part for part in self.needed if not any(part in group for group in groups.values())]
        if lacking:
            folder = next(name for name, part in self.folders.items() if part == lacking[0])
            raise MissingInput(f"'{root}' has no folder '{folder}' with files, as {self.name}'s has")
        return groups

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        groups = self._group_files(run.passed_over)
        root = expand_path(self.params.path).rstrip("/")
        details = {above: self._read_list(above, run.passed_over) for above in {above for above, _ in groups}}
        for (above, name), group in sorted(groups.items()):
            first = (group.get("source") or next(iter(group.values())))[0]
            origin, fault = format_origin(first.path), None
            if twice := [files for files in group.values() if len(files) > 1]:
                names = " and ".join(format_origin(file.path) for file in twice[0])
                fault = ("ambiguous partners", f"{names} have one name; remove or rename one of them")
            elif missing := [part for part in self.needed if part not in group]:
                folder = next(folder for folder, part in self.folders.items() if part == missing[0])
                fault = ("no partner", f"there is no file of this name in {folder}/{self.or_else}")
            row: Record = {"split": find_split(first.path, root), **details[above].get(name, {})}
            yield ForeignRow(origin, {part: files[0] for part, files in group.items()}, row, fault=fault)

    def _read_list(self, above: str, passed_over: Counter[str]) -> Mapping[str, Record]:
        """Read the details of rows from the list beside their folders, and from `rows.jsonl` of an export."""
        details = self._read_own_list(above, passed_over)
        for name, values in read_row_details(f"{above}/{ABOUT}").items():
            texts = read_texts(values, EXPORTED)
            if isinstance(texts, dict):
                if texts.get("kind") in CANDIDATE_KINDS:  # an export has none that nobody has accepted
                    texts["verdict"] = "yes"
                key = normalize_name(name)
                details[key] = details.get(key, {}) | texts
        return details

    def _read_own_list(self, above: str, passed_over: Counter[str]) -> dict[str, Record]:
        """Read the details of rows from the layout's own list, by name without suffix; count entries of other forms."""
        if self.list_file is None:
            return {}
        place = f"{above}/{self.list_file}"
        try:
            values = parse_json(read_file(place), place)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise MissingInput(f"'{place}' is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise MissingInput(f"'{place}' is no JSON object of names")
        details = {normalize_name(name.rpartition(".")[0]): self.read_details(value) for name, value in values.items()}
        if wrong := [name for name, entry in details.items() if entry is None]:
            passed_over[f"entry of {self.list_file} in another form than {self.list_form}, so no label"] += len(wrong)
        return {name: entry or {} for name, entry in details.items()}

    def read_details(self, value: Any) -> Record | None:
        """Read a row's details from an entry of the list; None where it has not the layout's form."""
        return {}


class SmartEraserParams(ForeignPairParams, ClassParams):
    give: Literal["pairs", "triplets"] = Field("triplets", description=GIVE_PAIR.description)


class SmartEraser(FolderRows):
    """SmartEraser's triplets (Syn4Removal): `paste/`, `mask/`, `gt/` and `result.json` with classes.

    Examples:
        - smarteraser: {path: Syn4Removal, max_per_class: 500}
    """

    name = "smarteraser"
    version = "1"
    folders: ClassVar[Mapping[str, str]] = {folder: FOLDERS[folder] for folder in ("paste", "gt", "mask")}
    list_file = RESULT
    list_form = "[class, box, size]"
    default_kind = "simulated"
    Params = SmartEraserParams
    params: SmartEraserParams

    def read_details(self, value: Any) -> Record | None:
        """Read the class of an entry [class, box, size]; None where it is no such list."""
        if not isinstance(value, list) or not value or not isinstance(value[0], str | None):
            return None
        return {"label": value[0]} if value[0] else {}
