"""JSON of a stranger's: bounded before it is parsed, and nothing in it that two readers would take
differently.

`container` parses headers with this, `scaling` the configurations of adapters. Before anything is
built of it, the text is measured: so no JSON takes more than a second, or much memory.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from composer.lora.format_error import LoraFormatError, shown

NOTE_LIMIT = 1024 * 1024  # bytes of JSON within the metadata; a configuration has about 50,000
TOKENS_LIMIT = 200_000  # texts, brackets and commas; a long header of a LoRA has 50,000
DIGITS_LIMIT = 100  # of a whole number: converting takes the square of the time

_MARKS = (b'"', b"{", b"[", b",")
# A text, bracket or comma, and all that stands before it. The end matches too: where a search
# finds nothing, it starts over at the next byte.
_TOKENS = re.compile(rb'[^"{\[,]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[{\[,]|\Z)', re.DOTALL)


def strict_json(raw: bytes, what: str) -> object:
    """Parse this JSON; raises `LoraFormatError`, which names `what`, where it is not valid.

    A key twice, NaN and broken text are unsound, and so is more than a configuration needs.
    """
    if len(raw) > NOTE_LIMIT:
        raise LoraFormatError(
            f"is broken: {what} has {len(raw):,} bytes; {NOTE_LIMIT:,} is the limit"
        )
    return parsed(bounded(raw, what), what)


def bounded(raw: bytes | bytearray, what: str) -> str:
    """The text, if parsing it can't take long; else raises `LoraFormatError`."""
    if sum(map(raw.count, _MARKS)) > TOKENS_LIMIT:  # an upper bound, found in a moment
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
    except LoraFormatError as flaw:
        raise LoraFormatError(f"is broken: {what} {flaw}") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(what, error) from None


def _invalid(what: str, error: Exception) -> LoraFormatError:
    return LoraFormatError(f"is broken: {what} is no valid JSON ({type(error).__name__})")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise LoraFormatError(f"has the key {shown(key)} twice")
        key.encode("utf-8")  # a lone surrogate is a UnicodeEncodeError, so a ValueError
        if isinstance(value, str):
            value.encode("utf-8")
        found[key] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise ValueError("a number that long says nothing")
    return int(digits)


def _no_constant(name: str) -> float:
    raise LoraFormatError(f"holds {name}, which is no JSON")
