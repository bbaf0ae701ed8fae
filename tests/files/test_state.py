"""The state folder: where it lies, whose it is, who may read it, and when it is created."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from support.cli import compose, samples
from support.state import made_state, state_of

from composer.errors import InvalidInput, Refused
from composer.files.exclusive import only_one
from composer.files.state import (
    REMEMBERED_FILE,
    ROOT_FILE,
    VARIABLE,
    list_states,
    remember_library,
    remembered_library,
    state_dir,
)
from composer.lock import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

READING = (
    ("validate",),
    ("plan",),
    ("plan", "--offline"),
    ("status",),
    ("models",),
    ("output",),
    ("doctor",),
    ("lock", "--offline", "--locked"),
    ("apply", "--dry-run"),
    ("prune", "--dry-run"),
    ("import", "--all", "--dry-run"),
    ("inspect", "recipes/pixel-rogue.yaml"),
)
WRITING = (("apply",), ("lock",), ("prune",), ("import", "--all"))
NAMES = [" ".join(command) for command in READING]

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no modes and owners")


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test alone for states; it does not exist yet."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "states"))
    return tmp_path / "states"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path / "project")


# --- where it lies -----------------------------------------------------------------------


def test_a_ledger_makes_the_folder_outside_the_project(tmp_path: Path) -> None:
    Ledger(tmp_path, "local", state_of(tmp_path))
    assert state_of(tmp_path).is_dir() and not [*tmp_path.iterdir()]


def test_it_is_named_after_the_project_and_names_it(states: Path, project: Path) -> None:
    state = made_state(project)
    assert state.parent == states / "projects" and state.name.startswith("project-")
    assert (state / ROOT_FILE).read_bytes() == os.fsencode(os.path.realpath(project)) + b"\n"
    (only,) = list_states(os.environ)
    assert (only.path, only.root, only.is_orphan) == (state, project.resolve(), False)
    shutil.rmtree(project)
    assert [each.is_orphan for each in list_states(os.environ)] == [True]


def test_it_remembers_a_library(project: Path, tmp_path: Path) -> None:
    state = made_state(project)
    assert remembered_library(state) is None
    name = os.fsdecode(b"\xff \xc3\xa4") if os.name == "posix" else "a b"
    remember_library(state, tmp_path / name)
    assert remembered_library(state) == tmp_path / name
    remember_library(state, None)
    remember_library(state, None)
    assert remembered_library(state) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"library": 3}', '{"library": "loras"}', "[" * 9_999, '"x"', "null"]
)
def test_a_broken_memory_is_none(project: Path, text: str) -> None:
    state = made_state(project)
    (state / REMEMBERED_FILE).write_text(text)
    assert remembered_library(state) is None


@posix
def test_no_link_is_followed_to_a_memory(project: Path, tmp_path: Path) -> None:
    state = made_state(project)
    remember_library(state, tmp_path)
    (state / REMEMBERED_FILE).rename(tmp_path / "elsewhere.json")
    (state / REMEMBERED_FILE).symlink_to(tmp_path / "elsewhere.json")
    assert remembered_library(state) is None


def test_two_clones_have_two_and_a_link_to_one_has_its_own(tmp_path: Path) -> None:
    for name in ("a/game", "b/game"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/game")
    first, second, linked = (state_of(tmp_path / name) for name in ("a/game", "b/game", "link"))
    assert first != second and linked == first


@pytest.mark.usefixtures("states")
def test_a_folder_with_an_odd_name_has_one_too(tmp_path: Path) -> None:
    for name in ("…", "a b\nc", "x" * 200, "-rf"):
        root = tmp_path / name
        root.mkdir()
        state = made_state(root)
        assert state.is_dir() and len(state.name) <= 49 and "\n" not in state.name
        assert not state.name.startswith("-")


def test_without_the_variable_it_lies_below_the_home_directory(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    assert compose("apply", at=project).status == 0
    assert state_of(project).is_dir() and state_of(project).is_relative_to(home)


@pytest.mark.parametrize("command", [("plan",), ("apply",), ("status",)], ids=" ".join)
def test_a_relative_variable_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv(VARIABLE, "states")
    ran = compose(*command, at=project)
    assert (ran.status, f"{VARIABLE}: states is not an absolute path" in ran.err) == (64, True)
    assert not (project / "states").exists()


def test_doctor_tells_such_a_variable_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, words in (("states", "not an absolute path"), (str(project / "x"), "lies inside")):
        monkeypatch.setenv(VARIABLE, value)
        ran = compose("doctor", at=project)
        assert (ran.status, ran.out.count(words)) == (1, 1), ran
        assert "1 problem," in ran.out


@pytest.mark.parametrize("place", [".", "states", "link"])
def test_a_variable_that_names_a_folder_in_the_project_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "link").symlink_to(project)
    monkeypatch.setenv(VARIABLE, str((tmp_path if place == "link" else project) / place))
    ran = compose("apply", at=project)
    assert (ran.status, "lies inside the project" in ran.err) == (64, True)
    assert not (project / "projects").exists() and not (project / "states").exists()


# --- without a home directory ------------------------------------------------------------


@pytest.fixture
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user id has no entry in its passwd file."""
    import pwd

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    for name in ("HOME", "XDG_STATE_HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@posix
@pytest.mark.usefixtures("_no_home")
@pytest.mark.parametrize("command", READING, ids=NAMES)
def test_without_a_home_commands_that_read_work(project: Path, command: tuple[str, ...]) -> None:
    ran = compose(*command, at=project)
    locked = "--locked" in command  # nothing is pinned yet
    assert ran.status == (3 if locked else 1 if command == ("doctor",) else 0), ran
    assert {path.name for path in project.iterdir()} == {".git", "recipes"}


@posix
@pytest.mark.usefixtures("_no_home")
@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_without_a_home_a_command_that_writes_names_the_variable(
    project: Path, command: tuple[str, ...]
) -> None:
    ran = compose(*command, at=project)
    assert ran.status == 65
    assert "there is no home directory to keep the state in" in ran.err
    assert f"set {VARIABLE} to a folder of your own" in ran.err
    assert {path.name for path in project.iterdir()} == {".git", "recipes"}


@posix
@pytest.mark.usefixtures("_no_home")
@pytest.mark.parametrize("home", [None, "", "relative"])
def test_doctor_finds_that_there_is_no_home(
    project: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is not None:
        monkeypatch.setenv("HOME", home)
    ran = compose("doctor", at=project)
    assert (ran.status, "! there is no home directory to keep" in ran.out) == (1, True), ran
    assert f"set {VARIABLE} to a folder of your own" in ran.out


@posix
@pytest.mark.usefixtures("_no_home")
def test_without_a_home_the_variable_is_enough(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "states"))
    assert compose("apply", at=project).status == 0
    assert list_states(os.environ)[0].path == state_of(project)


# --- when it is created ------------------------------------------------------------------


@pytest.mark.parametrize("command", READING, ids=NAMES)
def test_commands_that_read_create_no_folder(
    states: Path, project: Path, command: tuple[str, ...]
) -> None:
    compose(*command, at=project)
    assert not states.exists()


@pytest.mark.parametrize("command", READING, ids=NAMES)
def test_nor_in_a_clone_whose_lock_was_applied_elsewhere(
    states: Path, project: Path, command: tuple[str, ...]
) -> None:
    assert compose("apply", at=project).status == 0
    shutil.rmtree(states)
    compose(*command, at=project)
    assert not states.exists()


# --- whose it is -------------------------------------------------------------------------


@posix
@pytest.mark.usefixtures("states")
def test_only_this_user_may_open_it(project: Path) -> None:
    before = os.umask(0)
    try:
        assert compose("apply", at=project).status == 0
    finally:
        os.umask(before)
    state = state_of(project)
    for folder in (state, state.parent, state.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@posix
def test_a_folder_that_others_may_open_is_closed(states: Path, project: Path) -> None:
    state = made_state(project)
    state.chmod(0o755)
    assert compose("apply", at=project).status == 0
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("which", ["state", "projects"])
@pytest.mark.parametrize("command", [("plan",), ("apply",), ("status",)], ids=" ".join)
@pytest.mark.usefixtures("states")
def test_another_users_folder_is_neither_read_nor_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], which: str
) -> None:
    state = made_state(project)
    folder = state if which == "state" else state.parent
    if os.geteuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    before = sorted(state.iterdir())
    ran = compose(*command, at=project)
    assert (ran.status, "belongs to another user" in ran.err) == (65, True), ran
    assert VARIABLE in ran.err and sorted(state.iterdir()) == before


