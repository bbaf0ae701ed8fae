"""The LoRA formats that we read, each one a table; a new format is a new table here.

A format spells modules as stems and the pieces of a LoRA as suffixes; every legal key is a stem
and a suffix. `KEYS` holds them all, so that reading a file is looking keys up, never guessing:
the table that has a key is the format of that key, and mixed files need no rule of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from composer.engine.lora.modules import BY_BFL, BY_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from composer.engine.lora.modules import Site


class Piece(Enum):
    """What a tensor is in delta = alpha / rank * up @ down."""

    DOWN = "down"  # A, (rank, inputs)
    UP = "up"  # B, (outputs, rank)
    ALPHA = "alpha"  # one number


@dataclass(frozen=True, slots=True)
class Format:
    """A format's name, its spellings of modules, and its endings for the pieces."""

    name: str
    stems: Mapping[str, Site]
    suffixes: Mapping[str, Piece]


@dataclass(frozen=True, slots=True)
class Stem:
    """One LoRA as a file spells it: its pieces are the keys that begin with `text`."""

    format: str
    text: str
    site: Site


DIFFUSERS = Format(
    "diffusers",
    {f"transformer.{path}": site for path, site in BY_PATH.items()},
    {".lora_A.weight": Piece.DOWN, ".lora_B.weight": Piece.UP, ".alpha": Piece.ALPHA},
)
# sd-scripts: BFL names, dots as underscores.
KOHYA = Format(
    "kohya",
    {f"lora_unet_{name.replace('.', '_')}": site for name, site in BY_BFL.items()},
    {".lora_down.weight": Piece.DOWN, ".lora_up.weight": Piece.UP, ".alpha": Piece.ALPHA},
)
FORMATS = (DIFFUSERS, KOHYA)


def _keys(formats: Iterable[Format]) -> dict[str, tuple[Stem, Piece]]:
    stems = (
        (format, Stem(format.name, text, site))
        for format in formats
        for text, site in format.stems.items()
    )
    return {
        stem.text + suffix: (stem, piece)
        for format, stem in stems
        for suffix, piece in format.suffixes.items()
    }


KEYS: Mapping[str, tuple[Stem, Piece]] = _keys(FORMATS)
