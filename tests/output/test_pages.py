"""What a page shows is text, whoever wrote it."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from composer.output.pages import page


def test_values_are_escaped() -> None:
    text = page("base.html", title="</title><script>alert(1)</script>")
    assert "<title>&lt;/title&gt;&lt;script&gt;" in text
    assert "<script" not in text


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        page("base.html")
