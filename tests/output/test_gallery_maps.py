"""The drawings of a mix say what its numbers say."""

from __future__ import annotations

import re

from support.inspections import inspection

from composer.lora.inspection import Mix
from composer.output.gallery_maps import HIGH, MOST_PAIRS, band, maps

COLUMN = re.compile(r"M(\d+) (\d+)h9V(\d+)h-9z")


def mix(*blocks: tuple[tuple[float, ...], ...], scales: tuple[float, ...] = (1.0, 1.0)) -> Mix:
    return Mix(("ink", "wash"), scales, {f"double {n}": gram for n, gram in enumerate(blocks)})


def test_each_block_is_divided_by_the_shares() -> None:
    drawn = maps(mix(((9.0, 0.0), (0.0, 1.0)), ((0.0, 0.0), (0.0, 4.0))))
    (strip,) = drawn.influence
    assert (strip.label, strip.width) == ("double 0-1", 20)
    columns = {name: COLUMN.findall(path) for name, path in strip.paths}
    assert columns == {"0": [("0", "0", "75")], "1": [("0", "75", "100"), ("10", "0", "100")]}
    assert [share.name for share in drawn.shares] == ["ink", "wash"]
    assert drawn.shares[0].words.startswith("57% of the total change, most in double 0")


def test_a_pair_is_coloured_by_its_cosine() -> None:
    drawn = maps(mix(((1.0, 0.8), (0.8, 1.0)), ((1.0, -0.4), (-0.4, 1.0)), ((1.0, 0), (0, 1.0))))
    (pair,) = drawn.pairs
    (strip,) = pair.strips
    places = {name: [int(x) // 10 for x, *_ in COLUMN.findall(path)] for name, path in strip.paths}
    assert places == {"a4": [0], "o2": [1], "none": [2]}
    assert pair.title.startswith("ink × wash, cosine 0.13")


def test_what_changes_nothing_is_not_drawn() -> None:
    drawn = maps(mix(((0.0, 0.0), (0.0, 1.0)), scales=(0.5, 1.0)))
    assert [name for name, _ in drawn.influence[0].paths] == ["1"]
    assert drawn.shares[0].words == "changes nothing"


def test_many_pairs_are_counted_and_a_drawing_stays_small() -> None:
    drawn = maps(inspection(5, 0.95).mix)
    assert len(drawn.pairs) == MOST_PAIRS
    assert drawn.others == "4 more pairs"
    strips = [*drawn.influence, *(strip for pair in drawn.pairs for strip in pair.strips)]
    assert sum(len(path) for strip in strips for _, path in strip.paths) < 20_000
    for strip in drawn.influence:
        for _, path in strip.paths:
            assert COLUMN.sub("", path) == ""
            assert all(int(bottom) <= HIGH for *_, bottom in COLUMN.findall(path))


def test_bands_are_those_of_inspections() -> None:
    assert [band(cosine) for cosine in (-1, -0.31, 0.05, 0.1, 0.5)] == [
        "o4",
        "o2",
        "none",
        "a1",
        "a3",
    ]
