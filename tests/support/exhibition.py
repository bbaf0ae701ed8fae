"""A small project's gallery as a site, with pictures by `support.artist`: what the docs show."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from support import artist
from support.grids import cell

from composer.images.copies import web_copies
from composer.output.gallery import INDEX, WIDTHS, Pages, image_name
from composer.output.gallery_view import (
    Composition,
    Details,
    Gallery,
    GalleryLora,
    Image,
    Part,
    State,
)
from composer.previews.cells import Look

if TYPE_CHECKING:
    from pathlib import Path

LOOK = Look()
LORAS = {
    "Watercolour Wash": ("wash", "CC-BY-4.0"),
    "Ink Lines": ("inkline", "CC0-1.0"),
    "Castle Stone": ("", "CC-BY-4.0"),
    "Night Lanterns": ("lanterns", ""),
}
# Name, prompt (none: there is no picture yet), mix, tags, state.
WORKS = [
    (
        "Morning Keep",
        "a castle above the mist",
        "Watercolour Wash 0.8, Castle Stone 0.5",
        "chapter-1",
    ),
    ("Old Road", "a long road to a castle", "Ink Lines 0.75, Watercolour Wash 0.45", "chapter-1"),
    (
        "Harbour at Dusk",
        "",
        "Watercolour Wash 0.6, Ink Lines 0.35, Night Lanterns 0.9",
        "chapter-2",
    ),
    ("Lantern Hill", "lanterns on a hill at dusk", "Night Lanterns 0.7, Castle Stone 0.4", "cover"),
    (
        "Paper Fortress",
        "a fortress of paper",
        "Ink Lines 0.9, Castle Stone 0.65",
        "chapter-2, cover",
    ),
    ("Pine Valley", "pines in a valley", "Watercolour Wash 1, Ink Lines 0.2", ""),
    ("Silver Gate", "", "Castle Stone 0.85, Ink Lines 0.5", "chapter-3"),
    (
        "Winter Watch",
        "a watchtower in winter",
        "Watercolour Wash 0.5, Castle Stone 0.7",
        "chapter-3",
    ),
]
STATES = {"Lantern Hill": State.CHANGED, "Silver Gate": State.TRAINING}


def exhibition(folder: Path) -> Path:
    """Write the site; its first page."""
    works = [_work(folder, *work) for work in sorted(WORKS)]
    loras = {
        name: GalleryLora(name, name, name, "", (words,) * bool(words), (("licence", licence),))
        for name, (words, licence) in LORAS.items()
    }
    gallery = Gallery("storybook-art", "local", True, tuple(works), loras)
    for page in Pages(gallery, lambda composition: Details()):
        file = folder / page.name
        file.parent.mkdir(exist_ok=True)
        file.write_text(page.text(), "utf-8")
    return folder / INDEX


def _work(folder: Path, name: str, prompt: str, mix: str, tags: str) -> Composition:
    scales = {one.rpartition(" ")[0]: float(one.rpartition(" ")[2]) for one in mix.split(", ")}
    images: tuple[Image, ...] = ()
    if prompt:
        made = cell(scales, prompt, 7, LOOK)
        images = (Image(made.digest, prompt, 7, LOOK.width, LOOK.height),)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        copies = web_copies(artist.paint(made), tuple(WIDTHS.values()))
        for end, copy in zip(WIDTHS, copies, strict=True):
            (folder / image_name(made.digest, end)).write_bytes(copy)
    return Composition(
        f"recipes/{name}.yaml",
        name,
        STATES.get(name, State.SYNCED),
        id=f"model_{_id(name)}",
        parts=tuple(Part(lora, scale) for lora, scale in scales.items()),
        tags=tuple(filter(None, tags.split(", "))),
        images=images,
    )


def _id(name: str) -> str:
    """Letters as ids have them."""
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:16]).decode()[:22]
