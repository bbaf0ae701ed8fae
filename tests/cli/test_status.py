"""`compose status`: the state of every recipe."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from support.cli import ROGUE, compose, edit

if TYPE_CHECKING:
    from pathlib import Path


def test_status_says_what_is_out_of_sync(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    shown = compose("status", at=applied).out
    assert re.search(r"Pixel Rogue .* scale of Pixel Dust 0.6 -> 0.7", shown)
    assert "4 recipes: 3 in sync." in shown
    rows = json.loads(compose("status", "-o", "json", at=applied).out)["recipes"]
    assert [row["sync"] == "in sync" for row in rows].count(True) == 3


def test_status_shows_the_model_of_every_recipe(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    (applied / "recipes/castle-keep.yaml").unlink()
    rows = json.loads(compose("status", "-o", "json", at=applied).out)["recipes"]
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(
        ["Castle Keep", "Pixel Rogue", "Storybook Knight", "Tutorial Slime"], "trained"
    )
