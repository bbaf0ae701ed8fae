"""`compose`, with a painter in place of the renderer `diffusers`:

    python -m support.painting_server serve --base-model canvas

The painter's log, a line for each image, is the file that PAINTER_LOG names. It takes PAINTER_DELAY
seconds for each image, and is killed before image number PAINTER_DIES_AT of a job.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.painter import Painter, kind_of

from composer.cli import run
from composer.renderers import registry

if TYPE_CHECKING:
    from composer.previews.cells import Cell
    from composer.renderers.base import Keep


@dataclass
class SlowPainter(Painter):
    """A painter that takes its time."""

    delay: float = 0.0

    def _keep(self, cell: Cell, keep: Keep) -> None:
        time.sleep(self.delay)
        super()._keep(cell, keep)


def painter() -> SlowPainter:
    log, dies_at = os.environ.get("PAINTER_LOG"), os.environ.get("PAINTER_DIES_AT")
    return SlowPainter(
        log=Path(log) if log else None,
        dies_at=int(dies_at) if dies_at else None,
        delay=float(os.environ.get("PAINTER_DELAY", "0")),
    )


KIND = kind_of(painter(), name="diffusers")

if __name__ == "__main__":
    registry.BUILT_IN["diffusers"] = "support.painting_server"
    sys.exit(run())
