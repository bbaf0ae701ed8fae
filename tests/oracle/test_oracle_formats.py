"""Every format: what we make of it is right, and the page says what other programs make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import page, table
from oracle.cases import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from oracle.cases import Case
    from oracle.judge import Judge

EFFECT = 1e-2  # what a file changes at least, relative to the output
EXACT = 1e-5  # float32: error relative to the output


@pytest.mark.parametrize("case", FORMATS, ids=lambda case: case.name)
def test_a_format(judge: Judge, tmp_path: Path, case: Case) -> None:
    row = table.measured(judge, case, tmp_path)
    print(f"effect {row.effect:.1e}, error {row.ours:.1e}, a scale off by 0.01: {row.control:.1e}")
    assert row.effect >= EFFECT
    assert row.ours <= EXACT < row.control
    assert case.whole or not row.said
    assert (row.theirs == "right") == case.read
    assert row.line(case) in page.lines(table.PAGE, "formats"), "run tests/oracle/make_formats.py"


def test_the_page_has_these_formats_and_no_others() -> None:
    lines = page.lines(table.PAGE, "formats")
    assert lines[0].startswith("| format | a key of it | diffusers ")  # of any version
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {case.name}" for case in FORMATS]


def test_the_page_says_how_merge_scripts_dilute(tmp_path: Path) -> None:
    lines = [table.merge_line(merge, tmp_path) for merge in table.MERGES]
    assert page.lines(table.PAGE, "merges") == [*table.merge_head(), *lines]
    assert all(line.endswith("| below 1e-7 |") for line in lines)
