"""An image is kept under its cell's digest, whole or not at all."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from composer.images.decoding import BadImage
from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.cache import CellCache

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.mark.parametrize(
    "part", [lambda png: b"", lambda png: png[:-1], lambda png: b"\0" * len(png)]
)
def test_what_a_full_or_failing_disk_left_is_made_again(
    tmp_path: Path, part: Callable[[bytes], bytes]
) -> None:
    cache = CellCache(tmp_path)
    cache.keep(CELL, png())
    whole = cache.path(CELL).read_bytes()
    cache.path(CELL).write_bytes(part(whole))
    assert CELL not in cache
    cache.keep(CELL, png())
    assert CELL in cache and cache.path(CELL).read_bytes() == whole


def test_nothing_is_left_of_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage):
        CellCache(tmp_path).keep(CELL, b"no image")
    assert not list(tmp_path.rglob("*.png"))


def test_all_images_of_a_mix_are_found_the_newest_first(tmp_path: Path) -> None:
    cache, mix = CellCache(tmp_path), [Concept("lora_b", 0.5, "3"), Concept("lora_a", 0.25)]
    cells = [Cell.of(mix, "a fox 🦊", seed, CELL.look, CELL.renderer) for seed in (1, 2, 3)]
    for age, cell in enumerate(cells):
        cache.keep(cell, png())
        os.utime(cache.path(cell), (1e9 - age, 1e9 - age))
    cache.keep(CELL, png())
    other = replace(cells[0], prompt="a cat")
    cache.keep(other, png())
    os.utime(cache.path(other), (2e9, 2e9))
    reordered = [*reversed(mix), Concept("lora_c", 0.0)]
    assert CellCache(tmp_path).of_mix(reordered) == [other, *cells]
    assert cache.of_mix(mix[:1]) == []
    assert cache.of_mix([]) == [CELL]


def test_what_has_no_image_or_is_damaged_is_not_found(tmp_path: Path) -> None:
    cache = CellCache(tmp_path)
    cells = [replace(CELL, seed=seed) for seed in (1, 2, 3)]
    for cell in cells:
        cache.keep(cell, png())
    cache.path(cells[0]).unlink()
    (damaged,) = tmp_path.rglob(f"{cells[1].digest}.json")
    for text in ("", "{}", "[]", '{"concepts": 1}', "\ud800".encode("utf-8", "surrogatepass")):
        damaged.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert cache.of_mix([]) == [cells[2]]
    cache.keep(cells[0], png())
    assert {*cache.of_mix([])} == {cells[0], cells[2]}
