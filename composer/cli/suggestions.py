"""Values that shells offer for arguments and options: names, files, targets, formats.

Each is quick and quiet: it reads files of this machine only, contacts no target, and offers nothing
where a project can't be read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from composer.project import Project

    Suggest: TypeAlias = "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]"

_SECONDS = 0.3  # how long names are looked for
_SWEPT = ("0.2..0.8/4", "0..1/5", "0.5,0.7,0.9")
_SCALES = ("0.2", "0.4", "0.5", "0.6", "0.7", "0.8", "1")


def _offered(values: Iterable[str], incomplete: str, type: str = "plain") -> list[CompletionItem]:
    chosen = dict.fromkeys(value for value in values if value.startswith(incomplete))
    return [CompletionItem(value, type) for value in chosen]


def _suggesting(values: Callable[[click.Context], Iterable[str]]) -> Suggest:
    """A function that click calls, of one that gives all values."""
    return lambda context, parameter, incomplete: _offered(values(context), incomplete)


def _project() -> Project:
    from composer.files.state import VARIABLE
    from composer.project import Project

    return Project(".", may_be_empty=True, state_dir=os.environ.get(VARIABLE))


# --- names -------------------------------------------------------------------------------


def _recipe_names(context: click.Context) -> list[str]:
    from composer.project.known_names import recipe_names

    return recipe_names(_project(), seconds=_SECONDS)


def recipes(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of recipes, and files of recipes once a path is begun."""
    names: list[CompletionItem] = []
    with suppress(Exception):
        names = _offered(_recipe_names(context), incomplete)
    return names or files(".yaml", ".yml")(context, parameter, incomplete)


def _lora_names(context: click.Context) -> list[str]:
    from composer.project.known_names import pinned_names

    project, library = _project(), context.params.get("library")
    return pinned_names(project) or project.lora_names(library, os.environ, seconds=_SECONDS)


def axes(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The LoRAs of the recipe that is named before, else all; then scales to begin with."""
    name, equals, _ = incomplete.rpartition("=")
    if equals:
        return _offered((f"{name}={scales}" for scales in _SWEPT), incomplete)
    names: list[str] = []
    # click leaves an argument unread where the option that is being typed has no value yet
    if recipe := context.params.get("recipe") or next(iter(context.args), None):
        from composer.project.known_names import concept_labels

        with suppress(Exception):
            names = concept_labels(_project(), recipe, seconds=_SECONDS)
    return _offered((f"{name}=" for name in names or _lora_names(context)), incomplete, "open")


def _targets(context: click.Context) -> list[str]:
    from composer.targets.registry import kind_names

    keys: list[str] = []
    with suppress(Exception):
        keys = [key.partition("#")[0] for key in _project().current_lock().targets]
    return [*kind_names(), *(key for key in keys if "://" in key)]


def _renderers(context: click.Context) -> list[str]:
    from composer.renderers.registry import kind_names

    return kind_names()


def _executors(context: click.Context) -> list[str]:
    return [f"processes:{os.cpu_count() or 1}", "dask://"]


def _model_types(context: click.Context) -> list[str]:
    from composer.lora import families

    return [*sorted(families.lora_types()), *sorted(families.composition_types())]


def _output_formats(context: click.Context) -> Iterable[str]:
    from composer.lora import families

    return families.output_formats()


def _programs(context: click.Context) -> list[str]:
    from composer.lora import families
    from composer.targets.registry import HOSTED

    return [*families.programs(), HOSTED.name]


lora_names = _suggesting(_lora_names)
targets = _suggesting(_targets)
renderers = _suggesting(_renderers)
executors = _suggesting(_executors)
model_types = _suggesting(_model_types)
output_formats = _suggesting(_output_formats)
programs = _suggesting(_programs)


# --- files -------------------------------------------------------------------------------


def files(*endings: str, scales: bool = False) -> Suggest:
    """Files with these endings, and folders. With `scales`, a scale may follow: FILE:SCALE."""
    return partial(_files, endings=endings, scales=scales)


def _files(
    context: click.Context,
    parameter: click.Parameter,
    incomplete: str,
    *,
    endings: tuple[str, ...],
    scales: bool,
) -> list[CompletionItem]:
    if "$" in incomplete or "`" in incomplete:  # the shell knows what it stands for
        return [CompletionItem(incomplete, "file")]
    path, colon, _ = incomplete.rpartition(":")
    if scales and colon and os.path.isfile(os.path.expanduser(path)):
        return _offered((f"{path}:{scale}" for scale in _SCALES), incomplete)
    folder = incomplete[: incomplete.rfind("/") + 1]
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    hidden = incomplete[len(folder) :].startswith(".")
    shown = [entry for entry in listed if hidden or not entry.name.startswith(".")]
    of_kind = (e.name for e in shown if e.name.lower().endswith(endings) and e.is_file())
    found = _offered((folder + name for name in of_kind), incomplete, "open" if scales else "plain")
    folders = (f"{folder}{entry.name}/" for entry in shown if entry.is_dir())
    return [*found, *_offered(folders, incomplete, "open")]


def any_file(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Whatever files and folders the shell offers."""
    return [CompletionItem(incomplete, "file")]
