"""Reducing three full-shape LoRAs to rank 32, against PEFT's `svd`, which takes hours for it.

PEFT's time is measured on one layer of each shape, times the number of layers of that shape.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import full
import peers
from measuring import runs
from tables import limit, table

if TYPE_CHECKING:
    from pathlib import Path

RANK = 32


def run(folder: Path) -> None:
    files = full.three(folder)
    ours = runs(["ours_to_32"], folder, files, times=3)["ours_to_32"].work
    shapes = Counter((module.inputs, module.outputs) for module in full.LAYERS)
    rows, whole = [], 0.0
    for (inputs, outputs), count in sorted(shapes.items()):
        seconds = _peft(inputs, outputs)
        whole += seconds * count
        rows.append([f"{inputs} x {outputs}", str(count), f"{seconds / ours:.2f}"])
    table(["layer (in x out)", "layers", "PEFT's svd of one / ours of all 418"], rows)
    limit("PEFT's svd / ours, all 418 layers", whole / ours, "at least 1000", whole >= 1000 * ours)


def _peft(inputs: int, outputs: int) -> float:
    model = peers.model(inputs, outputs, [(rank, seed) for seed, rank in enumerate(full.RANKS)])
    start = time.perf_counter()
    peers.add_weighted(model, list(full.SCALES), "svd", RANK)
    return time.perf_counter() - start
