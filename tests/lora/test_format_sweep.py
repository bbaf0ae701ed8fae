"""Every spelling of docs/formats.md x kind x type x place of the strength, against the oracle.

A sample has every prefix, name of a layer and ending; the long run takes the full product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import lora_oracle as oracle
from support import lora_sweep as sweep
from support.lora_checks import LIMITS
from support.lora_names import ENDINGS, FORMATS, XLABS_ENDINGS
from support.lora_wild import save
from support.sizes import soak_factor

from composer.lora import compose, read

if TYPE_CHECKING:
    from pathlib import Path

    from support.lora_sweep import Cell

SCALE = 0.7
FEW = 2.0  # how much larger an error of a few entries may be than one of all


@pytest.mark.parametrize("format", FORMATS)
def test_it_is_composed_as_it_says(tmp_path: Path, format: str) -> None:
    few = ([cell] for cell in sweep.sample() if cell.format == format)
    for number, cells in enumerate(sweep.full(format) if soak_factor() else few):
        judge(cells, tmp_path / f"{number}")


def judge(cells: list[Cell], path: Path) -> None:
    """One file of these."""
    source, out = save(sweep.file_of(cells), path), path.with_suffix(".out")
    lora, first = read(source), cells[0]
    assert lora.format == first.format, first
    guess = first.strength == "absent" and first.stem.startswith(sweep.PEFT)
    assert [note.partition(":")[0] for note in lora.notes] == ["its strength is a guess"] * guess
    t5 = any(module.startswith("text_encoder_2.") for module in lora.modules)
    compose([(lora, SCALE)], out, metadata={}, format="kohya" if t5 else "diffusers")
    compare(oracle.entries(out), oracle.entries(source, SCALE), FEW * limit(out), first)
    for file in (source, out):
        file.unlink()


def limit(path: Path) -> float:
    (dtype,) = read(path).dtypes
    return LIMITS[dtype]


def compare(
    got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], most: float, first: Cell
) -> None:
    for module, values in wanted.items():
        error = np.linalg.norm(got[module] - values) / np.linalg.norm(values)
        assert error <= most, (first, module, error)
    others = got.keys() - wanted.keys()  # of CLIP all layers are written
    assert all(name.startswith("text_encoder.") and not got[name].any() for name in others), first


def test_a_strength_off_by_a_hundredth_is_noticed(tmp_path: Path) -> None:
    for cell in (cell for cell in sweep.sample()[:20] if cell.dtype == "F32"):
        source = save(sweep.file_of([cell]), tmp_path / cell.form)
        wanted = oracle.entries(source, SCALE)
        for off in (1.0, 1.01):
            got = oracle.entries(source, SCALE * off)
            if off == 1:
                compare(got, wanted, FEW * LIMITS["F32"], cell)
            else:
                with pytest.raises(AssertionError):
                    compare(got, wanted, FEW * LIMITS["F32"], cell)


def test_the_sample_has_every_part_of_a_spelling_and_every_value() -> None:
    drawn = sweep.sample()
    have = {cell.stem: cell.format for cell in drawn}
    parts, wanted = set[str](), set[str]()
    for format, any_block, stems in sweep.every_spelling():
        ours = sweep.parts(format, any_block)
        wanted |= ours
        parts |= ours if any(have.get(stem) == format for stem in stems) else set()
    assert parts == wanted
    assert set().union(*map(sweep.values, drawn)) == sweep.possible()
    assert all(cell.exists for cell in drawn)


def test_the_forms_have_every_ending(tmp_path: Path) -> None:
    """Of the table of endings, by the keys that are written."""
    endings = set[str]()
    for number, form in enumerate(sweep.FORMS):
        format = "XLabs" if form == sweep.XLABS else "kohya"
        stem = next(iter(FORMATS[format]))
        cell = sweep.Cell(format, stem, form, "F32", "keys", "plain")
        path = save(sweep.file_of([cell]), tmp_path / f"{number}")
        endings |= {key.removeprefix(stem) for key in oracle.load(path)}
    assert endings == {*ENDINGS, *XLABS_ENDINGS}
