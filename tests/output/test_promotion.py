"""What is printed of scales that a recipe got."""

from __future__ import annotations

import json

from support.cli import validator

from composer.output import promotion
from composer.previews.sweeping import Promoted, ScaleChange

CHANGES = (ScaleChange("Ink Lines", 0.5, 0.65), ScaleChange("Café |`\x1b", 0.1234, 1.0))
PROMOTED = Promoted("recipes/knight.yaml", "Knight", "C4", CHANGES)
SAME = Promoted("recipes/knight.yaml", "Knight", "B1", ())


def test_as_text() -> None:
    assert promotion.text(PROMOTED) == (
        "~ recipes/knight.yaml gets the scales of C4\n"
        "    0.50 -> 0.65    Ink Lines\n"
        "    0.1234 -> 1.00  Café |`\\x1b\n"
    )
    assert promotion.text(SAME) == "= recipes/knight.yaml has the scales of B1 already\n"
    assert promotion.text(PROMOTED, color=True).startswith("\x1b[33m~ recipes/knight.yaml")


def test_as_markdown() -> None:
    assert promotion.as_markdown(PROMOTED) == (
        "`recipes/knight.yaml` gets the scales of C4:\n"
        "\n"
        "| LoRA | before | after |\n"
        "|---|---|---|\n"
        "| `Ink Lines` | 0.50 | 0.65 |\n"
        "| ``Café \\|`\\x1b`` | 0.1234 | 1.00 |\n"
    )
    assert promotion.as_markdown(SAME) == "`recipes/knight.yaml` has the scales of B1 already.\n"


def test_as_json() -> None:
    plain = json.loads(promotion.as_json(PROMOTED, dry_run=True))
    validator("promotion").validate(plain)
    assert plain == {
        "formatVersion": 1,
        "dryRun": True,
        "recipe": "recipes/knight.yaml",
        "name": "Knight",
        "place": "C4",
        "changes": [
            {"concept": "Ink Lines", "before": 0.5, "after": 0.65},
            {"concept": "Café |`\x1b", "before": 0.1234, "after": 1.0},
        ],
    }
    validator("promotion").validate(json.loads(promotion.as_json(SAME, dry_run=False)))
