"""The files beside recipes that a project needs once: each is created, or gets what it lacks.

Nothing that a file says is changed or removed. A repository may come from a stranger, so no link
is followed out of it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from composer.files.atomic import write_atomically
from composer.files.git import find_git, git
from composer.files.repository import is_inside, is_link, read_inside
from composer.files.schemas import schema, workflow
from composer.model import ADDED, CREATED, KEPT, LEFT, SetupStep
from composer.text import LOCK_NAME, SETTINGS_NAME, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_BYTES = 1024 * 1024
SCHEMA = "schemas/recipe.schema.json"
DRIVER = "compose lock --merge %O %A %B"
_ATTRIBUTES = f"{LOCK_NAME} text eol=lf merge=compose"
_WEIGHTS = ".safetensors"
_IGNORED = f"*{_WEIGHTS}"
_WHY_IGNORED = "# LoRA files and models are large. To commit them with git LFS, remove this."
_REMOTE = ("plan.yml", "comment.yml", "apply.yml", "lock-pull-request.yml", "drift.yml")
_LOCAL = ("build.yml",)
_HOOKS = rf"""
- repo: local
  hooks:
    - id: compose-validate
      name: compose validate
      entry: compose validate --
      language: system
      files: (^|/)({re.escape(SETTINGS_NAME)}|recipes/.*\.ya?ml)$
      require_serial: true
    - id: compose-lock
      name: compose lock
      entry: compose lock --offline --locked
      language: system
      files: (^|/)({re.escape(LOCK_NAME)}|recipes/.*\.ya?ml)$
      pass_filenames: false
""".removeprefix("\n")


class Scaffold:
    """Creates files in the project's root, and adds to them; with `dry_run` it only says so."""

    def __init__(self, root: Path, *, dry_run: bool) -> None:
        self._root, self._dry_run = root, dry_run

    def file(self, path: str, text: str) -> SetupStep:
        """Create a file. One that is there is kept."""
        return self.merge(path, lambda before: text if before is None else before)

    def merge(
        self, path: str, change: Callable[[str | None], str | None], by_hand: str = ""
    ) -> SetupStep:
        """Change the text of a file, None for one that isn't there.

        Where `change` gives None, the file is left as it is, and `by_hand` says what to do.
        """
        file = self._root / path
        if not is_inside(file, self._root) or is_link(file):
            return SetupStep(path, LEFT, "it is a link, which compose does not write to")
        try:
            before = read_inside(file, self._root, limit=MAX_BYTES).decode("utf-8")
        except FileNotFoundError:
            before = None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not a text file"
            return SetupStep(path, LEFT, f"it can't be read: {visible(str(why))}")
        after = change(before) if before is None or len(before) < MAX_BYTES else None
        if after is None:
            return SetupStep(path, LEFT, by_hand)
        if after == before:
            return SetupStep(path, KEPT)
        if not self._dry_run:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, after.encode())
        return SetupStep(path, CREATED if before is None else ADDED)

    def driver(self) -> SetupStep:
        """The merge driver of the lock, in the settings of this clone."""
        name = "git config merge.compose.driver"
        if find_git(self._root) is None:
            return SetupStep(name, LEFT, "git is not installed")
        if not (self._root / ".git").exists():
            return SetupStep(name, LEFT, "if you use git: run git init, then compose init again")
        if git(self._root, "config", "--get", "merge.compose.driver").stdout.strip():
            return SetupStep(name, KEPT)
        if self._dry_run:
            return SetupStep(name, CREATED)
        for key, value in (("name", f"merges {LOCK_NAME}"), ("driver", DRIVER)):
            done = git(self._root, "config", f"merge.compose.{key}", value)
            if done.returncode:
                why = visible(done.stderr.decode("utf-8", "replace").strip())
                return SetupStep(name, LEFT, why)
        return SetupStep(name, CREATED)

    def commits_weights(self) -> bool:
        """Whether the repository has LoRA files, or keeps them with git LFS."""
        if find_git(self._root) is None or not (self._root / ".git").exists():
            return False
        by_lfs = git(self._root, "check-attr", "filter", "--", f"x{_WEIGHTS}").stdout
        tracked = git(self._root, "ls-files", "--", _IGNORED).stdout
        return bool(tracked) or by_lfs.strip().endswith(b": lfs")


