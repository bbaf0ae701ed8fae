"""What `compose report` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import dumped, painted
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.output.gallery_view import Gallery, WrittenReport

FORMAT_VERSION = 1


def text(gallery: Gallery, written: WrittenReport, *, dry_run: bool, color: bool = False) -> str:
    """What the pages show, what could not be found out, and how many files were written."""
    return "".join(f"{line}\n" for line in _lines(gallery, written, dry_run, color))


def _lines(gallery: Gallery, written: WrittenReport, dry_run: bool, color: bool) -> Iterator[str]:
    with_images = sum(bool(one.images) for one in gallery.compositions)
    shown = (
        counted(len(gallery.compositions), "composition"),
        counted(len(gallery.loras), "LoRA"),
        f"{with_images:,} with images",
    )
    yield ", ".join(shown)
    yield from (painted(visible(note), "yellow", color=color) for note in gallery.notes)
    removed = f", {len(written.removed):,} removed" if written.removed else ""
    would = "would be " if dry_run else ""
    changed = f"{counted(len(written.written), 'file')} {would}written"
    yield f"{changed} to {visible(written.folder)}, {len(written.kept):,} unchanged{removed}"


def as_json(gallery: Gallery, written: WrittenReport, *, dry_run: bool) -> str:
    """The same for programs, with the page of each composition."""
    pages = [
        {
            "recipe": one.path,
            "name": one.name,
            "state": str(one.state),
            **({"composition": one.id} if one.id else {}),
            "page": written.pages[one.path],
            "images": len(one.images),
        }
        for one in gallery.compositions
    ]
    plain = {
        "formatVersion": FORMAT_VERSION,
        "dryRun": dry_run,
        "target": gallery.target,
        "asked": gallery.asked,
        "folder": written.folder,
        "index": written.index,
        "compositions": pages,
        "loras": len(gallery.loras),
        "notes": [*gallery.notes],
        "files": {
            "written": [*written.written],
            "unchanged": len(written.kept),
            "removed": [*written.removed],
        },
    }
    return dumped(plain)
