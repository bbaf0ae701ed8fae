"""Every spelling of the tables in docs/formats.md, with every kind of LoRA, type and strength.

A `Cell` is one LoRA. `full` has all of a format that can exist, `sample` a few hundred.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from support.lora_names import FORMATS, PAIRS, PEFT_BIAS, STEMS, XLABS_PAIR
from support.lora_wild import File, Lora

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RANK, ALPHA = 2, 3.0  # so a strength that is passed over is a third too weak
DTYPES = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
STRENGTHS = ("absent", "keys", "metadata", "beside")
WRITTEN = ("plain", "named", "underscore", "convolutions")
PEFT = ("base_model.model.", "transformer.base_model.model.")
ENCODERS = ("text_encoder.", "text_encoder_2.")
XLABS = "LoRA .down"
FORMS: dict[str, dict[str, Any]] = {
    **{f"LoRA {down}": {"endings": (down, up)} for down, up in PAIRS},
    XLABS: {"endings": XLABS_PAIR},
    f"LoRA {PEFT_BIAS[0]}": {"endings": PAIRS[0], "bias": PEFT_BIAS[0]},
    f"LoRA {PEFT_BIAS[1]}": {"endings": PAIRS[1], "bias": PEFT_BIAS[1]},
    "LoRA .diff_b": {"endings": PAIRS[2], "bias": ".diff_b"},
    "LoRA .reshape_weight": {"reshape": True},
    "LoHa": {"kind": "loha"},
    "LoKr, w1 whole": {"kind": "lokr", "whole": (True, False), "split": (8, 4)},
    "LoKr, w2 whole": {"kind": "lokr", "whole": (False, True), "split": (0, 0)},
    "LoKr, none whole": {"kind": "lokr", "split": (8, 4)},
    "LoKr, both whole": {"kind": "lokr", "whole": (True, True), "split": (0, 0)},
}
TYPES = {"plain": "LORA", "loha": "LOHA", "lokr": "LOKR"}


@dataclass(frozen=True)
class Cell:
    """One LoRA: how its layer, its weights and its strength are written."""

    format: str
    stem: str
    form: str
    dtype: str
    strength: str
    written: str

    @property
    def exists(self) -> bool:
        """Whether a tool may write this. What can't exist is left out by these rules alone:

        - XLabs' names have XLabs' endings, and no others.
        - No loader takes a bias of a text encoder.
        - `lora_adapter_metadata` is about diffusers' names, bare or behind `transformer.`, about
          BFL's behind `transformer.`, and about those of `text_encoder.` and `text_encoder_2.`.
        - `adapter_config.json` is about PEFT's names.
        - An adapter's name stands where PEFT puts it, and where there is none yet.
        - An underscore ends names without dots.
        """
        weights = self.form.partition(" ")[2]
        if (self.format == "XLabs") != (self.form == XLABS):
            return False
        if self.format == "text encoder" and FORMS[self.form].get("bias"):
            return False
        if self.strength == "metadata" and not self._in_metadata:
            return False
        if self.strength == "beside" and not self.stem.startswith(PEFT):
            return False
        if self.written == "named":
            return not weights.startswith(".") or weights in (PAIRS[0][0], PEFT_BIAS[0])
        return self.written != "underscore" or "." not in self.stem

    @property
    def _in_metadata(self) -> bool:
        if self.stem.startswith(PEFT):
            return False
        alone = self.format == "bare diffusers" and not self.stem.startswith("unet.")
        return alone or self.stem.startswith(("transformer.", *ENCODERS))

    @property
    def lora(self) -> Lora:
        lora = replace(Lora(self.stem, ranks=(RANK, RANK), dtype=self.dtype), **FORMS[self.form])
        if lora.split == (0, 0):  # a small second matrix: the rank is the product of the sides
            lora = replace(lora, split=(lora.layer.outputs // 2, 2))
        if self.strength == "keys":
            lora = replace(lora, alpha=ALPHA, alpha_type=self.dtype)
        return lora

    @property
    def config(self) -> dict[str, Any]:
        """What PEFT's configuration says of it, if it says its strength."""
        if self.strength not in ("metadata", "beside"):
            return {}
        type = TYPES[self.lora.kind]
        alpha = "lora_alpha" if type == "LORA" else "alpha"
        known = (*PEFT, "transformer.", *ENCODERS)
        prefix = next((p for p in known if self.stem.startswith(p)), "")
        targets = [self.stem.removeprefix(prefix)]
        said = {"peft_type": type, "r": RANK, alpha: ALPHA, "target_modules": targets}
        before = prefix if self.strength == "metadata" else ""
        return {f"{before}{key}": value for key, value in said.items()}


