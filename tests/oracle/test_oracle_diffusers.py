"""A composed file against its sources, both as diffusers loads them, by the model's output.

The model is FLUX.1 at its true widths with one block of each kind and random weights (diffusers'
converters know no other widths): half a billion parameters, 2 GB in float32. The sources go in as
adapters at the recipe's scales, the composed file as one adapter at 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import make_samples
import pytest
import torch
import yaml
from diffusers import FluxPipeline, FluxTransformer2DModel
from lora_files import Spec, adapter_metadata, write

from composer.engine.lora import compose, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Mix = Sequence[tuple[Path, float]]

EFFECT = 1e-2  # what the LoRAs change at least, relative to the output
EXACT = 1e-5  # float32: error relative to the output
NARROW = 1e-2  # bfloat16 and float16: error relative to the effect, which is far stricter

D, S = "transformer_blocks.0", "single_transformer_blocks.0"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"
LINEAR1 = "lora_unet_single_blocks_0_linear1"

SPLIT = Spec(
    False,
    "F32",
    {f"{D}.attn.to_q": 4, f"{D}.attn.to_v": 4, f"{S}.proj_mlp": 8, "norm_out.linear": 4},
    seed=1,
)
WITH_ALPHAS = Spec(
    False,
    "F32",
    {f"{D}.attn.to_q": 6, f"{S}.attn.to_k": 6, "proj_out": 2},
    {f"{D}.attn.to_q": 3.0, f"{S}.attn.to_k": 3.0, "proj_out": 3.0},
    seed=2,
)
WITH_METADATA = Spec(
    False,
    "F32",
    {f"{D}.attn.to_k": 3, "x_embedder": 5},
    metadata=adapter_metadata(
        r=3,
        lora_alpha=2,
        rank_pattern={"^x_embedder": 5},
        alpha_pattern={"^x_embedder": 10},
        target_modules=[f"{D}.attn.to_k", "x_embedder"],
    ),
    seed=3,
)
KOHYA = Spec(
    True,
    "F32",
    {QKV: 5, LINEAR1: 5, "lora_unet_single_blocks_0_modulation_lin": 5},
    {QKV: 2.0, LINEAR1: 2.0, "lora_unet_single_blocks_0_modulation_lin": 2.0},
    seed=4,
)
DIAGONAL = Spec(True, "F32", {QKV: 2, LINEAR1: 2}, {QKV: 3.0, LINEAR1: 4.0}, True, seed=5)

MIXES: dict[str, tuple[tuple[Spec, float], ...]] = {
    "ranks, alphas, module sets and formats differ": (
        (SPLIT, 0.65),
        (WITH_ALPHAS, 0.5),
        (KOHYA, 0.35),
    ),
    "peft's metadata and block-diagonal kohya": ((WITH_METADATA, 0.9), (DIAGONAL, 0.5)),
    "one rank throughout": (
        (replace(SPLIT, ranks=dict.fromkeys(SPLIT.ranks, 6)), 0.9),
        (replace(SPLIT, ranks=dict.fromkeys(SPLIT.ranks, 3), seed=6), 0.4),
    ),
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    flux: Any = FluxTransformer2DModel
    built = flux(num_layers=1, num_single_layers=1, guidance_embeds=True)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plain(model: Any) -> torch.Tensor:
    """What the model answers without any LoRA."""
    return _forward(model)


def output(model: Any, mix: Mix) -> torch.Tensor:
    """What the model answers with these files loaded as adapters, at these scales."""
    names = [f"part{number}" for number in range(len(mix))]
    for name, (path, _) in zip(names, mix, strict=True):
        state, alphas, metadata = FluxPipeline.lora_state_dict(
            str(path), return_alphas=True, return_lora_metadata=True
        )
        FluxPipeline.load_lora_into_transformer(
            state, alphas, model, adapter_name=name, metadata=metadata
        )
    model.set_adapters(names, [scale for _, scale in mix])
    result = _forward(model)
    model.delete_adapters(names)
    return result


@torch.no_grad()
def _forward(model: Any) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    answer = model(
        hidden_states=torch.randn(1, 16, 64, generator=random),
        encoder_hidden_states=torch.randn(1, 8, 4096, generator=random),
        pooled_projections=torch.randn(1, 768, generator=random),
        timestep=torch.tensor([0.5]),
        guidance=torch.tensor([3.5]),
        img_ids=torch.cat([torch.zeros(16, 1), torch.cartesian_prod(*[torch.arange(4.0)] * 2)], 1),
        txt_ids=torch.zeros(8, 3),
        return_dict=False,
    )
    result: torch.Tensor = answer[0].double()
    return result


def judged(model: Any, plain: torch.Tensor, mix: Mix, out: Path) -> tuple[float, list[float]]:
    """The error of the composed file, and those of files with each scale in turn off by 0.01.

    Errors are relative to the output where the result is float32, else to the effect.
    """
    wanted = output(model, mix)
    effect = wanted - plain
    assert effect.norm() >= EFFECT * plain.norm()
    errors = []
    for off in (None, *range(len(mix))):
        parts = [(read(path), s + 0.01 * (n == off)) for n, (path, s) in enumerate(mix)]
        compose(parts, out, metadata={})
        unit = wanted if _limit(out) == EXACT else effect
        errors.append(float((output(model, [(out, 1.0)]) - wanted).norm() / unit.norm()))
    size, texts = effect.norm() / plain.norm(), ", ".join(f"{error:.1e}" for error in errors[1:])
    print(f"effect {size:.1e}, error {errors[0]:.1e}, with a scale off by 0.01: {texts}")
    return errors[0], errors[1:]


def _check(error: float, controls: Sequence[float], limit: float) -> None:
    """Float32 must notice any scale that is off, narrower types the one that weighs most."""
    assert error <= limit
    assert (min if limit == EXACT else max)(controls) > limit


def _limit(out: Path) -> float:
    return EXACT if read(out).dtypes == ("F32",) else NARROW


CASES = [
    *((name, dtype) for name in MIXES for dtype in ("F32", "BF16")),
    (next(iter(MIXES)), "F16"),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_composed_file_is_its_sources_together(
    model: Any, plain: torch.Tensor, tmp_path: Path, name: str, dtype: str
) -> None:
    mix = [
        (write(replace(spec, dtype=dtype), tmp_path / f"{number}.safetensors"), scale)
        for number, (spec, scale) in enumerate(MIXES[name])
    ]
    out = tmp_path / "out.safetensors"
    _check(*judged(model, plain, mix, out), _limit(out))
    assert read(out).dtypes == (dtype,)


RECIPES = sorted(make_samples.FOLDER.parent.rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_sample_recipes(model: Any, plain: torch.Tensor, tmp_path: Path, path: Path) -> None:
    concepts = yaml.safe_load(path.read_text(encoding="utf-8"))["concepts"]
    titles = {read(file).title: file for file in make_samples.FOLDER.glob("*.safetensors")}
    mix = [(titles[concept["name"]], concept["scale"]) for concept in concepts]
    out = tmp_path / "out.safetensors"
    _check(*judged(model, plain, mix, out), _limit(out))
