"""What a merge merged, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import aligned, dumped, weight
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora import Merged
    from composer.lora.fingerprint import Part
    from composer.lora.formats import LoraFacts
    from composer.model import Recipe


_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
}


def text(merged: Merged | list[Merged], recipe: Recipe | None = None) -> str:
    """A line on the file, one for each LoRA in it, and what a reduction kept; of the files of a
    sweep, a line for each. `recipe` is what it was saved as."""
    several = merged if isinstance(merged, list) else [merged]
    lines = _of_several(several) if isinstance(merged, list) else _of_one(merged)
    if recipe:
        verb, path = "would save" if several[0].dry_run else "saved", visible(recipe.path)
        lines.append(f"{verb} {path}: {visible(recipe.name)}")
    return "\n".join(lines) + "\n"


def _of_one(merged: Merged) -> list[str]:
    how = f"{merged.format}, {number_types([merged.report.dtype])}, {_ranks(merged.report.ranks)}"
    lines = [
        f"{_wrote(merged)} {visible(str(merged.out))}: {how}, {_size([merged])}",
        *aligned([_row(part, weight(part.scale)) for part in merged.parts]),
    ]
    if kept := merged.report.kept:
        lines += ["", "kept of the weight change:"]
        lines += aligned([[f"  {group}", f"{share:.2%}"] for group, share in kept.items()])
    return [*lines, *(f"note: {visible(note)}" for note in merged.notes)]


def _of_several(merges: Sequence[Merged]) -> list[str]:
    """What is common to all files of a sweep is said once."""
    first, folder = merges[0], visible(str(merges[0].out.parent))
    files = counted(len(merges), "file")
    scales = [sorted({one.parts[n].scale for one in merges}) for n, _ in enumerate(first.parts)]
    notes = [note for note in first.notes if all(note in one.notes for one in merges)]
    return [
        f"{_wrote(first)} {files} to {folder}: {first.format}, {_size(merges)}",
        *aligned([_file_row(one) for one in merges]),
        "of:",
        *aligned(
            [
                _row(part, _few([f"{scale:g}" for scale in several]))
                for part, several in zip(first.parts, scales, strict=True)
            ]
        ),
        *(f"note: {visible(note)}" for note in notes),
        *(
            f"note: {visible(one.out.name)}: {visible(note)}"
            for one in merges
            for note in one.notes
            if note not in notes
        ),
    ]


def _wrote(merged: Merged) -> str:
    return "would write" if merged.dry_run else "wrote"


def _size(merges: Sequence[Merged]) -> str:
    size = f"{sum(one.size for one in merges) / 1e6:,.1f} MB"
    return f"at most {size}" if merges[0].dry_run else size


def _file_row(merged: Merged) -> list[str]:
    how = f"{number_types([merged.report.dtype])}, {_ranks(merged.report.ranks)}"
    kept = [f"{share:.1%}" for share in sorted(merged.report.kept.values())]
    more = f", kept {_few(kept)}" if kept else ""
    return [f"  {visible(merged.out.name)}", f"{how}, {_size([merged])}{more}"]


def as_json(merged: Merged | list[Merged], recipe: Recipe | None = None) -> str:
    """The same for programs."""
    if isinstance(merged, list):
        return dumped({"formatVersion": 1, "merges": [_plain(one, recipe) for one in merged]})
    return dumped(_plain(merged, recipe))


def _plain(merged: Merged, recipe: Recipe | None) -> dict[str, object]:
    return {
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
        **({"recipe": recipe.path} if recipe else {}),
    }


def _plain_part(part: Part) -> dict[str, object]:
    return {
        "file": str(part.file.path),
        "modelId": part.id,
        "sha256": part.fingerprint.hashes.weights,
        "scale": part.scale,
        **lora_facts(part.file),
        "modules": len(part.file.modules),
    }


def _row(part: Part, scale: str) -> list[str]:
    file, count = part.file, len(part.file.modules)
    weights = [*file.kinds, _ranks(file.ranks), *_alphas(file.alphas), number_types(file.dtypes)]
    layers = "1 layer" if count == 1 else f"{count} layers"
    described = f"{file.format}: {', '.join(weights)}, {layers}"
    return [f"  {scale}", visible(str(file.path)), described]


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
