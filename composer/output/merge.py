"""What a merge merged, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import aligned, dumped
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora import Merged
    from composer.lora.fingerprint import Part
    from composer.lora.formats import LoraFacts


_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
}


def text(merged: Merged) -> str:
    """A line on the file, one for each LoRA in it, and what a reduction kept."""
    size = f"{merged.size / 1e6:,.1f} MB"
    verb, size = ("would write", f"at most {size}") if merged.dry_run else ("wrote", size)
    how = f"{merged.format}, {number_types([merged.report.dtype])}, {_ranks(merged.report.ranks)}"
    lines = [
        f"{verb} {visible(str(merged.out))}: {how}, {size}",
        *aligned([_row(part) for part in merged.parts]),
    ]
    if kept := merged.report.kept:
        lines += ["", "kept of the weight change:"]
        lines += aligned([[f"  {group}", f"{share:.2%}"] for group, share in kept.items()])
    lines += [f"note: {visible(note)}" for note in merged.notes]
    return "\n".join(lines) + "\n"


def as_json(merged: Merged) -> str:
    """The same for programs."""
    plain = {
        "formatVersion": 1,
        "file": str(merged.out),
        "dryRun": merged.dry_run,
        "form": merged.format,
        "dtype": merged.report.dtype,
        "ranks": list(merged.report.ranks),
        "bytes": merged.size,
        "kept": dict(merged.report.kept),
        "notes": list(merged.notes),
        "concepts": [_plain_part(part) for part in merged.parts],
    }
    return dumped(plain)


def _plain_part(part: Part) -> dict[str, object]:
    return {
        "file": str(part.file.path),
        "modelId": part.id,
        "sha256": part.fingerprint.hashes.weights,
        "scale": part.scale,
        **lora_facts(part.file),
        "modules": len(part.file.modules),
    }


def _row(part: Part) -> list[str]:
    file, count = part.file, len(part.file.modules)
    weights = [*file.kinds, _ranks(file.ranks), *_alphas(file.alphas), number_types(file.dtypes)]
    layers = "1 layer" if count == 1 else f"{count} layers"
    described = f"{file.format}: {', '.join(weights)}, {layers}"
    return [f"  {part.scale:g}", visible(str(file.path)), described]


def _alphas(alphas: Sequence[float]) -> list[str]:
    return [f"alpha {_few([f'{alpha:g}' for alpha in alphas])}"] if alphas else []


def lora_facts(lora: LoraFacts) -> dict[str, object]:
    """What a LoRA file holds, for JSON."""
    return {
        "format": lora.format,
        "kinds": list(lora.kinds),
        "ranks": list(lora.ranks),
        "alphas": list(lora.alphas),
        "dtypes": list(lora.dtypes),
    }


def number_types(dtypes: Sequence[str]) -> str:
    """Types as recipes and people name them, by their names in safetensors files."""
    return "+".join(_TYPES.get(dtype, dtype) for dtype in dtypes)


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank {_few([str(rank) for rank in ranks])}" if ranks else "no rank"


def _few(values: Sequence[str]) -> str:
    """Several values as the first and the last of them."""
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
