"""A merge that is kept as a recipe: applying it gives the same tensors, and nothing is guessed."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.cli import Ran, compose, samples, snapshot
from support.engine_files import write_lora, write_peft, write_t5
from support.state import state_of

from composer import Project, Refused, UsageError, open_target
from composer.lock import read_lock
from composer.lora import merge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INK, DUST = "recipes/loras/ink-lines.safetensors", "recipes/loras/pixel-dust.safetensors"
BOTH = "recipes/both.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


def merged(root: Path, *arguments: str, recipe: str = BOTH) -> Ran:
    return compose("merge", *arguments, "-o", "both.safetensors", "--save-recipe", recipe, at=root)


def applied(root: Path, recipe: str = BOTH) -> dict[str, Any]:
    """The tensors that the local target makes of the recipe."""
    ran = compose("apply", recipe, at=root)
    assert ran.status == 0, ran
    id = read_lock(root).target("local").recipes[recipe].composition
    return load_file(state_of(root) / "models" / f"{id}.safetensors")


@pytest.mark.parametrize(
    ("words", "flags", "said"),
    [
        ((f"{DUST}:0.8", f"{INK}:0.65"), (), "scale: 0.65"),
        ((f"{DUST}:0.8", f"{INK}:-0.5"), (), "scaleRange: extended"),
        ((INK, f"{DUST}:1.75"), ("--rank", "2"), "    rank: 2\n"),
        ((INK, DUST), ("--precision", "float16", "--rank", "3"), "    precision: float16\n"),
    ],
    ids=str,
)
def test_applying_the_recipe_gives_the_same_tensors(
    root: Path, words: tuple[str, ...], flags: tuple[str, ...], said: str
) -> None:
    ran = merged(root, *words, *flags)
    assert (ran.status, ran.out.endswith(f"saved {BOTH}: both\n")) == (0, True), ran
    text = (root / BOTH).read_text("utf-8")
    assert said in text and "name: Ink Lines\n" in text and "modelId" not in text
    assert ("scaleRange" in text) == any(word in str(words) for word in ("-0.5", "1.75"))
    ours, theirs = load_file(root / "both.safetensors"), applied(root)
    assert ours.keys() == theirs.keys()
    assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)
    assert all(ours[key].dtype == theirs[key].dtype for key in ours)


def test_what_a_program_and_a_dry_run_are_told(root: Path) -> None:
    before = snapshot(root)
    ran = merged(root, INK, DUST, "--dry-run")
    assert ran.out.splitlines()[-1] == f"would save {BOTH}: both"
    assert (ran.status, snapshot(root)) == (0, before)
    assert merged(root, INK, DUST, "--json-into", "r.json").status == 0
    assert json.loads((root / "r.json").read_text("utf-8"))["recipe"] == BOTH


def test_a_lora_without_a_name_of_its_own_is_named_by_its_id(root: Path) -> None:
    loras = root / "recipes/loras"
    write_peft(loras / "a", 1, rank=2)
    for n in (2, 3):
        write_lora(loras / f"x/{n}/same.safetensors", n, title="Same")
    write_lora(loras / "url.safetensors", 4, title="http://host/path")
    files = ("a/adapter_model", "x/2/same", "url")
    ran = merged(root, *(f"{loras}/{file}.safetensors:0.5" for file in files))
    assert ran.status == 0, ran
    assert len(applied(root)) == len(load_file(root / "both.safetensors"))


def test_the_same_bytes_elsewhere_are_the_librarys_lora(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / INK, tmp_path / "mine.safetensors")
    assert merged(root, str(tmp_path / "mine.safetensors")).status == 0
    assert "name: Ink Lines\n" in (root / BOTH).read_text("utf-8")


# --- an existing recipe ------------------------------------------------------------------


def test_force_gives_a_recipe_other_loras_and_keeps_the_rest(root: Path) -> None:
    rogue = root / "recipes/pixel-rogue.yaml"
    rogue.write_text(rogue.read_text("utf-8") + "\nprotect: true\n", "utf-8")
    before = snapshot(root)
    ran = merged(root, f"{INK}:0.25", recipe="recipes/pixel-rogue.yaml")
    assert (ran.status, "already exists\n  --force replaces it" in ran.err) == (3, True)
    assert snapshot(root) == before
    old = next(one for one in Project(root).recipes if one.path == "recipes/pixel-rogue.yaml")
    ran = merged(root, f"{INK}:0.25", "--force", recipe="recipes/pixel-rogue.yaml")
    assert (ran.status, ran.out.endswith("pixel-rogue.yaml: Pixel Rogue\n")) == (0, True), ran
    new = next(one for one in Project(root).recipes if one.path == old.path)
    assert [(one.label, one.scale) for one in new.concepts] == [("Ink Lines", 0.25)]
    assert (new.name, new.texts, new.tags, new.protect) == (old.name, old.texts, old.tags, True)


# --- what it refuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "recipe", "said"),
    [
        ((INK, "other.safetensors"), BOTH, "not in the library recipes/loras: other.safetensors\n"),
        ((INK, "other.safetensors"), BOTH, "set COMPOSE_LIBRARY to the folder that has them"),
        ((f"{INK}:0.12345",), BOTH, "the scale 0.12345 has more than 4 decimals"),
        ((INK, "--rank", "1"), BOTH, "can't be saved as a recipe: a recipe can't describe it"),
        ((f"{INK}:0.4..1/0.2",), BOTH, "--save-recipe is for one merge, not for 4"),
        ((INK,), "both.yaml/", "is a folder"),
        ((INK,), "recipes/both.txt", "both.txt is not a recipe's file name\n  end it with .yaml"),
        ((INK,), "../both.yaml", "../both.yaml is not in the project"),
        ((INK,), "recipes/.both.yaml", "is hidden"),
        ((INK,), "recipes/Pixel-Rogue.yaml", "differ only in case"),
        ((INK,), "recipes/tutorial/Castle Keep.yaml", "another recipe is named Castle Keep: "),
        ((INK,), "recipes/skipped/a.yaml", "is excluded by compose.toml"),
        ((INK,), "out/both.yaml", "leads out"),
    ],
    ids=str,
)
def test_refusals_come_before_anything_is_written(
    root: Path, tmp_path: Path, words: tuple[str, ...], recipe: str, said: str
) -> None:
    write_lora(root / "other.safetensors", 9)
    (root / "both.yaml").mkdir()
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", root / "out")
    (root / "compose.toml").write_text('exclude = ["recipes/skipped/*"]\n', "utf-8")
    before = snapshot(root)
    out = "both/" if ".." in words[0] else "both.safetensors"
    ran = compose("merge", *words, "-o", out, "--save-recipe", recipe, at=root)
    assert (ran.status, said in ran.err) == (64, True), ran.err
    assert snapshot(root) == before and not list((tmp_path / "elsewhere").iterdir())


def test_a_lora_that_a_recipe_cant_have_is_told_with_the_reason(root: Path) -> None:
    path = write_t5(root / "recipes/loras/wordy.safetensors")
    ran = merged(root, str(path), "--format", "kohya")
    assert (ran.status, "wordy.safetensors (wordy.safetensors" in ran.err) == (64, True), ran.err
    assert "T5" in ran.err and not (root / BOTH).exists()


def test_a_lora_without_its_text_encoder_is_no_lora_of_the_library(root: Path) -> None:
    tensors = load_file(write_lora(root / "plain.safetensors", 1))
    stem = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    tensors[f"{stem}.lora_A.weight"] = np.full((1, 768), 0.5, np.float32)
    tensors[f"{stem}.lora_B.weight"] = np.full((3072, 1), 0.5, np.float32)
    path = root / "recipes/loras/clip.safetensors"
    save_file(tensors, path)
    ran = merged(root, str(path), "--skip-text-encoder")
    said = "was merged without its text encoder's 2 tensors, and a recipe composes LoRAs whole"
    assert (ran.status, said in ran.err) == (64, True), ran
    assert not (root / BOTH).exists() and not (root / "both.safetensors").exists()
    assert merged(root, str(path)).status == 0


# --- the Python API ----------------------------------------------------------------------


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(root)
    yield Project(root)


def test_a_merge_that_was_made_or_planned_is_saved(project: Project) -> None:
    with open_target("local", project, env={}, run_jobs=False) as target:
        planned = merge({INK: 1, DUST: 0.5}, "both.safetensors", rank=4, dry_run=True)
        recipe = project.save_recipe(target, planned, BOTH)
        with pytest.raises(Refused):
            project.save_recipe(target, planned, BOTH)
        done = merge({INK: 1, DUST: 0.5}, "both.safetensors", rank=4)
        assert project.save_recipe(target, done, BOTH, force=True) == recipe
        large = merge({INK: 3.0}, "three.safetensors", dry_run=True)
        with pytest.raises(UsageError, match="can't describe it"):
            project.save_recipe(target, large, "recipes/three.yaml")
    assert dict(recipe.training) == {"rank": 4}
    assert recipe in Project(project.root).recipes
