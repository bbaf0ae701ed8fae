"""The pages on a project, as files in a folder: what `Project.write_report` does."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from composer.files import site
from composer.images.copies import web_copies
from composer.images.decoding import MAX_BYTES, BadImage
from composer.output.gallery import INDEX, WIDTHS, Pages, image_name
from composer.output.gallery_view import WrittenReport
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from composer.output.gallery import Page
    from composer.project.reporting import ProjectReport

log = logging.getLogger("composer.report")


def write_report(
    report: ProjectReport,
    folder: Path,
    *,
    dry_run: bool,
    progress: Callable[[float], None],
) -> WrittenReport:
    """See `Project.write_report`."""
    pages = Pages(report, report.details, compared=report.compared)
    files = {page.name: page for page in pages}
    copies = {image_name(digest, end): digest for digest in report.files for end in WIDTHS}
    digests = {name: page.digest for name, page in files.items()} | copies
    with site.opened(folder, dry_run=dry_run) as place:
        missing = place.plan(digests)
        if missing and not dry_run:
            for number, (name, data) in enumerate(_made(report, files, copies, missing), 1):
                place.write(name, data)
                progress(number / len(missing))
            progress(1.0)
    return WrittenReport(
        str(folder),
        str(folder / INDEX),
        pages.names,
        tuple(place.written),
        tuple(place.kept),
        tuple(place.removed),
    )


def _made(
    report: ProjectReport,
    files: Mapping[str, Page],
    copies: Mapping[str, str],
    missing: Collection[str],
) -> Iterator[tuple[str, bytes]]:
    """The pages and the copies of images that are missing, each with its name."""
    for name in missing:
        if name in files:
            yield name, files[name].text().encode("utf-8")
    needed = sorted({copies[name] for name in missing if name in copies})
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        for made in pool.map(lambda digest: _copied(digest, report.files[digest]), needed):
            yield from made.items()


def _copied(digest: str, file: Path) -> dict[str, bytes]:
    """The copies of an image. Without them, where it can't be read, pages show its prompt."""
    try:
        with file.open("rb") as opened:
            data = web_copies(opened.read(MAX_BYTES + 1), tuple(WIDTHS.values()))
    except (OSError, BadImage) as error:
        log.warning("the image %s can't be shown: %s", visible(str(file)), error)
        return {}
    return {image_name(digest, end): copy for end, copy in zip(WIDTHS, data, strict=True)}
