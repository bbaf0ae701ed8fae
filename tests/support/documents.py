"""Markdown as a forge renders it: parsed by markdown-it, told as an outline and as its words.

Used by the tests of documents. Links are looked for as GitHub does, mentions and hashes by the
words that stand outside of code, where alone GitHub looks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark", {"html": True, "linkify": True}).enable(
    ["table", "strikethrough", "linkify"]
)
_HARMLESS = {"text", "code_inline", "softbreak", "strong_open", "strong_close"}
# What GitHub links wherever it finds it in the words of a document.
_LINKED = re.compile(r"@\w|#\d|\b[0-9a-f]{7,64}\b|\bGH-\d|://|\bwww\.|\w@\w")


@dataclass(frozen=True)
class Table:
    """A table's cells: the text of each, code or not."""

    head: list[str]
    rows: list[list[str]]


@dataclass
class Document:
    """What a reader sees: blocks in order, the words outside of code, and the code."""

    outline: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)  # links, images, HTML, emphasis, ...


def rendered(markdown: str) -> Document:
    """The document; `odd` holds every kind of token that ours have no use for."""
    document = Document()
    tokens = _PARSER.parse(markdown)
    for place, token in enumerate(tokens):
        if token.type == "inline":
            _words(token, document)
        elif token.type == "heading_open":
            document.outline.append(f"{token.tag} {_title(tokens[place + 1])}")
        elif token.type == "table_open":
            document.tables.append(_table(tokens[place:]))
            document.outline.append(f"table {len(document.tables[-1].rows)}")
        elif token.type == "bullet_list_open":
            document.outline.append(f"list {_items(tokens[place:])}")
        elif token.type == "blockquote_open":
            document.outline.append("quote")
        elif token.type in ("fence", "code_block", "html_block", "hr", "ordered_list_open"):
            document.odd.append(token.type)
    document.odd += [f"{m[0]!r} in {w!r}" for w in document.words for m in _LINKED.finditer(w)]
    return document


def _title(inline: Token) -> str:
    """A heading's words, with a dot for what is code."""
    children = inline.children or []
    return "".join("·" if c.type == "code_inline" else c.content for c in children)


def _words(inline: Token, document: Document) -> None:
    for token in inline.children or []:
        if token.type not in _HARMLESS:
            document.odd.append(f"{token.type} {token.content}")
        if token.type == "code_inline":
            document.code.append(token.content)
        elif token.type == "text" and token.content:
            document.words.append(token.content)


def _table(tokens: Sequence[Token]) -> Table:
    rows: list[list[str]] = []
    for token, following in pairwise(tokens):
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            children = following.children or []
            rows[-1].append("".join(child.content for child in children))
    return Table(rows[0], rows[1:])


def _items(tokens: Sequence[Token]) -> int:
    count = 0
    for token in tokens:
        if token.type == "bullet_list_close" and token.level == tokens[0].level:
            break
        count += token.type == "list_item_open"
    return count
