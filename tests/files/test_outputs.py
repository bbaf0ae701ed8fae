"""The files that commands write for the user: whole, and never through a planted link."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples
from support.state import copy_project

from composer.files import atomic

if TYPE_CHECKING:
    from pathlib import Path

INK, DUST = (f"recipes/loras/{name}.safetensors" for name in ("ink-lines", "pixel-dust"))
# Each command that writes a file where the user says, with that file last.
WEIGHTS = {
    "merge": ("merge", INK, DUST, "-o", "out/both.safetensors"),
    "pull": ("pull", "Pixel Rogue", "-o", "out/both.safetensors"),
}
RECIPE = ("merge", INK, DUST, "-o", "both.safetensors", "--save-recipe", "out/both.yaml")
TEXTS = {
    "report": ("merge", INK, DUST, "-o", "both.safetensors", "--json-into", "out/report.json"),
    "page": ("inspect", INK, "--html", "out/page.html"),
    "json": ("plan", "--json-into", "out/plan.json"),
    "markdown": ("plan", "--markdown-into", "out/plan.md"),
    "summary": ("plan", "--summary-into", "out/summary.md"),
}
ALL = {**WEIGHTS, **TEXTS, "recipe": RECIPE}

every_output = pytest.mark.parametrize("command", ALL.values(), ids=ALL)


@pytest.fixture(scope="module")
def _applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = samples(tmp_path_factory.mktemp("outputs") / "project")
    assert compose("apply", at=root).status == 0
    return root


@pytest.fixture
def project(tmp_path: Path, _applied: Path) -> Path:
    """A project with a folder `out`, in a folder with a `precious` file."""
    (tmp_path / "precious").write_text("my key", encoding="utf-8")
    project = copy_project(_applied, tmp_path / "project")
    (project / "out").mkdir()
    return project


def is_unharmed(project: Path) -> bool:
    names = sorted(path.name for path in project.parent.iterdir())
    precious = (project.parent / "precious").read_text(encoding="utf-8")
    return (precious, names) == ("my key", ["precious", "project"])


@every_output
def test_a_write_leaves_one_whole_file(project: Path, command: tuple[str, ...]) -> None:
    ran = compose(*command, at=project)
    assert ran.status == 0, ran
    assert [*(project / "out").iterdir()] == [project / command[-1]]
    assert (project / command[-1]).stat().st_size


@every_output
def test_a_link_that_has_the_temporary_name_is_not_followed(
    project: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can guess the name; this test does."""
    monkeypatch.setattr(atomic, "unguessable", lambda: "guessed")
    name = (project / command[-1]).name
    (project / f"out/.{name}.guessed.compose.tmp").symlink_to("../../precious")
    ran = compose(*command, at=project)
    assert ran.status == 1 and "can't be written: File exists" in ran.out + ran.err, ran
    assert is_unharmed(project) and not (project / command[-1]).exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="Windows can't open without following")
