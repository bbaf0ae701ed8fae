"""The first recipe of a new project, where the target is not this machine's folder of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import yaml
from support.fake_target import FakeTarget, lora

from composer import Project, UsageError
from composer.files.state import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


def concepts(root: Path, *names: str) -> list[dict[str, object]]:
    """Those of the first recipe, of a target with LoRAs of these names: lora_0, lora_1, …"""
    target = FakeTarget()
    for n, name in enumerate(names):
        target.put(lora(f"lora_{n}", name))
    project = Project(root, may_be_empty=True, state_dir=os.environ[VARIABLE])
    setup = project.init(target)
    assert (setup.loras, setup.has_recipes, setup.library) == (len(names), True, "")
    assert not Project(root).validate()
    assert len(Project(root).plan(target).changes) == 1
    recipe = yaml.safe_load((root / "recipes/first-mix.yaml").read_text("utf-8"))
    return list(recipe["concepts"])


def test_loras_are_named_by_name(tmp_path: Path) -> None:
    expected = [{"name": "Ink", "scale": 0.8}, {"name": "stone: 1", "scale": 0.6}]
    assert concepts(tmp_path, "stone: 1", "Ink", "zzz") == expected


@pytest.mark.parametrize("name", ["../x", " a", "a\nb", "/etc", "C:\\x", "é" * 300, ""])
def test_a_name_that_a_recipe_cant_have_is_an_id(tmp_path: Path, name: str) -> None:
    assert {"modelId": "lora_0"}.items() <= concepts(tmp_path, name)[0].items()


def test_a_name_that_two_have_is_an_id(tmp_path: Path) -> None:
    expected = [{"modelId": "lora_0", "scale": 0.8}, {"modelId": "lora_1", "scale": 0.6}]
    assert concepts(tmp_path, "Ink", "Ink", "zzz") == expected


def test_hostile_names_stay_in_their_comment(tmp_path: Path) -> None:
    concepts(tmp_path, "a", "b", "x\nprotect: true", "y\x1b[2J\u202e", "\u2028")
    text = (tmp_path / "recipes/first-mix.yaml").read_text("utf-8")
    assert "\nprotect" not in text
    assert not {"\x1b", "\u202e", "\u2028"} & {*text}


def test_workflows_of_a_remote_target_plan_and_apply(tmp_path: Path) -> None:
    project = Project(tmp_path, may_be_empty=True, state_dir=os.environ[VARIABLE])
    target = FakeTarget(remote=True)
    steps = project.init(target, workflow="github", dry_run=True).steps
    written = {step.path for step in steps if step.path.startswith(".github/")}
    assert {f".github/workflows/compose-{name}.yml" for name in ("plan", "apply")} < written


def test_a_library_that_the_settings_contradict_is_refused_before_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "compose.toml").write_text('library = "a"\n')
    project = Project(tmp_path, may_be_empty=True, state_dir=os.environ[VARIABLE])
    with pytest.raises(UsageError, match=r"compose\.toml has the library a, not b"):
        project.init(FakeTarget(), library=tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "compose.toml"}
