"""Whether the LoRAs that recipes name exist, as far as that can be told without a target.

A name that the lock pins is known. Others are looked up in the library, if there is one: by file
names, then by the titles in the files, whose tensors nobody reads. So `compose validate` stays fast
and offline, and needs no numpy; what is costly to import is imported only for unknown names.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from composer.errors import ComposeError, Problem
from composer.files.library import given_library, library_of, place_of
from composer.lora.errors import LoraFormatError
from composer.lora.folder import SUFFIX, find_files
from composer.lora.naming import Names, name_all, title_of
from composer.lora.opening import read_metadata
from composer.project.known_names import pinned_names
from composer.project.sources import with_sources
from composer.recipes import relative
from composer.recipes.loading import name_places
from composer.recipes.problems import NOWHERE, at_path, quoted
from composer.text import counted, did_you_mean, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from composer.lora.folder import LibraryFile
    from composer.model import Lock, Recipe
    from composer.project.project import Project
    from composer.project.sources import Sources
    from composer.targets.kind import TargetDefaults
    from composer.targets.local.notes import NotedTitles

MANY = 40  # files: to read fewer takes less time than to look for notes on them
POINTER = "Git LFS pointer"
NEAR = 0.8  # how like a pinned name another one must be to be told of
MOST = 100  # unknown names for which the nearest ones are looked for, which takes time


class CheckedNames(NamedTuple):
    """Names that no LoRA has, and what else to tell people about names."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def check_names(
    sources: Sources,
    project: Project,
    library: Path | str | None,
    env: Mapping[str, str],
) -> CheckedNames:
    """Look up the LoRAs that the chosen recipes name; `library` is one that the caller names.

    `env` is the environment, which may choose library, target and state folder. Raises `UsageError`
    if there is no such library, and `InvalidInput` for invalid settings.
    """
    root, pinned = project.root, _pinned(sources)
    wanted = {ref.name for one in sources.recipes for ref in one.concepts if ref.name} - pinned
    given, inside = given_library(library, env), project.settings.library
    folder = given or (root / inside if inside else None)
    must_exist = library is not None
    paths = [recipe.path for recipe in sources.recipes]
    files = _LoraNames.of(paths, root, folder, env, must_exist) if wanted else None
    unknown = files.unknown(wanted) if files else wanted
    if not unknown:
        return CheckedNames()
    defaults = project.target_defaults
    if given is None and defaults.library not in (None, folder):
        files = _LoraNames.of(paths, root, defaults.library, env)
        unknown = files.unknown(wanted) if files else wanted
    recipes = _chosen_with(unknown, sources, root)
    if files is None or not (given or _is_local(sources.lock, env, defaults)):
        return CheckedNames(notes=tuple(_near_pins(recipes, unknown, pinned)))
    if files.pointers and recipes:
        return CheckedNames(notes=(files.why_unchecked(unknown),))
    return CheckedNames(with_sources(files.problems(recipes, unknown, root), root))


def lora_names(
    project: Project,
    library: Path | str | None,
    env: Mapping[str, str],
    *,
    seconds: float = math.inf,
) -> list[str]:
    """The names to offer for LoRAs: those of the library, else those that the lock pins.

    `library` and `env` are as for `check_names`, which also says what is raised. Titles are read
    for so many seconds at most; a file whose title isn't read has its own name.
    """
    end = time.monotonic() + seconds
    lock, defaults = project.current_lock(), project.target_defaults
    given = given_library(library, env)
    if given or _is_local(lock, env, defaults):
        paths = [path for file in project.files if (path := relative(file, project.root))]
        folder = given or defaults.library
        files = _LoraNames.of(paths, project.root, folder, env, must_exist=library is not None)
        if files is not None:
            return files.own(end)
    return pinned_names(project)


def _chosen_with(unknown: set[str], sources: Sources, root: Path) -> list[Recipe]:
    """The chosen recipes that name one of these."""
    concerned = [one for one in sources.recipes if any(c.name in unknown for c in one.concepts)]
    meant = {relative(file, root) for file in sources.chosen}
    return [recipe for recipe in concerned if recipe.path in meant]


def _pinned(sources: Sources) -> set[str]:
    targets = sources.lock.targets.values()
    return {name for one in targets for entry in one.recipes.values() for name, _ in entry.pins}


def _is_local(lock: Lock, env: Mapping[str, str], defaults: TargetDefaults) -> bool:
    """Whether a plan would look names up in the library."""
    from composer.targets.kind import TargetOptions
    from composer.targets.registry import DEFAULT, choose

    try:
        return choose(TargetOptions(), lock.targets, env, defaults).kind == DEFAULT
    except ComposeError:
        return False


def _near_pins(
    recipes: Collection[Recipe], unknown: Collection[str], pinned: Collection[str]
) -> Iterator[str]:
    """Only the target knows whether a name that no pin has is right."""
    near = {
        name: other
        for name in sorted(unknown)[:MOST]
        if (other := did_you_mean(name, pinned, likeness=NEAR))
    }
    for recipe in recipes:
        for ref in recipe.concepts:
            if ref.name in near:
                where = f"{visible(recipe.path)}: no recipe in the lock has a LoRA named"
                yield f"{where} {quoted(ref.name)}; did you mean {visible(near[ref.name])}?"


