"""Options that several commands share, gathered into values: a command gets `selection` and
`options` instead of a dozen parameters.
"""

from __future__ import annotations

import functools
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from composer.cli.selection import gathered
from composer.errors import UsageError
from composer.files.delivery import check_input_link
from composer.project import ApplyOptions, PlanOptions
from composer.targets.kind import TargetOptions as TargetOptions
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.types import OptionHelpExtra

    from composer.cli.selection import Command
    from composer.project import Project


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


def _library(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Raise `UsageError` for "", which would mean the current folder."""
    if value == "":
        raise UsageError("--library is empty", hint="name a folder, or leave it out")
    return None if value is None else Path(value)


_TARGET = (
    click.option(
        "--target",
        metavar="TARGET",
        help="Where models are built: local, scenario, or the URL of a Scenario API "
        "[env: COMPOSE_TARGET].",
    ),
    click.option(
        "--project", metavar="ID", help="Id of the Scenario project [env: SCENARIO_PROJECT_ID]."
    ),
    click.option(
        "--library",
        type=click.Path(),
        callback=_library,
        metavar="DIR",
        help="Folder with your LoRA files (local target only) [env: COMPOSE_LIBRARY].",
    ),
)
executor = click.option(
    "--executor",
    metavar="EXECUTOR",
    help="Compose in N processes (processes:N), or on a Dask cluster (dask://HOST:PORT); local "
    "target only. The default is one model at a time, in this process.",
)
target_options = gathered(TargetOptions, "target_options", *_TARGET)
applying_target_options = gathered(TargetOptions, "target_options", *_TARGET, executor)


allow_empty = click.option(
    "--allow-empty",
    is_flag=True,
    help="Allow a run when no recipe is found but the lock has entries.",
)
allow_large_change = click.option(
    "--allow-large-change",
    is_flag=True,
    help="Without this flag, a run is refused if it replaces or deletes at least 3 models and "
    "over 30 % of the lock's, or if none of the lock's models is on the target.",
)
list_all = click.option(
    "--all", "list_all", is_flag=True, help="Also list the recipes that don't change."
)
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


lock_timeout = click.option(
    "--lock-timeout",
    cls=NumberOption,
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Seconds to wait for another compose process in this project.",
)


@dataclass(frozen=True, slots=True)
class Writing:
    """Whether a command writes, and how many seconds it waits for another one that does."""

    dry_run: bool
    lock_timeout: float

    def exclusive(self, project: Project) -> AbstractContextManager[None]:
        """Keep other processes from changing the project, unless nothing is written."""
        return nullcontext() if self.dry_run else project.exclusive(self.lock_timeout)


def writing_options(command: Command) -> Command:
    """`--dry-run` and `--lock-timeout`, as one value."""
    return dry_running(gathered(Writing, "writing", lock_timeout)(command))


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType[float]):
    """`90`, `90s`, `15m`, `0.3s`, `200ms` as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"invalid duration {str(value)!r} (examples: 30s, 15m)", param, ctx)
        return float(match[1]) * _UNITS[match[2] or "s"]


def _name_set(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> frozenset[str]:
    return frozenset(value)


def _whole_digest(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """All 64 digits in lower case. Raises `UsageError`, without `--expect` too."""
    if value is None:
        return None
    hint = "compose plan --json-into PLAN.json writes it as digest"
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise UsageError(f"--digest takes 64 hex digits, not {visible(value)!r}", hint=hint)
    if not ctx.params.get("expect"):
        raise UsageError("--digest takes 64 hex digits together with --expect PLAN.json", hint=hint)
    return value.lower()


_PLANNING = (
    click.option(
        "--upgrade",
        multiple=True,
        metavar="NAME",
        callback=_name_set,
        help="Use what this LoRA's name means now instead of its pinned id. Repeatable.",
    ),
    click.option(
        "--prune", is_flag=True, help="Include deleting compositions whose recipe file was deleted."
    ),
    allow_empty,
    allow_large_change,
    click.option("--locked", is_flag=True, help="Refuse if a pin would be added or changed."),
)

plan_options = gathered(PlanOptions, "options", *_PLANNING)
guard_options = gathered(PlanOptions, "options", allow_empty, allow_large_change)

apply_options = gathered(
    ApplyOptions,
    "options",
    click.option(
        "--expect",
        metavar="DIGEST|PLAN.json",
        is_eager=True,  # the check of --digest looks at it
        help="Apply only if the plan has this digest, or every change is in PLAN.json.",
    ),
    click.option(
        "--digest",
        metavar="HEX",
        callback=_whole_digest,
        help="With --expect PLAN.json: refuse if that plan's digest isn't this (64 hex digits).",
    ),
    *_PLANNING,
    click.option("--no-wait", is_flag=True, help="Don't wait for training to finish."),
    click.option(
        "--timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="How long to wait for training.",
    ),
    click.option(
        "--poll-interval",
        type=Duration(),
        help="How often to check on training. The default depends on the target.",
    ),
    click.option(
        "--grace",
        type=Duration(),
        help="If the answer to a creation is lost: how long to look for the model before creating "
        "it again. The default depends on the target.",
    ),
    click.option(
        "--max-cost",
        cls=NumberOption,
        type=click.FloatRange(min=0),
        metavar="N",
        help="Refuse if all trainings together cost more than N (in the target's units).",
    ),
    click.option(
        "--parallelism",
        cls=NumberOption,
        type=click.IntRange(1, 64),
        metavar="N",
        default=8,
        show_default=True,
        help="Maximum number of requests and trainings at the same time (1 to 64).",
    ),
    lock_timeout,
)


def refuse_all_but(mode: str, *allowed: str) -> None:
    """Raise `UsageError` for an argument or flag that does nothing in this mode."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and parameter.expose_value and name not in allowed:
            flag = "PATHS" if name == "paths" else max(parameter.opts, key=len)
            raise UsageError(
                f"{mode} can't be used with {flag}",
                hint=f"leave out {flag}: {mode} does not use it",
            )


# --- LoRA files as arguments -------------------------------------------------------------

LIMIT = 2.0  # scales are within -2..2
LEAST = 1e-6  # and not closer to 0 than this: a smaller one changes no image
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


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
    if Path(text).is_file() and not Path(path).exists():
        raise UsageError(
            f"{visible(text)} is a file, so {number} may be a scale or the end of its name",
            hint=f"write {visible(text)}:1 for the file",
        )
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
    return _path(path, text), scale


skipping = click.option(
    "--skip-text-encoder",
    is_flag=True,
    help="Leave out all parts for text encoders, readable or not.",
)
RECIPE_ENDINGS = (".yaml", ".yml")


def refuse_other_files(paths: Iterable[Path], *, or_recipes: bool = False) -> None:
    """Raise `UsageError` with every one of these paths that can't be a LoRA file (or a recipe)."""
    wrong = []
    hints = ["name recipes or .safetensors files" if or_recipes else "name .safetensors files"]
    for path in paths:
        name = visible(str(path))
        if not path.exists():
            wrong.append(f"{name} does not exist")
        elif path.is_dir():
            wrong.append(f"{name} is a folder{' without recipes' if or_recipes else ''}")
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
        raise UsageError(f"{visible(text)}: {problem}", hint="write FILE:SCALE, as in FILE:0.5")


def _path(path: str, text: str) -> Path:
    if not path:
        raise UsageError(f"{visible(text)!r} does not name a file", hint="write FILE or FILE:SCALE")
    check_input_link(Path(path))
    return Path(path)
