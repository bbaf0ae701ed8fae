"""The pictures of a report for a page: data URIs that stand in it, so that it needs no other file.

They are WebP of high quality, about a tenth of a PNG; the PNG files stay as they are.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from composer.images.decoding import BadImage, decode
from composer.images.difference import difference_picture
from composer.previews.grid import difference_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

    from composer.previews.report import GridResult, PreviewReport

QUALITY, DIFFERENCE_QUALITY = 88, 70


def embedded(report: PreviewReport) -> dict[str, str]:
    """Data URIs by the cells' digests, and those of the differences by `difference_key`.

    A picture whose file can't be read has none.
    """
    images: dict[str, str] = {}
    for result in report.grids:
        for digest, picture in result.pictures.items():
            if picture.file is not None and digest not in images:
                images.update(_cell(digest, picture.file))
        images.update(_differences(result))
    return images


def _cell(digest: str, file: Path) -> Iterator[tuple[str, str]]:
    try:
        yield digest, _uri(decode(file.read_bytes()), QUALITY)
    except (BadImage, OSError):
        return


def _differences(result: GridResult) -> Iterator[tuple[str, str]]:
    for row in range(len(result.grid.rows)):
        pair = result.grid.compared(row)
        files = [result.pictures[cell.digest].file for cell in pair or ()]
        if pair and all(files):
            try:
                image = difference_picture(*filter(None, files))
                yield difference_key(*pair), _uri(image, DIFFERENCE_QUALITY)
            except (BadImage, OSError):
                continue


def _uri(image: Image.Image, quality: int) -> str:
    written = io.BytesIO()
    image.save(written, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
