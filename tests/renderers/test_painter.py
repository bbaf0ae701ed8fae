"""The renderer of the tests is one: what it paints, counts, charges, and where it fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.painter import INFO, Painter, as_plugin, paint

from composer.errors import TargetError, UsageError
from composer.images.decoding import decode
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers.cache import CellCache
from composer.renderers.registry import find_kind

if TYPE_CHECKING:
    from composer.renderers.base import Renderer, Rendering

SMALL = Look(width=128, height=128)
CELLS = [Cell.of([Concept("lora_a", scale)], "a fox", 7, SMALL, INFO) for scale in (0, 0.5, 0.51)]


def test_each_cell_has_its_own_picture_and_always_the_same() -> None:
    others = [replace(CELLS[0], prompt="a cat"), replace(CELLS[0], seed=8)]
    pictures = [paint(cell) for cell in [*CELLS, *others]]
    assert len({decode(picture).tobytes() for picture in pictures}) == len(pictures)
    assert pictures[0] == paint(CELLS[0])
    assert decode(pictures[0]).size == (128, 128)


def test_it_counts_and_charges_and_fails(tmp_path: Path) -> None:
    painter: Renderer = Painter(each=2.0, fails={2: TargetError("spilt")})
    assert isinstance(painter, Painter)
    told: list[Rendering] = []
    assert painter.charges and painter.price(CELLS) == 6
    cache = CellCache(tmp_path)
    rendered = painter.render(CELLS, cache.keep, max_cost=6, tell=told.append)
    assert painter.made == [CELLS[0], CELLS[2]] == [cell for cell in CELLS if cell in cache]
    assert [str(error) for error in rendered.errors.values()] == ["spilt"]
    assert rendered.spent == 4 == sum(one.cost or 0 for one in told)
    with pytest.raises(UsageError):
        painter.check([replace(CELLS[0], prompt="")])


def test_it_is_killed_before_a_cell(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from renderers.test_painter import *;"
        "out = Path(sys.argv[1]); painter = Painter(dies_at=3, log=out / 'log');"
        "painter.render(CELLS, CellCache(out).keep)"
    )
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, cwd=tests).returncode == -9
    assert (tmp_path / "log").read_text().split() == [cell.digest for cell in CELLS[:2]]


def test_it_is_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    as_plugin(monkeypatch, Painter())
    assert find_kind("painter").name == "painter"
