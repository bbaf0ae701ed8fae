"""Columns, widths and wrapping: what a terminal shows of texts in any script."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.make_golden import GOLDEN
from support.screens import LONG, NAMES, SCREENS, documents

from composer.output.style import aligned, painted, width, wrapped

COLOURS = re.compile(r"\x1b\[\d+m")
TEXTS = st.text(st.sampled_from("ab-é城🧙 "), max_size=30)
CELLS = st.lists(TEXTS, min_size=1, max_size=5).map("  ".join)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("城堡", 4),
        ("e\u0301", 1),
        ("👨‍👩‍👧", 2),  # joined by zero-width joiners
        ("🇩🇪", 2),
        ("👍🏽", 2),
        ("❤️", 2),  # a narrow character that a selector makes an emoji
        ("🏴‍☠️", 2),
        ("", 0),
        ("\x1b[31m城堡\x1b[0m", 4),
    ],
)
def test_the_width_of_a_text_is_what_a_terminal_gives_it(text: str, columns: int) -> None:
    assert width(text) == columns


def test_cells_of_all_scripts_stand_in_columns() -> None:
    lines = aligned([(name, "end") for name in NAMES[:3]])
    assert {width(line) for line in lines} == {width(NAMES[1]) + 2 + len("end")}


@pytest.mark.parametrize("others", [1, 2, 30])
def test_a_cell_far_wider_than_the_others_moves_its_own_row_alone(others: int) -> None:
    rows = [("Rogue", "recipes/rogue.yaml", "new")] * others
    alone, beside = aligned(rows), aligned([*rows, (LONG, "recipes/long.yaml", "new")])
    assert beside[:-1] == alone
    assert beside[-1] == f"{LONG}  recipes/long.yaml   new"


def test_cells_that_are_all_wide_stand_in_columns() -> None:
    lines = aligned([("a" * 60, "x"), ("b" * 70, "y")])
    assert [line.index(last) for line, last in zip(lines, "xy", strict=True)] == [72, 72]


def test_what_does_not_fit_goes_on_below_its_cell_or_an_earlier_one() -> None:
    row = "+ create   Knight  recipes/knight.yaml  scale of Ink Lines 0.5 -> 0.65"
    assert wrapped(row, 70) == row
    assert wrapped(row, 65).splitlines() == [
        "+ create   Knight  recipes/knight.yaml",
        " " * 19 + "scale of Ink Lines 0.5 -> 0.65",
    ]
    assert wrapped(f"{row} and of others", 70).splitlines() == [
        "+ create   Knight  recipes/knight.yaml  scale of Ink Lines 0.5 -> 0.65",
        " " * 40 + "and of others",
    ]


def test_a_command_at_the_end_of_a_line_stays_in_one_piece() -> None:
    line = "Plan 12345678. To apply exactly this plan: compose apply --expect 12345678"
    assert wrapped(line, 60).splitlines() == [
        "Plan 12345678. To apply exactly this plan:",
        "  compose apply --expect 12345678",
    ]


def test_every_line_of_a_coloured_one_has_its_colour() -> None:
    lines = wrapped(painted("one two three four five six", "red", color=True), 20).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("\x1b[31m") and line.endswith("\x1b[0m") for line in lines)


@settings(deadline=None)
@given(CELLS, st.integers(20, 80))
def test_wrapping_keeps_every_word_and_the_width(line: str, columns: int) -> None:
    lines = wrapped(line, columns).split("\n")
    assert " ".join(lines).split() == line.split()
    assert all(width(one) <= columns or len(one.split()) == 1 for one in lines)
    assert width(line) > columns or lines == [line]
    plain = COLOURS.sub("", wrapped(painted(line, "red", color=True), columns))
    assert plain.split() == line.split()


@pytest.mark.parametrize(("count", "columns", "color"), SCREENS)
def test_a_screen_is_as_wide_as_the_terminal_and_as_it_was_approved(
    count: int, columns: int, color: bool
) -> None:
    """If a change of them is meant: PYTHONPATH=tests python -m support.make_golden."""
    name = f"screens/{count}_at_{columns}{'_in_colour' * color}.txt"
    page = documents()[name]
    assert page == (GOLDEN / name).read_text(encoding="utf-8")
    lines = page.splitlines()
    assert all(width(line) <= columns or len(line.split()) == 1 for line in lines)
    assert bool(COLOURS.search(page)) is color
