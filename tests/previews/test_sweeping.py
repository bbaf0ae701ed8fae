"""The grid of a sweep, and which scales stand at its places."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import FLUX
from support.sizes import size

from composer.errors import ExitStatus, Refused, UsageError
from composer.model import Concept, ConceptRef, Recipe
from composer.previews.axes import Axis, parse_axes
from composer.previews.cells import Cell, Look, PreviewSettings, RendererInfo
from composer.previews.grid import NO_LORA, Heading, place_name
from composer.previews.shots import Shot, shots
from composer.previews.sweeping import Places, Sweep, axis_arguments, check_size, sweep_grid

INFO = RendererInfo("test", "1", "base")
RECIPE = Recipe(
    path="recipes/knight.yaml",
    name="Knight",
    concepts=(ConceptRef(0.5, name="Pixel"), ConceptRef(0.7, name="Ink")),
    types=FLUX,
)
CONCEPTS = (Concept("lora_b", 0.5), Concept("lora_a", 0.7, "000010"))
INK, PIXEL = Axis(1, "Ink", (0.2, 0.4, 0)), Axis(0, "Pixel", (1, 0.9))


def cell(prompt: str, seed: int, concepts: list[Concept]) -> Cell:
    return Cell.of(concepts, prompt, seed, Look(), INFO)


def fox(*seeds: int) -> tuple[Shot, ...]:
    return shots(RECIPE, PreviewSettings(("a fox",), seeds), INFO)


def mix(seed: int, pixel: float, ink: float) -> Cell:
    return cell("a fox", seed, [Concept("lora_a", ink, "000010"), Concept("lora_b", pixel)])


def test_axes_are_named_as_the_recipe_names_its_loras() -> None:
    scales = {"Ink": (0.2, 0.4, 0), "Pixel": [1, 0.9]}
    assert Sweep.of(RECIPE, scales) == Sweep(RECIPE, (INK, PIXEL))
    with pytest.raises(UsageError, match="no concept Inc"):
        Sweep.of(RECIPE, {"Inc": [1]})


def test_columns_are_without_lora_and_the_scales() -> None:
    grid = sweep_grid(Sweep(RECIPE, (INK,)), CONCEPTS, fox(7, 8))
    assert (grid.path, grid.name) == (RECIPE.path, RECIPE.name)
    assert [one.title for one in grid.columns] == [NO_LORA, "Ink 0.2", "Ink 0.4", "Ink 0"]
    assert grid.rows == (Heading("a fox", ("seed 7",)), Heading("a fox", ("seed 8",)))
    assert grid.cells == tuple(
        (cell("a fox", n, []), mix(n, 0.5, 0.2), mix(n, 0.5, 0.4), mix(n, 0.5, 0)) for n in (7, 8)
    )


def test_rows_are_the_scales_of_the_second_axis_for_each_prompt_and_seed() -> None:
    grid = sweep_grid(Sweep(RECIPE, (INK, PIXEL)), CONCEPTS, fox(7, 8))
    assert [(one.title, one.lines) for one in grid.rows] == [
        ("Pixel 1", ("a fox", "seed 7")),
        ("Pixel 0.9", ("a fox", "seed 7")),
        ("Pixel 1", ("a fox", "seed 8")),
        ("Pixel 0.9", ("a fox", "seed 8")),
    ]
    assert grid.cells[3] == (
        cell("a fox", 8, []), mix(8, 0.9, 0.2), mix(8, 0.9, 0.4), mix(8, 0.9, 0)
    )  # fmt: skip


@pytest.mark.parametrize("axes", [(INK,), (INK, PIXEL)])
def test_the_axes_of_a_grid_as_arguments(axes: tuple[Axis, ...]) -> None:
    grid = sweep_grid(Sweep(RECIPE, axes), CONCEPTS, fox(7, 8))
    assert axis_arguments(grid) == ["Ink=0.2,0.4,0", "Pixel=1,0.9"][: len(axes)]
    assert Sweep.of(RECIPE, parse_axes(axis_arguments(grid))).axes == axes


@settings(max_examples=size(20, 1000), deadline=None)
@given(st.integers(1, 25), st.integers(0, 25), st.integers(1, 4))
def test_a_place_has_the_scales_of_its_cell(first: int, second: int, blocks: int) -> None:
    axes = [Axis(1, "Ink", tuple(n / 100 for n in range(1, first + 1)))]
    axes += [Axis(0, "Pixel", tuple(n / 50 for n in range(1, second + 1)))] * bool(second)
    grid = sweep_grid(Sweep(RECIPE, tuple(axes)), CONCEPTS, fox(*range(blocks)))
    places = Places(tuple(axes), blocks)
    assert (places.rows, places.columns) == (len(grid.rows), len(grid.columns))
    assert len(set(grid)) == blocks * (1 + first * max(1, second))
    for row, cells in enumerate(grid.cells):
        for column, one in enumerate(cells[1:], start=1):
            scales = places.named(place_name(row, column))
            assert one is not None
            assert {c.model_id: c.scale for c in one.concepts} == {
                "lora_a": scales[1],
                "lora_b": scales.get(0, 0.5),
            }


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("A1", "A1 is in the column without LoRA"),
        ("a4", "a4 is in the column without LoRA"),
        ("A5", "the sweep has no place A5"),
        ("B0", "no place B0"),
        ("B5", "no place B5"),
        ("E1", "no place E1"),
        ("B", "no place B"),
        ("3", "no place 3"),
        ("", "no place "),
        ("B\u0663", "no place B\u0663"),
        ("B99999999999999999999", "no place B9"),
        ("BB1\x1b", r"no place BB1\\x1b"),
    ],
)
def test_a_place_that_has_no_scales(place: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as refused:
        Places((INK, PIXEL), 2).named(place)
    assert "from B1 to D4" in (refused.value.hint or "")


def test_places_in_small_letters() -> None:
    assert Places((INK, PIXEL), 2).named(" d2 ") == {1: 0, 0: 0.9}


def test_equal_images_count_once_for_the_limit() -> None:
    grid = sweep_grid(Sweep(RECIPE, (INK, PIXEL)), CONCEPTS, fox(7, 8))
    check_size(grid, 14)  # 24 places, of which 8 are the two without LoRA
    with pytest.raises(Refused, match="the sweep has 14 images, more than 13") as refused:
        check_size(grid, 13)
    assert (refused.value.exit_status, refused.value.hint) == (
        ExitStatus.REFUSED,
        "--limit 14 allows them; fewer scales, prompts or seeds make fewer images",
    )
