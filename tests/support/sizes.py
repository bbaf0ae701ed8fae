"""How many examples the tests take: the small size in `.ci/run`, the large one in `.ci/soak`."""

import os


def size(small: int, large: int) -> int:
    """`small`, or `large` where COMPOSE_SOAK=1 asks for the long run."""
    return large if os.environ.get("COMPOSE_SOAK") == "1" else small
