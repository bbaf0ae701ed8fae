"""`compose apply`: make the target what the recipes say."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.planning import check_expected, check_locked, looked_at, options_of
from composer.cli.project import open_project, warn_of_markers
from composer.cli.targets import open_target
from composer.cli.terminal import Progress, emit
from composer.errors import UsageError
from composer.executor import Settings, Stopped, apply, settle
from composer.lock import Ledger, only_one
from composer.output import results
from composer.output.plan_formats import PLAN_FORMATS
from composer.output.plan_view import PlanView
from composer.planner import plan
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from composer.cli.options import Selection, TargetOptions
    from composer.cli.project import Project
    from composer.planner import Options, Plan, Report
    from composer.targets.base import Target

SIGNALLED = 128


@click.command("apply")
@opt.selection_options
@opt.target_options
@opt.output_option("text", "json")
@click.option("--expect", metavar="DIGEST|PLAN.json", help="Run only the plan that was approved.")
@click.option("--digest", metavar="HEX", help="The digest that PLAN.json must have; all 64 digits.")
@click.option("--locked", is_flag=True, help="Refuse if a pin would be added or moved.")
@opt.upgrading
@opt.pruning
@opt.allowing
@opt.allowing_large
@opt.dry_running
@click.option("--no-wait", is_flag=True, help="Don't wait for trainings to end.")
@click.option("--timeout", default="15m", metavar="TIME", help="How long to wait.  [15m]")
@click.option("--poll-interval", metavar="TIME", help="Between looks; the target's own by default.")
@click.option("--grace", metavar="TIME", help="How long a new model may stay unseen.")
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Start no training if all together would cost more.",
)
@click.option("--parallelism", type=click.IntRange(1, 64), default=8, show_default=True)
@opt.lock_timeout
def apply_command(
    selection: Selection,
    wish: TargetOptions,
    form: str,
    expect: str | None,
    digest: str | None,
    locked: bool,
    upgrade: tuple[str, ...],
    prune: bool,
    allow_empty: bool,
    allow_large: bool,
    dry_run: bool,
    no_wait: bool,
    timeout: str,
    poll_interval: str | None,
    grace: str | None,
    max_cost: float | None,
    parallelism: int,
    lock_timeout: float,
) -> int:
    """Make the target what the recipes say, exactly once, and write the ids to compose.lock.

    PATHS are recipe files or folders; without any, the folder recipes/.
    """
    if digest is not None and (expect is None or not re.fullmatch("[0-9a-fA-F]{64}", digest)):
        raise UsageError("--digest is all 64 hex digits of the plan in --expect PLAN.json")
    digest = digest.lower() if digest is not None else None
    project = open_project(selection)
    warn_of_markers(project.lock)
    options = options_of(project, upgrade=upgrade, prune=prune)
    allowed = opt.allowed(allow_empty=allow_empty, allow_large=allow_large)
    checks = _Checks(allowed, expect, digest, locked)
    if dry_run:
        return _only_shown(project, wish, options, checks, form)
    with (
        only_one(project.root, wait=lock_timeout),
        _signals() as (stop, caught),
        open_target(
            project, wish, run_jobs=True, parallelism=parallelism, sleep=_until(stop)
        ) as target,
    ):
        settings = Settings(
            grace=opt.seconds(grace) if grace else target.grace,
            poll_interval=opt.seconds(poll_interval) if poll_interval else target.poll_interval,
            timeout=opt.seconds(timeout),
            parallelism=parallelism,
            no_wait=no_wait,
            max_cost=max_cost,
        )
        report = _applied(project, target, options, settings, checks, stop)
    if form == "json":
        click.echo(results.report_json(report), nl=False)
    else:
        emit(lambda color: results.report(report, color=color))
    return SIGNALLED + caught[0] if caught else report.exit_status


def _only_shown(
    project: Project, wish: TargetOptions, options: Options, checks: _Checks, form: str
) -> int:
    with open_target(project, wish, run_jobs=False) as target:
        planned = looked_at(project, target, options)
    view = PlanView(planned, checks.allowed)
    if form == "json":
        click.echo(PLAN_FORMATS["json"](view), nl=False)
    else:
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)))
    checks.approve(planned)
    return 1 if planned.blocked else 0


class _Checks:
    """What may refuse a plan before the first write."""

    def __init__(
        self, allowed: frozenset[str], expect: str | None, digest: str | None, locked: bool
    ) -> None:
        self.allowed, self.expect, self.digest, self.locked = allowed, expect, digest, locked

    def approve(self, planned: Plan) -> None:
        """Raises `Refused` for what was not approved, and for pins where they are locked."""
        if self.locked:
            check_locked(planned)
        if self.expect is not None:
            check_expected(planned, self.expect, self.digest)


def _applied(
    project: Project,
    target: Target,
    options: Options,
    settings: Settings,
    checks: _Checks,
    stop: threading.Event,
) -> Report:
    from composer.planner import Report

    ledger = Ledger(project.root, target.key)
    try:
        observed = settle(project.recipes, target, ledger, grace=settings.grace, stop=stop)
    except Stopped:
        return Report(interrupted=True)
    planned = plan(project.recipes, ledger.memory, observed, options)
    if planned.changes or planned.blocked or planned.refused(checks.allowed):
        view = PlanView(planned, checks.allowed)
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)) + "\n", err=True)
    else:
        _say_notes(planned)
    planned.guard(checks.allowed)
    checks.approve(planned)
    with Progress() as progress:
        return apply(planned, target, ledger, settings, say=progress.say, stop=stop)


def _say_notes(planned: Plan) -> None:
    """What a reader should know though nothing changes: two trained twins, a name that moved on."""
    for action in planned.actions:
        for note in action.explanation.notes:
            click.echo(f"note: {visible(action.name)}: {visible(note)}", err=True)


def _until(stop: threading.Event) -> Callable[[float], None]:
    """A sleep that a signal ends."""

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    return sleep


@contextmanager
def _signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """The first Ctrl-C or SIGTERM: start nothing new. A second: leave at once."""
    stop, caught = threading.Event(), list[int]()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(SIGNALLED + number)
        caught.append(number)
        stop.set()
        click.echo("stopping; once more to leave at once", err=True)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop, caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
