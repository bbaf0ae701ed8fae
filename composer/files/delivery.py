"""Putting a file where a user wants it: whole or not at all, and over nothing without leave.

`compose merge` writes through `appearing`, pages and reports through `replacing`; `compose pull`
hands out results with `deliver`, which costs no room where the file system can share what two
files have in common.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import Refused, TargetError, UsageError
from composer.files import atomic
from composer.files.disk import check_space, free_space, spare
from composer.files.inside import is_inside
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

if sys.platform == "linux":
    import fcntl

SUFFIX = ".safetensors"
CHUNK = 1024 * 1024  # bytes
FICLONE = 0x40049409  # the ioctl by which Linux shares a file's blocks (linux/fs.h)
THERE = "there already"
HINT = "free some space, or write to another disk"


def check_place(out: Path, *, force: bool) -> None:
    """Raise `UsageError` where no weights can be written, `Refused` for a file without `force`."""
    name = visible(str(out))
    if out.is_dir():
        raise UsageError(f"{name} is a folder", hint=f"name a {SUFFIX} file in it")
    if out.suffix.lower() != SUFFIX:
        raise UsageError(f"{name} is no name for weights", hint=f"name a {SUFFIX} file")
    check_folder(out)
    if out.exists() and not out.is_file():
        raise UsageError(f"{name} is no regular file")
    if os.path.lexists(out) and not force:
        raise Refused(f"{name} is there already", hint="--force replaces it")


def check_folder(out: Path) -> None:
    """Raise `UsageError` where there is no folder to write `out` in, or a link leads to it."""
    refuse_link_out(out.parent)
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {visible(str(out.parent))}", hint="make it first")


def refuse_link_out(out: Path) -> None:
    """Raise `UsageError` for a path in the working folder that leads out of it through a link.

    A repository may come from a stranger, and a link in it may lead to any file of the user.
    """
    folder = Path.cwd()
    path = folder / out
    if path.is_relative_to(folder) and ".." not in out.parts and not is_inside(path, folder):
        raise UsageError(
            f"{visible(str(out))} leads out of {visible(str(folder))} through a link",
            hint="give the path that the link leads to",
        )


@contextmanager
def appearing(out: Path, *, force: bool) -> Iterator[Path]:
    """As `replacing`; raises as `check_place` does too, before and once more at the end."""
    check_place(out, force=force)
    with replacing(out, name=out) as temporary:
        yield temporary
        check_place(out, force=force)


@contextmanager
def replacing(out: Path, *, name: Path) -> Iterator[Path]:
    """As `atomic.replacing`, but raises `TargetError` for an `OSError`.

    `name` is what the user called `out`.
    """
    try:
        with atomic.replacing(out) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(name, error) from error


def unwritable(out: Path, error: OSError) -> TargetError:
    """In words, that the disk is full, or whatever else the system says of it."""
    return TargetError(
        f"{visible(str(out))} can't be written: {error.strerror or error}", hint=HINT
    )


def reflink(source: Path, out: Path) -> str:
    """A file of its own that shares its blocks until one of the two is written to."""
    if sys.platform != "linux":
        raise NotImplementedError
    with source.open("rb") as old, out.open("wb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    return "reflink"


def hard_link(source: Path, out: Path) -> str:
    """Another name of the same file."""
    out.unlink(missing_ok=True)
    os.link(source, out)
    return "hard link"


def copy(source: Path, out: Path) -> str:
    """A file of its own, which takes as much room again."""
    out.unlink(missing_ok=True)
    with source.open("rb") as old, open(atomic.create(out), "wb") as new:
        shutil.copyfileobj(old, new, CHUNK)
    return "copy"


SHARING = (reflink, hard_link)


def deliver(
    source: Path,
    out: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    sharing: Sequence[Callable[[Path, Path], str]] = SHARING,
    free_space: Callable[[Path], int] = free_space,
    held: Callable[[Path], bool] = lambda out: False,
) -> str:
    """Make `out` a file with the bytes of `source`; how, in words.

    Nothing is written where that is so already. The ways of `sharing` are tried in their order
    before a copy is made. Raises as `check_place` does, `UsageError` where `out` is `held` by the
    library, `TargetError` where a copy doesn't fit on the disk, and `OSError`.
    """
    if _same(source, out):
        return THERE
    if held(out):
        raise UsageError(
            f"{visible(str(out))} is a LoRA of the library", hint="name another file with -o"
        )
    if dry_run and not out.parent.exists():
        return "dry run"
    check_place(out, force=force)
    if dry_run:
        return "dry run"
    with appearing(out, force=force) as temporary:
        for way in sharing:
            with suppress(OSError, NotImplementedError):
                return way(source, temporary)
        size = source.stat().st_size
        check_space(out.parent, size, free_space, hint=HINT, margin=spare(size))
        return copy(source, temporary)


def _same(one: Path, two: Path) -> bool:
    """Whether the two are one file, or have the same bytes."""
    if not two.is_file():
        return False
    if os.path.samefile(one, two):
        return True
    if one.stat().st_size != two.stat().st_size:
        return False
    with one.open("rb") as first, two.open("rb") as second:
        while chunk := first.read(CHUNK):
            if chunk != second.read(CHUNK):
                return False
    return True
