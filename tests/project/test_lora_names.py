"""`Project.check_names`: the LoRAs that recipes name, looked up without a target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.cli import compose
from support.engine_files import write_lora

from composer.errors import UsageError
from composer.lora import opening, signature
from composer.project import Project, lora_names
from composer.recipes.problems import Place

if TYPE_CHECKING:
    from composer.project.lora_names import CheckedNames

KEYS = {"SCENARIO_SDK_API_KEY": "k", "SCENARIO_SDK_API_SECRET": "s"}


def recipe(root: Path, *loras: str, file: str = "e.yaml") -> Path:
    path = root / "recipes" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    concepts = "".join(f"  - name: {name}\n    scale: 0.5\n" for name in loras)
    path.write_text(f"name: {file}\nconcepts:\n{concepts}", "utf-8")
    return path


def library(root: Path) -> Path:
    write_lora(root / "recipes/loras/ink.safetensors", 1, title="Ink Lines")
    write_lora(root / "recipes/loras/old/dust.safetensors", 2)
    return root / "recipes/loras"


def checked(root: Path, **env: str) -> CheckedNames:
    return Project(root).check_names(env=env)


@pytest.mark.parametrize("name", ["Ink Lines", "ink", "dust", "old/dust"])
def test_a_title_a_file_name_and_a_path_are_known(tmp_path: Path, name: str) -> None:
    library(tmp_path)
    recipe(tmp_path, name)
    assert checked(tmp_path) == ((), ())


def test_a_name_that_nothing_has_is_a_problem_at_its_place(tmp_path: Path) -> None:
    library(tmp_path)
    recipe(tmp_path, "ink", "Ink Line")
    recipe(tmp_path, "Castle", file="f.yaml")
    first, second = checked(tmp_path).problems
    assert (first.file, first.line, first.column, first.code) == ("recipes/e.yaml", 5, 11, "E307")
    assert first.message == (
        'concepts[1].name: no LoRA is named "Ink Line" in recipes/loras (2 LoRA files)'
    )
    assert first.hint == "did you mean Ink Lines (ink.safetensors)?"
    assert second.hint == "compose models recipes/loras lists the LoRAs with their names"
    assert Project(tmp_path).validate() == ()


def test_the_problem_is_the_one_that_the_docs_show(tmp_path: Path) -> None:
    library(tmp_path)
    recipe(tmp_path, "ink", "Ink Line", file="castle.yaml")
    shown = Path(__file__).parents[1] / "recipes/name_problems.txt"
    first, line, caret, *others = compose("validate", at=tmp_path).out.splitlines(keepends=True)
    assert "".join([first, *others]).startswith(shown.read_text("utf-8"))
    assert line == "    5 |   - name: Ink Line\n" and caret.endswith("| " + " " * 10 + "^\n")


def test_validate_and_plan_agree(tmp_path: Path) -> None:
    library(tmp_path)
    for name, is_known in {
        "Ink Lines": True,
        "old/dust": True,
        "Ink": False,
        "loras": False,
    }.items():
        recipe(tmp_path, name)
        plan = compose("plan", at=tmp_path)
        assert ("no LoRA is named" not in plan.out) is is_known
        ran = compose("validate", at=tmp_path)
        assert (ran.status, "E307" in ran.out) == ((0, False) if is_known else (65, True))


def test_a_pinned_name_is_known_whatever_the_library_has(tmp_path: Path) -> None:
    folder = library(tmp_path)
    recipe(tmp_path, "Ink Lines")
    assert compose("apply", at=tmp_path).status == 0
    (folder / "ink.safetensors").unlink()
    assert checked(tmp_path) == ((), ())
    recipe(tmp_path, "Ink Line", file="f.yaml")
    (problem,) = checked(tmp_path).problems
    assert problem.file == "recipes/f.yaml"


def test_without_a_library_a_name_like_a_pinned_one_is_told(tmp_path: Path) -> None:
    folder = library(tmp_path)
    recipe(tmp_path, "Ink Lines")
    assert compose("apply", at=tmp_path).status == 0
    folder.rename(tmp_path / "elsewhere")
    recipe(tmp_path, "Ink Line", "Castle", file="f.yaml")
    note = (
        'recipes/f.yaml: no recipe in the lock has a LoRA named "Ink Line"; did you mean Ink Lines?'
    )
    assert checked(tmp_path) == ((), (note,))
    ran = compose("validate", at=tmp_path)
    assert (ran.status, ran.err) == (0, f"note: {note}\n")
    given = compose("validate", "--library", "elsewhere", at=tmp_path)
    assert (given.status, given.out.count("E307")) == (65, 2)


@pytest.mark.parametrize(
    "env",
    [{"COMPOSE_TARGET": "scenario"}, KEYS, {"COMPOSE_TARGET": "http://127.0.0.1:9/v1"}],
)
def test_the_library_says_nothing_of_another_target(tmp_path: Path, env: dict[str, str]) -> None:
    library(tmp_path)
    recipe(tmp_path, "Castle")
    assert checked(tmp_path, **env) == ((), ())
    assert len(checked(tmp_path, **{**env, "COMPOSE_TARGET": "local"}).problems) == 1
    assert len(Project(tmp_path).check_names(tmp_path / "recipes/loras", env=env).problems) == 1


def test_a_library_that_is_given_may_be_empty_but_must_be_there(tmp_path: Path) -> None:
    recipe(tmp_path, "Castle")
    (tmp_path / "empty").mkdir()
    (problem,) = Project(tmp_path).check_names(tmp_path / "empty").problems
    assert "in empty (0 LoRA files)" in problem.message
    with pytest.raises(UsageError, match="does not exist"):
        Project(tmp_path).check_names(tmp_path / "gone")
    assert checked(tmp_path, COMPOSE_LIBRARY=str(tmp_path / "gone")) == ((), ())
    (tmp_path / "recipes/loras").mkdir()
    assert checked(tmp_path) == ((), ())  # as in a clone without its LoRA files


def test_only_chosen_recipes_are_looked_at(tmp_path: Path) -> None:
    from composer.project import Selection

    library(tmp_path)
    good = recipe(tmp_path, "ink")
    bad = recipe(tmp_path, "Castle", file="f.yaml")
    assert Project(tmp_path, Selection((good,))).check_names() == ((), ())
    assert len(Project(tmp_path, Selection((bad,))).check_names().problems) == 1


def test_titles_behind_a_pointer_are_not_checked(tmp_path: Path) -> None:
    folder = library(tmp_path)
    recipe(tmp_path, "Ink Lines")
    (folder / "ink.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    problems, (note,) = checked(tmp_path)
    assert problems == ()
    assert note.startswith(
        "1 LoRA name can't be checked: ink.safetensors is not a safetensors file"
    )
    assert note.endswith("run `git lfs pull`")
    recipe(tmp_path, "ink")
    assert checked(tmp_path) == ((), ())


def test_a_file_that_cannot_be_used_is_named_where_its_title_may_be_meant(tmp_path: Path) -> None:
    folder = library(tmp_path)
    recipe(tmp_path, "Castle")
    (folder / "cut.safetensors").write_bytes((folder / "ink.safetensors").read_bytes()[:40])
    (problem,) = checked(tmp_path).problems
    assert problem.hint.startswith(
        "it may be the title of a file that can't be used: cut.safetensors is cut short"
    )


def test_of_many_files_notes_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is as it was is not read again; one that changed is."""
    folder = library(tmp_path)
    monkeypatch.setattr(signature, "RACY", 0)
    recipe(tmp_path, "dust")
    assert compose("apply", at=tmp_path).status == 0
    recipe(tmp_path, "Ink Lines")
    monkeypatch.setattr(lora_names, "MANY", 1)
    read: list[str] = []
    reading = opening.read_metadata
    monkeypatch.setattr(
        lora_names, "read_metadata", lambda path: read.append(path.name) or reading(path)
    )
    env = {"COMPOSE_STATE_DIR": os.environ["COMPOSE_STATE_DIR"]}
    assert (checked(tmp_path, **env), read) == (((), ()), [])
    write_lora(folder / "ink.safetensors", 1, title="Another")
    assert len(checked(tmp_path, **env).problems) == 1
    assert read == ["ink.safetensors"]
    assert len(checked(tmp_path, COMPOSE_STATE_DIR=str(tmp_path.parent / "none")).problems) == 1


def test_no_file_is_opened_where_names_of_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path)
    recipe(tmp_path, "ink", "old/dust")

    def read(path: Path) -> dict[str, str]:
        raise AssertionError(path)

    monkeypatch.setattr(lora_names, "read_metadata", read)
    assert checked(tmp_path) == ((), ())
    recipe(tmp_path, "Ink Lines")
    with pytest.raises(AssertionError):
        checked(tmp_path)


def test_a_place_is_where_the_name_stands_in_any_spelling(tmp_path: Path) -> None:
    from composer.recipes.parsing import concept_names

    text = b'name: X\nconcepts: [{scale: 1, name: "A\\u0042"}, {"name": c, scale: 1}]\n'
    assert concept_names(text) == {
        "AB": (("concepts", 0, "name"), Place(2, 29)),
        "c": (("concepts", 1, "name"), Place(2, 50)),
    }
    assert concept_names(b"\xff") == {} == concept_names(b"")
