"""The pictures of a report as data URIs: each once, small enough, and those of the differences."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image
from support.grids import cell, preview_grid, rendered, sweep_grid

from composer.errors import TargetError
from composer.images import embedding
from composer.images.embedding import embedded
from composer.previews.grid import difference_key
from composer.previews.report import PreviewReport

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BEFORE, AFTER = {"Ink Lines": 0.4}, {"Ink Lines": 0.75}


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_every_cell_and_every_difference(tmp_path: Path) -> None:
    result = rendered(preview_grid(BEFORE, AFTER, [("a road", 1), ("a road", 2)]), tmp_path)
    images = embedded(PreviewReport(grids=(result,)))
    pairs = [difference_key(*(one for one in row[1:] if one)) for row in result.grid.cells]
    assert {*images} == {*result.images, *pairs}
    assert {opened(uri).size for uri in images.values()} == {(128, 96)}


def test_what_has_no_picture_has_none(tmp_path: Path) -> None:
    failed = {cell(BEFORE): TargetError("out of memory")}
    result = rendered(preview_grid(BEFORE, AFTER), tmp_path, errors=failed)
    broken = result.images[cell(AFTER).digest].file
    assert broken is not None
    broken.write_bytes(b"no image")
    assert {*embedded(PreviewReport(grids=(result,)))} == {cell({}).digest}


def test_a_sweep_has_no_differences(tmp_path: Path) -> None:
    result = rendered(sweep_grid(("Ink", [0.2]), ("Stone", [0.5])), tmp_path)
    assert {*embedded(PreviewReport(grids=(result,)))} == {*result.images}


def test_many_pictures_are_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = rendered(preview_grid(BEFORE, AFTER), tmp_path)
    for widths, width in [(((4, 100),), 100), (((3, 100), (9, 50)), 50), (((3, 100),), 64)]:
        monkeypatch.setattr(embedding, "WIDTHS", widths)
        monkeypatch.setattr(embedding, "NARROWEST", 64)
        images = embedded(PreviewReport(grids=(result,)))
        assert {opened(uri).width for uri in images.values()} == {width}
