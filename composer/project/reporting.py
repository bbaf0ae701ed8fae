"""A project as its pages show it: every composition, its images, its history, and its LoRAs.

`Project.report` returns it. What takes time for each composition is found out when it is asked for.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from composer.errors import ComposeError
from composer.files.history import history
from composer.lora.metadata import notes, triggers
from composer.output.gallery_view import (
    Composition,
    Details,
    Gallery,
    GalleryLora,
    Image,
    Part,
    Revision,
    State,
)
from composer.output.results import composition_of
from composer.planner import Verb, is_stand_in
from composer.previews.shots import prompts
from composer.project.options import PLAN_DEFAULTS
from composer.project.planning import build_plan, concepts_of
from composer.recipes import slug
from composer.renderers.cache import FOLDER, CellCache
from composer.targets.kind import Trained
from composer.targets.registry import kind_of_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from composer.files.history import Commit, History
    from composer.lora.inspection import Mix
    from composer.model import Concept, Model
    from composer.planner import Action, Plan
    from composer.previews.cells import PreviewSettings
    from composer.project.project import Project
    from composer.targets.base import Target

log = logging.getLogger("composer.report")
_NAMED = "name "  # begins the key of a LoRA whose id nobody has looked up
MOST_IMAGES = 12  # of a composition: the newest ones
_UNKNOWN = Details()
_STATES = {
    **dict.fromkeys((Verb.KEEP, Verb.MOVE), State.SYNCED),
    **dict.fromkeys((Verb.CREATE, Verb.ADOPT), State.NEW),
    **dict.fromkeys((Verb.REPLACE, Verb.UPDATE, Verb.TRAIN), State.CHANGED),
    **dict.fromkeys((Verb.LEAVE, Verb.DELETE, Verb.FORGET), State.NO_RECIPE),
    Verb.WAIT: State.TRAINING,
    Verb.BLOCKED: State.BLOCKED,
}


@runtime_checkable
class ReadsLoras(Protocol):
    """A target that can read the files of LoRAs, as the local target does."""

    def mix(self, concepts: Iterable[Concept], progress: Callable[[float], None]) -> Mix:
        """How these LoRAs interact at their scales."""

    def metadata(self, ids: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """What the files of these LoRAs say of themselves, of those that can be read."""


@dataclass(frozen=True)
class ProjectReport(Gallery):
    """What `Project.report` returns; `files` are the images by digest, on this machine, and
    `compared` says whether details tell how the LoRAs of a mix interact.

    Use it while the target is open that it was made with.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    compared: bool = False
    reader: Callable[[str], Details] = field(
        default=lambda path: _UNKNOWN, repr=False, compare=False
    )

    def details(self, composition: Composition) -> Details:
        """What only the page on this composition shows. Comparing its LoRAs may take long, the
        first time."""
        return self.reader(composition.path)


def report(project: Project, target: Target | str, *, compare: bool) -> ProjectReport:
    """See `Project.report`."""
    if isinstance(target, str):
        key, plan = target, project.plan_offline(target).plan
        reader: Target | None = None
    else:
        key, reader = target.key, target
        plan = build_plan(project, target, project.options(PLAN_DEFAULTS))
    paths = [action.path for action in plan.actions]
    found = history(project.root, paths)
    state = _state_folder(project)
    cells = _Cells(state)
    settings = project.settings.previews
    compositions = [_composition(action, found, cells, settings) for action in plan.actions]
    detailed = _Reader(key, {a.path: a for a in plan.actions}, reader, compare, state)
    return ProjectReport(
        project.root.name,
        key,
        reader is not None,
        tuple(sorted(compositions, key=lambda one: (*by_name(one.name), one.path))),
        _loras(plan, reader),
        tuple([f"no history: {found.problem}"] if found.problem else []),
        cells.files,
        compare and isinstance(reader, ReadsLoras),
        detailed,
    )


def _state_folder(project: Project) -> Path | None:
    try:
        return project.state
    except ComposeError:  # there is none, as without a home directory
        return None


def by_name(name: str) -> tuple[list[str | int], str]:
    """Sort key: as people sort, without regard to case and with 2 before 10."""
    parts = re.split("([0-9]{1,18})", name.casefold())
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


# --- one composition ---------------------------------------------------------------------


class _Cells:
    """The images that this machine has; `files` are those that were found, by digest."""

    def __init__(self, state: Path | None) -> None:
        self.files: dict[str, Path] = {}
        self._cache = CellCache(state / FOLDER) if state else None

    def of(self, concepts: Iterable[Concept], prompts: Sequence[str]) -> tuple[Image, ...]:
        """The newest image of each prompt and seed, those of these prompts before others."""
        found: dict[tuple[str, int], Image] = {}
        order = {prompt: place for place, prompt in enumerate(prompts)}
        cells = self._cache.of_mix(concepts) if self._cache else []
        for cell in sorted(cells, key=lambda cell: order.get(cell.prompt, len(order))):
            look, place = cell.look, (cell.prompt, cell.seed)
            if len(found) < MOST_IMAGES and place not in found:
                assert self._cache
                self.files[cell.digest] = self._cache.path(cell)
                found[place] = Image(cell.digest, cell.prompt, cell.seed, look.width, look.height)
        return tuple(found.values())


