"""A project as pages: a gallery of its compositions, a page for each of them and for each LoRA.

`compose report` writes them into a folder, `compose serve --page` answers them. Their names never
change while a recipe keeps its path and its name, and lead nowhere else whatever a recipe is
called. All links are relative.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from shlex import quote
from typing import TYPE_CHECKING

from composer.output.gallery_maps import maps
from composer.output.inspect_style import DARK, LIGHT
from composer.output.pages import page, templates_digest
from composer.output.style import weight
from composer.recipes import slug
from composer.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from composer.output.gallery_view import Composition, Details, Gallery, GalleryLora, Image, Part

HUES, DISTANT, STRIDE = 24, 8, 3  # colours of LoRAs; as many are tried at first, in such steps
ROWS = 500  # of a page of the list
LONGEST = 400  # characters of other people's text
WIDTHS = {"": 1280, "-small": 560}  # of the two copies of an image, by the end of their names
STYLE = "style.css"
INDEX, LIST, LORAS = "index.html", "list.html", "loras.html"


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its name below the site's folder, a digest of what it is made from, its text."""

    name: str
    digest: str
    text: Callable[[], str]


def image_name(digest: str, end: str = "") -> str:
    """The name of a copy of an image: `WIDTHS` has the ends."""
    return f"images/{digest[:40]}{end}.webp"


class Pages:
    """All pages of one gallery. `details` are asked for where the page on a composition is made.

    `jobs` is where a script asks what is going on, if somebody answers: of a server.
    """

    def __init__(
        self,
        gallery: Gallery,
        details: Callable[[Composition], Details],
        *,
        compared: bool = True,
        jobs: str = "",
    ) -> None:
        self.gallery = gallery
        self._details = details
        self._compared = compared
        self._jobs = jobs

    def __iter__(self) -> Iterator[Page]:
        gallery, loras = self.gallery, self.gallery.loras
        everything = (
            gallery.title,
            gallery.target,
            gallery.asked,
            gallery.compositions,
            gallery.notes,
        )
        whole = _digest(everything, loras, self._jobs)
        yield Page(
            STYLE, _digest(), partial(page, "gallery.css", light=LIGHT, dark=DARK, hues=HUES)
        )
        yield Page(INDEX, whole, self._index)
        for number, _ in enumerate(self._lists, 1):
            yield Page(list_name(number), whole, partial(self._list, number))
        yield Page(LORAS, whole, self._all_loras)
        about = gallery.title, gallery.target, gallery.asked, self._compared
        for one in gallery.compositions:
            used = [loras[part.lora] for part in one.parts if part.lora in loras]
            colours = [self.hues[part.lora] for part in one.parts]
            digest = _digest(about, one, used, colours)
            yield Page(self.names[one.path], digest, partial(self._composition, one))
        for lora in loras.values():
            digest = _digest(about, lora, self.hues[lora.key], gallery.uses.get(lora.key, ()))
            yield Page(self.lora_names[lora.key], digest, partial(self._lora, lora))

    # --- names ---------------------------------------------------------------------------

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The pages on compositions, by the recipes' paths."""
        return {one.path: _page_name("c", one.name, one.path) for one in self.gallery.compositions}

    @cached_property
    def lora_names(self) -> Mapping[str, str]:
        """The pages on LoRAs, by their keys."""
        loras = self.gallery.loras
        return {key: _page_name("l", lora.name, key) for key, lora in loras.items()}

    @cached_property
    def hues(self) -> Mapping[str, int]:
        """The number of each LoRA's colour, by its key: the one that its key asks for, else the
        next that is free. The first `DISTANT` are far from each other, and so are the next."""
        found: dict[str, int] = {}
        free: set[int] = set()
        for number, key in sorted((_number(key), key) for key in self.gallery.loras):
            free = free or {*range(DISTANT)}
            places = ((number + step * STRIDE) % DISTANT for step in range(DISTANT))
            place = next(place for place in places if place in free)
            free.remove(place)
            between = HUES // DISTANT
            found[key] = place * between + len(found) // DISTANT % between
        return found

    # --- pages ---------------------------------------------------------------------------

    def _index(self) -> str:
        return self._page("gallery_index.html", INDEX, "", data=self._data(), jobs=self._jobs)

    @cached_property
    def _lists(self) -> list[tuple[Composition, ...]]:
        every = self.gallery.compositions
        return [every[start : start + ROWS] for start in range(0, len(every), ROWS)] or [()]

    def _list(self, number: int) -> str:
        count = len(self._lists)
        rows = [
            {"one": one, "page": self.names[one.path], "mix": self._mix_in_words(one)}
            for one in self._lists[number - 1]
        ]
        pages = [(n, list_name(n)) for n in range(1, count + 1)]
        name = list_name(number)
        return self._page("gallery_list.html", name, "List", rows=rows, pages=pages, number=number)

    def _all_loras(self) -> str:
        rows = [self._lora_row(lora) for lora in self.gallery.loras.values()]
        return self._page("gallery_loras.html", LORAS, "LoRAs", rows=rows)

    def _lora_row(self, lora: GalleryLora) -> dict[str, object]:
        scales = [scale for _, scale in self.gallery.uses.get(lora.key, ())]
        least, most = (weight(end(scales, default=0.0)) for end in (min, max))
        span = least if least == most else f"{least} to {most}"
        page = self.lora_names[lora.key]
        return {
            "lora": lora,
            "page": page,
            "uses": len(scales),
            "span": span,
            "hue": self.hues[lora.key],
        }

    def _composition(self, one: Composition) -> str:
        details = self._details(one)
        parts = [self._part(part, one.parts) for part in one.parts]
        hues = [part["hue"] for part in parts]
        drawn = maps(details.mix) if details.mix and len(details.mix.names) == len(parts) else None
        return self._page(
            "gallery_composition.html",
            self.names[one.path],
            one.name,
            one=one,
            parts=parts,
            shots=[{"one": image, **_sizes(image)} for image in one.images],
            usages=details.usages,
            maps=drawn,
            hues=hues,
            hue_classes=[f"h{n} fill" for n in hues],
            usage_command=f"compose output {quote(text(one.name))} --usage PROGRAM",
        )

    def _lora(self, lora: GalleryLora) -> str:
        uses = self.gallery.uses.get(lora.key, ())
        scales = [scale for _, scale in uses]
        rows = [
            {"one": one, "page": self.names[one.path], "scale": scale, "bar": _bar(scale, scales)}
            for one, scale in uses
        ]
        name = self.lora_names[lora.key]
        return self._page("gallery_lora.html", name, lora.name, rows=rows, **self._lora_row(lora))

    def _page(self, template: str, name: str, title: str, **values: object) -> str:
        up = "../" * name.count("/")
        of_project = text(self.gallery.title)
        return page(
            template,
            title=f"{text(title)} · {of_project}" if title else of_project,
            gallery=self.gallery,
            states=self.gallery.states,
            here=name,
            up=up,
            stylesheet=up + STYLE,
            text=text,
            weight=weight,
            counted=counted,
            image_name=image_name,
            images="'self' file:",
            connect="'self'" if self._jobs and name == INDEX else "",
            **values,
        )

    def _part(self, part: Part, parts: Iterable[Part]) -> dict[str, object]:
        lora = self.gallery.loras[part.lora]
        bar = _bar(part.scale, [other.scale for other in parts])
        shown = {"lora": lora, "page": self.lora_names[part.lora], "hue": self.hues[part.lora]}
        return {"one": part, "bar": bar, **shown}

    def _mix_in_words(self, one: Composition) -> str:
        loras = self.gallery.loras
        return ", ".join(
            f"{weight(part.scale)} {text(loras[part.lora].name)}" for part in one.parts
        )

    # --- data for the script ---------------------------------------------------------------

    def _data(self) -> str:
        """What the script of the gallery shows: as short as 10,000 compositions ask for."""
        gallery = self.gallery
        keys = {key: number for number, key in enumerate(gallery.loras)}
        states, tags = list(gallery.states), self._tags
        numbers = {tag: number for number, tag in enumerate(tags)}
        plain = {
            "loras": [self._lora_data(lora) for lora in gallery.loras.values()],
            "states": [str(state) for state in states],
            "tags": [text(tag) for tag in tags],
            "cards": [
                [
                    text(one.name),
                    self.names[one.path],
                    states.index(one.state),
                    one.id,
                    [number for p in one.parts for number in (keys[p.lora], p.scale)],
                    [numbers[tag] for tag in one.tags],
                    image_name(one.images[0].digest, "-small") if one.images else "",
                    text(one.images[0].prompt) if one.images else "",
                    one.revisions[0].date[:10] if one.revisions else "",
                ]
                for one in gallery.compositions
            ],
        }
        return in_script(plain)

    @cached_property
    def _tags(self) -> list[str]:
        return sorted({tag for one in self.gallery.compositions for tag in one.tags})

    def _lora_data(self, lora: GalleryLora) -> list[object]:
        words = text(", ".join(lora.triggers))
        return [
            text(lora.name),
            self.lora_names[lora.key],
            self.hues[lora.key],
            words,
            text(lora.licence),
        ]


