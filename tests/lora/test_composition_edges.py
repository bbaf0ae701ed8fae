"""Composing what is rare: zeros, opposite signs, other widths, norms, parts of text encoders, and
values that no type holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import lora_oracle as oracle
from support.lora_checks import LIMITS, check, composed
from support.lora_files import Spec, write
from support.lora_names import CLIP, HADA, NORMS, STEMS
from support.lora_tensors import QKV, Q, pair, saved
from support.lora_wild import File, Lora, save

from composer.errors import BadLora
from composer.lora import compose, composed_size, inspect, merge, read

if TYPE_CHECKING:
    from pathlib import Path

    from support.lora_checks import Sources

TO_Q = Q.removeprefix("transformer.")
FC1 = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
NORM = "double_blocks.0.img_attn.norm.query_norm.scale"


# --- factors -----------------------------------------------------------------------------


def test_a_scale_below_zero_takes_away(tmp_path: Path) -> None:
    one = save(File((Lora(QKV, alpha=3.0),), seed=1), tmp_path / "one")
    two = save(File((Lora(Q, "plain"),), seed=2), tmp_path / "two")
    sources = [(one, 0.5), (two, -1.25)]
    check(composed(sources, tmp_path / "out"), sources, whole_clip=True)


def test_an_alpha_of_zero_switches_a_module_off(tmp_path: Path) -> None:
    """With its bias, if PEFT's; a difference of the bias has no alpha."""
    loras = (
        Lora(Q, alpha=0.0, bias=".lora_B.bias"),
        Lora("lora_unet_img_in", alpha=0.0, bias=".diff_b"),
        Lora("proj_out", alpha=1.0),
    )
    sources = [(save(File(loras), tmp_path / "in"), 0.5)]
    out = composed(sources, tmp_path / "out")
    check(out, sources, whole_clip=True)
    assert read(out).modules == ("x_embedder", "proj_out")


@pytest.mark.parametrize("kind", ["plain", "loha", "lokr"])
def test_an_alpha_below_zero_turns_the_change_round(tmp_path: Path, kind: str) -> None:
    sources = [(save(File((Lora("x_embedder", kind, alpha=-3.5),)), tmp_path / "in"), 0.5)]
    check(composed(sources, tmp_path / "out"), sources, whole_clip=True)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("kind", ["plain", "loha", "lokr"])
def test_a_factor_beyond_the_type(tmp_path: Path, kind: str, dtype: str) -> None:
    """Refused where the type was asked for; float16 by default becomes float32."""
    path = save(File((Lora("x_embedder", kind, dtype=dtype, alpha=8.0),)), tmp_path / "in")
    with pytest.raises(BadLora, match=r"in: x_embedder[. ].*(is too large|beyond float16)"):
        compose([(read(path), 1e41)], tmp_path / "out", metadata={}, dtype=dtype)
    assert not (tmp_path / "out").exists()
    if dtype == "F16":
        sources = [(path, 1e6)]
        out = composed(sources, tmp_path / "out")
        assert read(out).dtypes == ("F32",)
        check(out, sources, whole_clip=True)


# --- values that aren't finite -----------------------------------------------------------

ODD = (
    (Lora(Q, bias=".lora_B.bias"), ("lora_A.weight", "lora_B.weight", "lora_B.bias")),
    (Lora(QKV, "diagonal"), ("lora_A.weight", "lora_B.weight")),
    (Lora("proj_out", "loha"), tuple(ending[1:] for ending in HADA)),
    (Lora("proj_out", "lokr", split=(4, 4), whole=(True, False)), ("lokr_w1", "lokr_w2_b")),
    (Lora("x_embedder", "bias", bias=".diff_b"), ("diff_b",)),
)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rank", [None, 1])
@pytest.mark.parametrize(("lora", "ending"), [(lora, end) for lora, ends in ODD for end in ends])
def test_values_that_are_not_finite(
    tmp_path: Path, lora: Lora, ending: str, rank: int | None, value: float
) -> None:
    path = save(File((lora,)), tmp_path / "in")
    tensors = {key: values.copy() for key, values in oracle.load(path).items()}
    tensors[f"{lora.stem}.{ending}"].reshape(-1)[-1] = value
    save_file(tensors, path)
    with pytest.raises(BadLora, match=rf"in: {lora.stem}\.{ending} .*not finite"):
        compose([(read(path), 0.5)], tmp_path / "out", metadata={}, rank=rank)
    assert not (tmp_path / "out").exists()


# --- norms -------------------------------------------------------------------------------


