"""Finds a project's root and its recipe files, and reads them.

The root is where `.git` or the lock is; files are found by their names. Each file is checked for
itself, and then all together. Every problem of every file is found at once. A recipe may come from
a stranger's branch, so only a regular, small file inside the project is opened: no link that leads
out of it, no pipe and no device.
"""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from composer.errors import InvalidInput, Problem, UsageError
from composer.files.repository import (
    InsideReader,
    NotRegularError,
    OutsideError,
    check_owner,
    project_root,
    refuse_link_out,
)
from composer.recipes.parsing import MAX_BYTES, Parsed, concept_names, parse, too_large
from composer.recipes.problems import difference, other_normalisation, quoted
from composer.text import (
    LOCK_NAME,
    RECIPES_FOLDER,
    SETTINGS_NAME,
    UNSAFE,
    canonical,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from composer.model import ModelTypes, Recipe
    from composer.recipes.problems import KeyPath, Place

_ENDINGS = (".yaml", ".yml")
_GIVE_PATHS = "give recipe files or folders; for a model's name use compose output NAME"


# --- finding -------------------------------------------------------------------------------


def default_paths(paths: Sequence[Path], *, cwd: Path) -> list[Path]:
    """The paths as absolute ones; without any, `recipes/` of the working directory.

    UsageError if there is no such folder, or a path doesn't exist.
    """
    if paths:
        return [_existing(cwd / path) for path in paths]
    if not (cwd / RECIPES_FOLDER).is_dir():
        raise UsageError(
            f"there is no folder {RECIPES_FOLDER}/ in {visible(str(cwd))}, and no path was given",
            hint="run this inside a project; compose init creates one with a first recipe",
        )
    return [_absolute(cwd / RECIPES_FOLDER)]


def find_root(paths: Sequence[Path], *, cwd: Path, home: Path | None) -> Path:
    """The root of the project that the paths are in, as `project_root` finds it.

    UsageError if the paths are of two projects, if the root is another user's, or as for
    `default_paths`.
    """
    starts = [_folder(path) for path in default_paths(paths, cwd=cwd)]
    roots = dict(project_root(start, home) for start in starts)
    if len(roots) > 1:
        named = " and ".join(visible(str(root)) for root in list(roots)[:2])
        hint = "run compose once for each project"
        raise UsageError(f"the paths belong to two projects: {named}", hint=hint)
    ((root, mark),) = roots.items()
    check_owner(root, mark)
    return root


def discover(
    paths: Sequence[Path],
    *,
    root: Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Path]:
    """The recipe files of these paths, each once, by path.

    Files as they are given; folders with all below them, `*.yaml` and `*.yml`, but for what is
    hidden and for links to folders. The globs match paths relative to the root, with `/`: `*`
    stays in one folder, `**` does not, and a glob without `/` matches at any depth; one that
    matches a folder matches all that is in it. A folder that can't be listed stands for what may be
    in it, so `load` tells of it. UsageError if a path doesn't exist, or a folder leads out of the
    root.
    """
    unread: list[Path] = []
    files = {file: None for path in paths for file in _files(_existing(path), root, unread)}
    wanted = _patterns(include)
    chosen = [
        file
        for file in (*files, *unread)
        if file.name.casefold() not in (LOCK_NAME, SETTINGS_NAME)
        and (not wanted or file in unread or _matches(file, root, wanted))
    ]
    return sorted(without_matching(chosen, root, exclude), key=lambda file: file.as_posix())


def without_matching(files: Sequence[Path], root: Path, globs: Sequence[str]) -> list[Path]:
    """The files that none of these globs matches."""
    patterns = _patterns(globs)
    return [file for file in files if not _matches(file, root, patterns)]


def _files(path: Path, root: Path, unread: list[Path]) -> Iterator[Path]:
    """The files of a path; folders that can't be listed are added to `unread`."""
    if not os.path.isdir(path):
        yield path
        return
    refuse_link_out(path, root, hint="replace the link with a folder")
    for folder, folders, names in os.walk(path, onerror=lambda e: unread.append(Path(e.filename))):
        folders[:] = (name for name in folders if not name.startswith("."))
        for name in names:
            if name.casefold().endswith(_ENDINGS) and not name.startswith("."):
                yield Path(folder, name)


def _existing(path: Path) -> Path:
    path = _absolute(path)
    if not may_exist(path):
        raise UsageError(f"{visible(str(path))} doesn't exist", hint=_GIVE_PATHS)
    return path


def may_exist(path: Path) -> bool:
    """Whether a file exists there, or the system doesn't say, as in a folder without rights."""
    try:
        path.lstat()
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _folder(path: Path) -> Path:
    return path if os.path.isdir(path) else path.parent


def relative(file: Path, root: Path) -> str | None:
    """The file's path below the root, with `/`, links not resolved; None if it is not below it."""
    full = os.path.abspath(file)
    path = _below(full, os.path.abspath(root))
    if path is None:  # the root may have been named through a link (/tmp on macOS is one)
        folder, name = os.path.split(full)
        path = _below(os.path.join(os.path.realpath(folder), name), os.path.realpath(root))
    return path


def _below(file: str, root: str) -> str | None:
    """One path relative to the other, with `/`; None if it is not below it."""
    top = os.path.join(root, "")
    if not os.path.normcase(file).startswith(os.path.normcase(top)):
        return None
    return file[len(top) :].replace(os.sep, "/")


# --- globs -------------------------------------------------------------------------------

_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)
_STARS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _patterns(globs: Sequence[str]) -> list[re.Pattern[str]]:
    return [_pattern(glob) for glob in globs]


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a pattern of whole paths; what it matches as a folder, it matches all below."""
    glob = glob.replace("\\", "/").removeprefix("./").strip("/")
    anywhere = "" if "/" in glob else "(?:[^/]+/)*"
    body = "".join(_as_pattern(token) for token in _GLOB.findall(glob))
    return re.compile(f"{anywhere}{body}(?:/.*)?", re.DOTALL)


def _as_pattern(token: str) -> str:
    if token.startswith("[") and len(token) > 2:
        negated = token[1] == "!"
        inside = re.sub(r"([\\\[&~|^])", r"\\\1", token[2 if negated else 1 : -1])
        return f"[{'^' if negated else ''}{inside}]"
    return _STARS.get(token) or re.escape(token)


def _matches(file: Path, root: Path, patterns: list[re.Pattern[str]]) -> bool:
    if not patterns:
        return False
    path = relative(file, root) or file.as_posix()
    return any(pattern.fullmatch(path) for pattern in patterns)


# --- reading -------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """The recipes, sorted by path, and the problems, sorted by place."""

    recipes: tuple[Recipe, ...]
    problems: tuple[Problem, ...]


def load(files: Iterable[Path], *, root: Path, types: Sequence[ModelTypes]) -> Loaded:
    """The recipes of these files, and all problems.

    A file's path in the result is relative to `root`, with `/`. A file that is given twice is
    read once. `types` are what a recipe's `type` may be, the default first.
    """
    reader, known = InsideReader(root), tuple(types)
    parsed: dict[str, Parsed] = {}
    for path in files:
        inside = relative(path, root)
        name = inside or path.as_posix()
        if name not in parsed:
            parsed[name] = _parsed(path, inside, reader, known)
    problems = [problem for one in parsed.values() for problem in one.problems]
    problems += (*_same_path(parsed), *_same_name(parsed))
    recipes = (parsed[name].recipe for name in sorted(parsed))
    return Loaded(tuple(recipe for recipe in recipes if recipe), tuple(sorted(set(problems))))


def name_places(path: Path, root: Path) -> dict[str, tuple[KeyPath, Place]]:
    """Where in this recipe file each LoRA's name stands; nothing if it can't be read any more."""
    try:
        return concept_names(_read(path, relative(path, root), InsideReader(root)))
    except _Refusal:
        return {}


def _parsed(
    path: Path, inside: str | None, reader: InsideReader, types: tuple[ModelTypes, ...]
) -> Parsed:
    name = visible(inside or path.as_posix())
    try:
        return parse_once(_read(path, inside, reader), name, types)
    except _Refusal as refusal:
        return Parsed((Problem(name, 0, 0, *refusal.problem),))


@lru_cache(maxsize=100_000)
def parse_once(text: bytes, name: str, types: tuple[ModelTypes, ...]) -> Parsed:
    """As `parse`. A command that writes reads all files twice, and most are as they were."""
    return parse(text, file=name, types=types)


def _same_path(parsed: Mapping[str, Parsed]) -> Iterator[Problem]:
    """Problems of paths that are one file on macOS, and mostly on Windows too."""
    first: dict[str, str] = {}
    for name in sorted(parsed):
        folded = canonical(canonical(name).casefold())
        if folded in first:
            how, where = _path_difference(name, first[folded])
            message = f"differs from {visible(first[folded])} only in {how}"
            hint = f"rename one of them: on {where} they are the same file"
            yield Problem(visible(name), 0, 0, "E305", message, hint)
        first.setdefault(folded, name)


def _path_difference(name: str, other: str) -> tuple[str, str]:
    """In what the two paths differ, and on which systems they are one file all the same."""
    if name.casefold() == other.casefold():
        return "upper and lower case", "Windows and macOS"
    normalisation = f"Unicode normalisation ({difference(name, other)})"
    if canonical(name) == canonical(other):
        return normalisation, "macOS"
    return f"upper and lower case and {normalisation}", "macOS"


def _same_name(parsed: Mapping[str, Parsed]) -> Iterator[Problem]:
    first: dict[str, tuple[str, str]] = {}
    for path in sorted(parsed):
        name, place = parsed[path].name, parsed[path].name_place
        if name is None:
            continue
        here = f"{path}:{place.line}:{place.column}"
        other, there = first.setdefault(canonical(name), (name, here))
        if there != here:
            message = f"name: {quoted(name)} is already the name of {there}"
            message += other_normalisation(name, other)
            hint = "give one of them another name"
            yield Problem(path, place.line, place.column, "E306", message, hint)


# --- opening a file ----------------------------------------------------------------------


class _Refusal(InvalidInput):
    """Why a file is not read: a problem without a place."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problem = (code, message, hint)


