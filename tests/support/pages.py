"""HTML as a browser takes it, as far as the standard library knows: elements, words, oddities."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "rect", "br", "hr"}  # rect: `/>` ends it within SVG
LOADING = {"src", "href", "xlink:href", "action", "srcset", "data", "poster", "style", "ping"}


@dataclass
class Page:
    """Elements by name with their attributes; the words in order; cells of tables; what is odd."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, dict(attrs)))
        self.page.odd += [
            f"{tag} {name}" for name, _ in attrs if name in LOADING or name[:2] == "on"
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.page.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.odd.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.page.odd += [word for word in ("url(", "@import", "expression") if word in data]
            self.page.odd += [] if self._allowed(data) else ["a style that the policy forbids"]
        elif data.strip():
            self.page.words.append(data.strip())
        if self.open and self.open[-1] in ("td", "th"):
            self.page.rows[-1].append(data)

    def _allowed(self, style: str) -> bool:
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policies = [a.get("content") or "" for a in self.page.named("meta") if "http-equiv" in a]
        return any(f"style-src 'sha256-{digest}'" in policy for policy in policies)

    def handle_comment(self, data: str) -> None:
        self.page.odd.append(f"comment {data}")

    def handle_pi(self, data: str) -> None:
        self.page.odd.append(f"instruction {data}")

    def unknown_decl(self, data: str) -> None:
        self.page.odd.append(f"declaration {data}")


def parsed(html: str) -> Page:
    """The page; `odd` holds what would load, run or link something, and what isn't well formed."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    parser.page.odd += [f"<{tag}> is never closed" for tag in parser.open]
    parser.page.odd += re.findall(r"javascript:|<script|<iframe|<link|<img", html, re.IGNORECASE)
    return parser.page