def list_name(number: int) -> str:
    """The name of a page of the list, from 1."""
    return LIST if number == 1 else f"list-{number}.html"


def text(words: str) -> str:
    """Other people's text, on one line and not too long; templates escape it."""
    return shorten(visible(words), LONGEST)


def in_script(value: object) -> str:
    """JSON that may stand in an element `<script>`."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _page_name(folder: str, name: str, key: str) -> str:
    return f"{folder}/{slug(name)}-{_number(key) % 16**16:016x}.html"


def _number(key: str) -> int:
    """A large number that is the same for the same key."""
    return int(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest(), 16)


def _bar(scale: float, others: Iterable[float]) -> float:
    """The length of a scale's bar in percent: of 1, or of 2 where a scale is beyond 1."""
    whole = 2.0 if any(abs(other) > 1 for other in others) else 1.0
    return round(min(1.0, abs(scale) / whole) * 100, 1)


def _sizes(image: Image) -> dict[str, int]:
    """The size of its larger copy."""
    width = min(image.width, WIDTHS[""])
    return {"width": width, "height": round(image.height * width / max(1, image.width))}


def _digest(*values: object) -> str:
    """Of values whose text says all that they are, and of the templates."""
    return hashlib.sha256(
        f"{templates_digest()}{values!r}".encode("utf-8", "surrogatepass")
    ).hexdigest()[:24]