# --- in a library ------------------------------------------------------------------------


class _LoraNames:
    """What the LoRAs of a library may be called; files are opened only where their names alone
    don't do."""

    def __init__(
        self, files: list[LibraryFile], folder: Path, root: Path, env: Mapping[str, str]
    ) -> None:
        self._files = files
        self._folder, self._root, self._env = folder, root, env
        self._place = place_of(folder, root)
        self._unreadable: list[str] = []

    @classmethod
    def of(
        cls,
        paths: Collection[str],
        root: Path,
        named: Path | str | None,
        env: Mapping[str, str],
        must_exist: bool = False,
    ) -> _LoraNames | None:
        """The names in this folder, or in that of the project.

        None where nothing is known: the project has no LoRA file, or the library is in an object
        store. Raises `UsageError` if a folder that must exist doesn't.
        """
        try:
            folder = library_of(root, paths, named, {})
            if isinstance(folder, str):
                return None
            files = [file for file in find_files(folder) if file.place.lower().endswith(SUFFIX)]
        except ComposeError:
            if must_exist:
                raise
            return None  # a plan says why
        return cls(files, folder, root, env) if files or named else None

    def unknown(self, names: set[str]) -> set[str]:
        """Those of the names that no file has."""
        rest = names - self._by_path.keys()
        return rest - self._by_title.keys() if rest else rest

    @cached_property
    def _by_path(self) -> dict[str, str]:
        """The names of the files themselves, each with a file."""
        named = {}
        for file in self._files:
            names = Names.of(None, [file.place], "")
            named.update(dict.fromkeys((*names.stems, *names.places), file.shown))
        return named

    @cached_property
    def _by_title(self) -> dict[str, str]:
        """The titles in the files, each with a file."""
        named = {}
        noted = self._notes() if len(self._files) >= MANY else None
        for file in self._files:
            try:
                title = None if file.problem else _title(file.path, noted)
            except LoraFormatError as error:
                self._unreadable.append(f"{file.shown} {error}")
            else:
                named[Names.of(title, [file.place], "").title] = file.shown
        return named

    def own(self, end: float) -> list[str]:
        """The name of each LoRA, as the target lists it; from `end` on, by the clock of
        `time.monotonic`, no more files are opened."""
        noted = self._notes() if len(self._files) >= MANY else None
        loras = {}
        for file in self._files:
            title = None
            with suppress(LoraFormatError, OSError):
                if not file.problem and time.monotonic() < end:
                    title = _title(file.path, noted)
            loras[file.place] = Names.of(title, [file.place], "")
        return sorted({names[0] for names in name_all(loras).values()})

    def _notes(self) -> NotedTitles | None:
        """What an earlier run noted: no file of which it noted the title is read."""
        from composer.files.state import state_dir
        from composer.targets.local.notes import NotedTitles

        try:
            return NotedTitles(state_dir(self._root, self._env), self._folder)
        except ComposeError:  # there is no state folder
            return None

    @property
    def pointers(self) -> list[str]:
        """The files whose titles are not on this machine."""
        return [words for words in self._unreadable if POINTER in words]

    def why_unchecked(self, unknown: Collection[str]) -> str:
        names = f"{counted(len(unknown), 'LoRA name')} can't be checked"
        return f"{names}: {self.pointers[0]}; run `git lfs pull`"

    def problems(
        self, recipes: Collection[Recipe], unknown: Collection[str], root: Path
    ) -> Iterator[Problem]:
        hints = {name: self._hint(name) for name in sorted(unknown)[:MOST]}
        where = f"in {visible(self._place)} ({counted(len(self._files), 'LoRA file')})"
        for recipe in recipes:
            names = [ref.name for ref in recipe.concepts if ref.name in unknown]
            places = name_places(root / recipe.path, root) if names else {}
            for name in filter(None, names):
                path, place = places.get(name, ((), NOWHERE))
                message = at_path(path, f"no LoRA is named {quoted(name)} {where}")
                hint = hints.get(name) or self._all
                yield Problem(visible(recipe.path), place.line, place.column, "E307", message, hint)

    def _hint(self, name: str) -> str:
        named = {**self._by_title, **self._by_path}
        near = did_you_mean(name, sorted(named))
        return f"did you mean {visible(near)} ({visible(named[near])})?" if near else ""

    @property
    def _all(self) -> str:
        if self._unreadable:
            return f"it may be the title of a file that can't be used: {self._unreadable[0]}"
        return f"compose models {visible(self._place)} lists the LoRAs with their names"


def _title(path: Path, noted: NotedTitles | None) -> str | None:
    """Raises `LoraFormatError`."""
    found = noted.find(path) if noted else None
    return found[0] if found else title_of(read_metadata(path))
