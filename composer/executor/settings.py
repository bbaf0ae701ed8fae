"""What an apply is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How to apply; times in seconds. `grace` is how long a new model may stay unseen."""

    grace: float
    poll_interval: float = 10.0
    timeout: float = 900.0
    parallelism: int = 8
    no_wait: bool = False
    max_cost: float | None = None  # in the target's units, for all trainings of one apply
