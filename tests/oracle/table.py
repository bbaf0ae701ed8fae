"""The tables of `docs/formats.md`: what other programs make of each format, measured.

The tests hold the page to these lines, and `make_formats.py` writes them into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import torch
from oracle import sd_scripts
from safetensors.numpy import save_file
from support import lora_oracle as oracle

from composer.lora import compose, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oracle.cases import Case
    from oracle.judge import Change, Judge

PAGE = Path(__file__).parents[2] / "docs/formats.md"
SCALE = 0.8
RIGHT = 1e-3  # of the effect: float32's rounding is a fiftieth of that


@dataclass(frozen=True)
class Row:
    """One format: sizes relative to the output, and the words for the two others."""

    effect: float
    ours: float
    control: float
    said: tuple[str, ...]
    theirs: str
    merged: str

    def line(self, case: Case) -> str:
        cells = (case.name, f"`{case.key}`", self.theirs, self.merged, case.why)
        return f"| {' | '.join(cells)} |"


def head() -> list[str]:
    names = ("format", "a key of it", f"diffusers {diffusers.__version__}", "sd-scripts' merge", "")
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def changes(found: oracle.Factors) -> dict[str, list[Change]]:
    """The oracle's deltas for the judge."""
    return {
        module: [(torch.tensor(up), torch.tensor(down)) for up, down in pairs]
        for module, pairs in found.items()
    }


def wanted(judge: Judge, parts: Iterable[tuple[Path, float]]) -> torch.Tensor:
    """The output with the weights changed as these files at these scales say."""
    parts = list(parts)
    norms = {name: torch.tensor(v) for path, _ in parts for name, v in oracle.norms(path).items()}
    return judge.changed(changes(oracle.total(oracle.deltas(*part) for part in parts)), norms)


def measured(judge: Judge, case: Case, folder: Path) -> Row:
    path, out = case.save(folder / "theirs.safetensors"), folder / "ours.safetensors"
    right = wanted(judge, [(path, SCALE)])
    size = right.norm()
    compose([(read(path), SCALE)], out, metadata={}, dtype="F32")
    ours = judge.loaded([(out, 1.0)], off=0.01 / SCALE)
    assert ours.control is not None
    return Row(
        effect=float((right - judge.plain).norm() / judge.plain.norm()),
        ours=float((ours.output - right).norm() / size),
        control=float((ours.control - right).norm() / size),
        said=ours.said,
        theirs=_verdict(judge, path, right, whole=case.whole),
        merged=_merged(path, folder / "merged.safetensors"),
    )


def _verdict(judge: Judge, path: Path, right: torch.Tensor, *, whole: bool) -> str:
    try:
        answer = judge.loaded([(path, SCALE)])
    except Exception as raised:  # whatever it is: the page names it
        return f"fails: {type(raised).__name__}"
    effect = (right - judge.plain).norm()
    error = float((answer.output - right).norm() / effect)
    if error <= RIGHT:
        return "right"
    if torch.equal(answer.output, judge.plain):
        return "ignored"
    if any("unexpected keys" in text for text in answer.said) and not whole:
        return "noise"
    return f"effect off by {float(f'{error:.1g}'):.0%}"


def _merged(path: Path, out: Path) -> str:
    """The strength that sd-scripts gives to one file at `SCALE`."""
    tensors = {key: values.astype(np.float64) for key, values in oracle.load(path).items()}
    try:
        save_file(sd_scripts.merged([(tensors, SCALE)]), out)
    except KeyError:
        return "fails: KeyError"
    got, whole = oracle.deltas(out), oracle.deltas(path)
    ratios = {round(oracle.norm(got[m]) / oracle.norm(whole[m]), 3) for m in whole}
    return " or ".join(f"{ratio:g} for {SCALE}" for ratio in sorted(ratios))


# --- several at once ---------------------------------------------------------------------


@dataclass(frozen=True)
class Merge:
    """LoRAs on one layer: rank, alpha and weight of each."""

    parts: tuple[tuple[int, float, float], ...]

    @property
    def words(self) -> str:
        return "; ".join(f"rank {rank}, alpha {alpha:g}, at {s:g}" for rank, alpha, s in self.parts)


MERGES = (
    Merge(((16, 16, 0.7),)),
    Merge(((16, 16, 1), (16, 16, 1))),
    Merge(((16, 16, 0.8), (16, 16, 0.8))),
    Merge(((16, 16, 0.8), (32, 16, 0.6))),
    Merge(((16, 8, 1), (32, 32, 0.5), (64, 1, -0.5))),
)
STEM = "lora_unet_double_blocks_0_img_attn_proj"


def merge_head() -> list[str]:
    return ["| LoRAs | sd-scripts `--concat` | sd-scripts | compose |", "|---|---|---|---|"]


def merge_line(merge: Merge, folder: Path) -> str:
    """Relative errors of ΔW against float64."""
    paths = [_kohya(folder / f"{n}.safetensors", part, n) for n, part in enumerate(merge.parts)]
    scales = [scale for _, _, scale in merge.parts]
    right = oracle.total(oracle.deltas(*part) for part in zip(paths, scales, strict=True))
    errors = []
    for concat in (True, False):
        tensors = [
            {key: values.astype(np.float64) for key, values in oracle.load(path).items()}
            for path in paths
        ]
        try:
            pairs = list(zip(tensors, scales, strict=True))
            save_file(sd_scripts.merged(pairs, concat=concat), folder / "merged.safetensors")
        except ValueError:
            errors.append("fails: shape mismatch")
            continue
        errors.append(f"{oracle.worst(oracle.deltas(folder / 'merged.safetensors'), right):.3f}")
    out = folder / "ours.safetensors"
    compose([(read(p), s) for p, s in zip(paths, scales, strict=True)], out, metadata={})
    ours = oracle.worst(oracle.deltas(out), right)
    return f"| {merge.words} | {' | '.join(errors)} | {'below 1e-7' if ours < 1e-7 else ours} |"


def _kohya(path: Path, part: tuple[int, float, float], seed: int) -> Path:
    rank, alpha, _ = part
    rng = np.random.default_rng(seed)
    tensors = {
        f"{STEM}.lora_down.weight": rng.standard_normal((rank, 3072), np.float32),
        f"{STEM}.lora_up.weight": rng.standard_normal((3072, rank), np.float32),
        f"{STEM}.alpha": np.array(alpha, np.float32),
    }
    save_file(tensors, path)
    return path
