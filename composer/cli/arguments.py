"""Arguments and options of commands that need no project: LoRA files with their scales, numbers,
`--dry-run`.

They are apart from the others so that `compose merge` starts without what plans and targets need.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.errors import UsageError
from composer.files.delivery import MOST_FILES, check_input_link
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.types import OptionHelpExtra

    Command = Callable[..., Any]


class NumberOption(click.Option):
    """An option whose help text and messages say its range in words, not as click's `x>=0`."""

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """NaN is in no range."""
        kind = self.type
        if value is not None and isinstance(kind, click.FloatRange | click.IntRange):
            plain = click.INT if isinstance(kind, click.IntRange) else click.FLOAT
            number, low, high = plain.convert(value, self, ctx), kind.min, kind.max
            if not ((low is None or number >= low) and (high is None or number <= high)):
                words = f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
                raise click.BadParameter(f"{visible(str(value))} must be {words}", ctx, self)
        return super().type_cast_value(ctx, value)


_dry_run = click.option(
    "--dry-run", is_flag=True, help="Show what would be done, then stop. Nothing is written."
)


def dry_running(command: Command) -> Command:
    """Adds `--dry-run`; then what the command prints for people begins with "Dry run:"."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        if given["dry_run"] and given.get("output_format") != "json":
            click.echo("Dry run: nothing is written.")
        return command(**given)

    return _dry_run(wrapper)


# --- LoRA files as arguments -------------------------------------------------------------

LIMIT = 2.0  # scales are within -2..2
LEAST = 1e-6  # and not closer to 0 than this: a smaller one changes no image
_DIGITS = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_NUMBER = re.compile(_DIGITS, re.IGNORECASE | re.ASCII)
_RANGE = re.compile(
    rf"(?P<first>{_DIGITS})\.\.(?P<last>{_DIGITS})(?:/(?P<step>{_DIGITS}))?",
    re.IGNORECASE | re.ASCII,
)


def lora_argument(text: str) -> tuple[Path, float]:
    """A path and a scale, 1 if none is given. Raises `UsageError` for a scale not within -2..2,
    and for a file in the repository that leads out of it through a link.

    Only a number after the last colon is a scale: `C:\\loras\\ink.safetensors` is a path, and
    `C:\\loras\\ink.safetensors:0.65` has a scale of 0.65.
    """
    path, colon, number = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(number):
        _check_typo(text, path, number)
        return _path(text, text), 1.0
    _check_meaning(text, path, number)
    return _path(path, text), _scale(number, path, text)


def swept_argument(text: str) -> tuple[Path, tuple[float, ...]]:
    """The same with several scales, if they are written as `0.4..1.0/0.2`: from 0.4 to 1.0, and 0.2
    from one to the next. It may go down; the last scale is the last step within the range.
    """
    path, _, scales = text.rpartition(":")
    found = _RANGE.fullmatch(scales)
    if not path or not found:
        file, scale = lora_argument(text)
        return file, (scale,)
    _check_meaning(text, path, scales)
    if found["step"] is None:
        raise UsageError(
            f"{visible(text)}: the range has no step", hint=f"write {visible(text)}/0.1"
        )
    first, last = (_scale(found[end], path, text) for end in ("first", "last"))
    return _path(path, text), _steps(first, last, float(found["step"]), text)


def _steps(first: float, last: float, step: float, text: str) -> tuple[float, ...]:
    """All scales of a range. Raises `UsageError`."""
    from decimal import Decimal

    start, end, distance = (Decimal(repr(number)) for number in (first, last, step))
    span = abs(end - start)  # in decimals, three times 0.2 is 0.6
    if not LEAST <= step <= 2 * LIMIT or distance > span > 0:
        raise UsageError(
            f"{visible(text)}: the step {step:g} does not fit the range",
            hint="it is the distance from one scale to the next, as in 0.4..1.0/0.2",
        )
    count = int(span / distance) + 1
    if count > MOST_FILES:
        raise UsageError(
            f"{visible(text)}: the range has {count:,} scales, and a sweep writes at most"
            f" {MOST_FILES} files",
            hint="use a larger step",
        )
    signed = distance if end > start else -distance
    return tuple(float(start + n * signed) + 0.0 for n in range(count))


def _scale(number: str, path: str, text: str) -> float:
    """Raises `UsageError` for one that is not within -2..2, or too close to 0."""
    scale = float(number)
    if abs(scale) < LEAST and re.search("[1-9]", number.lower().partition("e")[0]):
        raise UsageError(
            f"{visible(text)}: the scale {number} is too close to 0 (the smallest is {LEAST})"
        )
    if not -LIMIT <= scale <= LIMIT:
        raise UsageError(
            f"{visible(text)}: the scale {number} is not within -2..2",
            hint=f"write a scale from -2 to 2, as in {visible(path)}:0.8",
        )
    return scale


def _check_meaning(text: str, path: str, scale: str) -> None:
    """Raise `UsageError` where the whole text is a file, too."""
    if Path(text).is_file() and not Path(path).exists():
        raise UsageError(
            f"{visible(text)} is a file, so {scale} may be a scale or the end of its name",
            hint=f"write {visible(text)}:1 for the file",
        )


skipping = click.option(
    "--skip-text-encoder",
    is_flag=True,
    help="Leave out all parts for text encoders, readable or not.",
)
RECIPE_ENDINGS = (".yaml", ".yml")


def is_lora_folder(folder: Path) -> bool:
    """Whether this is a folder of LoRA files, and not of recipes.

    YAML files that are no recipes at all, as trainers leave beside a LoRA, don't count. Raises
    `UsageError` and `TargetError` for a folder that can't be listed.
    """
    from composer.lora.folder import find_files
    from composer.recipes import discover

    if not folder.is_dir() or not find_files(folder):
        return False
    return all(_is_other_yaml(file, folder) for file in discover([folder], root=folder))


def _is_other_yaml(file: Path, folder: Path) -> bool:
    from composer.lora import families
    from composer.recipes import load
    from composer.recipes.parsing import NOT_A_RECIPE

    loaded = load([file], root=folder, types=families.model_types())
    return not loaded.recipes and all(problem.code == NOT_A_RECIPE for problem in loaded.problems)


def may_follow(link: Path) -> bool:
    """Whether a link may be followed that leads out of a folder which the user named: not where
    it also leads out of the repository."""
    try:
        check_input_link(link)
    except UsageError:
        return False
    return True


def refuse_other_files(paths: Iterable[Path], *, or_recipes: bool = False) -> None:
    """Raise `UsageError` with every one of these paths that can't be a LoRA file (or a recipe)."""
    wrong = []
    hints = ["name recipes or .safetensors files" if or_recipes else "name .safetensors files"]
    for path in paths:
        name = visible(str(path))
        if not path.exists():
            wrong.append(f"{name} does not exist")
        elif path.is_dir():
            wrong.append(f"{name} is a folder{' without recipes or LoRAs' if or_recipes else ''}")
            hints += [f"{name}/*.safetensors names its LoRA files"] * any(
                path.glob("*.safetensors")
            )
        elif path.suffix.lower() in RECIPE_ENDINGS:
            wrong.append(f"{name} is a recipe")
            hints += ["compose apply creates the model of a recipe"]
    if wrong:
        raise UsageError("; ".join(wrong), hint="; ".join(dict.fromkeys(hints)))


def _check_typo(text: str, path: str, number: str) -> None:
    """Raise `UsageError` where the file is there, and it is what follows it that is wrong."""
    if path and Path(path).is_file() and not Path(text).exists():
        problem = (
            f"{visible(number)} is not a number" if number else "there is no scale after the colon"
        )
        example = "0.4..1.0/0.2" if ".." in number else "0.5"
        hint = f"write FILE:SCALE, as in FILE:{example}"
        raise UsageError(f"{visible(text)}: {problem}", hint=hint)


def _path(path: str, text: str) -> Path:
    if not path:
        raise UsageError(f"{visible(text)!r} does not name a file", hint="write FILE or FILE:SCALE")
    check_input_link(Path(path))
    return Path(path)
