"""Previews: for each recipe that changed, images without LoRA, of its mix before, and after.

Which recipes those are, a plan says: those whose model is to be made. With a git revision, they are
those whose mix differs from that revision's, and *before* is what that has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.files.revisions import RevisionOption, commit_of, files_at
from composer.lora import families
from composer.model import Concept, Content
from composer.output.plan_view import rows_of
from composer.output.style import weight
from composer.planner import Verb
from composer.previews.comparison import Mix, look_alike, preview_grid
from composer.previews.shots import shots
from composer.project.options import PLAN_DEFAULTS
from composer.project.planning import base_lock, build_plan
from composer.project.rendering import render_grids
from composer.recipes import parse
from composer.recipes.parsing import MAX_BYTES
from composer.text import RECIPES_FOLDER, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.model import ConceptRef, Entry, Recipe
    from composer.planner import Action
    from composer.previews.report import PreviewReport
    from composer.project.options import PreviewOptions
    from composer.project.project import Project
    from composer.project.rendering import RenderWatcher
    from composer.renderers.base import Renderer
    from composer.targets.base import Target

_NEW_MIX = frozenset({Verb.CREATE, Verb.REPLACE, Verb.ADOPT, Verb.TRAIN, Verb.WAIT})
_BASE = RevisionOption(
    "--base", "not a git revision", without_git="leave it out to compare with the lock"
)
_ENDINGS = (".yaml", ".yml")


def preview(
    project: Project,
    target: Target,
    renderer: Renderer,
    options: PreviewOptions,
    watcher: RenderWatcher,
) -> PreviewReport:
    """See `Project.preview`."""
    compared, notes = _changed(project, target, options.base)
    settings = project.settings.previews
    grids = [
        preview_grid(one.recipe, shots(one.recipe, settings, renderer.info), *one.mixes)
        for one in compared
    ]
    report = render_grids(project, renderer, grids, options, watcher)
    return replace(report, target=target.key, notes=tuple(notes))


def _changed(
    project: Project, target: Target, base: str | None
) -> tuple[list[_Compared], list[str]]:
    """The recipes to show, and notes on those that are left out or have no *before*."""
    actions = build_plan(project, target, project.options(PLAN_DEFAULTS)).actions
    living = [action for action in actions if action.recipe is not None]
    notes = [_blocked(action) for action in living if action.verb is Verb.BLOCKED]
    made = [a for a in living if a.verb is not Verb.BLOCKED and a.content is not None]
    if base is not None:
        compared = _compared(project, target, base, made)
    else:
        named = project.selection.names_files
        shown = [action for action in made if named or action.verb in _NEW_MIX]
        compared = [_Compared(action, action.explanation.before) for action in shown]
    notes += [one.note for one in compared if one.note]
    if project.selection.names_files and base is None:
        return compared, notes
    notes += [one.same for one in compared if one.same]
    return [one for one in compared if not one.same], notes


def _blocked(action: Action) -> str:
    return f"{_name(action)} is left out: {action.explanation.reason}"


def _name(action: Action) -> str:
    return f"{action.name} ({action.path})"


@dataclass(frozen=True, slots=True)
class _Compared:
    """A recipe's action, what its model was made of before, and what to say of that."""

    action: Action
    before: Content | None
    note: str = ""

    @property
    def recipe(self) -> Recipe:
        assert self.action.recipe is not None
        return self.action.recipe

    @property
    def same(self) -> str:
        """Why there is nothing to see, though something is new; empty if there is."""
        after = self.action.content
        if self.before is None or after is None or self.before == after:
            return ""
        if not look_alike(self.before.concepts, after.concepts):
            return ""
        return f"{_name(self.action)} is left out: its LoRAs and scales stay as they are"

    @property
    def mixes(self) -> tuple[Mix | None, Mix]:
        """Before and after, with the LoRAs named as a plan names them."""
        explanation = replace(self.action.explanation, before=self.before)
        rows = rows_of(replace(self.action, explanation=explanation), self.action.content)
        before, after = (
            tuple(f"{weight(scale)}  {row.label}" for row, scale in scales if scale is not None)
            for scales in (
                [(row, row.before) for row in rows],
                [(row, row.after) for row in rows],
            )
        )
        assert self.action.content is not None
        earlier = Mix(self.before.concepts, before) if self.before else None
        return earlier, Mix(self.action.content.concepts, after)