def spellings(format: str) -> dict[str, list[str]]:
    """Each spelling of a layer with an N for the number of its block, and those of all blocks."""
    found: dict[str, list[str]] = {}
    for stem in FORMATS[format]:
        any_block = re.sub(r"(blocks?|layers)([._])\d+", r"\1\2N", stem, count=1)
        found.setdefault(any_block, []).append(stem)
    return found


def file_of(cells: Sequence[Cell]) -> File:
    """A file of these, which are written alike."""
    first = cells[0]
    config: dict[str, Any] = {}
    for key, value in (item for cell in cells for item in cell.config.items()):
        config[key] = config.get(key, []) + value if isinstance(value, list) else value
    return File(
        tuple(cell.lora for cell in cells),
        config=config,
        beside=first.strength == "beside",
        weights=f"{first.dtype}.safetensors",
        adapter="ink" if first.written == "named" else None,
        underscore=first.written == "underscore",
        convolutions=first.written == "convolutions",
    )


def full(format: str) -> Iterator[list[Cell]]:
    """The product of all spellings of a format, forms, types and places of the strength, in one of
    the ways to write it: as many in a file as change different layers."""
    stems = [same[number % len(same)] for number, same in enumerate(spellings(format).values())]
    for number, (form, dtype, strength) in enumerate(product(FORMS, DTYPES, STRENGTHS)):
        written = WRITTEN[(number + number // len(STRENGTHS)) % len(WRITTEN)]
        alike = [Cell(format, stem, form, dtype, strength, written) for stem in stems]
        plain = [replace(cell, written="plain") for cell in alike if not cell.exists]
        for group in (alike, plain):
            yield from apart([cell for cell in group if cell.exists])


def apart(cells: list[Cell]) -> Iterator[list[Cell]]:
    """The same in groups, in each of which no two change one layer."""
    while cells:
        taken: set[str] = set()
        group, rest = [], []
        for cell in cells:
            modules = STEMS[cell.stem].parts.keys()
            (group if taken.isdisjoint(modules) else rest).append(cell)
            taken |= set(modules) if group[-1:] == [cell] else set()
        yield group
        cells = rest


@cache
def sample() -> list[Cell]:
    """Every prefix, every name of a layer, and every combination of `values`, drawn the same way on
    every machine."""
    random, drawn, seen = np.random.default_rng(0), list[Cell](), set[str]()
    for format, any_block, stems in every_spelling():
        new = parts(format, any_block) - seen
        if new:
            drawn.append(_any(format, stems, random))
            seen |= new
    have = set().union(*map(values, drawn))
    for cell in _of_few():
        if not values(cell) <= have:
            drawn.append(cell)
            have |= values(cell)
    return drawn


def every_spelling() -> Iterator[tuple[str, str, list[str]]]:
    for format in FORMATS:
        for any_block, stems in spellings(format).items():
            yield format, any_block, stems


def values(cell: Cell) -> set[str]:
    """Each form and its place of the strength, each type with both, and each way to write it."""
    kind = re.split("[ ,]", cell.form)[0]
    pairs = {(cell.form, cell.strength), (kind, cell.dtype), (cell.dtype, cell.strength)}
    return {cell.written, *(" ".join(pair) for pair in pairs)}


def possible() -> set[str]:
    """All that `values` can be: the rules of what exists tell no more stems apart."""
    return set().union(*map(values, _of_few()))


def _of_few() -> Iterator[Cell]:
    stems = ("raw PEFT", "diffusers", "kohya", "XLabs")
    few = [(format, next(iter(FORMATS[format]))) for format in stems]
    for (format, stem), *others in product(few, FORMS, DTYPES, STRENGTHS, WRITTEN):
        cell = Cell(format, stem, *others)
        if cell.exists:
            yield cell


def _any(format: str, stems: Sequence[str], random: np.random.Generator) -> Cell:
    """A cell that exists."""
    while True:
        dimensions = (stems, [*FORMS], DTYPES, STRENGTHS, WRITTEN)
        cell = Cell(format, *(one[random.integers(len(one))] for one in dimensions))
        if cell.exists:
            return cell


def _names() -> Iterator[str]:
    """The names of layers without a prefix."""
    prefixes = {"bare diffusers": "unet.", "BFL": "transformer.", "DiffSynth": "pipe.dit."}
    prefixes["XLabs"] = "diffusion_model."
    for format, prefix in prefixes.items():
        yield from (name for name in spellings(format) if not name.startswith(prefix))
    for name in spellings("text encoder"):
        if name.startswith(ENCODERS):
            yield name.partition(".")[2]


NAMES = sorted({*_names()}, key=len, reverse=True)


def parts(format: str, any_block: str) -> set[str]:
    """The prefix and the name that a spelling is made of."""
    for name in NAMES:
        for written in (name, name.replace(".", "_")):
            if any_block.endswith(written):
                return {f"{format}: {any_block.removesuffix(written)}", name}
    raise AssertionError(any_block)
