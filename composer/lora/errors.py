"""What is wrong with a LoRA file, before it is known which file that is.

The modules that look inside a file raise `LoraFormatError`; those that know the file's name turn
it into the `BadLora` that callers see.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from composer.errors import BadLora
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

SKIP_HINT = "`compose merge --skip-text-encoder` writes the LoRA without it"
SHOWN = 120  # characters of an untrusted text in a message


class LoraFormatError(ValueError):
    """What is wrong with a file, in words; `hint` is the next step, if there is one."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint

    def of(self, path: Path) -> BadLora:
        """The error that names the file."""
        return BadLora(f"{shown(path.name)}: {self}", hint=self.hint)


class Naming:
    """A context that turns a `LoraFormatError` into the `BadLora` that names the file at `path`."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LoraFormatError):
            raise error.of(self._path) from None


def shown(text: str) -> str:
    """An untrusted text, fit for a message: printable and short."""
    if len(text) <= SHOWN and text.isprintable():
        return text
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: SHOWN + 1])
    return plain if len(text) <= SHOWN else plain[:SHOWN] + "…"


def of_each(make: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """What `make` gives for each file, a few at a time. Raises `BadLora` with every bad file."""
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        outcomes = list(pool.map(partial(_outcome, make), paths))
    errors = [outcome for outcome in outcomes if isinstance(outcome, BadLora)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        message = f"{len(errors)} of {counted(len(paths), 'LoRA file')} can't be used"
        raise BadLora(message, hint="; ".join(map(str, errors)), errors=errors)
    return [outcome for outcome in outcomes if not isinstance(outcome, BadLora)]


def _outcome(make: Callable[[Path], T], path: Path) -> T | BadLora:
    try:
        return make(path)
    except BadLora as error:
        return error
    except OSError as error:
        return BadLora(f"{visible(str(path))} can't be read: {error.strerror or error}")
