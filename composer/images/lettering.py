"""Text in images: letters of every script, or an escape where no font here has one.

Inter, which lies beside this file, has Latin, Greek and Cyrillic; with it the same text is the same
pixels everywhere. For other scripts the machine's own fonts are asked by name. What none of them
has is written as its code point (`\\u7d75`), never as an empty box.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont, features

from composer.text import visible

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

FONTS = Path(__file__).parent / "fonts"
# Fonts of Windows, macOS and Linux by what they are called there; Pillow knows the folders.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "YuGothM.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Hiragino Sans GB.ttc",
    "segoeui.ttf",
    "Nirmala.ttf",
    "LeelawUI.ttf",
    "seguisym.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "DejaVuSans.ttf",
)
_MISSING = "\U0010ffff"  # no character, so that a font shows what it has for missing ones
_SHAPED = features.check("raqm")  # letters that join, and text from right to left


class Lettering:
    """Text of one size and weight."""

    def __init__(self, size: int, *, bold: bool = False) -> None:
        self.size = size
        self._own = _font(str(FONTS / f"Inter-{'SemiBold' if bold else 'Regular'}.ttf"), size)

    def width(self, text: str) -> int:
        return round(sum(font.getlength(part) for part, font in self._runs(text)))

    def draw(self, on: ImageDraw, place: tuple[int, int], text: str, fill: str) -> None:
        """Write one line with its baseline's beginning at this place."""
        x, y = float(place[0]), place[1]
        for part, font in self._runs(text):
            on.text((x, y), part, fill, font, anchor="ls")
            x += font.getlength(part)

    def wrap(self, text: str, width: int, lines: int) -> list[str]:
        """The text in at most so many lines of this width; an ellipsis says that more follows."""
        done: list[str] = []
        rest = " ".join(visible(text).split())
        while rest and len(done) < lines - 1:
            head = self._fitting(rest, width)
            done.append(head.rstrip())
            rest = rest[len(head) :].lstrip()
        return [*done, self.cut(rest, width)] if rest else done

    def cut(self, text: str, width: int) -> str:
        """The text in one line of this width, with an ellipsis if something had to go."""
        text = visible(text)
        if self.width(text) <= width:
            return text
        return text[: self._most(text, width, "…")].rstrip() + "…"

    def _fitting(self, text: str, width: int) -> str:
        """As many whole words as fit, or as many characters if not even one word does."""
        if self.width(text) <= width:
            return text
        head = text[: max(1, self._most(text, width))]
        space = head.rfind(" ") + 1
        return head if text[len(head)] == " " or not space else head[:space]

    def _most(self, text: str, width: int, end: str = "") -> int:
        """How many characters fit before `end`."""
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.width(text[:middle] + end) <= width
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def _runs(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        """The text in pieces with the font of each."""
        shown = unicodedata.normalize("NFC", visible(text))
        pieces = [piece for c in shown if (piece := self._piece(c))]
        return [
            ("".join(part for part, _ in run), font)
            for font, run in groupby(pieces, key=lambda piece: piece[1])
        ]

    def _piece(self, character: str) -> tuple[str, ImageFont.FreeTypeFont] | None:
        if _is_ignorable(character):
            return None
        for font in (self._own, *_system_fonts(self.size)):
            if _has(font, character) and (font is self._own or _is_plain(character)):
                return character, font
        code = ord(character)
        return (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"), self._own


def _is_ignorable(character: str) -> bool:
    """Joiners and variation selectors: they only choose another look of their neighbours."""
    return character in "\u200b\u200c\u200d\u2060\u00ad" or 0xFE00 <= ord(character) <= 0xFE0F


def _is_plain(character: str) -> bool:
    """Whether its letters can stand one after the other from left to right, if nothing is shaped.

    Marks, and everything from right to left, need shaping.
    """
    mark = unicodedata.category(character).startswith("M")
    return _SHAPED or not (mark or unicodedata.bidirectional(character) in ("R", "AL", "AN"))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    own = name.startswith(str(FONTS))
    layout = ImageFont.Layout.BASIC if own or not _SHAPED else ImageFont.Layout.RAQM
    return ImageFont.truetype(name, size, layout_engine=layout)


@cache
def _system_fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    found = []
    for name in SYSTEM_FONTS:
        try:
            found.append(_font(name, size))
        except OSError:
            continue  # this machine has no font of that name
    return tuple(found)


@cache
def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether the font has a glyph of its own for the character.

    That is asked without shaping, which puts other signs around what is missing.
    """
    if character.isspace():
        return True
    plain = ImageFont.truetype(font.path, font.size, layout_engine=ImageFont.Layout.BASIC)
    return _pixels(plain, character) != _pixels(plain, _MISSING)


def _pixels(font: ImageFont.FreeTypeFont, character: str) -> tuple[object, ...]:
    mask, offset = font.getmask2(character, "L")
    return mask.size, offset, *(mask if mask.size[0] else ())
