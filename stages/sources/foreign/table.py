"""Rows of any table with pictures, or with names of pictures: Parquet, a `datasets` folder, JSON lines, CSV.

A recipe says which column is what. Edit sets become pairs without a mask: what was edited is found from the difference.
"""

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import Field

from rasura.manifests.foreign.tables import TEXT, BadRow, NotATable, TableReader, is_table, iterate_table
from rasura.manifests.foreign.tables import list_columns as list_table_columns
from rasura.manifests.ids import compute_content_id, hash_json
from rasura.manifests.spelling import list_nearest
from rasura.manifests.storage import is_remote
from rasura.stages.sources.files import ChangedInput, RunContext, format_origin, remember, survey_files
from rasura.stages.sources.foreign.columns import Choice, Columns, MappedParams, MappedSource, is_chosen
from rasura.stages.sources.foreign.rows import ENTRY_BYTES, Fault, ForeignRow, find_split, locate, read_texts
from rasura.stages.sources.listing import MissingInput, SourceFile, expand_path, find_files
from rasura.stages.sources.parquet_rows import describe_cell, read_cell
from rasura.stages.sources.scenes import read_fingerprint
from rasura.stages.stage import Record

SHOWN = 60
UNREADABLE: Mapping[str, Any] = {"rows": [], "passed_over": {}, "damage": "it cannot be opened"}


class TableParams(MappedParams):
    path: str = Field(
        min_length=1, description="folder, glob, file or URI of .parquet, .arrow, .jsonl, .csv or .tsv files"
    )
    columns: Columns = Field(description="{source: original_image, target: edited_image, mask: …}: what is what")
    folder: str | None = Field(
        None, description="folder below which named pictures are; null: that of their table, or path"
    )


class TableRows(MappedSource):
    """Rows of tables with a column for each picture.

    Examples:
        - table:
            path: pico-banana
            columns: {source: local_input_image, target: output_image, label: edit_object}
            only: {edit_type: [Remove an existing object]}
    """

    name = "table"
    version = "1"
    input_noun = "table"
    Params = TableParams
    params: TableParams

    def list_inputs(self) -> Sequence[SourceFile]:
        """List the tables.

        Raises:
            MissingInput: there are none, or one lacks a column that the recipe names.
        """
        tables = [file for file in find_files(self.params.path) if is_table(file.path)]
        if not tables:
            raise MissingInput(f"'{self.params.path}' has no .parquet, .arrow, .jsonl, .csv or .tsv file")
        for file in tables:
            if not is_remote(file.path):
                self._check_columns(file.path)
        return tables

    def _check_columns(self, path: str) -> None:
        columns = self.params.columns
        needed = [columns.source, *filter(None, [columns.target])]
        if not path.lower().endswith((".jsonl", ".ndjson")):  # whose rows may leave out what they have not
            needed += [*columns.list_parts().values(), *columns.list_texts().values(), *self.params.only]
        try:
            present = list_table_columns(path)
        except (OSError, NotATable):
            return  # a row of its own will say so
        if missing := [name for name in needed if present and name not in present]:
            names = f"column{'s' if len(missing) > 1 else ''} {', '.join(dict.fromkeys(missing))}"
            raise MissingInput(f"'{path}' has no {names}; it has {list_nearest(missing[0], present)}")

    def survey_inputs(self, run: RunContext) -> tuple[str, int]:
        identity, count = super().survey_inputs(run)
        others, _ = survey_files(*self._list_folders())
        lists = sum(file.size for file in self.list_inputs() if file.path.lower().endswith(TEXT)) // ENTRY_BYTES
        return (f"{identity}{others}" if identity and others else "", max(count, lists))

    def _list_folders(self) -> list[str]:
        """List the folders in which named pictures may be: the given one, else the path, else those of the tables."""
        if self.params.folder:
            return [expand_path(self.params.folder).rstrip("/")]
        path = expand_path(self.params.path).rstrip("/")
        tables = [file.path for file in find_files(path) if is_table(file.path)]
        if all(table.startswith(f"{path}/") for table in tables):
            return [path]
        return sorted({posixpath.dirname(table) or "." for table in tables})

    def list_rows(self, run: RunContext) -> Iterable[ForeignRow]:
        tables = self.list_inputs()
        choice = self.describe_choice()
        listings = remember(tables, run, partial(_list_table, choice), (f".{hash_json(choice)[:8]}",))[0]
        self._folders = self._list_folders()
        pictures = self._find_pictures(run.passed_over)
        used: set[str] = set()
        for table in tables:
            text = listings[table.path]
            listing = UNREADABLE if text is None else json.loads(text)
            run.passed_over.update(listing["passed_over"])
            for row, parts, texts, fault, fingerprint in listing["rows"]:
                yield self._make_row(table.path, row, parts, texts, fault, fingerprint, pictures, used)
            if listing["damage"]:
                yield ForeignRow(locate(table.path, "the rest"), {}, {}, fault=("damaged table", listing["damage"]))
        if unused := len(self._own - used):
            run.passed_over["in no row of a table"] += unused

    def _find_pictures(self, passed_over: Counter[str]) -> Mapping[str, SourceFile]:
        """Find the files that rows may name, by their normalized paths."""
        files = find_files(self.params.path, passed_over=passed_over)
        self._own = {_normalize(file.path) for file in files if not is_table(file.path)}
        files = [file for folder in self._folders for file in find_files(folder)]
        return {_normalize(file.path): file for file in files if not is_table(file.path)}

    def _make_row(
        self,
        table: str,
        row: int,
        parts: Mapping[str, Sequence[str]],
        texts: Record,
        fault: Fault | None,
        fingerprint: str | None,
        pictures: Mapping[str, SourceFile],
        used: set[str],
    ) -> ForeignRow:
        files, cells = {}, {}
        for part, (kind, value) in parts.items():
            if kind == "cell":
                cells[part] = value
                continue
            file = self._locate_picture(value, table, pictures)
            if file is None:
                fault = fault or ("missing picture", f"there is no {part} '{format_origin(value)[:SHOWN]}'")
            else:
                files[part] = file
                used.add(_normalize(file.path))
        split = find_split(table, expand_path(self.params.path))
        details: Record = {"split": split, **texts, "table": table, "row": row, "cells": sorted(cells)}
        return ForeignRow(locate(table, str(row)), files, details, "", fault, cells, fingerprint)

    def _locate_picture(self, name: str, table: str, pictures: Mapping[str, SourceFile]) -> SourceFile | None:
        """Find the file that a row names, among those that were listed: no name leads out of their folders."""
        folders = [*self._folders, posixpath.dirname(table)]
        places = [posixpath.join(folder, name) for folder in folders]
        return next((pictures[place] for place in map(_normalize, places) if place in pictures), None)

    def setup(self) -> None:
        self.reader = TableReader(list(self.params.columns.list_parts().values()))

    def read_part(self, item: Record, part: str) -> bytes | None:
        details = item["details"]
        if part not in details["cells"]:
            return super().read_part(item, part)
        cells = self.reader.read_row(details["table"], details["row"])
        data = read_cell((cells or {}).get(self.params.columns.list_parts()[part]))
        if compute_content_id(data) != item["contents"][part]:
            raise ChangedInput(f"'{item['origin']}' is not what it was when it was listed; run again")
        return data


