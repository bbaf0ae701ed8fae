"""The images that this machine has: one PNG for each cell, named by the cell's digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.files.atomic import write_atomically
from composer.images.decoding import as_png

if TYPE_CHECKING:
    from pathlib import Path

    from composer.previews.cells import Cell

FOLDER = "previews"  # in the state folder


class CellCache:
    """The images in a folder, which exists. Safe between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell) -> Path:
        """Where the cell's image is, or would be."""
        return self.folder / "cells" / cell.digest[:2] / f"{cell.digest}.png"

    def __contains__(self, cell: Cell) -> bool:
        return self.path(cell).is_file()

    def keep(self, cell: Cell, image: bytes) -> None:
        """Keep this image, decoded and written anew. Raises `BadImage`, `OSError`."""
        png = as_png(image)
        path = self.path(cell)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, png)
