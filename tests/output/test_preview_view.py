"""The words of a preview: prices, counts, differences and mixes."""

from __future__ import annotations

import pytest
from output.test_preview_markdown import result
from support.grids import sweep_grid

from composer.errors import TargetError
from composer.output.preview_view import mix_lines, price_words, result_words
from composer.previews.report import CellImage, GridResult, PreviewReport, Price
from composer.text import amount, percent


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (Price(8, 4, 72), "12 images: 8 to make, 4 already there; price 72"),
        (Price(0, 4), "4 images: 4 already there"),
        (Price(1, 0, 0.25), "1 image: 1 to make; price 0.25"),
        (Price(), "0 images"),
    ],
)
def test_prices(price: Price, words: str) -> None:
    assert price_words(price) == words


def test_results() -> None:
    one = result()
    failed = {digest: CellImage(error=TargetError("spilt")) for digest in [*one.images][:1]}
    pictures = {**one.images, **failed}
    report = PreviewReport("t", (GridResult(one.grid, pictures),), 1, Price(5, 2, 10), 2.0)
    assert result_words(report) == (
        "7 images: 1 made, 2 already there, 1 failed, 3 not made; cost 2"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [(0.0, "0"), (36.0, "36"), (1234567.0, "1234567"), (0.1 + 0.2, "0.3"), (2.50, "2.5")],
)
def test_amounts_are_never_in_powers_of_ten(number: float, words: str) -> None:
    assert amount(number) == words


def test_what_differs_is_never_shown_as_nothing() -> None:
    assert [percent(x) for x in (0.0, 0.0001, 0.0421, 1.0)] == [
        "0.0%",
        "under 0.1%",
        "4.2%",
        "100.0%",
    ]


def test_a_mix_as_a_plan_shows_it() -> None:
    assert [*mix_lines(result().grid)] == [("0.50 -> 0.70", "Knight Ink")]


def test_a_sweep_tells_what_stands_in_its_columns_and_rows() -> None:
    grid = sweep_grid(("Ink", [0.2, 0.5]), ("Stone", [0.1, 0.6]), prompt="a fox " * 20)
    assert list(mix_lines(grid)) == [
        ("A", "no LoRA"),
        ("B", "Ink 0.2"),
        ("C", "Ink 0.5"),
        ("1", f"Stone 0.1, {('a fox ' * 20)[:59]}…, seed 7"),
        ("2", "Stone 0.6"),
    ]