def _read(file: Path, path: str | None, reader: InsideReader) -> bytes:
    """The bytes of a recipe file, whose path below the root is `path`.

    Raises `_Refusal` if it must not or can't be read.
    """
    if path is None:
        raise _outside("is not inside", reader.root)
    if path.endswith(".safetensors"):
        message = "this is a LoRA file, not a recipe: a recipe's name ends in .yaml"
        raise _Refusal("E120", message, "name recipe files, or use compose inspect FILE")
    if UNSAFE.search(path) or "\\" in path or path[1:2] == ":":  # c:x is a drive on Windows
        message = "the file's path contains a control character, a backslash or a drive letter"
        raise _Refusal("E304", message, "rename it")
    try:
        data = reader.read(file, limit=MAX_BYTES)
    except OutsideError as error:
        raise _outside("is a link that leads out of", reader.root) from error
    except NotRegularError as error:
        raise _Refusal("E301", *_why_no_file(file)) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise _Refusal("E301", f"the file can't be read: {why}", "") from error
    if len(data) > MAX_BYTES:
        raise _Refusal("E302", *too_large(max(len(data), os.stat(file).st_size)))
    return data


def _why_no_file(path: Path) -> tuple[str, str]:
    """The message and hint for what is not a regular file."""
    try:
        os.scandir(path).close()
    except NotADirectoryError:
        pass
    except OSError as error:
        hint = "check its permissions, or leave it out with --exclude"
        return f"the folder can't be read: {error.strerror or error}", hint
    return "this is not a regular file", "a recipe must be a plain text file"


def _outside(how: str, root: Path) -> _Refusal:
    hint = "a recipe must be inside its project; copy the file there"
    return _Refusal("E303", f"the file {how} {visible(str(root))}", hint)
