"""The engine's part of the state folder: what lies where in it.

The service creates it, the worker puts results in place. No place in it is followed as a link.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.files.repository import is_link
from composer.model import is_id

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folder:
    """The places in the state folder; `root` is that folder itself."""

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
            if is_link(path):
                raise TargetError(
                    f"{path} is a link, and compose never follows one there",
                    hint="remove the link; compose creates its own",
                )

    def prepare(self) -> None:
        """Create the folders that are missing. Raises `TargetError`."""
        self.refuse_links()
        try:
            self.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(
                f"the engine can't make its folder {self.models}: {error.strerror or error}",
                hint="make that folder writable, or use another target",
            ) from error
