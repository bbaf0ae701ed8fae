"""Inspections for programs, as `compose schema inspect` describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.lora.inspection import near_duplicates
from composer.output.listing import left_out_json
from composer.output.merge import lora_facts
from composer.output.style import dumped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Verdict
    from composer.lora.listing import Listing

FORMAT_VERSION = 1
DIGITS = 9  # of a number that was computed: its last ones differ between machines


def as_json(inspections: Sequence[Inspection], listing: Listing | None = None) -> str:
    """All inspections, and what else was found among files; names and notes as files have them."""
    plain = {"formatVersion": FORMAT_VERSION, "inspections": [_plain(one) for one in inspections]}
    return dumped(plain | (left_out_json(listing) if listing else {}))


def _plain(one: Inspection) -> dict[str, Any]:
    mix = one.mix
    numbers = range(len(mix.names))
    return {
        **({"name": one.title} if one.title else {}),
        **({"recipe": one.source} if one.source else {}),
        "verdict": one.headline,
        "nearDuplicates": [[mix.names[n] for n in group] for group in near_duplicates(mix)],
        "concepts": [_plain_concept(one, n, info) for n, info in enumerate(one.loras)],
        "blocks": [
            {
                "block": block,
                "norms": [_rounded(mix.norm(n, block)) for n in numbers],
                "shares": [_rounded(mix.share(n, block)) for n in numbers],
            }
            for block in mix.blocks
        ],
        "pairs": [_plain_pair(one, verdict) for verdict in one.verdicts],
    }


def _plain_concept(one: Inspection, number: int, info: LoraInfo) -> dict[str, Any]:
    return {
        "name": one.mix.names[number],
        "scale": one.mix.scales[number],
        "file": info.file,
        **({"id": info.id} if info.id else {}),
        "bytes": info.size,
        **lora_facts(info),
        "modules": dict(info.modules),
        "normScales": info.norms,
        "biases": info.biases,
        "triggers": list(info.triggers),
        "tags": [{"tag": tag, "count": count} for tag, count in info.tags],
        "notes": [{"label": label, "text": text} for label, text in info.notes],
        "madeOf": [{"name": made.label, "scale": made.scale} for made in info.made_of],
        "kept": dict(info.kept),
        "norm": _rounded(one.mix.norm(number)),
        "share": _rounded(one.mix.share(number)),
    }


def _plain_pair(one: Inspection, verdict: Verdict) -> dict[str, Any]:
    mix, first, second = one.mix, verdict.first, verdict.second
    return {
        "concepts": [mix.names[first], mix.names[second]],
        "level": str(verdict.level),
        "cosine": _rounded(verdict.cosine),
        "verdict": verdict.words,
        "decidedIn": list(verdict.blocks),
        "tryScales": list(verdict.scales) if verdict.scales else None,
        "cosines": {block: _rounded(mix.cosine(first, second, block)) for block in mix.blocks},
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.{DIGITS}g}")
