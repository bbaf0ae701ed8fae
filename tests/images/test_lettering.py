"""Text in pictures: what a font has is drawn, what no font has is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from composer.images import lettering
from composer.images.lettering import Lettering

TEXT = Lettering(20)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without fonts of its own."""
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ())
    lettering._system_fonts.cache_clear()


def drawn(text: str) -> bytes:
    image = Image.new("RGB", (400, 40), "white")
    TEXT.draw(ImageDraw.Draw(image), (4, 28), text, "black")
    return image.tobytes()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("絵本", "\\u7d75\\u672c"),
        ("🐉", "\\U0001f409"),
        ("שלום", "\\u05e9\\u05dc\\u05d5\\u05dd"),
        ("a\x1b[1m", "a\\x1b[1m"),
        ("cafe\u0301", "café"),
        ("heart\ufe0f", "heart"),
    ],
)
def test_what_no_font_has_is_its_code_point(text: str, shown: str) -> None:
    assert drawn(text) == drawn(shown)
    assert TEXT.width(text) == TEXT.width(shown)


@pytest.mark.parametrize("text", ["Ångström", "Żółw", "Ελλάδα", "Замок", "0.65 → 0.70 × 2 · …"])
def test_latin_greek_and_cyrillic_are_always_there(text: str) -> None:
    assert all(lettering._has(TEXT._own, character) for character in text)


def test_a_font_of_the_machine_is_used_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any font that isn't ours, by the name that Pillow knows: here one that pretends."""
    own = str(lettering.FONTS / "Inter-SemiBold.ttf")
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ("none of this name.ttf", own))
    monkeypatch.setattr(lettering, "_has", lambda font, c: (font is not TEXT._own) == (c == "Q"))
    lettering._system_fonts.cache_clear()
    runs = TEXT._runs("aQa")
    assert [part for part, _ in runs] == ["a", "Q", "a"]
    assert [font.getname()[1] for _, font in runs] == ["Regular", "SemiBold", "Regular"]
    lettering._system_fonts.cache_clear()


def test_a_mark_that_a_shaping_font_lacks_is_its_code_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shaped text shows a missing mark as a dotted circle with a box, not as the box alone."""
    try:
        ImageFont.truetype("DejaVuSans.ttf")
    except OSError:
        pytest.skip("no font here has a dotted circle, and no Devanagari: DejaVuSans.ttf")
    monkeypatch.setattr(lettering, "SYSTEM_FONTS", ("DejaVuSans.ttf",))
    lettering._system_fonts.cache_clear()
    assert drawn("हि") == drawn("\\u0939\\u093f")
    lettering._system_fonts.cache_clear()


def test_lines_break_between_words() -> None:
    lines = TEXT.wrap("a castle on a hill above a misty valley", 180, 9)
    assert " ".join(lines) == "a castle on a hill above a misty valley"
    assert all(TEXT.width(line) <= 180 for line in lines)


def test_the_last_line_says_that_more_follows() -> None:
    lines = TEXT.wrap("a castle on a hill above a misty valley", 100, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")


def test_a_long_word_is_broken() -> None:
    lines = TEXT.wrap("x" * 60, 100, 99)
    assert len(lines) > 3
    assert "".join(lines) == "x" * 60


@given(st.text(max_size=60), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_any_text_fits(text: str, most: int) -> None:
    lines = TEXT.wrap(text, 160, most)
    assert len(lines) <= most
    assert all(TEXT.width(line) <= 160 for line in lines)
    drawn(text)