def _normalize(path: str) -> str:
    """Return a path without `./`, `..` and doubled slashes; a URI keeps its scheme."""
    scheme, mark, rest = path.rpartition("://")
    return f"{scheme}{mark}{posixpath.normpath(rest)}"


def _list_table(choice: Choice, path: str) -> tuple[str]:
    """Return the rows of a table and the counts of those that were not chosen, as JSON."""
    rows: list[Any] = []
    skipped, damage = 0, ""
    wanted = [*choice.parts.values(), *choice.texts.values(), *choice.only]
    try:
        for number, values in enumerate(iterate_table(path, list(dict.fromkeys(wanted)))):
            if isinstance(values, BadRow):
                rows.append([number, {}, {}, ("row cannot be read", values.reason), None])
            elif not is_chosen(values, choice.only):
                skipped += 1
            else:
                rows.append([number, *_list_row(values, choice)])
    except NotATable as error:
        damage = str(error)
    passed_over = {"not chosen by `only`": skipped} if skipped else {}
    return (json.dumps({"rows": rows, "passed_over": passed_over, "damage": damage}),)


def _list_row(values: Mapping[str, Any], choice: Choice) -> tuple[Record, Record, Fault | None, str | None]:
    """Return the parts of a row (a cell with its content, or a file with its name), texts, fault and fingerprint."""
    parts: Record = {}
    fault: Fault | None = None
    fingerprint = None
    for part, column in choice.parts.items():
        cell = values.get(column)
        data, name = read_cell(cell), _read_name(cell)
        if data:
            parts[part] = ("cell", compute_content_id(data))
            fingerprint = read_fingerprint(data) if part == choice.clean else fingerprint
        elif name and "://" in name:
            fault = fault or ("picture not here", f"{part} is an address, {name[:SHOWN]!r}; download it first")
        elif name and not name.startswith("data:") and len(name) < 1024 and "\0" not in name:
            parts[part] = ("file", name)
        elif cell not in (None, "", b""):
            fault = fault or ("no picture", f"{part} holds {describe_cell(cell) or type(cell).__name__}")
    texts = read_texts(values, choice.texts)
    if not isinstance(texts, dict):
        fault, texts = fault or texts, {}
    return parts, texts, fault, fingerprint


def _read_name(cell: Any) -> str:
    """Return the name of a file in a cell: text, or a struct of a path without bytes."""
    value = cell.get("path") if isinstance(cell, dict) else cell
    return value.strip() if isinstance(value, str) else ""
