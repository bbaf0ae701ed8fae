"""Names that are offered: found quickly, whatever the files are like."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO, samples

from composer import Project
from composer.project.known_names import concept_labels, name_in, pinned_names, recipe_names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: Hero\n", "Hero"),
        ("# a\n\nconcepts: []\nname:   'It''s'  # b\n", "It's"),
        ('name: "Hero: 2"', "Hero: 2"),
        ("name: 日本 🎨\r\n", "日本 🎨"),
        ("concepts:\n  - name: Ink\n", None),
        ("name: [a]", None),
        ("name: 7", None),
        ("name: *a", None),
        ('name: "open', None),
        ("name: 2024-13-45", None),
        ("", None),
    ],
)
def test_the_name_in_a_text(text: str, name: str | None) -> None:
    assert name_in(text) == name


def test_names_of_the_lock_come_first_and_no_link_is_followed_out(tmp_path: Path) -> None:
    root = samples(tmp_path / "project")
    shutil.copy(REPO / "compose.lock", root)
    (tmp_path / "secret.yaml").write_text("name: Secret\n", "utf-8")
    (root / "recipes" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (root / "recipes" / "new.yaml").write_text("name: New\n", "utf-8")
    project = Project(root)
    assert recipe_names(project, seconds=9) == [
        *("Castle Keep", "New", "Pixel Rogue", "Storybook Knight", "Tutorial Slime")
    ]
    assert "New" not in recipe_names(project, seconds=-1)
    assert "Ink Lines" in pinned_names(project)


def test_what_a_recipe_calls_its_loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = samples(tmp_path / "project")
    shutil.copy(REPO / "compose.lock", root)
    new = root / "recipes" / "new.yaml"
    new.write_text("name: New\nconcepts: [{name: A=b, scale: 1}, {modelId: model_1, scale: 0}]\n")
    (root / "recipes" / "broken.yaml").write_text("name: Broken\nconcepts: []\n")
    project = Project(root)
    knight = ["Ink Lines", "Storybook Watercolour"]
    assert sorted(concept_labels(project, "Storybook Knight", seconds=-1)) == knight  # by the lock
    assert concept_labels(project, "New", seconds=9) == ["A=b", "model_1"]
    assert concept_labels(project, "New", seconds=-1) == []
    assert concept_labels(project, "Broken", seconds=9) == []
    assert concept_labels(project, "Zebra", seconds=9) == []
    monkeypatch.chdir(root / "recipes")
    assert concept_labels(project, "new.yaml", seconds=-1) == ["A=b", "model_1"]
