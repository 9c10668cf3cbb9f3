"""Markdown of guidelines as a tree of a few elements, which the page builds from text alone: no HTML passes."""

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from rasura.annotator.store.team.settings import EXAMPLE

ELEMENTS = {
    "paragraph": "p",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "blockquote": "blockquote",
    "strong": "strong",
    "em": "em",
}
"""Kinds of tokens with a beginning and an end -> element. Everything else is dropped, with its text kept."""

Node = str | dict[str, Any]
"""Text, or an element: {"tag", "children"}, a link with "href", an example with "item" and "caption"."""

_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": 20})


def parse_markdown(text: str) -> list[Node]:
    """Parse Markdown into elements.

    Headings are h3 and h4, links lead to https addresses only, pictures are items of the review; HTML is text.

    Examples:
        >>> parse_markdown("**No** <b>html</b>")
        [{'tag': 'p', 'children': [{'tag': 'strong', 'children': ['No']}, ' <b>html</b>']}]
        >>> parse_markdown("[x](javascript:alert(1)) ![](https://tracker.example/a.png)")
        [{'tag': 'p', 'children': ['[x](javascript:alert(1)) ']}]
    """
    return _build(_PARSER.parse(text))


def _build(tokens: Sequence[Token]) -> list[Node]:
    root: dict[str, Any] = {"children": []}
    stack = [root]
    for token in tokens:
        children = stack[-1]["children"]
        if token.nesting == 1:
            node = _make_element(token)
            if "tag" in node:
                children.append(node)
            else:
                node["children"] = children  # dropped, its text kept
            stack.append(node)
        elif token.nesting == -1:
            stack.pop()
        else:
            _add_leaf(children, token)
    return list(root["children"])


def _make_element(token: Token) -> dict[str, Any]:
    kind = token.type.removesuffix("_open")
    if kind == "heading":
        return {"tag": "h3" if token.tag in ("h1", "h2", "h3") else "h4", "children": []}
    if kind == "link":
        href = str(token.attrGet("href") or "")
        return {"tag": "a", "href": href, "children": []} if href.startswith("https://") else {}
    return {"tag": ELEMENTS[kind], "children": []} if kind in ELEMENTS else {}


def _add_leaf(children: list[Node], token: Token) -> None:
    match token.type:
        case "inline":
            children += _build(token.children or [])
        case "softbreak":
            children.append(" ")
        case "hardbreak" | "hr":
            children.append({"tag": "br" if token.type == "hardbreak" else "hr", "children": []})
        case "code_inline" | "code_block" | "fence":
            children.append({"tag": "code" if token.type == "code_inline" else "pre", "children": [token.content]})
        case "image":
            if match := EXAMPLE.fullmatch(str(token.attrGet("src") or "")):
                children.append({"tag": "img", "item": match[1], "caption": token.content, "children": []})
        case _:
            if token.content:
                children.append(token.content)
