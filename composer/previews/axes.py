"""The axes of a sweep: concepts of a recipe, each with the scales that it is shown at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.model import rounded
from composer.text import canonical, counted, did_you_mean, listed, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.model import Recipe

MOST_AXES = 2
MOST_SCALES = 25  # of an axis: with the column without LoRA, columns are named A to Z
LIMIT = 2.0  # no target takes a scale that is not within -2..2
EXAMPLE = "NAME=0.2..0.8/4 for 0.2, 0.4, 0.6 and 0.8, or NAME=0.2,0.5,0.8"

_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_NUMBER = re.compile(_DIGITS, re.IGNORECASE | re.ASCII)
_RANGE = re.compile(rf"({_DIGITS})\s*\.\.\s*({_DIGITS})\s*(?:/\s*(\S*))?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Axis:
    """A concept of a recipe by its index, what the recipe calls it, and its scales in order."""

    concept: int
    label: str
    scales: tuple[float, ...]

    def title(self, scale: float) -> str:
        """`Ink Lines 0.4`."""
        return f"{self.label} {scale:g}"


# --- as text -----------------------------------------------------------------------------


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The scales by the concept's name, of texts as `Ink Lines=0.2..0.8/4`. Raises `UsageError`."""
    axes: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, scales = _parse(text)
        if name in axes:
            raise UsageError(
                f"two axes are named {visible(name)}", hint="list all of its scales on one axis"
            )
        axes[name] = checked_scales(name, scales)
    return axes


def _parse(text: str) -> tuple[str, list[float]]:
    """A name and its scales: a range with how many there are, or a list."""
    name, equals, scales = (part.strip() for part in text.rpartition("="))
    if not equals or not name:
        raise UsageError(f"the axis '{visible(text)}' is not NAME=SCALES", hint=f"write {EXAMPLE}")
    if found := _RANGE.fullmatch(scales):
        first, last, count = found.groups()
        return name, _spread(name, float(first), float(last), count)
    numbers = [number.strip() for number in scales.split(",")]
    for number in numbers:
        if not _NUMBER.fullmatch(number):
            what = f"'{visible(number)}' is not a scale" if number else "a scale is missing"
            raise UsageError(f"the axis '{visible(text)}': {what}", hint=f"write {EXAMPLE}")
    return name, [float(number) for number in numbers]


def _spread(name: str, first: float, last: float, count: str | None) -> list[float]:
    """So many scales from the first to the last one, evenly. Raises `UsageError`."""
    shown = f"{visible(name)}={first:g}..{last:g}"
    if not count:
        raise UsageError(
            f"the axis {shown} doesn't say how many scales", hint=f"write {shown}/4 for 4 of them"
        )
    if not (count.isascii() and count.isdecimal()):
        hint = _as_count(first, last, count, shown) or f"write {shown}/4 for 4 of them"
        raise UsageError(
            f"the axis {shown}/{visible(count)}: after / is how many scales, a whole number",
            hint=hint,
        )
    many = int(count[:10])
    if not 2 <= many <= MOST_SCALES:
        raise UsageError(
            f"the axis {shown}/{count[:10]}: a range has 2 to {MOST_SCALES} scales",
            hint=f"write {shown}/4 for 4 of them, or {visible(name)}={first:g} for one",
        )
    for end in (first, last):
        _check_within(name, end)
    return [first + (last - first) * n / (many - 1) for n in range(many)]


def _as_count(first: float, last: float, step: str, shown: str) -> str:
    """What to write for somebody who gave the step, as `compose merge` takes it; else empty."""
    if not _NUMBER.fullmatch(step) or not 1e-4 <= float(step) <= 2 * LIMIT:
        return ""
    many = abs(last - first) / float(step) + 1
    if abs(many - round(many)) > 1e-6 or not 2 <= round(many) <= MOST_SCALES:
        return ""
    return f"write {shown}/{round(many)} for steps of {step}"


# --- of a recipe -------------------------------------------------------------------------


def checked_scales(name: str, scales: Sequence[float]) -> tuple[float, ...]:
    """The scales, rounded to 4 decimals. Raises `UsageError` for what can be no axis."""
    shown = f"the axis {visible(name)}"
    if not 1 <= len(scales) <= MOST_SCALES:
        raise UsageError(
            f"{shown} has {counted(len(scales), 'scale')}",
            hint=f"an axis has 1 to {MOST_SCALES}; use more than one sweep for more",
        )
    for scale in scales:
        _check_within(name, scale)
    exact = tuple(rounded(scale) for scale in scales)
    twice = next((scale for n, scale in enumerate(exact) if scale in exact[:n]), None)
    if twice is not None:
        raise UsageError(
            f"{shown} has the scale {twice:g} twice",
            hint="scales are rounded to 4 decimals: leave one out",
        )
    return exact


def _check_within(name: str, scale: float) -> None:
    if not -LIMIT <= scale <= LIMIT:  # NaN is in no range
        raise UsageError(f"the axis {visible(name)}: the scale {scale:g} is not within -2..2")


def axes_of(scales: Mapping[str, Sequence[float]], recipe: Recipe) -> tuple[Axis, ...]:
    """The axes for a recipe, from scales by the name or id of its concepts. Raises `UsageError`."""
    if not 1 <= len(scales) <= MOST_AXES:
        raise UsageError(
            f"a sweep has 1 or {MOST_AXES} axes, not {len(scales)}", hint=f"write {EXAMPLE}"
        )
    axes = []
    for name, values in scales.items():
        index = _index(name, recipe)
        axes.append(Axis(index, recipe.concepts[index].label, checked_scales(name, values)))
    if len({axis.concept for axis in axes}) < len(axes):
        raise UsageError(f"two axes are {visible(axes[0].label)}", hint="leave one out")
    return tuple(axes)


def _index(name: str, recipe: Recipe) -> int:
    """Which concept of the recipe has this name or id."""
    labels = [ref.label for ref in recipe.concepts]
    for index, label in enumerate(labels):
        if canonical(label) == canonical(name):
            return index
    near = did_you_mean(name, labels)
    shown = [visible(label) for label in labels]
    raise UsageError(
        f"{visible(recipe.path)} has no concept {visible(name)}",
        hint=f"did you mean {visible(near)}?" if near else f"it has {listed(shown, most=5)}",
    )


def check_limits(axes: Sequence[Axis], limits: tuple[float, float], why: str) -> None:
    """Raise `UsageError`, with the reason, for a scale that the target doesn't take."""
    low, high = limits
    for axis in axes:
        for scale in axis.scales:
            if not low <= scale <= high:
                raise UsageError(
                    f"the scale {scale:g} of {visible(axis.label)} is outside {low:g}..{high:g}",
                    hint=why,
                )
