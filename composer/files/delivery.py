"""Writing an output file where the user wants it: completely or not at all.

An existing file is replaced only with `--force`. `compose merge` writes through `new_weights`,
pages and reports through `replacing`. `compose pull` uses `deliver`, which takes no disk space if
the file system can share the blocks of two files.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import ExitStatus, Refused, TargetError, UsageError
from composer.files import atomic
from composer.files.repository import home_directory, project_root, refuse_link_out
from composer.text import RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

if sys.platform == "linux":
    import fcntl

SUFFIX = ".safetensors"
MARGIN = 64 * 1024 * 1024  # bytes that stay free on the disk, for the database and its journal
CHUNK = 1024 * 1024  # bytes
MOST_FILES = 100  # that a sweep of merges writes
SLASHES = ("/", os.sep)  # a path that ends in one names a folder
FICLONE = 0x40049409  # the ioctl by which Linux shares a file's blocks (linux/fs.h)
UNCHANGED = "already there"
HINT = "free some space, or write to another disk"
# What helps against an error of the system; against others, another folder or disk does.
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), HINT),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "write to a folder that you may write to"),
    errno.EROFS: "write to a folder that is not read-only",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of one recipe: `state` is pulled, kept, training or not pulled."""

    state: str
    name: str
    note: str  # where the file is, or why there is none
    exit_status: int = ExitStatus.DONE
    id: str = ""  # of the composition in the file
    file: str = ""  # which was written, or has these bytes already


# --- disk space --------------------------------------------------------------------------


def free_space(folder: Path) -> int:
    """The free bytes on the disk of this folder."""
    return shutil.disk_usage(folder).free


