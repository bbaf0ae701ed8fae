"""A cell's digest names exactly one image."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo, mix_digest

INFO = RendererInfo("test", "1", "base")
A, B = Concept("lora_a", 0.5), Concept("lora_b", 0.25, "3")
CELL = Cell.of([A, B], "a fox", 7, Look(), INFO)


@given(st.permutations([A, B, Concept("lora_c", 0.0)]))
def test_order_and_what_has_no_effect_make_no_other_image(concepts: list[Concept]) -> None:
    cell = Cell.of(concepts, "a fox", 7, Look(), INFO)
    assert cell == CELL
    assert cell.mix == mix_digest(concepts)
    assert cell.digest == CELL.digest


def test_everything_else_does() -> None:
    others = [
        Cell.of([A], "a fox", 7, Look(), INFO),
        Cell.of([A, replace(B, epoch="4")], "a fox", 7, Look(), INFO),
        Cell.of([A, replace(B, scale=0.3)], "a fox", 7, Look(), INFO),
        replace(CELL, prompt="a cat"),
        replace(CELL, seed=8),
        *(replace(CELL, look=look) for look in (Look(width=512), Look(height=512))),
        *(replace(CELL, look=look) for look in (Look(steps=4), Look(guidance=0.0))),
        *(replace(CELL, renderer=replace(INFO, **{f: "x"})) for f in INFO.__slots__),
    ]
    assert len({cell.digest for cell in [CELL, *others]}) == len(others) + 1


def test_a_digest_stays_what_it_is() -> None:
    """An image that was paid for must not be lost to another spelling of its name."""
    assert CELL.digest == ("c65deca380eb511760d8768f3c7ffaae9e26266185064cf9cd97984b152f6c02")


def test_its_description_is_read_back() -> None:
    assert Cell.described(CELL.description) == CELL
    for text in ("", "[]", "{}", CELL.description.replace("seed", "sown")):
        with pytest.raises(ValueError):
            Cell.described(text)
