"""Contact sheets: pictures as they are, words beside them, and something in every place."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.grids import SMALL, cell, preview_grid, rendered, sweep_grid

from composer.errors import TargetError
from composer.images.sheet_layout import SheetLayout
from composer.images.sheets import MAT, sheet, sheet_files
from composer.previews.cells import Look

if TYPE_CHECKING:
    from pathlib import Path

    from composer.previews.report import GridResult

BEFORE = {"Watercolour": 0.5, "Ink Lines": 0.4}
AFTER = {"Watercolour": 0.5, "Ink Lines": 0.75}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def picture(result: GridResult, row: int, column: int) -> Image.Image:
    one = result.grid.cells[row][column]
    assert one is not None
    file = result.images[one.digest].file
    assert file is not None
    return Image.open(file).convert("RGB")


@pytest.fixture
def preview(tmp_path: Path) -> GridResult:
    rows = [("a castle on a hill", 7), ("a castle on a hill", 8), ("a road", 7)]
    return rendered(preview_grid(BEFORE, AFTER, rows), tmp_path)


@pytest.fixture
def sweep(tmp_path: Path) -> GridResult:
    return rendered(sweep_grid(("Ink", [0.2, 0.5]), ("Stone", [0.1, 0.6, 0.9])), tmp_path)


@pytest.mark.parametrize("kind", ["preview", "sweep"])
def test_pixels_are_those_of_the_pictures(kind: str, request: pytest.FixtureRequest) -> None:
    result: GridResult = request.getfixturevalue(kind)
    image, layout = opened(sheet(result, "png")), SheetLayout.of(result)
    assert image.size == layout.size
    for row, cells in enumerate(result.grid.cells):
        for column in range(len(cells)):
            found = image.crop(layout.box(row, column))
            assert found.tobytes() == picture(result, row, column).tobytes()


def test_webp_shows_the_same(preview: GridResult) -> None:
    data = sheet(preview, "webp")
    assert data[:4] + data[8:12] == b"RIFFWEBP"
    assert opened(data).size == SheetLayout.of(preview).size


@pytest.mark.parametrize("file_format", ["png", "webp"])
def test_equal_results_are_equal_bytes(
    preview: GridResult, file_format: str, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    again = rendered(preview.grid, tmp_path / "again")
    assert sheet(preview, file_format) == sheet(again, file_format)  # type: ignore[arg-type]


def test_large_pictures_become_smaller_all_alike(tmp_path: Path) -> None:
    result = rendered(preview_grid(BEFORE, AFTER, look=Look(1104, 832)), tmp_path)
    layout = SheetLayout.of(result)
    assert layout.cell == (512, 386)
    image = opened(sheet(result, "png"))
    small = picture(result, 0, 2).resize((512, 386), Image.Resampling.LANCZOS)
    x, y, *_ = layout.box(0, 2)
    assert image.getpixel((x + 256, y + 300)) == small.getpixel((256, 300))


def test_a_missing_picture_is_a_quiet_frame(tmp_path: Path) -> None:
    grid = preview_grid(BEFORE, AFTER)
    failed = {cell(BEFORE): TargetError("out of memory")}
    result = rendered(grid, tmp_path, errors=failed)
    image, layout = opened(sheet(result, "png")), SheetLayout.of(result)
    for column in (1, 3):  # before, and the difference
        colours = image.crop(layout.box(0, column)).getcolors(9999)
        assert colours is not None
        most = max(colours)[1]
        assert most == tuple(bytes.fromhex(MAT[1:]))
        assert len(colours) > 3  # and words
    assert image.crop(layout.box(0, 2)).tobytes() == picture(result, 0, 2).tobytes()


def test_a_file_that_is_no_image_is_a_quiet_frame(preview: GridResult) -> None:
    one = preview.grid.cells[0][2]
    assert one is not None
    file = preview.images[one.digest].file
    assert file is not None
    file.write_bytes(b"not a PNG")
    image, layout = opened(sheet(preview, "png")), SheetLayout.of(preview)
    assert image.getpixel(layout.box(0, 2)[:2]) != image.getpixel((0, 0))


def test_the_difference_stands_beside_the_pictures(preview: GridResult) -> None:
    """The LoRA's ellipse grew: its rim is marked, the middle and the corner are not."""
    image, layout = opened(sheet(preview, "png")), SheetLayout.of(preview)
    assert layout.headings[-1].title == "difference"
    box = layout.box(0, 3)
    reds = [
        (x, y)
        for x in range(SMALL.width)
        for y in range(SMALL.height)
        if _is_marked(image.getpixel((box[0] + x, box[1] + y)))
    ]
    assert reds
    assert len(reds) < SMALL.width * SMALL.height / 2
    assert image.getpixel((0, 0)) == (255, 255, 255)


def _is_marked(pixel: object) -> bool:
    assert isinstance(pixel, tuple)
    red, green, _ = pixel
    return bool(red > green + 40)


def test_without_before_nothing_is_compared(tmp_path: Path) -> None:
    result = rendered(preview_grid(None, AFTER), tmp_path)
    layout = SheetLayout.of(result)
    assert [heading.title for heading in layout.headings] == ["no LoRA", "after"]
    assert opened(sheet(result, "png")).size == layout.size


def test_both_formats_at_once(preview: GridResult) -> None:
    both = sheet_files(preview)
    assert both == {"png": sheet(preview, "png"), "webp": sheet(preview, "webp")}


def test_a_cell_that_stands_in_several_places_is_the_same_everywhere(sweep: GridResult) -> None:
    first, second = (sweep.grid.cells[row][0] for row in (0, 1))
    assert first is not None
    assert first == second
    image, layout = opened(sheet(sweep, "png")), SheetLayout.of(sweep)
    boxes = [layout.box(row, 0) for row in range(3)]
    assert len({image.crop(box).tobytes() for box in boxes}) == 1