def spare(size: int) -> int:
    """The bytes to keep free beside a file of `size` bytes: a tenth of it, at most `MARGIN`."""
    return min(MARGIN, size // 10)


def check_space(
    folder: Path,
    size: int,
    free_space: Callable[[Path], int],
    *,
    hint: str,
    margin: int = MARGIN,
) -> None:
    """Raise `TargetError` with this hint unless `size + margin` bytes are free in the folder."""
    free = free_space(folder)
    if free < size + margin:
        raise TargetError(
            f"not enough disk space in {folder}: {_megabytes(size)} and a reserve of"
            f" {_megabytes(margin)} are needed, {_megabytes(free)} are free",
            hint=hint,
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{1 if size < 1e7 else 0}f} MB"


# --- the path ----------------------------------------------------------------------------


def check_output(out: Path, *, force: bool) -> None:
    """Raise `UsageError` if `out` can't be a weights file, `Refused` for a file without `force`."""
    name = visible(str(out))
    if out.is_dir():
        raise UsageError(f"{name} is a folder", hint=f"name a {SUFFIX} file in it")
    if out.suffix.lower() != SUFFIX:
        raise UsageError(
            f"the output file must end in {SUFFIX}: {name}",
            hint=f"write {visible(str(out.with_suffix(SUFFIX)))}" if out.name else None,
        )
    check_folder(out)
    if out.exists() and not out.is_file():
        raise UsageError(f"{name} is not a regular file")
    if os.path.lexists(out) and not force:
        raise Refused(f"{name} already exists", hint="--force replaces it")


def check_folder(out: Path) -> None:
    """Raise `UsageError` if the folder of `out` does not exist, or is reached through a link."""
    check_output_link(out.parent)
    if not out.parent.is_dir():
        raise UsageError(f"{visible(str(out.parent))} is not a folder", hint="create it first")


def check_names_folder(out: str, *, many: str, one: str) -> None:
    """Raise `UsageError` unless `out` is a folder, or ends in a slash, so that it may be created.

    `many` is in words what goes there, `one` what may go to a file instead.
    """
    place, name = Path(out), visible(out)
    file = f"{one} may go to a {SUFFIX} file"
    if place.is_dir():
        return
    if place.suffix.lower() == SUFFIX:
        raise UsageError(
            f"{many} can't go to one file, {name}",
            hint=f"name {one}, or a folder that ends in /",
        )
    if out.endswith(SLASHES):
        return
    if place.exists() or place.suffix:
        raise UsageError(
            f"{name} is neither a folder nor a {SUFFIX} file",
            hint=f"name a folder, and end it with / to create it; {file}",
        )
    raise UsageError(f"{name} does not exist", hint=f"end the path with / to create it; {file}")


def check_output_link(out: Path) -> None:
    """Raise `UsageError` for a path in the project that leads out of it through a link.

    A project may come from a stranger, and a link in it may lead to any file of the user. Outside
    of one, the working folder counts as one.
    """
    root, here = _project(), Path.cwd()
    _check_link(out, root if root and here.is_relative_to(root) else here)


def check_input_link(file: Path) -> None:
    """As `check_output_link`, for a file that is read; outside a project any may be a link."""
    root = _project()
    if root:
        _check_link(file, root)


def _check_link(path: Path, root: Path) -> None:
    full = Path.cwd() / path
    if Path(os.path.normpath(full)).is_relative_to(root):
        refuse_link_out(full, root, hint="give the path that the link leads to")


def _project() -> Path | None:
    """The root of the project that the working folder is in, or has the recipes of."""
    here = Path.cwd()
    recipes = here / RECIPES_FOLDER
    root, mark = project_root(recipes if recipes.is_dir() else here, home_directory())
    return root if mark or (root / RECIPES_FOLDER).is_dir() else None


@contextmanager
def new_weights(out: Path, *, force: bool) -> Iterator[Path]:
    """As `replacing`, for weights. Raises as `check_output`, at the start and at the end."""
    check_output(out, force=force)
    with replacing(out, name=out) as temporary:
        yield temporary
        check_output(out, force=force)


@contextmanager
def replacing(out: Path, *, name: Path) -> Iterator[Path]:
    """As `atomic.replacing`, but an `OSError` becomes a `TargetError` that names the file.

    `name` is the path as the user wrote it.
    """
    try:
        with atomic.replacing(out) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(name, error) from error


def unwritable(out: Path, error: OSError) -> TargetError:
    """The error for an output that the system could not write, with its reason and what helps."""
    return TargetError(
        f"{visible(str(out))} can't be written: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "write to another folder or disk"),
    )


def reflink(source: Path, out: Path) -> str:
    """Make `out` use the same blocks on the disk as `source`, until one of them changes."""
    if sys.platform != "linux":
        raise NotImplementedError
    with source.open("rb") as old, open(out, "wb", opener=atomic.no_link) as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    return "reflink"


def hard_link(source: Path, out: Path) -> str:
    """Make `out` another name of the file `source`."""
    out.unlink(missing_ok=True)
    os.link(source, out)
    return "hard link"


def copy(source: Path, out: Path) -> str:
    """Make `out` a copy of `source`, which takes its own disk space."""
    out.unlink(missing_ok=True)
    with source.open("rb") as old, open(atomic.create(out), "wb") as new:
        shutil.copyfileobj(old, new, CHUNK)
    return "copy"


SHARING = (reflink, hard_link)  # ways to deliver a file that take no disk space


def deliver(
    source: Path,
    out: Path,
    *,
    force: bool = False,
    dry_run: bool = False,
    sharing: Sequence[Callable[[Path, Path], str]] = SHARING,
) -> str:
    """Make `out` a file with the bytes of `source`, and return in words how.

    Nothing is written if it already is. The functions in `sharing` are tried in order before a
    copy is made. Raises as `check_output`, `TargetError` if a copy doesn't fit on the disk, and
    `OSError`.
    """
    if same_bytes(source, out):
        return UNCHANGED
    if dry_run and not out.parent.exists():
        return "dry run"
    check_output(out, force=force)
    if dry_run:
        return "dry run"
    with new_weights(out, force=force) as temporary:
        for share in sharing:
            with suppress(OSError, NotImplementedError):
                return share(source, temporary)
        size = source.stat().st_size
        check_space(out.parent, size, free_space, hint=HINT, margin=spare(size))
        return copy(source, temporary)


def same_bytes(one: Path, two: Path) -> bool:
    """Whether the two paths are one file, or two with the same bytes."""
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
