"""The lists of docs/formats.md: every spelling that is read, and every base model that is known.

Written into the page by `PYTHONPATH=.:tests python -m support.format_lists`; a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from oracle.page import put

from composer.lora.families import flux1_files as files
from composer.lora.families.flux1_models import BASE_MODELS, REASONS
from composer.lora.formats import SUFFIXES, XLABS_SUFFIXES, Tagged, TensorRole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from composer.lora.formats import SourceFormat, TargetLayer

PAGE = Path(__file__).parents[2] / "docs/formats.md"
CLIP = "text_model.encoder.layers.0.self_attn.q_proj"
T5 = "encoder.block.0.layer.0.SelfAttention.q"
# What a prefix stands before: a name that each manner has, and what the page calls the manner.
MANNERS = (
    ("x_embedder", "diffusers"),
    ("img_in", "BFL"),
    ("final_proj_out", "DiffSynth"),
    (CLIP, "CLIP"),
    (CLIP.removeprefix("text_model."), "CLIP without `text_model.`"),
    (T5, "T5"),
)
TAGGED = {
    Tagged.USED: "used",
    Tagged.REFUSED: "refused by this name",
    Tagged.DOUBTED: "used with a note, but for a part for a text encoder alone, which is refused",
}


def layers() -> Iterator[str]:
    """Each layer with its names, for one block of each kind."""
    yield "| layer | diffusers | BFL | DiffSynth |"
    yield "|---|---|---|---|"
    tables = (files.DIFFUSERS_NAMES, files.BFL_NAMES, files.DIFFSYNTH_NAMES)
    named = [_by_modules(table) for table in tables]
    for modules in dict.fromkeys(modules for table in named for modules in table):
        cells = (_code(table.get(modules, ())) for table in named)
        yield f"| {', '.join(_short(path) for path in modules)} | {' | '.join(cells)} |"


def _by_modules(table: Mapping[str, TargetLayer]) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for name, layer in table.items():
        if re.search(r"blocks\.[1-9]", name):
            continue
        modules = tuple(part.module.path for part in layer.parts)
        found.setdefault(modules, []).append(_any_block(name))
    return found


def _any_block(name: str) -> str:
    return name.replace("blocks.0", "blocks.N")


def _short(path: str) -> str:
    kind = {"transformer_blocks": "double", "single_transformer_blocks": "single"}
    block, _, rest = path.partition(".0.")
    return f"{kind[block]} {rest}" if block in kind else path


def _code(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def prefixes() -> Iterator[str]:
    """Each format with what its keys begin with, and whose names follow."""
    yield "| format | keys begin with | names of layers |"
    yield "|---|---|---|"
    for format in files.FORMATS:
        if format.name == "XLabs":
            yield from _xlabs(format)
        else:
            yield from _prefixes(format)


def _prefixes(format: SourceFormat) -> Iterator[str]:
    known: dict[str, list[str]] = {}
    for name, manner in MANNERS:
        for stem in format.layers:
            for spelled in (name, name.replace(".", "_")):
                prefix = stem.removesuffix(spelled)
                fits = "." not in name or prefix.endswith("_") == (spelled != name)
                if prefix != stem and fits and "text_model" not in prefix:
                    known.setdefault(prefix, []).append(manner)
    for prefix, manners in known.items():
        text = f"`{prefix}`" if prefix else "nothing"
        words = " or ".join(dict.fromkeys(manners))
        yield f"| {format.name} | {text} | {words}{_how(prefix)} |"


def _how(prefix: str) -> str:
    return ", with underscores for dots" if prefix.endswith("_") else ""


def _xlabs(format: SourceFormat) -> Iterator[str]:
    names = [name for name in format.layers if re.search(r"(^|\.)\w+_blocks\.0\.", name)]
    for name in names:
        yield f"| XLabs | `{name.replace('.0.', '.N.')}` | its own |"


def endings() -> Iterator[str]:
    """What a key ends with, by what the tensor is."""
    yield "| tensor | keys end with | of XLabs |"
    yield "|---|---|---|"
    for role in TensorRole:
        ours = [ending for ending, is_ in SUFFIXES.items() if is_ is role]
        xlabs = [ending for ending, is_ in XLABS_SUFFIXES.items() if is_ is role]
        yield f"| {role.value} | {_code(ours)} | {_code(xlabs)} |"
    norm = next(iter(files.NORMS))
    keys = [key for key, path in files.NORM_KEYS.items() if path == norm]
    yield f"| scale of a norm | {_code([_any_block(key) for key in keys])} | |"


def base_models() -> Iterator[str]:
    """Every model that metadata may name, and what is done then."""
    yield "| the metadata names | the file is | blocks, double and single |"
    yield "|---|---|---|"
    for model in BASE_MODELS:
        blocks = f"{model.blocks[0]} and {model.blocks[1]}" if model.blocks else ""
        yield f"| {model.name} | {TAGGED[model.means]} | {blocks} |"
    yield "| another model | used with a note | |"


def other_models() -> Iterator[str]:
    """Every model whose own names or widths are known."""
    found: dict[str, tuple[list[str], list[int]]] = {}
    for refusal in REASONS:
        name, is_other, _ = refusal.words.partition(": made for another model")
        if is_other:
            names, widths = found.setdefault(name, ([], []))
            if refusal.width is None:
                names.append("names of layers")
            else:
                widths.append(refusal.width)
    yield "| the keys are of | told by |"
    yield "|---|---|"
    for name, (names, widths) in found.items():
        numbers = " or ".join(f"{width:,}" for width in widths)
        told = [*names[:1], *([f"layers with {numbers} inputs or outputs"] if numbers else [])]
        yield f"| {name} | {', '.join(told)} |"


def refused_keys() -> Iterator[str]:
    """What other keys are refused as, and the advice."""
    yield "| a key is | what to do |"
    yield "|---|---|"
    for refusal in REASONS:
        if ": made for another model" not in refusal.words:
            yield f"| {refusal.words} | {refusal.hint or ''} |"


PARTS = {
    "layers": layers,
    "prefixes": prefixes,
    "endings": endings,
    "base models": base_models,
    "other models": other_models,
    "refused keys": refused_keys,
}


def main() -> None:
    for name, lines in PARTS.items():
        put(PAGE, name, list(lines()))


if __name__ == "__main__":
    main()
