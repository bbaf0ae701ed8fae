"""Composing files of every format, in random mixes, held against the oracle: what the files say,
added up in float64."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import lora_oracle as oracle
from support.lora_checks import LIMITS, check, composed, examples, mixes, saved
from support.lora_files import DTYPES, Spec, write
from support.lora_names import FORMATS, PAIRS, STEMS, XLABS_PAIR
from support.lora_wild import File, Lora, save

from composer.errors import BadLora
from composer.lora import composition, read
from composer.lora import threads as pool

if TYPE_CHECKING:
    from support.lora_checks import Mix


# --- the diffusers format ----------------------------------------------------------------


@examples(40)
@given(mixes(norms=True))
def test_any_mix_is_the_sum_of_its_parts(mix: Mix) -> None:
    with tempfile.TemporaryDirectory() as name:
        sources = saved(Path(name), mix)
        out = composed(sources, Path(name) / "out")
        check(out, sources, whole_clip=True)
        brought = {key: v for path, _ in sources for key, v in oracle.norms(path).items()}
        kept = oracle.norms(out)
        assert brought.keys() == kept.keys()
        assert all((kept[key] == brought[key]).all() for key in kept)
        _rank_rule(out)
        shared = {lora.dtype for file, _ in mix for lora in file.loras}
        dtype = read(out).dtypes[0]
        assert dtype == "F32" or {d for d in shared if "F8" not in d} <= {dtype}


def _rank_rule(out: Path) -> None:
    """One rank throughout and no alpha, or one alpha for all; biases on all or none."""
    keys, result = oracle.load(out), read(out)
    alphas = [float(value) for key, value in keys.items() if key.endswith(".alpha")]
    downs = [key for key in keys if key.endswith(".lora_A.weight")]
    assert len(downs) == len(result.modules)
    assert len(alphas) == (len(downs) if len(result.ranks) > 1 else 0)
    assert len(set(alphas)) <= 1
    biased = [key for key in keys if key.endswith("lora_B.bias")]
    transformer = [key for key in downs if key.startswith("transformer.")]
    assert len(biased) in (0, len(transformer))
    assert all(key.startswith("transformer.") for key in biased)


@examples(20)
@given(mixes(), st.sampled_from(sorted(LIMITS)))
def test_a_precision_is_kept_to(mix: Mix, dtype: str) -> None:
    """Or refused, where float16 is asked for and can't keep its promise."""
    with tempfile.TemporaryDirectory() as name:
        sources = saved(Path(name), mix)
        try:
            out = composed(sources, Path(name) / "out", dtype=dtype)
        except BadLora as error:
            assert (dtype, error.hint) == ("F16", "take the precision bfloat16 or float32")
            return
        assert read(out).dtypes == (dtype,)
        check(out, sources, whole_clip=True)


# --- checks of the check, and of sameness ------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_scale_off_by_a_hundredth_is_noticed(tmp_path: Path, name: str, dtype: str) -> None:
    """In every format: this is the error that the checks above must see."""
    stem = next(s for s in sorted(FORMATS[name]) if STEMS[s].outputs <= 9216)
    endings = XLABS_PAIR if name == "XLabs" else PAIRS[0]
    file = File((Lora(stem, endings=endings, ranks=(3, 1), dtype=dtype, alpha=2.0),))
    other = File((Lora("x_embedder", dtype=dtype),), seed=1)
    sources = [(save(file, tmp_path / "a"), 0.65), (save(other, tmp_path / "b"), 0.8)]
    format = "kohya" if "t5" in stem or "encoder_2" in stem or "te3" in stem else "diffusers"
    got = oracle.deltas(composed(sources, tmp_path / "out", format))
    for off in (0.0, 0.01):
        wanted = [oracle.deltas(sources[0][0], 0.65 + off), oracle.deltas(sources[1][0], 0.8)]
        assert (oracle.worst(got, oracle.total(wanted)) <= LIMITS[dtype]) == (not off)


def test_the_same_parts_give_the_same_bytes_whatever_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = dict.fromkeys(oracle.SPLIT, 4)
    kinds = [Spec(False, "BF16", ranks, seed=1), Spec(False, "F16", ranks, {"x_embedder": 8.0})]
    sources = [(write(spec, tmp_path / f"{n}"), 0.3) for n, spec in enumerate(kinds)]
    found = set()
    for threads in (1, 2, 7):
        monkeypatch.setattr(composition, "THREADS", threads, raising=False)
        monkeypatch.setattr(pool, "THREADS", threads)
        found.add(composed(sources, tmp_path / "out").read_bytes())
    assert len(found) == 1
