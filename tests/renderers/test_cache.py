"""An image is kept under its cell's digest, whole or not at all."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from composer.images.decoding import BadImage
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.cache import CellCache

if TYPE_CHECKING:
    from pathlib import Path

CELL = Cell.of([], "a fox", 7, Look(), RendererInfo("test", "1", "base"))


def png() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (4, 2), "red").save(written, "PNG")
    return written.getvalue()


def test_what_is_kept_is_there(tmp_path: Path) -> None:
    cache = CellCache(tmp_path)
    assert CELL not in cache
    cache.keep(CELL, png())
    assert CELL in cache
    assert cache.path(CELL).name == f"{CELL.digest}.png"
    assert CELL in CellCache(tmp_path)


def test_nothing_is_left_of_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage):
        CellCache(tmp_path).keep(CELL, b"no image")
    assert not list(tmp_path.rglob("*.png"))
