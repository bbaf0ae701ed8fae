"""Rank reduction, held against numpy's dense singular values: the best there is, per module."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support import lora_oracle as oracle
from support.castle import CASTLE, FILES, LAYERS, register_castle
from support.lora_checks import LIMITS, check, examples, saved
from support.lora_files import Spec, scales, write
from support.lora_names import STEMS
from support.lora_tensors import QKV
from support.lora_wild import File, Lora, save

from composer.lora import compose, composed_size, families, read, reduction
from composer.lora.formats import SourceFormat, fused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from support.lora_checks import Mix, Sources

    from composer.lora import CompositionReport

CLIP = "text_encoder.text_model.encoder.layers.0"
SMALL = (
    "x_embedder",
    "proj_out",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.guidance_embedder.linear_1",
)
Q_PROJ = f"{CLIP}.self_attn.q_proj"
GROUPS = {"x_embedder": "embedders and head", CLIP: "text encoder"}


def reduced(
    sources: Sources, out: Path, rank: int, format: str = "diffusers", dtype: str | None = None
) -> CompositionReport:
    parts = [(read(path), scale) for path, scale in sources]
    report = compose(parts, out, metadata={}, format=format, rank=rank, dtype=dtype)
    assert out.stat().st_size <= composed_size(parts, format=format, rank=rank, dtype=dtype)
    return report


def totals(sources: Sources) -> oracle.Factors:
    return oracle.total(oracle.deltas(path, scale) for path, scale in sources)


def optimum(change: NDArray[np.float64], rank: int) -> tuple[float, float]:
    """The smallest error of that rank, by Eckart and Young, and the whole norm."""
    values = np.linalg.svd(change, compute_uv=False)
    return float(np.linalg.norm(values[rank:])), float(np.linalg.norm(values))


def is_best(got: oracle.Factors, wanted: oracle.Factors, rank: int) -> None:
    for module, pairs in wanted.items():
        change = oracle.dense(pairs)
        least, whole = optimum(change, rank)
        error = np.linalg.norm(change - oracle.dense(got[module]))
        assert error <= least * (1 + 1e-4) + 1e-6 * whole, module


@st.composite
def small_mixes(draw: st.DrawFn) -> Mix:
    """Two or three files that change the same small layers, plain LoRAs and others."""
    mix = []
    for _ in range(draw(st.integers(2, 3))):
        stems = draw(st.lists(st.sampled_from(SMALL), min_size=1, max_size=2, unique=True))
        loras = []
        for module in stems:
            spellings = [s for s in STEMS if tuple(STEMS[s].parts) == (module,)]
            kind = draw(st.sampled_from(["plain", "plain", "loha", "lokr"]))
            loras.append(
                Lora(
                    draw(st.sampled_from(sorted(spellings))),
                    kind,
                    ranks=draw(st.tuples(st.integers(1, 7), st.integers(1, 3))),
                    split=(4, 4),
                    whole=draw(st.sampled_from([(True, False), (True, True), (False, False)])),
                    dtype=draw(st.sampled_from(["F32", "BF16"])),
                )
            )
        mix.append((File(tuple(loras), seed=draw(st.integers(0, 999))), draw(scales)))
    return mix


@examples(8)
@given(small_mixes(), st.sampled_from([1, 3, 8, 20, 63, 64, 100]))
def test_it_is_the_best_of_its_rank(mix: Mix, rank: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        sources, out = saved(Path(name), mix), Path(name) / "out"
        reduced(sources, out, rank, dtype="F32")
        is_best(oracle.deltas(out), totals(sources), rank)
        assert max(read(out).ranks) <= rank


@pytest.mark.parametrize("rank", [1, 5, 40, 63])
def test_factors_larger_than_their_product(tmp_path: Path, rank: int) -> None:
    """Narrow layers whose summed rank is above 64, wide and high."""
    ranks = {"x_embedder": 40, "proj_out": 50}
    sources = [(write(Spec(False, "F32", ranks, seed=n), tmp_path / f"{n}"), 0.5) for n in (1, 2)]
    report = reduced(sources, tmp_path / "out", rank)
    wanted = totals(sources)
    is_best(oracle.deltas(tmp_path / "out"), wanted, rank)
    sizes = [optimum(oracle.dense(pairs), rank) for pairs in wanted.values()]
    lost, whole = (sum(size**2 for size in column) for column in zip(*sizes, strict=True))
    assert report.kept == pytest.approx({"embedders and head": (1 - lost / whole) ** 0.5})


def test_what_is_kept_is_told_truly(tmp_path: Path) -> None:
    """Over each group of layers: the norm that is left, of the norm that was there."""
    specs = [Spec(False, "F32", dict.fromkeys(SMALL, 6), seed=n) for n in range(2)]
    sources = [(write(spec, tmp_path / f"{n}"), 0.5 + n) for n, spec in enumerate(specs)]
    text = File((Lora(f"{CLIP}.self_attn.k_proj", ranks=(9, 1)), Lora(Q_PROJ, ranks=(7, 1))))
    sources.append((save(text, tmp_path / "text"), 0.3))
    report = reduced(sources, tmp_path / "out", 5)
    left: dict[str, float] = {}
    whole: dict[str, float] = {}
    for module, pairs in totals(sources).items():
        group = GROUPS[CLIP if module.startswith(CLIP) else "x_embedder"]
        least, size = optimum(oracle.dense(pairs), 5)
        left[group] = left.get(group, 0.0) + size**2 - least**2
        whole[group] = whole.get(group, 0.0) + size**2
    wanted = {group: (left[group] / whole[group]) ** 0.5 for group in whole}
    assert report.kept == pytest.approx(wanted, rel=1e-9)
    noted = read(tmp_path / "out").metadata["compose.kept"]
    assert all(f'"{group}": "{share:.4f}"' in noted for group, share in wanted.items())


def test_a_rank_that_is_enough_changes_nothing(tmp_path: Path) -> None:
    spec = Spec(False, "BF16", {"x_embedder": 3, "norm_out.linear": 2})
    sources = [(write(spec, tmp_path / "in"), 0.7)] * 2
    compose([(read(path), s) for path, s in sources], tmp_path / "exact", metadata={})
    report = reduced(sources, tmp_path / "out", 6)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "exact").read_bytes()
    assert not report.kept


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
@pytest.mark.parametrize("dtype", sorted(LIMITS))
def test_more_than_a_matrix_can_have_is_reduced_without_loss(
    tmp_path: Path, format: str, dtype: str
) -> None:
    """64 inputs, 64 outputs, and a LoKr whose matrices are whole."""
    plain = Spec(False, dtype, {"x_embedder": 40, "proj_out": 50})
    lokr = Lora(Q_PROJ, "lokr", split=(8, 8), whole=(True, True), dtype=dtype)
    more = File((lokr, Lora("x_embedder", ranks=(30, 1), dtype=dtype)))
    again = File(
        (Lora(Q_PROJ, ranks=(3, 1), dtype=dtype), Lora("proj_out", ranks=(20, 1), dtype=dtype))
    )
    sources = [
        (write(plain, tmp_path / "plain"), 0.7),
        (save(more, tmp_path / "more"), 0.5),
        (save(again, tmp_path / "again"), -0.4),
    ]
    parts = [(read(path), scale) for path, scale in sources]
    out = tmp_path / "out"
    report = compose(parts, out, metadata={}, format=format, dtype=dtype)
    check(out, sources, whole_clip=format == "diffusers")
    assert not report.kept
    assert {64, 768} <= set(report.ranks)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_duplicates_share_their_ranks(tmp_path: Path, rank: int) -> None:
    """The same LoRA three times has rank 2 still, and stays exact from there on."""
    spec = Spec(False, "F32", {"x_embedder": 2, "transformer_blocks.0.attn.to_q": 2})
    sources = [(write(spec, tmp_path / "in"), scale) for scale in (0.5, 0.25, 0.7)]
    report = reduced(sources, tmp_path / "out", rank)
    wanted, got = totals(sources), oracle.deltas(tmp_path / "out")
    if rank >= 2:
        assert oracle.worst(got, wanted) <= LIMITS["F32"]
        assert report.kept == pytest.approx(dict.fromkeys(report.kept, 1.0))
    is_best({"x_embedder": got["x_embedder"]}, {"x_embedder": wanted["x_embedder"]}, rank)


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_opposites_cancel(tmp_path: Path, rank: int | None) -> None:
    path = write(Spec(False, "F32", {"x_embedder": 2, "proj_out": 2}), tmp_path / "in")
    report = compose(
        [(read(path), 0.5), (read(path), -0.5)], tmp_path / "out", metadata={}, rank=rank
    )
    for module, pairs in oracle.deltas(tmp_path / "out").items():
        size = oracle.norm(oracle.deltas(path, 0.5)[module])
        assert oracle.norm(pairs) <= 1e-6 * size
    assert all(0 <= share <= 1 for share in report.kept.values())


def test_factors_of_too_high_a_rank_do_no_harm(tmp_path: Path) -> None:
    """Columns of zeros, equal rows, and one that is the sum of the others."""
    path = write(Spec(False, "F32", {"x_embedder": 6}), tmp_path / "in")
    tensors = {key: values.copy() for key, values in oracle.load(path).items()}
    down, up = (tensors[f"transformer.x_embedder.lora_{x}.weight"] for x in "AB")
    down[1] = down[0]
    down[2] = down[3] + down[4]
    up[:, 5] = 0
    save_file(tensors, path)
    for rank in (1, 2, 3, 4, 5):
        reduced([(path, 0.5)], tmp_path / "out", rank)
        is_best(oracle.deltas(tmp_path / "out"), totals([(path, 0.5)]), rank)


def test_kohyas_form_reduces_the_fused_layer(tmp_path: Path) -> None:
    """q, k and v with ranks of their own, whose block-diagonal is 6: the best 4 of them all."""
    ranks = {f"transformer_blocks.0.attn.to_{part}": 2 for part in "qkv"}
    sources = [(write(Spec(False, "F32", ranks, seed=n), tmp_path / f"{n}"), 0.5) for n in (1, 2)]
    report = reduced(sources, tmp_path / "out", 4, "kohya")
    assert report.ranks == (4,)
    made = oracle.load(tmp_path / "out")
    up, down = (made[f"{QKV}.lora_{x}.weight"].astype(np.float64) for x in ("up", "down"))
    assert float(made[f"{QKV}.alpha"]) == 4.0
    wanted = totals(sources)
    pairs = [oracle.joined(wanted[module]) for module in ranks]
    block = np.zeros((9216, 12))
    for n, (part, _) in enumerate(pairs):
        block[3072 * n : 3072 * (n + 1), 4 * n : 4 * (n + 1)] = part
    downs = np.concatenate([down for _, down in pairs])
    left, right = (np.asarray(np.linalg.qr(side, mode="r")) for side in (block, downs.T))
    values: NDArray[np.float64] = np.linalg.svd(left @ right.T, compute_uv=False)
    error = oracle.norm([(block, downs), (-up, down)])
    assert error == pytest.approx(np.linalg.norm(values[4:]), rel=1e-4)
    assert list(report.kept.values()) == pytest.approx(
        [np.linalg.norm(values[:4]) / np.linalg.norm(values)]
    )


def test_the_order_of_the_parts_is_of_no_account(tmp_path: Path) -> None:
    modules = (
        "x_embedder",
        "transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.0.proj_out",
    )
    sources: Sequence[tuple[Path, float]] = [
        (
            write(Spec(False, "F32", dict.fromkeys(modules, 4), seed=n), tmp_path / f"{n}"),
            0.3 + n / 5,
        )
        for n in range(3)
    ]
    first = None
    for number, order in enumerate(itertools.permutations(sources)):
        reduced(order, tmp_path / f"out{number}", 5)
        got = oracle.deltas(tmp_path / f"out{number}")
        first = first or got
        assert oracle.worst(got, first) <= 1e-6


@pytest.mark.parametrize("dtype", sorted(LIMITS))
@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_a_narrow_result_is_the_reduced_one_rounded(
    tmp_path: Path, dtype: str, factor: float
) -> None:
    """Float16 too, and weak changes: both factors stay where it is precise."""
    ranks = {"x_embedder": 8, "transformer_blocks.0.attn.to_q": 8}
    sources = [(write(Spec(False, "F32", ranks), tmp_path / "in"), factor)]
    reduced(sources, tmp_path / "wide", 4, dtype="F32")
    reduced(sources, tmp_path / "out", 4, dtype=dtype)
    assert read(tmp_path / "out").dtypes == (dtype,)
    got, wanted = (oracle.deltas(tmp_path / name) for name in ("out", "wide"))
    assert oracle.worst(got, wanted) <= LIMITS[dtype]


# --- by squares or by factors ------------------------------------------------------------

SPECTRA = {
    "flat": np.ones(12),
    "a slope": np.geomspace(1, 1e-2, 12),
    "steep": np.geomspace(1, 1e-12, 12),
    "hardly more than is kept": np.array([1.0] * 6 + [1e-5] * 6),
    "all that counts is kept": np.array([1.0] * 6 + [1e-9] * 6),
    "a small one is kept": np.array([1.0] * 5 + [1e-7] * 7),
    "small ones that differ": np.array([1.0] * 5 + [3e-8] + [1e-8] * 6),
    "less than the rank": np.array([1.0] * 4 + [0.0] * 8),
    "nothing": np.zeros(12),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_whatever_the_singular_values_are_it_is_the_best(name: str) -> None:
    """Also where their squares are beyond float64's digits."""
    rng, values = np.random.default_rng(5), SPECTRA[name]
    left, _ = np.linalg.qr(rng.standard_normal((90, 12)))
    right, _ = np.linalg.qr(rng.standard_normal((70, 12)))
    mixing = rng.standard_normal((12, 12))  # factors that say nothing about the values
    up, down = (left * values) @ np.linalg.inv(mixing), mixing @ right.T
    found = reduction.reduced(down, up, 6)
    error = np.linalg.norm(found.up @ found.down - up @ down)
    best = np.linalg.norm(np.linalg.svd(up @ down)[1][6:])
    assert error <= best * (1 + 1e-6) + 1e-13
    rows = found.down @ found.down.T
    sizes = np.sqrt(rows.diagonal())
    apart = rows / np.where(sizes, sizes, 1) / np.where(sizes, sizes, 1)[:, None]
    assert np.abs(apart - np.diag(apart.diagonal())).max() < 1e-12
    assert found.kept == pytest.approx((values[:6] ** 2).sum(), rel=1e-9)


