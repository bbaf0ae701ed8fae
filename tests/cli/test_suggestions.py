"""The values that shells offer, by click's protocol for bash."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from support.cli import KNIGHT, REPO

from composer.cli.main import compose as group

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def offered(at: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[CompletionItem]:
    """The items for the last of these words."""
    from click.shell_completion import ShellComplete

    monkeypatch.chdir(at)
    return ShellComplete(group, {}, "compose", "X").get_completions([*words[:-1]], words[-1])


def values(at: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    return [item.value for item in offered(at, monkeypatch, *words)]


def test_recipes_have_the_names_of_the_lock_and_of_new_files(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "recipes" / "new.yaml").write_text('# new\nname: "Hero: the 2nd"  # x\n', "utf-8")
    (project / "recipes" / "list.yaml").write_text("name: [1, 2]\n", "utf-8")
    for command in ("output", "pull", "forget", "destroy"):
        names = values(project, monkeypatch, command, "")
        assert names == [
            *("Castle Keep", "Hero: the 2nd", "Pixel Rogue", "Storybook Knight", "Tutorial Slime")
        ]
    assert values(project, monkeypatch, "output", "recipes/story") == [KNIGHT]


def test_names_of_loras_are_those_that_the_lock_pins_else_those_of_the_library(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(REPO / "compose.lock", project)
    pinned = ["Castle Stone", "Ink Lines", "Pixel Dust", "Storybook Watercolour"]
    assert values(project, monkeypatch, "plan", "--upgrade", "") == pinned
    assert values(project, monkeypatch, "lock", "--upgrade", "In") == ["Ink Lines"]
    (project / "compose.lock").unlink()
    assert set(values(project, monkeypatch, "apply", "--upgrade", "")) >= set(pinned)


def test_a_scale_follows_a_lora_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loras = "recipes/loras/"
    (item,) = offered(project, monkeypatch, "merge", f"{loras}ink")
    assert (item.value, item.type) == (f"{loras}ink-lines.safetensors", "open")
    assert f"{item.value}:0.7" in values(project, monkeypatch, "merge", f"{item.value}:")
    assert KNIGHT not in values(project, monkeypatch, "merge", "recipes/")
    assert {KNIGHT, loras} <= {*values(project, monkeypatch, "inspect", "recipes/")}
    assert offered(project, monkeypatch, "merge", "$HOME/x")[0].type == "file"
    shutil.copytree(project / "recipes/loras", Path.home() / "my loras")
    assert values(project, monkeypatch, "merge", "~/my loras/ink") == [
        "~/my loras/ink-lines.safetensors"
    ]


def test_an_axis_is_a_lora_of_the_recipe_and_scales(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item, *others) = offered(project, monkeypatch, "sweep", KNIGHT, "--axis", "")
    assert (item.value, item.type, len(others)) == ("Storybook Watercolour=", "open", 1)
    assert values(project, monkeypatch, "sweep", "Storybook Knight", "--axis", "I") == [
        "Ink Lines="
    ]
    named = values(project, monkeypatch, "sweep", "Zebra", "--axis", "")
    assert {"Castle Stone=", "Ink Lines="} <= {*named}  # of no recipe: all of the library
    scales = values(project, monkeypatch, "sweep", KNIGHT, "--axis", "Ink Lines=0.2")
    assert scales == ["Ink Lines=0.2..0.8/4"]
    assert KNIGHT in values(project, monkeypatch, "sweep", "recipes/")


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["plan", "--target", ""], {"local", "scenario"}),
        (["apply", "--executor", "da"], {"dask://"}),
        (["output", "x", "--usage", ""], {"diffusers", "comfyui", "scenario"}),
        (["merge", "--format", ""], {"diffusers", "kohya"}),
        (["models", "--type", ""], {"flux.1-lora", "flux.1-composition"}),
        (["plan", "-o", "mark"], {"markdown"}),
        (["plan", "--mark"], {"--markdown-size"}),
        (["import", "work"], {"workflow.json"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_values_of_options(
    words: list[str], some: set[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "workflow.json").write_text("{}", "utf-8")
    assert some <= {*values(project, monkeypatch, *words)}


def test_commands_are_offered_without_importing_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(group), "get_command", lambda *given: pytest.fail("imported"))
    items = group.shell_complete(click.Context(group), "pl")
    assert [(item.value, bool(item.help)) for item in items] == [("plan", True)]
