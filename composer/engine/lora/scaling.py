"""`lora_adapter_metadata`: the factors of a LoRA as PEFT's configuration states them.

Newer diffusers saves PEFT's configuration as JSON in the file's metadata instead of `.alpha` keys.
`reading` asks here for the factor of each module. Meaning as in peft's `LoraConfig`,
`get_pattern_key` and `LoraLayer.update_layer`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.engine.lora.container import strict_json
from composer.engine.lora.flaw import Flaw, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY = "lora_adapter_metadata"
PREFIX = "transformer."

_PLAIN = re.compile(r"\^?[A-Za-z0-9_.]+")
# A pattern comes from a stranger: only what can't make matching slow.
_REGEX = re.compile(r"[A-Za-z0-9_.^$\\|()+*?]{1,200}")
_QUANTIFIERS = 2
_REGEXES = 8


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The transformer's part of the configuration."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    rslora: bool

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> AdapterConfig | None:
        """The configuration in a file's metadata, None if it has none for the transformer."""
        raw = strict_json(metadata.get(KEY, "{}").encode("utf-8"), KEY)
        if not isinstance(raw, dict):
            raise Flaw(f"is broken: its {KEY} is no JSON object")
        ours = {key.removeprefix(PREFIX): raw[key] for key in raw if key.startswith(PREFIX)}
        if not ours:
            return None
        if ours.get("use_dora"):
            raise Flaw("is a DoRA, which needs the base model's weights to compose")
        rank = _number("r", ours.get("r", 8))  # peft's own defaults
        return cls(
            rank=int(rank),
            alpha=_number("lora_alpha", ours.get("lora_alpha", 8)),
            rank_pattern=_pattern("rank_pattern", ours.get("rank_pattern")),
            alpha_pattern=_pattern("alpha_pattern", ours.get("alpha_pattern")),
            rslora=bool(ours.get("use_rslora")),
        )

    def factor(self, path: str, stored: int) -> float:
        """The factor of the module at `path`, whose tensors have the rank `stored`."""
        rank = _first(self.rank_pattern, path, self.rank)
        if rank != stored:
            raise Flaw(f"has rank {stored} at {path}, where its {KEY} says {rank:g}")
        alpha = _first(self.alpha_pattern, path, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise Flaw(f"is broken: {name} in its {KEY} is no sensible number")
    return value


def _pattern(name: str, raw: object) -> Mapping[str, float]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise Flaw(f"is broken: {name} in its {KEY} is no JSON object")
    _safe(raw)
    return {key: _number(name, value) for key, value in raw.items()}


def _safe(patterns: Iterable[str]) -> None:
    """Refuse patterns that might take long to match, or that aren't regular expressions."""
    regexes = [key for key in patterns if not _PLAIN.fullmatch(key)]
    for key in regexes:
        slow = sum(map(key.count, "+*?")) > _QUANTIFIERS or re.search(r"\)[+*?]", key)
        if slow or not _REGEX.fullmatch(key) or len(regexes) > _REGEXES:
            raise Flaw(f"has a pattern in its {KEY} that is too intricate: {shown(key)}")
        try:
            re.compile(key)
        except re.error:
            raise Flaw(f"has a pattern in its {KEY} that is none: {shown(key)}") from None


def _first(patterns: Mapping[str, float], path: str, default: float) -> float:
    """The value of the first pattern that hits, as peft's `get_pattern_key` finds it."""
    return next((value for key, value in patterns.items() if _hits(key, path)), default)


def _hits(key: str, path: str) -> bool:
    """peft's test is `(.*\\.)?(KEY)$`; nearly all keys are plain names, tested without it."""
    if not _PLAIN.fullmatch(key):
        return re.match(rf"(.*\.)?({key})$", path) is not None
    return path == key.removeprefix("^") or (key[0] != "^" and path.endswith("." + key))
