"""Galleries of any size, with names and texts of every kind; without a project."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from support.inspections import NAMES, inspection

from composer.output.gallery_view import (
    Composition,
    Details,
    Gallery,
    GalleryLora,
    Image,
    Part,
    Revision,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

TAGS = ("tutorial", "knights", "chapter 2", "水彩", "a&b=c#d")
WORDS = ("Soft", "Grey", "Night", "Old", "Quiet", "Copper", "Velvet", "Paper", "Neon", "Salt")
THINGS = ("Knight", "Castle", "Forest", "Harbour", "Robot", "Fox", "Garden", "Map", "Poster")
SCALES = (0.65, 0.8, 0.35, 1.0, -0.5, 1.5)
USAGES = {"diffusers": 'pipe.load_lora_weights("knight.safetensors")', "comfyui": "<lora:x:1>"}


def gallery(
    count: int, *, loras: int = 8, texts: Iterable[str] = (), pictures: bool = False
) -> Gallery:
    """So many compositions; with `texts`, these stand wherever other people's words can be."""
    given = tuple(texts)
    endless = cycle(given or ("",))

    def text(otherwise: str) -> str:
        return next(endless) if given else otherwise

    known = [
        GalleryLora(
            f"model_lora{n}",
            text(f"{NAMES[n % len(NAMES)]} {n}" if n < 6 else f"LoRA {n}"),
            f"model_lora{n}",
            text(f"lora{n}.safetensors"),
            (text(f"trigger{n}"),) * (n % 2),
            (("licence", text("CC-BY-4.0")), ("author", text("Maya Okafor"))) * (n % 3 != 1),
        )
        for n in range(loras)
    ]
    return Gallery(
        text("tutorial art"),
        "local",
        True,
        tuple(_composition(n, known, text, pictures) for n in range(count)),
        {lora.key: lora for lora in known},
        (text("no history: the project is not in a git repository"),),
    )


def _composition(n, known, text, pictures) -> Composition:  # type: ignore[no-untyped-def]
    many = min(n % 5 + 1, len(known))
    parts = [Part(known[(n + i * 3) % len(known)].key, SCALES[(n + i) % 6]) for i in range(many)]
    name = f"{WORDS[n % 10]} {THINGS[n // 10 % 9]}"
    image = Image(f"{n:064x}", text("a fox in the snow"), 7, 1104, 832)
    return Composition(
        path=f"recipes/{n}.yaml",
        name=text(name if n < 90 else f"{name} {n}"),
        state=[*State][n % 8],
        reason=text("scale of Ink 0.6 -> 0.7"),
        id=f"model_{n}",
        type="flux.1-composition",
        description=text("Soft watercolour knights."),
        parts=tuple(dict((part.lora, part) for part in parts).values()),
        tags=tuple(TAGS[: n % 4]) if not text("") else (text(""),),
        training=(("rank", text("16")),),
        protect=n % 7 == 0,
        is_usable=n % 3 != 0,
        images=(image,) if pictures else (),
        revisions=(Revision("a" * 40, f"2026-0{n % 9 + 1}-01T10:00:00Z", text("Maya"), text("x")),),
    )


def details(one: Composition) -> Details:
    """Of a composition of such a gallery: texts to use it, and how its LoRAs interact."""
    return Details(USAGES, inspection(len(one.parts), 0.9).mix)
