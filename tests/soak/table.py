"""What a soak prints at its end, and whether a server grew."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soak.run import Soak
    from soak.targets import Usage

MB = 1_000_000
GROWTH = 0.1  # that memory may have by chance, and MORE bytes
MORE = 4 * MB
MORE_FILES = 2
FEWEST = 8  # quiet points from which memory can be told to be flat


def table(soak: Soak) -> str:
    """What happened, and the memory and open files of the server that ran throughout."""
    rows = {"minutes": f"{soak.elapsed / 60:.1f}", "quiet points": str(soak.quiet_points)}
    rows |= {what: str(count) for what, count in sorted(soak.counts.items())}
    if soak.usages:
        first, last = soak.usages[0], soak.usages[-1]
        rows["memory of the steady server, first and last"] = (
            f"{first.memory / MB:.1f} MB, {last.memory / MB:.1f} MB"
        )
        rows["its open files, first and last"] = f"{first.files}, {last.files}"
        rows["its threads, first and last"] = f"{first.threads}, {last.threads}"
        rows["its models, first and last (with deleted ones)"] = (
            f"{first.models} ({first.rows}), {last.models} ({last.rows})"
        )
    width = max(map(len, rows))
    return "\n".join(f"{what:<{width}}  {value}" for what, value in rows.items())


def growth(usages: Sequence[Usage]) -> list[str]:
    """What grew, from the second quarter of the run to the last one, as medians."""
    quarter = len(usages) // 4
    if len(usages) < FEWEST:
        return []
    early, late = usages[quarter : 2 * quarter], usages[-quarter:]
    before, after = (statistics.median(u.memory for u in part) for part in (early, late))
    files = [statistics.median(u.files for u in part) for part in (early, late)]
    found = []
    if after > before * (1 + GROWTH) + MORE:
        found.append(f"memory grew from {before / MB:.1f} MB to {after / MB:.1f} MB")
    if files[1] > files[0] + MORE_FILES:
        found.append(f"open files grew from {files[0]:g} to {files[1]:g}")
    return found
