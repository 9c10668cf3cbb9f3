"""JSON objects that carry their own checksum, so that a flipped or cut byte never passes for another value."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rasura.manifests.json_lines import parse_json

SEAL = "checksum"


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its checksum.

    Examples:
        >>> seal({"rows": 48})
        {'rows': 48, 'checksum': '18abc7f196cceeb2'}
    """
    return {**value, SEAL: _compute_checksum(value)}


def parse_sealed(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object that may carry a checksum; those of earlier versions carry none.

    Returns:
        The object without its checksum.

    Raises:
        ValueError: the text is no JSON object, or is not what was written.

    Examples:
        >>> parse_sealed(json.dumps(seal({"rows": 48})))
        {'rows': 48}
        >>> parse_sealed(json.dumps(seal({"rows": 48})).replace("48", "49"))
        Traceback (most recent call last):
        ValueError: its checksum is not that of its contents
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    checksum = value.pop(SEAL, None)
    if checksum is not None and checksum != _compute_checksum(value):
        raise ValueError("its checksum is not that of its contents")
    return value


def _compute_checksum(value: Mapping[str, Any]) -> str:
    # ASCII: names of files may have bytes that are no UTF-8
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
