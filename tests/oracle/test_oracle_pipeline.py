"""Our files through `FluxPipeline.load_lora_weights`: the right effect, and no warning.

What is right is the output with the weights changed by hand, as the oracle reads the sources.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from oracle import table
from oracle.cases import BLOCKS, FORMATS, FUSED, OUT, TOP, clip, file, kohya, loras
from safetensors import safe_open
from support.lora_names import PEFT_BIAS
from support.lora_wild import File, save

from composer.lora import compose, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oracle.judge import Judge

EXACT = 1e-5
CONTROL = next(case for case in FORMATS if case.wide)
ONE = file(loras([*BLOCKS, *TOP], "transformer."), seed=1)
OTHER = file(loras([*BLOCKS[1:], OUT], "transformer."), seed=2)
WIDER = file(loras([*BLOCKS[1:], OUT, "proj_out"], "transformer.", ranks=(6, 6)), seed=3)
BIASED = file(
    loras(BLOCKS[:1], "transformer.", bias=PEFT_BIAS[0], alpha=8.0),
    loras(BLOCKS[1:], "transformer.", alpha=8.0),
)
BIAS_ALONE = file(
    loras(["proj_out"], "diffusion_model.", kind="bias", bias=".diff_b"), loras(BLOCKS)
)


def text(*names: str) -> File:
    return file(loras(BLOCKS, "transformer."), clip(*names, prefix="text_encoder."))


MIXES: dict[str, Sequence[File]] = {
    "one rank": [replace(ONE, loras=ONE.loras[:5]), replace(ONE, loras=ONE.loras[:5], seed=4)],
    "mixed ranks": [ONE, WIDER],
    "all of CLIP": [text(), OTHER],
    "CLIP's q and k": [text("q_proj", "k_proj"), OTHER],
    "CLIP's q and fc1": [text("q_proj", "fc1"), WIDER],
    "one layer of CLIP": [text("layers.7.self_attn.out_proj"), WIDER],
    "CLIP in two parts": [text("layers.0.mlp.fc2"), file(clip("v_proj", prefix="lora_te_"))],
    "a bias on one layer": [BIASED, replace(BIASED, seed=5)],
    "a bias on one layer, mixed ranks": [BIASED, WIDER],
    "biases and CLIP": [BIASED, text("q_proj")],
}


def saved(files: Sequence[File], folder: Path) -> list[tuple[Path, float]]:
    scales = (0.7, 0.55)
    return [(save(f, folder / f"{n}.safetensors"), scales[n]) for n, f in enumerate(files)]


@pytest.mark.parametrize("name", MIXES)
def test_our_file_has_the_right_effect(judge: Judge, tmp_path: Path, name: str) -> None:
    mix = saved(MIXES[name], tmp_path)
    check(judge, mix, tmp_path / "ours.safetensors")


def test_mixed_ranks_carry_one_constant_alpha(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    parts = [(read(path), scale) for path, scale in saved([ONE, WIDER], tmp_path)]
    compose(parts, out, metadata={})
    with safe_open(out, "np") as reader:
        alphas = {float(reader.get_tensor(k)) for k in reader.offset_keys() if k.endswith(".alpha")}
    assert len(alphas) == 1 and len(read(out).ranks) > 1


def test_a_control_lora_widens_the_input_and_replaces_the_norms(
    judge: Judge, tmp_path: Path
) -> None:
    mix = [(CONTROL.save(tmp_path / "control.safetensors"), 1.0), *saved([WIDER], tmp_path)]
    check(judge, mix, tmp_path / "ours.safetensors", whole=True)
    assert judge.pipe.transformer.x_embedder.in_features == 64  # given back


@pytest.mark.parametrize(
    "files",
    [[file(kohya(FUSED)), file(kohya(FUSED[1:], ranks=(6, 6)), seed=1)], [file(clip()), OTHER]],
    ids=["blocks, mixed ranks", "CLIP"],
)
def test_kohyas_form(judge: Judge, tmp_path: Path, files: Sequence[File]) -> None:
    check(judge, saved(files, tmp_path), tmp_path / "ours.safetensors", format="kohya")


def check(
    judge: Judge,
    mix: Sequence[tuple[Path, float]],
    out: Path,
    *,
    format: str = "diffusers",
    whole: bool = False,
) -> None:
    right = table.wanted(judge, mix)
    effect = float((right - judge.plain).norm() / judge.plain.norm())
    errors = []
    for off in (0.0, 0.01):
        parts = [(read(path), scale + off) for path, scale in mix]
        compose(parts, out, metadata={}, format=format)
        answer = judge.loaded([(out, 1.0)])
        errors.append(float((answer.output - right).norm() / right.norm()))
        assert whole or not answer.said
    print(f"effect {effect:.1e}, errors {', '.join(f'{error:.1e}' for error in errors)}")
    assert effect >= 1e-2
    assert errors[0] <= EXACT < errors[1]
