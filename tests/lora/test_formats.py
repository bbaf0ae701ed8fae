"""The engine's tables of layers and spellings, against the tests' own and the counts of FLUX.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle.page import lines
from support import format_lists
from support.lora_names import ENDINGS, FORMATS, MEANINGS, NORMS, XLABS_ENDINGS

from composer.lora.families import flux1_files as formats
from composer.lora.families.flux1_files import BY_BFL, BY_PATH, MODULES
from composer.lora.formats import TensorRole, spelled

if TYPE_CHECKING:
    from composer.lora.formats import ModuleSlice

PIECES = {
    **{piece: f".{piece.value}" for piece in TensorRole},
    TensorRole.DOWN: "down",
    TensorRole.UP: "up",
    TensorRole.ALPHA: ".alpha",
    TensorRole.BIAS: ".lora_B.bias",
}


def test_the_table_has_flux_1s_layers() -> None:
    """Counts of the two vocabularies, and no weight of the fused layers lost or doubled."""
    assert (len(MODULES), len(BY_PATH), len(BY_BFL)) == (504, 504, 314)
    assert sum(m.inputs + m.outputs for m in MODULES if "blocks" in m.path) == 5_369_856
    assert sum(s.inputs + s.outputs for n, s in BY_BFL.items() if "blocks" in n) == 4_786_176
    for site in BY_BFL.values():
        assert site.outputs == sum(part.module.outputs for part in site.parts)
        assert {part.module.inputs for part in site.parts} == {site.inputs}
    assert [n for n, s in BY_BFL.items() if s.parts[0].swapped] == [
        "final_layer.adaLN_modulation.1"
    ]


def test_no_two_spellings_are_alike_and_each_is_found() -> None:
    """Every legal key of every format, by the tests' own tables."""
    written = sum(
        len(layers) * len(XLABS_ENDINGS if name == "XLabs" else ENDINGS)
        for name, layers in FORMATS.items()
    )
    assert written == sum(len(f.layers) * len(f.suffixes) for f in formats.FORMATS)
    assert written == len(MEANINGS) > 160_000
    for key, meaning in MEANINGS.items():
        found = spelled(formats.FILES, key)
        assert found is not None, key
        assert (found[0].text, PIECES[found[1]]) == meaning
    assert not NORMS.keys() & MEANINGS.keys()
    assert formats.NORM_KEYS == NORMS


def test_spellings_mean_the_same_layers_and_rows() -> None:
    """Names, shapes, and which row goes where."""
    assert {format.name: set(format.layers) for format in formats.FORMATS} == {
        name: set(layers) for name, layers in FORMATS.items()
    }
    for format in formats.FORMATS:
        for stem, site in format.layers.items():
            layer = FORMATS[format.name][stem]
            assert (site.inputs, site.outputs) == (layer.inputs, layer.outputs)
            assert {part.module.path: rows(part) for part in site.parts} == layer.parts


@pytest.mark.parametrize("name", format_lists.PARTS)
def test_the_page_lists_every_spelling_and_base_model(name: str) -> None:
    written = format_lists.PARTS[name]()
    assert lines(format_lists.PAGE, name) == list(written), "python -m support.format_lists"


def rows(part: ModuleSlice) -> tuple[slice, ...]:
    half = part.start + part.module.outputs // 2
    if part.swapped:
        return slice(half, part.stop), slice(part.start, half)
    return (slice(part.start, part.stop),)
