"""Commands that are misused: each message says what is wrong, why, and what to do next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support.cli import compose, edit, samples

from composer.files.schemas import schema

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"
BROKEN = "name: X\nconcepts:\n  - nmae: Ink Lines\n    scale: 1.7\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def applied(project: Path) -> Path:
    assert compose("apply", at=project).status == 0
    return project


# --- nothing was checked -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "plan", "status", "apply", "prune", "lock"])
@pytest.mark.parametrize(
    "narrowed", [("--include", "zzz*"), ("recipes", "--exclude", "*.yaml"), ("recipes/loras",)]
)
def test_a_selection_of_nothing_is_no_success(
    project: Path, command: str, narrowed: tuple[str, ...]
) -> None:
    ran = compose(command, *narrowed, at=project)
    assert (ran.status, "compose: no recipes found in " in ran.err, ran.out) == (64, True, "")
    assert all(word.strip("-") in ran.err for word in narrowed)


def test_validate_checks_the_project_from_any_folder_of_it(applied: Path) -> None:
    (applied / "elsewhere").mkdir()
    (applied / "recipes/tutorial/broken.yaml").write_text(BROKEN)
    for folder in ("recipes/tutorial", "recipes", "elsewhere", "."):
        ran = compose("validate", at=applied / folder)
        assert (ran.status, "recipes/tutorial/broken.yaml:3" in ran.out) == (65, True), folder
    assert compose("plan", "--include", "zzz*", at=applied / "elsewhere").status == 64


def test_validate_checks_recipes_that_only_the_lock_names(applied: Path) -> None:
    (applied / "more").mkdir()
    (applied / ROGUE).rename(applied / "more/rogue.yaml")
    assert compose("apply", "more/rogue.yaml", at=applied).status == 0
    assert compose("validate", at=applied).out == "4 recipes, no problems.\n"
    (applied / "more/rogue.yaml").write_text(BROKEN)
    assert compose("validate", at=applied).status == 65


def test_validate_of_no_recipes_is_no_success(applied: Path) -> None:
    (applied / "recipes").rename(applied / "renamed")
    ran = compose("validate", at=applied)
    assert (ran.status, "no recipes found in" in ran.err) == (64, True)
    (applied / "recipes").mkdir()
    assert compose("validate", at=applied).status == 64


# --- an unreadable lock ------------------------------------------------------------------


@pytest.mark.parametrize("lock", ['{"version": 99}\n', '{"version": 2, "targ', "\x00"])
def test_an_unreadable_lock_is_told_in_every_format(applied: Path, lock: str) -> None:
    (applied / "compose.lock").write_text(lock)
    for command, formats in (
        ("validate", ["json", "github", "sarif"]),
        ("plan", ["json", "github", "sarif", "markdown"]),
    ):
        for output_format in formats:
            ran = compose(command, "-o", output_format, at=applied)
            assert (ran.status, "E401" in ran.out) == (65, True), (command, output_format)
            if output_format == "json":
                problems = jsonschema.Draft7Validator(json.loads(schema("problems")))
                problems.validate(json.loads(ran.out))
    assert compose("plan", "--json-into", "plan.json", at=applied).status == 65
    assert not (applied / "plan.json").exists()


# --- what is wrong is said at once -------------------------------------------------------


@pytest.mark.parametrize("value", ["abc", "nowhere.json", "recipes"])
def test_expect_is_checked_where_nothing_changes_too(applied: Path, value: str) -> None:
    ran = compose("apply", "--expect", value, at=applied)
    assert (ran.status, "neither a digest" in ran.err) == (64, True)
    assert "compose plan --json-into FILE" in ran.err


@pytest.mark.parametrize("content", ["# Read me\n", "[]", '{"changeDigests": 3}', "\x00"])
def test_expect_of_a_file_that_is_no_plan(applied: Path, content: str) -> None:
    (applied / "README.md").write_text(content)
    ran = compose("apply", "--expect", "README.md", at=applied)
    assert (ran.status, "README.md is not a plan's JSON: it " in ran.err) == (65, True)
    assert "Expecting value" not in ran.err


def test_doctor_counts_a_library_that_does_not_exist(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compose("doctor", "--library", "nodir", "--offline", at=project)
    assert (ran.status, "! the library nodir does not exist" in ran.out) == (1, True)
    assert "Nothing is wrong" not in ran.out
    monkeypatch.setenv("COMPOSE_LIBRARY", "missing")
    assert compose("doctor", "--offline", "-o", "json", at=project).status == 1


# --- prune and what is protected ---------------------------------------------------------


def edited(project: Path) -> None:
    edit(project / KNIGHT, "scale: 0.65", "scale: 0.6")
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=project).status == 0


def test_prune_leaves_a_protected_one_and_does_the_rest(applied: Path) -> None:
    before = json.loads(compose("output", "-o", "json", at=applied).out)
    edited(applied)
    ran = compose("prune", at=applied)
    assert (ran.status, "Done: 1 deleted, 1 blocked." in ran.out) == (1, True), ran
    assert f"{before['Storybook Knight']} is protected" in ran.out
    assert "set protect: false in recipes/storybook-knight.yaml" in ran.out
    models = compose("models", at=applied).out
    assert before["Storybook Knight"] in models
    assert before["Pixel Rogue"] not in models
    assert compose("prune", "--exclude", KNIGHT, at=applied).status == 0
    edit(applied / KNIGHT, "protect: true", "protect: false")
    assert compose("apply", at=applied).status == 0
    assert compose("prune", at=applied).status == 0
    assert before["Storybook Knight"] not in compose("models", at=applied).out


def test_prune_of_a_protected_recipe_that_is_gone(applied: Path) -> None:
    edited(applied)
    (applied / KNIGHT).unlink()
    ran = compose("prune", at=applied)
    assert (ran.status, "blocked  Storybook Knight" in ran.out) == (1, True)
    assert f"restore {KNIGHT} with protect: false" in ran.out
    assert compose("forget", "Storybook Knight", at=applied).status == 0
    assert compose("prune", at=applied).out == "Nothing to delete.\n"


def test_prune_where_the_protected_model_is_gone(
    applied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edited(applied)
    monkeypatch.setenv("COMPOSE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    ran = compose("prune", at=applied)
    assert (ran.status, "protected" in ran.out) == (0, False), ran
