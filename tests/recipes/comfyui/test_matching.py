"""Which LoRA of a target a file in a workflow is."""

from __future__ import annotations

import pytest

from composer.model import Model
from composer.recipes.comfyui import LoraUse
from composer.recipes.comfyui.matching import match


def lora(id: str, name: str, *files: str, aliases: tuple[str, ...] = ()) -> Model:
    return Model(id, "flux.1-lora", name, "trained", aliases=aliases, files=files)


LIBRARY = [
    lora("ink", "Ink Lines", "style/ink-lines.safetensors"),
    lora("old", "Old Ink", "old/ink-lines.safetensors"),
    lora("dust", "Pixel Dust", "pixel_dust_v2.safetensors", aliases=("dust",)),
    lora("cafe", "Cafe\u0301", "cafe\u0301.safetensors"),
    lora("remote", "Castle Stone"),
]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("style/ink-lines.safetensors", "ink"),
        ("style\\ink-lines.safetensors", "ink"),
        ("flux\\style\\ink-lines.safetensors", "ink"),
        ("style/ink-lines", "ink"),
        ("pixel_dust_v2.safetensors", "dust"),
        ("any/where/pixel_dust_v2.safetensors", "dust"),
        ("Pixel_Dust_V2.SAFETENSORS", "dust"),
        ("Ink Lines", "ink"),
        ("dust.safetensors", "dust"),
        ("caf\u00e9.safetensors", "cafe"),
        ("castle_stone.safetensors", "remote"),
    ],
)
def test_a_file_is_found_by_path_name_or_title(file: str, expected: str) -> None:
    assert match(LoraUse(file, 1, 1, ""), LIBRARY, {}, id=None).id == expected


def test_the_hash_decides() -> None:
    assert match(LoraUse("else.safetensors", 1, 1, ""), LIBRARY, {}, id="dust").id == "dust"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "ink-lines.safetensors",
            "2 LoRAs on the target match it: old/ink-lines.safetensors (old),"
            " style/ink-lines.safetensors (ink)",
        ),
        ("pixel_dst.safetensors", "the most similar one is pixel_dust_v2.safetensors"),
        ("mist.safetensors", "the target has no such LoRA; compose models lists"),
        ("sub\\anima.safetensors", "it can't be used: anima.safetensors is for Anima"),
        ("xl.safetensors", "it can't be used: xl.safetensors is for SDXL"),
    ],
)
def test_why_none_is_found(file: str, words: str) -> None:
    rejected = {
        "anima": "anima.safetensors is for Anima",
        "My Title": "xl.safetensors is for SDXL",
    }
    with pytest.raises(LookupError) as missing:
        match(LoraUse(file, 1, 1, ""), LIBRARY, rejected, id=None)
    assert words in str(missing.value)
