"""The engine's folder `.compose/`: what lies where in it, and how it is made safely.

The service prepares it, the worker puts results in place. It is never followed as a link: a
repository could bring one that leads anywhere.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.model import is_id

if TYPE_CHECKING:
    from pathlib import Path

# What Windows calls links: symbolic ones and junctions (winnt.h).
REPARSE_LINKS = frozenset({0xA000000C, 0xA0000003})


@dataclass(frozen=True, slots=True)
class Folder:
    """The places in `.compose/`; `root` is that folder itself."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "engine.sqlite3"

    @property
    def lock(self) -> Path:
        return self.root / "worker.lock"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def result(self, id: str) -> Path:
        """Where the composed file of this composition lies, once trained."""
        return self.models / f"{id}.safetensors"

    def temporary(self, id: str) -> Path:
        """Where it is written before; only the holder of the worker's lock writes there."""
        return self.models / f".{id}.{os.getpid()}.tmp"

    def result_size(self, id: str) -> int | None:
        """Bytes of a composition's result; None where there is no such file (a link is none)."""
        try:
            status = self.result(id).lstat()
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def results(self) -> dict[str, int]:
        """The results that are there: bytes of each, by the id in its name."""
        names = sorted(file.stem for file in self.models.glob("*.safetensors"))
        sizes = {name: self.result_size(name) for name in names if is_id(name)}
        return {name: size for name, size in sizes.items() if size is not None}

    def sweep(self) -> None:
        """Remove temporary files that a killed worker left; only under the worker's lock."""
        for file in self.models.glob(".*.tmp"):
            with suppress(OSError):  # one that can't be removed is no reason not to work
                file.unlink()

    def refuse_links(self) -> None:
        """Raise `TargetError` if the folder, or a place in it, is a link."""
        for path in (self.root, self.models, self.database, self.lock):
            if _is_link(path):
                raise TargetError(
                    f"{path} is a link, and compose never follows one there",
                    hint="remove the link; compose makes a folder of its own",
                )

    def prepare(self) -> None:
        """Make the folder, with a `.gitignore` that hides all of it; `TargetError` if it can't."""
        self.refuse_links()
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists() or ignore.stat().st_size == 0:
                ignore.write_bytes(b"*\n")
        except OSError as error:
            raise TargetError(
                f"the engine can't make its folder {self.models}: {error.strerror or error}",
                hint="make the project's folder writable, or use another target",
            ) from error


def _is_link(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False  # not there, or not to be seen: what comes next says so
    tag = getattr(status, "st_reparse_tag", 0)
    return stat.S_ISLNK(status.st_mode) or tag in REPARSE_LINKS
