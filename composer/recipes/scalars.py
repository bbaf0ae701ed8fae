"""What a plain scalar means, and whether all YAML readers agree on it.

Editors follow the core schema of YAML 1.2, many programs YAML 1.1. `read` accepts a text that both
read alike, and refuses one that they read differently. `number` writes a number.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple, TypeAlias

Scalar: TypeAlias = "str | int | float | bool | None"

LONGEST_NUMBER = 64  # characters; converting a longer one costs time and keeps no digit more


class ScalarProblem(NamedTuple):
    """Why a scalar is refused: a problem without its place."""

    code: str
    message: str
    hint: str


class Special(NamedTuple):
    """A value of YAML 1.1 that has no Python value here, in words."""

    what: str


# --- YAML 1.2, chapter 10.3.2 ------------------------------------------------------------

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})


def core(text: str) -> Scalar:
    """The value of a plain scalar by the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return int(text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _not_finite(text)


def _not_finite(text: str) -> float | str:
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    return math.nan if text in _NAN else text


# --- YAML 1.1: https://yaml.org/type/, as PyYAML and libyaml's other users resolve it --------

_OLD_TRUE = re.compile(r"[yY]|yes|Yes|YES|true|True|TRUE|on|On|ON")
_OLD_FALSE = re.compile(r"[nN]|no|No|NO|false|False|FALSE|off|Off|OFF")
_OLD_INTS = (
    (re.compile(r"[-+]?0b[01_]+"), 2),
    (re.compile(r"[-+]?0[0-7_]+"), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9_]*)"), 10),
    (re.compile(r"[-+]?0x[0-9a-fA-F_]+"), 16),
)
_OLD_FLOAT = re.compile(r"([-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?")
_OLD_TIME = re.compile(  # 12:30 is 750, but 0:30 a text
    r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*"
)
_OLD_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?"
    r"([Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(\.[0-9]*)?"
    r"([ \t]*(Z|[-+][0-9][0-9]?(:[0-9]{2})?))?"
)
_OLD_OTHERS = (
    (_OLD_TIME, "a time"),
    (_OLD_DATE, "a date"),
    (re.compile("="), "a default value"),
    (re.compile("<<"), "a merge key"),
)


def older(text: str) -> Scalar | Special:
    """The value of a plain scalar by YAML 1.1."""
    if text in _NULL:
        return None
    if _OLD_TRUE.fullmatch(text) or _OLD_FALSE.fullmatch(text):
        return _OLD_TRUE.fullmatch(text) is not None
    for pattern, base in _OLD_INTS:
        if pattern.fullmatch(text):
            return _old_int(text, base)
    if _OLD_FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    for pattern, what in _OLD_OTHERS:
        if pattern.fullmatch(text):
            return Special(what)
    return _not_finite(text)


def _old_int(text: str, base: int) -> int | Special:
    try:
        return int(text.replace("_", ""), base)
    except ValueError:  # `0x_`: a number by its pattern, of no digit
        return Special("a number")


# --- both --------------------------------------------------------------------------------

# A text that begins with a letter is a string in both, but for these words.
_LETTER_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_NUMBER_LIKE = re.compile(r"[-+.0-9][-+.:_0-9a-fA-FxobE]*")


def read(text: str) -> Scalar | ScalarProblem:
    """The value that every YAML reader sees in a plain scalar, or why they differ."""
    if text[:1].isalpha() and text.lower() not in _LETTER_WORDS:
        return text
    if len(text) > LONGEST_NUMBER and _NUMBER_LIKE.fullmatch(text):
        what = f"a number of {len(text):,} characters is too long to be kept exactly"
        return ScalarProblem("E211", what, "write fewer digits, or quote it if it is a string")
    new, old = core(text), older(text)
    if type(new) is not type(old) or (new != old and new == new):
        return _ambiguous(text, old, new)
    if isinstance(new, float) and not math.isfinite(new):
        return ScalarProblem("E211", f"{text} is not a finite number", "write a finite number")
    return new


def _ambiguous(text: str, old: Scalar | Special, new: Scalar) -> ScalarProblem:
    values = dict.fromkeys(as_text for value in (new, old) if (as_text := _replacement(value)))
    quoted = f'quote it: "{text}"'
    hint = f"{quoted}, or write {' or '.join(values)}" if values else quoted
    message = f"{text} is {_words(old)} in YAML 1.1 and {_words(new)} in YAML 1.2"
    return ScalarProblem("E210", message, hint)


def _words(value: Scalar | Special) -> str:
    if isinstance(value, Special):
        return value.what
    if isinstance(value, str):
        return "a string"
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    return f"the number {number(value)}"


def _replacement(value: Scalar | Special) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, int | float) else None


def number(value: int | float) -> str:
    """The shortest text of a number that both versions of YAML read back as the same number.

    An exponent needs a point and a sign: `1.0e-05`, never `1e-05`.
    """
    if isinstance(value, int) or "e" not in repr(value):
        return repr(value)
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}"
