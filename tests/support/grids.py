"""Grids of painted cells, as previews and sweeps make them, with their pictures on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support import painter

from composer.images.difference import mean_difference
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.previews.grid import AFTER, BEFORE, NO_LORA, Grid, Heading
from composer.previews.report import CellImage, GridResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from composer.errors import ComposeError

    Paint = Callable[[Cell], bytes]

SMALL = Look(width=128, height=96)
PROMPT = "a castle on a hill"
Mix = dict[str, float]  # scales by the LoRA's name


def cell(mix: Mapping[str, float], prompt: str = PROMPT, seed: int = 7, look: Look = SMALL) -> Cell:
    concepts = [Concept(f"model_{name.split()[0].lower()}", scale) for name, scale in mix.items()]
    return Cell.of(concepts, prompt, seed, look, painter.INFO)


def preview_grid(
    before: Mix | None,
    after: Mix,
    rows: Sequence[tuple[str, int]] = ((PROMPT, 7),),
    *,
    look: Look = SMALL,
    name: str = "Storybook Knight",
) -> Grid:
    """The columns no LoRA, before (if it was there) and after; a row for each prompt and seed."""
    mixes = {NO_LORA: {}, **({BEFORE: before} if before is not None else {}), AFTER: after}
    columns = [Heading(title, _lines(mix)) for title, mix in mixes.items()]
    headings = tuple(Heading(prompt, (f"seed {seed}",)) for prompt, seed in rows)
    cells = tuple(
        tuple(cell(mix, prompt, seed, look) for mix in mixes.values()) for prompt, seed in rows
    )
    path = f"recipes/{name.lower().replace(' ', '-')}.yaml"
    return Grid(path, name, tuple(columns), headings, cells)


def sweep_grid(
    axis: tuple[str, Sequence[float]],
    other: tuple[str, Sequence[float]],
    *,
    look: Look = SMALL,
    prompt: str = PROMPT,
) -> Grid:
    """Scales of one LoRA as columns, those of another one as rows."""
    columns = (Heading(NO_LORA), *(_scale(axis[0], scale) for scale in axis[1]))
    rows = tuple(_scale(other[0], scale, (prompt, "seed 7")) for scale in other[1])
    cells = tuple(
        (
            cell({}, prompt, look=look),
            *(cell({axis[0]: x, other[0]: y}, prompt, look=look) for x in axis[1]),
        )
        for y in other[1]
    )
    return Grid("recipes/storybook-knight.yaml", "Storybook Knight", columns, rows, cells)


def _scale(name: str, scale: float, lines: tuple[str, ...] = ()) -> Heading:
    return Heading(f"{name} {scale:g}", lines, name)


def rendered(
    grid: Grid,
    folder: Path,
    *,
    paint: Paint = painter.paint,
    errors: Mapping[Cell, ComposeError] | None = None,
) -> GridResult:
    """The grid with its pictures in this folder, but for the cells that have an error."""
    failed = errors or {}
    pictures = {one.digest: _picture(one, folder, paint, failed.get(one)) for one in grid}
    result = GridResult(grid, pictures)
    rows = range(len(grid.rows)) if grid.compared(0) else ()
    return replace(result, differences=tuple(_difference(result, row) for row in rows))


def _picture(cell: Cell, folder: Path, paint: Paint, error: ComposeError | None) -> CellImage:
    if error is not None:
        return CellImage(error=error)
    file = folder / f"{cell.digest}.png"
    if not file.exists():
        file.write_bytes(paint(cell))
    return CellImage(file)


def _difference(result: GridResult, row: int) -> float | None:
    pair = result.grid.compared(row)
    files = [result.images[one.digest].file for one in pair or ()]
    return mean_difference(*filter(None, files)) if files and all(files) else None


def _lines(mix: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{scale:.2f}  {name}" for name, scale in mix.items())