def _composition(
    action: Action, found: History, cells: _Cells, settings: PreviewSettings
) -> Composition:
    recipe, entry, model = action.recipe, action.entry, action.model
    concepts, wanted = _concepts(action), prompts(recipe, settings) if recipe else ()
    content = action.content or (entry.content if entry else None)
    return Composition(
        path=action.path,
        name=action.name,
        state=_state(action),
        reason=action.explanation.drift or action.explanation.reason,
        id=composition_of(action),
        type=recipe.types.composition if recipe else (entry and entry.type) or "",
        description=(recipe.description if recipe else None) or "",
        parts=_parts(action),
        tags=recipe.tags if recipe else entry.tags if entry else (),
        training=tuple((key, str(value)) for key, value in content.training) if content else (),
        protect=bool(recipe.protect if recipe else entry and entry.protect),
        is_usable=model.trained if model else bool(entry and entry.composition),
        images=cells.of(concepts, wanted) if concepts else (),
        revisions=tuple(map(_revision, found.commits.get(action.path, ()))),
    )


def _state(action: Action) -> State:
    if action.explanation.drift:
        return State.DRIFTED
    if action.model and action.model.status == "failed":
        return State.FAILED
    return _STATES[action.verb if action.verb is Verb.WAIT else action.shown]


def _concepts(action: Action) -> tuple[Concept, ...]:
    """What it is made of, by ids, in the recipe's order where there is one."""
    if action.recipe and action.content:
        return concepts_of(action)
    entry = action.entry
    return entry.content.concepts if entry and entry.content and not action.recipe else ()


def _parts(action: Action) -> tuple[Part, ...]:
    if action.recipe is None:
        return tuple(Part(one.model_id, one.scale, one.epoch) for one in _concepts(action))
    pins = dict(action.transition.pins)
    return tuple(
        Part(_key(ref.model_id or pins.get(ref.name or "", ""), ref.label), ref.scale, ref.epoch)
        for ref in action.recipe.concepts
    )


def _key(id: str, name: str) -> str:
    """What a LoRA goes by: its id; its name where nobody has looked it up yet."""
    return id if id and not is_stand_in(id) else f"{_NAMED}{name}"


def _revision(commit: Commit) -> Revision:
    return Revision(commit.id, commit.date, commit.author, commit.subject)


# --- the LoRAs ---------------------------------------------------------------------------


def _loras(plan: Plan, target: Target | None) -> dict[str, GalleryLora]:
    """Those that the compositions use, by key, in the order of their names."""
    names: dict[str, str] = {}
    for action in plan.actions:
        for part in _parts(action):
            label = action.explanation.labels.get(part.lora)
            names.setdefault(part.lora, label or part.lora.removeprefix(_NAMED))
    ids = [key for key in names if not key.startswith(_NAMED)]
    said: Mapping[str, Mapping[str, str]] = {}
    models: Mapping[str, Model] = {}
    if target and isinstance(target, ReadsLoras):
        said, models = target.metadata(ids), target.get_models(ids)
    return {
        key: GalleryLora(
            key,
            name,
            "" if key.startswith(_NAMED) else key,
            next(iter(models[key].files), "") if key in models else "",
            triggers(said[key]) if key in said else (),
            notes(said[key]) if key in said else (),
        )
        for key, name in sorted(names.items(), key=lambda item: (*by_name(item[1]), item[0]))
    }


# --- details -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    """Finds out what only the page on a composition shows, from the target that was looked at."""

    key: str
    actions: Mapping[str, Action]
    target: Target | None
    compare: bool
    state: Path | None

    def __call__(self, path: str) -> Details:
        action = self.actions[path]
        return Details(self._usages(action), self._mix(action))

    def _usages(self, action: Action) -> Mapping[str, str]:
        id, entry = composition_of(action), action.entry
        type = (action.content.type if action.content else None) or (entry.type if entry else None)
        if self.target is None or self.state is None or not id or not type:
            return {}
        file = f"{slug(action.name)}.safetensors"
        try:
            made = Trained(self.key, id, action.name, type, self.state, file)
            return kind_of_key(self.key).usage(made)
        except ComposeError:  # it is not trained, or its file is not here
            return {}

    def _mix(self, action: Action) -> Mix | None:
        concepts = _concepts(action)
        if not (self.compare and concepts and isinstance(self.target, ReadsLoras)):
            return None
        try:
            return self.target.mix(concepts, lambda share: None)
        except ComposeError as error:
            log.debug("no comparison of %s: %s", action.path, error)
            return None
