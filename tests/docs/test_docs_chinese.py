"""README.zh-CN.md says what README says: what is run, shown and linked is the same, so that it is run once, there."""

import re

import pytest
from conftest import ROOT
from docs_blocks import Block, read_blocks, read_spans

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"


def read_prose(document: str) -> str:
    """Read a document without its fenced blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]+`", "", text)


def strip_comments(block: Block) -> tuple[str, str]:
    """Return language and code of a block: comments are in the language of the document."""
    text = re.sub(r"(?m)(?<=\S)[ \t]+# .*$", "", block.text)
    return block.language, re.sub(r"(?m)[ \t]+$", "", text)


def test_the_same_code() -> None:
    """All blocks have the same code, in order; commands and names within sentences are the same."""
    english, chinese = (read_blocks(document) for document in (ENGLISH, CHINESE))
    assert [strip_comments(block) for block in chinese] == [strip_comments(block) for block in english]
    spans = [{span for _, span in read_spans(document)} for document in (ENGLISH, CHINESE)]
    assert spans[0] == spans[1]


@pytest.mark.parametrize(
    "pattern",
    [
        r"!\[[^\]]+\]\(([^)]+)\)",  # pictures
        r"(?<!!)\[[^\]]+\]\((?!README)([^)]+)\)",  # links, but to each other
        r"^(#+) ",  # sections
        r"^(\|)",  # rows of tables
        r"\d[\d,.]*\d",  # figures
    ],
)
def test_the_same_pictures_links_sections_and_figures(pattern: str) -> None:
    """Nothing is missing in either, and figures are the same."""
    english, chinese = (
        sorted(re.findall(pattern, read_prose(document), re.MULTILINE)) for document in (ENGLISH, CHINESE)
    )
    assert chinese == english != []


def test_they_name_each_other() -> None:
    """Each is linked from the top of the other, and the Chinese one is in Chinese throughout."""
    for document, other in ((ENGLISH, CHINESE), (CHINESE, ENGLISH)):
        assert f"]({other})" in (ROOT / document).read_text(encoding="utf-8").splitlines()[0]
    paragraphs = [text for text in read_prose(CHINESE).split("\n\n") if re.search(r"[A-Za-z]{4}.* .*[A-Za-z]{4}", text)]
    assert not [text for text in paragraphs if not re.search(r"[\u4e00-\u9fff]", text)]
