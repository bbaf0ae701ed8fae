"""The state folder of a project: journal, file lock, engine database, results and server key.

It lies outside the repository, since a repository may come from a stranger and must not be able to
pass a file for what this machine has done. Two clones have two state folders; a folder that was
moved starts with an empty one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_state_path

from composer.errors import InvalidInput, UsageError
from composer.files.atomic import no_link, write_atomically
from composer.files.repository import is_link
from composer.text import STATE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.platform != "win32":
    import fcntl

VARIABLE = STATE_VARIABLE
ROOT_FILE = "project-root"  # in a state folder: the path of the project that it belongs to
REMEMBERED_FILE = "remembered.json"  # what this machine's user said of the project
_LIBRARY_FILE = "library"  # the same, of the folder of LoRA files that was given last
_LONGEST_PATH = 4096  # bytes
# Where no state folder can be named: nothing exists below this path, and nothing can be made there.
NOWHERE = Path(os.devnull, "lora-compose")
_MAX_REMEMBERED = 64 * 1024  # characters
SET_HINT = f"set {VARIABLE} to a folder of your own on a local disk, outside the project"


def state_dir(root: Path, env: Mapping[str, str]) -> Path:
    """The state folder of the project at `root`, which may not exist yet; nothing is written.

    Below `COMPOSE_STATE_DIR`, if `env` has it, else below the user's state folder. Where there is
    neither, a path is returned at which nothing exists and `prepare_state` refuses to write.
    Raises `UsageError` if the variable names no absolute path, or one in the project, and
    `InvalidInput` if what lies there is not a folder of this user.
    """
    base = _base(env)
    if base is None:
        return NOWHERE
    real = Path(os.path.realpath(root))
    if env.get(VARIABLE) and Path(os.path.realpath(base)).is_relative_to(real):
        raise UsageError(f"{VARIABLE}: {base} lies inside the project {root}", hint=SET_HINT)
    key = hashlib.sha256(os.fsencode(os.path.normcase(real))).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9_]+", "-", real.name)[:32].strip("-") or "project"
    state = base / "projects" / f"{name}-{key}"
    _check_ours(state.parent)
    _check_ours(state)
    return state


def prepare_state(state: Path, root: Path) -> Path:
    """Create the state folder, readable by this user alone, with a file that names `root`.

    Returns `state`. Raises `InvalidInput` if it can't be created, or is not a folder of this user.
    """
    if state == NOWHERE:
        raise InvalidInput("there is no home directory to keep the state in", hint=SET_HINT)
    try:
        state.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (state.parent, state):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            _check_ours(folder)
        if os.name == "posix" and stat.S_IMODE(state.stat().st_mode) != 0o700:
            state.chmod(0o700)
        if not (state / ROOT_FILE).exists():
            write_atomically(state / ROOT_FILE, os.fsencode(os.path.realpath(root)) + b"\n")
        problem = state_problem(state)
    except OSError as error:
        why = error.strerror or error
        raise InvalidInput(
            f"the state folder {state} can't be created: {why}", hint=SET_HINT
        ) from error
    if problem:
        raise InvalidInput(f"the state folder {state} {problem}", hint=SET_HINT)
    return state


def note_library(state: Path, library: Path) -> None:
    """Keep the folder of LoRA files that this run was given, for the messages of later ones.

    Nothing is written where there is no state folder yet. Errors are passed over.
    """
    text = os.fsencode(os.path.abspath(library)) + b"\n"
    with suppress(OSError):
        file = state / _LIBRARY_FILE
        if state.is_dir() and not (file.is_file() and file.read_bytes() == text):
            write_atomically(file, text)


def noted_library(state: Path) -> Path | None:
    """The folder of LoRA files that the last run was given, if that still exists."""
    with suppress(OSError, ValueError):
        with open(state / _LIBRARY_FILE, "rb") as file:
            text = file.read(_LONGEST_PATH).removesuffix(b"\n")
        library = Path(os.fsdecode(text))
        return library if library.is_absolute() and library.is_dir() else None
    return None


def state_problem(state: Path) -> str:
    """Why the state can't be kept in this folder, which may not exist yet; empty if it can.

    The file lock must end with its process: one that is a plain file would stay after a kill.
    """
    if why := why_unwritable(state):
        return f"can't be {'written' if os.path.exists(state) else 'created'}: {why}"
    return _why_no_locks(state)


def _why_no_locks(state: Path) -> str:
    """Tried on what names the project, or on the nearest folder that exists."""
    if sys.platform == "win32":
        return ""
    try:
        handle = os.open(_nearest(state / ROOT_FILE), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""  # nothing to try it on
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""  # somebody holds a lock: so there are locks
    except OSError as error:
        return f"is on a file system without file locks: {error.strerror}"
    finally:
        os.close(handle)
    return ""


def why_unwritable(folder: Path) -> str:
    """Why nothing can be written to a folder, or to the nearest one above; empty if it can be."""
    there = _nearest(folder)
    return _why_denied(there) if os.path.isdir(there) else os.strerror(errno.ENOTDIR)


def unwritable_parts(state: Path) -> list[str]:
    """The folders and files of a state folder that an apply adds to, and can't, with the reason."""
    parts = (part for part in sorted(state.glob("*")) if not is_link(part))
    added_to = (p for p in parts if p.name != ROOT_FILE and p.suffix not in (".json", ".tmp"))
    return [f"{part}: {why}" for part in added_to if (why := _why_denied(part))]


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.parents) if os.path.exists(one))


