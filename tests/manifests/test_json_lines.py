"""JSON lines end with a line feed and with nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasura.manifests.json_lines import parse_json_lines

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(st.sampled_from("ab" + SEPARATORS), max_size=8))))
def test_any_text_survives(rows: list[dict[str, str]]) -> None:
    """Texts with what other readers take for the end of a line come back, as bytes and as text."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert list(parse_json_lines(text)) == rows
    assert list(parse_json_lines(text.encode())) == rows


def test_a_broken_line_is_named() -> None:
    """The error has the line's number, also where its bytes are no UTF-8."""
    for data in (b"{}\n\n{", b"{}\n\n\xff"):
        with pytest.raises(ValueError, match="line 3 is not JSON"):
            list(parse_json_lines(data))
