"""How many examples the tests take: the small size in `.ci/run`, a multiple of it in `.ci/soak`."""

import os


def soak_factor() -> int:
    """How many times the small size the long run takes; 0 in the short one."""
    return int(os.environ.get("COMPOSE_SOAK") or 0)


def size(small: int, large: int) -> int:
    """`small`; in the long run `small` times its factor, but at most `large`.

    A size of 0 or 1 is a switch, and the long run has it on.
    """
    factor = soak_factor()
    if not factor:
        return small
    return large if small <= 1 else min(large, small * factor)
