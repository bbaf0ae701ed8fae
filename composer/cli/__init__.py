"""The command line: reads arguments, calls the Python API, prints, returns an exit status.

Commands are imported when they are called, so that `compose --help` and `compose validate` start
without what only other commands need.
"""

from __future__ import annotations

import gc
import os
import sys


def run() -> None:
    """The entry point `compose`."""
    # Neither modules nor values make cycles, and ten thousand recipes are many values.
    gc.set_threshold(100_000, 50)
    from composer.cli.main import compose, guarded
    from composer.cli.signals import leave_at_second_signal

    leave_at_second_signal()
    if "_COMPOSE_COMPLETE" in os.environ:  # a shell asks for completions
        from composer.cli.completion import answer

        sys.exit(answer(compose))
    status = guarded(sys.argv[1:])
    gc.freeze()  # what ends with the process needs no collection
    sys.exit(status)