def common_files(scaffold: Scaffold, forge: str | None, *, remote: bool) -> Iterator[SetupStep]:
    """All but recipes and settings; `forge` is whose workflows are wanted, github or gitlab.

    They differ for a target that is `remote`.
    """
    yield scaffold.file(SCHEMA, schema("recipe"))
    if not scaffold.commits_weights():
        yield scaffold.merge(".gitignore", _with_ignored)
    yield scaffold.merge(".gitattributes", _with_attributes)
    yield scaffold.driver()
    by_hand = "add the hooks to repos: compose-validate and compose-lock, as in docs/gitops.md"
    yield scaffold.merge(".pre-commit-config.yaml", _with_hooks, by_hand)
    if forge == "github":
        for name in _REMOTE if remote else _LOCAL:
            yield _workflow(scaffold, name, f".github/workflows/compose-{name}")
    elif forge == "gitlab":
        yield _workflow(scaffold, "gitlab-ci.yml", ".gitlab-ci.yml")


def _workflow(scaffold: Scaffold, source: str, path: str) -> SetupStep:
    def change(before: str | None) -> str | None:
        if before is None:
            return workflow(source)
        return before if "compose" in before else None

    step = scaffold.merge(path, change, f"it has other jobs: add those of docs/{source} to it")
    owner = "replace OWNER, and pin each action to a commit; docs/gitops.md says what it needs"
    return replace(step, note=owner) if step.state == CREATED else step


def _with_ignored(before: str | None) -> str:
    lines = (before or "").splitlines()
    if any(line.strip() in (_IGNORED, f"!{_IGNORED}", f"/{_IGNORED}") for line in lines):
        return before or ""
    return _appended(before, f"{_WHY_IGNORED}\n{_IGNORED}\n")


def _with_attributes(before: str | None) -> str:
    rows = [line.split() for line in (before or "").splitlines()]
    ours = {word for row in rows if row[:1] == [LOCK_NAME] for word in row}
    if {"eol=lf", "merge=compose"} <= ours:
        return before or ""
    return _appended(before, f"{_ATTRIBUTES}\n")


def _appended(before: str | None, more: str) -> str:
    """A text with lines at its end, after a line end, and in that text's kind of line ends."""
    text = before or ""
    text += "\n" if text and not text.endswith("\n") else ""
    return text + (more.replace("\n", "\r\n") if "\r\n" in text else more)


# --- .pre-commit-config.yaml -------------------------------------------------------------

_LAST_KEY = re.compile(r"^[A-Za-z_][\w-]*:", re.MULTILINE)
_REPO = re.compile(r"^( *)- +repo:", re.MULTILINE)


def _with_hooks(before: str | None) -> str | None:
    """The file with the hooks at the end of `repos`; None where that is not the file's end.

    Whether the text means what it should is checked by reading it again.
    """
    if before is None or not before.strip():
        return f"repos:\n{_indented(_HOOKS, '  ')}"
    if "compose-validate" in before:
        return before
    keys, entries = _LAST_KEY.findall(before), _REPO.findall(before)
    if not keys or keys[-1] != "repos:" or not entries:
        return None
    after = _appended(before, _indented(_HOOKS, entries[-1]))
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(after)
        expected = {**old, "repos": [*old["repos"], *yaml.safe_load(_HOOKS)]}
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError):
        return None
    return after if new == expected else None


def _indented(text: str, indent: str) -> str:
    return "".join(f"{indent}{line}\n" for line in text.splitlines())
