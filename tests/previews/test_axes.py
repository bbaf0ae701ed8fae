"""Axes of a sweep: how they are written, whose scales they are, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import FLUX
from support.sizes import size

from composer.errors import UsageError
from composer.model import ConceptRef, Recipe
from composer.previews.axes import Axis, axes_of, check_limits, checked_scales, parse_axes

INK, DUST, ID = "Ink Lines", "Pixel Dust", "model_I3fUkYcTSYPEkhvYMDvSQ"
RECIPE = Recipe(
    path="recipes/knight.yaml",
    name="Knight",
    concepts=(
        ConceptRef(0.5, name=INK),
        ConceptRef(0.7, name="Caf\u00e9"),
        ConceptRef(0.8, model_id=ID),
    ),
    types=FLUX,
)


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("0.2..0.8/4", (0.2, 0.4, 0.6, 0.8)),
        ("0.8..0.2/4", (0.8, 0.6, 0.4, 0.2)),
        ("0..1/3", (0, 0.5, 1)),
        ("0..1/7", (0, 0.1667, 0.3333, 0.5, 0.6667, 0.8333, 1)),
        ("-1..1/2", (-1, 1)),
        (".5..1./2", (0.5, 1)),
        (" 0.2 .. 0.8 / 2 ", (0.2, 0.8)),
        ("0.2,0.5,0.8", (0.2, 0.5, 0.8)),
        ("0.8, .5 ,+0.2", (0.8, 0.5, 0.2)),
        ("0.5", (0.5,)),
        ("5e-1,1.", (0.5, 1)),
        ("0.33333", (0.3333,)),
        ("-0", (0,)),
    ],
)
def test_scales_are_a_range_with_a_number_or_a_list(text: str, scales: tuple[float, ...]) -> None:
    assert parse_axes([f"{INK}={text}"]) == {INK: scales}


def test_only_what_follows_the_last_equals_sign_are_scales() -> None:
    assert parse_axes(["a=b = 0.5", "c=1"]) == {"a=b": (0.5,), "c": (1,)}


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("Ink Lines", "'Ink Lines' is not NAME=SCALES", "write NAME=0.2..0.8/4"),
        ("Ink Lines:0.2..0.8/4", "is not NAME=SCALES", "write NAME=0.2..0.8/4"),
        ("=0.5", "'=0.5' is not NAME=SCALES", ""),
        ("", "'' is not NAME=SCALES", ""),
        ("A=", "a scale is missing", "NAME=0.2,0.5,0.8"),
        ("A=0.2,", "a scale is missing", ""),
        ("A=0.2;0.5", "'0.2;0.5' is not a scale", ""),
        ("A=0,5x", "'5x' is not a scale", ""),
        ("A=nan", "'nan' is not a scale", ""),
        ("A=\u0663", "is not a scale", ""),
        ("A=0.2..0.8", "A=0.2..0.8 doesn't say how many scales", "write A=0.2..0.8/4 for 4"),
        ("A=0.2..0.8/", "doesn't say how many", ""),
        ("A=0.2..0.8/0.2", "after / is how many", "write A=0.2..0.8/4 for steps of 0.2"),
        ("A=0.4..1.0/0.05", "after / is how many", "write A=0.4..1/13 for steps of 0.05"),
        ("A=0.2..0.8/0.35", "after / is how many", "write A=0.2..0.8/4 for 4"),
        ("A=0.2..0.8/0.001", "after / is how many", "write A=0.2..0.8/4 for 4"),
        ("A=0.2..0.8/1e-300", "after / is how many", "write A=0.2..0.8/4 for 4"),
        ("A=0.2..0.8/x", "after / is how many", ""),
        ("A=0.2..0.8/4,0.9", "after / is how many", ""),
        ("A=0.2..0.8/1", "a range has 2 to 25 scales", "A=0.2 for one"),
        ("A=0.2..0.8/26", "a range has 2 to 25 scales", ""),
        ("A=0.2..0.8/9999999999999999999999", "a range has 2 to 25 scales", ""),
        ("A=0..2.5/2", "the scale 2.5 is not within -2..2", ""),
        ("A=0..1e999/3", "the scale inf is not within -2..2", ""),
        ("A=3", "the scale 3 is not within -2..2", ""),
        ("A=0.5..0.5/2", "has the scale 0.5 twice", "leave one out"),
        ("A=0..0.0001/9", "has the scale 0 twice", "rounded to 4 decimals"),
        ("A=0.5,0.50001", "has the scale 0.5 twice", ""),
        ("A=" + ",".join(f"0.{n:03}" for n in range(26)), "has 26 scales", "1 to 25"),
        ("A\x1b=x", "A\\x1b=x", ""),
    ],
)
def test_what_is_no_axis_is_refused_with_what_to_write(text: str, what: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_axes([text])
    assert what in refused.value.message
    assert hint in (refused.value.hint or "")


def test_two_axes_of_one_name() -> None:
    with pytest.raises(UsageError, match="two axes are named A"):
        parse_axes(["A=0.5", "A=0.6"])


@settings(max_examples=size(50, 5000), deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(2, 25))
def test_a_range_has_both_ends_and_is_even(first: int, last: int, count: int) -> None:
    low, high = first / 10_000, last / 10_000
    try:
        (scales,) = parse_axes([f"A={low:.4f}..{high:.4f}/{count}"]).values()
    except UsageError as error:
        assert abs(first - last) < count, error
        return
    assert (scales[0], scales[-1], len(scales)) == (low, high, count)
    steps = [b - a for a, b in pairwise(scales)]
    assert max(steps) - min(steps) < 2.1e-4
    assert parse_axes(["A=" + ",".join(f"{scale:g}" for scale in scales)]) == {"A": scales}


# --- of a recipe -------------------------------------------------------------------------


def test_axes_are_concepts_by_name_or_id() -> None:
    assert axes_of({INK: [0.5, 0.2], ID: [1]}, RECIPE) == (
        Axis(0, INK, (0.5, 0.2)),
        Axis(2, ID, (1.0,)),
    )
    assert axes_of({"Cafe\u0301": (0.5,)}, RECIPE) == (Axis(1, "Caf\u00e9", (0.5,)),)
    assert Axis(0, INK, (0.5,)).title(0.5) == "Ink Lines 0.5"


@pytest.mark.parametrize(
    ("axes", "what", "hint"),
    [
        ({}, "a sweep has 1 or 2 axes, not 0", "NAME="),
        ({INK: [1], ID: [1], "Caf\u00e9": [1]}, "1 or 2 axes, not 3", ""),
        ({"ink lines": [1]}, "recipes/knight.yaml has no concept ink lines", "mean Ink Lines?"),
        ({"Zebra": [1]}, "has no concept Zebra", f"it has Ink Lines, Caf\u00e9, {ID}"),
        ({"Caf\u00e9": [1], "Cafe\u0301": [0]}, "two axes are Caf\u00e9", "leave one out"),
        ({INK: []}, "the axis Ink Lines has 0 scales", "1 to 25"),
        ({INK: [float("nan")]}, "not within -2..2", ""),
    ],
)
def test_what_is_no_axis_of_the_recipe(axes: dict[str, list[float]], what: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        axes_of(axes, RECIPE)
    assert what in refused.value.message
    assert hint in (refused.value.hint or "")


def test_a_target_may_take_fewer_scales() -> None:
    axes = axes_of({INK: [-0.5, 1]}, RECIPE)
    check_limits(axes, (-2, 2), "")
    with pytest.raises(UsageError, match=r"the scale -0.5 of Ink Lines is outside 0..1 \(why\)"):
        check_limits(axes, (0, 1), "why")


def test_scales_have_four_decimals() -> None:
    assert checked_scales("A", [0.123456, 1 / 3]) == (0.1235, 0.3333)
