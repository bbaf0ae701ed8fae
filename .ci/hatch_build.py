"""What hatchling puts into the archives: the files that git tracks, and nothing else.

A wheel that is built where git knows nothing, as from an unpacked source archive, has all files of
its two folders; a source archive needs git. A wheel also brings man pages, which
`man_pages.py` makes of the commands' help.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Folders and files, and where they go.
WHEEL = {
    "composer": "composer",
    "schemas": "composer/schemas",
    "docs/workflows": "composer/workflows",
    "docs/gitlab-ci.yml": "composer/workflows/gitlab-ci.yml",
}


class TrackedFiles(BuildHookInterface):
    """Called by hatchling before it collects the files of a wheel or of a source archive."""

    def dependencies(self) -> list[str]:
        """What the man pages of a wheel need: they come from the commands' own help."""
        metadata = self.build_config.builder.metadata
        return (
            ["click-man>=0.5", *metadata.core.dependencies] if self.target_name == "wheel" else []
        )

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # a path to the sources, and no file
            return
        files = tracked(Path(self.root))
        if self.target_name == "sdist":
            if files is None:
                raise RuntimeError("a source archive has what git tracks; build it in a git clone")
            included = {file: file for file in files}
        else:
            files = present(Path(self.root)) if files is None else files
            included = {file: place for file in files if (place := in_wheel(file))}
            build_data["shared_data"] |= self._man_pages()
        build_data["force_include"] |= {
            os.path.join(self.root, file): place for file, place in included.items()
        }

    def _man_pages(self) -> dict[str, str]:
        """The pages, written into a folder until the wheel has them, and where they go."""
        self._pages = TemporaryDirectory()
        script = os.path.join(self.root, ".ci", "man_pages.py")
        paths = os.pathsep.join(filter(None, [self.root, os.environ.get("PYTHONPATH")]))
        dated = os.environ.get("SOURCE_DATE_EPOCH") or changed(Path(self.root))
        env = {**os.environ, "PYTHONPATH": paths, "SOURCE_DATE_EPOCH": dated}
        subprocess.run([sys.executable, script, self._pages.name], env=env, check=True)
        pages = sorted(os.listdir(self._pages.name))
        return {os.path.join(self._pages.name, page): f"share/man/man1/{page}" for page in pages}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_pages"):
            self._pages.cleanup()


def changed(root: Path) -> str:
    """The date of the man pages, in seconds: the same in every wheel of one source tree."""
    return str(int((root / "pyproject.toml").stat().st_mtime))


def tracked(root: Path) -> list[str] | None:
    """The files that git tracks in this folder; None where it is no clone, or git can't read it."""
    if not (root / ".git").exists():
        return None
    env = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        ran = subprocess.run(["git", "ls-files", "-z"], cwd=root, env=env, capture_output=True)
    except FileNotFoundError:
        return None
    names = os.fsdecode(ran.stdout).split("\0") if ran.returncode == 0 else []
    return [name for name in names if name and (root / name).is_file()] or None


def present(root: Path) -> list[str]:
    """Every file of the wheel's folders, without what Python caches."""
    places = [path for place in WHEEL for path in (root / place, *(root / place).rglob("*"))]
    files = (path for path in places if path.is_file())
    return [
        file.relative_to(root).as_posix() for file in files if file.parent.name != "__pycache__"
    ]


def in_wheel(file: str) -> str | None:
    """Where this file lies in the wheel; None if it is not in it."""
    for place, into in WHEEL.items():
        if file == place or file.startswith(f"{place}/"):
            return into + file.removeprefix(place)
    return None