def test_scales_of_norms_come_along_and_may_not_differ(tmp_path: Path) -> None:
    tensors = {**pair("double_blocks.0.img_attn.qkv", outputs=9216), NORM: np.full(128, 0.5, "f4")}
    one = saved(tmp_path / "one", tensors)
    alike = saved(tmp_path / "alike", {**tensors, NORM: tensors[NORM].astype("f2")})
    other = saved(tmp_path / "other", {**tensors, NORM: tensors[NORM] * 2})
    out = composed([(one, 0.3), (alike, 0.7), (other, 0.0)], tmp_path / "out")
    key = f"transformer.{NORMS[NORM]}.weight"
    assert (oracle.load(out)[key] == 0.5).all()  # whatever the scale
    assert oracle.norms(out).keys() == {NORMS[NORM]}
    with pytest.raises(BadLora, match=rf"other: brings another {NORM} than one"):
        compose([(read(one), 0.3), (read(other), 0.3)], tmp_path / "out", metadata={})


def test_every_norm_at_once_has_room(tmp_path: Path) -> None:
    norms = {path: key for key, path in NORMS.items()}  # one spelling of each
    file = File((Lora("x_embedder", ranks=(1, 1)),), tuple(norms.values()))
    path = save(file, tmp_path / "in")
    out = composed([(path, 0.5)], tmp_path / "out")
    assert len(oracle.norms(out)) == len(norms) == 152


def test_a_norm_that_is_not_finite(tmp_path: Path) -> None:
    path = saved(tmp_path / "in", {**pair(Q), NORM: np.full(128, np.nan, np.float32)})
    with pytest.raises(BadLora, match=rf"in: {NORM} .*not finite"):
        compose([(read(path), 0.3)], tmp_path / "out", metadata={})


# --- text encoders -----------------------------------------------------------------------


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_a_file_for_the_text_encoder_alone(tmp_path: Path, format: str) -> None:
    """In the diffusers format all of CLIP comes along: it would lose a part of it otherwise."""
    sources = [(save(File((Lora(FC1, alpha=1.0, ranks=(3, 1)),)), tmp_path / "in"), 0.5)]
    out = composed(sources, tmp_path / "out", format)
    check(out, sources, whole_clip=format == "diffusers")
    assert len(read(out).modules) == (len(CLIP) if format == "diffusers" else 1)
    assert read(out).ranks == (3,)
    if format == "diffusers":
        keys = {key.partition(".lora_")[0] for key in oracle.load(out)}
        assert keys == {f"text_encoder.{name}" for name in CLIP}


def test_layers_that_only_keep_company_are_thin(tmp_path: Path) -> None:
    """Where ranks are mixed anyway, zeros need one rank, and no say on the common alpha."""
    loras = (Lora(FC1, ranks=(3, 1)), Lora(Q, ranks=(4, 1)), Lora("proj_out", ranks=(4, 1)))
    sources = [(save(File(loras), tmp_path / "in"), 0.5)]
    out = composed(sources, tmp_path / "out")
    check(out, sources, whole_clip=True)
    assert read(out).ranks == (1, 3, 4)
    assert read(out).alphas == (4.0,)


T5_WI = "text_encoder_2.encoder.block.0.layer.1.DenseReluDense.wi_0"


@pytest.mark.parametrize("stem", [stem for stem in STEMS if T5_WI in STEMS[stem].parts])
def test_t5_has_no_place_in_diffusers_form(tmp_path: Path, stem: str) -> None:
    path = save(File((Lora(stem),)), tmp_path / "in")
    with pytest.raises(BadLora, match=f"in: {stem} is a part for T5") as raised:
        compose([(read(path), 0.5)], tmp_path / "out", metadata={})
    assert "kohya" in str(raised.value.hint)


# --- shapes ------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_input_layers_of_several_widths(tmp_path: Path, format: str, rank: int | None) -> None:
    """A control LoRA reads 128 channels: to one of 64 the others are nothing."""
    paths = [saved(tmp_path / str(n), _embedder(n, seed=n)) for n in (64, 128)]
    sources: Sources = [(path, 0.5) for path in paths]
    out = tmp_path / "out"
    parts = [(read(path), scale) for path, scale in sources]
    compose(parts, out, metadata={}, format=format, rank=rank)
    assert out.stat().st_size <= composed_size(parts, format=format, rank=rank)
    if rank is None:
        check(out, sources, whole_clip=False)
    wanted = oracle.dense(
        [pair for path, _ in sources for pair in oracle.deltas(path, 0.5)["x_embedder"]]
    )
    got = oracle.dense(oracle.deltas(out)["x_embedder"])
    assert got.shape == wanted.shape == (3072, 128)
    values = np.linalg.svd(wanted, compute_uv=False)
    least = np.linalg.norm(values[rank:]) if rank else 0.0
    assert np.linalg.norm(got - wanted) <= least * (1 + 1e-4) + 1e-6 * np.linalg.norm(wanted)


