"""Every error that a user may see, each with its exit status.

    ComposeError                 1
    ├── UsageError              64   the command line asks for something impossible
    ├── InvalidInput            65   a recipe, the lock, the journal or the state folder is invalid
    ├── Refused                  3   refused by a guard, `--expect`, `--locked` or a cost limit
    ├── BadLora                  1   a file that is not a LoRA that compose can read
    └── TargetError              1   the target refused; trying again does not help
        ├── CredentialsError    77   no or wrong credentials, or another owner
        ├── NotFound             1   no model or job of that id
        ├── CeilingReached       1   the vendor's subscription allows no more of this
        ├── StillRunning        75   a job had not ended in time; the next run continues it
        └── Unreachable         69   no answer; trying again may help
            └── Ambiguous       69   a write may or may not have taken effect

A message says what happened, where and why; `hint` says what to do next. Any other error is an
internal error: the command line writes it to a log file and names that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class ExitStatus(IntEnum):
    """What an exit status means; a signal's is 128 and its number."""

    DONE = 0
    FAILED = 1
    PENDING = 2  # changes or drift, with --detailed-exitcode
    REFUSED = 3
    USAGE = 64
    INVALID = 65
    UNREACHABLE = 69
    TRAINING = 75  # still in training
    CREDENTIALS = 77
    INTERRUPTED = 130  # by Ctrl-C
    TERMINATED = 143


# The statuses that may apply together, the gravest first.
_PRIORITY = (
    ExitStatus.INTERRUPTED,
    ExitStatus.TERMINATED,
    ExitStatus.CREDENTIALS,
    ExitStatus.UNREACHABLE,
    ExitStatus.REFUSED,
    ExitStatus.FAILED,
    ExitStatus.TRAINING,
    ExitStatus.PENDING,
)


def gravest(statuses: Iterable[int]) -> int:
    """The exit status of a command to which several apply; 0 if there are none."""
    given = {int(status) for status in statuses}
    return next((int(s) for s in _PRIORITY if s in given), max(given, default=0))


class Problem(NamedTuple):
    """A problem in a file: where (1-based; 0 if unknown), what is wrong, and what to do.

    `code` is stable (`E103`). `source` is that line of the file as it is, for people alone; empty
    where there is none to show.
    """

    file: str
    line: int
    column: int
    code: str
    message: str
    hint: str = ""
    source: str = ""


OK, NOTE, WRONG, SKIPPED = "ok", "note", "wrong", "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """Something that `doctor` checked: `state` is ok, note, wrong or skipped.

    `section` groups checks for a reader, and `hint` says how to fix or improve what was found.
    `wrong_status` is the exit status of a check whose state is wrong.
    """

    section: str
    state: str
    words: str
    hint: str = ""
    wrong_status: int = ExitStatus.FAILED

    @property
    def exit_status(self) -> int:
        """0 unless the state is wrong."""
        return self.wrong_status if self.state == WRONG else 0


class ComposeError(Exception):
    """What happened and why, in one line; `hint` is the next step, if there is one."""

    exit_status: int = ExitStatus.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ComposeError):
    """The command line asks for something impossible."""

    exit_status: int = ExitStatus.USAGE


class InvalidInput(ComposeError):
    """Files are invalid: `problems` with their places; `files` is the number of files read."""

    exit_status: int = ExitStatus.INVALID

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        problems: Sequence[Problem] = (),
        files: int = 0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)
        self.files = files


class Refused(ComposeError):
    """Something that compose does only if a flag allows it."""

    exit_status: int = ExitStatus.REFUSED


class BadLora(ComposeError):
    """A file that is not a readable LoRA; the message names the file and the reason.

    Where several files are bad, `errors` has one for each.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, errors: Sequence[BadLora] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.errors = tuple(errors)


class TargetError(ComposeError):
    """The target refused; trying again does not help."""


class CredentialsError(TargetError):
    """No credentials, wrong ones, or ones of another owner than the lock's."""

    exit_status: int = ExitStatus.CREDENTIALS


class NotFound(TargetError):
    """The target has no model or job of that id."""


class CeilingReached(TargetError):
    """The vendor's subscription allows no more of something; `action` is the target's name for it.

    If it is `parallel-training`, another try can succeed once a running training has ended.
    """

    def __init__(self, message: str, *, hint: str | None = None, action: str = "") -> None:
        super().__init__(message, hint=hint)
        self.action = action


class StillRunning(TargetError):
    """A job had not ended when the wait for it was over; it goes on, and the next run continues."""

    exit_status: int = ExitStatus.TRAINING


class Unreachable(TargetError):
    """The target did not answer; trying again may help."""

    exit_status: int = ExitStatus.UNREACHABLE


class Ambiguous(Unreachable):
    """A write got no readable answer: it may have taken effect, so look before repeating."""


class Stopped(Exception):
    """A signal asked to start nothing new; no user sees this one."""
