"""A project of recipes, as a program works with it: reading, and one method for each use case.

What a method needs is imported when it is called, so that `compose validate` starts without what
only the others use.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from composer.errors import ComposeError, InvalidInput
from composer.lock import read_lock
from composer.project.selection import ALL_RECIPES
from composer.project.sources import find, find_recipe, problems_of, read_sources, with_sources
from composer.recipes import relative
from composer.text import SETTINGS_NAME, STATE_VARIABLE

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from composer.errors import Check, Problem
    from composer.files.delivery import Pulled
    from composer.lora import Inspection, Merged
    from composer.model import Entry, Imported, Lock, Recipe, Setup
    from composer.output.gallery_view import WrittenReport
    from composer.planner import Forgotten, LeftOut, Plan, Report, Step
    from composer.previews.report import PreviewReport, Price
    from composer.previews.sweeping import Promoted
    from composer.project.locking import MergedLock, Pinned
    from composer.project.lora_names import CheckedNames
    from composer.project.options import (
        ApplyOptions,
        PlanOptions,
        PreviewOptions,
        RendererOptions,
        SweepOptions,
    )
    from composer.project.planning import ReviewedPlan
    from composer.project.reporting import ProjectReport
    from composer.project.selection import Selection
    from composer.project.settings import Settings
    from composer.project.sources import Sources
    from composer.renderers.base import Renderer, Rendering
    from composer.targets.base import Target
    from composer.targets.kind import TargetContext, TargetDefaults, TargetOptions

Options = TypeVar("Options", bound="PlanOptions")


class Project:
    """The recipes under one root, and their `compose.lock`.

    Files are read when they are first needed, and again by a method that writes, once no other
    process can change the project; for other edits made since, make another `Project`. What
    `apply` and the like write into the lock is read again by every method that reports it.
    """

    def __init__(
        self,
        path: str | Path = ".",
        selection: Selection = ALL_RECIPES,
        *,
        may_be_empty: bool = False,
        read_lock: Callable[[Path], Lock] = read_lock,
        state_dir: str | Path | None = None,
    ) -> None:
        """The project of this folder; `selection` narrows what its use cases act on.

        The root is the nearest folder upward with a `.git`, else with a `compose.lock`, else the
        parent of the folder named `recipes`, else the recipes' folder. Raises `UsageError` where
        there is no recipe and no lock, unless the project may be empty. `read_lock` may read
        conflict markers, which the default refuses. `state_dir` is the folder that holds the
        states of all projects (the command line takes it from COMPOSE_STATE_DIR); by default it
        is the user's state folder.
        """
        self.selection = selection
        self._find = partial(find, selection, Path.cwd() / path, may_be_empty=may_be_empty)
        self._found = self._find()
        self.root = self._found.root
        self._read_lock = read_lock
        self._state_base = str(state_dir) if state_dir else None
        self._alone = False

    # --- what is on disk -----------------------------------------------------------------

    @property
    def state(self) -> Path:
        """The state folder; it may not exist yet. Raises `UsageError`, `InvalidInput`."""
        from composer.files.state import state_dir

        return state_dir(self.root, self.state_settings)

    @property
    def state_settings(self) -> dict[str, str]:
        """Where the states of all projects lie, as a variable of the environment would say it."""
        return {STATE_VARIABLE: self._state_base} if self._state_base else {}

    @cached_property
    def _sources(self) -> Sources:
        return read_sources(self._found, self.selection, self._read_lock)

    @property
    def settings(self) -> Settings:
        """What the project's `compose.toml` says. Raises `InvalidInput` with its problems."""
        read = self._found.read
        if read.problems:
            raise InvalidInput(
                f"{SETTINGS_NAME} has problems",
                problems=with_sources(read.problems, self.root),
                files=1,
            )
        return read.settings

    @property
    def lockfile(self) -> Lock:
        """`compose.lock` as it was read first; empty if there is none. Raises `InvalidInput`."""
        return self._sources.lock

    def current_lock(self) -> Lock:
        """`compose.lock` as it is now, after an apply too. Raises `InvalidInput`."""
        return self._read_lock(self.root)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Every recipe under the root, by path. Raises `InvalidInput` with all their problems."""
        sources = self._sources
        if sources.problems:
            problems = with_sources(sources.problems, self.root)
            raise InvalidInput("the recipes have problems", problems=problems, files=sources.files)
        return sources.recipes

    @property
    def files(self) -> tuple[Path, ...]:
        """The recipe files that paths and patterns choose; they may not be valid."""
        return tuple(self._found.chosen)

    @property
    def settings_exclude(self) -> bool:
        """Whether the settings, or naming them as a path, keep files from being chosen."""
        return self._found.excluded

    @property
    def checked_files(self) -> tuple[Path, ...]:
        """The files that `validate` checks: those that are meant, by default the whole project's.

        Raises `InvalidInput` if the lock can't be read, `UsageError` for a `since` that git doesn't
        know.
        """
        return self._sources.chosen

    @property
    def left_out(self) -> LeftOut:
        """How many of the project's recipe files `validate` doesn't check. Raises as that does."""
        from composer.planner import LeftOut

        files = self._sources.files
        return LeftOut(files - len(self.checked_files), files, self._why_left_out)

    @property
    def _why_left_out(self) -> str:
        """Why the other recipes of the project are not meant."""
        excluded = [f"excluded by {SETTINGS_NAME}"] if self._found.read.settings.exclude else []
        return ", or ".join([*filter(None, [self.selection.why_left_out]), *excluded])

    @cached_property
    def selected(self) -> frozenset[str] | None:
        """The paths of the recipes that are meant, relative to the root; None: all of them."""
        if self.selection.since is not None:
            meant: Iterable[Path] = self.checked_files
        elif self.selection.names_files:
            meant = self._found.chosen
        elif self.left_out.recipes:  # the settings exclude a file that the lock names
            meant = self.checked_files
        else:
            return None
        return frozenset(relative(file, self.root) or "" for file in meant)

    @property
    def target_context(self) -> TargetContext:
        """What a target may know of this project."""
        from composer.targets.kind import TargetContext

        return TargetContext(
            self.root,
            tuple(recipe.path for recipe in self.recipes),
            tuple(self.lockfile.targets),
            lambda create: self.prepare_state() if create else self.state,
            self.target_defaults,
        )

    @property
    def target_defaults(self) -> TargetDefaults:
        """What holds of targets where neither the caller nor the environment says otherwise.

        Raises `InvalidInput` with the problems of `compose.toml`.
        """
        from composer.files.state import remembered_library
        from composer.targets.kind import REMEMBERED, TargetDefaults

        settings = self.settings
        inside = self.root / settings.library if settings.library else None
        defaults = TargetDefaults(settings.target, settings.project, inside)
        with suppress(ComposeError):  # what needs the state folder says what is wrong with it
            if outside := remembered_library(self.state):
                return replace(defaults, library=outside, library_source=REMEMBERED)
        return defaults

    def prepare_state(self) -> Path:
        """The state folder, created if it is missing. Raises `InvalidInput`."""
        from composer.files.state import prepare_state

        return prepare_state(self.state, self.root)

    def without_broken_recipes(self) -> Project:
        """The same project, with no recipes at all if any has a problem: for looking around."""
        sources = self._sources
        if not sources.problems:
            return self
        other = copy(self)
        other.__dict__["_sources"] = sources._replace(recipes=(), problems=())
        return other

    def options(self, options: Options) -> Options:
        """The same options, about the recipes that are meant, and by the project's settings.

        Raises `UsageError` where a name to upgrade is in no recipe, or `expect` isn't a plan.
        """
        from composer.project.options import ApplyOptions, check_readable
        from composer.project.planning import check_names

        check_readable(options)
        check_names(self.recipes, options)
        if isinstance(options, ApplyOptions) and options.parallelism is None:
            options = replace(options, parallelism=self.settings.parallelism)
        return replace(options, selected=self.selected, why_left_out=self._why_left_out)

    @contextmanager
    def exclusive(self, wait: float = 0.0) -> Iterator[None]:
        """Let no other process change this project meanwhile; it may be entered again within.

        Waits `wait` seconds for another to end. Raises `Refused`, naming who is at work. What was
        read before is read again when it is needed: that process may have changed it.
        """
        if self._alone:
            yield
            return
        from composer.files.exclusive import only_one

        with only_one(self.root, self.state, wait=wait):
            self._alone = True
            try:
                self._found = self._find()
                for name in ("_sources", "selected"):
                    self.__dict__.pop(name, None)
                yield
            finally:
                self._alone = False

    # --- use cases -----------------------------------------------------------------------

    def validate(self) -> tuple[Problem, ...]:
        """Everything that is wrong with the recipes that are meant, by file and line.

        Names must be unique in the whole project, so all of it is read. Raises `InvalidInput` if
        the lock can't be read.
        """
        return with_sources(problems_of(self._sources, self.root), self.root)

    def check_names(
        self, library: Path | str | None = None, *, env: Mapping[str, str] | None = None
    ) -> CheckedNames:
        """Whether the LoRAs exist that the recipes name; no target is asked, nothing is written.

        A name that the lock pins is right. Others are looked up in `library`, by default in that of
        the project, if a plan would take LoRAs from there. `env` is the environment that chooses
        library and target. Raises `InvalidInput` if the lock can't be read, `UsageError` if there
        is no such library.
        """
        from composer.project.lora_names import CheckedNames, check_names

        if self._found.read.problems:  # what holds of the project is unknown: `validate` says why
            return CheckedNames()
        environment = {**(env or {}), **self.state_settings}
        return check_names(self._sources, self, library, environment)

    def lora_names(
        self,
        library: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        seconds: float = math.inf,
    ) -> list[str]:
        """The names that recipes may use for LoRAs, as editors and shells offer them.

        They are those of the `library` (by default the project's), else those that the lock pins;
        no target is asked. `env` and what is raised are as for `check_names`. After so many
        `seconds` files are opened no more, and have their own names instead of their titles.
        """
        from composer.project.lora_names import lora_names

        environment = {**(env or {}), **(self.state_settings if self._state_base else {})}
        return lora_names(self, library, environment, seconds=seconds)

    def plan(
        self,
        target: Target,
        options: PlanOptions | None = None,
        *,
        base: str | None = None,
        advise: bool = True,
    ) -> ReviewedPlan:
        """What `apply` would do for every recipe, and why. The target is read, nothing is written.

        `base` is a lock file or a git revision: the plan then tells edits of the lock that no
        recipe explains. With `advise`, the target is also asked for prices and whether the LoRAs
        of a mix interfere; the local target remembers that in its state folder. Raises
        `InvalidInput`, and what the target raises.
        """
        from composer.project.options import PLAN_DEFAULTS
        from composer.project.planning import plan_online

        options = self.options(options or PLAN_DEFAULTS)
        return plan_online(self, target, options, base=base, advise=advise)

    def plan_offline(
        self, key: str, options: PlanOptions | None = None, *, base: str | None = None
    ) -> ReviewedPlan:
        """The recipes against one target's part of the lock alone; no target is asked.

        `key` is the target's name in the lock: `local`, or a base URL with `#PROJECT`.
        """
        from composer.project.options import PLAN_DEFAULTS
        from composer.project.planning import plan_offline

        return plan_offline(self, key, self.options(options or PLAN_DEFAULTS), base=base)

    def apply(
        self,
        target: Target,
        plan: ReviewedPlan | Plan | None = None,
        options: ApplyOptions | None = None,
        *,
        on_plan: Callable[[ReviewedPlan], None] = lambda plan: None,
        on_step: Callable[[Step], None] = lambda step: None,
        stop: threading.Event | None = None,
    ) -> Report:
        """Make the target what the recipes say, and write the ids into `compose.lock`.

        It plans again first. With `plan`, it runs only if every change is one of that plan's, and
        keeps an untrained composition that only the lock names, as with `options.expect`.
        `on_plan` is called before the first write, `on_step` from any thread as work goes on;
        once `stop` is set, nothing new is begun. Raises `Refused` for what a guard, `options` or
        `plan` don't allow. What fails for one recipe is in the report, and the others go on.
        """
        from composer.project.applying import Watcher, apply
        from composer.project.options import APPLY_DEFAULTS

        watcher = Watcher(on_plan, on_step, stop)
        return apply(self, target, plan, self.options(options or APPLY_DEFAULTS), watcher)

    def status(self, target: Target) -> ReviewedPlan:
        """For each recipe, whether it, the lock and the target agree: `action.drift` says what
        changed on the target, though neither recipe nor lock did.
        """
        return self.plan(target, advise=False)

    def report(self, target: Target | str | None = None, *, compare: bool = True) -> ProjectReport:
        """The whole project as its pages show it: for each composition its state, its mix, the
        images of it on this machine and the commits that changed its recipe, and its LoRAs.

        A `target` is only read. With its key in the lock, or None for the lock's only one, no
        target is asked: then recipes and lock alone are told. `compare` false leaves out how the
        LoRAs of a mix interact, which only the local target can tell. Raises as `plan`.
        """
        from composer.project.reporting import report
        from composer.project.sources import only_key

        return report(self, only_key(self.root) if target is None else target, compare=compare)

    def write_report(
        self,
        report: ProjectReport,
        out: str | PathLike[str],
        *,
        dry_run: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> WrittenReport:
        """Write the pages of a report into the folder `out`, to be looked at without a server.

        Only what has changed since the last time is written, and what no page needs any more is
        removed. Raises `Refused` for a folder that has other files, `UsageError` for a place that
        can't be one. `progress` is called with 0..1 and may raise to cancel.
        """
        from composer.project.publishing import write_report

        return write_report(report, Path(out), dry_run=dry_run, progress=progress)

    def lock(
        self, target: Target, options: PlanOptions | None = None, *, dry_run: bool = False
    ) -> Pinned:
        """Look up the LoRAs that recipes name, and pin their ids in `compose.lock`.

        Nothing is created on the target. `options.upgrade` and `upgrade_all` look pinned names up
        again. With `options.locked` nothing is written, and a pin that is missing or would move
        raises `Refused`. A recipe whose LoRAs can't be pinned is in the result.
        """
        from composer.project.locking import pin
        from composer.project.options import PLAN_DEFAULTS

        options = self.options(options or PLAN_DEFAULTS)
        with nullcontext() if dry_run or options.locked else self.exclusive():
            return pin(self, target, options, dry_run=dry_run)

    def check_pins(self, key: str, options: PlanOptions | None = None) -> None:
        """Raise `Refused` where one target's part of the lock lacks a pin; no target is asked."""
        from composer.project.locking import check_pins
        from composer.project.options import PLAN_DEFAULTS

        check_pins(self, key, self.options(options or PLAN_DEFAULTS))

    def repair_lock(self, *, dry_run: bool = False) -> MergedLock:
        """Merge both sides of a git conflict in `compose.lock`; no target is asked.

        Raises `InvalidInput` where a side can't be read.
        """
        from composer.project.locking import repair

        with nullcontext() if dry_run else self.exclusive():
            return repair(self.root, dry_run=dry_run)

    def doctor(
        self, target: str | TargetOptions | None, env: Mapping[str, str], *, offline: bool = False
    ) -> tuple[Check, ...]:
        """Check this machine, the project and the target for problems. Nothing is changed.

        `target` and `env` are what `open_target` would be given. A problem is a check whose state
        is `wrong`, never an exception: for a project that may have no recipes, make it with
        `may_be_empty`. With `offline`, no target is asked.
        """
        from composer.project.doctor import examine
        from composer.targets.kind import TargetOptions

        options = target if isinstance(target, TargetOptions) else TargetOptions(target)
        return examine(self, options, env, offline=offline)

    def inspect(
        self, target: Target, progress: Callable[[float], None] = lambda share: None
    ) -> list[Inspection]:
        """What the LoRAs of each recipe are, and do to each other in its mix.

        Only the local target can: it finds them by the lock's pins, else by name. Raises
        `UsageError` for another target, `ComposeError` for a recipe whose LoRAs aren't there.
        `progress` is called with 0..1 and may raise to cancel.
        """
        from composer.project.planning import inspect

        return inspect(self, target, progress)

    def open_renderer(self, target: Target, options: RendererOptions | None = None) -> Renderer:
        """Open what makes images of the target's LoRAs: a base model of it, or a pipeline here.

        Use it as a context manager, and keep the target open meanwhile. Raises `UsageError` where
        no renderer can show this target's LoRAs, or what it needs is not installed.
        """
        from composer.project.options import RENDERER_DEFAULTS
        from composer.project.rendering import open_renderer

        return open_renderer(self, target, options or RENDERER_DEFAULTS)

    def preview(
        self,
        target: Target,
        renderer: Renderer,
        options: PreviewOptions | None = None,
        *,
        on_price: Callable[[Price], None] = lambda price: None,
        on_rendering: Callable[[Rendering], None] = lambda rendering: None,
    ) -> PreviewReport:
        """Make images of every recipe that changed: without LoRA, of its mix before, and after.

        Of a project whose selection names files, those recipes are shown, changed or not. Only
        images that this machine doesn't have are made. `on_price` is told how many those are, and
        what they cost, before the first is made, `on_rendering` from any thread what happens to
        each. Raises `UsageError` for what can't be rendered, and `Refused` where images cost
        something and `options` don't allow as much. What fails for one image is in the report,
        and so are notes on recipes that are left out.
        """
        from composer.project.options import PREVIEW_DEFAULTS
        from composer.project.previewing import preview
        from composer.project.rendering import RenderWatcher

        watcher = RenderWatcher(on_price, on_rendering)
        return preview(self, target, renderer, options or PREVIEW_DEFAULTS, watcher)

    def write_preview(
        self, report: PreviewReport, out: str | Path, *, force: bool = False, image_url: str = ""
    ) -> list[Path]:
        """Write a preview or a sweep into a folder: a contact sheet of each recipe as PNG and WebP,
        `index.html`, `previews.json` and `preview.md`. The paths of all files.

        Files that an earlier call wrote there on this machine are replaced. Raises `Refused` for
        others, unless `force` is set. `image_url` stands before the sheets' names in Markdown.
        """
        from composer.project.preview_files import file_names, write_preview

        view = write_preview(self, report, str(out), force=force, image_url=image_url)
        return [Path(out) / name for name in file_names(view)]

    def entries(self, target: Target | str) -> dict[str, Entry]:
        """The lock's entries for a target, by recipe path, as lock and journal have them now."""
        from composer.lock import remember

        key = target if isinstance(target, str) else target.key
        return dict(remember(self.root, key, self.state).entries)

    def outputs(self, target: Target | str | None = None) -> dict[str, str]:
        """The names of the recipes whose composition was trained, each with its model id.

        Without `target` (or its key in the lock): the lock's only one. Raises `UsageError` if the
        lock has several.
        """
        from composer.project.sources import only_key, trained

        return trained(self.entries(only_key(self.root) if target is None else target))

    def output(self, target: Target | str, recipe: str) -> Entry:
        """The lock's entry of a recipe (by path or name): its trained composition and content.

        Raises `UsageError` for a recipe that the lock doesn't have, `ComposeError` for one that has
        no trained composition.
        """
        from composer.project.sources import trained_entry

        return trained_entry(self.entries(target), recipe)

    def result_files(self, target: Target, ids: Iterable[str]) -> dict[str, Path]:
        """The files of trained compositions on this machine, by id: the local target has them."""
        from composer.project.pulling import result_files

        return result_files(target, ids)

    def usage(self, target: Target | str, recipe: str, program: str) -> str:
        """How to make an image with a recipe's trained composition, as a text to paste.

        `program` is one that the target's kind knows, as `diffusers` or `comfyui`. Raises as
        `output`, `UsageError` for another program, `ComposeError` where the local target's file is
        not on this machine.
        """
        from composer.project.pulling import usage

        key = target if isinstance(target, str) else target.key
        return usage(key, self.output(key, recipe), self.state, program)

    def forget(self, target: Target | str, *what: str, dry_run: bool = False) -> list[Forgotten]:
        """Take recipes (by path or name) or single ids out of the lock. Nothing is deleted.

        `target` may be its key in the lock. Raises `UsageError` for what the lock doesn't have.
        """
        from composer.project.applying import forget

        key = target if isinstance(target, str) else target.key
        with nullcontext() if dry_run else self.exclusive():
            return forget(self, key, what, dry_run=dry_run)

    def destroy(
        self,
        target: Target,
        what: Sequence[str] | None,
        options: PlanOptions | None = None,
        *,
        dry_run: bool = False,
        on_plan: Callable[[ReviewedPlan], None] = lambda plan: None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Report:
        """Delete the compositions of these recipes (by path or name) on the target, earlier ones
        too; None means all recipes of the lock. An id deletes one that no lock names.

        Deletes only what compose made and nothing protects. A dry run tells `on_plan`, and
        reports what is blocked. Raises `Refused` for what is not allowed.
        """
        from composer.project.applying import Watcher, delete, destroying
        from composer.project.options import PLAN_DEFAULTS

        options, watcher = options or PLAN_DEFAULTS, Watcher(on_plan, on_step)
        with nullcontext() if dry_run else self.exclusive():
            return delete(self, target, destroying(self, what), options, watcher, dry_run=dry_run)

    def prune(
        self,
        target: Target,
        options: PlanOptions | None = None,
        *,
        dry_run: bool = False,
        on_plan: Callable[[ReviewedPlan], None] = lambda plan: None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Report:
        """Delete earlier compositions, and those whose recipe's file is gone; else as `destroy`."""
        from composer.project.applying import Watcher, delete, pruning
        from composer.project.options import PLAN_DEFAULTS

        options, watcher = options or PLAN_DEFAULTS, Watcher(on_plan, on_step)
        with nullcontext() if dry_run else self.exclusive():
            return delete(self, target, pruning(self), options, watcher, dry_run=dry_run)

    def prune_local(self, target: Target, *, dry_run: bool = False) -> list[str]:
        """Delete the local target's results that no lock entry names; returns their ids.

        Raises `UsageError` for another target.
        """
        from composer.project.applying import prune_local

        with nullcontext() if dry_run else self.exclusive():
            return prune_local(self, target, dry_run=dry_run)

    def check_init(self, library: Path | None) -> None:
        """Raise `UsageError` or `ComposeError` where `init` would, before a target is opened."""
        from composer.project.starting import check_library, check_place

        check_place(self.root)
        if library is not None:
            check_library(self, library)

    def init(
        self,
        target: Target,
        *,
        library: Path | None = None,
        workflow: str | None = None,
        dry_run: bool = False,
    ) -> Setup:
        """Write what a new project needs: a first recipe of the target's LoRAs, the recipes'
        schema, lines of `.gitignore` and `.gitattributes`, the lock's merge driver, the pre-commit
        hooks, and the workflows of `github` or `gitlab`. What is there is kept.

        `library` is remembered: inside the project in `compose.toml`, else on this machine. Raises
        `UsageError` where `compose.toml` names another one, and for a folder that can be none.
        """
        from composer.project.starting import start

        with nullcontext() if dry_run else self.exclusive():
            return start(self, target, library, workflow, dry_run=dry_run)

    # `import` is a keyword of Python, hence the longer name.
    def import_models(
        self, target: Target, ids: Sequence[str] | None = None, *, dry_run: bool = False
    ) -> list[Imported]:
        """Write recipes into `recipes/`, and lock entries, for compositions that exist.

        None means every composition that the lock doesn't have. What a recipe can't express is
        skipped, with the reason.
        """
        from composer.project.importing import import_models

        with nullcontext() if dry_run else self.exclusive():
            return import_models(self, target, ids, dry_run=dry_run)

    def import_workflows(
        self,
        target: Target,
        *files: str | PathLike[str],
        name: str | None = None,
        dry_run: bool = False,
    ) -> list[Imported]:
        """Write a recipe for each mix of LoRAs in ComfyUI workflows, or images that have one.

        A workflow that samples with several models has several mixes. `name` is the recipe's, by
        default the file's. What a recipe can't express is skipped, with the reasons. Raises
        `InvalidInput` for a file that is no workflow, and writes nothing then.
        """
        from composer.project.workflows import import_workflows

        paths = [Path(file) for file in files]
        with nullcontext() if dry_run else self.exclusive():
            return import_workflows(self, target, paths, name=name, dry_run=dry_run)

    def save_recipe(
        self,
        target: Target,
        merged: Merged,
        file: str | PathLike[str],
        *,
        force: bool = False,
        dry_run: bool = False,
    ) -> Recipe:
        """Keep a merge of LoRA files as a recipe in `file`, of the same LoRAs, scales and options.

        `merged` is what `composer.lora.merge` returned, with `dry_run` too; an output format is
        not kept. The LoRAs must be of the target's library. With `force`, a recipe that is there
        gets these LoRAs and keeps its name, description and tags. Raises `UsageError` for what
        can't be a recipe, and `Refused` if `file` exists and `force` is not set.
        """
        from composer.project.saving import save_recipe

        with nullcontext() if dry_run else self.exclusive():
            return save_recipe(self, target, merged, Path(file), force=force, dry_run=dry_run)

    def sweep(
        self,
        target: Target,
        renderer: Renderer,
        recipe: str,
        axes: Mapping[str, Sequence[float]],
        options: SweepOptions | None = None,
        *,
        on_price: Callable[[Price], None] = lambda price: None,
        on_rendering: Callable[[Rendering], None] = lambda rendering: None,
    ) -> PreviewReport:
        """Images of a recipe (by path or name) with one or two of its LoRAs at several scales.

        `axes` are the scales by the LoRAs' names or ids, as the recipe has them. `on_price` is told
        how many images are missing, and what they cost, before the first one is made;
        `on_rendering`, from any thread, of each image. Raises `UsageError` for what can be no axis,
        and `Refused` for more images or a higher cost than `options` allow. What fails for one
        image is in the report.
        """
        from composer.previews.sweeping import Sweep
        from composer.project.options import SWEEP_DEFAULTS
        from composer.project.rendering import RenderWatcher
        from composer.project.sweeping import sweep

        asked = Sweep.of(find_recipe(self.recipes, recipe), axes)
        watcher = RenderWatcher(on_price, on_rendering)
        return sweep(self, target, renderer, asked, options or SWEEP_DEFAULTS, watcher)

    def promote(
        self,
        recipe: str,
        place: str,
        axes: Mapping[str, Sequence[float]] | None = None,
        *,
        dry_run: bool = False,
    ) -> Promoted:
        """Write the scales of a place, as `B3`, of a sweep into the recipe's file.

        It is the recipe's last sweep, or the one with these `axes`; no image is needed. `recipe` is
        a path or a name. No other character of the file changes. Raises `UsageError` where there is
        no such place or sweep, and `Refused` where the recipe's other concepts have changed since.
        """
        from composer.project.promoting import promote

        with nullcontext() if dry_run else self.exclusive():
            path = find_recipe(self.recipes, recipe).path
            return promote(self, path, place, axes, dry_run=dry_run)

    def lora_folder(
        self, program: str, env: Mapping[str, str], *, library: Path | str | None = None
    ) -> Path:
        """Where a program on this machine looks for LoRAs, as `pull` can write them there.

        `comfyui` is the one that is known: its folder is `models/loras` of the ComfyUI that
        COMFYUI_PATH in `env` names, else the folder of that name which the project's library
        (`library`, or as `open_target` finds it) is or is in, else that of a ComfyUI in a usual
        place. Raises `UsageError` if there is none.
        """
        from composer.project.pulling import lora_folder

        return lora_folder(self, program, env, library)

    def pull(
        self,
        target: Target,
        out: str,
        *recipes: str,
        force: bool = False,
        dry_run: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> list[Pulled]:
        """Write the trained results of recipes (by path or name; by default all) to files.

        `out` is a folder, which is created if it ends in `/`, or a `.safetensors` file for one
        recipe. With `force`, files that have other bytes are replaced. Raises `UsageError`; what
        concerns one recipe alone is in its result. `progress` is called with 0..1.
        """
        from composer.project.pulling import pull

        return pull(self, target, recipes, out, force=force, dry_run=dry_run, progress=progress)
