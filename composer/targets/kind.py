"""What a kind of target is: a name, and the functions that choose and open targets of that kind.

`local.kind` and `scenario.kind` define the built-in ones, other distributions theirs; `registry`
finds a kind by name and chooses one.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.files.library import as_library as as_library
from composer.text import SETTINGS_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from composer.errors import Check
    from composer.targets.base import Target


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the caller asks for: a target's name or URL, its project, the folder of LoRA files.

    A `library` may also be a text: the URL of a folder in an object store, `s3://BUCKET/FOLDER`.
    A `project` of None leaves the choice to the environment; an empty one means no project.
    `executor` says who composes for the local target: `processes:N` or `dask://HOST:PORT`.
    """

    target: str | None = None
    project: str | None = None
    library: Path | str | None = None
    executor: str | None = None

    @property
    def flags(self) -> str:
        """The same as command line flags, for the end of a command that a message proposes."""
        named = {"--target": self.target, "--project": self.project, "--library": self.library}
        given = [(flag, str(value)) for flag, value in named.items() if value is not None]
        return "".join(f" {flag} {shlex.quote(value)}" for flag, value in given)


@dataclass(frozen=True, slots=True)
class TargetDefaults:
    """What holds of targets where neither the caller nor the environment says otherwise.

    It is what `compose.toml` says; `library`, too, unless this machine remembers another folder:
    `library_source` says which.
    """

    target: str | None = None
    project: str | None = None
    library: Path | None = None
    library_source: str = SETTINGS_NAME


NO_DEFAULTS = TargetDefaults()
REMEMBERED = "remembered by compose init"  # the source of a library outside the project


@dataclass(frozen=True, slots=True)
class TargetContext:
    """What targets may know of the project that they are opened for.

    `recipe_paths` are relative to `root`, `lock_keys` the targets in the lock. `state_folder`
    gives the folder of this machine's state, and creates it first if its argument is true.
    """

    root: Path
    recipe_paths: tuple[str, ...]
    lock_keys: tuple[str, ...]
    state_folder: Callable[[bool], Path]
    defaults: TargetDefaults = NO_DEFAULTS


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """All that a kind gets to open a target: for which project, and how.

    `name` is what was asked for: the kind's name, or a URL. With `run_jobs` false the target is
    only read; with `dry_run` nothing at all is written, not even what it remembers of files.
    `sleep` takes seconds, and may raise to end a wait. `scanning` is told how much of a library was
    looked through, 0..1, while that may take long, and 1 at its end.
    """

    name: str
    context: TargetContext
    options: TargetOptions = field(default_factory=TargetOptions)
    env: Mapping[str, str] = field(default_factory=dict)
    run_jobs: bool = True
    dry_run: bool = False
    parallelism: int = 8
    sleep: Callable[[float], None] = time.sleep
    scanning: Callable[[float], None] = lambda share: None


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a kind gets to check what `doctor` reports of it, whichever target is chosen.

    `asked_for` is the target's name or URL that the caller or the environment names, if any.
    `context` is None where the project can't be read. `used_ids` gives the ids that lock and
    journal name for the target with a key; it raises `InvalidInput` for a broken journal.
    """

    asked_for: str
    options: TargetOptions
    env: Mapping[str, str]
    context: TargetContext | None
    used_ids: Callable[[str], Collection[str]]


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained composition that somebody wants to use.

    `key` is that of its target in the lock, `state` the folder of this machine's state. `file` is
    what the texts call its file where they are for others, who don't have that folder.
    """

    key: str
    id: str
    name: str
    type: str
    state: Path
    file: str = ""


def _no_usage(composition: Trained) -> Mapping[str, str]:
    return {}


def _no_checks(request: CheckRequest) -> Iterable[Check]:
    return ()


@dataclass(frozen=True, slots=True)
class TargetKind:
    """A kind of target. Only `name` and `open` are needed.

    - `name` is what `--target` takes, and what the keys of its targets in the lock begin with.
    - `open(request)` returns the opened target.
    - `lock_key(name, project, env)` is the key in the lock of the target that `name` (the kind's
      name or a URL) means; by default the kind's name. Raises `UsageError`.
    - `takes_urls`: a URL given as `--target` means a target of this kind.
    - `credentials` are the names of environment variables, in alternative groups: one complete
      group is enough. Without any, the target needs no credentials.
    - `settings` are the names of the other environment variables that it reads.
    - `checks(request)` are what `doctor` reports of targets of this kind and their settings. It
      may raise a `ComposeError`, and changes nothing.
    - `usage(composition)` is how to make an image with a trained composition: a text to paste for
      each program that can. Raises `ComposeError`.
    """

    name: str
    open: Callable[[OpenRequest], Target]
    lock_key: Callable[[str, str | None, Mapping[str, str]], str] | None = None
    takes_urls: bool = False
    credentials: tuple[tuple[str, ...], ...] = ()
    settings: tuple[str, ...] = ()
    checks: Callable[[CheckRequest], Iterable[Check]] = _no_checks
    usage: Callable[[Trained], Mapping[str, str]] = _no_usage

    def key(self, name: str, project: str | None, env: Mapping[str, str]) -> str:
        """The key in the lock of the target that `name` means. Raises `UsageError`."""
        return self.lock_key(name, project, env) if self.lock_key else self.name

    def has_credentials(self, env: Mapping[str, str]) -> bool:
        """Whether one group of its credentials is complete; never whether they are right."""
        return any(all(env.get(name) for name in group) for group in self.credentials)

    def half_set(self, env: Mapping[str, str]) -> str:
        """In words, where no group of its credentials is complete, and one is set in part."""
        for group in () if self.has_credentials(env) else self.credentials:
            given = [name for name in group if env.get(name)]
            missing = [name for name in group if not env.get(name)]
            if given and missing:
                return f"{' and '.join(given)} is set, but {' and '.join(missing)} is not"
        return ""
