"""A recipe's trained result: a file where the caller wants it, and how programs use it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import ComposeError, ExitStatus, Refused, UsageError
from composer.files import comfyui
from composer.files.delivery import (
    SLASHES,
    SUFFIX,
    UNCHANGED,
    Pulled,
    check_names_folder,
    check_output_link,
    deliver,
    same_bytes,
    unwritable,
)
from composer.files.repository import home_directory
from composer.model import DELETED
from composer.planner import match_entries
from composer.project.sources import find_path
from composer.recipes import slug
from composer.targets.base import KeepsResults
from composer.targets.kind import Trained
from composer.targets.local.kind import find_library
from composer.targets.registry import kind_names, kind_of_key
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.model import Entry
    from composer.project.project import Project
    from composer.targets.base import Target

COMFYUI = "comfyui"


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A recipe's name, its entry in the lock if there is one, and the file to write."""

    name: str
    entry: Entry | None
    out: Path


def pull(
    project: Project,
    target: Target,
    recipes: Sequence[str],
    out: str,
    *,
    force: bool,
    dry_run: bool,
    progress: Callable[[float], None],
) -> list[Pulled]:
    """See `Project.pull`."""
    if not isinstance(target, KeepsResults):
        raise UsageError(
            f"the target {target.key} keeps no results on this machine", hint="use --target local"
        )
    chosen = _chosen(project, project.entries(target), recipes)
    deliveries = _placed(chosen, out, alone=len(recipes) == 1)
    if out.endswith(SLASHES) and not dry_run:
        place = Path(out)
        check_output_link(place)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(place, error) from error
    pulled = []
    for number, one in enumerate(deliveries, 1):
        pulled.append(_pulled(target, one, force=force, dry_run=dry_run))
        progress(number / len(deliveries))
    return pulled


def lora_folder(
    project: Project, program: str, env: Mapping[str, str], library: Path | str | None
) -> Path:
    """See `Project.lora_folder`."""
    if program != COMFYUI:
        raise UsageError(f"{visible(program)!r} is not known, only {COMFYUI!r} is")

    def of_project() -> Path | str:
        about, defaults = project.target_context, project.target_defaults
        return find_library(
            about.root, about.recipe_paths, given=library, env=env, defaults=defaults
        )

    home = home_directory()
    return comfyui.lora_folder(env, home, of_project, otherwise="name a folder with -o")


def result_files(target: Target, ids: Iterable[str]) -> dict[str, Path]:
    """See `Project.result_files`."""
    found: dict[str, Path] = {}
    if isinstance(target, KeepsResults):
        for id in ids:
            with suppress(ComposeError):
                found[id] = target.result(id)
    return found


def usage(key: str, entry: Entry, state: Path, program: str) -> str:
    """See `Project.usage`."""
    assert entry.composition is not None and entry.type is not None
    kind = kind_of_key(key)
    texts = kind.usage(Trained(key, entry.composition, entry.name, entry.type, state))
    if program not in texts:
        known = ", ".join(texts) or "no program"
        there = f"compose apply --target {program} makes the model there"
        raise UsageError(
            f"{visible(program)!r} can't use a model of the target {visible(key)}: {known} can",
            hint=there if program in kind_names() else None,
        )
    return texts[program]


def _chosen(
    project: Project, entries: Mapping[str, Entry], recipes: Sequence[str]
) -> list[tuple[str, Entry | None]]:
    """Names and entries of these recipes, or of all. Raises `UsageError`."""
    if recipes:
        paths = dict.fromkeys(find_path(entries, recipe) for recipe in recipes)
        return [(entries[path].name, entries[path]) for path in paths]
    matched = match_entries(project.recipes, entries)
    if not project.recipes:
        raise UsageError(
            "there are no recipes",
            hint="compose init creates one; or name one of the lock: compose pull RECIPE -o FILE",
        )
    return [(recipe.name, entries.get(matched.get(recipe.path, ""))) for recipe in project.recipes]


def _placed(
    chosen: Sequence[tuple[str, Entry | None]], out: str, *, alone: bool
) -> list[_Delivery]:
    """Each with its own file. Raises `UsageError`."""
    place = Path(out)
    if alone and place.suffix.lower() == SUFFIX and not place.is_dir():
        ((name, entry),) = chosen
        return [_Delivery(name, entry, place)]
    check_names_folder(out, many=f"{len(chosen)} recipes", one="one recipe")
    files: dict[str, str] = {}
    for name, _ in chosen:
        other = files.setdefault(slug(name), name)
        if other != name:
            raise UsageError(
                f"{visible(other)} and {visible(name)} would both be {slug(name)}{SUFFIX}",
                hint="pull them one by one, each to its own file",
            )
    return [_Delivery(name, entry, place / f"{slug(name)}{SUFFIX}") for name, entry in chosen]


def _pulled(target: KeepsResults, one: _Delivery, *, force: bool, dry_run: bool) -> Pulled:
    out = visible(str(one.out))
    try:
        id, source = _result(target, one.entry)
        if source is None:
            return Pulled("training", one.name, "compose apply waits for it", ExitStatus.TRAINING)
        is_earlier = _is_result_of(target, one)
        if not is_earlier and target.holds(one.out):
            raise UsageError(f"{out} is a LoRA of the library", hint="name another file with -o")
        how = deliver(source, one.out, force=force or is_earlier, dry_run=dry_run)
    except ComposeError as error:
        status = error.exit_status if isinstance(error, Refused) else ExitStatus.FAILED
        return Pulled("not pulled", one.name, visible(str(error)), status)
    except OSError as error:
        return Pulled(
            "not pulled", one.name, f"{out}: {error.strerror or error}", ExitStatus.FAILED
        )
    newer = "; a newer one is on its way" if one.entry and one.entry.next else ""
    state, note = "kept" if how == UNCHANGED else "pulled", f"{out} ({how}{newer})"
    return Pulled(state, one.name, note, id=id, file=str(one.out))


def _is_result_of(target: KeepsResults, one: _Delivery) -> bool:
    """Whether the file to write is there, as a result of this recipe, which the target keeps.

    Nothing is lost with it: the folder may be the library itself, as ComfyUI's is.
    """
    for id in one.entry.ids if one.entry else ():
        with suppress(ComposeError):
            if same_bytes(target.result(id), one.out):
                return True
    return False


def _result(target: KeepsResults, entry: Entry | None) -> tuple[str, Path | None]:
    """Id and composed file; None while it is in training. Raises `ComposeError` without one."""
    coming = entry.next.composition if entry and entry.next else None
    id = (entry.composition if entry else None) or coming
    if id is None:
        raise ComposeError("it has no model yet", hint="run compose apply")
    model = target.get_models([id]).get(id)
    if model is None or model.status == DELETED:
        raise ComposeError(f"{id} is not on this machine", hint="run compose apply to create it")
    return id, None if model.status == "training" else target.result(id)
