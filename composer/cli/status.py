"""`compose status`: whether recipes, lock and target agree, and how each model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import click

from composer.cli import options as opt
from composer.cli.planning import looked_at, options_of
from composer.cli.project import open_project
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.render import results

if TYPE_CHECKING:
    from composer.cli.options import Selection, Wish


@runtime_checkable
class Sized(Protocol):
    """A target whose results take room on this machine."""

    def size(self) -> int:
        """Bytes of all results."""


@click.command("status")
@opt.selection_options
@opt.target_options
@opt.output_option("text", "json")
def status_command(selection: Selection, wish: Wish, form: str) -> int:
    """Show for each recipe whether it, the lock and the target agree, and its model's state."""
    project = open_project(selection)
    with open_target(project, wish, run_jobs=False) as target:
        planned = looked_at(project, target, options_of(project))
        size = target.size() if isinstance(target, Sized) else 0
    if form == "json":
        click.echo(results.status_json(planned), nl=False)
        return 0
    footer = [f"results: {size / 1e6:,.1f} MB in .compose/models"] if size else []
    emit(lambda color: results.status(planned, footer=footer, color=color))
    return 0
