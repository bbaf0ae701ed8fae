"""Fetching the image of a job that is done: downloaded, kept, and only then the job closed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from composer.errors import TargetError, Unreachable
from composer.images.decoding import MAX_BYTES
from composer.renderers.base import Rendering
from composer.targets.http.downloads import Expired

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.renderers.base import Keep
    from composer.renderers.job_journal import JobJournal, Pending
    from composer.targets.scenario.generation import Generation
    from composer.targets.scenario.image_wire import Asset

AGAIN = "run the command again: it fetches the image and pays nothing"


@dataclass(frozen=True, slots=True)
class ImageReceiver:
    """Where images go, and who is told, by one thread at a time."""

    keep: Keep
    listener: Callable[[Rendering], None]
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, rendering: Rendering) -> None:
        with self._guard:
            self.listener(rendering)


@dataclass(frozen=True, slots=True)
class ImageFetcher:
    """Fetches images of jobs. Any thread may use it."""

    generation: Generation
    journal: JobJournal
    receiver: ImageReceiver

    def fetch(self, pending: Pending, asset: Asset) -> None:
        """Fetch this image, which is that of the job. Where that fails, the job stays open.

        Raises `TargetError`, also if it is no image or the disk is full.
        """
        self.receiver.tell(Rendering(pending.cell, "downloading"))
        try:
            self.receiver.keep(pending.cell, self._bytes(asset))
        except TargetError as error:
            is_lost = isinstance(error, Unreachable)
            kind = Unreachable if is_lost else TargetError
            hint = AGAIN if is_lost else error.hint or AGAIN
            raise kind(f"the image of the job {pending.job}: {error.message}", hint=hint) from error
        self.journal.close(pending)

    def _bytes(self, asset: Asset) -> bytes:
        """Its bytes; once more with a fresh URL, if this one has expired."""
        assert asset.url is not None
        download = partial(self.generation.download, limit=MAX_BYTES)
        try:
            return download(asset.url)
        except Expired:
            fresh = self.generation.assets([asset.id]).get(asset.id)
            if fresh is None or fresh.url is None:
                raise
            return download(fresh.url)
