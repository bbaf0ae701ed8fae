"""What a page shows is text, whoever wrote it; what it may do is in its policy."""

from __future__ import annotations

import re
from html import unescape

import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError
from support.colours import contrast

from composer.output import pages
from composer.output.pages import csp_hash, page


def test_values_are_escaped() -> None:
    text = page("base.html", title="</title><script>alert(1)</script>")
    assert text.startswith("<!doctype html>")
    assert "<title>&lt;/title&gt;&lt;script&gt;" in text
    assert "<script" not in text


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        page("base.html")


def policy(text: str) -> list[str]:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    return [" ".join(part.split()) for part in unescape(found[1]).split(";")]


def within(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]


def test_a_page_may_use_its_own_style_and_nothing_else() -> None:
    text = page("base.html", title="Storybook Knight")
    assert policy(text) == [
        "default-src 'none'",
        f"style-src '{csp_hash(within(text, 'style'))}'",
        "script-src 'none'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_what_a_page_adds_is_in_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = (
        '{% extends "base.html" %}{% block style %}i { color: red }{% endblock %}'
        "{% block script %}if (1 < 2) document.title = 1{% endblock %}"
    )
    own = pages._environment()
    assert own.loader is not None
    loader = ChoiceLoader([own.loader, DictLoader({"mine.html": mine})])
    monkeypatch.setattr(own, "loader", loader)
    text = page("mine.html", title="", images="file:", connect="'self'")
    assert within(text, "style").endswith("i { color: red }")
    assert within(text, "script") == "if (1 < 2) document.title = 1"
    assert {
        f"style-src '{csp_hash(within(text, 'style'))}'",
        f"script-src '{csp_hash(within(text, 'script'))}'",
        "img-src data: file:",
        "connect-src 'self'",
    } < {*policy(text)}


STYLE = within(page("base.html", title=""), "style")
LIGHT, _, REST = STYLE.partition("@media (prefers-color-scheme: dark)")
DARK, _, REST = REST.partition("*, ::before")
PRINT = REST.partition("@media print")[2]


@pytest.mark.parametrize("rules", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
def test_words_have_enough_contrast(rules: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", LIGHT + rules))
    words = ("ink", "dim", "bar", "good", "warn", "bad", "heat")
    pairs = {(word, back) for word in words for back in ("paper", "mat")} | {("on-bar", "bar")}
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    assert contrast(colours["edge"], colours["paper"]) >= 3  # the edges of buttons and fields
