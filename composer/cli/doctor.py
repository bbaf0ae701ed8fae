"""`compose doctor`: checks a project and this machine, and says how to fix a problem."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project
from composer.cli.selection import output_option
from composer.cli.terminal import emit
from composer.errors import gravest
from composer.output import results

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions


@click.command("doctor")
@opt.target_options
@output_option("text", "json")
@click.option("--offline", is_flag=True, help="Don't contact the target.")
def doctor_command(target_options: TargetOptions, output_format: str, offline: bool) -> int:
    """Check the environment, the project, the LoRA library, the local database and the target.

    \b
    Examples:
      compose doctor
      compose doctor --offline -o json

    Changes nothing. Each problem says how to fix it.
    """
    project = open_project(may_be_empty=True, check=False)
    checks = project.doctor(target_options, os.environ, offline=offline)
    if output_format == "json":
        click.echo(results.checks_json(checks), nl=False)
    else:
        emit(lambda color: results.checks(checks, color=color))
    return gravest(check.exit_status for check in checks)
