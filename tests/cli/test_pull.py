"""`compose pull`: results where the user wants them, at no cost where the file system can."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from support.cli import Ran, compose, edit, samples, snapshot
from support.state import copy_project, state_of

from composer.files.delivery import UNCHANGED, copy, hard_link
from composer.lock import read_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROGUE, KNIGHT = "recipes/pixel-rogue.yaml", "recipes/storybook-knight.yaml"
FILES = [
    "castle-keep.safetensors",
    "pixel-rogue.safetensors",
    "storybook-knight.safetensors",
    "tutorial-slime.safetensors",
]


@pytest.fixture(scope="module")
def _applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = samples(tmp_path_factory.mktemp("pull") / "project")
    assert compose("apply", at=root).status == 0
    return root


@pytest.fixture
def project(tmp_path: Path, _applied: Path) -> Path:
    return copy_project(_applied, tmp_path / "project")


def pull(project: Path, *arguments: str) -> Ran:
    return compose("pull", *arguments, at=project)


def result(project: Path, path: str) -> Path:
    """The engine's own file for a recipe."""
    id = read_lock(project).target("local").recipes[path].composition
    return state_of(project) / "models" / f"{id}.safetensors"


# --- where to ----------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [ROGUE, "Pixel Rogue"])
def test_one_to_a_file(project: Path, recipe: str) -> None:
    ran = pull(project, recipe, "-o", "rogue.safetensors")
    how = ran.out[ran.out.index("(") + 1 : ran.out.index(")")]
    assert (ran.status, ran.out) == (0, f"pulled  Pixel Rogue  rogue.safetensors ({how})\n")
    assert how in ("reflink", "hard link", "copy")
    out, own = project / "rogue.safetensors", result(project, ROGUE)
    assert out.read_bytes() == own.read_bytes()
    assert os.path.samefile(out, own) is (how == "hard link")


def test_all_into_a_folder_that_is_made(project: Path) -> None:
    ran = pull(project, "-o", "dist/models/")
    assert ran.status == 0
    assert sorted(path.name for path in (project / "dist/models").iterdir()) == FILES
    out = project / "dist/models" / FILES[1]
    assert out.read_bytes() == result(project, ROGUE).read_bytes()


def test_some_into_a_folder_that_is_there(project: Path) -> None:
    (project / "dist").mkdir()
    assert pull(project, KNIGHT, "Pixel Rogue", KNIGHT, "-o", "dist").status == 0
    assert sorted(path.name for path in (project / "dist").iterdir()) == FILES[1:3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Pixel Rogue", "-o", "json"), "json does not exist"),
        (("Pixel Rogue", "-o", "x.txt"), "x.txt is neither a folder nor a .safetensors file"),
        (("-o", "x.ckpt"), "name a folder, and end it with / to create it"),
        (("-o", "compose.lock"), "compose.lock is neither a folder nor a .safetensors file"),
        (("-o", "dist"), "end the path with / to create it"),
        (("-o", "all.safetensors"), "4 recipes can't go to one file, all.safetensors"),
        (("Pixel Rouge", "-o", "x.safetensors"), "did you mean Pixel Rogue?"),
        (("Pixel Rogue",), "--out'"),
    ],
    ids=str,
)
def test_what_cant_be_meant(project: Path, arguments: tuple[str, ...], said: str) -> None:
    before = snapshot(project)
    ran = pull(project, *arguments)
    assert (ran.status, said in ran.err) == (64, True), ran.err
    assert snapshot(project) == before


def test_two_of_one_file_name_are_refused(project: Path) -> None:
    edit(project / KNIGHT, "name: Storybook Knight", "name: Pixel-Rogue!")
    assert compose("apply", at=project).status == 0
    ran = pull(project, "-o", "dist/")
    assert (ran.status, "would both be pixel-rogue.safetensors" in ran.err) == (64, True)
    assert pull(project, KNIGHT, "-o", "knight.safetensors").status == 0


