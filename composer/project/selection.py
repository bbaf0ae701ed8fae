"""Which of a project's recipes a use case is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recipe files are meant: files or folders, and globs relative to the project's root.

    Without paths: the folder `recipes/`. `since` is a git revision: of these files, those that git
    does not have in it as they are now.
    """

    paths: tuple[Path, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: str | None = None

    @property
    def names_files(self) -> bool:
        """Whether paths or globs choose among the project's recipe files."""
        return bool(self.paths or self.include or self.exclude)

    @property
    def why_left_out(self) -> str:
        """Why the other recipes of the project are not meant."""
        named = ["not named by a path or pattern"] if self.names_files else []
        since = [f"not changed since {self.since}"] if self.since is not None else []
        return ", or ".join([*since, *named])


ALL_RECIPES = Selection()
