"""`compose plan`: what it shows, its exit status, and that it writes only what is asked for."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, snapshot
from support.engine_files import write_lora
from support.state import state_of

from composer.files.schemas import schema

if TYPE_CHECKING:
    from pathlib import Path


def test_plan_explains_a_change_and_writes_nothing(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    compose("plan", at=applied)  # what the LoRAs do to each other is noted once
    before = snapshot(applied)
    shown = compose("plan", at=applied)
    assert shown.status == 0
    assert "~ replace  Pixel Rogue" in shown.out
    assert "scale of Pixel Dust 0.6 -> 0.7" in shown.out
    assert "0.60 -> 0.70  Pixel Dust" in shown.out
    assert "4 recipes: 1 to replace, 3 unchanged." in shown.out
    assert ("= keep" in shown.out, compose("plan", "--all", at=applied).out.count("= keep")) == (
        False,
        3,
    )
    assert snapshot(applied) == before


def test_plan_in_a_fresh_folder_makes_no_file(project: Path) -> None:
    before = snapshot(project)
    assert compose("plan", at=project).status == 0
    assert snapshot(project) == before
    assert not (state_of(project)).exists()


def test_exit_2_if_and_only_if_a_change_is_listed(applied: Path) -> None:
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0
    (applied / ROGUE).rename(applied / "recipes/rogue.yaml")  # a move is no change
    moved = compose("plan", "--detailed-exitcode", at=applied)
    assert (moved.status, "> move" in moved.out) == (0, True)
    edit(applied / "recipes/rogue.yaml", "scale: 0.6\n", "scale: 0.7\n")
    assert compose("plan", "--detailed-exitcode", at=applied).status == 2


def test_plan_json_fits_its_schema_in_every_state(project: Path) -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema("plan")))

    def check() -> None:
        plan = json.loads(compose("plan", "-o", "json", "--prune", at=project).out)
        validator.validate(plan)
        assert plan["hasChanges"] == bool(plan["changeDigests"])

    check()
    compose("apply", at=project)
    check()
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    edit(project / KNIGHT, "name: Storybook Knight", "name: Storybook Squire")
    (project / "recipes/castle-keep.yaml").unlink()
    check()


def test_json_into_stands_beside_the_text(project: Path) -> None:
    shown = compose("plan", "--json-into", "plan.json", at=project)
    assert "4 to create" in shown.out
    assert json.loads((project / "plan.json").read_text())["formatVersion"] == 1


def test_no_recipes_at_all_says_what_to_do(tmp_path: Path) -> None:
    ran = compose("plan", at=tmp_path)
    assert (ran.status, "recipes/" in ran.err) == (64, True)


def test_a_lock_that_is_broken_or_newer(applied: Path) -> None:
    edit(applied / "compose.lock", '"version": 2', '"version": 3')
    ran = compose("plan", at=applied)
    assert (ran.status, "newer compose" in ran.err) == (65, True)
    (applied / "compose.lock").write_text('{"version": 2,\n"targets": [}\n')
    ran = compose("plan", at=applied)
    assert (ran.status, "compose.lock:2" in ran.err) == (65, True)


def test_colours_only_where_asked(applied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in compose("plan", "--all", at=applied).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in compose("plan", "--all", at=applied).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in compose("plan", "--all", at=applied).out


def test_an_upgrade_is_said_in_words(applied: Path) -> None:
    write_lora(applied / "recipes/loras/ink-lines.safetensors", title="Ink Lines", seed=7)
    shown = compose("plan", ROGUE, "--upgrade", "Ink Lines", at=applied).out
    assert re.search(r"Ink Lines is another file now: model_\S+ -> model_", shown)
    assert re.search(r"0.25 -> none +Ink Lines \(model_", shown)


def test_an_epoch_is_refused_before_anything_is_made(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", 'scale: 0.6\n    modelEpoch: "000010"\n')
    shown = compose("plan", at=project)
    assert (shown.status, "! blocked  Pixel Rogue" in shown.out) == (1, True)


def test_the_systems_refusals_are_one_line(applied: Path) -> None:
    for arguments in (
        ["plan", "--json-into", "/nonexistent/x"],
        ["plan", "--json-into", "recipes"],
    ):
        ran = compose(*arguments, at=applied)
        assert (ran.status, "internal error" in ran.err) == (64, False)
        assert arguments[-1].removesuffix("/x") in ran.err
    (applied / "compose.lock").unlink()
    (applied / "compose.lock").mkdir()
    ran = compose("plan", at=applied)
    assert (ran.status, "not a file" in ran.err) == (65, True)


def test_two_copies_are_two_files(project: Path) -> None:
    ran = compose("plan", "--json-into", "a", "--markdown-into", "a", at=project)
    assert (ran.status, "is given for two formats" in ran.err) == (64, True)
    assert not (project / "a").exists()


def unknown(at: Path, name: str, *arguments: str) -> str:
    """What a plan says of a recipe with this LoRA's name."""
    (at / "recipes").mkdir(exist_ok=True)
    text = f"name: E\nconcepts: [{{name: {name}, scale: 0.5}}]\n"
    (at / "recipes/e.yaml").write_text(text, "utf-8")
    return " ".join(compose("plan", *arguments, at=at).out.split())


