"""Makes the LoRA files of the tutorials: small, of random weights, one of the eight for SDXL.

    python3 tutorial_loras.py FOLDER

It needs nothing but Python. The files are the same every time.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from array import array
from pathlib import Path

RANK, WIDTH = 4, 3072
LAYERS = [
    f"lora_unet_double_blocks_{block}_{stream}_attn_proj"
    for block in (0, 9, 18)
    for stream in ("img", "txt")
]
Tensors = dict[str, tuple[list[int], "array[int]"]]


def column(seed: str, width: int) -> list[int]:
    """Random bfloat16 numbers, as bits: between 0.008 and 0.016, or the same below 0."""
    data = random.Random(seed).randbytes(width)
    return [0x3C00 | (byte & 0x80) << 8 | byte & 0x7F for byte in data]


def lora(layers: list[str], width: int, *styles: str) -> Tensors:
    """One style for each rank: ranks of the same style change the same in every file."""
    tensors: Tensors = {}
    for layer in layers:
        seeds = [f"{layer} {rank} {style}" for rank, style in enumerate(styles)]
        down = [value for seed in seeds for value in column(seed + " down", width)]
        up = zip(*(column(seed + " up", width) for seed in seeds), strict=True)
        tensors[f"{layer}.alpha"] = ([], array("H", [0x4080]))  # 4.0
        tensors[f"{layer}.lora_down.weight"] = ([len(styles), width], array("H", down))
        values = array("H", [value for row in up for value in row])
        tensors[f"{layer}.lora_up.weight"] = ([width, len(styles)], values)
    return tensors


def write(path: Path, title: str, words: str, model: str, tensors: Tensors) -> None:
    """A safetensors file with the notes that trainers leave."""
    notes = {"ss_output_name": title, "ss_base_model_version": model}
    notes |= {"modelspec.trigger_phrase": words} if words else {}
    header: dict[str, object] = {"__metadata__": notes}
    end = 0
    for name, (shape, values) in tensors.items():
        start, end = end, end + 2 * len(values)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(values.tobytes() for _, values in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, title, words, styles in (
        ("storybook-watercolour", "Storybook Watercolour", "storybook watercolour", "wwww"),
        ("ink-lines", "Ink Lines", "inklines", "iiii"),
        ("comic-ink", "Comic Ink", "comic ink", "iicc"),
        ("castle-stone", "Castle Stone", "", "ssss"),
        ("knight-000008", "knight", "sir galant", "kkkx"),
        ("knight", "knight", "sir galant", "kkkk"),
    ):
        file = folder / f"{name}.safetensors"
        write(file, title, words, "flux1", lora(LAYERS, WIDTH, *styles))
    shutil.copy(folder / "ink-lines.safetensors", folder / "ink-lines-old.safetensors")
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    glow = lora([layer], 640, "g", "g")
    write(folder / "glow-sdxl.safetensors", "Glow", "glow", "sdxl_base_v1-0", glow)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
