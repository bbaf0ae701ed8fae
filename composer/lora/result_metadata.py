"""What a composed file says about itself: the fields of the Model Spec, and where it comes from.

`making` fills it for the engine and for `compose merge`. Nothing in it but what the bytes of the
parts and the caller's words say: no time, no path, so equal parts give equal files anywhere.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.families import Family, default
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SPEC = "1.0.0"  # of the Model Spec that the keys below follow (Stability-AI/ModelSpec)

PHRASES = ("modelspec.trigger_phrase", "trigger_phrase", "trigger_word")  # the first that is there
PHRASE_LIMIT, PHRASES_LIMIT, TITLE_LIMIT = 256, 2048, 256  # characters


@dataclass(frozen=True, slots=True)
class Origin:
    """A part of a composition: its id, the sha256 (hex) of its file and of PEFT's configuration
    beside it, its scale, and what its file says about itself."""

    id: str
    sha256: str
    config: str | None
    scale: float
    metadata: Mapping[str, str]


def described(
    title: str,
    origins: Sequence[Origin],
    *,
    form: str,
    family: Family | None = None,
    rank: int | None = None,
    precision: str | None = None,
) -> dict[str, str]:
    """The metadata of the sum of these parts. `rank` and `precision` are what was asked for."""
    family = family or default()
    asked = {"compose.rank": rank, "compose.precision": precision}
    phrase = _joined(trigger_phrase(origin.metadata) for origin in origins if origin.scale > 0)
    return {
        "modelspec.sai_model_spec": SPEC,
        "modelspec.architecture": family.architecture,
        "modelspec.implementation": family.forms[form].implementation,
        "modelspec.title": plain(title, TITLE_LIMIT),
        "modelspec.merged_from": ", ".join(origin.id for origin in origins),
        **({"modelspec.trigger_phrase": phrase} if phrase else {}),
        "compose.concepts": json.dumps(list(map(_concept, origins)), separators=(",", ":")),
        "compose.version": __version__,
        **{key: str(value) for key, value in asked.items() if value is not None},
    }


def trigger_phrase(metadata: Mapping[str, str]) -> str:
    """The words that a LoRA was trained to react to, as its file says them; empty if it doesn't."""
    found = (plain(metadata.get(key, ""), PHRASE_LIMIT) for key in PHRASES)
    return next((phrase for phrase in found if phrase), "")


def plain(text: str, limit: int) -> str:
    """A stranger's text as one line of at most `limit` characters that all can be printed."""
    words = unicodedata.normalize("NFC", text[: 4 * limit]).split()
    return "".join(c for c in " ".join(words) if c.isprintable())[:limit].strip()


def _joined(phrases: Iterable[str]) -> str:
    """Each once, as many as there is room for."""
    joined = ""
    for phrase in dict.fromkeys(filter(None, phrases)):
        longer = f"{joined}, {phrase}" if joined else phrase
        if len(longer) <= PHRASES_LIMIT:
            joined = longer
    return joined


def _concept(origin: Origin) -> dict[str, object]:
    config = {"configSha256": origin.config} if origin.config else {}
    return {
        "modelId": origin.id,
        "sha256": origin.sha256,
        **config,
        "scale": origin.scale,
    }
