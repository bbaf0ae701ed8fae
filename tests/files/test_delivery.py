"""`deliver`: a file where the user wants it, at no cost if the file system can share its blocks."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from support.engine_files import free, no_room

from composer.errors import Refused, TargetError, UsageError
from composer.files import delivery
from composer.files.delivery import UNCHANGED, copy, deliver, hard_link, reflink

MEMORY = Path("/dev/shm")  # another file system, where there is one


def source(folder: Path) -> Path:
    path = folder / "source.safetensors"
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_the_ways(tmp_path: Path) -> None:
    """Each by itself, with the inode as the witness."""
    path, out = source(tmp_path), tmp_path / "out.safetensors"
    assert hard_link(path, out) == "hard link"
    assert out.stat().st_ino == path.stat().st_ino
    assert copy(path, out) == "copy"
    assert out.stat().st_ino != path.stat().st_ino
    assert out.read_bytes() == path.read_bytes()
    out.unlink()
    try:
        assert reflink(path, out) == "reflink"
    except (OSError, NotImplementedError):  # this file system shares no blocks
        return
    assert out.stat().st_ino != path.stat().st_ino
    assert out.read_bytes() == path.read_bytes()


def impossible(one: Path, two: Path) -> str:
    two.write_bytes(b"half")
    raise OSError("this file system can't")


def test_what_a_file_system_cant_do_is_done_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    assert deliver(path, a, sharing=[impossible, hard_link]) == "hard link"
    monkeypatch.setattr(delivery, "free_space", free)
    assert deliver(path, b, sharing=[impossible]) == "copy"
    monkeypatch.setattr(delivery, "free_space", lambda folder: 1000)
    with pytest.raises(TargetError, match="not enough disk space"):
        deliver(path, c, sharing=[impossible])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "source.safetensors",
    ]


def test_to_another_file_system(tmp_path: Path) -> None:
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        return  # nothing to show on this machine
    path = source(tmp_path)
    out = MEMORY / f"compose-test-{os.getpid()}.safetensors"
    try:
        assert deliver(path, out) == "copy"
        assert out.read_bytes() == path.read_bytes()
        assert deliver(path, out) == UNCHANGED
    finally:
        out.unlink(missing_ok=True)


def test_equal_size_is_not_equal_content(tmp_path: Path) -> None:
    path, out = source(tmp_path), tmp_path / "out.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    with pytest.raises(Refused):
        deliver(path, out)
    assert deliver(path, out, force=True) != UNCHANGED
    assert out.read_bytes() == path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_at_the_destination(tmp_path: Path) -> None:
    path, out = source(tmp_path), tmp_path / "out.safetensors"
    out.symlink_to(path)
    assert deliver(path, out) == UNCHANGED
    out.unlink()
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused):
        deliver(path, out)
    deliver(path, out, force=True)
    assert not out.is_symlink()  # the link itself gave way; nothing was written through it
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UsageError, match="is not a regular file"):
        deliver(path, pipe(tmp_path), force=True)


def pipe(folder: Path) -> Path:
    path = folder / "pipe.safetensors"
    os.mkfifo(path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "free_space", free)
    path, out = source(tmp_path), tmp_path / "out.safetensors"
    with no_room(1 << 20), pytest.raises(TargetError, match=r"out\.safetensors can't be written"):
        deliver(path, out, sharing=[])
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "a folder that you may write to"),
        (errno.EPERM, "a folder that you may write to"),
        (errno.EROFS, "not read-only"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.EIO, "another folder or disk"),
    ],
)
def test_the_hint_is_what_helps_against_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def fail(path: Path, *, mode: int = 0) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(delivery.atomic, "create", fail)
    path, out = source(tmp_path), tmp_path / "out.safetensors"
    monkeypatch.setattr(delivery, "free_space", free)
    with pytest.raises(TargetError, match=os.strerror(number)) as raised:
        deliver(path, out, sharing=[])
    assert hint in (raised.value.hint or "")
    assert ("space" in hint) == ("space" in (raised.value.hint or ""))
