"""`compose output`: a recipe's model id, and how to use it; from the lock alone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project
from composer.cli.targets import LOCAL, choose
from composer.errors import ComposeError, UsageError
from composer.lock import plain_content, remember
from composer.output import results
from composer.output.style import aligned
from composer.text import did_you_mean, visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from composer.cli.options import TargetOptions
    from composer.model import Entry


@click.command("output")
@click.argument("recipe", required=False)
@opt.target_options
@opt.output_option("text", "json")
def output_command(recipe: str | None, wish: TargetOptions, form: str) -> int:
    """Print the model id of RECIPE (a path or a name), its concepts, and a generation call.

    Without RECIPE, the map of all recipes' names to ids: what a game's config reads.
    """
    project = open_project(opt.Selection((), (), ()))
    key = choose(wish, project.lock, os.environ).key
    entries = remember(project.root, key).entries
    if recipe is None:
        ids = {e.name: e.composition for e in entries.values() if e.composition}
        click.echo(json.dumps(ids, indent=2, sort_keys=True) if form == "json" else _table(ids))
        return 0
    entry = find(entries, recipe)
    if entry.composition is None or entry.content is None:
        raise ComposeError(f"{entry.name} has no trained model yet", hint="compose apply")
    if form == "json":
        content = plain_content(entry.content)
        said = {"name": entry.name, "id": entry.composition, "content": content}
        click.echo(json.dumps(said, indent=2))
    else:
        click.echo(results.output(entry, use=_use(project.root, entry.composition, key)), nl=False)
    return 0


def _use(root: Path, id: str, key: str) -> str:
    """A call that generates with this model, ready to paste."""
    if key == LOCAL:
        result = os.path.relpath(root / ".compose" / "models" / f"{id}.safetensors")
        return f'# with diffusers:\npipe.load_lora_weights("{visible(result)}")'
    url = f"{key.partition('#')[0]}/generate/custom/model_bfl-flux-1-dev"
    body = json.dumps({"modelId": id, "prompt": "a knight in a garden"})
    return (
        'curl -u "$SCENARIO_SDK_API_KEY:$SCENARIO_SDK_API_SECRET" \\\n'
        f"  -H 'Content-Type: application/json' -d '{body}' \\\n  {visible(url)}"
    )


def _table(ids: Mapping[str, str]) -> str:
    return "\n".join(aligned([[id, visible(name)] for name, id in sorted(ids.items())]))


def find(entries: Mapping[str, Entry], wanted: str) -> Entry:
    """The entry of this path or name. Raises `UsageError`."""
    return entries[find_path(entries, wanted)]


def find_path(entries: Mapping[str, Entry], wanted: str) -> str:
    path = wanted.replace(os.sep, "/").removeprefix("./")
    for known, entry in entries.items():
        if known == path or entry.name == wanted:
            return known
    near = did_you_mean(wanted, [*entries, *(entry.name for entry in entries.values())])
    raise UsageError(
        f"the lock has no recipe {wanted}",
        hint=f"did you mean {near}?" if near else "compose apply makes what the recipes ask for",
    )
