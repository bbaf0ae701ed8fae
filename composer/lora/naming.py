"""The names that recipes may use for the LoRAs of a folder: a title, or a file's name. Pure.

A title comes from the file's metadata, so it is untrusted text. The rules of docs/engine.md are
here, for the library, for lists of files, and for `compose validate`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME = 256  # characters of a LoRA's name
# What PEFT and diffusers call every file that they save: the folder has the name.
GENERIC_NAMES = frozenset({"adapter_model", "pytorch_lora_weights"})
# In the metadata of a file that compose made: what it is made of.
CONCEPTS = "compose.concepts"
_TITLES = ("modelspec.title", "ss_output_name")


def plain(text: str, limit: int) -> str:
    """An untrusted text as one line of at most `limit` characters that all can be printed."""
    words = unicodedata.normalize("NFC", text[: 4 * limit]).split()
    return "".join(c for c in " ".join(words) if c.isprintable())[:limit].strip()


def title_of(metadata: Mapping[str, str]) -> str | None:
    """The name that the trainer gave it. sd-scripts writes a missing output name as "None".

    What compose made has an id as its title, which tells nobody anything: it has none here.
    """
    if CONCEPTS in metadata:
        return None
    titles = (metadata.get(key, "").strip() for key in _TITLES)
    return next((title for title in titles if title not in ("", "None")), None)


def stem_of(place: str) -> str:
    """A file's name without its ending, or its folder's name if that one is generic.

    `place` is the path in the folder of LoRAs, with `/`.
    """
    folder, _, name = place.rpartition("/")
    stem = name.rpartition(".")[0]
    return folder.rpartition("/")[2] if folder and stem in GENERIC_NAMES else stem


def copies_order(place: str) -> tuple[int, int, str]:
    """Sort key for equal files: the one to keep first, so `ink` before `ink (1)` and `old/ink`."""
    return place.count("/"), len(place), place


@dataclass(frozen=True, slots=True)
class Names:
    """What one LoRA may be called: by its title, if it has one, and by the places of its files.

    Places are paths in the folder of LoRAs, with `/`; equal files are one LoRA with several.
    """

    title: str
    stems: tuple[str, ...]
    places: tuple[str, ...]

    @classmethod
    def of(cls, title: str | None, places: list[str], id: str) -> Names:
        """As a recipe can write them: normalised, no control or bidi characters."""
        stems = (plain(stem_of(place), MAX_NAME) or id for place in places)
        paths = (plain(place.rpartition(".")[0], MAX_NAME) or id for place in places)
        return cls(
            plain(title or "", MAX_NAME), tuple(dict.fromkeys(stems)), tuple(dict.fromkeys(paths))
        )


def name_all(loras: Mapping[str, Names]) -> dict[str, tuple[str, ...]]:
    """All names of each LoRA, by its key. The first is its own: no other LoRA has it, if there is
    such a name.

    A LoRA is named by its files' stems and places, and by its title unless another LoRA has that
    title too (a file without a title has its stem as one). A title that several share names all of
    them, so none, unless it is the stem or the place of one.
    """
    titles = Counter(names.title or names.stems[0] for names in loras.values())
    firm = {
        key: dict.fromkeys(
            ([names.title] if titles[names.title] == 1 else []) + [*names.stems, *names.places]
        )
        for key, names in loras.items()
    }
    bearers = Counter(name for names in firm.values() for name in names)
    named = {}
    for key, names in loras.items():
        own = next((name for name in firm[key] if bearers[name] == 1), names.stems[0])
        shared = [names.title] if names.title and not bearers[names.title] else []
        named[key] = tuple(dict.fromkeys((own, *firm[key], *shared)))
    return named
