"""The command line: reads arguments, calls the Python API, prints, returns an exit status.

Commands are imported when they are called, so that `compose --help` and `compose validate` start
without what only other commands need.
"""

from __future__ import annotations

import sys

from composer.cli.main import guarded


def run() -> None:
    """The entry point `compose`."""
    sys.exit(guarded(sys.argv[1:]))
