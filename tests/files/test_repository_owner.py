"""A project of another user is not worked in, as with git; folders are not followed out of one."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples

from composer.errors import UsageError
from composer.files.repository import check_owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no owners here")
RECIPE = "name: A\nconcepts:\n  - {name: Ink Lines, scale: 0.5}\n"
COMMANDS = (
    ("validate",),
    ("plan",),
    ("status",),
    ("models", "--target", "local"),
    ("lock",),
    ("apply",),
    ("prune",),
    ("doctor",),
    ("serve", "--port", "0"),
)


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a file another user's; without the rights for that, everything is another user's."""

    def give_away(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 54321, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 54321)

    return give_away


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """A folder of the user's in one that many may write to."""
    below = tmp_path / "mine"
    (below / "recipes").mkdir(parents=True)
    (below / "recipes/a.yaml").write_text(RECIPE, encoding="utf-8")
    return below


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("mark", [".git", "compose.lock"])
def test_a_mark_of_another_user_in_a_folder_above_is_refused(
    below: Path, give_away: Callable[[Path], None], mark: str, command: tuple[str, ...]
) -> None:
    (below.parent / mark).write_text("", encoding="utf-8")
    give_away(below.parent / mark)
    ran = compose(*command, at=below)
    told = ran.out + ran.err
    assert ran.status != 0 and f"the project {below.parent} belongs to another user" in told, ran
    assert f"git config --global --add safe.directory {below.parent}" in told


def test_a_root_of_another_user_is_refused(below: Path, give_away: Callable[[Path], None]) -> None:
    assert compose("validate", at=below).status == 0
    give_away(below)
    assert compose("validate", at=below).status == 64


def test_a_link_to_a_repository_of_another_user_is_refused(
    below: Path, give_away: Callable[[Path], None]
) -> None:
    (below.parent / "theirs").mkdir()
    (below / ".git").symlink_to("../theirs")
    check_owner(below, ".git")
    give_away(below.parent / "theirs")
    with pytest.raises(UsageError, match="belongs to another user"):
        check_owner(below, ".git")


@pytest.mark.parametrize(
    ("lines", "is_allowed"),
    [
        (["{root}"], True),
        (["*"], True),
        (["{above}/*"], True),
        (["{above}"], False),
        (["{root}/*"], False),
        (["{root}", ""], False),  # an empty line resets the list
        (["", "{root}"], True),
    ],
)
def test_safe_directory_of_the_user_allows_it(
    below: Path, give_away: Callable[[Path], None], lines: list[str], is_allowed: bool
) -> None:
    give_away(below)
    for line in lines:
        value = line.format(root=below, above=below.parent)
        add = ["git", "config", "--global", "--add", "safe.directory", value]
        subprocess.run(add, check=True)
    assert compose("validate", at=below).status == (0 if is_allowed else 64)


def test_the_repositorys_own_settings_allow_nothing(
    below: Path, give_away: Callable[[Path], None]
) -> None:
    subprocess.run(["git", "init", "-q", below], check=True)
    (below / ".git/config").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
    give_away(below)
    assert compose("validate", at=below).status == 64


def test_what_the_superuser_owns_is_trusted(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sudo git clone` leaves it."""
    if os.stat(below).st_uid != 0:
        pytest.skip("rights don't bind everybody: only the superuser's files show this")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    check_owner(below, "")


def test_the_user_behind_sudo_is_trusted(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat(below).st_uid or 54321
    if os.geteuid() == 0:
        os.chown(below, real, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError):
        check_owner(below, "")
    monkeypatch.setenv("SUDO_UID", str(real))
    check_owner(below, "")


# --- folders that lead out ---------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("name", ["recipes", "recipes/loras"])
def test_no_folder_outside_is_scanned(tmp_path: Path, name: str, command: tuple[str, ...]) -> None:
    project = samples(tmp_path / "project")
    (project / name).rename(tmp_path / "outside")
    (project / name).symlink_to(tmp_path / "outside")
    before = sorted(tmp_path.rglob("*"))
    ran = compose(*command, at=project)
    if (name, *command) == ("recipes/loras", "validate"):  # which needs no LoRA
        assert ran.status == 0, ran
    else:
        assert ran.status in (1, 64) and "leads out of" in ran.out + ran.err, ran
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def test_doctor_waits_for_no_pipe_and_follows_no_link(tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    (project / ".git").mkdir(exist_ok=True)
    attributes = project / ".gitattributes"
    attributes.unlink(missing_ok=True)
    os.mkfifo(attributes)
    assert ".gitattributes doesn't set the line ends" in compose("doctor", at=project).out
    attributes.unlink()
    (tmp_path / "elsewhere").write_text("compose.lock text eol=lf\n", encoding="utf-8")
    attributes.symlink_to("../elsewhere")
    assert ".gitattributes doesn't set the line ends" in compose("doctor", at=project).out
