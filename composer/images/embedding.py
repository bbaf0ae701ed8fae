"""The images of a report for a page: data URIs that stand in it, so that it needs no other file.

They are WebP of high quality, about a tenth of a PNG; the PNG files stay as they are.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from composer.images.copies import narrowed, web_copies, webp
from composer.images.decoding import BadImage
from composer.images.difference import difference_picture
from composer.previews.grid import difference_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.previews.report import GridResult, PreviewReport

DIFFERENCE_QUALITY = 70
# A page of so many images has them so many pixels wide, so that browsers can open it.
WIDTHS = ((100, 1280), (300, 832), (1_000, 512))
NARROWEST = 320


def embedded(report: PreviewReport) -> dict[str, str]:
    """Data URIs by the cells' digests, and those of the differences by `difference_key`.

    An image whose file can't be read has none.
    """
    count = sum(len(result.images) + len(result.differences) for result in report.grids)
    width = next((width for most, width in WIDTHS if count <= most), NARROWEST)
    images: dict[str, str] = {}
    for result in report.grids:
        for digest, image in result.images.items():
            if image.file is not None and digest not in images:
                images.update(_cell(digest, image.file, width))
        images.update(_differences(result, width))
    return images


def _cell(digest: str, file: Path, width: int) -> Iterator[tuple[str, str]]:
    try:
        yield digest, _uri(web_copies(file.read_bytes(), (width,))[0])
    except (BadImage, OSError):
        return


def _differences(result: GridResult, width: int) -> Iterator[tuple[str, str]]:
    for row in range(len(result.grid.rows)):
        pair = result.grid.compared(row)
        files = [result.images[cell.digest].file for cell in pair or ()]
        if pair and all(files):
            try:
                image = narrowed(difference_picture(*filter(None, files)), width)
                yield difference_key(*pair), _uri(webp(image, DIFFERENCE_QUALITY))
            except (BadImage, OSError):
                continue


def _uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
