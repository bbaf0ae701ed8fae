"""`compose status`: the state of every recipe."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from support.cli import KNIGHT, ROGUE, compose, edit, ids

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


def test_status_tells_compositions_that_no_recipe_needs(applied: Path) -> None:
    old = ids(applied)["Pixel Rogue"]
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("apply", at=applied)
    (applied / "recipes/castle-keep.yaml").unlink()
    (applied / KNIGHT).unlink()  # protected
    shown = compose("status", at=applied).out
    assert "no recipe asks for it; compose apply --prune deletes it" in shown
    assert "no recipe asks for it; protected, so --prune would leave it" in shown
    assert "\n2 recipes: 2 in sync. Without a recipe: 2.\n" in shown
    assert f"\nearlier compositions: {old} (Pixel Rogue); compose prune deletes them\n" in shown
    assert compose("prune", "--allow-large-change", at=applied).status == 1  # protected
    assert "earlier" not in compose("status", at=applied).out