# --- a Kronecker product by its two factors ----------------------------------------------

FF = "lycoris_transformer_blocks_0_ff_net_0_proj"
KRONECKER = (
    Lora(Q_PROJ, "lokr", split=(8, 8), whole=(True, True)),
    Lora(Q_PROJ, "lokr", split=(96, 4), whole=(True, True)),
    Lora("proj_out", "lokr", split=(4, 64), whole=(True, True)),
    Lora("x_embedder", "lokr", split=(48, 8), whole=(True, False), ranks=(1, 6), alpha=3.0),
)


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
@pytest.mark.parametrize("lora", KRONECKER)
def test_a_lokr_is_reduced_to_the_best_of_that_rank(
    tmp_path: Path, lora: Lora, format: str
) -> None:
    sources = [(save(File((lora,)), tmp_path / "in"), 0.7)]
    report = reduced(sources, tmp_path / "out", 5, format)
    wanted, got = totals(sources), oracle.deltas(tmp_path / "out")
    is_best({module: got[module] for module in wanted}, wanted, 5)
    (module,) = wanted
    sizes = [np.linalg.norm(oracle.dense(deltas[module])) for deltas in (got, wanted)]
    assert [*report.kept.values()][-1] == pytest.approx(sizes[0] / sizes[1], rel=1e-4)


