"""What a merge made, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.output.style import aligned, dumped
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_TYPES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One LoRA of a merge: its file as it was named, what it is, and its scale."""

    file: str
    id: str
    sha256: str
    scale: float
    format: str
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]
    modules: int


@dataclass(frozen=True, slots=True)
class MergedFile:
    """The merged file, or what it would be: `size` is then the most it can have, in bytes."""

    out: str
    format: str
    dtype: str
    ranks: tuple[int, ...]
    size: int
    kept: Mapping[str, float]
    notes: tuple[str, ...]
    parts: tuple[Part, ...]
    dry_run: bool = False


def text(made: MergedFile) -> str:
    """A line on the file, one for each LoRA in it, and what a reduction kept."""
    size = f"{made.size / 1e6:,.1f} MB"
    verb, size = ("would write", f"at most {size}") if made.dry_run else ("wrote", size)
    how = f"{made.format}, {number_types([made.dtype])}, {_ranks(made.ranks)}"
    lines = [
        f"{verb} {visible(made.out)}: {how}, {size}",
        *aligned([_row(part) for part in made.parts]),
    ]
    if made.kept:
        lines += ["", "kept of the change:"]
        lines += aligned([[f"  {group}", f"{share:.2%}"] for group, share in made.kept.items()])
    lines += [f"note: {visible(note)}" for note in made.notes]
    return "\n".join(lines) + "\n"


def as_json(made: MergedFile) -> str:
    """The same for programs."""
    concepts = [
        {
            "file": part.file,
            "modelId": part.id,
            "sha256": part.sha256,
            "scale": part.scale,
            "format": part.format,
            "kinds": list(part.kinds),
            "ranks": list(part.ranks),
            "alphas": list(part.alphas),
            "dtypes": list(part.dtypes),
            "modules": part.modules,
        }
        for part in made.parts
    ]
    return dumped(
        {
            "formatVersion": 1,
            "file": made.out,
            "dryRun": made.dry_run,
            "form": made.format,
            "dtype": made.dtype,
            "ranks": list(made.ranks),
            "bytes": made.size,
            "kept": dict(made.kept),
            "notes": list(made.notes),
            "concepts": concepts,
        }
    )


def _row(part: Part) -> list[str]:
    known = [*part.kinds, _ranks(part.ranks), *_alphas(part.alphas), number_types(part.dtypes)]
    layers = "1 layer" if part.modules == 1 else f"{part.modules} layers"
    told = f"{part.format}: {', '.join(known)}, {layers}"
    return [f"  {part.scale:g}", visible(part.file), told]


def _alphas(alphas: Sequence[float]) -> list[str]:
    return [f"alpha {_few([f'{alpha:g}' for alpha in alphas])}"] if alphas else []


def number_types(dtypes: Sequence[str]) -> str:
    """Types as recipes and people name them, by their names in safetensors files."""
    return "+".join(_TYPES.get(dtype, dtype) for dtype in dtypes)


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank {_few([str(rank) for rank in ranks])}" if ranks else "no rank"


def _few(values: Sequence[str]) -> str:
    """Several values as the first and the last of them."""
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
