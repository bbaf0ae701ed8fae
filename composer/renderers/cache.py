"""The images that this machine has: one PNG for each cell, named by the cell's digest.

Beside them, in `mixes/`, is what each cell is, so that all images of a mix can be found.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from composer.files.atomic import write_atomically
from composer.images.decoding import as_png
from composer.previews.cells import Cell, mix_digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from composer.model import Concept

FOLDER = "previews"  # in the state folder
_START = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"


class CellCache:
    """The images in a folder, which exists. Safe between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell) -> Path:
        """Where the cell's image is, or would be."""
        return self.folder / "cells" / cell.digest[:2] / f"{cell.digest}.png"

    def __contains__(self, cell: Cell) -> bool:
        return _is_whole(self.path(cell))

    def keep(self, cell: Cell, image: bytes) -> None:
        """Decode this image, encode it again, and keep it. Raises `BadImage`, `OSError`."""
        png = as_png(image)
        self._describe(cell)  # first: what has its image is never made again
        path = self.path(cell)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, png)

    def of_mix(self, concepts: Iterable[Concept]) -> list[Cell]:
        """The cells of these concepts whose images are here, the newest first."""
        try:
            files = list(self._mix(mix_digest(concepts)).iterdir())
        except OSError:
            return []
        dated = []
        for file in files:
            with suppress(OSError, ValueError):  # one that was deleted meanwhile, or is damaged
                cell = Cell.described(file.read_text("utf-8"))
                dated.append((self.path(cell).stat().st_mtime_ns, cell.digest, cell))
        return [cell for _, _, cell in sorted(dated, key=lambda one: one[:2], reverse=True)]

    def _mix(self, digest: str) -> Path:
        return self.folder / "mixes" / digest[:2] / digest

    def _describe(self, cell: Cell) -> None:
        file = self._mix(cell.mix) / f"{cell.digest}.json"
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, cell.description.encode())


def _is_whole(file: Path) -> bool:
    """Whether a PNG is there from its start to its end, as no disk that failed leaves one."""
    with suppress(OSError), open(file, "rb") as stream:
        start = stream.read(len(_START))
        stream.seek(-len(_END), os.SEEK_END)
        return start == _START and stream.read() == _END
    return False