@pytest.mark.parametrize(
    ("moment", "target"), [("created", "../../absent"), ("written", "../../precious")]
)
@every_output
def test_a_link_that_takes_the_place_of_the_temporary_file_is_not_followed(
    project: Path,
    command: tuple[str, ...],
    moment: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder may be one that somebody else can write to."""
    swapped = []

    def swap(path: Path) -> None:
        if path.parent.name == "out" and not swapped:
            path.unlink()
            path.symlink_to(target)
            swapped.append(path)

    def create(path: Path, *, mode: int = 0o666) -> int:
        descriptor = was_create(path, mode=mode)
        swap(path)
        return descriptor

    def sync(path: Path) -> None:
        swap(path)
        was_sync(path)

    was_create, was_sync = atomic.create, atomic.sync_file
    if moment == "created":
        monkeypatch.setattr(atomic, "create", create)
    else:
        monkeypatch.setattr(atomic, "sync_file", sync)
    ran = compose(*command, at=project)
    assert swapped and is_unharmed(project), ran
    assert ran.status == 1 or (moment == "created" and command[0] == "pull")
    assert not (project / command[-1]).is_symlink() and not swapped[0].is_symlink()


@every_output
def test_links_of_guessable_names_are_in_nobodys_way(
    project: Path, command: tuple[str, ...]
) -> None:
    """Temporary names once were made of the process id."""
    out, here = (project / command[-1]).name, os.getpid()
    for process in range(here - 20, here + 20):
        for name in (f".{out}.{process}.compose.tmp", f"{out}.{process}.tmp"):
            (project / "out" / name).symlink_to("../../precious")
    ran = compose(*command, at=project)
    assert (ran.status, is_unharmed(project)) == (0, True), ran
    assert (project / command[-1]).is_file()


@every_output
def test_a_folder_that_is_a_link_out_of_the_project_is_refused(
    project: Path, command: tuple[str, ...]
) -> None:
    (project / "out").rmdir()
    (project / "out").symlink_to("..")
    ran = compose(*command, at=project)
    assert ran.status == (1 if command[0] == "pull" else 64)
    assert "leads out of" in ran.out + ran.err, ran
    assert is_unharmed(project)


@pytest.mark.parametrize("out", ["../out/a", "../recipes/../out/a", "link/../a", "../link/out/a"])
@pytest.mark.parametrize("kind", ["weights", "page"])
def test_a_link_out_of_the_project_is_refused_from_a_folder_in_it(
    project: Path, tmp_path: Path, out: str, kind: str
) -> None:
    (project / "out").rmdir()
    (project / "out").symlink_to(tmp_path)
    (project / "link").symlink_to(".")
    (project / "recipes/link").symlink_to(tmp_path / "project")
    loras = ("loras/ink-lines.safetensors", "loras/pixel-dust.safetensors")
    commands = {
        "weights": ("merge", *loras, "-o", f"{out}.safetensors"),
        "page": ("inspect", *loras, "--html", f"{out}.html"),
    }
    before = sorted(path.name for path in tmp_path.iterdir())
    ran = compose(*commands[kind], at=project / "recipes")
    assert (ran.status, "leads out of" in ran.err) == (64, True), ran
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("mark", "folder"),
    [("compose.lock", "recipes"), ("compose.lock", "docs/en"), ("recipes", "recipes/loras")],
)
@every_output
def test_nor_in_a_project_without_git(
    project: Path, command: tuple[str, ...], folder: str, mark: str
) -> None:
    """As an archive has it: the lock, else the folder of the recipes, says where the root is."""
    up = "../" * (folder.count("/") + 1)
    (project / ".git").rmdir()
    (project / "out").rmdir()
    (project / "out").symlink_to("..")
    (project / folder).mkdir(parents=True, exist_ok=True)
    if mark == "recipes":
        (project / "compose.lock").unlink()
    own = ("recipes/loras/", "out/", "both.s")
    words = [f"{up}{word}" if word.startswith(own) else word for word in command]
    ran = compose(*words, at=project / folder)
    if command[0] == "pull" and mark == "recipes":  # without a lock there is nothing to pull
        assert ran.status == 64, ran
    else:
        assert "leads out of" in ran.out + ran.err, ran
        assert ran.status == (1 if command[0] == "pull" else 64)
    assert is_unharmed(project)


@pytest.mark.parametrize("target", ["../../precious", "../../absent"])
@pytest.mark.parametrize("command", TEXTS.values(), ids=TEXTS)
def test_a_text_is_not_written_through_a_link_out_of_the_project(
    project: Path, command: tuple[str, ...], target: str
) -> None:
    (project / command[-1]).symlink_to(target)
    ran = compose(*command, at=project)
    assert (ran.status, "leads out of" in ran.err) == (64, True), ran
    assert is_unharmed(project)


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("command", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_replace_a_link_only_by_force_and_never_what_it_leads_to(
    project: Path, command: tuple[str, ...], force: bool
) -> None:
    out = project / command[-1]
    out.symlink_to("../../precious")
    ran = compose(*command, *(["--force"] if force else []), at=project)
    assert ran.status == (0 if force else 3), ran
    assert is_unharmed(project) and out.is_symlink() is not force


def test_a_link_of_ones_own_is_named_by_its_own_path(project: Path, tmp_path: Path) -> None:
    """A path outside the working folder is where the user says."""
    ran = compose("plan", "--json-into", str(tmp_path / "plan.json"), at=project)
    assert (ran.status, (tmp_path / "plan.json").is_file()) == (0, True), ran
    (project / "link").symlink_to("out/plan.json")
    ran = compose("plan", "--json-into", "link", at=project)
    assert (ran.status, (project / "out/plan.json").is_file()) == (0, True), ran
    assert (project / "link").is_symlink()
