"""What the door refuses, as exceptions that carry the HTTP status; `app` makes answers of them.

The calls and the checks before them raise these. The engine's own errors get their status here.
"""

from __future__ import annotations

from composer.errors import ComposeError, NotFound, Unreachable


class Refusal(ComposeError):
    """A call that gets no: why, and the HTTP status that says so."""

    status = 400

    def __init__(self, message: str, *, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status or type(self).status


def status_of(error: ComposeError) -> int:
    """The HTTP status of an error: a refusal's own, 404, 503 (try again), else 400."""
    match error:
        case Refusal():
            return error.status
        case NotFound():
            return 404
        case Unreachable():
            return 503
    return 400
