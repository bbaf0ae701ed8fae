"""How compositions are drawn and judged: random mixes, and every module within its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from support import lora_oracle as oracle
from support.lora_files import scales
from support.lora_wild import File, configured, files, save
from support.sizes import size

from composer.lora import compose, composed_size, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Mix = Sequence[tuple[File, float]]
    Sources = Sequence[tuple[Path, float]]

LIMITS = {"F32": 1e-6, "F16": 1e-3, "BF16": 5e-3}
signed = st.tuples(scales, st.sampled_from([1, 1, 1, -1])).map(lambda pair: pair[0] * pair[1])


def examples(small: int) -> settings:
    """So many random files in the small run."""
    return settings(
        max_examples=size(small, 30 * small),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # shrinking files takes longer than reading the example
    )


def mixes(*, t5: bool = False, norms: bool = False) -> st.SearchStrategy[Mix]:
    """One to four files with their scales; norms come in the first alone."""
    first = st.tuples(files(t5=t5, norms=norms) | configured(), signed)
    others = st.lists(st.tuples(files(t5=t5) | configured(), signed), max_size=3)
    return st.tuples(first, others).map(lambda pair: [pair[0], *pair[1]])


def saved(folder: Path, mix: Mix) -> Sources:
    """No two of the files have the same weights: of what cancels nearly, no type keeps digits."""
    return [
        (save(replace(file, seed=file.seed + n * 2**17), folder / f"{n}"), scale)
        for n, (file, scale) in enumerate(mix)
    ]


def composed(
    sources: Sources, out: Path, format: str = "diffusers", dtype: str | None = None
) -> Path:
    parts = [(read(path), scale) for path, scale in sources]
    report = compose(parts, out, metadata={"of": "a test"}, format=format, dtype=dtype)
    result = read(out)
    assert out.stat().st_size <= composed_size(parts, format=format, dtype=dtype)
    assert result.dtypes == (report.dtype,)
    assert result.ranks == report.ranks
    return out


def check(out: Path, sources: Sources, whole_clip: bool) -> None:
    """Every module within its limit, the same set of them, and no key without its pair."""
    wanted = oracle.total(oracle.deltas(path, scale) for path, scale in sources)
    got = oracle.deltas(out)
    (dtype,) = read(out).dtypes
    assert oracle.worst(got, wanted) <= LIMITS[dtype]
    names = oracle.modules(wanted) if whole_clip else {m.removesuffix(".bias") for m in wanted}
    assert {m.removesuffix(".bias") for m in got} == names or not names
    keys = oracle.load(out)
    for down, up in (
        (".lora_A.weight", ".lora_B.weight"),
        (".lora_down.weight", ".lora_up.weight"),
    ):
        downs = {key.removesuffix(down) for key in keys if key.endswith(down)}
        assert downs == {key.removesuffix(up) for key in keys if key.endswith(up)}
