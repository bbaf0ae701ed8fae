"""Contact sheets: all images of one recipe in a grid, with words beside them, never on them.

A preview's rows have their heading above them, and end with an image of where *before* and *after*
differ. A sweep's rows, which may be scales too, have it at their left. Sheets are light, so that
they are the same in both themes of a forge.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageDraw, ImageOps

from composer.images.decoding import BadImage, decode
from composer.images.difference import difference_picture
from composer.images.sheet_layout import GAP, TEXT, Line, SheetLayout
from composer.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.previews.cells import Cell
    from composer.previews.report import CellImage, GridResult

    Format = Literal["png", "webp"]
    Box = tuple[int, int, int, int]

PAPER, MAT, INK, DIM, EDGE = "#ffffff", "#f4f4f4", "#1d2433", "#566072", "#d5dae3"
LONGEST_REASON = 200  # characters


def sheet(result: GridResult, file_format: Format) -> bytes:
    """The contact sheet of a grid as a file; equal results are equal bytes."""
    return _written(draw_sheet(SheetLayout.of(result)), file_format)


def sheet_files(result: GridResult) -> dict[Format, bytes]:
    """The contact sheet in every format."""
    image = draw_sheet(SheetLayout.of(result))
    return {"png": _written(image, "png"), "webp": _written(image, "webp")}


def _written(image: Image.Image, file_format: Format) -> bytes:
    written = io.BytesIO()
    if file_format == "webp":
        image.save(written, "WEBP", quality=90, method=4)
    else:
        image.save(written, "PNG")
    return written.getvalue()


def draw_sheet(layout: SheetLayout) -> Image.Image:
    """The sheet as an image."""
    image = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(image)
    _write(draw, [*layout.title, *layout.columns, *layout.rest])
    drawn: dict[Cell, Box] = {}
    for row in range(layout.rows):
        _write(draw, layout.row(row))
        for column, cell in enumerate(layout.result.grid.cells[row]):
            box = layout.box(row, column)
            if cell in drawn:
                image.paste(image.crop(drawn[cell]), box)
            else:
                _place(image, box, cell, layout.result)
            if cell is not None:
                drawn[cell] = box
        if layout.compared:
            _place_difference(image, layout, row)
    return image


def _write(draw: ImageDraw.ImageDraw, lines: Iterable[Line]) -> None:
    for line in lines:
        x = line.x - line.lettering.width(line.text) if line.right else line.x
        line.lettering.draw(draw, (x, line.baseline), line.text, DIM if line.dim else INK)


def _place(image: Image.Image, box: Box, cell: Cell | None, result: GridResult) -> None:
    """An image in its place, or why there is none."""
    if cell is None:
        return _explain(image, box, "no image to make")
    found = _opened(result.images.get(cell.digest))
    if isinstance(found, str):
        return _explain(image, box, found)
    _paste(image, box, found)
    return None


def _opened(found: CellImage | None) -> Image.Image | str:
    """The image, or the reason why there is none."""
    if found is None or found.file is None:
        error = found and found.error
        return error.message if error else "not rendered"
    try:
        return decode(found.file.read_bytes())
    except (BadImage, OSError) as error:
        return f"its file can't be read: {error}"


def _paste(image: Image.Image, box: Box, picture: Image.Image) -> None:
    """The whole image in the middle of its place, smaller where it has to be."""
    x, y, right, bottom = box
    size = (right - x, bottom - y)
    if picture.width > size[0] or picture.height > size[1]:
        picture = ImageOps.contain(picture, size, Image.Resampling.LANCZOS)
    if picture.size != size:
        ImageDraw.Draw(image).rectangle((x, y, right - 1, bottom - 1), fill=MAT)
    image.paste(picture, (x + (size[0] - picture.width) // 2, y + (size[1] - picture.height) // 2))


def _explain(image: Image.Image, box: Box, reason: str) -> None:
    """A quiet frame with words in its middle."""
    x, y, right, bottom = box
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, right - 1, bottom - 1), fill=MAT, outline=EDGE, width=2)
    step, room = TEXT.size + 7, right - x - 2 * GAP
    most = max(1, (bottom - y - GAP) // step)
    lines = TEXT.wrap(shorten(reason, LONGEST_REASON), room, most) if room > TEXT.size else []
    top = (y + bottom - len(lines) * step) // 2 + TEXT.size
    for n, text in enumerate(lines):
        middle = (x + right - TEXT.width(text)) // 2
        TEXT.draw(draw, (middle, top + n * step), text, DIM)


def _place_difference(image: Image.Image, layout: SheetLayout, row: int) -> None:
    """The image of *after*, pale and grey, with the places marked that *before* has not."""
    assert layout.compared
    box, files = layout.box(row, len(layout.headings) - 1), []
    for column in layout.compared:
        cell = layout.result.grid.cells[row][column]
        picture = layout.result.images.get(cell.digest) if cell else None
        files.append(picture.file if picture else None)
    before, after = files
    if before is None or after is None:
        return _explain(image, box, "nothing to compare")
    try:
        _paste(image, box, difference_picture(before, after))
    except (BadImage, OSError):
        _explain(image, box, "nothing to compare")
    return None
