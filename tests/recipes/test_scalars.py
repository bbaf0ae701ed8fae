"""Plain scalars: read where YAML 1.1 and YAML 1.2 agree, refused where they don't.

The judges are PyYAML's own resolver for 1.1, and the core schema's table, copied from chapter
10.3.2 of the YAML 1.2.2 specification, for 1.2.
"""

from __future__ import annotations

import math
import re
import string
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.recipes.scalars import LONGEST_NUMBER, ScalarProblem, number, read

NOTHING = object()  # neither reads as a value: no agreement

CORE = [
    (r"null|Null|NULL|~", lambda text: None),
    (r"", lambda text: None),
    (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    (r"[-+]?[0-9]+", int),
    (r"0o[0-7]+", lambda text: int(text[2:], 8)),
    (r"0x[0-9a-fA-F]+", lambda text: int(text[2:], 16)),
    (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
    (r"[-+]?(\.inf|\.Inf|\.INF)", lambda text: math.copysign(math.inf, -(text[0] == "-"))),
    (r"\.nan|\.NaN|\.NAN", lambda text: math.nan),
]

TEXTS = """
yes Yes YES no No NO on On ON off Off OFF y Y n N true True TRUE tRUE false null Null ~ nul
000010 010 09 00 0 -0 +1 -1 1_000 1__ _1 0b1 0b_ 0o10 0o8 0x1F 0x_ 0xg -0x1F 0.65 .5 -.5 +.5 5. 5
1e-1 1e5 1.0e-1 1.0e+3 1.0e3 1.e+3 .e1 1.5_0 1._ ._ . .. ... -.inf +.inf .inf .Inf .nan .NaN +.nan
12:30 0:30 00:30 0:30.5 12:30:45 1:60 190:20:30.15 -12:30 2024-01-01 2024-1-1 = << <
2024-01-01T10:00:00Z 2024-01-01T10:00:00+01:00
2001-12-14t21:59:43.10-05:00 1.2.3 1-2 - -- + ++1 0.0 -0.0 1E5 1.0E+5
"""
TRAPS = TEXTS.split()

ALPHABET = "0123456789+-._:~=<eExXobByYnNtTaAfFiIrRuUlLsSoO TZ"


def by_core(text: str) -> Any:
    for pattern, value in CORE:
        if re.fullmatch(pattern, text):
            return value(text)
    return text


def by_pyyaml(text: str) -> Any:
    """What PyYAML's YAML 1.1 makes of a plain scalar; NOTHING where it has no value of ours."""
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    try:
        value = loader.construct_object(yaml.ScalarNode(tag, text))
    except (yaml.YAMLError, ValueError):
        return NOTHING
    return value if isinstance(value, str | int | float | None) else NOTHING


def agree(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


@settings(max_examples=size(1000, 30_000), deadline=None)
@given(st.text(ALPHABET, max_size=12))
def test_a_scalar_is_read_where_both_versions_agree_and_refused_elsewhere(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", TRAPS)
def test_each_trap_is_judged_the_same_way(text: str) -> None:
    check(text)


def check(text: str) -> None:
    old, new = by_pyyaml(text), by_core(text)
    got = read(text)

    if text in {"y", "Y", "n", "N"}:  # booleans by the letter of YAML 1.1, not for PyYAML
        assert isinstance(got, ScalarProblem)
    elif agree(old, new) and not (isinstance(new, float) and not math.isfinite(new)):
        assert agree(got, new)
    else:
        assert isinstance(got, ScalarProblem)
        assert got.code in {"E210", "E211"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.65", 0.65), ("1", 1), ("0x1F", 31), ("1.0e-1", 0.1), ("true", True), ("~", None)],
)
def test_what_everybody_reads_alike_is_read(text: str, value: object) -> None:
    assert agree(read(text), value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("yes", 'quote it: "yes", or write true'),
        ("1e-1", 'quote it: "1e-1", or write 0.1'),
        ("000010", 'quote it: "000010", or write 10 or 8'),
        ("12:30", 'quote it: "12:30"'),
    ],
)
def test_the_hint_says_what_to_write_instead(text: str, hint: str) -> None:
    trouble = read(text)
    assert isinstance(trouble, ScalarProblem)
    assert trouble.hint == hint


@given(st.text(string.digits, min_size=LONGEST_NUMBER + 1, max_size=300))
def test_a_number_of_endless_digits_is_refused(text: str) -> None:
    trouble = read(text)
    assert isinstance(trouble, ScalarProblem)
    assert trouble.code == "E211"


@settings(max_examples=size(500, 50_000))
@example(1e-05)
@example(1e300)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**60), 10**60))
def test_a_written_number_is_read_back_by_all(value: float) -> None:
    text = number(value)
    assert agree(read(text), value)
    assert agree(by_pyyaml(text), value)
    assert agree(by_core(text), value)
