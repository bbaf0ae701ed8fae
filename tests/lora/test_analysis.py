"""Norms and inner products of LoRAs, from their factors, against float64 sums worked out apart."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support import lora_oracle as oracle
from support.engine_files import write_lora
from support.lora_checks import examples, mixes, saved
from support.lora_names import DIFFUSERS
from support.lora_wild import File, Lora, save
from threadpoolctl import threadpool_info

from composer.errors import BadLora
from composer.lora import analysis, read
from composer.lora.analysis import Grams, grams
from composer.lora.families.flux1_files import BY_PATH, FILES
from composer.lora.threads import map_in_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from support.lora_checks import Mix
    from support.lora_oracle import Factors

CLOSE = 2e-6  # of the product of the two norms in a block
QKV = "lora_unet_double_blocks_3_img_attn_qkv"
HEAD = "lora_unet_final_layer_adaLN_modulation_1"


def measured(*paths: Path) -> Grams:
    return grams([read(path) for path in paths])


def expected(files: Sequence[Factors]) -> dict[str, NDArray[Any]]:
    """Block -> inner products, with a bias left out, as the sum of the modules'."""
    sums: dict[str, NDArray[Any]] = {}
    for module in {module for file in files for module in file if not module.endswith(".bias")}:
        parts = {n: oracle.joined(file[module]) for n, file in enumerate(files) if module in file}
        gram = sums.setdefault(block(module), np.zeros((len(files), len(files))))
        for i, (up, down) in parts.items():
            for j, (other, beside) in parts.items():
                width = min(down.shape[1], beside.shape[1])
                inner = down[:, :width] @ beside[:, :width].T
                gram[i, j] += ((up.T @ other) * inner).sum()
    return sums


def block(module: str) -> str:
    first, number, *_ = [*module.split("."), ""]
    kinds = {"transformer_blocks": "double", "single_transformer_blocks": "single"}
    if first in kinds:
        return f"{kinds[first]} {number}"
    return "text encoder" if first.startswith("text_encoder") else "other layers"


def check(found: Grams, wanted: Mapping[str, NDArray[Any]]) -> None:
    for name in {*found.blocks, *wanted}:
        zero = np.zeros((found.count, found.count))
        got, want = found.blocks.get(name, zero), wanted.get(name, zero)
        sizes = np.sqrt(np.outer(want.diagonal(), want.diagonal()))
        assert (abs(got - want) <= CLOSE * sizes).all(), (name, got, want)


# --- against the oracle ------------------------------------------------------------------


@examples(30)
@given(mixes(t5=True))
def test_any_mix_of_formats_ranks_and_types(mix: Mix) -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = [path for path, _ in saved(Path(name), mix)]
        found = measured(*paths)
        check(found, expected([oracle.deltas(path) for path in paths]))
        assert list(found.blocks) == [block for block in FILES.blocks if block in found.blocks]


@pytest.mark.parametrize("ranks", [(3, 2), (90, 70), (2, 80)], ids=["low", "high", "mixed"])
def test_small_layers_multiplied_out(tmp_path: Path, ranks: tuple[int, int]) -> None:
    """ΔW itself, entry by entry; with ranks above a side of 64, ours builds it too."""
    stems = ("lora_unet_img_in", "lora_unet_final_layer_linear")
    paths = [
        save(
            File(tuple(Lora(stem, ranks=(rank, 1), alpha=3.0) for stem in stems), seed=rank),
            tmp_path / str(rank),
        )
        for rank in ranks
    ]
    changes = [oracle.deltas(path) for path in paths]
    wanted = np.zeros((2, 2))
    for module in ("x_embedder", "proj_out"):
        one, two = (oracle.dense(change[module]).ravel() for change in changes)
        wanted += [[one @ one, one @ two], [two @ one, two @ two]]
    check(measured(*paths), {"other layers": wanted})


def test_a_full_rank_lokr_is_not_multiplied_by_itself(tmp_path: Path) -> None:
    """Rank 768 beside rank 4: from the factors it would take minutes where all layers have one."""
    stem = "lora_unet_time_in_in_layer"
    wild = save(
        File((Lora(stem, kind="lokr", whole=(True, True), split=(8, 16)),)), tmp_path / "wild"
    )
    plain = save(File((Lora(stem, ranks=(4, 1)),), seed=1), tmp_path / "plain")
    check(measured(wild, plain), expected([oracle.deltas(wild), oracle.deltas(plain)]))


def test_every_module_has_its_block() -> None:
    blocks = {module: BY_PATH[module].parts[0].module.block for module in DIFFUSERS}
    assert {*blocks.values()} == {*FILES.blocks} - {"text encoder"}
    assert all(blocks[module] == block(module) for module in DIFFUSERS)


# --- what must hold for any file ---------------------------------------------------------


def cosine(found: Grams, name: str) -> float:
    gram = found.blocks[name]
    return float(gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1]))


