"""The scales of a sweep's place become the recipe's. What was swept last is remembered.

That is a small file for each recipe in the state folder, so a place has its meaning on the machine
that made the sweep, until the recipe's other concepts change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.errors import InvalidInput, Refused, UsageError
from composer.files.atomic import no_link, write_atomically
from composer.files.delivery import unwritable
from composer.files.repository import read_inside
from composer.lora import families
from composer.previews.axes import axes_of
from composer.previews.shots import prompts
from composer.previews.sweeping import Places, Promoted, ScaleChange
from composer.recipes import parse
from composer.recipes.parsing import MAX_BYTES
from composer.recipes.scales import with_scales
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.model import Recipe
    from composer.previews.axes import Axis
    from composer.project.project import Project

_FOLDER = "sweeps"  # in the state folder
_LONGEST = 64 * 1024  # characters of what is remembered of one sweep


# --- the last sweep ----------------------------------------------------------------------


def remember_sweep(project: Project, recipe: Recipe, places: Places) -> None:
    """Keep what stands at the places of this recipe's last sweep."""
    axes = _by_label(places.axes)
    plain = {
        "recipe": recipe.path,
        "axes": axes,
        "blocks": places.blocks,
        "others": _others(recipe, axes),
    }
    project.prepare_state()
    file = _file(project, recipe.path)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(file, json.dumps(plain).encode())


def _places(
    project: Project, recipe: Recipe, scales: Mapping[str, Sequence[float]] | None
) -> Places:
    """Those of the last sweep, or of one with these axes. Raises `UsageError` without either, and
    `Refused` if it was the last one, and the recipe's other concepts have changed since.
    """
    name = visible(recipe.path)
    last = _Swept.read(_file(project, recipe.path))
    if scales:
        axes, settings = axes_of(scales, recipe), project.settings.previews
        if last is None or last.axes != _by_label(axes):
            return Places(axes, len(prompts(recipe, settings)) * len(settings.seeds))
    if last is None:
        raise UsageError(
            f"no sweep of {name} was made on this machine",
            hint=f"sweep it first: compose sweep {shlex.quote(name)} --axis NAME=SCALES --out DIR",
        )
    if last.others != _others(recipe, last.axes):
        raise Refused(
            f"{name} has other LoRAs or scales than when it was swept",
            hint="sweep it again: an image that is there already is not made again",
        )
    return Places(axes_of(last.axes, recipe), last.blocks)


@dataclass(frozen=True, slots=True)
class _Swept:
    """What is remembered: scales by the concepts' names or ids, and the rest of the mix."""

    axes: Mapping[str, list[float]]
    blocks: int
    others: object

    @classmethod
    def read(cls, file: Path) -> _Swept | None:
        try:
            with open(file, encoding="utf-8", opener=no_link) as stream:
                plain: dict[str, Any] = json.loads(stream.read(_LONGEST))
            axes = {name: [float(one) for one in axis] for name, axis in plain["axes"].items()}
            return cls(axes, int(plain["blocks"]), plain["others"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None


def _by_label(axes: Sequence[Axis]) -> dict[str, list[float]]:
    return {axis.label: list(axis.scales) for axis in axes}


def _file(project: Project, path: str) -> Path:
    return project.state / _FOLDER / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"


def _others(recipe: Recipe, axes: Mapping[str, object]) -> list[list[object]]:
    """All that images of a sweep depend on in the recipe, beside the scales of the axes."""
    return [
        [ref.label, ref.epoch, None if ref.label in axes else ref.scale] for ref in recipe.concepts
    ]


# --- into the recipe ---------------------------------------------------------------------


def promote(
    project: Project,
    path: str,
    place: str,
    axes: Mapping[str, Sequence[float]] | None,
    *,
    dry_run: bool,
) -> Promoted:
    """See `Project.promote`."""
    file = Path(os.path.realpath(project.root / path))  # where the path is a link, it stays one
    text = read_inside(file, project.root, limit=MAX_BYTES)
    recipe = _read(text, path)
    scales = _places(project, recipe, axes).named(place)
    changed = with_scales(text, scales)
    _check(changed, recipe, scales)
    if changed != text and not dry_run:
        try:
            write_atomically(file, changed)
        except OSError as error:
            raise unwritable(file, error) from error
    changes = [
        ScaleChange(ref.label, ref.scale, scales[index])
        for index, ref in enumerate(recipe.concepts)
        if scales.get(index, ref.scale) != ref.scale
    ]
    return Promoted(path, recipe.name, place.strip().upper(), tuple(changes))


def _read(text: bytes, path: str) -> Recipe:
    recipe, problems = parse(text, file=path, types=families.model_types())
    if recipe is None:  # it was valid a moment ago
        raise InvalidInput("the recipes have problems", problems=problems, files=1)
    return recipe


def _check(changed: bytes, recipe: Recipe, scales: Mapping[int, float]) -> None:
    """Raise `UsageError` where the recipe may not have these scales."""
    read, problems = parse(changed, file=recipe.path, types=families.model_types())
    if problems:
        raise UsageError(
            f"{visible(recipe.path)} can't have these scales: {problems[0].message}",
            hint=problems[0].hint,
        )
    concepts = enumerate(recipe.concepts)
    wanted = tuple(replace(ref, scale=scales.get(index, ref.scale)) for index, ref in concepts)
    assert read == replace(recipe, concepts=wanted), "another change than that of the scales"