def _embedder(inputs: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "img_in.lora_A.weight": rng.standard_normal((2, inputs)).astype(np.float32),
        "img_in.lora_B.weight": rng.standard_normal((3072, 2)).astype(np.float32),
    }


@pytest.mark.parametrize("dtype", sorted(LIMITS))
def test_parts_of_a_fused_layer_may_use_any_of_its_ranks(tmp_path: Path, dtype: str) -> None:
    """q three of five, k the same three and one more, v none: each gets its own."""
    path = write(Spec(True, dtype, {QKV: 5}, {QKV: 2.0}), tmp_path / "in")
    tensors = {key: values.copy() for key, values in oracle.load(path).items()}
    up = tensors[f"{QKV}.lora_up.weight"]
    up[:3072, [1, 4]] = 0
    up[3072:6144, 4] = 0
    up[6144:] = 0
    save_file(tensors, path)
    out = composed([(path, 0.5)], tmp_path / "out")
    check(out, [(path, 0.5)], whole_clip=True)
    ranks = {k: len(v) for k, v in oracle.load(out).items() if k.endswith("lora_A.weight")}
    assert ranks == {
        f"transformer.{TO_Q}.lora_A.weight": 3,
        f"transformer.{TO_Q.replace('to_q', 'to_k')}.lora_A.weight": 4,
    }


def test_a_column_with_one_value_far_down_counts(tmp_path: Path) -> None:
    """The search for zeros looks at every row, not only at the first."""
    path = write(Spec(True, "F32", {QKV: 3}), tmp_path / "in")
    tensors = {key: values.copy() for key, values in oracle.load(path).items()}
    tensors[f"{QKV}.lora_up.weight"][:, 1] = 0
    tensors[f"{QKV}.lora_up.weight"][9215, 1] = 1.5
    save_file(tensors, path)
    out = composed([(path, 0.5)], tmp_path / "out")
    check(out, [(path, 0.5)], whole_clip=True)
    assert read(out).ranks == (2, 3)


# --- inputs that mean different things ---------------------------------------------------


def widths(folder: Path, *inputs: int, spelling: str = "transformer.x_embedder") -> list[Path]:
    return [
        saved(folder / f"{n}-{width}.safetensors", nonzero(spelling, width, n))
        for n, width in enumerate(inputs)
    ]


def nonzero(stem: str, inputs: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        key: rng.standard_normal(values.shape).astype(np.float32)
        for key, values in pair(stem, inputs).items()
    }


@pytest.mark.parametrize("spelling", ["transformer.x_embedder", "lora_unet_img_in"])
@pytest.mark.parametrize("inputs", [(128, 384), (384, 64, 128), (128, 128, 384)])
def test_control_and_fill_are_not_added(
    tmp_path: Path, inputs: tuple[int, ...], spelling: str
) -> None:
    paths = widths(tmp_path, *inputs, spelling=spelling)
    out = tmp_path / "out.safetensors"
    for use in (lambda: merge(paths, out), lambda: merge(paths, out, dry_run=True)):
        with pytest.raises(BadLora, match="they mean different things, and can't be added") as bad:
            use()
        assert all(text in bad.value.message for text in ("128", "384", f"{spelling}, where"))
        assert bad.value.hint is not None and not out.exists()
    with pytest.raises(BadLora, match="they mean different things"):
        inspect(paths)


@pytest.mark.parametrize("inputs", [(128, 128), (384, 64), (64, 128, 64), (384, 384, 64)])
def test_within_one_kind_they_are(tmp_path: Path, inputs: tuple[int, ...]) -> None:
    sources = [(path, 0.5) for path in widths(tmp_path, *inputs)]
    check(composed(sources, tmp_path / "out"), sources, whole_clip=True)
    assert inspect([path for path, _ in sources]).verdicts


def test_one_that_is_left_out_does_no_harm(tmp_path: Path) -> None:
    control, fill = widths(tmp_path, 128, 384)
    assert merge({control: 1.0, fill: 0.0}, tmp_path / "out.safetensors").report.ranks == (2,)
