"""`compose init` as a newcomer meets it: folders of every kind, twice, dry, and with nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from support.cli import REPO, compose, edit, samples
from support.engine_files import write_lora
from support.rights import closed

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = REPO / "recipes/loras"
RECIPE, SCHEMA, HOOKS = (
    "recipes/first-mix.yaml",
    "schemas/recipe.schema.json",
    ".pre-commit-config.yaml",
)
WRITTEN = {RECIPE, SCHEMA, HOOKS, ".gitignore", ".gitattributes"}


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """The artist's folder, outside the project."""
    return shutil.copytree(SAMPLES, tmp_path / "my loras")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mixes").mkdir()
    return tmp_path / "mixes"


def git(at: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and ".git/" not in path.as_posix())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def steps(root: Path, *arguments: str) -> dict[str, str]:
    """What became of each file, by `-o json`."""
    ran = compose("init", *arguments, "-o", "json", at=root)
    assert ran.status == 0, ran.err
    return {step["path"]: step["state"] for step in json.loads(ran.out)["steps"]}


def test_a_folder_outside_is_remembered_and_the_next_command_works(root: Path, loras: Path) -> None:
    git(root, "init", "--quiet")
    ran = compose("init", "--library", str(loras), at=root)
    assert ran.status == 0, ran.err
    assert {*files(root)} == WRITTEN
    assert f"+ created  library {loras}" in ran.out
    assert ran.err == ""  # it is the local target's folder: nothing else was to be chosen
    assert ran.out.endswith("4 LoRAs found.\nNext: compose plan\n")
    assert git(root, "config", "merge.compose.driver") == "compose lock --merge %O %A %B"
    plan = compose("plan", at=root)
    assert (plan.status, "+ create  First Mix" in plan.out) == (0, True)
    assert "library: remembered by compose init" in plan.err
    assert compose("apply", at=root).status == 0
    assert compose("validate", at=root).out == "1 recipe, no problems.\n"
    edit(root / RECIPE, "Castle Stone", "Castle Stome")
    assert "did you mean Castle Stone" in compose("validate", at=root).out


