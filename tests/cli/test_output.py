"""`compose output`: where the results are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.cli import compose, ids

if TYPE_CHECKING:
    from pathlib import Path


def test_results_are_where_output_says(applied: Path) -> None:
    shown = compose("output", "Pixel Rogue", at=applied).out
    path = re.search(r'"(.*\.safetensors)"', shown)
    assert path is not None
    assert (applied / path[1]).is_file()
    assert shown.startswith(ids(applied)["Pixel Rogue"])
    assert "0.6   Pixel Dust" in shown


def test_output_names_the_file_from_where_one_stands(applied: Path) -> None:
    below = applied / "recipes/tutorial"
    path = re.search(r'"(.*\.safetensors)"', compose("output", "Tutorial Slime", at=below).out)
    assert path is not None and (below / path[1]).is_file()
    shown = compose("output", "Tutorial Slime", at=applied).out
    path = re.search(r'"(.*\.safetensors)"', shown)
    assert path is not None and (applied / path[1]).is_file()
