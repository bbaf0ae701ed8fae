"""Inspections for programs: the JSON that `compose schema inspect` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.output.escape import dumped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Verdict

FORMAT_VERSION = 1
DIGITS = 9  # of a number that was computed: its last ones differ between machines


def as_json(inspections: Sequence[Inspection]) -> str:
    """All inspections; names and notes as their files have them."""
    return dumped(
        {"formatVersion": FORMAT_VERSION, "inspections": [_plain(one) for one in inspections]}
    )


def _plain(one: Inspection) -> dict[str, Any]:
    mix = one.mix
    numbers = range(len(mix.names))
    return {
        **({"name": one.title} if one.title else {}),
        **({"recipe": one.source} if one.source else {}),
        "verdict": one.headline,
        "concepts": [_concept(one, n, portrait) for n, portrait in enumerate(one.portraits)],
        "blocks": [
            {
                "block": block,
                "norms": [_rounded(mix.norm(n, block)) for n in numbers],
                "shares": [_rounded(mix.share(n, block)) for n in numbers],
            }
            for block in mix.blocks
        ],
        "pairs": [_pair(one, verdict) for verdict in one.verdicts],
    }


def _concept(one: Inspection, number: int, portrait: LoraInfo) -> dict[str, Any]:
    return {
        "name": one.mix.names[number],
        "scale": one.mix.scales[number],
        "file": portrait.file,
        "format": portrait.format,
        "kinds": list(portrait.kinds),
        "ranks": list(portrait.ranks),
        "alphas": list(portrait.alphas),
        "dtypes": list(portrait.dtypes),
        "modules": dict(portrait.modules),
        "normScales": portrait.norms,
        "biases": portrait.biases,
        "triggers": list(portrait.triggers),
        "tags": [{"tag": tag, "count": count} for tag, count in portrait.tags],
        "notes": [{"label": label, "text": said} for label, said in portrait.notes],
        "madeOf": [{"name": made.label, "scale": made.scale} for made in portrait.made_of],
        "kept": dict(portrait.kept),
        "norm": _rounded(one.mix.norm(number)),
        "share": _rounded(one.mix.share(number)),
    }


def _pair(one: Inspection, verdict: Verdict) -> dict[str, Any]:
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
