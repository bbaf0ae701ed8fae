"""Options that several commands share, gathered into values: a command gets `selection` and
`wish` instead of a dozen parameters.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composer.errors import UsageError
from composer.targets.kind import TargetOptions as TargetOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recipe files a command is about."""

    paths: tuple[Path, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def _gathered(
    cls: type, name: str, *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """A decorator that adds these options, and hands them over as one value."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(**given: Any) -> Any:
            values = {field.name: given.pop(field.name) for field in fields(cls)}
            return command(**{name: cls(**values)}, **given)

        decorated: Command = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


selection_options = _gathered(
    Selection,
    "selection",
    click.argument("paths", nargs=-1, type=click.Path(path_type=Path)),
    click.option(
        "--include", multiple=True, metavar="GLOB", help="Only recipe files that match; repeatable."
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Pass over files that match; repeatable."
    ),
)

target_options = _gathered(
    TargetOptions,
    "wish",
    click.option("--target", metavar="TARGET", help="local, scenario, or a base URL."),
    click.option("--project", metavar="ID", help="The Scenario project [SCENARIO_PROJECT_ID]."),
    click.option(
        "--library",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The local target's folder of LoRA files [COMPOSE_LIBRARY].",
    ),
)


def output_option(*formats: str) -> Callable[[Command], Command]:
    """`-o`: how data is printed; the first is the default."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print it.",
    )


allowing = click.option(
    "--allow-empty", "allow_empty", is_flag=True, help="No recipe is left, and that is meant."
)
allowing_large = click.option(
    "--allow-large-change", "allow_large", is_flag=True, help="Much changes, and that is meant."
)
upgrading = click.option(
    "--upgrade", multiple=True, metavar="NAME", help="Look this LoRA's name up anew; repeatable."
)
pruning = click.option(
    "--prune", is_flag=True, help="Delete compositions that no recipe asks for any more."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


def dry_running(command: Command) -> Command:
    """Adds `--dry-run`; then what the command prints for people begins with "Dry run:"."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        if given["dry_run"] and given.get("form") != "json":
            click.echo("Dry run: nothing is written.")
        return command(**given)

    return _dry_run(wrapper)


lock_timeout = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for another compose in this project.",
)


_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `0.3s`, `200ms` as seconds. Raises `UsageError`."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no time", hint="write 90s, 15m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def allowed(*, allow_empty: bool, allow_large: bool) -> frozenset[str]:
    """The flags that guards ask for, as they are written."""
    flags = {"--allow-empty": allow_empty, "--allow-large-change": allow_large}
    return frozenset(flag for flag, given in flags.items() if given)