def _why_denied(path: Path) -> str:
    needed = os.W_OK | os.X_OK if os.path.isdir(path) else os.W_OK
    if os.access(path, needed):
        return ""
    read_only = sys.platform != "win32" and os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


def free_state_space(state: Path) -> int:
    """The free bytes on the disk of a state folder, which may not exist yet."""
    return shutil.disk_usage(_nearest(state)).free


def _base(env: Mapping[str, str]) -> Path | None:
    """The folder that holds the states of all projects; None if the system names none."""
    if chosen := env.get(VARIABLE):
        if not os.path.isabs(chosen):
            raise UsageError(f"{VARIABLE}: {chosen} is not an absolute path", hint=SET_HINT)
        return Path(chosen)
    try:
        base = user_state_path("lora-compose", appauthor=False)
    except RuntimeError:  # there is no home directory; older versions of platformdirs return `~`
        return None
    return base if base.is_absolute() else None


def _check_ours(folder: Path) -> None:
    """Raise `InvalidInput` if this is a link, not a folder, another user's, or out of reach."""
    try:
        status = folder.lstat()
    except PermissionError as error:  # a folder above is another user's
        why = f"the state folder {folder} can't be opened: {error.strerror}"
        raise InvalidInput(why, hint=SET_HINT) from error
    except OSError:
        return  # missing: creating it says what is wrong
    if is_link(folder) or not stat.S_ISDIR(status.st_mode):
        why = "is a link or not a folder"
    elif os.name == "posix" and status.st_uid != os.geteuid():
        why = "belongs to another user"
    else:
        return
    raise InvalidInput(f"the state folder {folder} {why}", hint=f"remove it, or {SET_HINT}")


def remembered_library(state: Path) -> Path | None:
    """The folder of LoRA files that `remember_library` was last given for this project."""
    try:
        with open(state / REMEMBERED_FILE, encoding="utf-8", opener=no_link) as file:
            library = json.loads(file.read(_MAX_REMEMBERED))["library"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return Path(library) if isinstance(library, str) and os.path.isabs(library) else None


def remember_library(state: Path, library: Path | None) -> None:
    """Keep the absolute path of a folder of LoRA files; None: forget it. Raises `OSError`."""
    file = state / REMEMBERED_FILE
    if library is not None:
        write_atomically(file, json.dumps({"library": str(library)}).encode())
    else:
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A state folder: the project that it belongs to, and the bytes of its files."""

    path: Path
    root: Path
    size: int

    @property
    def is_orphan(self) -> bool:
        """Whether the project's folder no longer exists; False where the system doesn't say."""
        try:
            return not stat.S_ISDIR(self.root.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError):  # of another user, or no path at all
            return False


def list_states(env: Mapping[str, str]) -> list[StateInfo]:
    """The state folders of this user's projects, sorted by path.

    A folder that names no project is left out.
    """
    base = _base(env)
    projects = sorted((base / "projects").glob("*")) if base else []
    states = []
    for path in projects:
        with suppress(OSError):
            root = Path(os.fsdecode((path / ROOT_FILE).read_bytes().removesuffix(b"\n")))
            states.append(StateInfo(path, root, folder_size(path)))
    return states


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed; 0 if there is no such folder."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
