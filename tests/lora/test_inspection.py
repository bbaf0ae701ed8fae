"""From inner products to words: thresholds, places and the scales to try, on numbers by hand."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.lora.inspection import Level, Mix, headline, in_words, verdicts

NAMES = ("Watercolour", "Ink")


def mix(cosines: dict[str, float], sizes: tuple[float, float] = (1, 1), **other: object) -> Mix:
    """Two LoRAs of these norms in each block, with these cosines."""
    a, b = sizes
    blocks = {
        name: ((a * a, a * b * cosine), (a * b * cosine, b * b)) for name, cosine in cosines.items()
    }
    scales = other.get("scales", (0.5, 0.6))
    assert isinstance(scales, tuple)
    return Mix(NAMES, scales, blocks)


def doubles(cosine: float, *alike: int) -> dict[str, float]:
    return {f"double {n}": cosine if n in alike else 0.0 for n in range(19)}


CASES = {
    "strong": (
        mix(doubles(0.9, *range(3, 10))),
        "Watercolour and Ink overlap strongly in double blocks 3-9: expect one to win;"
        " try 0.45 and 0.5",
    ),
    "strong everywhere": (
        mix({"single 4": 0.5, "single 5": 0.5}),
        "Watercolour and Ink overlap strongly in every block that both change: expect one to win;"
        " try 0.4 and 0.5",
    ),
    "who wins": (
        mix({"single 4": 0.5, "text encoder": 0.0}, sizes=(1, 4)),
        "Watercolour and Ink overlap strongly in single block 4: expect Ink to win;"
        " try 0.5 and 0.55",
    ),
    "opposed": (
        mix({"double 1": -0.6, "other layers": -0.4, "text encoder": 0.0}),
        "Watercolour and Ink pull against each other in double block 1 and the other layers:"
        " expect both to fade; try 0.6 and 0.75",
    ),
    "a negative scale turns it round": (
        mix({"double 1": 0.6}, scales=(0.5, -0.5)),
        "Watercolour and Ink pull against each other in double block 1: expect both to fade;"
        " try 0.8 and -0.8",
    ),
    "some": (
        mix({"double 1": 0.2, "double 2": 0.2, "double 3": 0.0}),
        "Watercolour and Ink overlap somewhat in double blocks 1-2: expect more of what they share",
    ),
    "some against": (
        mix({"double 1": -0.2, "double 3": 0.0}),
        "Watercolour and Ink pull slightly against each other in double block 1:"
        " expect a little less of both",
    ),
    "independent": (
        mix({"double 1": 0.09, "double 2": -0.09}),
        "Watercolour and Ink are independent: each keeps its own effect",
    ),
    "one block of many": (
        mix(doubles(0.9, 5)),
        "Watercolour and Ink are independent: each keeps its own effect",
    ),
    "here and there": (
        mix(doubles(0.9, 0, 2, 4, 6, 8, 10)),
        "Watercolour and Ink overlap strongly in 6 of the 19 blocks that both change:"
        " expect one to win; try 0.45 and 0.55",
    ),
    "nothing": (mix({"double 1": 0.9}, scales=(0.0, 0.6)), "Watercolour changes nothing here"),
    "cancelled": (
        mix({"double 1": -1.0}, scales=(0.6, 0.6)),
        "Watercolour and Ink pull against each other in double block 1: expect both to fade",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_words_for_a_pair(case: str) -> None:
    found, words = CASES[case]
    assert headline(found) == words


def test_the_gravest_pair_makes_the_headline() -> None:
    gram = ((1.0, 0.0, 0.5), (0.0, 1.0, 0.2), (0.5, 0.2, 1.0))
    found = Mix(("A", "B", "C"), (0.5, 0.5, 0.5), {"double 0": gram})
    levels = {(v.first, v.second): v.level for v in verdicts(found)}
    assert levels == {
        (0, 1): Level.INDEPENDENT,
        (0, 2): Level.STRONG,
        (1, 2): Level.SOME,
    }
    said = headline(found)
    assert said is not None
    assert said.startswith("A and C overlap strongly in double block 0")
    assert said.endswith("(and 1 more pair: compose inspect)")


def test_one_line_for_many_that_are_independent() -> None:
    gram = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    found = Mix(("A", "B", "C"), (0.5, 0.5, 0.5), {"double 0": gram})
    assert headline(found) == "all 3 concepts are independent: each keeps its own effect"


def test_a_lora_alone_has_no_verdict() -> None:
    assert headline(Mix(("A",), (0.5,), {"double 0": ((1.0,),)})) is None


@given(
    st.floats(-1, 1),
    st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)),
    st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
)
def test_the_numbers_of_a_mix(
    cosine: float, sizes: tuple[float, float], scales: tuple[float, float]
) -> None:
    found = mix({"double 0": cosine, "double 1": cosine}, sizes, scales=scales)
    assert found.cosine(0, 1) == pytest.approx(cosine, abs=1e-9)
    assert found.norm(0) == pytest.approx(sizes[0] * scales[0] * sqrt(2))
    assert sum(found.share(n) or 0 for n in (0, 1)) == pytest.approx(1)
    assert sum(found.weights(0, 1).values()) == pytest.approx(1)
    for verdict in verdicts(found):
        for scale in verdict.scales or ():
            assert 0.05 <= scale <= 1
            assert scale == round(scale * 20) / 20


@given(st.sets(st.integers(0, 18), min_size=1))
def test_places_name_every_block_or_count_them(numbers: set[int]) -> None:
    blocks = [f"double {n}" for n in sorted(numbers)]
    said = in_words(blocks, [*blocks, "single 1"])
    if "of the" in said:
        assert said == f"in {len(blocks)} of the {len(blocks) + 1} blocks that both change"
        return
    named = said.removeprefix("in double ").removeprefix("blocks ").removeprefix("block ")
    runs = [run.split("-") for run in named.replace(" and ", ", ").split(", ")]
    assert {n for run in runs for n in range(int(run[0]), int(run[-1]) + 1)} == numbers
