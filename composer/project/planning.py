"""From a project and a target to a plan that a reader gets: nothing is written."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from composer.errors import ComposeError, InvalidInput, UsageError
from composer.files.delivery import check_output_link
from composer.files.git import git
from composer.files.revisions import RevisionOption, commit_of
from composer.lock import LOCK_NAME, read_file, read_merged, refuse_large, remember
from composer.model import Lock
from composer.output.plan_formats import PLAN_FORMATS
from composer.output.plan_view import PlanView
from composer.planner import (
    CHANGES,
    MARKERS,
    compare_locks,
    plan,
    unreadable,
    with_blocked,
    with_recovered,
)
from composer.planner import plan_offline as plan_by_lock
from composer.project.options import PLAN_DEFAULTS, check_approved
from composer.targets.base import Search, Target, observe
from composer.text import did_you_mean, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.lora import Inspection
    from composer.lora.inspection import Advice
    from composer.model import Concept, Content, Recipe
    from composer.planner import Action, Options, Plan
    from composer.project.options import PlanOptions
    from composer.project.project import Project


@dataclass(frozen=True, slots=True)
class ReviewedPlan(PlanView):
    """What `Project.plan` returns. `plan` is the bare plan; the rest is what is shown with it."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """The answer to every recipe, by path."""
        return self.plan.actions

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change something on the target."""
        return self.plan.changes

    @property
    def blocked(self) -> tuple[Action, ...]:
        """The actions that a problem on the target stops."""
        return self.plan.blocked

    @property
    def digest(self) -> str:
        """64 hex digits for all changes together: what `ApplyOptions.expect` compares."""
        return self.plan.digest

    def check(self, options: PlanOptions) -> None:
        """Raise `Refused` where `locked`, `expect` or `digest` don't allow this plan.

        Guards are not asked here: a plan may be shown that `apply` would refuse.
        """
        check_approved(self.plan, options)

    def to_text(self) -> str:
        """The plan for a terminal."""
        return PLAN_FORMATS["text"](self)

    def to_json(self) -> str:
        """The plan for programs, by the published schema `plan`."""
        return PLAN_FORMATS["json"](self)

    def to_markdown(self) -> str:
        """The plan for a review comment, within `budget`."""
        return PLAN_FORMATS["markdown"](self)


# --- making a plan -----------------------------------------------------------------------


def check_names(recipes: Sequence[Recipe], options: Options) -> None:
    """Raise `UsageError` where a name to upgrade is in no recipe."""
    names = {ref.name for recipe in recipes for ref in recipe.concepts}
    for name in sorted(options.upgrade):
        if name not in names:
            near = did_you_mean(name, [other for other in names if other])
            listed = ", ".join(sorted(visible(other) for other in names if other))
            raise UsageError(
                f"--upgrade: no recipe has a concept named {visible(name)}",
                hint=f"did you mean {visible(near)}?"
                if near
                else f"the names: {shorten(listed, 300)}",
            )


def build_plan(project: Project, target: Target, options: Options) -> Plan:
    """The bare plan of what lock, journal and target say now."""
    memory = remember(project.root, target.key, project.state, lock=project.current_lock())
    observed = observe(target, project.recipes, memory, Search(target.grace))
    planned = plan(project.recipes, with_recovered(memory, observed), observed, options)
    return without_unfit(planned, target)


def plan_online(
    project: Project, target: Target, options: PlanOptions, *, base: str | None, advise: bool
) -> ReviewedPlan:
    """The plan, with prices and advice from the target if asked for."""
    before = base_lock(base, project.root) if base is not None else None
    planned = build_plan(project, target, options)
    prices = _prices(planned, target) if advise else {}
    advised = advice(planned, target) if advise else {}
    return ReviewedPlan(_compared(planned, project, before), options.allowed, prices, advised)


def plan_offline(
    project: Project, key: str, options: PlanOptions, *, base: str | None
) -> ReviewedPlan:
    """The plan by the lock alone."""
    before = base_lock(base, project.root) if base is not None else None
    planned = plan_by_lock(project.recipes, project.lockfile.target(key), key, options)
    return ReviewedPlan(_compared(planned, project, before), options.allowed)


def _prices(planned: Plan, target: Target) -> dict[str, float]:
    """What the trainings of models that exist would cost, by recipe; a remote target knows."""
    prices = {}
    for action in planned.changes if target.remote else ():
        if action.model is not None and action.content is not None and action.model.untrained:
            price = target.price(action.model.id, action.content.training)
            if price is not None:
                prices[action.path] = price
    return prices


def _compared(planned: Plan, project: Project, base: Base | None) -> Plan:
    """The plan with what every target's part of the lock says otherwise than the base's."""
    edits, notes = [MARKERS] if project.lockfile.conflicted else [], planned.notes
    if base is not None and base.problem:
        edits.append(unreadable(base.problem))
    elif base is not None:
        diff = compare_locks(project.recipes, base.lock, project.lockfile, planned.target)
        edits, notes = [*edits, *diff.edits], (*notes, *diff.notes)
    return replace(planned, lock_edits=tuple(edits), notes=notes)


# --- advice on mixes ---------------------------------------------------------------------

log = logging.getLogger("composer.inspect")