@examples(10)
@given(st.integers(1, 6), st.sampled_from(["F32", "F16", "BF16"]), st.integers(0, 999))
def test_a_file_is_like_itself_and_unlike_its_negative(rank: int, dtype: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = File((Lora(QKV, ranks=(rank, 1), dtype=dtype, alpha=2.0),), seed=seed)
        path = save(file, Path(name) / "a")
        tensors = {key: -v if "up" in key else v for key, v in renamed(path).items()}
        turned = Path(name) / "b"
        save_file(tensors, turned)
        assert cosine(measured(path, path), "double 3") == pytest.approx(1, abs=1e-6)
        assert cosine(measured(path, turned), "double 3") == pytest.approx(-1, abs=1e-6)


def renamed(path: Path) -> dict[str, NDArray[Any]]:
    """The file's tensors with kohya's endings, whichever it was drawn with."""
    ends = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}
    found = {}
    for key, values in oracle.load(path).items():
        for end, ours in ends.items():
            key = key.replace(end, ours)
        found[key] = values
    return found


@pytest.mark.parametrize("kind", ["plain", "diagonal"])
def test_the_same_change_in_another_format_gives_the_same_numbers(
    tmp_path: Path, kind: str
) -> None:
    """Fused and split, halves swapped and not, alpha in a tensor and in the weights."""
    file = File((Lora(QKV, kind=kind, ranks=(4, 1), alpha=2.0), Lora(HEAD, ranks=(3, 1))))
    fused = save(file, tmp_path / "fused")
    split: dict[str, NDArray[Any]] = {}
    for module, [(up, down)] in oracle.deltas(fused).items():
        split[f"transformer.{module}.lora_A.weight"] = np.ascontiguousarray(down, np.float32)
        split[f"transformer.{module}.lora_B.weight"] = np.ascontiguousarray(up, np.float32)
    save_file(split, tmp_path / "split")
    found = measured(fused, tmp_path / "split")
    for gram in found.blocks.values():
        assert gram == pytest.approx(gram[0, 0], rel=1e-6)
    assert [*found.blocks] == ["double 3", "other layers"]


@pytest.mark.parametrize(("down", "up"), [(1e-26, 1.0), (1e18, 1e-20), (1e-30, 1e30), (1e25, 1e9)])
def test_values_whose_squares_float32_does_not_hold(tmp_path: Path, down: float, up: float) -> None:
    rng = np.random.default_rng(0)
    factors = {
        "transformer.x_embedder.lora_A.weight": rng.standard_normal((2, 64)) * down,
        "transformer.x_embedder.lora_B.weight": rng.standard_normal((3072, 2)) * up,
    }
    save_file({key: v.astype(np.float32) for key, v in factors.items()}, tmp_path / "a")
    check(measured(tmp_path / "a"), expected([oracle.deltas(tmp_path / "a")]))


def test_an_untrained_file_changes_nothing(tmp_path: Path) -> None:
    factors = {
        "transformer.x_embedder.lora_A.weight": np.ones((2, 64), np.float32),
        "transformer.x_embedder.lora_B.weight": np.zeros((3072, 2), np.float32),
    }
    save_file(factors, tmp_path / "a")
    assert measured(tmp_path / "a", tmp_path / "a").blocks["other layers"].tolist() == [[0, 0]] * 2


# --- what goes wrong ---------------------------------------------------------------------


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    factors = {
        "transformer.x_embedder.lora_A.weight": np.full((2, 64), np.nan, np.float32),
        "transformer.x_embedder.lora_B.weight": np.ones((3072, 2), np.float32),
    }
    save_file(factors, tmp_path / "a.safetensors")
    with pytest.raises(BadLora, match=r"a\.safetensors: .* not finite"):
        measured(tmp_path / "a.safetensors")


def test_a_file_that_changed_since_it_was_read_is_refused(tmp_path: Path) -> None:
    path = save(File((Lora("lora_unet_img_in"),)), tmp_path / "a")
    file = read(path)
    save(File((Lora("lora_unet_img_in", ranks=(5, 1)),)), path)
    with pytest.raises(BadLora, match="was changed after it was read"):
        grams([file])


def test_the_other_threads_of_a_program_keep_their_blas() -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda number: 1 / number, [1, 0, 1]))
    assert [pool["num_threads"] for pool in threadpool_info()] == before


@pytest.mark.parametrize(("together", "ranks"), [(1, 1000), (2, 1000), (16, 3)])
def test_many_files_are_compared_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int, ranks: int
) -> None:
    files = [read(write_lora(tmp_path / f"{n}.safetensors", n, rank=n + 1)) for n in range(5)]
    whole = grams(files)
    monkeypatch.setattr(analysis, "TOGETHER", together)
    monkeypatch.setattr(analysis, "RANKS", ranks)
    shares: list[float] = []
    parts = grams(files, shares.append)
    assert parts.blocks.keys() == whole.blocks.keys()
    for name, gram in whole.blocks.items():
        sizes = np.sqrt(np.outer(gram.diagonal(), gram.diagonal()))
        assert np.abs(parts.blocks[name] - gram).max() <= (CLOSE * sizes).max()
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)