@pytest.mark.parametrize("turned", ["", "towers.0.left"])
@pytest.mark.parametrize(("one", "two"), [((7, 2), (2, 3)), ((2, 2), (7, 3))])
def test_a_lokr_of_a_fused_layer_is_cut_into_rows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one: tuple[int, int],
    two: tuple[int, int],
    turned: str,
) -> None:
    """Between rows of its first matrix or across them, and with halves that change places."""
    register_castle(monkeypatch)
    layouts = (SourceFormat("fused", fused(LAYERS, turned)),)
    files = replace(FILES, source_formats=layouts)
    families.register(replace(CASTLE, load_files=lambda: files))
    rng = np.random.default_rng(3)
    w1, w2 = (rng.standard_normal(shape).astype(np.float32) for shape in (one, two))
    save_file({"towers.0.pair.lokr_w1": w1, "towers.0.pair.lokr_w2": w2}, tmp_path / "in")
    compose([(read(tmp_path / "in"), 0.5)], tmp_path / "out", metadata={}, rank=1)
    whole, made = 0.5 * np.kron(w1, w2).astype(float), load_file(tmp_path / "out")
    left = np.concatenate([whole[2:4], whole[:2]]) if turned else whole[:4]
    for name, change in (("left", left), ("right", whole[4:])):
        down, up = (made[f"castle.towers.0.{name}.lora_{x}.weight"] for x in "AB")
        least, _ = optimum(change, 1)
        assert np.linalg.norm(change - up @ down) <= least * (1 + 1e-4) + 1e-6


