"""LoHa and LoKr as LoRAs of their true rank: against their definitions, on FLUX.1's real layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import lora_oracle as oracle
from support.lora_checks import LIMITS, composed
from support.lora_names import STEMS
from support.lora_tensors import QKV
from support.lora_wild import File, Lora, save

from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LINEAR1 = "lora_unet_single_blocks_0_linear1"
HEAD = "lora_unet_final_layer_adaLN_modulation_1"
TO_OUT = "lycoris_transformer_blocks_0_attn_to_out_0"
STEP = 17  # one row of so many is built


def error(path: Path, stem: str, out: Path, scale: float) -> float:
    """The relative error over all modules of the layer, from every STEP-th row of each."""
    pieces = {k.removeprefix(stem): v.astype(np.float64) for k, v in oracle.load(path).items()}
    made = oracle.load(out)
    wrong = size = 0.0
    for module, places in STEMS[stem].parts.items():
        up, down = (made[f"transformer.{module}.lora_{x}.weight"].astype(np.float64) for x in "BA")
        alpha = made.get(f"transformer.{module}.alpha", len(down))
        rows = np.concatenate([np.arange(place.start, place.stop) for place in places])
        wanted = scale * dense(pieces, rows[::STEP])
        wrong += float(((up[::STEP] * float(alpha) / len(down) @ down - wanted) ** 2).sum())
        size += float((wanted**2).sum())
    return float(np.sqrt(wrong / size))


def dense(pieces: dict[str, NDArray[np.float64]], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """These rows of c * ΔW, as LyCORIS defines it."""
    if ".hada_w1_a" in pieces:
        one, two = (pieces[f".hada_w{n}_a"][rows] @ pieces[f".hada_w{n}_b"] for n in "12")
        return one * two * pieces[".alpha"].item() / len(pieces[".hada_w1_b"])
    left, right = (side(pieces, n) for n in "12")
    rank = next((len(pieces[k]) for k in (".lokr_w2_b", ".lokr_w1_b") if k in pieces), None)
    factor = pieces[".alpha"].item() / rank if rank else 1.0
    high = len(right)
    product = np.einsum("ij,ik->ijk", factor * left[rows // high], right[rows % high])
    return np.reshape(product, (len(rows), -1))


def side(pieces: dict[str, NDArray[np.float64]], number: str) -> NDArray[np.float64]:
    whole = pieces.get(f".lokr_w{number}")
    if whole is not None:
        return whole
    return pieces[f".lokr_w{number}_a"] @ pieces[f".lokr_w{number}_b"]


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize(
    ("lora", "ranks"),
    [
        (Lora(QKV, "loha", ranks=(3, 2)), {6}),
        (Lora(LINEAR1, "loha", ranks=(2, 2)), {4}),
        (Lora(HEAD, "loha", ranks=(2, 3)), {6}),
        (Lora(TO_OUT, "lokr", ranks=(2, 3), split=(8, 4)), {6}),
        (Lora(TO_OUT, "lokr", ranks=(1, 3), split=(16, 4), whole=(True, False)), {12}),
        (Lora(QKV, "lokr", ranks=(2, 1), split=(8, 16), whole=(True, False)), {3, 4}),  # 8 in all
        (Lora(HEAD, "lokr", ranks=(1, 9), split=(1024, 256), whole=(False, True)), {6}),
        (Lora(LINEAR1, "lokr", ranks=(1, 2), split=(3, 1), whole=(True, False)), {2}),
    ],
)
def test_it_is_a_lora_of_its_true_rank(
    tmp_path: Path, lora: Lora, ranks: set[int], dtype: str
) -> None:
    stored = Lora(**{**vars(lora), "dtype": dtype, "alpha": 2.0})
    path = save(File((stored,)), tmp_path / "in")
    out = composed([(path, 0.7)], tmp_path / "out", dtype=dtype)
    assert set(read(out).ranks) == ranks
    assert error(path, lora.stem, out, 0.7) <= LIMITS[dtype]
    assert error(path, lora.stem, out, 0.71) > LIMITS[dtype]


def test_two_whole_matrices_may_have_full_rank_and_no_alpha(tmp_path: Path) -> None:
    stem = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    lora = Lora(stem, "lokr", split=(8, 4), whole=(True, True), alpha=100.0)
    path = save(File((lora,)), tmp_path / "in")
    out = composed([(path, 0.5)], tmp_path / "out")
    assert read(path).ranks == (4 * 96,)
    module = next(iter(STEMS[stem].parts))
    wanted = oracle.deltas(path, 0.5)[module]
    assert np.allclose(
        oracle.dense(oracle.deltas(out)[module]), oracle.dense(wanted), rtol=1e-5, atol=1e-8
    )
