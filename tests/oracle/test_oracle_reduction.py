"""Rank reduction against torch's dense SVD, on every layer of a small model.

The engine knows FLUX.1's widths alone. So a copy of it runs in a process of its own, whose table
says 192 and 768, the only line that differs: all 504 layers are composed and reduced like this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.lora_names import DIFFUSERS

import composer
from composer.lora import compose, read
from composer.lora.families.flux1_files import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]

HIDDEN, MLP = 192, 768  # instead of 3072 and 12288
TABLE, WIDTHS = "lora/families/flux1_files.py", "HIDDEN, MLP = 3072, 12288"
NARROWER = {3072: HIDDEN, 12288: MLP, 15360: HIDDEN + MLP, 6144: 2 * HIDDEN}
NARROWER |= {9216: 3 * HIDDEN, 18432: 6 * HIDDEN}
OPTIMUM = 1e-4  # how far from it, relative to it
SCALES, RANKS = (0.7, 0.5, -0.3), (5, 9, 120)  # together more than some layers' shorter side

CHILD = """
import sys
from pathlib import Path
from composer.lora import compose, read
rank, out, *files = sys.argv[1:]
parts = [(read(Path(name)), float(scale)) for name, scale in zip(files[::2], files[1::2])]
compose(parts, Path(out), metadata={}, rank=int(rank))
"""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the copy."""
    folder = tmp_path_factory.mktemp("narrow")
    here = Path(composer.__file__).parent
    shutil.copytree(here, folder / "composer", ignore=shutil.ignore_patterns("__pycache__"))
    source = (folder / "composer" / TABLE).read_text("utf-8")
    assert source.count(WIDTHS) == 1
    changed = source.replace(WIDTHS, f"HIDDEN, MLP = {HIDDEN}, {MLP}")
    (folder / "composer" / TABLE).write_text(changed, "utf-8")
    return folder


def test_no_lora_of_that_rank_is_nearer(narrow: Path, tmp_path: Path) -> None:
    shapes = {
        name: (NARROWER.get(layer.outputs, layer.outputs), NARROWER.get(layer.inputs, layer.inputs))
        for name, layer in DIFFUSERS.items()
    }
    assert len(shapes) == len(MODULES)
    files = [_lora(tmp_path / f"{r}.safetensors", shapes, r) for r in RANKS]
    sources, results = [load_file(path) for path in files], {}
    for rank in (8, 48):
        out = tmp_path / f"to{rank}.safetensors"
        named = [str(x) for pair in zip(files, SCALES, strict=True) for x in pair]
        command = [sys.executable, "-c", CHILD, str(rank), str(out), *named]
        subprocess.run(
            command, check=True, cwd=narrow, env=os.environ | {"PYTHONPATH": str(narrow)}
        )
        results[rank] = load_file(out)
    excesses = [excess for name in shapes for excess in _excesses(name, sources, results)]
    print(f"at most {max(excesses):.1e} above the optimum")
    assert max(excesses) <= OPTIMUM


@pytest.mark.parametrize(
    "name", ["proj_out", "x_embedder", "time_text_embed.text_embedder.linear_1"]
)
def test_at_the_true_widths(tmp_path: Path, name: str) -> None:
    shapes = {name: (DIFFUSERS[name].outputs, DIFFUSERS[name].inputs)}
    files = [_lora(tmp_path / f"{r}.safetensors", shapes, r) for r in RANKS]
    out = tmp_path / "out.safetensors"
    parts = [(read(path), scale) for path, scale in zip(files, SCALES, strict=True)]
    compose(parts, out, metadata={}, rank=8)
    sources = [load_file(path) for path in files]
    assert max(_excesses(name, sources, {8: load_file(out)})) <= OPTIMUM


def test_a_file_that_isnt_the_best_is_noticed(tmp_path: Path) -> None:
    shapes = {"proj_out": (64, 3072)}
    files = [_lora(tmp_path / f"{r}.safetensors", shapes, r) for r in RANKS]
    out = tmp_path / "out.safetensors"
    for scales, noticed in ((SCALES, False), ((0.71, *SCALES[1:]), True)):
        parts = [(read(path), scale) for path, scale in zip(files, scales, strict=True)]
        compose(parts, out, metadata={}, rank=8)
        sources = [load_file(path) for path in files]
        (excess,) = _excesses("proj_out", sources, {8: load_file(out)})
        assert (excess > OPTIMUM) == noticed


def _lora(path: Path, shapes: Mapping[str, tuple[int, int]], rank: int) -> Path:
    rng = np.random.default_rng(rank)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        tensors[f"transformer.{name}.lora_A.weight"] = _random(rng, rank, inputs)
        tensors[f"transformer.{name}.lora_B.weight"] = _random(rng, outputs, rank)
    save_file(tensors, path)
    return path


def _random(rng: np.random.Generator, rows: int, columns: int) -> NDArray[Any]:
    """Normal values whose size falls off along the rank, as a trained LoRA's does."""
    values = rng.standard_normal((rows, columns), np.float32)
    rank = min(rows, columns)
    fall = (0.98 ** np.arange(rank)).astype(np.float32)
    return values * (fall[:, None] if rows == rank else fall)


def _excesses(
    name: str, sources: Sequence[Tensors], results: Mapping[int, Tensors]
) -> Iterator[float]:
    """How much farther than torch's best of its rank each result is, relative to that distance."""
    change = sum(s * _change(name, source) for s, source in zip(SCALES, sources, strict=True))
    values = torch.linalg.svdvals(change)
    for rank, result in results.items():
        lowest = values[rank:].norm()
        yield float(((_change(name, result) - change).norm() - lowest) / lowest)


def _change(name: str, tensors: Tensors) -> torch.Tensor:
    """ΔW in float64."""
    stem = f"transformer.{name}"
    down = torch.tensor(tensors[f"{stem}.lora_A.weight"]).double()
    up = torch.tensor(tensors[f"{stem}.lora_B.weight"]).double()
    alpha = tensors.get(f"{stem}.alpha")
    return (1.0 if alpha is None else float(alpha) / len(down)) * (up @ down)
