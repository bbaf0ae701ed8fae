"""Inspections in a terminal: in line and no wider than it, with names of every kind."""

from __future__ import annotations

import re
from math import cos

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.inspections import inspection

from composer.lora.inspection import Mix, near_duplicates
from composer.output.inspect import text
from composer.output.inspect_matrix import matrix
from composer.output.style import width, wrapped


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("count", [1, 2, 5, 12, 30])
def test_nothing_is_wider_than_the_terminal(count: int, columns: int) -> None:
    everything = count <= 5
    lines = text([inspection(count)], None, columns, everything=everything).splitlines()
    shown = wrapped("\n".join(lines), columns).splitlines()
    assert max(map(width, shown)) <= columns
    heads = [n for n, line in enumerate(lines) if line.lstrip().startswith("LORA ")]
    drawn = [line for line in lines if re.match(r"  (double|single|other)", line)]
    assert len(heads) == (count > 1) and drawn != []
    table = lines[heads[0] : heads[0] + count + 1] if heads else []
    assert all(width(line) <= columns for line in (*table, *drawn))  # wrapping breaks none
    bars = [width(line[: re.search("[█░]", line).start()]) for line in table[1:]]  # type: ignore[union-attr]
    assert len(set(bars)) <= 1


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("count", [2, 5, 12, 40, 64])
def test_a_matrix_has_a_cell_for_each_two_below_their_numbers(count: int, columns: int) -> None:
    one = inspection(count)
    title, *lines, _ = matrix(one.mix, columns, color=False)
    assert max(map(width, lines)) <= columns
    sides = {width(line[: len(line) - len(line.lstrip())]) for line in lines}
    assert title.startswith("cosines") and len(sides) >= 2
    rows = [line for line in lines if re.match(r" {0,1}\d+  \S", line)]
    if title.endswith("hundredths") or "0." in rows[0]:
        factor = 100 if title.endswith("hundredths") else 1
        heads = lines[0].split()
        assert heads == [str(n + 1) for n in range(count)]
        for i, row in enumerate(rows):
            cells = [float(cell) / factor for cell in row.split()[-count:]]
            expected = [one.mix.cosine(i, j) for j in range(count)]
            assert cells == pytest.approx(expected, abs=0.00501)
            assert width(row) == width(lines[0])
    else:  # a character each
        blocks = len(rows) // count
        assert rows and len(rows) == blocks * count
        assert lines[0].strip(" 123456") == "" and count > 12


def test_the_answer_comes_first() -> None:
    lines = text([inspection(12)], None, 80).splitlines()
    places = [
        next(n for n, line in enumerate(lines) if re.search(words, line))
        for words in (
            "overlap strongly|pull against",
            "^cosines",
            "LORA ",
            "^overlap, block",
            " × ",
        )
    ]
    assert places == sorted(places)
    assert sum("×" in line for line in lines) < 66
    assert re.search(r"^\d+ independent pairs? not shown", "\n".join(lines), re.MULTILINE)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.data())
def test_near_duplicates_are_alike_each_with_each(angles: list[float], data: st.DataObject) -> None:
    """LoRAs in a plane, by their angle: the cosine of two is that of the difference."""
    gram = tuple(tuple(cos(3 * (a - b)) for b in angles) for a in angles)
    scales = data.draw(st.tuples(*[st.floats(-1, 1) for _ in angles]))
    names = tuple(str(n) for n in range(len(angles)))
    groups = near_duplicates(Mix(names, scales, {"double 0": gram}))
    assert groups == near_duplicates(Mix(names, (1.0,) * len(angles), {"double 0": gram}))
    assert all(gram[i][j] >= 0.899 for group in groups for i in group for j in group)
    members = [n for group in groups for n in group]
    assert len(members) == len(set(members))
    for n in set(range(len(angles))) - set(members):  # whoever is alone is like nobody who is
        others = set(range(len(angles))) - set(members) - {n}
        assert all(gram[n][other] < 0.901 for other in others)
