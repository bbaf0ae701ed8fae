"""What the engine makes of training parameters: the rank and the number type of a result.

`checks` asks before anything is written, the worker when it composes; `compose merge` takes the
same two words. All other parameters mean nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.text import shorten, visible

if TYPE_CHECKING:
    from composer.model import Parameters, Value

PRECISIONS = MappingProxyType({"float32": "F32", "bfloat16": "BF16", "float16": "F16"})


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The most that a layer's rank may be, and the precision; None leaves it to the parts."""

    rank: int | None = None
    precision: str | None = None

    @property
    def dtype(self) -> str | None:
        """The precision as safetensors names it."""
        return PRECISIONS[self.precision] if self.precision else None


def wanted(parameters: Parameters) -> OutputOptions:
    """What these parameters ask for. Raises `TargetError` for values that can't be."""
    given = dict(parameters)
    return OutputOptions(_rank(given.get("rank")), _precision(given.get("precision")))


def _rank(value: Value) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise _refusal("rank", value, "a whole number from 1")
    return value


def _precision(value: Value) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in PRECISIONS:
        raise _refusal("precision", value, f"one of {', '.join(PRECISIONS)}")
    return value


def _refusal(name: str, value: Value, wanted: str) -> TargetError:
    told = shorten(visible(repr(value)), 60)
    return TargetError(
        f"the training parameter {name} is {told}, and should be {wanted}",
        hint="mend it, or leave it out",
    )
