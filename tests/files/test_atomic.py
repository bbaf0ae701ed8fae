"""Replacing a file in one step: whole or not at all, by a temporary file that nobody can guess."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from composer.files import atomic
from composer.files.atomic import STALE, replacing, sweep, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no modes and owners")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder beside which `precious` lies, which a planted link may lead to."""
    (tmp_path / "precious").write_text("my key", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_a_file_is_written_and_replaced(folder: Path) -> None:
    for data in (b"", b"one", b"\r\n\0" * 1000, b"two"):
        write_atomically(folder / "file", data)
        assert (folder / "file").read_bytes() == data
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_write_that_is_cut_off_leaves_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "file"
    path.write_text("old", encoding="utf-8")

    def die(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert [(p.name, p.read_text(encoding="utf-8")) for p in folder.iterdir()] == [("file", "old")]
    monkeypatch.undo()
    write_atomically(path, b"new")
    assert path.read_text(encoding="utf-8") == "new"


def test_an_error_within_removes_the_temporary_file(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(folder / "file") as temporary:
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_error_names_the_file_and_no_temporary_one_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    (folder / "file").write_bytes(b"old")
    failed: list[str] = []

    def failing(*arguments: Any) -> NoReturn:
        failed.append(call)
        raise OSError(number, os.strerror(number), str(folder / ".file.0.compose.tmp"))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OSError, match="file") as caught:
            write_atomically(folder / "file", b"new")
    assert failed and caught.value.filename == str(folder / "file")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_temporary_file_that_cannot_be_removed_is_said(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    (folder / "file").write_bytes(b"old")

    def failing(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="file"):
        for call in ("replace", "unlink"):
            patch.setattr(os, call, failing)
        write_atomically(folder / "file", b"new")
    assert (folder / "file").read_bytes() == b"old"
    (left,) = folder.glob(".file.*.compose.tmp")
    why = os.strerror(number)
    assert caplog.messages == [f"the temporary file {left} can't be removed ({why}): delete it"]


def test_a_folder_that_is_missing_is_an_error_and_not_created(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(folder / "no" / "file", b"new")
    assert not [*folder.iterdir()]


# --- the temporary file ------------------------------------------------------------------


def test_its_name_is_another_each_time_and_says_whose_it_is(folder: Path) -> None:
    names = set()
    for _ in range(20):
        with replacing(folder / "a.long.name") as temporary:
            assert temporary.parent == folder and temporary.stat().st_size == 0
            names.add(temporary.name)
    assert len(names) == 20
    assert all(re.fullmatch(r"\.a\.long\.name\.[0-9a-f]{16}\.compose\.tmp", name) for name in names)


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "file"])
def test_what_has_its_name_already_is_neither_opened_nor_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nobody can guess the name; were it guessed, the write fails."""
    monkeypatch.setattr(atomic, "unguessable", lambda: "guessed")
    planted, precious = folder / ".file.guessed.compose.tmp", folder.parent / "precious"
    if kind == "file":
        planted.write_text("theirs", encoding="utf-8")
    elif kind == "hard link":
        planted.hardlink_to(precious)
    else:
        planted.symlink_to(precious if kind == "link" else folder.parent / "absent")
    with pytest.raises(FileExistsError):
        write_atomically(folder / "file", b"new")
    assert precious.read_text(encoding="utf-8") == "my key"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["folder", "precious"]
    assert [path.name for path in folder.iterdir()] == [planted.name]


def test_a_link_at_the_destination_is_replaced_and_not_followed(folder: Path) -> None:
    precious = folder.parent / "precious"
    (folder / "file").symlink_to(precious)
    write_atomically(folder / "file", b"new")
    assert not (folder / "file").is_symlink() and (folder / "file").read_bytes() == b"new"
    assert precious.read_text(encoding="utf-8") == "my key"


def test_only_our_own_old_ones_for_this_file_are_removed(folder: Path) -> None:
    mine = folder / ".k.safetensors.12.compose.tmp"
    names = (".k.safetensors.12.tmp", ".kk.safetensors.12.compose.tmp", ".k.html.12.compose.tmp")
    others = [folder / name for name in (*names, "k.safetensors.12.compose.tmp")]
    for path in (mine, *others):
        path.touch()
    sweep(folder / "k.safetensors", now=time.time())
    assert mine.exists()  # its process may still be at work
    sweep(folder / "k.safetensors", now=time.time() + STALE + 60)
    assert sorted(folder.iterdir()) == sorted(others)


# --- its mode ----------------------------------------------------------------------------


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.usefixtures("_umask")
def test_a_new_file_has_the_mode_that_the_umask_leaves(folder: Path) -> None:
    write_atomically(folder / "file", b"new")
    write_atomically(folder / "key", b"new", mode=0o600)
    assert (mode(folder / "file"), mode(folder / "key")) == (0o640, 0o600)


@posix
@pytest.mark.usefixtures("_umask")
def test_an_existing_file_keeps_its_mode(folder: Path) -> None:
    (folder / "file").touch()
    for wanted in (0o600, 0o755, 0o666):
        (folder / "file").chmod(wanted)
        write_atomically(folder / "file", b"new")
        assert mode(folder / "file") == wanted


@posix
@pytest.mark.usefixtures("_umask")
def test_the_mode_behind_a_link_is_not_taken_over(folder: Path) -> None:
    (folder.parent / "precious").chmod(0o777)
    (folder / "file").symlink_to(folder.parent / "precious")
    write_atomically(folder / "file", b"new", mode=0o600)
    assert mode(folder / "file") == 0o600 and mode(folder.parent / "precious") == 0o777


@posix
def test_it_is_private_before_it_has_a_name(folder: Path) -> None:
    """A file with a secret is never readable by others, not for a moment."""
    with replacing(folder / "key", mode=0o600) as temporary:
        assert mode(temporary) == 0o600