def test_a_name_that_nothing_has_is_told_with_the_nearest_and_where(tmp_path: Path) -> None:
    said = unknown(tmp_path, "Ink Line")
    assert "no LoRA is named Ink Line in recipes/loras (no such folder); put LoRA files" in said
    (tmp_path / "recipes/loras").mkdir()
    assert "in recipes/loras (0 LoRAs); put LoRA files there, or name their" in unknown(
        tmp_path, "X"
    )
    write_lora(tmp_path / "recipes/loras/drawings.safetensors", 1, title="Ink Lines")
    near = "no LoRA is named {} in recipes/loras (1 LoRA); did you mean {} (drawings.safetensors)?"
    assert near.format("Ink Line", "Ink Lines") in unknown(tmp_path, "Ink Line")
    assert near.format("drawing", "drawings") in unknown(tmp_path, "drawing")
    assert "(1 LoRA); `compose models` lists them" in unknown(tmp_path, "Castle")
    assert "create" in unknown(tmp_path, "drawings")


def test_a_library_that_was_given_before_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lora(tmp_path / "my loras/ink.safetensors", 1)
    other, root = tmp_path / "my loras", tmp_path / "project"
    root.mkdir()
    assert "create" in unknown(root, "ink", "--library", str(other))
    assert "an earlier run" not in unknown(root, "ink")  # that plan left no trace
    assert compose("apply", "--library", str(other), at=root).status == 0
    said = f"in recipes/loras (no such folder); an earlier run used the library {other}: --library"
    edited = root / "compose.lock"
    edited.unlink()
    assert f"{said} '{other}'" in unknown(root, "ink")
    write_lora(tmp_path / "others/dust.safetensors", 2)
    monkeypatch.setenv("COMPOSE_LIBRARY", str(tmp_path / "others"))
    assert "an earlier run" not in unknown(root, "ink")
    monkeypatch.delenv("COMPOSE_LIBRARY")
    assert f"used the library {tmp_path / 'others'}" in unknown(root, "ink")  # the last one
    shutil.rmtree(tmp_path / "others")
    assert "an earlier run" not in unknown(root, "ink")


def test_a_lock_keeps_the_meaning_of_a_name_whatever_is_added(tmp_path: Path) -> None:
    """Pins have the names of the recipe: titles, as before, and the names of files."""
    write_lora(tmp_path / "recipes/loras/one.safetensors", 1, title="Ink")
    unknown(tmp_path, "one")
    (tmp_path / "recipes/f.yaml").write_text(
        "name: F\nconcepts: [{name: Ink, scale: 1}]\n", "utf-8"
    )
    assert compose("apply", at=tmp_path).status == 0
    before = (tmp_path / "compose.lock").read_bytes()
    write_lora(tmp_path / "recipes/loras/two.safetensors", 2, title="Ink")
    write_lora(tmp_path / "recipes/loras/three.safetensors", 3, title="one")
    assert "2 recipes: 2 unchanged" in compose("plan", at=tmp_path).out
    assert compose("apply", at=tmp_path).status == 0
    assert (tmp_path / "compose.lock").read_bytes() == before
    (tmp_path / "recipes/g.yaml").write_text(
        "name: G\nconcepts: [{name: one, scale: 1}]\n", "utf-8"
    )
    said = " ".join(compose("plan", at=tmp_path).out.split())
    assert "2 LoRAs are named one: write the name or modelId of one: " in said
    assert "three (three.safetensors, model_" in said and " (one.safetensors" in said


@pytest.mark.parametrize("title", ["Ink", "ink-8"])
def test_checkpoints_of_one_title_are_told_apart_by_their_files(tmp_path: Path, title: str) -> None:
    (tmp_path / "recipes").mkdir()
    for seed in (4, 8):
        write_lora(tmp_path / f"recipes/loras/ink-{seed}.safetensors", seed, title=title)

    def planned(name: str) -> str:
        text = f"name: E\nconcepts: [{{name: {name}, scale: 0.5}}]\n"
        (tmp_path / "recipes/e.yaml").write_text(text, "utf-8")
        return compose("plan", at=tmp_path).out

    assert "create" in planned("ink-4") and "create" in planned("ink-8")
    if title == "Ink":
        file = r"\(ink-{}\.safetensors, model_[\w-]{{22}}\)"
        one, two = (f"ink-{n} {file.format(n)}" for n in (4, 8))
        said = f"2 LoRAs are named Ink: write the name or modelId of one: {one}, {two}"
        assert re.search(said, " ".join(planned("Ink").split()))
