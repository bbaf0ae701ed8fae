"""How the cost grows with the concepts and with their rank: a line, with the fit printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import full
import numpy as np
from measuring import run as measured
from tables import limit, table

if TYPE_CHECKING:
    from pathlib import Path

RANKS = (8, 16, 32, 64, 128)
CONCEPTS = (1, 2, 3, 4, 5)
ROUNDS = 7
LAYERS = full.LAYERS[::4]  # a quarter of them: the largest case has 1.1 GB


def run(folder: Path) -> None:
    _shown("concepts of rank 32", _points(folder, {n: [32] * n for n in CONCEPTS}))
    _shown("rank of two concepts", _points(folder, {rank: [rank, rank] for rank in RANKS}))


def _points(folder: Path, cases: dict[int, list[int]]) -> list[tuple[int, float]]:
    """Seconds of each case: the least of several rounds, in each of which all have a turn. What
    else the machine does only adds to a time."""
    files = {case: _files(folder, ranks) for case, ranks in cases.items()}
    rounds = [
        {case: measured("ours", folder, some).work for case, some in files.items()}
        for _ in range(ROUNDS)
    ]
    return [(case, min(one[case] for one in rounds)) for case in cases]


def _files(folder: Path, ranks: list[int]) -> list[Path]:
    return [
        full.write(folder / f"growth-{rank}-{n}.safetensors", rank, seed=n, layers=LAYERS)
        for n, rank in enumerate(ranks)
    ]


def _shown(what: str, points: list[tuple[int, float]]) -> None:
    x, y = (np.array(column, float) for column in zip(*points, strict=True))
    slope, start = np.polyfit(x, y, 1)
    line = slope * x + start
    unexplained = ((y - line) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    print(f"{what}; 1 is the first row\n")
    rows = [
        [f"{n:g}", f"{seconds / y[0]:.2f}", f"{fit / y[0]:.2f}"]
        for n, seconds, fit in zip(x, y, line, strict=True)
    ]
    table([what, "measured", "straight line"], rows)
    limit(f"R² of the line over {what}", 1 - unexplained, "at least 0.95", unexplained <= 0.05)
    print()