@pytest.mark.parametrize("kind", ["folder", "nowhere", "file"])
def test_a_linked_folder_is_never_followed(tmp_path: Path, kind: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    state = made_state(root)
    shutil.rmtree(state)
    if kind == "folder":
        elsewhere.mkdir()
    if kind == "file":
        state.write_text("")
    else:
        state.symlink_to(elsewhere)
    with pytest.raises(InvalidInput, match="link"):
        state_of(root)
    with pytest.raises(InvalidInput, match="link"):
        Ledger(root, "local", state)
    with pytest.raises(InvalidInput, match="link"), only_one(root, state, wait=0):
        pass
    assert not elsewhere.exists() or not [*elsewhere.iterdir()]


@pytest.mark.usefixtures("states")
def test_a_folder_that_can_not_be_created_says_why(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = state_dir(project, {VARIABLE: str(tmp_path / "file")})
    with (
        pytest.raises(InvalidInput, match="can't be created") as caught,
        only_one(project, state, wait=0),
    ):
        pass
    assert VARIABLE in str(caught.value.hint)


# --- one at a time -----------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from composer.files.exclusive import only_one
with only_one(Path(sys.argv[1]), Path(sys.argv[2]), wait=0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds this project's file lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(state_of(tmp_path))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def hold(root: Path, **more: Any) -> None:
    with only_one(root, state_of(root), **more):
        pass


def test_one_apply_at_a_time(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(Refused, match=rf"process {holder.pid}, since 20") as caught:
        hold(tmp_path, wait=0)
    assert caught.value.exit_status == 3 and "--lock-timeout" in str(caught.value.hint)
    holder.kill()
    hold(tmp_path, wait=10)  # the system freed it


def test_a_waiting_apply_gets_its_turn(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(Refused):
        hold(tmp_path, wait=0.3)
    assert time.monotonic() - begun >= 0.3
    holder.kill()
    hold(tmp_path, wait=10)


def test_the_holder_is_told_only_while_it_holds(tmp_path: Path) -> None:
    hold(tmp_path, wait=0)
    assert not (state_of(tmp_path) / "apply.json").exists()


@pytest.mark.parametrize("name", ["apply.lock", "apply.json"])
def test_a_link_in_place_of_the_file_lock_is_not_followed(tmp_path: Path, name: str) -> None:
    """Old versions of filelock emptied the file behind it (CVE-2025-68146)."""
    precious, root = tmp_path / "precious", tmp_path / "root"
    precious.write_text("my key", encoding="utf-8")
    root.mkdir()
    (made_state(root) / name).symlink_to(precious)
    with suppress(OSError):
        hold(root, wait=0)
    assert precious.read_text(encoding="utf-8") == "my key"


# --- file systems that can't keep it -------------------------------------------------------


def fail_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Make flock fail as on file systems without it; the list grows with each call."""
    fcntl = pytest.importorskip("fcntl")
    calls: list[int] = []

    def flock(file: Any, operation: int) -> None:
        calls.append(operation)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return calls


@pytest.mark.skipif(os.name != "posix", reason="Windows has other locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """There the file lock would be a plain file, which stays after a kill."""
    calls = fail_flock(monkeypatch, number)
    for leftover in (False, True):
        if leftover:
            (state_of(tmp_path) / "apply.lock").write_bytes(b"")
        with pytest.raises(InvalidInput, match="a file system without file locks: ") as caught:
            hold(tmp_path, wait=0)
        assert os.strerror(number) in caught.value.message and VARIABLE in str(caught.value.hint)
    assert calls
    monkeypatch.undo()
    hold(tmp_path, wait=0)


@pytest.mark.skipif(os.name != "posix", reason="Windows has other locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.usefixtures("states")
def test_doctor_finds_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, exists: bool
) -> None:
    project = samples(tmp_path / "project")
    if exists:
        made_state(project)
    assert "file locks" not in compose("doctor", at=project).out
    calls = fail_flock(monkeypatch, number)
    ran = compose("doctor", at=project)
    assert (ran.status, "is on a file system without file locks" in ran.out) == (1, True), ran
    assert calls and VARIABLE in ran.out


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such flag")
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("place", ["project", "state"])
def test_what_can_not_be_written_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    project = samples(tmp_path / "project")
    assert compose("apply", at=project).status == 0
    denied = project if place == "project" else state_of(project)
    access, statvfs = os.access, os.statvfs

    class ReadOnly:
        f_flag = os.ST_RDONLY if number == errno.EROFS else 0

    monkeypatch.setattr(os, "access", lambda path, *more: path != denied and access(path, *more))
    monkeypatch.setattr(os, "statvfs", lambda p: ReadOnly if p == denied else statvfs(p))
    for command in (["apply"], ["doctor"]):
        ran = compose(*command, at=project)
        told = ran.out + ran.err
        assert ran.status in (1, 65) and f"can't be written: {os.strerror(number)}" in told, ran
        assert "what was done so far" not in told
    for command in (["apply"], ["prune"], ["import", "--all"]):
        assert compose(*command, "--dry-run", at=project).status == 0


@pytest.mark.skipif(os.name != "posix", reason="no such rights here")
def test_a_state_folder_below_another_users_is_told_to_commands_that_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sudo compose apply` may leave it."""
    project = samples(tmp_path / "project")
    lstat = Path.lstat
    denied = tmp_path / "theirs" / "projects"

    def refused(path: Path) -> os.stat_result:
        if path.is_relative_to(denied):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refused)
    monkeypatch.setenv(VARIABLE, str(denied.parent))
    for command in ("plan", "status", "apply", "doctor"):
        ran = compose(command, at=project)
        assert ran.status in (1, 65), ran
        assert f"{denied} can't be opened: Permission denied" in ran.out + ran.err, ran
        assert f"set {VARIABLE}" in ran.out + ran.err
