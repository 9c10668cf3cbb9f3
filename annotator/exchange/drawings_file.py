"""Drawings of the ground out of a review: one file a photograph, as stage `ground` reads them."""

import json
import re
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection

from rasura.annotator.store.team.drawings import read_drawings
from rasura.manifests.storage import Store

FOLDER = "ground"
SUFFIX = ".ground.json"
_NAME = re.compile(r"^(?!\.)[\w .()+,=@~-]{1,120}$")


def name_drawings(origins: Iterable[str]) -> dict[str, str | None]:
    """Choose a file for the drawing of each photograph: its name, and its folder's where two have the same name.

    Returns:
        Origin -> path below the folder of drawings; None where the name is none that a file could have here, or where
        two photographs have the same names of file and folder.

    Examples:
        >>> name_drawings(["/p/a/room.jpg", "/p/b/room.jpg", "s3://x/hall.png", "/p/..;.jpg"])
        {'/p/a/room.jpg': 'a/room.ground.json', '/p/b/room.jpg': 'b/room.ground.json', 's3://x/hall.png': 'hall.ground.json', '/p/..;.jpg': None}
    """  # noqa: E501
    origins = list(origins)
    parts = {origin: origin.split("/") for origin in origins}
    stems = {origin: part[-1].rpartition(".")[0] or part[-1] for origin, part in parts.items()}
    count = Counter(stems.values())
    paths: dict[str, str | None] = {}
    for origin in origins:
        names = [stems[origin]]
        if count[stems[origin]] > 1 and len(parts[origin]) > 1:
            names.insert(0, parts[origin][-2])
        paths[origin] = "/".join(names) + SUFFIX if all(_NAME.match(name) for name in names) else None
    twice = Counter(path for path in paths.values() if path)
    return {origin: path if path and twice[path] == 1 else None for origin, path in paths.items()}


def export_drawings(connection: Connection, out: Store) -> tuple[int, list[str]]:
    """Write the newest drawings into `ground/`, and delete those that were withdrawn.

    Returns:
        The number of drawings, and the photographs whose names no file can have.
    """
    drawn = read_drawings(connection)
    paths, count, unnamed = name_drawings(drawn), 0, []
    for origin, (_, value) in drawn.items():
        path = paths[origin]
        if path is None:
            if value is not None:
                unnamed.append(origin)
        elif value is not None:
            out.write(f"{FOLDER}/{path}", (json.dumps(value, indent=1) + "\n").encode())
            count += 1
        elif out.exists(f"{FOLDER}/{path}"):
            out.delete(f"{FOLDER}/{path}")
    return count, unnamed
