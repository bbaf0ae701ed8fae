"""Options that several commands share, gathered into values: a command gets `selection` and
`options` instead of a dozen parameters.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from composer.cli import suggestions
from composer.cli.arguments import NumberOption as NumberOption
from composer.cli.arguments import dry_running as dry_running
from composer.cli.selection import gathered, library_option
from composer.cli.selection import named_library as _library
from composer.errors import UsageError
from composer.project import ApplyOptions, PlanOptions
from composer.targets.kind import TargetOptions as TargetOptions
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.selection import Command
    from composer.project import Project


library = library_option
_TARGET = (
    click.option(
        "--target",
        metavar="TARGET",
        shell_complete=suggestions.targets,
        help="Where models are built: local, scenario, or the URL of a Scenario API "
        "[env: COMPOSE_TARGET].",
    ),
    click.option(
        "--project", metavar="ID", help="Id of the Scenario project [env: SCENARIO_PROJECT_ID]."
    ),
    click.option(
        "--library",
        type=click.Path(file_okay=False),
        callback=_library,
        metavar="DIR",
        help="Folder with your LoRA files, or s3://BUCKET/FOLDER (local target only) "
        "[env: COMPOSE_LIBRARY].",
    ),
)
executor = click.option(
    "--executor",
    metavar="EXECUTOR",
    shell_complete=suggestions.executors,
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
    "over 30% of the lock's, or if none of the lock's models is on the target.",
)
list_all = click.option(
    "--all", "list_all", is_flag=True, help="Also list the recipes that don't change."
)
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
        shell_complete=suggestions.lora_names,
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
        shell_complete=suggestions.files(".json"),
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
        help="Maximum number of requests and trainings at the same time (1 to 64). The default is "
        "that of compose.toml, else 8.",
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