@runtime_checkable
class Inspecting(Protocol):
    """A target that can read the weights of LoRAs, as the local target does."""

    def unfit(self, contents: Mapping[str, Content]) -> Mapping[str, str]:
        """Why some of these can't be composed, by key."""

    def advise(self, mixes: Mapping[str, Sequence[Concept]]) -> Mapping[str, Advice]:
        """What to know of these mixes, by key; nothing of a LoRA alone."""

    def inspect(self, concepts: Iterable[Concept], progress: Callable[[float], None]) -> Inspection:
        """What these LoRAs are, and do together at their scales."""


def without_unfit(planned: Plan, target: Target) -> Plan:
    """The plan, where what the target can't compose is blocked: training it would fail."""
    if not isinstance(target, Inspecting):
        return planned
    contents = {a.path: a.content for a in planned.actions if a.must_train and a.content}
    return with_blocked(planned, target.unfit(contents))


def inspect(
    project: Project, target: Target, progress: Callable[[float], None]
) -> list[Inspection]:
    """See `Project.inspect`."""
    if not isinstance(target, Inspecting):
        raise UsageError(
            f"the target {target.key} can't read LoRA files", hint="use --target local"
        )
    actions = build_plan(project, target, project.options(PLAN_DEFAULTS)).actions
    actions = tuple(action for action in actions if action.recipe is not None)
    inspections = []
    for number, action in enumerate(actions):
        if action.content is None:
            raise ComposeError(f"{action.path}: {action.explanation.reason}")
        part = _part_of(progress, number, len(actions))
        inspection = target.inspect(concepts_of(action), part)
        inspections.append(replace(inspection, title=action.name, source=action.path))
    return inspections


def _part_of(progress: Callable[[float], None], number: int, count: int) -> Callable[[float], None]:
    """The progress of one of several equal parts."""
    return lambda share: progress((number + share) / count)


def advice(planned: Plan, target: Target) -> Mapping[str, Advice]:
    """What to know of the mixes that this plan makes, by recipe.

    Where there is none, the plan is as good.
    """
    if not isinstance(target, Inspecting):
        return {}
    made = [action for action in planned.actions if action.verb in CHANGES]
    try:
        return target.advise({action.path: concepts_of(action) for action in made})
    except Exception as error:  # whatever it is, it must not break a plan
        log.debug("no advice: %s", error)
        return {}


def concepts_of(action: Action) -> tuple[Concept, ...]:
    """The concepts in the order of the recipe; none where there is no recipe, or it is blocked."""
    if action.recipe is None or action.content is None:
        return ()
    pins = dict(action.transition.pins)
    order = [ref.model_id or pins.get(ref.name or "") for ref in action.recipe.concepts]
    return tuple(sorted(action.content.concepts, key=lambda c: order.index(c.model_id)))


# --- an earlier lock to compare with -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Base:
    """A lock to compare with; `problem` is why it can't be read and compared."""

    lock: Lock
    problem: str = ""


_NO_LOCK = "--base takes a compose.lock, or a revision"
_BASE = RevisionOption(
    "--base", "neither a file nor a git revision", without_git="give a lock file instead"
)


def base_lock(base: str, root: Path) -> Base:
    """The lock at the root in this revision, empty if it has none there, or the one in this file.

    What is both is a revision: a stranger's branch may add a file of any name. Where a revision's
    lock can't be read, the result says so, so that a later commit can repair it. Raises
    `UsageError` for what is neither, `InvalidInput` for a file that can't be read as a lock.
    """
    is_file = not base.startswith("-") and Path(base).is_file()
    try:
        commit = commit_of(root, base, _BASE)
    except UsageError:
        if is_file:
            return Base(_read(_file(base), base))
        raise
    try:
        data = _lock_at(root, commit, base)
        return Base(Lock() if data is None else _read(data, base))
    except InvalidInput as bad:
        return Base(Lock(), bad.message)


def _file(base: str) -> bytes:
    check_output_link(Path(base))
    return read_file(Path(base), _name(base), hint=_NO_LOCK)


def _lock_at(root: Path, commit: str, base: str) -> bytes | None:
    """The lock's bytes in this commit, None if it has none.

    Raises `UsageError`, and `InvalidInput` for one that is too large.
    """
    # A path that begins with ./ is meant from where git runs, which need not be the top level.
    path = f"{commit}:./{LOCK_NAME}"
    blob = git(root, "rev-parse", "--verify", "--quiet", path)
    tree = git(root, "cat-file", "-e", f"{commit}^{{tree}}")
    if blob.returncode and not tree.returncode:
        return None
    path = blob.stdout.decode().strip() or path
    size = git(root, "cat-file", "-s", path)
    if not size.returncode:
        refuse_large(int(size.stdout), _name(base), hint=_NO_LOCK)
    data = git(root, "cat-file", "blob", path)
    if data.returncode:
        shown = shorten(visible(base), 100)
        raise UsageError(
            f"--base: the {LOCK_NAME} of {shown} is not in this partial clone",
            hint=f"fetch it first: git show {shlex.quote(visible(base))}:./{LOCK_NAME}",
        )
    return data.stdout


def _read(data: bytes, base: str) -> Lock:
    try:
        return read_merged(data.decode("utf-8", "replace"), _name(base))
    except InvalidInput as bad:
        raise InvalidInput(bad.message, hint=_NO_LOCK) from bad


def _name(base: str) -> str:
    return f"the base's lock ({visible(base)})"