# --- again -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [hard_link, copy])
def test_what_is_there_already_is_left_alone(
    project: Path, way: Callable[[Path, Path], str]
) -> None:
    out = project / "rogue.safetensors"
    way(result(project, ROGUE), out)
    before = snapshot(project)
    (project / "dist").mkdir()
    for flags in ((), ("--force",), ("--dry-run",)):
        ran = pull(project, "Pixel Rogue", "-o", "rogue.safetensors", *flags)
        first = "Dry run: nothing is written.\n" if "--dry-run" in flags else ""
        assert ran.out == f"{first}kept  Pixel Rogue  rogue.safetensors ({UNCHANGED})\n"
        assert ran.status == 0
    assert snapshot(project) == before


def test_other_bytes_are_replaced_with_force_alone(project: Path) -> None:
    """And never written through: what was pulled may be another name of the engine's own file."""
    assert pull(project, KNIGHT, "-o", "k.safetensors").status == 0
    knight = result(project, KNIGHT).read_bytes()
    before = snapshot(project)
    ran = pull(project, ROGUE, "-o", "k.safetensors")
    assert (ran.status, "--force replaces it" in ran.out) == (3, True)
    assert snapshot(project) == before
    assert pull(project, ROGUE, "-o", "k.safetensors", "--force").status == 0
    assert (project / "k.safetensors").read_bytes() == result(project, ROGUE).read_bytes()
    assert result(project, KNIGHT).read_bytes() == knight
    assert [path.name for path in project.iterdir() if path.suffix == ".tmp"] == []


def test_one_that_cant_be_pulled_doesnt_stop_the_others(project: Path) -> None:
    (project / "dist").mkdir()
    (project / "dist" / FILES[0]).write_bytes(b"other")
    (project / "dist" / FILES[1]).mkdir()
    ran = pull(project, "-o", "dist")
    assert ran.status == 3
    assert [line.split()[0] for line in ran.out.splitlines()] == ["not", "not", "pulled", "pulled"]
    assert (project / "dist" / FILES[0]).read_bytes() == b"other"


def test_a_lora_of_the_library_is_never_replaced(project: Path) -> None:
    before = snapshot(project)
    out = "recipes/loras/ink-lines.safetensors"
    ran = pull(project, ROGUE, "-o", out, "--force")
    assert (ran.status, f"{out} is a LoRA of the library" in ran.out) == (1, True), ran.out
    assert snapshot(project) == before


def _set_scale(project: Path, scale: str) -> None:
    text = (project / ROGUE).read_text(encoding="utf-8")
    changed = re.sub(r"(name: Pixel Dust\n +scale: )\S+", rf"\g<1>{scale}", text)
    (project / ROGUE).write_text(changed, encoding="utf-8")


def test_the_librarys_own_folder_takes_every_new_result(project: Path) -> None:
    """As ComfyUI's folder of LoRAs does: what is replaced is a result of the same recipe."""
    out = project / "recipes/loras/pixel-rogue.safetensors"
    for scale, states in (("0.6", "pulled kept"), ("0.7", "pulled kept"), ("0.6", "pulled kept")):
        _set_scale(project, scale)
        assert compose("apply", at=project).status == 0
        told = [pull(project, ROGUE, "-o", "recipes/loras").out.split()[0] for _ in "ab"]
        assert told == states.split()
        assert out.read_bytes() == result(project, ROGUE).read_bytes()
    models = compose("models", "recipes/loras", at=project).out
    assert " pixel-rogue " in models  # not the id of the result, which is its title


def test_a_result_of_another_recipe_in_the_library_needs_force(project: Path) -> None:
    out = project / "recipes/loras/rogue.safetensors"
    copy(result(project, KNIGHT), out)
    ran = pull(project, ROGUE, "-o", str(out))
    assert (ran.status, "already exists (--force replaces it)" in ran.out) == (3, True), ran.out
    assert pull(project, ROGUE, "-o", str(out), "--force").out.startswith("pulled")
    assert out.read_bytes() == result(project, ROGUE).read_bytes()


def test_a_dry_run_writes_nothing(project: Path) -> None:
    before = snapshot(project)
    ran = pull(project, "-o", "dist/", "--dry-run")
    assert (ran.status, ran.out.count("(dry run)")) == (0, 4)
    assert (snapshot(project), (project / "dist").exists()) == (before, False)


# --- where a program looks for LoRAs -----------------------------------------------------


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ComfyUI; the home directory has none."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "ComfyUI/models/loras").mkdir(parents=True)
    return tmp_path / "ComfyUI"