def test_it_takes_as_long_as_the_two_factors(tmp_path: Path) -> None:
    """The product has 12,288 rows and 3,072 columns: its own takes 20 times as long."""
    lora = Lora(FF, "lokr", split=(96, 48), whole=(True, True))
    path = save(File((lora,)), tmp_path / "in")
    before = time.process_time()
    reduced([(path, 1.0)], tmp_path / "out", 32)
    assert time.process_time() - before < 5
    singular = [
        np.linalg.svd(oracle.load(path)[f"{FF}.lokr_w{n}"].astype(float), compute_uv=False)
        for n in "12"
    ]
    values = np.sort(np.outer(*singular).ravel())[::-1][:32]
    (pairs,) = oracle.deltas(tmp_path / "out").values()
    up, down = oracle.joined(pairs)
    left, right = (np.asarray(np.linalg.qr(side, mode="r")) for side in (up, down.T))
    assert np.linalg.svd(left @ right.T, compute_uv=False) == pytest.approx(values, rel=1e-5)


def test_the_rows_of_two_loras_are_no_kronecker_product(tmp_path: Path) -> None:
    lokr = save(File((KRONECKER[0],)), tmp_path / "lokr")
    plain = save(File((Lora(Q_PROJ, ranks=(3, 1)),)), tmp_path / "plain")
    sources = [(lokr, 0.7), (plain, -0.5)]
    reduced(sources, tmp_path / "out", 6)
    wanted, got = totals(sources), oracle.deltas(tmp_path / "out")
    is_best({module: got[module] for module in wanted}, wanted, 6)
