"""What `compose.toml` can say, as a value; `settings_file` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from composer.previews.look import NO_PREVIEW_SETTINGS, PreviewSettings

if TYPE_CHECKING:
    from composer.errors import Problem


class Settings(NamedTuple):
    """What `compose.toml` says; None where it says nothing.

    `library` is relative to the project's root, with `/`. `exclude` are patterns of files that are
    no recipes.
    """

    target: str | None = None
    project: str | None = None
    library: str | None = None
    exclude: tuple[str, ...] = ()
    parallelism: int | None = None
    previews: PreviewSettings = NO_PREVIEW_SETTINGS


class ReadSettings(NamedTuple):
    """The settings, which say nothing where there are problems. `exists`: there is a file."""

    settings: Settings = Settings()
    problems: tuple[Problem, ...] = ()
    exists: bool = False