@pytest.mark.parametrize("named", ["", "models", "models/loras"])
def test_to_the_comfyui_that_the_variable_names(
    project: Path, comfyui: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui / named))
    out = comfyui / "models/loras/pixel-rogue.safetensors"
    ran = pull(project, "Pixel Rogue", "--to", "comfyui", "--dry-run")
    assert (ran.status, out.exists(), f"{out} (dry run)" in ran.out) == (0, False, True)
    assert pull(project, "Pixel Rogue", "--to", "comfyui").status == 0
    assert out.read_bytes() == result(project, ROGUE).read_bytes()
    shown = compose("output", "Pixel Rogue", "--usage", "comfyui", at=project).out
    assert f'"lora_name": "{out.name}"' in shown and "--to comfyui" in shown


@pytest.mark.parametrize("how", ["flag", "variable", "remembered", "below", "settings"])
def test_to_the_folder_of_comfyui_that_the_library_is_in(
    project: Path, comfyui: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    loras = (project if how == "settings" else comfyui) / "models/loras"
    library = loras / "flux" if how == "below" else loras
    shutil.copytree(project / "recipes/loras", library, dirs_exist_ok=True)
    flags = ("--library", str(library)) if how in ("flag", "below") else ()
    if how == "variable":
        monkeypatch.setenv("COMPOSE_LIBRARY", str(library))
    if how == "remembered":
        assert compose("init", "--library", str(library), at=project).status == 0
    if how == "settings":
        (project / "compose.toml").write_text('library = "models/loras"\n')
    ran = pull(project, "--to", "comfyui", *flags)
    assert ran.status == 0, ran
    assert {path.name for path in loras.glob("*.safetensors")} >= set(FILES)


def test_what_was_pulled_into_the_library_is_pulled_again(project: Path, comfyui: Path) -> None:
    library = comfyui / "models/loras"
    shutil.copytree(project / "recipes/loras", library, dirs_exist_ok=True)
    to = ("--to", "comfyui", "--library", str(library))
    assert pull(project, *to).status == 0
    ran = pull(project, *to)
    assert (ran.status, ran.out.count(f"({UNCHANGED})")) == (0, 4), ran
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", "--library", str(library), at=project).status == 0
    assert compose("prune", "--yes", "--library", str(library), at=project).status == 0
    out = library / FILES[1]
    before = out.read_bytes()
    ran = pull(project, ROGUE, *to)
    assert (ran.status, "--force replaces it" in ran.out, out.read_bytes()) == (3, True, before)
    assert pull(project, ROGUE, *to, "--force").status == 0
    assert out.read_bytes() == result(project, ROGUE).read_bytes() != before


@pytest.mark.parametrize("kind", ["trained", "merged", "broken"])
def test_no_other_lora_of_the_library_is_replaced(project: Path, comfyui: Path, kind: str) -> None:
    library = comfyui / "models/loras"
    shutil.copytree(project / "recipes/loras", library, dirs_exist_ok=True)
    out, ink = library / FILES[1], library / "ink-lines.safetensors"
    if kind == "merged":  # it has compose's metadata, and a title of its own
        assert compose("merge", str(ink), "-o", str(out), at=project).status == 0
    else:
        out.write_bytes(ink.read_bytes() if kind == "trained" else b"no safetensors file")
    before = out.read_bytes()
    ran = pull(project, ROGUE, "--to", "comfyui", "--library", str(library), "--force")
    assert (ran.status, "is a LoRA of the library" in ran.out) == (1, True), ran
    assert out.read_bytes() == before


@pytest.mark.parametrize("named", [True, False])
def test_no_comfyui_is_found(
    project: Path, comfyui: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    home = comfyui.parent / "home"
    if named:
        monkeypatch.setenv("COMFYUI_PATH", str(home))
    ran = pull(project, "--to", "comfyui")
    assert (ran.status, f"no ComfyUI with models/loras/ in {home}" in ran.err) == (64, True)
    assert "set COMFYUI_PATH to the folder of ComfyUI, or name a folder with -o" in ran.err
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    both = pull(project, "--to", "comfyui", "-o", "dist/")
    assert (both.status, "-o can't be used with --to" in both.err) == (64, True)
    assert pull(project, "--to", "a1111").status == 64
    assert not list((comfyui / "models/loras").iterdir())


def test_a_link_of_the_project_leads_nowhere_else(project: Path, comfyui: Path) -> None:
    (project / "models").mkdir()
    os.symlink(comfyui / "models/loras", project / "models/loras")
    ran = pull(project, "--to", "comfyui", "--library", "models/loras")
    assert (ran.status, "leads out" in ran.err + ran.out) == (64, True), ran
    assert not list((comfyui / "models/loras").iterdir())


# --- what there is nothing of ------------------------------------------------------------


def test_before_the_first_apply(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    ran = pull(project, "-o", "dist/")
    assert (ran.status, ran.out.count("it has no model yet (run compose apply)")) == (1, 4)


def test_on_another_machine(project: Path) -> None:
    shutil.rmtree(state_of(project))
    ran = pull(project, "Pixel Rogue", "-o", "x.safetensors")
    assert (ran.status, "is not on this machine (run compose apply to create it)" in ran.out) == (
        1,
        True,
    )
    assert not (state_of(project)).exists()


def test_a_result_that_was_lost(project: Path) -> None:
    result(project, ROGUE).unlink()
    ran = pull(project, "Pixel Rogue", "-o", "x.safetensors")
    lost = "(Pixel Rogue): its stored result is missing (run `compose apply`)"
    assert (ran.status, lost in ran.out) == (1, True)


def test_while_it_trains(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    old = result(project, ROGUE).read_bytes()
    assert compose("apply", "--no-wait", at=project).status == 75
    ran = pull(project, "Pixel Rogue", "-o", "x.safetensors")
    assert (ran.status, "a newer one is on its way" in ran.out) == (0, True)
    assert (project / "x.safetensors").read_bytes() == old

    recipe = project / "recipes" / "new.yaml"
    recipe.write_text("name: New\nconcepts:\n  - name: Ink Lines\n    scale: 0.5\n")
    assert compose("apply", "--no-wait", at=project).status == 75
    ran = pull(project, "New", "-o", "y.safetensors")
    if ran.status != 0:  # composing tiny files may be quicker than we are
        assert ran.out == "training  New  compose apply waits for it\n"
        assert ran.status == 75
        assert not (project / "y.safetensors").exists()


def test_another_target_is_refused_in_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENARIO_SDK_JWT", "token")
    ran = pull(project, "-o", "dist/", "--target", "http://127.0.0.1:9/v1")
    assert (ran.status, "works with the local target only" in ran.err) == (64, True)


# --- a pulled file that was edited, as the hard link that it may be ----------------------


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(b"mine"), "its stored result was changed"),
        (lambda file: os.truncate(file, file.stat().st_size - 1), "its stored result was changed"),
        (lambda file: file.unlink(), "its stored result is missing"),
    ],
)
def test_a_stored_result_that_is_not_what_was_made_is_said_and_made_again(
    project: Path, spoil: Callable[[Path], None], words: str
) -> None:
    stored = result(project, ROGUE)
    right = stored.read_bytes()
    hard_link(stored, project / "rogue.safetensors")
    spoil(stored if "missing" in words else project / "rogue.safetensors")
    shown = compose("status", at=project).out
    assert words in shown and "created but not trained" not in shown
    again = pull(project, "Pixel Rogue", "-o", "other.safetensors")
    assert (again.status, f"(Pixel Rogue): {words}" in again.out) == (1, True)
    found = compose("doctor", at=project)
    if "changed" in words:
        assert f"the stored result of {stored.stem} (Pixel Rogue) was changed" in found.out
        assert found.status == 1
    assert compose("apply", at=project).status == 0
    assert stored.read_bytes() == right
    assert not os.path.samefile(stored, project / "rogue.safetensors")
    assert compose("doctor", at=project).status == 0


def test_doctor_finds_a_stored_result_that_was_written_to_at_the_same_size(project: Path) -> None:
    assert compose("doctor", at=project).status == 0
    stored = result(project, ROGUE)
    with stored.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"mine")
    later = stored.stat().st_mtime + 3
    os.utime(stored, (later, later))
    found = compose("doctor", at=project)
    assert f"the stored result of {stored.stem} (Pixel Rogue) was written to later" in found.out
    assert found.status == 1 and "delete it from models/" in found.out
    stored.unlink()
    assert compose("apply", at=project).status == 0
    assert compose("doctor", at=project).status == 0
