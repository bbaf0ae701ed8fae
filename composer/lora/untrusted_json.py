"""JSON in files that nobody vouches for: parsing it takes no more than a second, or much memory.

`container` reads headers with it, `metadata` and `peft_config` what trainers wrote into them.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from composer.lora.errors import LoraFormatError, shown

PARSED_LIMIT = 8 * 1024 * 1024  # bytes of a header that are parsed: a larger one without long texts
NOTE_LIMIT = 1024 * 1024  # bytes of JSON within the metadata; a configuration has about 50,000
TOKENS_LIMIT = 200_000  # texts, brackets and commas; a long header of a LoRA has 50,000
DIGITS_LIMIT = 100  # of a whole number: converting takes the square of the time

_MARKS = (b'"', b"{", b"[", b",")
# A text, bracket or comma, and all that stands before it. The end matches too: where a search
# finds nothing, it starts over at the next byte.
_TOKENS = re.compile(rb'[^"{\[,]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{\[,]|\Z)', re.DOTALL)


def strict_json(raw: bytes, what: str) -> object:
    """Parse this JSON; raises `LoraFormatError`, which names `what`, where it is not valid.

    A repeated key, NaN and broken text are refused, and so is more than a configuration needs.
    """
    if len(raw) > NOTE_LIMIT:
        raise LoraFormatError(
            f"is broken: {what} has {len(raw):,} bytes; {NOTE_LIMIT:,} is the limit"
        )
    return parsed(bounded(raw, what), what)


def bounded(raw: bytes | bytearray, what: str) -> str:
    """The text, if parsing it can't take long; else raises `LoraFormatError`."""
    if sum(map(raw.count, _MARKS)) > TOKENS_LIMIT:  # an upper bound, quick to compute
        tokens = islice(_TOKENS.finditer(raw), TOKENS_LIMIT + 1)
        if sum(1 for _ in tokens) > TOKENS_LIMIT:
            reason = f"has more than {TOKENS_LIMIT:,} texts, brackets and commas"
            raise LoraFormatError(f"is broken: {what} {reason}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(what, error) from None


def parsed(text: str, what: str) -> object:
    """What a bounded text says; raises `LoraFormatError` as `strict_json` does."""
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_int=_whole, parse_constant=_no_constant
        )
    except LoraFormatError as error:
        raise LoraFormatError(f"is broken: {what} {error}") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(what, error) from None


def _invalid(what: str, error: Exception) -> LoraFormatError:
    return LoraFormatError(f"is broken: {what} is not valid JSON ({type(error).__name__})")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise LoraFormatError(f"has the key {shown(key)} twice")
        key.encode("utf-8")  # a lone surrogate is a UnicodeEncodeError, so a ValueError
        if isinstance(value, str):
            value.encode("utf-8")
        fields[key] = value
    return fields


def _whole(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise ValueError("a number that long says nothing")
    return int(digits)


def _no_constant(name: str) -> float:
    raise LoraFormatError(f"holds {name}, which is not JSON")


class Shortened:
    """A header that is added a piece at a time: `kept` is what is left of it without long texts.

    They are captions and thumbnails: what a LoRA's strength depends on has fewer bytes.
    """

    def __init__(self) -> None:
        self.kept = bytearray()
        self._quotes = 0
        self._length = 0  # of the text that is open where the number of quotes is odd
        self._escape = bytearray()  # a backslash whose character is in the next piece

    def add(self, piece: bytearray) -> None:
        """Raises `LoraFormatError` where too much is left to be parsed."""
        piece = self._escape + piece
        escapes = (len(piece) - len(piece.rstrip(b"\\"))) % 2
        self._escape = piece[len(piece) - escapes :]
        del piece[len(piece) - escapes :]
        masked = piece.replace(rb"\\", b"__").replace(rb"\"", b"__")  # so that each quote counts
        if self._quotes + masked.count(b'"') > 2 * TOKENS_LIMIT:
            raise LoraFormatError(f"is broken: its header has more than {TOKENS_LIMIT:,} texts")
        start = 0
        for quote in re.finditer(b'"', masked):
            self._put(piece[start : quote.start()])
            self._quote()
            start = quote.end()
        self._put(piece[start:])
        if len(self.kept) - self._length > PARSED_LIMIT:
            raise LoraFormatError(
                f"has a header of more than {PARSED_LIMIT:,} bytes besides its longest texts:"
                " no LoRA has that much"
            )

    def _put(self, part: bytearray) -> None:
        if self._quotes % 2:
            if self._length <= NOTE_LIMIT < self._length + len(part):
                del self.kept[len(self.kept) - self._length :]
            self._length += len(part)
        if self._length <= NOTE_LIMIT:
            self.kept += part

    def _quote(self) -> None:
        if self._length > NOTE_LIMIT:
            self.kept += b"(%d bytes, left out)" % self._length
        self.kept += b'"'
        self._quotes, self._length = self._quotes + 1, 0