def test_the_next_command_is_about_the_same_target(
    root: Path, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With credentials in the environment, a plan without flags would ask Scenario."""
    monkeypatch.setenv("SCENARIO_SDK_JWT", "token")
    ran = compose("init", "--library", str(loras), at=root)
    assert ran.out.endswith("Next: compose plan --target local\n")
    assert compose("plan", "--target", "local", at=root).status == 0
    ran = compose("init", "--target", "local", "-o", "json", at=root)
    assert json.loads(ran.out)["next"] == "compose plan --target local"


@pytest.mark.parametrize("how", ["tracked", "lfs"])
def test_a_repository_that_commits_its_loras_doesnt_ignore_them(root: Path, how: str) -> None:
    git(root, "init", "--quiet")
    shutil.copytree(SAMPLES, root / "recipes/loras")
    if how == "lfs":
        (root / ".gitattributes").write_text("*.safetensors filter=lfs -text\n", encoding="utf-8")
    else:
        git(root, "add", "recipes/loras/ink-lines.safetensors")
    assert ".gitignore" not in steps(root)
    assert not (root / ".gitignore").exists()


def test_a_library_is_remembered_without_dots(root: Path, loras: Path) -> None:
    ran = compose("init", "--library", f"../{loras.name}", at=root)
    assert f"+ created  library {loras.resolve()}  " in ran.out


def test_it_runs_again_without_harm(root: Path, loras: Path) -> None:
    git(root, "init", "--quiet")
    compose("init", "--library", str(loras), "--workflow", "github", at=root)
    before = files(root)
    again = steps(root, "--library", str(loras), "--workflow", "github")
    assert {*again.values()} == {"kept"}
    assert files(root) == before
    ran = compose("init", at=root)
    assert "4 LoRAs found. Nothing was left to do.\n" in ran.out


def test_a_dry_run_writes_nothing(root: Path, loras: Path) -> None:
    git(root, "init", "--quiet")
    ran = compose("init", "--library", str(loras), "--dry-run", "--workflow", "gitlab", at=root)
    assert (ran.status, ran.out.splitlines()[0]) == (0, "Dry run: nothing is written.")
    assert RECIPE in ran.out
    assert files(root) == {}
    assert git(root, "config", "merge.compose.driver") == ""
    assert "4 LoRAs" not in compose("init", "--dry-run", at=root).out


@pytest.mark.parametrize("place", ["loras", "art/my loras", "recipes/loras"])
def test_a_folder_inside_goes_into_the_settings(root: Path, place: str) -> None:
    shutil.copytree(SAMPLES, root / place)
    (root / "compose.toml").write_text('# ours\nexclude = ["*.draft.yaml"]\n')
    assert steps(root, "--library", place)["compose.toml"] == "added"
    text = (root / "compose.toml").read_text()
    assert text == f'library = "{place}"\n# ours\nexclude = ["*.draft.yaml"]\n'
    assert compose("plan", at=root).status == 0
    assert steps(root, "--library", place)["compose.toml"] == "kept"
    (root / "other").mkdir()
    ran = compose("init", "--library", "other", at=root)
    assert (ran.status, f"compose.toml has the library {place}, not other" in ran.err) == (64, True)
    assert 'write library = "other" there' in ran.err


def test_a_folder_inside_counts_after_one_outside_was_remembered(root: Path, loras: Path) -> None:
    compose("init", "--library", str(loras), at=root)
    (root / "few").mkdir()
    shutil.copy(SAMPLES / "ink-lines.safetensors", root / "few")
    compose("init", "--library", "few", at=root)
    assert "1 LoRA found" in compose("init", at=root).out
    assert f"was {loras}" not in compose("init", "--library", str(loras), at=root).out


def test_what_is_there_is_kept_and_only_lines_are_added(root: Path, loras: Path) -> None:
    git(root, "init", "--quiet")
    before = {
        ".gitignore": "dist/\r\n",
        ".gitattributes": "*.psd binary",
        HOOKS: "# ours\nrepos:\n- repo: https://example.com/x\n  rev: v1\n  hooks:\n  - id: y\n",
    }
    for name, text in before.items():
        (root / name).write_bytes(text.encode())
    done = steps(root, "--library", str(loras))
    assert {name: done[name] for name in before} == dict.fromkeys(before, "added")
    after = files(root)
    assert all(after[name].startswith(text.encode()) for name, text in before.items())
    assert b"*.safetensors\r\n" in after[".gitignore"]
    assert after[".gitattributes"] == b"*.psd binary\ncompose.lock text eol=lf merge=compose\n"
    repos = yaml.safe_load(after[HOOKS])["repos"]
    assert [repo["hooks"][0]["id"] for repo in repos] == ["y", "compose-validate"]


@pytest.mark.parametrize(
    "text",
    [
        "repos: []\n",
        "repos:\n  - repo: x\n    hooks: []\nfail_fast: true\n",
        "x: [\n",
        "- a\n",
        "repos:\n  - {repo: x, hooks: []}\n",
        "a: 1\n",
        "\x00",
    ],
)
def test_hooks_that_cant_be_added_are_left_to_the_user(root: Path, loras: Path, text: str) -> None:
    (root / HOOKS).write_text(text)
    assert steps(root, "--library", str(loras))[HOOKS] == "left"
    assert (root / HOOKS).read_text() == text
    ran = compose("init", at=root)
    assert "add the hooks" in ran.out or text == "\x00"


def test_nothing_is_written_through_a_link(root: Path, loras: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ignore").write_text("mine\n")
    (root / ".gitignore").symlink_to(outside / "ignore")
    (root / ".github").symlink_to(outside)
    (root / "schemas").symlink_to(outside)
    done = steps(root, "--library", str(loras), "--workflow", "github")
    assert [done[name] for name in (".gitignore", SCHEMA)] == ["left", "left"]
    assert done[".github/workflows/compose-build.yml"] == "left"
    assert files(outside) == {"ignore": b"mine\n"}
    (root / "recipes").rename(root / "old")
    (root / "recipes").symlink_to(outside)
    assert compose("init", at=root).status == 64
    assert files(outside) == {"ignore": b"mine\n"}


# --- LoRAs of every kind -----------------------------------------------------------------


def concepts(root: Path) -> list[dict[str, object]]:
    return list(yaml.safe_load((root / RECIPE).read_text("utf-8"))["concepts"])


def test_without_loras_it_says_where_to_put_them(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = compose("init", "--library", str(tmp_path / "empty"), at=root)
    assert ran.status == 0
    assert f"! by hand  {RECIPE}" in ran.out
    assert f"Next: put LoRA files (.safetensors) into {tmp_path}/empty, then run" in ran.out
    assert RECIPE not in files(root)
    shutil.copy(SAMPLES / "ink-lines.safetensors", tmp_path / "empty")
    assert steps(root)[RECIPE] == "created"
    assert concepts(root) == [{"name": "Ink Lines", "scale": 0.8}]


@pytest.mark.parametrize(
    ("folder", "named"), [(".", "."), ("my loras", "'my loras'"), ("sub", "sub")]
)
def test_loras_in_another_folder_are_pointed_to(root: Path, folder: str, named: str) -> None:
    (root / folder).mkdir(exist_ok=True)
    shutil.copy(SAMPLES / "ink-lines.safetensors", root / folder)
    ran = compose("init", at=root)
    assert ran.out.endswith(f"0 LoRAs found.\nNext: compose init --library {named}\n")
    assert "Nothing was left" not in compose("init", at=root).out
    assert steps(root, "--library", folder)[RECIPE] == "created"


def test_two_hundred_loras(root: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for n in range(200):
        write_lora(tmp_path / f"many/lora {n:03}.safetensors", seed=n)
    ran = compose("init", "--library", str(tmp_path / "many"), at=root)
    assert (ran.status, "200 LoRAs found." in ran.out) == (0, True)
    assert [one["name"] for one in concepts(root)] == ["lora 000", "lora 001"]
    text = (root / RECIPE).read_text()
    assert "#   and 158 more: compose models lists them\n" in text
    assert compose("plan", at=root).status == 0


def test_names_that_collide_and_names_that_a_recipe_cant_have(root: Path, tmp_path: Path) -> None:
    names = ["run/a.safetensors", "run/b.safetensors", "x/ink.safetensors", "y/ink.safetensors"]
    for n, name in enumerate(names):
        (tmp_path / "many" / name).parent.mkdir(parents=True, exist_ok=True)
        write_lora(tmp_path / "many" / name, seed=n, title="One Title" if n < 2 else None)
    write_lora(tmp_path / "many/c.safetensors", seed=9, title=" ../" + "n" * 200)
    ran = compose("init", "--library", str(tmp_path / "many"), at=root)
    assert ran.status == 0
    assert compose("validate", at=root).status == 0
    plan = compose("plan", at=root)
    assert (plan.status, "1 to create" in plan.out) == (0, True), plan.out


def test_unusable_files_are_named(root: Path, loras: Path) -> None:
    for n in range(7):
        (loras / f"bad{n}.safetensors").write_bytes(b"cut off")
    (loras / "old.pt").touch()
    ran = compose("init", "--library", str(loras), at=root)
    assert (ran.status, ran.out.count("not usable: ")) == (0, 6)
    assert "not usable: 3 more" in ran.out
    assert "4 LoRAs found" in ran.out


def test_recipes_that_are_there_are_enough(tmp_path: Path) -> None:
    root = samples(tmp_path)
    before = files(root)
    assert steps(root)["recipes/"] == "kept"
    assert {name: text for name, text in files(root).items() if name in before} == before
    assert RECIPE not in files(root)


# --- places ------------------------------------------------------------------------------


def test_a_folder_that_cant_be_written(root: Path, loras: Path) -> None:
    with closed(root, 0o555):
        ran = compose("init", "--library", str(loras), at=root)
    assert (ran.status, "can't be written: Permission denied" in ran.err) == (1, True)
    assert files(root) == {}


def test_a_file_with_the_name_of_the_recipes_folder(root: Path, loras: Path) -> None:
    (root / "recipes").write_text("mine\n")
    ran = compose("init", "--library", str(loras), at=root)
    assert (ran.status, "recipes is a file" in ran.err, "rename" in ran.err) == (64, True, True)
    assert {*files(root)} == {"recipes"}


def test_the_home_directory_is_no_project(
    root: Path, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.setenv("USERPROFILE", str(root))
    ran = compose("init", "--library", str(loras), at=root)
    assert (ran.status, "is not a folder for a project" in ran.err) == (64, True)
    assert files(root) == {}


def test_below_the_root_of_a_repository_it_writes_to_the_root(root: Path, loras: Path) -> None:
    git(root, "init", "--quiet")
    (root / "art").mkdir()
    assert f"Project: {root}\n" in compose("init", "--library", str(loras), at=root / "art").out
    assert {*files(root)} == WRITTEN


@pytest.mark.parametrize("how", ["variable", "home"])
def test_comfyuis_folder(
    root: Path, loras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    home = tmp_path / "home"
    at = tmp_path / "c" if how == "variable" else home / "ComfyUI"
    (at / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    if how == "variable":
        monkeypatch.setenv("COMFYUI_PATH", str(at))
    ran = compose("init", "--from", "comfyui", at=root)
    assert (ran.status, f"no ComfyUI with models/loras/ in {at}" in ran.err) == (64, True)
    loras.rename(at / "models/loras")
    ran = compose("init", "--from", "comfyui", at=root)
    assert (ran.status, "4 LoRAs found" in ran.out) == (0, True), ran
    assert f"library {at}/models/loras" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--library", "nowhere"],
        ["--library", ""],
        ["--library", "s3://bucket/loras"],
        ["--library", "x", "--from", "comfyui"],
        ["--from", "x"],
    ],
    ids=" ".join,
)
def test_misuse(root: Path, arguments: list[str]) -> None:
    assert compose("init", *arguments, at=root).status == 64
    assert files(root) == {}


@pytest.mark.parametrize("forge", ["github", "gitlab"])
def test_workflows(root: Path, loras: Path, forge: str) -> None:
    done = steps(root, "--library", str(loras), "--workflow", forge)
    written = {name for name in done if "workflows/" in name or name == ".gitlab-ci.yml"}
    assert len(written) == 1
    for name in written:
        source = name.rpartition("compose-")[2].removeprefix(".")
        folder = "docs/workflows" if forge == "github" else "docs"
        assert (root / name).read_text() == (REPO / folder / source).read_text()
        assert done[name] == "created"


def test_a_pipeline_that_is_there_is_left(root: Path, loras: Path) -> None:
    (root / ".gitlab-ci.yml").write_text("build: {script: make}\n")
    done = steps(root, "--library", str(loras), "--workflow", "gitlab")
    assert done[".gitlab-ci.yml"] == "left"
    assert (root / ".gitlab-ci.yml").read_text() == "build: {script: make}\n"


def test_every_error_without_recipes_names_it(root: Path) -> None:
    for command in ("plan", "apply", "status", "output", "validate"):
        ran = compose(*command.split(), at=root)
        assert (ran.status, "compose init" in ran.err) == (64, True), ran
    (root / "recipes").mkdir()
    for command in ("plan", "validate", "pull -o x/"):
        ran = compose(*command.split(), at=root)
        assert "compose init" in ran.err + ran.out, ran


def test_hooks_run(root: Path, loras: Path) -> None:
    """The entries are commands that work where they stand."""
    git(root, "init", "--quiet")
    compose("init", "--library", str(loras), at=root)
    (repo,) = yaml.safe_load((root / HOOKS).read_text())["repos"]
    validate, lock = (hook["entry"].split()[1:] for hook in repo["hooks"])
    assert compose(*validate, RECIPE, at=root).status == 0
    assert compose(*lock, at=root).status == 3  # no pin yet
    assert compose("lock", at=root).status == 0
    assert compose(*lock, at=root).status == 0
    assert os.path.isfile(root / "compose.lock")