# --- compared with a git revision --------------------------------------------------------


def _compared(
    project: Project, target: Target, revision: str, actions: list[Action]
) -> list[_Compared]:
    """Those whose content differs from what this revision has. Raises `UsageError`."""
    base = _Base.of(project, target, revision)
    compared = [base.compared(action) for action in actions]
    return [one for one in compared if one.before != one.action.content]


@dataclass(frozen=True, slots=True)
class _Base:
    """What a git revision has: recipes, why others can't be read, and entries of its lock, by path.

    `names` are those of the recipes of now, `loras` the ids of the target's LoRAs by name.
    """

    revision: str
    recipes: Mapping[str, Recipe]
    by_name: Mapping[str, Recipe]
    broken: Mapping[str, str]
    entries: Mapping[str, Entry]
    names: frozenset[str]
    loras: Mapping[str, list[str]]

    @classmethod
    def of(cls, project: Project, target: Target, revision: str) -> _Base:
        """It may be a stranger's, and is checked as files are."""
        commit = commit_of(project.root, revision, _BASE)
        recipes, broken = _recipes_at(project, commit)
        entries = base_lock(commit, project.root).lock.target(target.key).recipes
        names = frozenset(recipe.name for recipe in project.recipes)
        loras: dict[str, list[str]] = {}
        for lora in target.list_models(*families.lora_types()):
            for name in {lora.name, *lora.aliases}:
                loras.setdefault(name, []).append(lora.id)
        shown = shorten(visible(revision), 100)
        by_name = {recipe.name: recipe for recipe in recipes.values()}
        return cls(shown, recipes, by_name, broken, entries, names, loras)

    def compared(self, action: Action) -> _Compared:
        recipe = self._recipe(action)
        if recipe is None:
            reason = self.broken.get(action.path)
            why = f"in {self.revision} it is no valid recipe: {reason}" if reason else ""
            return _without_before(action, why)
        ids = [self._id(ref, recipe, action) for ref in recipe.concepts]
        if None in ids:
            label = recipe.concepts[ids.index(None)].label
            return _without_before(action, f"in {self.revision} it names {label}, which is unknown")
        pairs = [(ref, id) for ref, id in zip(recipe.concepts, ids, strict=True) if id]
        concepts = [Concept(id, ref.scale, ref.epoch) for ref, id in pairs]
        labels = {id: ref.name for ref, id in pairs if ref.name}
        labels |= action.explanation.labels
        explanation = replace(action.explanation, labels=labels)
        content = Content.of(recipe.types.composition, concepts, recipe.training)
        return _Compared(replace(action, explanation=explanation), content)

    def _recipe(self, action: Action) -> Recipe | None:
        """By name, else by path, unless that one has another file now."""
        if action.name in self.by_name:
            return self.by_name[action.name]
        recipe = self.recipes.get(action.path)
        return recipe if recipe and recipe.name not in self.names else None

    def _id(self, ref: ConceptRef, recipe: Recipe, action: Action) -> str | None:
        """The id that the revision pins, else the one that is pinned now, else the LoRA's."""
        entry = self.entries.get(recipe.path)
        name = ref.name or ""
        found = self.loras.get(name, [])
        known = ref.model_id or (entry.pin(name) if entry else None)
        known = known or dict(action.transition.pins).get(name)
        return known or (found[0] if len(found) == 1 else None)


def _recipes_at(project: Project, commit: str) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The recipes of a commit, and why others can't be read, by path."""
    paths = {recipe.path for recipe in project.recipes}

    def wanted(path: str) -> bool:
        inside = path.startswith(f"{RECIPES_FOLDER}/") and path.casefold().endswith(_ENDINGS)
        return inside or path in paths

    recipes, broken, types = {}, {}, families.model_types()
    files = files_at(project.root, commit, _BASE, wanted, limit=MAX_BYTES)
    for path, text in files.items():
        recipe, problems = parse(text, file=path, types=types)
        if recipe is not None:
            recipes[path] = recipe
        else:
            broken[path] = problems[0].message
    return recipes, broken


def _without_before(action: Action, why: str = "") -> _Compared:
    note = f"{_name(action)}: before is left out: {why}" if why else ""
    return _Compared(action, None, note)
