"""Which way a layer is reduced, what that costs, and the ranks that a part of a LoKr has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import lora_oracle as oracle
from support.castle import CASTLE, FILES, LAYERS, register_castle
from support.lora_files import Spec, write
from support.lora_wild import File, Lora, save

from composer.lora import compose, families, merge, read, weights
from composer.lora.composition import CompositionReport, foreseen
from composer.lora.formats import SourceFormat, fused
from composer.lora.merging import SLOW, SPEED, cost_warning

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Q_PROJ = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"  # 768 by 768
LINEAR1 = "lora_unet_single_blocks_{}_linear1"
WHOLE = Lora(Q_PROJ, "lokr", split=(8, 8), whole=(True, True))
PLAIN = Lora(Q_PROJ, ranks=(3, 1))


def in_parts(rank: int) -> Lora:
    """A LoKr of eight times this rank."""
    return Lora(Q_PROJ, "lokr", split=(8, 8), whole=(True, False), ranks=(1, rank))


def lokr(stem: str, one: tuple[int, int], two: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    sides = {f"{stem}.lokr_w1": one, f"{stem}.lokr_w2": two}
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in sides.items()}


# --- the cheapest way --------------------------------------------------------------------


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that layers are reduced from now on, by name."""
    taken: list[str] = []
    for name in ("reduced", "reduced_dense", "reduced_kronecker"):
        original = getattr(weights, name)

        def spy(*args: object, name: str = name, original: Any = original) -> object:
            taken.append(name)
            return original(*args)

        monkeypatch.setattr(weights, name, spy)
    return taken


@pytest.mark.parametrize(
    ("loras", "way"),
    [
        ((WHOLE,), "reduced_kronecker"),
        ((WHOLE, PLAIN), "reduced_dense"),
        ((in_parts(47), in_parts(47)), "reduced_dense"),  # 752 of 768 ranks
        ((in_parts(20), in_parts(20)), "reduced"),
        ((PLAIN, PLAIN), "reduced"),
    ],
)
def test_the_cheapest_way_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loras: tuple[Lora, ...], way: str
) -> None:
    paths = [save(File((lora,), seed=n), tmp_path / f"{n}") for n, lora in enumerate(loras)]
    parts = [(read(path), 0.5 + n) for n, path in enumerate(paths)]
    taken = spied(monkeypatch)
    compose(parts, tmp_path / "out", metadata={}, rank=2)
    assert taken == [way]
    assert len(foreseen(parts, rank=2).costs) == 1
    assert foreseen(parts).costs == ()  # nothing is lost, so nothing is decomposed
    wanted = oracle.total(oracle.deltas(path, 0.5 + n) for n, path in enumerate(paths))
    ((module, pairs),) = wanted.items()
    change = oracle.dense(pairs)
    error = np.linalg.norm(change - oracle.dense(oracle.deltas(tmp_path / "out")[module]))
    least = np.linalg.norm(np.linalg.svd(change, compute_uv=False)[2:])
    assert error <= least * (1 + 1e-4) + 1e-6


# --- a part of a LoKr --------------------------------------------------------------------


def test_a_lokr_of_a_fused_layer_has_ranks_of_its_own_in_each_module(tmp_path: Path) -> None:
    """It has 3,072 as a whole; three rows of 16 of its first matrix make to_q."""
    save_file(lokr(LINEAR1.format(0), (16, 16), (1344, 192)), tmp_path / "in")
    parts = [(read(tmp_path / "in"), 1.0)]
    assert foreseen(parts).ranks == (3 * 192, 10 * 192)
    assert foreseen(parts, format="kohya").ranks == (3072,)  # fused there too
    assert sum(foreseen(parts, rank=32).costs) / SPEED < SLOW


@pytest.mark.parametrize(
    ("one", "two", "ranks"),
    [
        ((2, 6), (7, 1), (1, 2)),
        ((2, 2), (7, 3), (3, 6)),
        ((7, 2), (2, 3), (4,)),
        ((14, 3), (1, 2), (3,)),
    ],
)
@pytest.mark.parametrize("rank", [None, 1, 2])
def test_ranks_that_a_module_does_not_use_change_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one: tuple[int, int],
    two: tuple[int, int],
    ranks: tuple[int, ...],
    rank: int | None,
) -> None:
    """The first four rows of fourteen are one module, the others another."""
    register_castle(monkeypatch)
    files = replace(FILES, source_formats=(SourceFormat("fused", fused(LAYERS)),))
    families.register(replace(CASTLE, load_files=lambda: files))
    tensors = lokr("towers.0.pair", one, two)
    save_file(tensors, tmp_path / "in")
    report = compose([(read(tmp_path / "in"), 0.5)], tmp_path / "out", metadata={}, rank=rank)
    assert report.ranks == (ranks if rank is None else tuple(sorted({min(rank, r) for r in ranks})))
    w1, w2 = (tensors[f"towers.0.pair.lokr_w{n}"].astype(float) for n in "12")
    whole, made = 0.5 * np.kron(w1, w2), load_file(tmp_path / "out")
    for name, change in (("left", whole[:4]), ("right", whole[4:])):
        prefix = f"castle.towers.0.{name}"
        down, up = (made[f"{prefix}.lora_{x}.weight"] for x in "AB")
        alpha = made.get(f"{prefix}.alpha", len(down))
        values = np.linalg.svd(change, compute_uv=False)
        least = np.linalg.norm(values[rank or len(values) :])
        error = np.linalg.norm(change - up * (float(alpha) / len(down)) @ down)
        assert error <= least * (1 + 1e-4) + 1e-5


# --- how long it takes -------------------------------------------------------------------


def test_a_long_reduction_is_warned_of() -> None:
    seconds = 0.9 * SLOW * SPEED
    report = CompositionReport("F32", (16,), costs=(seconds, seconds))
    assert "reducing 2 layers takes about 18 s on one core" in (cost_warning(report) or "")
    assert cost_warning(CompositionReport("F32", (16,), costs=(seconds,))) is None


@pytest.mark.parametrize(
    ("count", "one", "warned"), [(3, (16, 16), True), (1, (16, 16), False), (1, (4, 4), True)]
)
def test_it_is_warned_of_by_its_cost(
    tmp_path: Path, count: int, one: tuple[int, int], warned: bool
) -> None:
    """Of LoKrs that share no layer, too."""
    two = (21504 // one[0], 3072 // one[1])
    tensors = {
        key: values
        for number in range(count)
        for key, values in lokr(LINEAR1.format(number), one, two).items()
    }
    save_file(tensors, tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    merged = merge(tmp_path / "in.safetensors", out, rank=32, dry_run=True)
    assert any("s on one core" in note for note in merged.notes) == warned


def test_plain_loras_of_usual_ranks_are_not_warned_of(tmp_path: Path) -> None:
    ranks = {f"single_transformer_blocks.{n}.attn.to_q": 64 for n in range(10)}
    specs = [Spec(False, "F16", ranks, seed=n) for n in (1, 2)]
    parts = [(read(write(spec, tmp_path / f"{spec.seed}")), 1.0) for spec in specs]
    assert cost_warning(foreseen(parts, rank=32)) is None
