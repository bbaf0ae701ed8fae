"""A composed file against its sources, both as diffusers loads them, by the model's output.

The sources go in as adapters at the recipe's scales, the composed file as one adapter at 1. What
diffusers can't read rightly goes in as a plain file with the oracle's float64 factors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from oracle.cases import FORMATS
from safetensors.numpy import save_file
from support import lora_oracle as oracle
from support import make_samples

from composer.lora import compose, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oracle.judge import Judge

    Mix = Sequence[tuple[Path, float]]

EFFECT = 1e-2  # what the LoRAs change at least, relative to the output
EXACT = 1e-5  # float32: error relative to the output
NARROW = 1e-2  # bfloat16 and float16: error relative to the effect, which is far stricter
CASES = {case.name: case for case in FORMATS}


@dataclass(frozen=True)
class Part:
    """One source: a format of the table, perhaps in another type or with another rank."""

    name: str
    scale: float
    dtype: str = "F32"
    rank: int | None = None
    seed: int = 0

    def save(self, folder: Path) -> Path:
        """The file as it is met."""
        case = CASES[self.name]
        loras = [replace(lora, dtype=self.dtype) for lora in case.file.loras]
        if self.rank:
            loras = [replace(lora, ranks=(self.rank, self.rank)) for lora in loras]
        folder.mkdir()
        file = replace(case.file, loras=tuple(loras), seed=self.seed)
        return replace(case, file=file).save(folder / "theirs.safetensors")

    def source(self, path: Path) -> Path:
        """What diffusers gets: it rounds its product of alpha and weights to the file's type."""
        readable = CASES[self.name].read and self.dtype == "F32"
        return path if readable else plain(path, path.with_name("plain.safetensors"))


def plain(path: Path, out: Path) -> Path:
    """The same LoRA in float32 as diffusers itself saves it, by the oracle's reading."""
    tensors = {}
    for module, pairs in oracle.deltas(path).items():
        up, down = oracle.joined(pairs)
        tensors[f"transformer.{module}.lora_A.weight"] = down.astype(np.float32)
        tensors[f"transformer.{module}.lora_B.weight"] = up.astype(np.float32)
    save_file(tensors, out)
    return out


P = Part
MIXES = {
    "ranks, alphas, module sets and formats differ": (
        P("kohya (sd-scripts)", 0.65),
        P("diffusers with `.alpha`", 0.5, rank=6),
        P("XLabs", 0.35, rank=2),
    ),
    "PEFT's metadata, block-diagonal kohya, ComfyUI": (
        P("diffusers with `lora_adapter_metadata`", 0.9),
        P("kohya, block-diagonal", 0.5, rank=3),
        P("ComfyUI, `lora_A`", -0.4),
    ),
    "fal, raw PEFT and OneTrainer": (
        P("fal, some layers", 0.6, rank=5),
        P("raw PEFT", 0.7),
        P("OneTrainer with MLP", 0.3),
    ),
    "LoHa and LoKr": (
        P("LyCORIS LoHa", 0.5),
        P("LyCORIS LoKr, kohya's names", 0.4),
        P("kohya with the layers outside the blocks", 0.8),
    ),
    "bare names": (
        P("bare diffusers, DiffSynth", 0.3),
        P("OneTrainer original, BFL names", 0.6),
        P("bare diffusers behind `unet.`", 0.5, seed=1),
        P("diffusers, `lora_A.default`", 0.4, seed=2),
    ),
    "one rank throughout": (
        P("diffusers, ai-toolkit", 0.9, rank=6),
        P("diffusers, ai-toolkit", 0.4, rank=3, seed=1),
    ),
    "types mixed": (
        P("kohya (sd-scripts)", 0.7, "BF16"),
        P("diffusers, ai-toolkit", 0.5, "F16"),
        P("kohya in float8", 0.6, "F8_E5M2"),
        P("XLabs", 0.45),
    ),
    "bfloat16": (P("kohya (sd-scripts)", 0.7, "BF16"), P("diffusers, ranks mixed", 0.6, "BF16")),
    "float16": (P("kohya without `.alpha`", 0.7, "F16"), P("ComfyUI, `lora_A`", 0.9, "F16")),
    "float8": (P("kohya in float8", 0.7, "F8_E4M3"), P("fal, some layers", 0.6, "F8_E5M2")),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_composed_file_is_its_sources_together(judge: Judge, tmp_path: Path, name: str) -> None:
    files = [part.save(tmp_path / str(n)) for n, part in enumerate(MIXES[name])]
    scales = [part.scale for part in MIXES[name]]
    sources = [part.source(path) for part, path in zip(MIXES[name], files, strict=True)]
    judged(judge, list(zip(files, scales, strict=True)), list(zip(sources, scales, strict=True)))


RECIPES = sorted(make_samples.FOLDER.parent.rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_sample_recipes(judge: Judge, tmp_path: Path, path: Path) -> None:
    concepts = yaml.safe_load(path.read_text(encoding="utf-8"))["concepts"]
    titles = {read(file).title: file for file in make_samples.FOLDER.glob("*.safetensors")}
    mix = [(titles[concept["name"]], concept["scale"]) for concept in concepts]
    judged(judge, mix, mix, tmp_path / "out.safetensors")


def judged(judge: Judge, mix: Mix, sources: Mix, out: Path | None = None) -> None:
    """The composed mix does what its sources do together, and with a scale off by 0.01 it doesn't.

    Errors are relative to the output where the result is float32, else to the effect, and then
    the scale that weighs most must show.
    """
    out = out or mix[0][0].with_name("ours.safetensors")
    wanted = judge.loaded(sources).output
    effect = float((wanted - judge.plain).norm() / judge.plain.norm())
    errors = []
    for off in (None, *range(len(mix))):
        parts = [(read(path), s + 0.01 * (n == off)) for n, (path, s) in enumerate(mix)]
        compose(parts, out, metadata={})
        error = judge.loaded([(out, 1.0)]).output - wanted
        errors.append(float(error.norm() / wanted.norm()))
    texts = ", ".join(f"{error:.1e}" for error in errors[1:])
    print(f"effect {effect:.1e}, error {errors[0]:.1e}, with a scale off by 0.01: {texts}")
    exact = read(out).dtypes == ("F32",)
    limit = EXACT if exact else NARROW * effect
    assert effect >= EFFECT
    assert errors[0] <= limit < (min if exact else max)(errors[1:])
